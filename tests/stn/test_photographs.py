"""House numbers and birds as commands: smoke runs on small archives, resuming, schedules, what is missing."""

import json

import numpy as np
import pytest
import torch

from archives import write_birds, write_house_numbers
from stn.data.birds import Birds
from stn.experiments import EXPERIMENTS, __main__, birds, execute, photographs, svhn
from stn.experiments.birds import BirdTraining
from stn.experiments.birds_networks import BirdNetwork
from stn.experiments.comparison import parameters_to_learn
from stn.experiments.photographs import read_ahead
from stn.experiments.svhn import HouseNumberTraining
from stn.experiments.svhn_networks import HouseNumberNetwork

NUMBER = {"model": "cnn", "size": 64, "schedule": "smoke", "precision": "float32"}
BIRD = {"model": "cnn", "schedule": "smoke", "precision": "float32"}
SETTINGS = {"svhn": NUMBER, "birds": BIRD}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Noise, some of it with house numbers."""
    root, noise = tmp_path_factory.mktemp("archives"), np.random.default_rng(0)
    for folder, count in (("train", 5), ("extra", 4), ("test", 3)):
        images = {
            f"{number}.png": (
                noise.integers(0, 256, (40, 60)),
                [(number, 10, 5, 10, 20), *[(10, 22, 6, 10, 20)] * (number % 3)],
            )
            for number in range(1, count + 1)
        }
        write_house_numbers(root / "svhn" / folder, images)
    images = {
        f"{species:03}.bird/{number}.jpg": (noise.integers(0, 256, (260, 300)), species, number < 2)
        for species in (1, 200)
        for number in range(3)
    }
    write_birds(root / "birds", images)
    return root


@pytest.fixture(autouse=True)
def _small_archives(root, monkeypatch):
    monkeypatch.setenv("STN_SVHN", str(root / "svhn"))
    monkeypatch.setenv("STN_CUB", str(root / "birds"))
    svhn._images.cache_clear()


def run_of(name):
    return EXPERIMENTS[name].run(SETTINGS[name], 2, 0)


@pytest.mark.parametrize(
    ("name", "count", "figures"),
    [
        ("svhn", 6, {"train_loss", "validation_error", "test_loss", "error", "parameters"}),
        ("birds", 4, {"train_loss", "test_loss", "error", "parameters"}),
    ],
)
def test_a_smoke_run_ends_with_results_a_table_and_a_figure(name, count, figures, tmp_path, capsys):
    output = str(tmp_path)
    words = ["--schedule", "smoke", "--seeds", "3", "--device", "cpu", "--output", output]
    __main__.main([name, *words])
    results = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert len(results) == count
    assert all(set(result["final"]) == figures for result in results)
    capsys.readouterr()
    __main__.main(["report", name, "--output", output, "--figure", str(tmp_path / "a.png")])
    table = capsys.readouterr().out
    for model, paper in EXPERIMENTS[name].paper.items():
        assert model in table
        assert all(f"[{error:.1f}]" in table for error in paper.values())
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_that_was_cut_off_goes_on_with_the_same_figures(name, tmp_path):
    class CutOff(Exception):
        pass

    def cut_off(run, figures):
        raise CutOff

    experiment, run = EXPERIMENTS[name], run_of(name)
    whole = execute(experiment, run, tmp_path / "whole")
    with pytest.raises(CutOff):
        execute(experiment, run, tmp_path / "cut", tell=cut_off)
    assert execute(experiment, run, tmp_path / "cut")["final"] == whole["final"]


def test_what_is_read_does_not_depend_on_the_threads(monkeypatch):
    def batches():
        return list(BirdTraining(BIRD, 0, "cpu").batches(3))

    several = batches()
    monkeypatch.setattr(photographs, "THREADS", 1)
    for (images, species), (same, names) in zip(several, batches(), strict=True):
        assert torch.equal(images, same)
        assert torch.equal(species, names)
    assert not torch.equal(several[0][0], several[1][0])


def test_images_are_read_ahead_in_their_order():
    lists = (([number, 10 * number],) for number in range(7))
    batches = read_ahead(lambda number: (number, -number), lists)
    read = [(images.tolist(), targets.tolist()) for images, targets in batches]
    assert read == [([number, 10 * number], [-number, -10 * number]) for number in range(7)]


def test_an_image_that_cannot_be_read_is_an_error(root, tmp_path, monkeypatch):
    (tmp_path / "birds").mkdir()
    for path in (root / "birds").glob("*.txt"):
        (tmp_path / "birds" / path.name).write_text(path.read_text())
    monkeypatch.setenv("STN_CUB", str(tmp_path / "birds"))
    with pytest.raises(SystemExit) as left:
        __main__.main(["birds", "--models", "cnn", "--schedule", "smoke", "--output", str(tmp_path / "out")])
    assert str(left.value).startswith("error: [Errno 2] No such file or directory: ")


def test_images_that_are_held_out_are_not_trained_on_and_the_same_for_every_seed():
    one, two = (HouseNumberTraining(NUMBER, seed, "cpu") for seed in (0, 1))
    assert torch.equal(one.held_out, two.held_out)
    assert sorted([*one.held_out.tolist(), *one.chosen.tolist()]) == list(range(9))
    drawn = []
    one.draw = lambda index, seed: drawn.append(index) or (torch.zeros(1), 0)
    list(one.batches(20))
    assert set(drawn) == set(one.chosen.tolist())


def test_all_is_measured_once():
    training = BirdTraining(BIRD, 0, "cpu")
    (batch,) = training.in_order(training.test)
    assert batch[1].tolist() == [0, 199]


def test_a_bird_is_drawn_by_its_seed(root):
    one, two = (BirdTraining(BIRD, seed, "cpu") for seed in (0, 1))
    assert torch.equal(one.draw(0, 5)[0], two.draw(0, 5)[0])
    assert not torch.equal(one.draw(0, 5)[0], one.draw(0, 6)[0])
    assert len(Birds(root / "birds", train=True)) == len(one.train)


def test_low_precision_changes_the_scores_only():
    training = HouseNumberTraining({**NUMBER, "precision": "bfloat16"}, 0, "cpu")
    training.model.eval()
    images = torch.rand(2, 3, 64, 64)
    scores = training.scores(images)
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, training.model(images))


@pytest.mark.parametrize(
    ("schedule", "steps", "batch_size", "rates"),
    [
        (svhn.SCHEDULES["paper"], 400_000, 128, {0: 1e-2, 79_999: 1e-2, 80_000: 1e-3, 399_999: 1e-6}),
        (birds.SCHEDULES["paper"], 30_000, 256, {9_999: 0.1, 10_000: 0.01, 20_000: 1e-3, 25_000: 1e-4}),
    ],
)
def test_the_papers_schedules(schedule, steps, batch_size, rates):
    assert (schedule.steps, schedule.batch_size) == (steps, batch_size)
    assert schedule.steps % schedule.parts == 0
    assert {step: schedule.rate(step) for step in rates} == pytest.approx(rates)


@pytest.mark.parametrize(
    ("training", "settings", "share", "decay"),
    [
        (HouseNumberTraining, {**NUMBER, "model": "st-multi"}, 0.1, 5e-4),
        (BirdTraining, {**BIRD, "model": "2st-224"}, 1e-4, 1e-5),
    ],
)
def test_localisation_networks_learn_more_slowly(training, settings, share, decay):
    started = training(settings, 0, "cpu")
    started.epoch()
    others, local = started.optimiser.param_groups
    assert local["lr"] == pytest.approx(share * others["lr"])
    assert others["weight_decay"] == local["weight_decay"] == decay


@pytest.mark.parametrize(
    ("network", "localisation"),
    [
        (HouseNumberNetwork("cnn", units=8), 0),
        (HouseNumberNetwork("st-multi", units=8), 4 * 3 * 2),
        (BirdNetwork(0), 0),
    ],
)
def test_every_parameter_is_in_one_group(network, localisation):
    others, *local = parameters_to_learn(network, 1.0, 0.1)
    assert sum(len(group["params"]) for group in local) == localisation
    assert len(others["params"]) == len(list(network.parameters())) - localisation


@pytest.mark.parametrize(
    ("name", "variable", "message"),
    [
        ("svhn", "STN_SVHN", "STN_SVHN should name the folder that has train/digitStruct.mat, extra/"),
        ("birds", "STN_CUB", "STN_CUB should name the folder that has images.txt, "),
    ],
)
def test_a_folder_that_is_not_named_or_lacks_files_is_said(
    name, variable, message, monkeypatch, tmp_path, capsys
):
    monkeypatch.delenv(variable)
    for said in (message, f"{variable}: {tmp_path} lacks "):
        with pytest.raises(SystemExit) as left:
            __main__.main([name, "--schedule", "smoke", "--output", str(tmp_path / "out")])
        assert left.value.code == 2
        assert said in capsys.readouterr().err
        monkeypatch.setenv(variable, str(tmp_path))


def test_damaged_data_end_the_command_with_what_is_wrong(root, tmp_path, monkeypatch):
    for folder in ("train", "extra", "test"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "digitStruct.mat").write_bytes(b"damaged")
    monkeypatch.setenv("STN_SVHN", str(tmp_path))
    with pytest.raises(SystemExit, match=r"error: STN_SVHN: .*digitStruct\.mat is damaged: "):
        __main__.main(["svhn", "--schedule", "smoke", "--output", str(tmp_path / "out")])


def test_too_few_numbers_to_hold_out_are_an_error():
    with pytest.raises(OSError, match="STN_SVHN: 9 numbers to train on, 5000 to hold out"):
        HouseNumberTraining({**NUMBER, "schedule": "paper"}, 0, "cpu")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["svhn", "--sizes", "32"], "argument --sizes: invalid choice: 32"),
        (["svhn", "--schedule", "quick"], "argument --schedule: invalid choice: 'quick'"),
        (["birds", "--models", "2st"], "argument --models: invalid choice: '2st'"),
    ],
)
def test_wrong_arguments_are_named(words, message, capsys):
    with pytest.raises(SystemExit):
        __main__.main(words)
    assert message in capsys.readouterr().err
