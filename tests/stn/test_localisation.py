"""Localisation networks start at the identity, and the gradient gets through them."""

import pytest
import torch
from torch import nn

from stn import (
    Affine,
    Affine3d,
    Attention,
    ConvolutionalLocalisation,
    FullyConnectedLocalisation,
    Localisation,
    parameter_groups,
)
from stn.training import count_parameters

NETWORKS = [FullyConnectedLocalisation, ConvolutionalLocalisation]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("transform", [Affine(), Attention()], ids=repr)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 29, 42)])
def test_theta_is_exactly_the_identity_before_training(network, transform, shape):
    localisation = network(shape, transform)
    assert torch.equal(localisation(torch.rand(5, *shape)), transform.identity().expand(5, -1))


@pytest.mark.parametrize("network", NETWORKS)
def test_the_head_learns_first_and_every_parameter_by_the_second_step(network):
    torch.manual_seed(0)
    localisation = network((1, 28, 28), Affine())
    optimiser = torch.optim.SGD(localisation.parameters(), lr=0.1)
    for step in (1, 2):
        optimiser.zero_grad()
        localisation(torch.rand(4, 1, 28, 28)).square().sum().backward()
        assert localisation.head.weight.grad.abs().max() > 0
        reached = [bool(parameter.grad.any()) for parameter in localisation.body.parameters()]
        assert not any(reached) if step == 1 else all(reached)
        optimiser.step()


@pytest.mark.parametrize(
    ("shape", "count"), [((1, 28, 28), 10_960), ((1, 42, 42), 16_960), ((1, 60, 60), 42_960)]
)
def test_convolutional_localisation_has_the_papers_size(shape, count):
    affine = Affine()
    head = 20 * affine.num_parameters + affine.num_parameters
    assert count_parameters(ConvolutionalLocalisation(shape, affine)) == count + head


def test_layers_are_as_wide_as_asked():
    localisation = FullyConnectedLocalisation((2, 5, 6), Attention(), hidden=(7, 8))
    widths = [layer.out_features for layer in localisation.modules() if isinstance(layer, nn.Linear)]
    assert widths == [7, 8, 3]
    assert len(list(FullyConnectedLocalisation((2, 5, 6), Attention(), hidden=()).body.children())) == 1


def test_any_body_gets_the_head():
    body = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    localisation = Localisation(body, 12, Attention(), (3, 9, 9))
    assert localisation(torch.rand(2, 3, 9, 9)).shape == (2, 3)
    assert repr(localisation.head) == repr(nn.Linear(12, 3))


@pytest.mark.parametrize("network", NETWORKS)
def test_autocast_leaves_theta_in_single_precision(network):
    localisation = network((1, 28, 28), Affine())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert localisation(torch.rand(2, 1, 28, 28)).dtype == torch.float32


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 0), (0, 28, 28)])
def test_impossible_input_shapes_are_named(network, shape):
    with pytest.raises(ValueError, match=r"input_shape should be \(C, H, W\)"):
        network(shape, Affine())


@pytest.mark.parametrize("shape", [(1, 27, 28), (1, 28, 27)])
def test_images_too_small_for_the_convolutions_are_named(shape):
    with pytest.raises(ValueError, match="input_shape should have H and W of at least 28"):
        ConvolutionalLocalisation(shape, Affine())


@pytest.mark.parametrize("network", NETWORKS)
def test_input_of_another_shape_is_named(network):
    with pytest.raises(ValueError, match=r"input should be \(N, 1, 28, 28\), not \(2, 1, 42, 42\)"):
        network((1, 28, 28), Affine())(torch.rand(2, 1, 42, 42))


# --- starts, bounds, several transforms, learning rates ----------------------------------------------------


def body(features=6):
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * 5 * 5, features), nn.Tanh())


def test_several_transforms_start_where_asked():
    start = torch.tensor([[0.5, -0.5, 0.0], [0.5, 0.5, 0.0]])
    localisation = Localisation(body(), 6, Attention(), (2, 5, 5), start=start)
    theta = localisation(torch.rand(4, 2, 5, 5))
    assert torch.equal(theta, start.expand(4, 2, 3))
    assert localisation.head.out_features == 6


@pytest.mark.parametrize("start", [None, torch.tensor([0.7, 0.1, -0.2])], ids=["identity", "own start"])
@pytest.mark.parametrize("bound", [0.3, torch.tensor([0.1, 0.4, 0.2])], ids=["one bound", "a bound each"])
def test_a_bounded_head_starts_exactly_and_never_leaves_its_bound(start, bound):
    torch.manual_seed(0)
    localisation = Localisation(body(), 6, Attention(), (2, 5, 5), start=start, bound=bound)
    expected = Attention().identity() if start is None else start
    images = torch.rand(50, 2, 5, 5)
    assert torch.equal(localisation(images), expected.expand(50, 3))
    nn.init.normal_(localisation.head.weight, std=100.0)
    away = (localisation(images) - expected).abs()
    assert (away <= torch.as_tensor(bound) + 1e-6).all()
    assert (away > 0.99 * torch.as_tensor(bound)).any(0).all()


def test_a_bounded_heads_first_step_is_that_of_an_unbounded_one():
    torch.manual_seed(0)
    free = Localisation(body(), 6, Attention(), (2, 5, 5))
    bounded = Localisation(free.body, 6, Attention(), (2, 5, 5), bound=0.2)
    images = torch.rand(4, 2, 5, 5)
    for network in (free, bounded):
        (network(images) * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
    torch.testing.assert_close(bounded.head.bias.grad, free.head.bias.grad)
    torch.testing.assert_close(bounded.head.weight.grad, free.head.weight.grad)


def test_start_and_bound_are_saved_and_moved_with_the_rest():
    start = torch.tensor([0.7, 0.1, -0.2])
    saved = Localisation(body(), 6, Attention(), (2, 5, 5), start=start, bound=0.3).double()
    fresh = Localisation(body(), 6, Attention(), (2, 5, 5), bound=0.1).double()
    fresh.load_state_dict(saved.state_dict())
    images = torch.rand(3, 2, 5, 5, dtype=torch.float64)
    nn.init.ones_(saved.head.weight)
    nn.init.ones_(fresh.head.weight)
    assert torch.equal(fresh(images), saved(images))
    assert saved(images).dtype == torch.float64


def test_volumes_are_localised_too():
    localisation = FullyConnectedLocalisation((1, 3, 4, 5), Affine3d(), hidden=(7,))
    assert localisation(torch.rand(2, 1, 3, 4, 5)).shape == (2, 12)
    with pytest.raises(ValueError, match=r"input_shape should be \(C, D, H, W\)"):
        FullyConnectedLocalisation((1, 4, 5), Affine3d())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"start": [1.0, 0.0, 0.0]}, TypeError, "start should be a floating tensor"),
        ({"start": torch.zeros(2)}, ValueError, r"start should have shape \(3,\) or \(T, 3\)"),
        ({"start": torch.zeros(0, 3)}, ValueError, r"start should have shape"),
        ({"bound": 0.0}, ValueError, "bound should be positive and finite"),
        ({"bound": torch.tensor([1.0, -1.0, 1.0])}, ValueError, "bound should be positive and finite"),
        ({"bound": torch.ones(2)}, ValueError, r"bound should be a number or have shape \(3,\)"),
    ],
)
def test_bad_starts_and_bounds_are_named(options, error, message):
    with pytest.raises(error, match=message):
        Localisation(body(), 6, Attention(), (2, 5, 5), **options)


def test_parameter_groups_hold_every_parameter_once():
    first = FullyConnectedLocalisation((1, 8, 8), Attention())
    second = FullyConnectedLocalisation((1, 8, 8), Attention())
    classifier = nn.Linear(64, 10)
    model = nn.ModuleList([first, nn.ModuleList([second, first]), classifier])
    others, localisation = parameter_groups(model, 0.5, localisation_factor=0.2)
    assert (others["lr"], localisation["lr"]) == (0.5, 0.1)
    assert set(others["params"]) == set(classifier.parameters())
    assert set(localisation["params"]) == {*first.parameters(), *second.parameters()}
    assert len(localisation["params"]) == 16
    optimiser = torch.optim.SGD([others, localisation])
    before = [p.detach().clone() for p in model.parameters()]
    sum(p.sum() for p in model.parameters()).backward()
    optimiser.step()
    for p, old in zip(model.parameters(), before, strict=True):
        rate = 0.5 if any(p is q for q in classifier.parameters()) else 0.1
        torch.testing.assert_close(p, old - rate)


def test_parameter_groups_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"model should hold a stn\.Localisation"):
        parameter_groups(nn.Linear(2, 2), 0.1)
    with pytest.raises(ValueError, match="localisation_factor should be positive"):
        parameter_groups(FullyConnectedLocalisation((1, 8, 8), Attention()), 0.1, 0)
    with pytest.raises(TypeError, match="learning_rate should be a number"):
        parameter_groups(FullyConnectedLocalisation((1, 8, 8), Attention()), "fast")
