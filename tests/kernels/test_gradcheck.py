"""Gradients of first and second order are those of finite differences, in float64 and clear of kinks."""

import pytest
import torch

from sampling_cases import EDGES_AND_CORNERS, MAPS, PADDING_MODES, draw, draw_image, library

INPUT_SIZE, SIZE = (4, 3), (2, 3)
# A GPU adds to the image's gradient in no fixed order: two runs may differ by a few roundings.
REPEATED = {"nondet_tol": 1e-12}


def draw_problem(coordinate_map, device, align_corners=False):
    image = draw_image(1, 2, INPUT_SIZE).to(device).requires_grad_()
    parameters = draw(coordinate_map, 1, INPUT_SIZE, SIZE, align_corners).to(device).requires_grad_()
    return image, parameters


@EDGES_AND_CORNERS
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("coordinate_map", MAPS)
def test_first_order(device, coordinate_map, padding_mode, align_corners):
    """Along random directions, which costs few of the interpreter's slow calls."""
    problem = draw_problem(coordinate_map, device, align_corners)
    solve = library(coordinate_map, SIZE, padding_mode, align_corners)
    assert torch.autograd.gradcheck(solve, problem, fast_mode=True, **REPEATED)


@pytest.mark.parametrize("coordinate_map", MAPS)
def test_first_order_element_by_element(device, coordinate_map):
    image = draw_image(1, 1, (2, 3)).to(device).requires_grad_()
    parameters = draw(coordinate_map, 1, (2, 3), (1, 2)).to(device).requires_grad_()
    assert torch.autograd.gradcheck(library(coordinate_map, (1, 2)), (image, parameters), **REPEATED)


@pytest.mark.parametrize("coordinate_map", MAPS)
def test_second_order(device, coordinate_map):
    """It differentiates the reference, whose own test goes through every padding."""
    solve = library(coordinate_map, SIZE, "reflection")
    problem = draw_problem(coordinate_map, device)
    assert torch.autograd.gradgradcheck(solve, problem, fast_mode=True, **REPEATED)


@pytest.mark.parametrize("coordinate_map", MAPS)
def test_forward_mode(device, coordinate_map):
    problem = draw_problem(coordinate_map, device)
    solve = library(coordinate_map, SIZE)
    assert torch.autograd.gradcheck(
        solve, problem, check_forward_ad=True, check_backward_ad=False, fast_mode=True
    )
