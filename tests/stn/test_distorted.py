"""Table 1 and the cluttered set: networks of equal size, smoke runs of every command, and resuming."""

import argparse
import dataclasses
import json

import pytest
import torch

import stn
from stn.data import elastic, projected
from stn.data.warped import is_convex
from stn.experiments import (
    EXPERIMENTS,
    __main__,
    distorted,
    distorted_networks,
    execute,
    step_time,
    volume_networks,
)
from stn.experiments.distorted import PAPER, SCHEDULES, DistortedTraining, Table1
from stn.training import count_parameters
from stn_kernels import projective_sample, tps_sample

SETTINGS = {
    "model": "st-fcn-aff",
    "set": "R",
    "schedule": "smoke",
    "precision": "float32",
    "parameters": None,
    "steps": None,
    "localisation_factor": None,
    "warm_up": None,
    "data": "embedded digits",
}


IMAGES = [name for name, task in distorted.TASKS.items() if len(task.shape) == 3]


@pytest.fixture(autouse=True)
def _embedded_digits(monkeypatch):
    monkeypatch.delenv("STN_DATA", raising=False)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    return stn.data.digits("test")[0][:300]


# --- the distortions ---------------------------------------------------------------------------------------


def test_an_ideal_transformer_gets_projected_digits_back(images):
    seen, matrix = projected(images.double(), generator=generator())
    assert seen.shape == images.shape
    assert matrix.shape == (300, 3, 3)
    back = projective_sample(seen, matrix, (28, 28))
    # Resampled twice, some digits partly off the image: most are what they were.
    error = (back - images).square().mean((1, 2, 3)).sqrt()
    before = (seen - images).square().mean((1, 2, 3)).sqrt()
    assert error.median() < 0.1
    assert before.median() > 0.2


def test_corners_are_moved_by_five_pixels_along_their_diagonals_and_stay_convex(images):
    square = torch.tensor([[-1.0, -1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]]).double()
    _, matrix = projected(images.double(), generator=generator())
    corners = (square @ matrix.mT)[..., :2] / (square @ matrix.mT)[..., 2:]
    assert is_convex(corners).all()
    moved = 14 * (corners - 0.875 * square[:, :2])
    outwards = (moved * square[:, :2]).sum(-1) / 2**0.5
    assert outwards.mean().abs() < 0.6  # 1200 draws of 5 pixels: a standard error of 0.15
    assert 4.8 < outwards.std() < 5.6  # with the 1.4 pixels that the scale adds: 5.2
    assert (moved.square().sum(-1) - outwards.square()).abs().max() < 1e-6  # nothing across


def test_a_quadrilateral_that_crosses_itself_bends_in_or_is_mirrored_is_not_convex():
    square = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    bent = square.clone()
    bent[0] = 0.5
    assert is_convex(torch.stack([square, square[[1, 0, 2, 3]], bent, square.flip(0)])).tolist() == [
        True,
        False,
        False,
        False,
    ]


def test_elastic_digits_are_bent_by_a_spline_through_moved_points(images):
    bent, source = elastic(images, generator=generator())
    line = torch.linspace(-1, 1, 4)
    regular = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).flatten(0, 1)
    torch.testing.assert_close(bent, tps_sample(images, source, (28, 28), target_points=regular))
    # About the scaled lattice, whose scale is found by least squares, lie draws of 1.5 pixels.
    scale = (source * regular).sum((1, 2)) / regular.square().sum()
    moved = 14 * (source - scale[:, None, None] * regular)
    assert 1.4 < moved.std() < 1.6
    assert ((1 / scale > 0.65) & (1 / scale < 1.15)).all()


@pytest.mark.parametrize("distortion", [projected, elastic])
def test_the_same_seed_gives_the_same_maps_in_every_dtype(images, distortion):
    single, maps = distortion(images, generator=generator(7))
    double, same = distortion(images.double(), generator=generator(7))
    torch.testing.assert_close(same.float(), maps, rtol=1e-3, atol=1e-3)  # an inverse in float32
    assert (double.float() - single).abs().mean() < 1e-3


@pytest.mark.parametrize("distortion", [projected, elastic])
def test_bad_images_are_named(distortion):
    with pytest.raises(ValueError, match=r"images should be \(N, C, H, W\)"):
        distortion(torch.zeros(28, 28))
    with pytest.raises(TypeError, match="images should be of a floating dtype"):
        distortion(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))


# --- the networks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("filters", [32, 64])
def test_networks_that_are_compared_have_as_many_parameters_to_one_per_cent(name, filters):
    task = distorted.TASKS[name]
    shape, classes = task.shape, task.num_classes
    for kind, networks in (("fcn", 7), ("cnn", 4)):
        models = [model for model in distorted_networks.MODELS if kind in model]
        counts = {}
        for model in models:
            network = task.build(model, shape, num_classes=classes, filters=filters)
            counts[model] = count_parameters(network)
            assert network(torch.zeros(2, *shape)).shape == (2, classes)
        assert len(counts) == networks
        assert max(counts.values()) < 1.01 * min(counts.values()), counts
        if kind == "fcn":
            assert abs(counts["fcn"] - 400_000) < 4000


@pytest.mark.parametrize("side", [28, 60])
def test_networks_for_volumes_have_as_many_parameters_and_the_transformer_starts_at_the_identity(side):
    shape = (1, side, side, side)
    one, two = (volume_networks.build(model, shape) for model in volume_networks.MODELS)
    assert count_parameters(one) == pytest.approx(count_parameters(two), rel=0.01)
    assert count_parameters(two) == pytest.approx(400_000, rel=0.01)
    volumes = torch.rand(2, *shape)
    torch.testing.assert_close(two[0](volumes), volumes, rtol=0, atol=1e-5)
    assert one(volumes).shape == two(volumes).shape == (2, 10)


def test_the_test_digits_are_the_same_at_every_call():
    training = DistortedTraining({**SETTINGS, "set": "TC"}, 0, "cpu")
    one, two = (torch.cat([images for images, _ in training.test_batches()]) for _ in range(2))
    assert torch.equal(one, two)


def test_all_have_the_number_of_parameters_that_is_asked_for():
    for model in distorted_networks.MODELS:
        count = count_parameters(distorted_networks.build(model, parameters=200_000))
        assert abs(count - 200_000) < 2000, model


def test_too_few_parameters_and_unknown_models_are_named():
    with pytest.raises(ValueError, match="parameters should be more than 10,000: 11,"):
        distorted_networks.build("st-cnn-aff", parameters=10_000)
    with pytest.raises(ValueError, match=r"model should be one of fcn, cnn, .* not 'mlp'"):
        distorted_networks.build("mlp")


@pytest.mark.parametrize("model", [model for model in distorted_networks.MODELS if model.startswith("st-")])
def test_every_transformer_starts_at_the_identity(model, images):
    transformer = distorted_networks.build(model)[0]
    torch.testing.assert_close(transformer(images), images, rtol=0, atol=1e-5)


# --- schedules ---------------------------------------------------------------------------------------------


def test_the_papers_schedule_drops_the_rate_twice():
    paper = SCHEDULES["paper"]
    assert (paper.steps, paper.batch_size) == (150_000, 256)
    rates = [paper.rate(step) for step in (0, 49_999, 50_000, 99_999, 100_000, 149_999)]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001])


def test_quick_falls_along_a_cosine():
    quick = SCHEDULES["quick"]
    assert quick.rate(0) == quick.learning_rate
    assert quick.rate(quick.steps // 2) == pytest.approx(quick.learning_rate / 2)
    assert quick.rate(quick.steps - 1) < 1e-5


def test_a_schedule_in_fewer_steps_takes_the_same_course():
    for name, steps in (("quick", 600), ("paper", 30_000)):
        whole = SCHEDULES[name]
        short = whole.in_steps(steps)
        times = whole.steps // steps
        assert (short.steps, short.parts, short.batch_size) == (steps, whole.parts, whole.batch_size)
        for step in range(0, steps, 100):
            assert short.rate(step) == pytest.approx(whole.rate(times * step))


def test_only_networks_with_convolutions_are_warmed_up_and_only_with_adam():
    parser = argparse.ArgumentParser()
    Table1().add_arguments(parser)
    models = ("fcn", "st-fcn-aff", "cnn", "st-cnn-aff")
    for words, warm_up, factor in (
        ([], 100, None),
        (["--schedule", "paper"], None, None),
        (["--localisation-factor", "0.1"], 100, 0.1),
    ):
        arguments = parser.parse_args(["--sets", "R", "--models", *models, *words])
        settings = [run.settings for run in Table1().runs(arguments, [0], None)]
        assert [one["warm_up"] for one in settings] == [None, None, warm_up, warm_up]
        assert [one["localisation_factor"] for one in settings] == [None, factor, None, factor]


def test_the_rate_rises_first_where_it_is_warmed_up():
    training = DistortedTraining({**SETTINGS, "warm_up": 100}, 0, "cpu")
    cold = DistortedTraining(SETTINGS, 0, "cpu")
    rates = [training.schedule.rate(step) / cold.schedule.rate(step) for step in (0, 1, 3)]
    assert rates == pytest.approx([0.01, 0.02, 0.04])
    quick = SCHEDULES["quick"]
    warm = dataclasses.replace(quick, warm_up=100)
    assert [warm.rate(step) for step in (99, 100, 2000)] == [quick.rate(step) for step in (99, 100, 2000)]


def test_the_title_says_how_long_and_at_which_rate():
    table = Table1()
    assert table.schedule({"schedule": "quick"}) == "schedule quick"
    settings = {"schedule": "quick", "steps": 1200, "localisation_factor": 0.3, "warm_up": 100}
    assert "quick in 1,200 steps" in table.schedule(settings)
    assert "at 0.3 of the rate" in table.schedule(settings)
    assert "over 100 steps" in table.schedule(settings)


def test_localisation_networks_learn_at_a_factor_of_the_rate():
    for factor in (0.3, 1.0):
        training = DistortedTraining({**SETTINGS, "localisation_factor": factor}, 0, "cpu")
        training.epoch()
        others, local = training.optimiser.param_groups
        assert local["lr"] == pytest.approx(factor * others["lr"])
        localisation = training.model[0].localisation
        assert {id(one) for one in local["params"]} == {id(one) for one in localisation.parameters()}


@pytest.mark.parametrize("schedule", SCHEDULES.values())
def test_parts_have_whole_steps(schedule):
    assert schedule.steps % schedule.parts == 0


# --- the commands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words", "count"),
    [
        ("table1", ["--sets", "R", "RTS", "P", "E"], 32),
        ("cluttered", [], 4),
        ("addition", [], 8),
        ("volumes", ["--sets", "V28"], 2),
    ],
)
def test_a_smoke_run_ends_with_results_and_a_table_and_the_same_figures_again(
    name, words, count, tmp_path, capsys
):
    for folder in ("one", "two"):
        output = str(tmp_path / folder)
        __main__.main(
            [name, *words, "--schedule", "smoke", "--seeds", "3", "--device", "cpu", "--output", output]
        )
    files = sorted((tmp_path / "one").glob("*.json"))
    assert len(files) == count
    for file in files:
        one, two = (json.loads((tmp_path / folder / file.name).read_text()) for folder in ("one", "two"))
        assert one["final"] == two["final"]
    capsys.readouterr()
    __main__.main(["report", name, "--output", str(tmp_path / "one"), "--figure", str(tmp_path / "a.png")])
    table = capsys.readouterr().out
    assert all(model in table for model in EXPERIMENTS[name].models)
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_a_run_that_was_cut_off_goes_on_with_the_same_figures(tmp_path):
    class CutOff(Exception):
        pass

    def cut_off(run, figures):
        raise CutOff

    experiment = Table1()
    run = experiment.run(SETTINGS, SCHEDULES["smoke"].parts, 0)
    whole = execute(experiment, run, tmp_path / "whole")
    with pytest.raises(CutOff):
        execute(experiment, run, tmp_path / "cut", tell=cut_off)
    assert not list((tmp_path / "cut").glob("*.json"))
    resumed = execute(experiment, run, tmp_path / "cut")
    assert resumed["final"] == whole["final"]


def test_sums_are_of_the_two_digits_that_are_seen():
    images = torch.zeros(10, 1, 28, 28)
    images[:, 0, 10:18, 10:18] = torch.arange(10.0)[:, None, None]  # as bright as it is large
    seen, sums = distorted.TASKS["SUM"].draw(images, torch.arange(10), generator())
    assert seen.shape == (10, 2, 42, 42)
    assert torch.equal(seen.amax((2, 3)).round().sum(1).long(), sums)
    assert seen[:, 1].amax((1, 2)).round().tolist() != list(range(10))


def test_two_transformers_do_not_stay_alike():
    """They start at one warp, and with other weights."""
    training = DistortedTraining({**SETTINGS, "model": "2st-fcn-aff", "set": "SUM"}, 0, "cpu")
    training.epoch()
    one, two = (t(next(training.test_batches())[0]) for t in training.model[0].transformers)
    assert not torch.equal(one, two)


def test_a_run_learns(monkeypatch):
    schedule = distorted.DistortedSchedule(60, 1, 64, 2e-3, None, "adam", 32, test_images=500)
    monkeypatch.setitem(distorted.SCHEDULES, "smoke", schedule)
    torch.manual_seed(0)
    figures = DistortedTraining({**SETTINGS, "set": "E", "model": "fcn"}, 0, "cpu").epoch()
    assert figures["error"] < 50  # guessing has 90


def test_low_precision_changes_the_figures_and_no_parameters_dtype():
    training = DistortedTraining({**SETTINGS, "precision": "bfloat16"}, 0, "cpu")
    images = next(training.test_batches())[0][:4]
    scores = training.scores(images)
    assert scores.dtype == torch.float32
    assert {parameter.dtype for parameter in training.model.parameters()} == {torch.float32}
    assert not torch.equal(scores, training.model(images))


@pytest.mark.parametrize("model", ["st-fcn-aff", "st-cnn-aff"])
def test_the_network_by_hand_is_the_same(model, images):
    torch.manual_seed(0)
    network = distorted_networks.build(model).double()
    torch.nn.init.normal_(network[0].localisation.head.weight, std=0.05)
    by_hand = step_time.rewritten(network)
    torch.testing.assert_close(by_hand(images[:5].double()), network(images[:5].double()))


def test_step_times_are_reported_for_each_network(capsys):
    step_time.main(["--sets", "R", "--batch-size", "4", "--pairs", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["R", "st-fcn-aff"], ["R", "st-cnn-aff"]]


def test_the_papers_numbers_are_there_for_every_network():
    assert set(PAPER) == set(distorted_networks.MODELS)  # of volumes it reports none
    for experiment in (distorted.Table1, distorted.Cluttered, distorted.Addition):
        assert all(set(experiment.sets) <= set(PAPER[model]) for model in experiment.models)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table1", "--models", "mlp"], "argument --models: invalid choice: 'mlp'"),
        (["table1", "--sets", "TC"], "argument --sets: invalid choice: 'TC'"),
        (["table1", "--schedule", "slow"], "argument --schedule: invalid choice: 'slow'"),
        (["table1", "--parameters", "many"], "argument --parameters: a number such as 400k, not 'many'"),
        (["table1", "--parameters", "10k"], "argument --parameters: parameters should be more than 10,000"),
        (["table1", "--steps", "55"], "argument --steps: a multiple of 10, not 55"),
        (["table1", "--steps", "0"], "argument --steps: a whole number of at least 1, not '0'"),
        (["table1", "--localisation-factor", "0"], "--localisation-factor: a positive number, not '0'"),
        (["table1", "--localisation-factor", "inf"], "--localisation-factor: a positive number, not 'inf'"),
        (["table1", "--epochs", "3"], "unrecognized arguments: --epochs 3"),
    ],
)
def test_wrong_arguments_are_named(words, message, capsys):
    with pytest.raises(SystemExit) as error:
        __main__.main(words)
    assert error.value.code == 2
    assert message in capsys.readouterr().err
