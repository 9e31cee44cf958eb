"""Half-precision images cost their own rounding, and hardly anything beside it."""

import pytest
import torch

from sampling_cases import (
    MAPS,
    converted,
    definition,
    draw_image,
    draw_shared,
    library,
    near_kinks,
    pairwise,
    propose_parameters,
    values_and_gradients,
)
from stn_kernels import backend, grid_sample, reference
from stn_kernels.autograd import Choices

HALF = [torch.float16, torch.bfloat16]


def truncated(exact):
    """To bfloat16 as Triton's interpreter does, where a GPU rounds."""
    return (exact.float().view(torch.int32) & -(2**16)).view(torch.float32).double()


def rounded(name, exact, dtype, by_kernels):
    """What a dtype leaves of an exact result. The kernels write outputs; sums of gradients PyTorch casts."""
    interpreted = by_kernels and backend.INTERPRETED and name == "output"
    return truncated(exact) if interpreted and dtype == torch.bfloat16 else exact.to(dtype).double()


def rms(tensor):
    return float(tensor.square().mean().sqrt())


@pytest.mark.parametrize(
    ("coordinate_map", "mode", "dtype", "parameters_dtype", "width"),
    pairwise(MAPS, ["bilinear", "bicubic"], HALF, ["float32", "half"], [61, 1023, 1024]),
)
def test_errors_are_at_most_one_and_a_half_times_the_final_rounding(
    request, device, coordinate_map, mode, dtype, parameters_dtype, width
):
    """RMS against float64 on the same numbers. Gradients of float32 parameters are held to the rounding of
    the image's dtype; points near kinks, where rounding chooses between two slopes, give none."""
    size = (5, width)
    choices = Choices(size, coordinate_map, mode)
    shared = draw_shared(coordinate_map, size)
    parameters = propose_parameters(coordinate_map, 1, size, size, shared)
    if coordinate_map == "displacement":
        parameters = parameters / 256  # up to six pixels; beyond, a bfloat16 is a whole number or two
    of_parameters = dtype if parameters_dtype == "half" else torch.float32
    parameters, shared = converted((parameters, shared), of_parameters)
    tensors = (draw_image(1, 2, size).to(dtype), parameters, shared, None)
    near = near_kinks(*converted(tensors[1:3], torch.float64), choices, size, spacing=1.0)
    assert near.double().mean() < 0.5
    # Sums stay below float16's largest number.
    grad_output = (draw_image(1, 2, size) / 64 * ~near[:, None]).to(dtype)

    exact = values_and_gradients(definition(choices), converted(tensors, torch.float64), grad_output.double())
    actual = values_and_gradients(library(choices), converted(tensors, device), grad_output.to(device))
    by_kernels = request.node.callspec.params["device"] == "kernels"
    for name, e in exact.items():
        assert actual[name].dtype == (dtype if name in ("output", "gradient of input") else of_parameters)
        limit = 1.5 * rms(rounded(name, e, dtype, by_kernels) - e)
        assert rms(actual[name].cpu().double() - e) <= limit < torch.inf, name


def test_half_precision_gradients_are_added_up_in_float32(device):
    """4096 ones onto one pixel: adding one by one in bfloat16 would stop at 256, in float16 at 2048."""
    for dtype in HALF:
        image = torch.zeros(1, 1, 3, 3, device=device, dtype=dtype, requires_grad=True)
        grid = torch.zeros(1, 64, 64, 2, device=device)
        (grad,) = torch.autograd.grad(grid_sample(image, grid).sum(), image)
        assert grad[0, 0, 1, 1] == 4096


@pytest.mark.parametrize("dtype", HALF)
def test_float32_coordinates_beside_half_precision_images_are_not_rounded(device, dtype):
    """Two points that are the same in half precision."""
    image = torch.linspace(-1, 1, 1024).expand(1, 1, 3, 1024).to(device, dtype)
    points = torch.tensor([0.7001, 0.7004])
    assert points.to(dtype)[0] == points.to(dtype)[1]
    grid = torch.stack([points, torch.zeros(2)], -1).view(1, 1, 2, 2).to(device).requires_grad_()
    output = grid_sample(image, grid)
    (grad,) = torch.autograd.grad(output.sum(), grid)
    assert grad.dtype == torch.float32
    expected = reference.sample(image.double(), grid.double(), (1, 2), "grid")
    assert expected[0, 0, 0, 0] < expected[0, 0, 0, 1]
    torch.testing.assert_close(output, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=0)
