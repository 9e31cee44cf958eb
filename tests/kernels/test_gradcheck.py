"""Gradients of first and second order, and forward mode, equal finite differences: float64, off the kinks."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from sampling_cases import (
    MAPS,
    MODES,
    PADDING_MODES,
    converted,
    draw_image,
    draw_problem,
    has_dimension,
    library,
    of_present,
    pairwise,
    uniform,
)
from stn_kernels import tps_sample
from stn_kernels.autograd import Choices

INPUT_SIZE, SIZE = {2: (4, 3), 3: (3, 2, 3)}, {2: (2, 3), 3: (2, 1, 2)}
# A GPU adds to the image's gradient in no fixed order: two runs may differ by a few roundings.
SLOW = {"nondet_tol": 1e-12, "check_undefined_grad": False}
FAST = {"fast_mode": True, **SLOW}
COMBINATIONS = pytest.mark.parametrize(
    ("coordinate_map", "mode", "padding_mode", "axes", "align_corners"),
    pairwise(
        *[MAPS, MODES, PADDING_MODES, (2, 3), (False, True)],
        valid=lambda m, mode, padding, axes, align: has_dimension(m, axes),
    ),
)


def problem(device, choices, input_size=None, channels=2):
    """A function and its arguments: all tensors that the operation has."""
    input_size = input_size or INPUT_SIZE[len(choices.size)]
    tensors, _ = draw_problem(choices, input_size, images=1, channels=channels)
    function, present = of_present(library(choices), converted(tensors, device))
    return function, tuple(present)


@COMBINATIONS
def test_first_order(device, coordinate_map, mode, padding_mode, axes, align_corners):
    """Along random directions, which costs few of the interpreter's slow calls."""
    choices = Choices(SIZE[axes], coordinate_map, mode, padding_mode, align_corners)
    assert gradcheck(*problem(device, choices), **FAST)


@COMBINATIONS
@pytest.mark.parametrize("way", ["cpu_path", "cpu_operators"])
def test_second_order(request, way, coordinate_map, mode, padding_mode, axes, align_corners):
    choices = Choices(SIZE[axes], coordinate_map, mode, padding_mode, align_corners)
    assert gradgradcheck(*problem(request.getfixturevalue(way), choices), **FAST)


@pytest.mark.parametrize("coordinate_map", ["affine", "grid", "tps"])
def test_second_order_of_fused_first_order(kernels, coordinate_map):
    """The double backward is the operators' own, as above: a map of each kind will do for the interpreter."""
    function, tensors = problem(kernels, Choices(SIZE[2], coordinate_map, padding_mode="constant"))
    assert gradgradcheck(function, tensors, **FAST)


@COMBINATIONS
def test_forward_mode(cpu_operators, coordinate_map, mode, padding_mode, axes, align_corners):
    choices = Choices(SIZE[axes], coordinate_map, mode, padding_mode, align_corners)
    function, tensors = problem(cpu_operators, choices)
    assert gradcheck(function, tensors, check_forward_ad=True, check_backward_ad=False, **FAST)


# --- element by element ------------------------------------------------------------------------------------


@pytest.mark.parametrize("coordinate_map", MAPS)
def test_every_element_of_every_map(kernels, coordinate_map):
    choices = Choices((1, 2), coordinate_map, padding_mode="constant")
    assert gradcheck(*problem(kernels, choices, (2, 2), 1), **SLOW)


@pytest.mark.parametrize("mode", MODES)
def test_every_element_of_every_sampling_kernel(kernels, mode):
    assert gradcheck(*problem(kernels, Choices((1, 2), "grid", mode), (2, 3), 1), **SLOW)


@pytest.mark.parametrize("coordinate_map", MAPS)
def test_every_element_of_every_maps_second_order(cpu_operators, coordinate_map):
    choices = Choices((1, 2), coordinate_map, padding_mode="constant")
    assert gradgradcheck(*problem(cpu_operators, choices, (2, 2), 1), **SLOW)


@pytest.mark.parametrize("mode", MODES)
def test_every_element_of_every_sampling_kernels_second_order(cpu_operators, mode):
    assert gradgradcheck(*problem(cpu_operators, Choices((1, 2), "grid", mode), (2, 3), 1), **SLOW)


@pytest.mark.parametrize(("align_corners", "regularization"), [(False, 0.0), (True, 0.2)])
def test_control_points_through_the_spline_that_is_solved(device, align_corners, regularization):
    target_points = torch.tensor([[-0.9, -0.8], [0.9, -0.7], [-0.6, 0.8], [0.2, 0.1]]).double()
    source_points = (target_points + uniform(-0.2, 0.2, 4, 2))[None]
    tensors = (draw_image(1, 1, (3, 4)), source_points, target_points)

    def function(image, source_points, target_points):
        return tps_sample(
            image,
            source_points,
            (2, 3),
            target_points=target_points,
            regularization=regularization,
            align_corners=align_corners,
        )

    tensors = tuple(t.to(device).requires_grad_() for t in tensors)
    assert gradcheck(function, tensors, check_forward_ad=True, **FAST)
    assert gradgradcheck(function, tensors, **FAST)
