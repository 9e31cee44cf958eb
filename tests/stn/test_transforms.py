"""Each family means by theta what the paper's equations say."""

import pytest
import torch
from torch.nn import functional

from stn import Affine, Attention, Transform

FAMILIES = [Affine(), Attention()]


def random_theta(transform, count=3, dtype=torch.float64):
    torch.manual_seed(0)
    return transform.identity().to(dtype) + 0.3 * torch.randn(count, transform.num_parameters, dtype=dtype)


@pytest.mark.parametrize("transform", FAMILIES, ids=repr)
@pytest.mark.parametrize("align_corners", [False, True])
def test_identity_returns_the_input(transform, align_corners):
    image = torch.rand(2, 3, 7, 10)
    theta = transform.identity().expand(2, -1)
    output = transform.sample(image, theta, (7, 10), align_corners=align_corners)
    torch.testing.assert_close(output, image, rtol=0, atol=1e-6)  # float32 rounding of the coordinates


@pytest.mark.parametrize("transform", FAMILIES, ids=repr)
def test_identity_matrix_is_exact(transform):
    expected = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    assert torch.equal(transform.matrix(transform.identity()[None]), expected)


def test_affine_reads_the_matrix_by_rows():
    theta = torch.arange(12.0).view(2, 6)
    assert Affine().matrix(theta)[1].tolist() == [[6.0, 7.0, 8.0], [9.0, 10.0, 11.0]]


def test_attention_is_equation_2():
    assert Attention().matrix(torch.tensor([[0.5, 0.1, -0.2]])).tolist() == [
        [[0.5, 0.0, pytest.approx(0.1)], [0.0, 0.5, pytest.approx(-0.2)]]
    ]


def test_attention_of_half_scale_crops_a_quarter():
    image = torch.arange(16.0, dtype=torch.float64).view(1, 1, 4, 4)
    corner = Attention().sample(image, torch.tensor([[0.5, 0.5, -0.5]], dtype=torch.float64), (2, 2))
    assert torch.equal(corner, image[..., :2, 2:])


@pytest.mark.parametrize("transform", FAMILIES, ids=repr)
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
def test_sample_equals_pytorchs_two_steps(transform, align_corners, padding_mode):
    image, theta = torch.rand(3, 2, 6, 9, dtype=torch.float64), random_theta(transform)
    output = transform.sample(image, theta, (5, 8), padding_mode=padding_mode, align_corners=align_corners)
    grid = functional.affine_grid(transform.matrix(theta), [3, 2, 5, 8], align_corners)
    expected = functional.grid_sample(image, grid, "bilinear", padding_mode, align_corners)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)  # float64 rounding, a thousandfold


@pytest.mark.parametrize("transform", FAMILIES, ids=repr)
@pytest.mark.parametrize("align_corners", [False, True])
def test_grid_equals_pytorchs(transform, align_corners):
    theta = random_theta(transform)
    grid = transform.grid(theta, (5, 8), align_corners)
    expected = functional.affine_grid(transform.matrix(theta), [3, 1, 5, 8], align_corners)
    torch.testing.assert_close(grid, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("transform", FAMILIES, ids=repr)
def test_theta_gets_the_gradient(transform):
    # No sampling point lies so close to a kink that the finite difference would cross it.
    image, theta = torch.rand(3, 2, 6, 9, dtype=torch.float64), random_theta(transform).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: transform.sample(image, t, (5, 8)), theta)


@pytest.mark.parametrize("transform", FAMILIES, ids=repr)
@pytest.mark.parametrize("call", ["matrix", "grid", "sample"])
def test_bad_theta_is_named(transform, call):
    calls = {
        "matrix": transform.matrix,
        "grid": lambda theta: transform.grid(theta, (4, 4)),
        "sample": lambda theta: transform.sample(torch.zeros(2, 1, 4, 4), theta, (4, 4)),
    }
    count = transform.num_parameters
    with pytest.raises(
        ValueError, match=rf"theta should have shape \(N, {count}\) .* not \(2, {count + 1}\)"
    ):
        calls[call](torch.zeros(2, count + 1))
    with pytest.raises(ValueError, match=rf"theta should have shape .* not \({count},\)"):
        calls[call](torch.zeros(count))
    with pytest.raises(TypeError, match=r"theta should be of a floating dtype, not torch\.int64"):
        calls[call](torch.zeros(2, count, dtype=torch.int64))


def test_the_base_class_asks_for_what_a_family_must_define():
    with pytest.raises(TypeError, match="abstract"):
        Transform()
