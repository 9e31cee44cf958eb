"""Every way to a result agrees with the reference and with PyTorch's affine_grid and grid_sample."""

import pytest
import torch

from sampling_cases import (
    EDGES_AND_CORNERS,
    LAYOUTS,
    MAPS,
    NAMES,
    PADDING_MODES,
    assert_close,
    definition,
    deviation,
    draw,
    draw_image,
    library,
    pytorch,
    size_id,
    values_and_gradients,
)

# Input and output sizes: odd, larger and smaller, one row or column of pixels.
SIZES = [((7, 5), (4, 9)), ((5, 11), (13, 3)), ((1, 6), (3, 5)), ((9, 1), (2, 7))]


@pytest.mark.parametrize("layout", LAYOUTS)
@EDGES_AND_CORNERS
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("coordinate_map", MAPS)
@pytest.mark.parametrize(("input_size", "size"), SIZES, ids=size_id)
def test_float64_agrees_with_the_reference_and_pytorch(
    device, input_size, size, coordinate_map, padding_mode, align_corners, layout
):
    image = draw_image(2, 3, input_size, layout)
    parameters = draw(coordinate_map, 2, input_size, size, align_corners)
    grad_output = torch.randn(2, 3, *size, dtype=torch.float64)
    problem = (image, parameters, grad_output)
    choices = (coordinate_map, size, padding_mode, align_corners)
    actual = values_and_gradients(library(*choices), *(t.to(device) for t in problem))
    assert_close(actual, values_and_gradients(definition(*choices), *problem))
    assert_close(actual, values_and_gradients(pytorch(*choices), *problem))


@EDGES_AND_CORNERS
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("coordinate_map", MAPS)
def test_float32_errs_at_most_twice_as_much_as_pytorch(device, coordinate_map, padding_mode, align_corners):
    """RMS errors against the same inputs in float64. One theta has six errors, too few for a ratio: over the
    eight that are drawn it is good to about a sixth."""
    input_size, size = (31, 27), (29, 33)
    choices = (coordinate_map, size, padding_mode, align_corners)
    squares = {"ours": torch.zeros(3), "pytorch": torch.zeros(3)}
    for layout in LAYOUTS:
        image = draw_image(4, 3, input_size, layout)
        parameters = draw(coordinate_map, 4, input_size, size, align_corners)
        problem = (image, parameters, torch.randn(4, 3, *size).double())
        single = [t.to(device, torch.float32) for t in problem]
        exact = values_and_gradients(definition(*choices), *problem)
        for who, solve in (("ours", library(*choices)), ("pytorch", pytorch(*choices))):
            results = values_and_gradients(solve, *single)
            assert all(r.dtype == torch.float32 for r in results)
            errors = [(r.cpu().double() - e).square().sum() for r, e in zip(results, exact, strict=True)]
            squares[who] += torch.stack(errors)
    ratios = (squares["ours"] / squares["pytorch"]).sqrt()
    assert (ratios <= 2).all(), dict(zip(NAMES, ratios.tolist(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("parameters_dtype", ["float32", "as the image"])
@pytest.mark.parametrize("coordinate_map", MAPS)
def test_half_precision_costs_one_rounding(device, coordinate_map, parameters_dtype, dtype):
    """Coordinates and sums are float32, so that only the final rounding shows: half a unit in the last place,
    eps / 2 of the largest value. The interpreter truncates to bfloat16 where a GPU rounds: up to eps."""
    input_size, size = (7, 5), (6, 9)
    image = draw_image(2, 3, input_size).to(dtype)
    parameters = draw(coordinate_map, 2, input_size, size).float()
    if parameters_dtype == "as the image":
        parameters = parameters.to(dtype)
    grad_output = torch.randn(2, 3, *size).to(dtype)
    problem = (image, parameters, grad_output)
    choices = (coordinate_map, size, "zeros", False)
    actual = values_and_gradients(library(*choices), *(t.to(device) for t in problem))
    expected = values_and_gradients(definition(*choices), *(t.double() for t in problem))
    for name, a, e, of in zip(NAMES, actual, expected, (image, image, parameters), strict=True):
        assert a.dtype == of.dtype
        limit = torch.finfo(of.dtype).eps if of.dtype != torch.float32 else 1e-5
        assert deviation(a, e) <= limit, name
