"""Tensors are taken as they lie in memory; channels-last images stay so on the way through the kernels."""

import pytest
import torch

from sampling_cases import LAYOUTS, MAPS, deviation, draw, draw_image, library, values_and_gradients

INPUT_SIZE, SIZE = (5, 6), (4, 7)

# Ways for a tensor's elements to lie apart: each keeps the values, or makes them equal along one dimension.
VIEWS = {
    "sliced": lambda t: torch.stack([t, t + 1], -1)[..., 0],
    "transposed": lambda t: t.mT.contiguous().mT,
    "batch last": lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
    "offset": lambda t: torch.cat([t.new_ones(7), t.flatten()])[7:].view(t.shape),
    "expanded batch": lambda t: t[:1].expand_as(t),
    "expanded rows": lambda t: t[:, :, :1].expand_as(t),
    "expanded everywhere": lambda t: t.flatten()[0].expand_as(t),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("which", "coordinate_map"),
    [("input", "affine"), ("grad_output", "affine"), ("parameters", "affine"), ("parameters", "grid")],
)
def test_any_strides_give_the_same_results(device, which, coordinate_map, view):
    problem = {
        "input": draw_image(2, 3, INPUT_SIZE),
        "parameters": draw(coordinate_map, 2, INPUT_SIZE, SIZE),
        "grad_output": torch.randn(2, 3, *SIZE, dtype=torch.float64),
    }
    problem = {name: tensor.to(device) for name, tensor in problem.items()}
    problem[which] = viewed = VIEWS[view](problem[which])
    assert view == "offset" or not viewed.is_contiguous()
    solve = library(coordinate_map, SIZE)
    actual = values_and_gradients(solve, **problem)
    expected = values_and_gradients(solve, **{**problem, which: viewed.contiguous()})
    for a, e in zip(actual, expected, strict=True):
        assert deviation(a, e) <= 1e-14  # the same sums, perhaps in another order


@pytest.fixture(params=LAYOUTS)
def layouts(request, device):
    """The layout of an image, and of what is computed from it: ATen's results are always contiguous."""
    by_kernels = request.node.callspec.params["device"] == "kernels"
    return request.param, LAYOUTS[request.param] if by_kernels else torch.contiguous_format


@pytest.mark.parametrize("channels", [2, 4, 5])
@pytest.mark.parametrize("coordinate_map", MAPS)
def test_channels_last_in_channels_last_out_of_the_kernels(device, coordinate_map, channels, layouts):
    layout, expected = layouts
    image = draw_image(2, channels, INPUT_SIZE, layout).to(device)
    parameters = draw(coordinate_map, 2, INPUT_SIZE, SIZE).to(device)
    output = library(coordinate_map, SIZE)(image, parameters)
    assert output.is_contiguous(memory_format=expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("channels", [2, 4])
def test_gradients_lie_as_the_output_does(device, channels, layouts, dtype):
    layout, expected = layouts
    image = draw_image(1, channels, INPUT_SIZE, layout).to(device, dtype)
    theta = draw("affine", 1, INPUT_SIZE, SIZE).to(device, torch.float32)
    grad_output = torch.ones(1, channels, *SIZE, device=device, dtype=dtype)
    _, grad_image, grad_theta = values_and_gradients(library("affine", SIZE), image, theta, grad_output)
    assert grad_image.is_contiguous(memory_format=expected)
    assert grad_theta.is_contiguous()


@pytest.mark.parametrize(("batch", "channels"), [(0, 3), (2, 0)], ids=["no images", "no channels"])
@pytest.mark.parametrize("coordinate_map", MAPS)
def test_nothing_in_gives_nothing_out(device, coordinate_map, batch, channels):
    image = torch.zeros(batch, channels, *INPUT_SIZE, device=device)
    parameters = draw(coordinate_map, 2, INPUT_SIZE, SIZE)[:batch].to(device, torch.float32)
    grad_output = torch.zeros(batch, channels, *SIZE, device=device)
    output, grad_image, grad_parameters = values_and_gradients(
        library(coordinate_map, SIZE), image, parameters, grad_output
    )
    assert output.shape == (batch, channels, *SIZE)
    assert grad_image.shape == image.shape
    assert grad_parameters.shape == parameters.shape
    assert (grad_parameters == 0).all()
