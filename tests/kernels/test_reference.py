"""The reference is held to PyTorch, to SciPy and to finite differences, all in float64."""

import pytest
import torch
from torch.nn import functional

from sampling_cases import (
    EDGES_AND_CORNERS,
    MAPS,
    PADDING_MODES,
    assert_close,
    definition,
    draw,
    draw_grid,
    draw_image,
    draw_theta,
    pytorch,
    size_id,
    values_and_gradients,
)
from stn_kernels import reference

# PyTorch's affine_grid about outputs of one row or column.
pytestmark = pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid behavior has changed")

# Input and output sizes: odd and even, wide and tall, a row, a column, a single pixel.
SIZES = [
    ((7, 5), (4, 9)),
    ((6, 9), (9, 4)),
    ((1, 6), (3, 5)),
    ((6, 1), (5, 3)),
    ((1, 1), (3, 3)),
    ((5, 7), (1, 1)),
]


@EDGES_AND_CORNERS
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("coordinate_map", MAPS)
@pytest.mark.parametrize(("input_size", "size"), SIZES, ids=size_id)
def test_values_and_gradients_equal_pytorchs(input_size, size, coordinate_map, padding_mode, align_corners):
    image = draw_image(3, 2, input_size)
    parameters = draw(coordinate_map, 3, input_size, size, align_corners)
    grad_output = torch.randn(3, 2, *size, dtype=torch.float64)
    choices = (coordinate_map, size, padding_mode, align_corners)
    actual = values_and_gradients(definition(*choices), image, parameters, grad_output)
    assert_close(actual, values_and_gradients(pytorch(*choices), image, parameters, grad_output))


@pytest.mark.parametrize(
    ("padding_mode", "align_corners", "scipy_mode"),
    [
        ("zeros", False, "grid-constant"),
        ("zeros", True, "grid-constant"),
        ("border", False, "nearest"),
        ("border", True, "nearest"),
        ("reflection", False, "reflect"),
        ("reflection", True, "mirror"),
    ],
)
@pytest.mark.parametrize("input_size", [(7, 5), (2, 8), (9, 3)], ids=size_id)
def test_values_equal_scipys(input_size, padding_mode, align_corners, scipy_mode):
    map_coordinates = pytest.importorskip("scipy.ndimage").map_coordinates
    image, grid = draw_image(1, 1, input_size), draw_grid(1, input_size, (11, 13), align_corners)
    extents = torch.tensor([reference.half_extent(s, align_corners) for s in reversed(input_size)])
    centres = torch.tensor([(s - 1) / 2 for s in reversed(input_size)])
    rows_and_columns = (grid[0] * extents + centres).flip(-1).permute(2, 0, 1).numpy()
    expected = map_coordinates(image[0, 0].numpy(), rows_and_columns, order=1, mode=scipy_mode)
    actual = definition("grid", (11, 13), padding_mode, align_corners)(image, grid)
    torch.testing.assert_close(actual[0, 0], torch.from_numpy(expected), rtol=0, atol=1e-10)


@EDGES_AND_CORNERS
@pytest.mark.parametrize("size", [(5, 8), (1, 6), (6, 1), (1, 1)], ids=size_id)
def test_affine_grid_equals_pytorchs(size, align_corners):
    theta = draw_theta(3, (4, 4), (4, 4))
    actual = reference.affine_grid(theta, size, align_corners)
    expected = functional.affine_grid(theta, [3, 1, *size], align_corners)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-14)  # float64 rounding of values up to 4.5


@EDGES_AND_CORNERS
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("coordinate_map", MAPS)
def test_gradients_of_both_orders_equal_finite_differences(coordinate_map, padding_mode, align_corners):
    input_size, size = (4, 3), (3, 2)
    image = draw_image(1, 2, input_size).requires_grad_()
    parameters = draw(coordinate_map, 1, input_size, size, align_corners).requires_grad_()
    solve = definition(coordinate_map, size, padding_mode, align_corners)
    assert torch.autograd.gradcheck(solve, (image, parameters))
    assert torch.autograd.gradgradcheck(solve, (image, parameters))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_computed_in_float32_and_rounded_once(dtype):
    image, theta = draw_image(2, 3, (7, 5)).to(dtype), draw_theta(2, (7, 5), (6, 9)).float()
    solve = definition("affine", (6, 9))
    assert torch.equal(solve(image, theta), solve(image.float(), theta).to(dtype))
