"""Localisation networks start at the identity, and the gradient gets through them."""

import pytest
import torch
from torch import nn

from stn import Affine, Attention, ConvolutionalLocalisation, FullyConnectedLocalisation, Localisation
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
