"""Experiments: runs that resume and do not repeat themselves, their report, and the rotated digits."""

import argparse
import errno
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from stn.experiments import EXPERIMENTS, Experiment, Rotated, Training, execute, execute_all, read
from stn.experiments import report as reporting
from stn.experiments.__main__ import main
from stn.experiments.report import RESULTS, Summary, summarise
from stn.experiments.rotated import GRIDS, build, gains
from stn.experiments.runner import DamagedFileError, ProcessFailedError, Store
from stn.training import count_parameters

ROTATED = EXPERIMENTS["rotated"]
TINY = ["rotated", "--angle", "60", "--train-images", "128", "--epochs", "1", "--seeds", "0"]


@pytest.fixture(autouse=True)
def as_users_run_it(monkeypatch):
    """Processes of their own do not interpret the kernels, as conftest.py asks for; and no whole MNIST."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delenv("STN_DATA", raising=False)


class CutOff(Exception):
    pass


class NoisyTraining(Training):
    """A linear model that depends on all that a checkpoint must hold: momentum, dropout, drawn data."""

    def __init__(self):
        self.model = nn.Sequential(nn.Dropout(), nn.Linear(3, 1))
        optimiser = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        super().__init__(self.model, optimiser, torch.Generator().manual_seed(5))

    def epoch(self):
        loss = self.model(torch.rand(8, 3, generator=self.generator)).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return {"loss": loss.item(), "more": torch.rand(()).item()}


class Noisy(Experiment):
    name = "noisy"
    description = "For tests."
    epochs = 4
    keys = ("kind",)
    started = 0

    def add_arguments(self, parser):
        raise NotImplementedError

    def runs(self, arguments, seeds, epochs):
        raise NotImplementedError

    def start(self, run, device):
        self.started += 1
        return NoisyTraining()

    def table(self, results):
        raise NotImplementedError

    def draw(self, results):
        raise NotImplementedError


def cut_off_after(epoch):
    def tell(run, figures):
        if figures["epoch"] == epoch:
            raise CutOff

    return tell


def without_seconds(result):
    history = [
        {name: value for name, value in epoch.items() if name != "seconds"} for epoch in result["history"]
    ]
    return {**result, "history": history}


def test_a_run_writes_settings_versions_and_every_epoch(tmp_path):
    noisy = Noisy()
    run = noisy.run({"kind": "a", "rate": 0.5}, epochs=4, seed=7)
    told = []
    result = execute(noisy, run, tmp_path, tell=lambda run, figures: told.append((run, figures)))
    assert result == json.loads((tmp_path / "kind-a_seed-7.json").read_text(encoding="utf-8"))
    assert (result["settings"], result["epochs"], result["seed"]) == ({"kind": "a", "rate": 0.5}, 4, 7)
    assert (result["experiment"], result["device"]) == ("noisy", "cpu")
    assert result["versions"]["torch"] == torch.__version__
    assert told == [(run, figures) for figures in result["history"]]
    assert [figures["epoch"] for figures in result["history"]] == [1, 2, 3, 4]
    last = {name: result["history"][-1][name] for name in ("loss", "more")}
    assert result["final"] == {**last, "parameters": 4}


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(epoch, tmp_path):
    noisy = Noisy()
    run = noisy.run({"kind": "a"}, epochs=4, seed=0)
    expected = execute(noisy, run, tmp_path / "whole")
    with pytest.raises(CutOff):
        execute(noisy, run, tmp_path / "parts", tell=cut_off_after(epoch))
    assert read(tmp_path / "parts") == []
    assert Store(tmp_path / "parts").epochs_done(run, "cpu") == epoch
    told = []
    torch.rand(3)  # what was drawn in between does not matter
    result = execute(noisy, run, tmp_path / "parts", tell=lambda run, figures: told.append(figures["epoch"]))
    assert told == [1, 2, 3, 4][epoch:]
    assert without_seconds(result) == without_seconds(expected)
    assert sorted(path.name for path in (tmp_path / "parts").rglob("*") if path.is_file()) == [
        ".gitignore",
        "kind-a_seed-0.json",
    ]


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(tmp_path):
    noisy = Noisy()
    with pytest.raises(CutOff):
        execute(noisy, noisy.run({"kind": "a", "rate": 1}, 4, 0), tmp_path, tell=cut_off_after(2))
    other = noisy.run({"kind": "a", "rate": 2}, 4, 0)
    assert Store(tmp_path).epochs_done(other, "cpu") == 0
    assert len(execute(noisy, other, tmp_path)["history"]) == 4


def test_a_finished_run_is_not_run_again(tmp_path):
    noisy = Noisy()
    run = noisy.run({"kind": "a"}, 2, 0)
    result = execute(noisy, run, tmp_path)
    assert execute(noisy, run, tmp_path) == result
    execute_all(noisy, [run, noisy.run({"kind": "b"}, 2, 0)], tmp_path)
    assert noisy.started == 2


def test_a_file_of_another_run_is_not_taken_for_this_one(tmp_path):
    noisy = Noisy()
    execute(noisy, noisy.run({"kind": "a", "rate": 1}, 2, 0), tmp_path)
    with pytest.raises(ValueError, match=r"kind-a_seed-0\.json holds a run with rate 1, not 2: .*--output"):
        execute(noisy, noisy.run({"kind": "a", "rate": 2}, 2, 0), tmp_path)
    with pytest.raises(ValueError, match="holds a run with epochs 2, not 3"):
        execute_all(noisy, [noisy.run({"kind": "a", "rate": 1}, 3, 0)], tmp_path)


def test_a_run_leaves_threads_and_generators_as_they_were(tmp_path):
    noisy = Noisy()
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    first = execute(noisy, noisy.run({"kind": "a"}, 1, 0), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert execute(noisy, noisy.run({"kind": "b"}, 1, 0), tmp_path)["final"] == first["final"]
    assert execute(noisy, noisy.run({"kind": "a"}, 1, 1), tmp_path)["final"] != first["final"]


def test_git_ignores_checkpoints(tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    noisy = Noisy()
    with pytest.raises(CutOff):
        execute(noisy, noisy.run({"kind": "a"}, 2, 0), tmp_path / "results", tell=cut_off_after(1))
    assert len(list(tmp_path.rglob("*.pt"))) == 1
    status = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    assert status.stdout == b""


def test_the_old_systems_networks_have_its_sizes():
    assert count_parameters(build("none")) == 21_840
    for grid, localiser in zip(GRIDS, (21_738, 22_248, 22_962, 23_880), strict=True):
        for model in ("bounded", "unbounded"):
            assert count_parameters(build(model, grid)) == 21_840 + localiser


@pytest.mark.parametrize(
    ("model", "grid"), [("affine", None), *((m, g) for m in ("bounded", "unbounded") for g in GRIDS)]
)
def test_every_transformer_starts_at_the_identity_and_without_dropout(model, grid):
    transformer, classifier = build(model, grid)
    images = torch.rand(5, 1, 28, 28)
    assert torch.allclose(transformer.train()(images), images, atol=1e-5)
    assert not any(isinstance(layer, nn.Dropout | nn.Dropout2d) for layer in transformer.modules())
    assert any(isinstance(layer, nn.Dropout2d) for layer in classifier.modules())


def test_a_seed_starts_all_models_with_the_same_classifier():
    states = []
    for model, grid in (("none", None), ("bounded", 3)):
        torch.manual_seed(4)
        network = build(model, grid)
        states.append((network if model == "none" else network[1]).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_all_is_sixty_runs():
    parser = argparse.ArgumentParser()
    ROTATED.add_arguments(parser)
    runs = ROTATED.runs(parser.parse_args(["--all"]), [0, 1, 2], 10)
    assert len({run.name for run in runs}) == len(runs) == 60
    assert {run.settings["data"] for run in runs} == {"embedded digits"}
    assert {run.settings["train_images"] for run in runs} == {10_000}


def test_rotated_digits_go_on_with_the_same_figures(tmp_path):
    parser = argparse.ArgumentParser()
    ROTATED.add_arguments(parser)
    words = ["--model", "bounded", "--grid", "3", "--train-images", "100"]
    (run,) = ROTATED.runs(parser.parse_args(words), [0], 2)
    expected = execute(ROTATED, run, tmp_path / "whole")
    with pytest.raises(CutOff):
        execute(ROTATED, run, tmp_path / "parts", tell=cut_off_after(1))
    assert without_seconds(execute(ROTATED, run, tmp_path / "parts")) == without_seconds(expected)
    assert set(expected["final"]) == {"train_loss", "test_loss", "accuracy", "parameters"}


def test_two_jobs_find_what_one_does(tmp_path, capfd):
    words = [*TINY, "--model", "affine", "--seeds", "0", "1"]
    main([*words, "--output", str(tmp_path / "two"), "--jobs", "2"])
    main([*words[:-1], "--output", str(tmp_path / "one")])
    said = capfd.readouterr()
    assert "report rotated --output" in said.out
    assert "2/2" in said.err
    names = [f"angle-60_model-affine_seed-{seed}.json" for seed in (0, 1)]
    assert sorted(path.name for path in (tmp_path / "two").glob("*.json")) == names
    (one,), two = read(tmp_path / "one"), read(tmp_path / "two")
    assert without_seconds(two[0]) == without_seconds(one)
    assert two[1]["final"] != one["final"]
    main([*words, "--output", str(tmp_path / "two"), "--jobs", "2"])
    assert "2 of 2 runs are in" in capfd.readouterr().out


def test_a_process_that_fails_ends_the_command(tmp_path, capfd):
    run = ROTATED.run({"angle": 60.0, "model": "nonsense", "grid": None}, 1, 0)
    with pytest.raises(
        ProcessFailedError, match="process of angle-60_model-nonsense_seed-0 failed with exit code 1"
    ):
        execute_all(ROTATED, [run], tmp_path, jobs=2)
    assert "model should be one of none, affine, bounded, unbounded" in capfd.readouterr().err


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_folder_that_cannot_be_made_is_said_before_the_first_epoch(jobs, tmp_path, capfd):
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "results"
    with pytest.raises(SystemExit) as ended:
        main([*TINY, "--model", "none", "--output", str(output), "--jobs", jobs])
    assert str(ended.value).startswith("error: ")
    captured = capfd.readouterr()
    assert str(output) in str(ended.value) + captured.err
    assert "Traceback" not in captured.err
    assert "epoch 1" not in captured.out


@pytest.mark.parametrize("name", ["write_bytes", "write_text"], ids=["checkpoint", "result"])
def test_a_full_disk_leaves_nothing_half_written_and_the_run_goes_on_later(name, monkeypatch, tmp_path):
    noisy = Noisy()
    run = noisy.run({"kind": "a"}, epochs=4, seed=0)
    expected = execute(noisy, run, tmp_path / "whole")
    writings = []
    write = getattr(Path, name)

    def fill_the_disk(path, content, **options):
        writings.append(path)
        if len(writings) == 2:
            write(path, content[: len(content) // 2], **options)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, content, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, name, fill_the_disk)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            execute(noisy, run, tmp_path / "full")
    done = {"write_bytes": 1, "write_text": 4}[name]  # the text before the result's is .gitignore's
    assert sorted(path.name for path in (tmp_path / "full").rglob("*") if path.is_file()) == [
        ".gitignore",
        "kind-a_seed-0.pt",
    ]
    assert Store(tmp_path / "full").epochs_done(run, "cpu") == done
    assert without_seconds(execute(noisy, run, tmp_path / "full")) == without_seconds(expected)


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_damaged_checkpoint_is_named_and_left_as_it_is(share, tmp_path):
    noisy = Noisy()
    run = noisy.run({"kind": "a"}, epochs=4, seed=0)
    with pytest.raises(CutOff):
        execute(noisy, run, tmp_path, tell=cut_off_after(2))
    path = tmp_path / "checkpoints" / "kind-a_seed-0.pt"
    damaged = path.read_bytes()[: int(share * path.stat().st_size)]
    path.write_bytes(damaged)
    with pytest.raises(DamagedFileError, match=f"{re.escape(str(path))} is damaged .*: remove it"):
        execute(noisy, run, tmp_path)
    assert path.read_bytes() == damaged
    path.unlink()
    assert len(execute(noisy, run, tmp_path)["history"]) == 4


class Unpickled:
    """What says, in a file, which function to call when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_cannot_run_code(tmp_path):
    noisy = Noisy()
    run = noisy.run({"kind": "a"}, epochs=4, seed=0)
    Store(tmp_path).make()
    torch.save({"record": Unpickled(tmp_path / "was here")}, tmp_path / "checkpoints" / "kind-a_seed-0.pt")
    with pytest.raises(DamagedFileError, match="UnpicklingError"):
        execute(noisy, run, tmp_path)
    assert not (tmp_path / "was here").exists()


def ends_with(*words):
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as ended:
        main([*TINY, "--model", "none", *words])
    (line,) = str(ended.value).splitlines()
    return line


def test_a_damaged_checkpoint_ends_the_command_in_one_line(tmp_path):
    path = tmp_path / "checkpoints" / "angle-60_model-none_seed-0.pt"
    path.parent.mkdir()
    path.write_bytes(b"no checkpoint")
    assert ends_with("--output", str(tmp_path)).startswith(f"error: {path} is damaged ")


@pytest.mark.parametrize("content", ["", '{"settings": {', "[]", "3", '{"settings": {}, "epochs": 1}'])
@pytest.mark.parametrize(
    "command", [[*TINY, "--model", "none"], ["report", "rotated"]], ids=["run", "report"]
)
def test_a_damaged_result_is_named(command, content, tmp_path, capsys):
    path = tmp_path / "angle-60_model-none_seed-0.json"
    path.write_text(content)
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--output", str(tmp_path)])
    assert f"{path} is damaged" in capsys.readouterr().err.splitlines()[-1]
    assert path.read_text() == content


def more_than_there_is(*arguments):
    torch.empty(2**55, dtype=torch.uint8)  # 32 petabytes


def more_than_a_gpu_has(*arguments):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee the documentation.")


@pytest.mark.parametrize("start", [more_than_there_is, more_than_a_gpu_has])
def test_out_of_memory_is_said_in_one_line(start, monkeypatch, tmp_path):
    monkeypatch.setattr(type(ROTATED), "start", start)
    line = ends_with("--output", str(tmp_path))
    assert line.startswith("error: out of memory: ")
    assert line.endswith("; the same command goes on from here")
    assert read(tmp_path) == []


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch, tmp_path):
    monkeypatch.setattr(type(ROTATED), "start", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ends_with("--output", str(tmp_path))


def invent(folder, accuracies, **others):
    """Result files: {(angle, model, grid): accuracies by seed}."""
    folder.mkdir(exist_ok=True)
    for (angle, model, grid), values in accuracies.items():
        for seed, accuracy in enumerate(values):
            settings = {"angle": angle, "model": model, "grid": grid, "data": "MNIST", "train_images": 60000}
            run = ROTATED.run({**settings, **others}, 10, seed)
            result = {"settings": run.settings, "epochs": 10, "seed": seed, "final": {"accuracy": accuracy}}
            (folder / f"{run.name}.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


INVENTED = {
    (60.0, "unbounded", 4): [95.0, 96.0, 97.0],
    (60.0, "unbounded", 2): [94.5, 95.5],
    (60.0, "none", None): [94.0, 94.0, 94.3],
    (90.0, "affine", None): [93.0],
}


def test_the_table_has_mean_and_spread_over_seeds(tmp_path, capsys):
    invent(tmp_path, INVENTED)
    main(["report", "rotated", "--output", str(tmp_path)])
    expected = """\
Rotated digits (MNIST, 60000 to train on), 10 epochs.
Accuracy on the test digits in %: mean ± standard deviation over seeds (how many)

angle  model                        grid 2            grid 4
60     none       94.10 ± 0.17 (3)
60     unbounded                    95.00 ± 0.71 (2)  96.00 ± 1.00 (3)
90     affine     93.00 (1)

Points gained over none, ± standard error

angle  model      grid 2        grid 4
60     unbounded  +0.90 ± 0.51  +1.90 ± 0.59
"""
    assert capsys.readouterr().out == expected


def test_a_summary_is_mean_standard_deviation_and_standard_error(tmp_path):
    results = read(invent(tmp_path, INVENTED))
    summary = summarise(results, "accuracy", Rotated.keys)[60.0, "unbounded", 4]
    assert summary == pytest.approx(Summary(96, 1, 1 / math.sqrt(3), 3))
    gain = gains(results)[60.0, "unbounded", 4]
    assert gain.mean == pytest.approx(1.9)
    assert gain.error == pytest.approx(math.sqrt(1 / 3 + 0.03 / 3))
    assert (90.0, "affine", None) not in gains(results)


def test_results_that_cannot_be_compared_are_refused(tmp_path, capsys):
    invent(tmp_path, INVENTED)
    invent(tmp_path, {(90.0, "none", None): [90.0]}, train_images=100)
    with pytest.raises(SystemExit):
        main(["report", "rotated", "--output", str(tmp_path)])
    assert "results should agree in train_images" in capsys.readouterr().err


def test_the_figure_shows_each_model_at_each_angle(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    invent(tmp_path, INVENTED)
    main(["report", "rotated", "--output", str(tmp_path), "--figure", str(tmp_path / "figure.png")])
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    with plt.rc_context():
        figure = ROTATED.draw(read(tmp_path))
    assert [ax.get_title() for ax in figure.axes] == ["turned within ±60°", "turned within ±90°"]
    labels = [ax.get_legend_handles_labels()[1] for ax in figure.axes]
    assert sorted(labels[0]) == ["none", "unbounded"]
    assert labels[1] == ["affine"]
    plt.close("all")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("rotated", "argument --model: one of none, affine, bounded, unbounded, or --all"),
        ("rotated --model tps", "argument --model: invalid choice: 'tps'"),
        ("rotated --model none --angle 181", "argument --angle: degrees above 0 and up to 180, not '181'"),
        ("rotated --model none --angle x", "argument --angle: degrees above 0 and up to 180, not 'x'"),
        ("rotated --model bounded --grid 1", "argument --grid: 2 to 20 rows and columns, not '1'"),
        ("rotated --all --grid 3", "argument --grid: not allowed with --all"),
        ("rotated --model none --train-images 10001", "argument --train-images: 1 to 10000, not 10001"),
        ("rotated --model none --seeds 0 -1", "argument --seeds: "),
        ("rotated --model none --epochs 0", "argument --epochs: a whole number of at least 1, not '0'"),
        ("rotated --model none --jobs two", "argument --jobs: a whole number of at least 1, not 'two'"),
        ("rotated --model none --device tpu", "argument --device: cpu, cuda or cuda:NUMBER, not 'tpu'"),
        ("rotated --model none --device cuda:99", "argument --device: 'cuda:99' is not there"),
        ("report nothing", "argument experiment: invalid choice: 'nothing'"),
        ("report rotated --output missing", "holds no results"),
    ],
)
def test_wrong_arguments_are_named(words, message, capsys):
    with pytest.raises(SystemExit) as left:
        main(words.split())
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_an_output_that_is_a_file_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        main(["rotated", "--model", "none", "--output", str(tmp_path / "file")])
    assert "argument --output: " in capsys.readouterr().err


def test_a_folder_without_mnist_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("STN_DATA", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["rotated", "--model", "none", "--output", str(tmp_path / "results")])
    assert f"STN_DATA: root {str(tmp_path)!r} lacks train-images-idx3-ubyte" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("words", [["--help"], ["rotated", "--help"], ["report", "--help"]])
def test_help_says_what_it_does_and_how_long(words, capsys):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "two hours with --jobs 2" in said or words != ["rotated", "--help"]


def test_the_command_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "stn.experiments", "rotated"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "python -m stn.experiments rotated: error: argument --model" in done.stderr


committed = sorted((RESULTS / "rotated").glob("*.json"))


@pytest.mark.skipif(len(committed) < 60, reason="the experiment has not been run")
def test_the_committed_results_show_what_an_unbounded_transformer_gains():
    results = read("rotated")
    assert reporting.common(results, Rotated.keys)["data"] == "MNIST"
    gained = gains(results)
    for grid in (3, 4, 5):
        gain = gained[60.0, "unbounded", grid]
        assert gain.seeds == 3
        assert gain.mean - gain.error >= 1
