"""Displacement fields: how rough they are, where they fold, and what a velocity leads to."""

import math

import pytest
import torch

from stn.displacement_fields import integrate, jacobian_determinant, roughness

SIZES = pytest.mark.parametrize("size", [(6, 7), (4, 5, 6)], ids=["2-D", "3-D"])


def linear_field(matrix, size):
    """p -> matrix p - p at the pixels p, x first: (1, A, ...), and p."""
    places = torch.stack(torch.meshgrid(*(torch.arange(s).double() for s in size), indexing="ij")[::-1])
    return (torch.einsum("ij, j... -> i...", matrix, places) - places)[None]


@SIZES
def test_a_shift_is_not_rough_and_stretches_nothing(size):
    field = torch.randn(2, len(size), *[1] * len(size)).expand(-1, -1, *size)
    assert roughness(field) == 0
    torch.testing.assert_close(jacobian_determinant(field), torch.ones(2, *(s - 1 for s in size)))


@SIZES
def test_a_linear_map_has_its_determinant_and_its_slopes(size):
    matrix = torch.eye(len(size)) + 0.5 * torch.randn(len(size), len(size))
    field = linear_field(matrix.double(), size)
    determinant = jacobian_determinant(field)
    torch.testing.assert_close(determinant, torch.linalg.det(matrix.double()).expand_as(determinant))
    slopes = (matrix - torch.eye(len(size))).double()
    torch.testing.assert_close(roughness(field), slopes.square().mean())


def test_roughness_is_a_mean_over_axes_of_means():
    field = torch.randn(2, 2, 5, 9)
    along = [(field[:, :, 1:] - field[:, :, :-1]), (field[..., 1:] - field[..., :-1])]
    expected = sum((difference**2).mean() for difference in along) / 2
    torch.testing.assert_close(roughness(field), expected)


def test_exchanged_pixels_are_a_fold():
    field = torch.zeros(1, 2, 3, 6)
    field[:, 0, :, 2], field[:, 0, :, 3] = 2, -1  # the places 2 and 3 look at 4 and 2
    assert (jacobian_determinant(field)[0, 0] < 0).tolist() == [False, False, True, False, False]


def test_a_linear_velocity_leads_to_the_exponential_of_its_matrix():
    """v(p) = A (p - c): the flow after one unit of time is p -> c + exp(A) (p - c), where it stays inside."""
    angle, size = 0.3, (33, 33)
    rate = torch.tensor([[0.0, -angle], [angle, 0.0]], dtype=torch.float64)
    places = torch.stack(torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")[::-1]).double()
    velocity = torch.einsum("ij, jhw -> ihw", rate, places - 16)[None]
    field = integrate(velocity, steps=12)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
    expected = torch.einsum("ij, jhw -> ihw", turn, places - 16)[None] + 16 - places
    near = (..., slice(8, -8), slice(8, -8))
    # The first of 2^12 steps is off by (0.3 / 2^12)^2 / 2 of the distance to the centre, at most 12 pixels;
    # 2^12 times that.
    assert (field - expected)[near].abs().max() < 1.5 * 12 * 0.3**2 / 2**13
    assert field.shape == (1, 2, *size)


@SIZES
def test_a_constant_velocity_is_its_displacement(size):
    velocity = torch.randn(1, len(size), *[1] * len(size)).expand(-1, -1, *size)
    torch.testing.assert_close(integrate(velocity), velocity)


def test_a_field_has_as_many_channels_as_axes():
    for function in (roughness, jacobian_determinant, integrate):
        with pytest.raises(ValueError, match=r"field should be .* not \(1, 3, 4, 4\)"):
            function(torch.zeros(1, 3, 4, 4))
