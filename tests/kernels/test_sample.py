"""Every way to a result agrees with the reference and, where that has the operation, with PyTorch."""

import pytest
import torch

import stn_kernels
from sampling_cases import (
    AXES,
    EDGES_AND_CORNERS,
    INPUT_SIZE,
    LAYOUTS,
    MODES,
    NAMES,
    PADDING_MODES,
    PYTORCH_MODES,
    PYTORCH_PADDING_MODES,
    SIZE,
    assert_close,
    converted,
    definition,
    draw_problem,
    leaves,
    library,
    pairwise,
    pytorch,
    values_and_gradients,
)
from stn_kernels import aten
from stn_kernels.autograd import Choices

PYTORCHS = pytest.mark.parametrize(
    ("axes", "mode", "padding_mode"),
    [(a, m, p) for a in (2, 3) for m in PYTORCH_MODES[a] for p in PYTORCH_PADDING_MODES],
)
# One row or column of pixels, a single one, odd, wide and tall: input and output.
SIZES = [
    *[((1, 6), (3, 5)), ((9, 1), (2, 7)), ((1, 1), (3, 3)), ((7, 5), (1, 1)), ((5, 11), (13, 3))],
    *[((1, 3, 4), (2, 1, 3)), ((3, 1, 1), (1, 2, 2)), ((1, 1, 1), (2, 1, 1))],
]


def is_pytorchs(axes, mode, padding_mode):
    return mode in PYTORCH_MODES[axes] and padding_mode in PYTORCH_PADDING_MODES


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("mode", MODES)
@AXES
@EDGES_AND_CORNERS
def test_grids_agree_with_the_reference_and_pytorch(device, axes, mode, padding_mode, align_corners):
    choices = Choices(SIZE[axes], "grid", mode, padding_mode, align_corners)
    # One volume: bicubic ones are interpreted slowly.
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[axes], images=4 - axes)
    actual = values_and_gradients(library(choices), converted(tensors, device), grad_output.to(device))
    assert_close(actual, values_and_gradients(definition(choices), tensors, grad_output))
    if is_pytorchs(axes, mode, padding_mode):
        assert_close(actual, values_and_gradients(pytorch(choices), tensors, grad_output))


@pytest.mark.parametrize(
    ("sizes", "mode", "padding_mode", "align_corners"),
    pairwise(SIZES, MODES, PADDING_MODES, (False, True)),
    ids=str,
)
def test_sizes_down_to_a_single_pixel(device, sizes, mode, padding_mode, align_corners):
    input_size, size = sizes
    choices = Choices(size, "grid", mode, padding_mode, align_corners)
    tensors, grad_output = draw_problem(choices, input_size, images=1, channels=2)
    actual = values_and_gradients(library(choices), converted(tensors, device), grad_output.to(device))
    assert_close(actual, values_and_gradients(definition(choices), tensors, grad_output))
    if is_pytorchs(len(size), mode, padding_mode):
        assert_close(actual, values_and_gradients(pytorch(choices), tensors, grad_output))


# --- second gradients --------------------------------------------------------------------------------------


def second_gradients(solve, tensors, grad_output, directions):
    """Of first gradients, each times a direction, summed: with respect to grad_output and to the tensors."""
    inputs = leaves(tensors)
    grad_output = grad_output.detach().requires_grad_()
    output = solve(*map(inputs.get, NAMES))
    first = torch.autograd.grad(
        output, list(inputs.values()), grad_output, create_graph=True, materialize_grads=True
    )
    product = sum((g * d).sum() for g, d in zip(first, directions, strict=True))
    second = torch.autograd.grad(product, [grad_output, *inputs.values()], materialize_grads=True)
    return dict(zip(["grad_output", *inputs], second, strict=True))


@PYTORCHS
@EDGES_AND_CORNERS
@pytest.mark.skipif(not aten.differentiates_twice(), reason="needs PyTorch's second derivatives")
def test_second_gradients_equal_pytorchs(device, axes, mode, padding_mode, align_corners):
    choices = Choices(SIZE[axes], "grid", mode, padding_mode, align_corners)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[axes])
    directions = [torch.randn_like(t) for t in tensors[:2]]
    expected = second_gradients(pytorch(choices), tensors, grad_output, directions)
    moved = converted((*tensors, grad_output, *directions), device)
    actual = second_gradients(library(choices), moved[:4], moved[4], moved[5:])
    assert_close(actual, expected)


# --- float32 -----------------------------------------------------------------------------------------------


@PYTORCHS
@EDGES_AND_CORNERS
def test_float32_errs_at_most_twice_as_much_as_pytorch(device, axes, mode, padding_mode, align_corners):
    """RMS errors against the same inputs in float64. Where both make none, there is nothing to compare."""
    input_size, size = {2: ((31, 27), (29, 33)), 3: ((9, 11, 7), (8, 9, 10))}[axes]
    choices = Choices(size, "grid", mode, padding_mode, align_corners)
    tensors, grad_output = draw_problem(choices, input_size)
    exact = values_and_gradients(definition(choices), tensors, grad_output)
    single = [converted(tensors, device, torch.float32), grad_output.to(device, torch.float32)]
    errors = {}
    for who, solve in (("ours", library(choices)), ("pytorch", pytorch(choices))):
        results = values_and_gradients(solve, *single)
        assert all(r.dtype == torch.float32 for r in results.values())
        errors[who] = {n: (results[n].cpu().double() - e).square().mean().sqrt() for n, e in exact.items()}
    assert all(errors["ours"][n] <= 2 * errors["pytorch"][n] for n in exact), errors


@AXES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_affine_float32_errs_at_most_twice_as_much_as_pytorchs_two_steps(device, axes, layout):
    """One theta has six errors, too few for a ratio: sixteen give one that is good to a tenth."""
    input_size, size = {2: ((31, 27), (11, 13)), 3: ((9, 11, 7), (4, 5, 6))}[axes]
    choices = Choices(size, "affine")
    tensors, grad_output = draw_problem(choices, input_size, images=16, layout=layout)
    exact = values_and_gradients(definition(choices), tensors, grad_output)
    single = [converted(tensors, device, torch.float32), grad_output.to(device, torch.float32)]
    ours, pytorchs = (values_and_gradients(solve(choices), *single) for solve in (library, pytorch))
    ratios = {n: (ours[n].cpu() - e).norm() / (pytorchs[n].cpu() - e).norm() for n, e in exact.items()}
    assert all(ratio <= 2 for ratio in ratios.values()), ratios


@pytest.mark.parametrize("mode", ["nearest", "integer"])
def test_nearest_takes_the_even_one_of_two_equally_near_pixels(device, mode):
    """As PyTorch does; Eq. 4's integer kernel takes the right one."""
    pixels = torch.tensor([0.5, 1.5, 2.5, 3.5, 4.5, 6.5, 2.25, 2.75])  # eight: the grid's numbers are exact
    grid = torch.stack([(2 * pixels + 1) / 8 - 1, torch.zeros_like(pixels)], -1)[None, None]
    image = torch.arange(8.0)[None, None, None]
    output = stn_kernels.grid_sample(image.to(device), grid.to(device), mode=mode).flatten().tolist()
    assert output == {"nearest": [0, 2, 2, 4, 4, 6, 2, 3], "integer": [1, 2, 3, 4, 5, 7, 2, 3]}[mode]
