"""A step replayed as a CUDA graph does what one does that is sent kernel by kernel."""

import itertools
from dataclasses import replace

import pytest
import torch

from stn.experiments import steps
from stn.experiments.distorted import SCHEDULES, DistortedTraining
from stn.experiments.distorted_networks import MODELS

SETTINGS = {
    "schedule": "smoke",
    "precision": "float32",
    "parameters": None,
    "steps": 20,
    "localisation_factor": None,
    "warm_up": None,
    "data": "embedded",
}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


BY_SGD = replace(SCHEDULES["smoke"], optimiser="sgd", momentum=0.9, learning_rate=0.01)
# A share of the way that SGD has gone; a step left out of the middle is a twelfth of it.
LARGEST_SHARE = 0.03


def parameters_after(model: str, task: str, precision: str, device: str, cut: bool = False) -> torch.Tensor:
    settings = {**SETTINGS, "model": model, "set": task, "precision": precision}
    torch.manual_seed(0)
    training = DistortedTraining(settings, 0, device)
    training.epoch()
    if cut:
        state = training.state()
        training = DistortedTraining(settings, 0, device)
        training.restore(state)
    training.epoch()
    return flat(training)


def flat(training: DistortedTraining) -> torch.Tensor:
    """All parameters."""
    return torch.cat([parameter.detach().cpu().flatten() for parameter in training.model.parameters()])


def at_the_start(model: str, task: str) -> torch.Tensor:
    torch.manual_seed(0)
    settings = {**SETTINGS, "model": model, "set": task, "precision": "float32"}
    return flat(DistortedTraining(settings, 0, "cpu"))


CASES = [
    *((model, "R", "float32") for model in MODELS if not model.startswith("2")),
    ("2st-fcn-tps", "SUM", "float32"),
    ("st-cnn-aff", "TC", "float32"),
    ("st-fcn-tps", "E", "bfloat16"),
]


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize(("model", "task", "precision"), [*CASES, ("st-sum", "V28", "float32")])
def test_captured_steps_go_where_plain_steps_go(model, task, precision, monkeypatch):
    monkeypatch.setitem(SCHEDULES, "smoke", BY_SGD)
    captured = parameters_after(model, task, precision, "cuda")
    monkeypatch.setattr(steps, "BEFORE_CAPTURE", 10**9)  # never captured
    plain = parameters_after(model, task, precision, "cuda")
    assert (captured - plain).norm() < LARGEST_SHARE * (plain - at_the_start(model, task)).norm()


def test_a_step_left_out_would_be_noticed(monkeypatch):
    monkeypatch.setitem(SCHEDULES, "smoke", BY_SGD)
    plain, take = parameters_after("fcn", "R", "float32", "cpu"), DistortedTraining.train_step
    taken = itertools.count(1)

    def all_but_one(self, images, targets):
        if next(taken) != 12:
            return take(self, images, targets)
        self.step += 1
        return torch.zeros(())

    monkeypatch.setattr(DistortedTraining, "train_step", all_but_one)
    one_less = parameters_after("fcn", "R", "float32", "cpu")
    assert (one_less - plain).norm() > 2 * LARGEST_SHARE * (plain - at_the_start("fcn", "R")).norm()


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize(("model", "task", "precision"), CASES)
def test_captured_steps_learn_what_plain_steps_do(model, task, precision, monkeypatch):
    captured = parameters_after(model, task, precision, "cuda")
    monkeypatch.setattr(steps, "BEFORE_CAPTURE", 10**9)  # never captured
    plain = parameters_after(model, task, precision, "cuda")
    # 20 steps of Adam, whose first ones have the size of the rate whatever a gradient's size, amplify the
    # order of additions. A graph that learned nothing would leave the median 1.6e-3 or more apart.
    assert (captured - plain).abs().median() < (1e-3 if precision == "bfloat16" else 2e-4)


@needs_gpu
@pytest.mark.gpu
def test_a_run_that_was_cut_off_goes_on_from_its_checkpoint():
    whole, cut = (parameters_after("st-fcn-aff", "R", "float32", "cuda", cut=one) for one in (False, True))
    assert (whole - cut).abs().median() < 2e-4


def test_rates_of_an_optimiser_made_capturable_are_tensors_and_survive_its_state():
    layer = torch.nn.Linear(2, 1)
    for kind in (torch.optim.SGD, torch.optim.Adam):
        optimiser = kind([{"params": [layer.weight]}, {"params": [layer.bias], "lr": 0.5}], lr=0.25)
        steps.make_capturable(optimiser, torch.device("cpu"))
        steps.make_capturable(optimiser, torch.device("cpu"))
        assert [group["lr"].item() for group in optimiser.param_groups] == [0.25, 0.5]
        before = layer.weight.detach().clone()
        layer(torch.ones(1, 2)).sum().backward()
        optimiser.step()
        optimiser.param_groups[0]["lr"].fill_(0.0)
        after = layer.weight.detach().clone()
        assert not torch.equal(before, after)
        optimiser.step()
        assert torch.equal(layer.weight, after)
        again = kind([{"params": [layer.weight]}, {"params": [layer.bias]}], lr=1.0)
        again.load_state_dict(optimiser.state_dict())
        assert [float(group["lr"]) for group in again.param_groups] == [0.0, 0.5]
