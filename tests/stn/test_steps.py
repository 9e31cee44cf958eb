"""A step replayed as a CUDA graph does what one does that is sent kernel by kernel."""

import itertools

import pytest
import torch

from stn.experiments import steps
from stn.experiments.distorted import DistortedTraining
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


def parameters_after(
    model: str, task: str, precision: str, device: str, cut: bool = False
) -> list[torch.Tensor]:
    settings = {**SETTINGS, "model": model, "set": task, "precision": precision}
    torch.manual_seed(0)
    training = DistortedTraining(settings, 0, device)
    training.epoch()
    if cut:
        state = training.state()
        training = DistortedTraining(settings, 0, device)
        training.restore(state)
    training.epoch()
    return [parameter.detach().cpu() for parameter in training.model.parameters()]


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize(
    ("model", "task", "precision"),
    [
        *((model, "R", "float32") for model in MODELS if not model.startswith("2")),
        ("2st-fcn-tps", "SUM", "float32"),
        ("st-cnn-aff", "TC", "float32"),
        ("st-fcn-tps", "E", "bfloat16"),
        ("st-sum", "V28", "float32"),
    ],
)
def test_captured_steps_learn_what_plain_steps_do(model, task, precision, monkeypatch):
    captured = parameters_after(model, task, precision, "cuda")
    monkeypatch.setattr(steps, "BEFORE_CAPTURE", 10**9)  # never captured
    plain = parameters_after(model, task, precision, "cuda")
    # 20 steps of Adam, whose first ones have the size of the rate whatever a gradient's size, amplify the
    # order of additions; a step left out or a batch read twice would move parameters by the rate, 2e-3.
    apart = torch.cat([(a - b).abs().flatten() for a, b in itertools.zip_longest(captured, plain)])
    assert apart.median() < (1e-3 if precision == "bfloat16" else 2e-4)


@needs_gpu
@pytest.mark.gpu
def test_a_run_that_was_cut_off_goes_on_from_its_checkpoint():
    whole, cut = (parameters_after("st-fcn-aff", "R", "float32", "cuda", cut=one) for one in (False, True))
    apart = torch.cat([(a - b).abs().flatten() for a, b in zip(whole, cut, strict=True)])
    assert apart.median() < 2e-4


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
