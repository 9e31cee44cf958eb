"""Every coordinate map equals a sampling grid from PyTorch and grid_sample: values and all gradients."""

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
    converted,
    definition,
    deviation,
    draw_image,
    draw_problem,
    has_dimension,
    library,
    pairwise,
    pytorch,
    uniform,
    values_and_gradients,
)
from stn_kernels import (
    affine_sample,
    basis_sample,
    displacement_sample,
    projective_sample,
    reference,
    tps_sample,
)
from stn_kernels.autograd import Choices


def combinations(modes, padding_modes, valid=lambda mode, axes: True):
    """Of map (grids have tests of their own), dimension, mode, padding and align_corners."""
    maps = [m for m in MAPS if m != "grid"]
    return pytest.mark.parametrize(
        ("coordinate_map", "axes", "mode", "padding_mode", "align_corners"),
        pairwise(
            *[maps, (2, 3), modes, padding_modes, (False, True)],
            valid=lambda m, axes, mode, *_: has_dimension(m, axes) and valid(mode, axes),
        ),
    )


@combinations(PYTORCH_MODES[2], PYTORCH_PADDING_MODES, lambda mode, axes: mode in PYTORCH_MODES[axes])
def test_each_map_equals_grid_then_sample(device, coordinate_map, axes, mode, padding_mode, align_corners):
    choices = Choices(SIZE[axes], coordinate_map, mode, padding_mode, align_corners)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[axes], channels=2)
    actual = values_and_gradients(library(choices), converted(tensors, device), grad_output.to(device))
    assert_close(actual, values_and_gradients(pytorch(choices), tensors, grad_output))


@combinations(MODES, PADDING_MODES)
def test_each_map_equals_the_reference_in_every_choice(
    device, coordinate_map, axes, mode, padding_mode, align_corners
):
    choices = Choices(SIZE[axes], coordinate_map, mode, padding_mode, align_corners)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[axes], images=1, transforms=2, channels=2)
    actual = values_and_gradients(library(choices), converted(tensors, device), grad_output.to(device))
    assert_close(actual, values_and_gradients(definition(choices), tensors, grad_output))


# --- matrices ----------------------------------------------------------------------------------------------


@AXES
@EDGES_AND_CORNERS
def test_a_homography_is_the_same_at_any_scale_and_affine_without_a_last_row(device, axes, align_corners):
    choices = Choices(SIZE[axes], "affine", align_corners=align_corners)
    (image, theta, *_), _ = draw_problem(choices, INPUT_SIZE[axes])
    image, theta = image.to(device), theta.to(device)
    last = torch.eye(axes + 1).to(theta)[-1:].expand(2, 1, axes + 1)
    expected = affine_sample(image, theta, choices.size, align_corners=align_corners)
    for scale in (1.0, -3.0):
        homography = scale * torch.cat([theta, last], 1)
        actual = projective_sample(image, homography, choices.size, align_corners=align_corners)
        assert deviation(actual, expected) <= 1e-10


@AXES
@EDGES_AND_CORNERS
def test_the_basis_x_y_1_makes_coefficients_a_theta(device, axes, align_corners):
    choices = Choices(SIZE[axes], "affine", align_corners=align_corners)
    (image, theta, *_), _ = draw_problem(choices, INPUT_SIZE[axes])
    identity = torch.eye(axes, axes + 1, dtype=torch.float64)[None]
    points = reference.affine_grid(identity, choices.size, align_corners)[0].movedim(-1, 0)
    basis = torch.cat([points, torch.ones_like(points[:1])]).to(device)
    image, theta = image.to(device), theta.to(device)
    actual = basis_sample(image, theta, basis, align_corners=align_corners)
    assert deviation(actual, affine_sample(image, theta, choices.size, align_corners=align_corners)) <= 1e-10


# --- displacements -----------------------------------------------------------------------------------------


@AXES
@EDGES_AND_CORNERS
@pytest.mark.parametrize("unit", ["pixel", "normalized"])
def test_a_displacement_of_one_pixel_samples_the_next_one(device, unit, axes, align_corners):
    """In normalised coordinates neighbours are 2 / W apart, with align_corners 2 / (W - 1)."""
    size = INPUT_SIZE[axes]
    image = draw_image(1, 2, size).to(device)
    for axis, length in enumerate(reversed(size)):
        displacement = image.new_zeros(1, axes, *size)
        displacement[:, axis] = 1.0 if unit == "pixel" else 2 / (length - align_corners)
        actual = displacement_sample(
            image, displacement, unit=unit, padding_mode="border", align_corners=align_corners
        )
        index = torch.arange(1, length + 1, device=device).clamp(max=length - 1)
        assert deviation(actual, image.index_select(-1 - axis, index)) <= 1e-14


@EDGES_AND_CORNERS
@pytest.mark.parametrize("unit", ["pixel", "normalized"])
def test_no_displacement_in_another_size_stretches_the_image(device, unit, align_corners):
    image, size = draw_image(2, 3, (5, 7)), (8, 4)
    displacement = image.new_zeros(2, 2, *size)
    actual = displacement_sample(
        image.to(device),
        displacement.to(device),
        unit=unit,
        padding_mode="border",
        align_corners=align_corners,
    )
    expected = functional.interpolate(image, size, mode="bilinear", align_corners=align_corners)
    assert deviation(actual, expected) <= 1e-10


# --- thin plate splines ------------------------------------------------------------------------------------


def spline(source_points, target_points, points, regularization):
    """The thin plate spline from target to source points (M, K, 2) at points (P, 2), solved one by one."""

    def kernel(a, b):
        squared = (a[:, None] - b).square().sum(-1)
        return squared * squared.clamp(min=1e-300).log() / 2

    def with_one(p):
        return functional.pad(p, (0, 1), value=1)

    count = len(target_points)
    bend = kernel(target_points, target_points)
    bend = bend + regularization * torch.eye(count, dtype=bend.dtype)
    system = torch.cat([bend, with_one(target_points)], 1)
    below = functional.pad(with_one(target_points).T, (0, 3))
    inverse = torch.linalg.inv(torch.cat([system, below]))[:, :count]
    return torch.cat([kernel(points, target_points), with_one(points)], 1) @ (inverse @ source_points)


@pytest.fixture
def control_points():
    """Target points (K, 2) irregular in [-1, 1]^2, and where two splines take them, (2, K, 2)."""
    target = torch.tensor([[-0.9, -0.8], [0.95, -0.7], [-0.6, 0.85], [0.7, 0.9], [0.05, 0.1], [-0.2, -0.5]])
    return target.double(), target.double() + uniform(-0.3, 0.3, 2, 6, 2)


@pytest.mark.parametrize("regularization", [0.0, 0.3])
@pytest.mark.parametrize("padding_mode", PYTORCH_PADDING_MODES)
@EDGES_AND_CORNERS
def test_splines_equal_solve_then_sample(device, control_points, padding_mode, align_corners, regularization):
    """Gradients of source points and of target points, which also move the matrix that is solved."""
    target_points, source_points = control_points
    size = (5, 4)
    image, grad_output = draw_image(2, 3, (6, 7)), draw_image(2, 3, size)
    identity = torch.eye(2, 3, dtype=torch.float64)[None]
    pixels = reference.affine_grid(identity, size, align_corners).view(-1, 2)

    def ours(input, source_points, target_points, fill):
        return tps_sample(
            input,
            source_points,
            size,
            target_points=target_points,
            regularization=regularization,
            padding_mode=padding_mode,
            align_corners=align_corners,
        )

    def expected(input, source_points, target_points, fill):
        grid = spline(source_points, target_points, pixels, regularization).view(2, *size, 2)
        return functional.grid_sample(input, grid, "bilinear", padding_mode, align_corners)

    tensors = (image, source_points, target_points, None)
    actual = values_and_gradients(ours, converted(tensors, device), grad_output.to(device))
    assert_close(actual, values_and_gradients(expected, tensors, grad_output))


@pytest.mark.parametrize("regularization", [0.0, 0.3])
def test_splines_equal_scipys(control_points, regularization):
    interpolate = pytest.importorskip("scipy.interpolate")
    target_points, source_points = control_points
    points = uniform(-1.2, 1.2, 50, 2)
    for source in source_points:
        scipys = interpolate.RBFInterpolator(
            target_points, source, kernel="thin_plate_spline", smoothing=regularization
        )
        ours = spline(source[None], target_points, points, regularization)[0]
        assert deviation(ours, torch.from_numpy(scipys(points))) <= 1e-10


@EDGES_AND_CORNERS
def test_splines_that_move_nothing_or_affinely_are_the_identity_and_affine(
    device, control_points, align_corners
):
    target_points = control_points[0].to(device)
    image = draw_image(2, 3, (6, 7)).to(device)
    theta = torch.tensor([[[1, 0, 0], [0, 1, 0]], [[0.8, -0.3, 0.1], [0.4, 0.9, -0.2]]]).to(image)
    source_points = functional.pad(target_points, (0, 1), value=1) @ theta.mT
    for regularization in (0.0, 10.0):  # neither bends, so that there is nothing to hold back
        actual = tps_sample(
            image,
            source_points,
            (6, 7),
            target_points=target_points,
            regularization=regularization,
            align_corners=align_corners,
        )
        assert deviation(actual[0], image[0]) <= 1e-10
        assert deviation(actual, affine_sample(image, theta, (6, 7), align_corners=align_corners)) <= 1e-10


def test_splines_sample_source_points_at_target_points_unless_regularised(device):
    """Control points on pixels (column, row), which the spline takes to other pixels."""
    size = (6, 8)
    target = torch.tensor([[0, 0], [7, 1], [2, 5], [6, 4], [3, 2]], device=device)
    source = torch.tensor([[1, 1], [5, 0], [0, 4], [7, 5], [3, 3]], device=device)
    corners = torch.tensor([7.0, 5.0], device=device, dtype=torch.float64)
    image = draw_image(1, 2, size).to(device)

    def sampled(regularization):
        points = [(2 * p / corners - 1) for p in (source, target)]
        output = tps_sample(
            image,
            points[0][None],
            size,
            target_points=points[1],
            regularization=regularization,
            align_corners=True,
        )
        return output[..., target[:, 1], target[:, 0]]

    expected = image[..., source[:, 1], source[:, 0]]
    assert deviation(sampled(0.0), expected) <= 1e-10
    assert deviation(sampled(1.0), expected) > 0.1


def test_much_regularisation_leaves_the_affine_map_of_least_squares(device, control_points):
    target_points, source_points = (t.to(device) for t in control_points)
    image = draw_image(2, 3, (6, 7)).to(device)
    homogeneous = functional.pad(target_points, (0, 1), value=1)
    theta = torch.linalg.lstsq(homogeneous.expand(2, -1, -1), source_points).solution.mT
    actual = tps_sample(image, source_points, (5, 4), target_points=target_points, regularization=1e8)
    # The bending that is left is of the order of 1 / regularization.
    assert deviation(actual, affine_sample(image, theta, (5, 4))) <= 1e-6


def test_a_pixel_on_a_control_point_has_finite_gradients(device):
    """r^2 log r has all it takes at r = 0, though log r does not."""
    target_points = torch.tensor([[0.0, 0.0], [-1.0, -1.0], [1.0, -1.0], [0.5, 1.0]]).double()
    source_points = (target_points + uniform(-0.2, 0.2, 4, 2))[None]
    choices = Choices((3, 3), "tps", align_corners=True)  # pixels at -1, 0 and 1
    tensors = (draw_image(1, 2, (5, 6)), source_points, target_points, None)

    def solve(input, source_points, target_points, fill):
        return tps_sample(input, source_points, choices.size, target_points=target_points, align_corners=True)

    actual = values_and_gradients(solve, converted(tensors, device), draw_image(1, 2, (3, 3)).to(device))
    assert all(g.isfinite().all() for g in actual.values())
    assert all((g != 0).any() for g in actual.values())


def test_a_spline_follows_its_target_points_when_they_change_in_place():
    """The CPU path keeps what it computes of target points: of their values, not of the tensor."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 1, 9, 11, generator=generator, dtype=torch.float64)
    target = torch.rand(5, 2, generator=generator, dtype=torch.float64)
    source = target + 0.1 * torch.randn(2, 5, 2, generator=generator, dtype=torch.float64)

    def check():
        expected = tps_sample(image, source, (7, 6), target_points=target.clone().requires_grad_())
        given = tps_sample(image, source, (7, 6), target_points=target)
        torch.testing.assert_close(given, expected, rtol=0, atol=1e-12)
        return given

    before = check()
    with torch.inference_mode():
        tps_sample(image, source, (7, 6), target_points=target)
    target += 0.05
    assert not torch.allclose(check(), before, atol=1e-3)
