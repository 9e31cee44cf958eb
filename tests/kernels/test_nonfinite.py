"""NaN gives NaN, infinity lies outside the image, and neither touches memory that is not the image's."""

import numpy as np
import pytest
import torch

from sampling_cases import (
    MAPS,
    PADDING_MODES,
    assert_close,
    definition,
    deviation,
    draw,
    draw_image,
    library,
    values_and_gradients,
)
from stn_kernels import aten, backend

# Sums and products of infinities are meant to be infinite or NaN; in the interpreter NumPy remarks on them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:(invalid value|overflow) encountered in (add|subtract|multiply)"
)
INPUT_SIZE, SIZE = (5, 6), (3, 7)
INFINITY, NAN = torch.inf, torch.nan


@pytest.fixture(autouse=True)
def _aten_is_out_of_reach(monkeypatch):
    """PyTorch's CPU sampler may read outside the image on these coordinates."""

    def refuse(*arguments):
        raise AssertionError("ATen's sampler was called")

    monkeypatch.setattr(aten, "sample", refuse)
    monkeypatch.setattr(aten, "sample_backward", refuse)


@pytest.fixture(autouse=True)
def _minimum_and_maximum_drop_nan(monkeypatch):
    """As on a GPU. NumPy's, in the interpreter, keep it, and would hide a kernel's reliance on that."""
    if backend.HAS_TRITON and backend.INTERPRETED:
        from triton.runtime.interpreter import InterpreterBuilder

        for name, function in (("create_minnumf", np.fmin), ("create_maxnumf", np.fmax)):
            monkeypatch.setattr(
                InterpreterBuilder, name, lambda self, a, b, f=function: self.binary_op(a, b, f)
            )


def draw_problem(coordinate_map, dtype=torch.float64):
    image = draw_image(2, 3, INPUT_SIZE)
    parameters = draw(coordinate_map, 2, INPUT_SIZE, SIZE)
    return tuple(t.to(dtype) for t in (image, parameters, torch.randn(2, 3, *SIZE)))


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_a_nan_grid_point_concerns_its_own_pixel_only(device, padding_mode):
    image, grid, grad_output = (t.to(device) for t in draw_problem("grid"))
    choices = ("grid", SIZE, padding_mode)
    elsewhere = grad_output.clone()
    elsewhere[1, :, 2, 4] = 0
    output, grad_image, grad_grid = values_and_gradients(definition(*choices), image, grid, elsewhere)
    output[1, :, 2, 4] = NAN
    grad_grid[1, 2, 4] = NAN

    grid[1, 2, 4, 0] = NAN
    actual = values_and_gradients(library(*choices), image, grid, grad_output)
    for result, expected in zip(actual, (output, grad_image, grad_grid), strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("entry", [(0, 0), (1, 2)], ids=["factor", "offset"])
def test_a_nan_in_theta_concerns_its_own_sample_only(device, entry, padding_mode):
    image, theta, grad_output = (t.to(device) for t in draw_problem("affine"))
    choices = ("affine", SIZE, padding_mode)
    sound = values_and_gradients(definition(*choices), image[:1], theta[:1], grad_output[:1])

    theta[1][entry] = NAN
    actual = values_and_gradients(library(*choices), image, theta, grad_output)
    assert_close([result[:1] for result in actual], sound)
    output, grad_image, grad_theta = (result[1] for result in actual)
    assert output.isnan().all()
    assert (grad_image == 0).all()
    assert grad_theta.isnan().all()


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("sign", [1, -1])
def test_an_infinite_coordinate_is_outside_and_undefined_under_reflection(device, sign, padding_mode):
    image, grid, grad_output = (t.to(device) for t in draw_problem("grid"))
    choices = ("grid", SIZE, padding_mode)
    far = grid.clone()
    far[0, 1, 5, 1] = sign * 5.0
    grid[0, 1, 5, 1] = sign * INFINITY
    output, grad_image, grad_grid = values_and_gradients(library(*choices), image, grid, grad_output)
    if padding_mode == "reflection":
        assert output[0, :, 1, 5].isnan().all()
        assert grad_grid[0, 1, 5].isnan().all()
        assert grad_image.isfinite().all()
    else:
        expected = values_and_gradients(definition(*choices), image, far, grad_output)
        assert_close((output, grad_image, grad_grid), expected)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(
    "theta",
    [
        [[1, 0, INFINITY], [0, 1, 0]],
        [[INFINITY, 0, 0], [0, 1, 0]],  # NaN in the middle column, where infinity meets zero
        [[1, 0, 0], [INFINITY, -INFINITY, 0]],
        [[1, NAN, 0], [0, 1, INFINITY]],
    ],
    ids=["offset", "factor", "opposite factors", "with NaN"],
)
def test_infinities_in_theta_follow_the_reference(device, theta, padding_mode):
    image, _, grad_output = draw_problem("affine")
    problem = (image, torch.tensor(theta, dtype=torch.float64).expand(2, 2, 3), grad_output)
    choices = ("affine", SIZE, padding_mode)
    actual = values_and_gradients(library(*choices), *(t.to(device) for t in problem))
    expected = values_and_gradients(definition(*choices), *problem)
    for result, reference in zip(actual, expected, strict=True):
        torch.testing.assert_close(result.cpu(), reference, rtol=0, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("magnitude", [1e10, 1e30, -3e38])
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("coordinate_map", MAPS)
def test_far_coordinates_stay_in_the_images_range(device, coordinate_map, padding_mode, magnitude, dtype):
    image, parameters, grad_output = draw_problem(coordinate_map, dtype)
    parameters[1].view(-1)[::3] = magnitude
    problem = [t.to(device) for t in (image, parameters, grad_output)]
    results = values_and_gradients(library(coordinate_map, SIZE, padding_mode), *problem)
    finite = [r.isfinite() for r in results]
    if padding_mode == "reflection" and abs(magnitude) > 1e38 and dtype != torch.float64:
        assert finite[1].all()  # times the image's size such a coordinate overflows to infinity
    else:
        assert all(f.all() for f in finite)
    values = results[0][finite[0]]
    assert values.min() >= min(0, image.min())
    assert values.max() <= max(0, image.max())


def test_moderate_coordinates_are_left_to_aten(cpu_path, monkeypatch):
    """The guard above can fail: finite coordinates do reach ATen."""
    image, grid, _ = draw_problem("grid")
    with pytest.raises(AssertionError, match="was called"):
        library("grid", SIZE)(image, grid)
    monkeypatch.undo()
    assert deviation(library("grid", SIZE)(image, grid), definition("grid", SIZE)(image, grid)) <= 1e-10
