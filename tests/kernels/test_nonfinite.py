"""NaN gives NaN, infinity lies outside the image, and neither touches memory that is not the image's."""

import numpy as np
import pytest
import torch

from sampling_cases import (
    INPUT_SIZE,
    MAPS,
    MODES,
    PADDING_MODES,
    SIZE,
    assert_close,
    assert_same,
    converted,
    definition,
    deviation,
    draw_image,
    draw_problem,
    has_dimension,
    library,
    pairwise,
    rounding_decides,
    values_and_gradients,
)
from stn_kernels import aten, backend
from stn_kernels.autograd import Choices

# Sums and products of infinities are meant to be infinite or NaN; in the interpreter NumPy remarks on them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:(invalid value|overflow|divide by zero) encountered in .*:RuntimeWarning"
)
INFINITY, NAN = torch.inf, torch.nan


@pytest.fixture(autouse=True)
def _aten_is_out_of_reach(monkeypatch):
    """PyTorch's CPU sampler may read outside the image on these coordinates; but not with bilinear taps and
    zeros padding in 2-D, which shows them by NaN."""
    sampler = torch.grid_sampler

    def refuse(*arguments):
        raise AssertionError("ATen's sampler was called")

    def refuse_what_may_do_harm(image, grid, mode, padding_mode, align_corners):
        harmless = image.ndim == 4 and (mode, padding_mode) == (0, 0)
        return sampler(image, grid, mode, padding_mode, align_corners) if harmless else refuse()

    aten.differentiates_twice()  # tries it, once
    monkeypatch.setattr(torch, "grid_sampler", refuse_what_may_do_harm)
    for name in ("grid_sampler_2d_backward", "grid_sampler_3d_backward"):
        monkeypatch.setattr(torch.ops.aten, name, refuse)


@pytest.fixture(autouse=True)
def _minimum_and_maximum_drop_nan(monkeypatch):
    """As on a GPU. NumPy's, in the interpreter, keep it, and would hide a kernel's reliance on that."""
    if backend.HAS_TRITON and backend.INTERPRETED:
        from triton.runtime.interpreter import InterpreterBuilder

        for name, function in (("create_minnumf", np.fmin), ("create_maxnumf", np.fmax)):
            monkeypatch.setattr(
                InterpreterBuilder, name, lambda self, a, b, f=function: self.binary_op(a, b, f)
            )


def solutions(choices, tensors, grad_output, device):
    """The library's and the reference's values and gradients."""
    actual = values_and_gradients(library(choices), converted(tensors, device), grad_output.to(device))
    return actual, values_and_gradients(definition(choices), tensors, grad_output)


def combinations(*factors):
    """Pairwise, of map, dimension, mode, padding and align_corners, and of what else is given."""
    return pairwise(
        *[MAPS, (2, 3), MODES, PADDING_MODES, (False, True), *factors],
        valid=lambda coordinate_map, axes, *_: has_dimension(coordinate_map, axes),
    )


@pytest.mark.parametrize(
    ("coordinate_map", "axes", "mode", "padding_mode", "align_corners", "value", "where"),
    combinations((NAN, INFINITY, -INFINITY, 1e30), ("first", "last", "everywhere")),
)
def test_parameters_without_bounds_follow_the_reference(
    device, coordinate_map, axes, mode, padding_mode, align_corners, value, where
):
    """One of two transforms of an image has them, in its first, its last or all numbers."""
    choices = Choices(SIZE[axes], coordinate_map, mode, padding_mode, align_corners)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[axes], images=1, transforms=2, channels=2)
    numbers = tensors[1][1].view(-1)
    if coordinate_map == "projective" and value == 1e30:
        numbers = numbers[: axes * (axes + 1)]  # a large denominator brings points to 0, within all bounds
    numbers[{"first": slice(1), "last": slice(-1, None), "everywhere": slice(None)}[where]] = value
    assert_same(
        *solutions(choices, tensors, grad_output, device), rounding_decides(device, padding_mode, value)
    )


@pytest.mark.parametrize(("coordinate_map", "axes", "mode", "padding_mode", "align_corners"), combinations())
def test_a_nan_concerns_its_own_transform_only(
    device, coordinate_map, axes, mode, padding_mode, align_corners
):
    choices = Choices(SIZE[axes], coordinate_map, mode, padding_mode, align_corners)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[axes], images=1, transforms=2, channels=2)
    image, parameters, *others = tensors
    sound = (image, parameters[:1], *others)
    expected = values_and_gradients(definition(choices), sound, grad_output[:1])
    parameters[1] = NAN
    actual = values_and_gradients(library(choices), converted(tensors, device), grad_output.to(device))
    assert actual["output"][1].isnan().all()
    assert actual["gradient of parameters"][1].isnan().all()
    assert_close(
        {
            "output": actual["output"][:1],
            "gradient of input": actual["gradient of input"],
            "gradient of parameters": actual["gradient of parameters"][:1],
        },
        {name: expected[name] for name in ("output", "gradient of input", "gradient of parameters")},
    )


@pytest.mark.parametrize("coordinate_map", ["grid", "displacement"])
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_a_nan_point_concerns_its_own_pixel_only(device, coordinate_map, padding_mode):
    choices = Choices(SIZE[2], coordinate_map, padding_mode=padding_mode)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[2])
    point = (1, 2, 4, 0) if coordinate_map == "grid" else (1, 0, 2, 4)
    elsewhere = grad_output.clone()
    elsewhere[1, :, 2, 4] = 0
    expected = values_and_gradients(definition(choices), tensors, elsewhere)
    expected["output"][1, :, 2, 4] = NAN
    gradient = expected["gradient of parameters"]
    gradient = gradient if coordinate_map == "grid" else gradient.movedim(1, -1)
    gradient[1, 2, 4] = NAN

    if padding_mode == "constant":  # the point takes no fill
        outside = (
            definition(choices)(torch.zeros_like(tensors[0]), *tensors[1:3], torch.ones(3).double()) == 1
        )
        outside[1, :, 2, 4] = False
        expected["gradient of fill"] = (grad_output * outside).sum((0, 2, 3))
    tensors[1][point] = NAN
    actual = values_and_gradients(library(choices), converted(tensors, device), grad_output.to(device))
    assert_same(actual, expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("sign", [1, -1])
def test_an_infinite_coordinate_is_outside_and_undefined_under_reflection(device, sign, padding_mode, mode):
    choices = Choices(SIZE[2], "grid", mode, padding_mode)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[2])
    grid = tensors[1]
    grid[0, 1, 5, 1] = sign * 5.0
    expected = values_and_gradients(definition(choices), tensors, grad_output)
    grid[0, 1, 5, 1] = sign * INFINITY
    actual = values_and_gradients(library(choices), converted(tensors, device), grad_output.to(device))
    if padding_mode == "reflection":
        assert actual["output"][0, :, 1, 5].isnan().all()
        assert actual["gradient of parameters"][0, 1, 5].isnan().all()
        assert actual["gradient of input"].isfinite().all()
    else:
        assert_close(actual, expected)


@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
def test_a_point_at_infinity_leaves_the_gradient_of_all_others_alone(device, padding_mode):
    """A projective map's horizon meets the first column, where its quotient has no derivative."""
    theta = torch.tensor([[[0.5, 0.2, 0.4], [0.1, 0.6, 0.2], [1, 0, 1]]], dtype=torch.float64)
    choices = Choices((2, 3), "projective", "bilinear", padding_mode, True, False, False)
    tensors, grad_output = (draw_image(1, 2, (4, 5)), theta, None, None), draw_image(1, 2, (2, 3))
    without = grad_output.clone()
    without[..., 0] = 0
    for some, others in zip(
        solutions(choices, tensors, grad_output, device),
        solutions(choices, tensors, without, device),
        strict=True,
    ):
        some, others = (results["gradient of parameters"] for results in (some, others))
        assert others.any()
        assert deviation(some, others) <= 1e-12


@pytest.mark.parametrize(
    ("coordinate_map", "axes", "mode", "padding_mode", "align_corners", "dtype", "magnitude"),
    combinations((torch.float32, torch.float64), (1e10, -1e30, 3e38)),
)
def test_far_coordinates_stay_in_the_images_range(
    device, coordinate_map, axes, mode, padding_mode, align_corners, dtype, magnitude
):
    """Values between the image's, zero and the fill; bicubic weights overshoot, at most 1.5 along an axis."""
    choices = Choices(SIZE[axes], coordinate_map, mode, padding_mode, align_corners)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[axes], images=1, transforms=2, channels=2)
    # Of a homography the numerators only: far over far may be anywhere.
    tensors[1][1].view(-1)[: 6 if coordinate_map == "projective" else None : 3] = magnitude
    tensors, grad_output = converted(tensors, device, dtype), grad_output.to(device, dtype)
    results = values_and_gradients(library(choices), tensors, grad_output)
    assert results["gradient of input"].isfinite().all()
    output = results["output"]
    # Times the image's size or by differences of infinities such a coordinate is infinite or NaN in float32.
    if dtype == torch.float64 and coordinate_map not in ("projective", "tps"):
        assert output.isfinite().all()
    largest = max(float(t.abs().max()) for t in (tensors[0], tensors[3]) if t is not None)
    assert output[output.isfinite()].abs().max() <= (1.5**axes if mode == "bicubic" else 1) * largest


@pytest.mark.parametrize(
    ("input_size", "mode", "padding_mode", "align_corners"),
    pairwise([(1, 1), (1, 6), (6, 1), (1, 1, 1), (2, 1, 3)], MODES, PADDING_MODES, (False, True)),
)
def test_single_pixels_and_rows_at_any_coordinate_follow_the_reference(
    device, input_size, mode, padding_mode, align_corners
):
    axes = len(input_size)
    choices = Choices((1, 5) if axes == 2 else (1, 1, 5), "grid", mode, padding_mode, align_corners)
    tensors, grad_output = draw_problem(choices, input_size, images=1, channels=1)
    for place, value in enumerate((NAN, INFINITY, -INFINITY, 1e30)):
        tensors[1].view(5, axes)[place, place % axes] = value
    assert_same(*solutions(choices, tensors, grad_output, device))


@pytest.mark.parametrize(
    ("coordinate_map", "axes", "mode", "padding_mode", "align_corners", "value"),
    combinations((NAN, INFINITY, 1e30)),
)
def test_nothing_outside_the_image_is_read(
    device, coordinate_map, axes, mode, padding_mode, align_corners, value
):
    """The image is a view into infinities, which any product with them would show."""
    choices = Choices(SIZE[axes], coordinate_map, mode, padding_mode, align_corners)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[axes], images=1, channels=2)
    tensors[1].view(-1)[:1] = value
    around = torch.nn.functional.pad(tensors[0], [2] * (2 * axes), value=INFINITY)
    expected = values_and_gradients(definition(choices), tensors, grad_output)
    moved = (around.to(device)[(..., *[slice(2, -2)] * axes)], *converted(tensors[1:], device))
    actual = values_and_gradients(library(choices), moved, grad_output.to(device))
    assert_same(actual, expected, rounding_decides(device, padding_mode, value))


def test_moderate_coordinates_are_left_to_aten(cpu_path, monkeypatch):
    """The guard above can fail: finite coordinates do reach ATen."""
    choices = Choices(SIZE[2], "grid", padding_mode="border")
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[2])
    with pytest.raises(AssertionError, match="was called"):
        library(choices)(*tensors)
    monkeypatch.undo()
    assert_close(*solutions(choices, tensors, grad_output, cpu_path))
