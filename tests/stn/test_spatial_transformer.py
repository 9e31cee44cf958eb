"""The assembled spatial transformer: starts as the identity, learns, and behaves as a module should."""

import copy
import re

import pytest
import torch
from torch import nn

from stn import Affine, Attention, ConvolutionalLocalisation, FullyConnectedLocalisation, SpatialTransformer


def transformer(network=FullyConnectedLocalisation, transform=None, size=(28, 28), trained=False, **options):
    """A transformer of (N, 1, 28, 28); `trained` gives its head weights: theta depends on the input."""
    torch.manual_seed(0)
    transform = transform or Affine()
    model = SpatialTransformer(network((1, 28, 28), transform), transform, size, **options)
    if trained:
        nn.init.normal_(model.localisation.head.weight, std=0.1)
    return model


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.rand(4, 1, 28, 28)


@pytest.mark.parametrize("network", [FullyConnectedLocalisation, ConvolutionalLocalisation])
@pytest.mark.parametrize("transform", [Affine(), Attention()], ids=repr)
@pytest.mark.parametrize("align_corners", [False, True])
def test_before_training_it_returns_its_input(images, network, transform, align_corners):
    output = transformer(network, transform, align_corners=align_corners)(images)
    # Coordinates of up to 14 pixels, rounded to float32, and slopes of up to 1 per pixel.
    torch.testing.assert_close(output, images, rtol=0, atol=4e-6)


def test_it_composes_localisation_and_transform(images):
    model = transformer(size=(20, 17), trained=True, padding_mode="border", align_corners=True)
    output, theta = model(images, return_theta=True)
    assert torch.equal(theta, model.localisation(images))
    expected = model.transform.sample(images, theta, (20, 17), padding_mode="border", align_corners=True)
    assert torch.equal(output, expected)
    assert torch.equal(model(images), output)


@pytest.mark.parametrize("network", [FullyConnectedLocalisation, ConvolutionalLocalisation])
def test_the_gradient_reaches_the_input_and_every_parameter_by_the_second_step(images, network):
    model = transformer(network, size=(20, 20))
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(2):
        optimiser.zero_grad()
        given = images.clone().requires_grad_()
        model(given).square().mean().backward()
        optimiser.step()
    assert given.grad.any()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_it_learns_to_undo_a_shift():
    torch.manual_seed(0)
    # A blurred blob: bilinear gradients see one pixel far, so a sharp one would give no hint at three pixels.
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    centred = torch.exp(-((x - 13.5) ** 2 + (y - 13.5) ** 2) / 50)[None, None]
    shifted = centred.roll(3, dims=3)
    model = transformer(transform=Attention())
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.mse_loss(model(shifted), centred).backward()
        optimiser.step()
    _, theta = model(shifted, return_theta=True)
    torch.testing.assert_close(
        theta, torch.tensor([[1.0, 3 / 14, 0.0]]), rtol=0, atol=0.02
    )  # a quarter pixel


def test_compiled_it_is_one_graph_with_the_same_values_and_gradients(images):
    torch.compiler.reset()
    model = transformer(trained=True)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    output, expected = compiled(images), model(images)
    torch.testing.assert_close(output, expected)
    output.square().sum().backward()
    expected.square().sum().backward()
    for got, want in zip(compiled.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-4, atol=1e-3)  # float32 sums in another order


def test_autocast_keeps_the_identity_and_gives_gradients(images):
    model = transformer(ConvolutionalLocalisation)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(images)
    torch.testing.assert_close(output.float(), images, rtol=0, atol=4e-6)
    output.sum().backward()
    assert model.localisation.head.bias.grad.any()


def test_state_dict_and_deepcopy_carry_everything(images):
    model = transformer(trained=True)
    fresh = transformer()
    assert not torch.equal(fresh(images), model(images))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(images), model(images))
    assert torch.equal(copy.deepcopy(model)(images), model(images))


def test_double_precision_throughout(images):
    assert transformer(trained=True).double()(images.double()).dtype == torch.float64


def test_its_representation_shows_its_settings():
    assert "transform=Attention(), size=(20, 17), padding_mode='border'" in repr(
        transformer(transform=Attention(), size=(20, 17), padding_mode="border")
    )


def test_a_localisation_that_returns_something_else_is_named(images):
    model = SpatialTransformer(nn.Sequential(nn.Flatten(), nn.Linear(784, 5)), Affine(), (28, 28))
    with pytest.raises(ValueError, match=r"localisation should return \(4, 6\).*Affine.*not \(4, 5\)"):
        model(images)


@pytest.mark.parametrize(
    ("error", "name", "value"),
    [
        (ValueError, "size", (0, 28)),
        (ValueError, "size", (28,)),
        (ValueError, "size", 28),
        (TypeError, "size", (28.0, 28.0)),
        (ValueError, "padding_mode", "wrap"),
        (TypeError, "align_corners", "no"),
    ],
)
def test_bad_settings_are_named_at_once(error, name, value):
    with pytest.raises(error, match=rf"^{name} should .* not {re.escape(repr(value))}$"):
        transformer(**{name: value})
