"""The reference is held to PyTorch, SciPy, the ONNX standard and finite differences, all in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from sampling_cases import (
    AXES,
    EDGES_AND_CORNERS,
    INPUT_SIZE,
    MAPS,
    MODES,
    PADDING_MODES,
    PYTORCH_MODES,
    PYTORCH_PADDING_MODES,
    SIZE,
    assert_close,
    definition,
    draw_problem,
    has_dimension,
    leaves,
    pairwise,
    pytorch,
    size_id,
    uniform,
    values_and_gradients,
)
from stn_kernels import reference
from stn_kernels.autograd import Choices


def positions(grid, input_size, align_corners):
    """Pixel coordinates of a grid (1, H', W', axes) in NumPy's order: (axes, H', W'), z before y before x."""
    if align_corners:
        pixels = [(grid[0, ..., i] + 1) / 2 * (s - 1) for i, s in enumerate(reversed(input_size))]
    else:
        pixels = [((grid[0, ..., i] + 1) * s - 1) / 2 for i, s in enumerate(reversed(input_size))]
    return torch.stack(pixels[::-1]).numpy()


# --- PyTorch -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coordinate_map", "axes", "mode", "padding_mode", "align_corners"),
    pairwise(
        *[MAPS, (2, 3), PYTORCH_MODES[2], PYTORCH_PADDING_MODES, (False, True)],
        valid=lambda m, axes, mode, *_: has_dimension(m, axes) and mode in PYTORCH_MODES[axes],
    ),
)
def test_values_and_gradients_equal_pytorchs(coordinate_map, axes, mode, padding_mode, align_corners):
    choices = Choices(SIZE[axes], coordinate_map, mode, padding_mode, align_corners)
    problem = draw_problem(choices, INPUT_SIZE[axes], transforms=2)
    assert_close(
        values_and_gradients(definition(choices), *problem), values_and_gradients(pytorch(choices), *problem)
    )


@EDGES_AND_CORNERS
@pytest.mark.parametrize("size", [(5, 8), (1, 6), (6, 1), (1, 1), (3, 4, 5), (1, 2, 1)], ids=size_id)
@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid behavior has changed")
def test_affine_grid_equals_pytorchs(size, align_corners):
    theta = uniform(-1.5, 1.5, 3, len(size), len(size) + 1)
    actual = reference.affine_grid(theta, size, align_corners)
    expected = functional.affine_grid(theta, [3, 1, *size], align_corners)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-14)  # float64 rounding of values up to 6


# --- SciPy -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("padding_mode", "align_corners", "scipy_mode"),
    [
        ("zeros", False, "grid-constant"),
        ("zeros", True, "grid-constant"),
        ("border", False, "nearest"),
        ("border", True, "nearest"),
        ("reflection", False, "reflect"),
        ("reflection", True, "mirror"),
        ("constant", True, "constant"),
    ],
)
@pytest.mark.parametrize(("mode", "order"), [("nearest", 0), ("integer", 0), ("bilinear", 1)])
@pytest.mark.parametrize("input_size", [(7, 5), (2, 8), (9, 3), (4, 5, 3)], ids=size_id)
def test_values_equal_scipys(input_size, mode, order, padding_mode, align_corners, scipy_mode):
    """SciPy's "constant" is the fill wherever the coordinate leaves the centres of the border pixels."""
    map_coordinates = pytest.importorskip("scipy.ndimage").map_coordinates
    choices = Choices(
        (11, 13) if len(input_size) == 2 else (5, 6, 7), "grid", mode, padding_mode, align_corners
    )
    tensors, _ = draw_problem(choices, input_size, images=1, channels=1)
    image, grid, _, fill = tensors
    expected = map_coordinates(
        image[0, 0].numpy(),
        positions(grid, input_size, align_corners),
        order=order,
        mode=scipy_mode,
        cval=0.0 if fill is None else float(fill),
    )
    actual = definition(choices)(*tensors)[0, 0]
    torch.testing.assert_close(actual, torch.from_numpy(expected), rtol=0, atol=1e-10)


@AXES
@pytest.mark.parametrize("mode", MODES)
@EDGES_AND_CORNERS
def test_constant_is_border_inside_the_image_and_the_fill_outside(axes, mode, align_corners):
    choices = Choices(SIZE[axes], "grid", mode, "constant", align_corners)
    tensors, _ = draw_problem(choices, INPUT_SIZE[axes])
    image, grid, _, fill = tensors
    outside = (grid.abs() > 1).any(-1)
    assert 0 < outside.sum() < outside.numel()
    inside = definition(choices._replace(padding_mode="border"))(image, grid)
    expected = torch.where(outside[:, None], fill.view(-1, *[1] * axes), inside)
    assert torch.equal(definition(choices)(*tensors), expected)


# --- ONNX: GridSample's cubic mode, opset 20, tap by tap ---------------------------------------------------


def onnx_weights(fraction):
    """Of the four taps around a position, the cubic convolution with coefficient -0.75."""
    a, t = -0.75, fraction
    outer = [((a * d - 5 * a) * d + 8 * a) * d - 4 * a for d in (t + 1, 2 - t)]
    inner = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (t, 1 - t)]
    return [outer[0], *inner, outer[1]]


def onnx_index(tap, length, padding_mode, align_corners):
    """The pixel that a tap reads; None if it reads zero."""
    if padding_mode == "border":
        return min(max(tap, 0), length - 1)
    if padding_mode == "reflection":
        low, high = (0, length - 1) if align_corners else (-0.5, length - 0.5)
        while not low <= tap <= high:
            tap = 2 * low - tap if tap < low else 2 * high - tap
        return int(tap)
    return tap if 0 <= tap < length else None


def onnx_cubic(image, points, padding_mode, align_corners):
    """image (D, H, W) or (H, W), points (axes, P) -> (P,)."""
    output = np.zeros(points.shape[1])
    for p, point in enumerate(points.T):
        first = [math.floor(c) - 1 for c in point]
        weights = [onnx_weights(c - math.floor(c)) for c in point]
        for taps in itertools.product(range(4), repeat=len(point)):
            index = tuple(
                onnx_index(f + tap, length, padding_mode, align_corners)
                for f, tap, length in zip(first, taps, image.shape, strict=True)
            )
            if None not in index:
                output[p] += image[index] * math.prod(w[t] for w, t in zip(weights, taps, strict=True))
    return output


@pytest.mark.parametrize("padding_mode", PYTORCH_PADDING_MODES)
@EDGES_AND_CORNERS
@pytest.mark.parametrize("input_size", [(7, 5), (2, 3), (3, 4, 2)], ids=size_id)
def test_bicubic_equals_the_onnx_definition(input_size, padding_mode, align_corners):
    choices = Choices(
        (9, 11) if len(input_size) == 2 else (3, 4, 5), "grid", "bicubic", padding_mode, align_corners
    )
    tensors, _ = draw_problem(choices, input_size, images=1, channels=1)
    image, grid, *_ = tensors
    points = positions(grid, input_size, align_corners).reshape(len(input_size), -1)
    expected = onnx_cubic(image[0, 0].numpy(), points, padding_mode, align_corners)
    actual = definition(choices)(*tensors).flatten()
    torch.testing.assert_close(actual, torch.from_numpy(expected), rtol=0, atol=1e-10)


# --- finite differences ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coordinate_map", "axes", "mode", "padding_mode", "align_corners"),
    pairwise(
        *[MAPS, (2, 3), MODES, PADDING_MODES, (False, True)],
        valid=lambda m, axes, *_: has_dimension(m, axes),
    ),
)
def test_gradients_of_both_orders_equal_finite_differences(
    coordinate_map, axes, mode, padding_mode, align_corners
):
    size, input_size = {2: ((3, 2), (4, 3)), 3: ((2, 1, 2), (3, 2, 3))}[axes]
    choices = Choices(size, coordinate_map, mode, padding_mode, align_corners)
    tensors, grad_output = draw_problem(choices, input_size, transforms=2, channels=2)
    inputs = leaves(tensors)

    def solve(*some):
        given = dict(zip(inputs, some, strict=True))
        return definition(choices)(*map(given.get, ("input", "parameters", "shared", "fill")))

    assert torch.autograd.gradcheck(solve, tuple(inputs.values()))
    # PyTorch's fast mode fails where a first gradient is constant; there the full one is quick.
    fast = mode not in ("nearest", "integer")
    assert torch.autograd.gradgradcheck(solve, tuple(inputs.values()), grad_output, fast_mode=fast)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_computed_in_float32_and_rounded_once(dtype):
    choices = Choices(SIZE[2], "affine")
    (image, theta, *_), _ = draw_problem(choices, INPUT_SIZE[2])
    image, theta = image.to(dtype), theta.float()
    solve = definition(choices)
    assert torch.equal(solve(image, theta), solve(image.float(), theta).to(dtype))
