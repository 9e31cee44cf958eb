"""Each family means by theta what the paper's equations say, starts at the identity, and samples as its grid
says. Other libraries' warps are in `test_warp_oracles.py`."""

import copy
import re

import pytest
import torch
from torch.nn import functional

import stn
from families import BENT, FAMILIES, MATRICES, SIZE, TRIANGLES, VERTICES, basis, label, random_theta
from stn import (
    Affine,
    Affine3d,
    Attention,
    Basis,
    Displacement,
    FourCorners,
    PiecewiseAffine,
    Projective,
    Similarity,
    Translation,
)
from stn_kernels import grid_sample

families = pytest.mark.parametrize("transform", FAMILIES, ids=label)
matrices = pytest.mark.parametrize("transform", [*MATRICES, Affine3d()], ids=label)
edges_and_corners = pytest.mark.parametrize("align_corners", [False, True])


def size_of(transform):
    return SIZE if transform.axes == 2 else (4, 5, 6)


def image_for(transform, count=2, channels=3):
    torch.manual_seed(2)
    return torch.rand(count, channels, *size_of(transform), dtype=torch.float64)


# --- what every family does --------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", [*FAMILIES, Affine3d()], ids=label)
@edges_and_corners
def test_identity_returns_the_input(transform, align_corners):
    image = image_for(transform)
    theta = transform.identity().double().expand(2, -1)
    output = transform.sample(image, theta, size_of(transform), align_corners=align_corners)
    torch.testing.assert_close(output, image, rtol=0, atol=1e-13)


@families
@edges_and_corners
def test_identity_returns_the_input_in_single_precision(transform, align_corners):
    image = image_for(transform).float()
    theta = transform.identity().expand(2, -1)
    output = transform.sample(image, theta, SIZE, align_corners=align_corners)
    torch.testing.assert_close(output, image, rtol=0, atol=1e-6)  # coordinates of up to 5 pixels, rounded


@pytest.mark.parametrize("transform", [*FAMILIES, Affine3d()], ids=label)
@edges_and_corners
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
def test_sample_is_grid_then_grid_sample_in_value_and_gradient(transform, align_corners, padding_mode):
    image, theta = image_for(transform, 3).requires_grad_(), random_theta(transform).requires_grad_()
    size = tuple(extent - 2 for extent in size_of(transform))
    options = {"padding_mode": padding_mode, "align_corners": align_corners}
    output = transform.sample(image, theta, size, **options)
    expected = grid_sample(image, transform.grid(theta, size, align_corners), **options)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-9)
    weights = torch.randn_like(output)
    wanted = torch.autograd.grad((expected * weights).sum(), (image, theta))
    for gradient, e in zip(
        torch.autograd.grad((output * weights).sum(), (image, theta)), wanted, strict=True
    ):
        torch.testing.assert_close(gradient, e, rtol=1e-9, atol=1e-9)


@families
def test_gradcheck(transform):
    image = image_for(transform, 1, 1).requires_grad_()
    theta = random_theta(transform, 1, spread=0.07).requires_grad_()
    assert torch.autograd.gradcheck(lambda i, t: transform.sample(i, t, (4, 5)), (image, theta))


@families
@edges_and_corners
def test_jacobian_is_the_grids_derivative(transform, align_corners):
    """Against differences where there is a formula; inside, where no pixel is on an edge of the meshes."""
    theta, size = random_theta(transform), (4, 5)
    jacobian = transform.jacobian(theta, size, align_corners)
    assert jacobian.shape == (3, *size, 2, 2)
    if isinstance(transform, Basis | Displacement):
        between = stn.Transform.jacobian(transform, theta, size, align_corners)
        torch.testing.assert_close(jacobian, between)
        return
    x, y = transform_points(size, align_corners).unbind(-1)
    for axis, step in enumerate(([1e-6, 0.0], [0.0, 1e-6])):
        moved = [
            mapped(transform, theta, torch.stack([x + s * step[0], y + s * step[1]], -1)) for s in (-1, 1)
        ]
        slope = (moved[1] - moved[0]) / 2e-6
        inside = (slice(None), slice(1, -1), slice(1, -1))
        torch.testing.assert_close(jacobian[inside][..., axis], slope[inside], rtol=0, atol=1e-7)


def transform_points(size, align_corners):
    return stn.thin_plate_spline.uniform_grid(size, align_corners=align_corners)


def mapped(transform, theta, points):
    """The sources of points (H', W', 2)."""
    flat = points.flatten(0, 1)
    if isinstance(transform, stn.ThinPlateSpline):
        return transform.spline(theta)(flat).unflatten(1, points.shape[:2])
    return transform.map_points(theta, flat.expand(len(theta), -1, -1)).unflatten(1, points.shape[:2])


def test_differences_are_exact_where_the_grid_is_affine_and_spacing_is_not_one():
    theta = random_theta(Affine())
    for align_corners in (False, True):
        expected = Affine().jacobian(theta, (5, 8), align_corners)
        between = stn.Transform.jacobian(Affine(), theta, (5, 8), align_corners)
        torch.testing.assert_close(between, expected)


@pytest.mark.parametrize("transform", [*FAMILIES, Affine3d()], ids=label)
def test_several_transforms_of_an_image_are_those_one_by_one(transform):
    image = image_for(transform)
    theta = torch.stack([random_theta(transform, 2, seed=seed) for seed in (0, 1, 2)], 1)  # (N, T, P)
    size = tuple(extent - 1 for extent in size_of(transform))
    output, grid = transform.sample(image, theta, size), transform.grid(theta, size)
    assert output.shape == (2, 3, 3, *size)
    assert transform.jacobian(theta, size).shape == (2, 3, *size, transform.axes, transform.axes)
    for t in range(3):
        torch.testing.assert_close(output[:, t], transform.sample(image, theta[:, t], size))
        torch.testing.assert_close(grid[:, t], transform.grid(theta[:, t], size))


@families
def test_any_output_size(transform):
    image, theta = image_for(transform), random_theta(transform, 2)
    for size in ((3, 4), (14, 20)):
        assert transform.sample(image, theta, size).shape == (2, 3, *size)
        assert transform.grid(theta, size).shape == (2, *size, 2)


@families
def test_single_precision_images_take_single_precision_theta_and_half_ones_too(transform):
    image, theta = image_for(transform).float(), random_theta(transform, 2, torch.float32)
    expected = transform.sample(image.double(), theta.double(), SIZE)
    torch.testing.assert_close(transform.sample(image, theta, SIZE).double(), expected, rtol=0, atol=1e-4)
    half = transform.sample(image.bfloat16(), theta, SIZE)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), expected, rtol=0, atol=2e-2)  # bfloat16 has 8 bits


@families
def test_it_can_be_copied_and_described(transform):
    theta = random_theta(transform)
    again = copy.deepcopy(transform)
    assert torch.equal(again.grid(theta, SIZE), transform.grid(theta, SIZE))
    assert repr(transform).startswith(type(transform).__name__ + "(")


@families
@pytest.mark.parametrize("shape", [(3,), (2, 999), (2, 2, 2, 4)])
def test_theta_of_another_shape_is_named(transform, shape):
    with pytest.raises(ValueError, match=r"^theta should have shape \(N, \d+\) for "):
        transform.sample(image_for(transform), torch.zeros(shape, dtype=torch.float64), SIZE)


@families
def test_theta_of_integers_is_named(transform):
    with pytest.raises(TypeError, match=r"^theta should be of a floating dtype"):
        transform.sample(image_for(transform), torch.zeros(2, transform.num_parameters, dtype=int), SIZE)


@families
def test_the_canvas_shows_where_the_image_ends(transform):
    """A theta that moves everything two images to the right, or at least out of a part of the output."""
    theta = random_theta(transform, 2, spread=0.5)
    image = image_for(transform)
    plain = transform.sample(image, theta, SIZE)
    mask = transform.sample(torch.ones_like(image[:, :1]), theta, SIZE)
    over = transform.sample_over(0.25, image, theta, SIZE)
    torch.testing.assert_close(over, plain + 0.25 * (1 - mask))
    with pytest.raises(TypeError, match=r"^padding_mode should not be given"):
        transform.sample_over(0.0, image, theta, SIZE, padding_mode="border")
    with pytest.raises(ValueError, match=r"^canvas should broadcast to \(2, 3, 7, 10\)"):
        transform.sample_over(torch.zeros(4, 7, 10), image, theta, SIZE)


# --- matrices ----------------------------------------------------------------------------------------------


@matrices
def test_inverse_undoes_the_map(transform):
    if isinstance(transform, Translation) and transform.scale != 1:
        return
    theta = random_theta(transform, 5, spread=0.1)
    points = 2 * torch.rand(5, 40, transform.axes, dtype=torch.float64) - 1
    there = transform.map_points(theta, points)
    assert (there - points).abs().max() > 0.05
    torch.testing.assert_close(
        transform.map_points(transform.inverse(theta), there), points, rtol=0, atol=1e-10
    )


@matrices
def test_composition_is_two_maps_in_a_row_the_last_warps_first(transform):
    one, two = (random_theta(transform, 5, spread=0.1, seed=seed) for seed in (0, 1))
    points = 2 * torch.rand(5, 40, transform.axes, dtype=torch.float64) - 1
    composed = transform.compose(one, then=two)
    in_a_row = transform.map_points(one, transform.map_points(two, points))
    torch.testing.assert_close(transform.map_points(composed, points), in_a_row, rtol=0, atol=1e-10)
    if not isinstance(transform, Translation):
        other_way = transform.map_points(two, transform.map_points(one, points))
        assert (other_way - in_a_row).abs().max() > 1e-3


@matrices
def test_composing_with_the_identity_changes_nothing(transform):
    theta = random_theta(transform, spread=0.1)
    identity = transform.identity().double().expand(3, -1)
    for composed in (transform.compose(theta, identity), transform.compose(identity, theta)):
        torch.testing.assert_close(composed, theta, rtol=0, atol=1e-12)


def test_warping_in_a_row_is_warping_by_the_composed_theta():
    """Of pictures: whole pixels and quarter turns, so that nothing is blurred."""
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    turn = torch.tensor([[0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    shift = torch.tensor([[1.0, 0.0, 0.5, 0.25]], dtype=torch.float64)
    similarity = Similarity()
    for one, two in ((turn, shift), (shift, turn)):
        in_a_row = similarity.sample(similarity.sample(image, one, (8, 8)), two, (8, 8))
        at_once = similarity.sample(image, similarity.compose(one, then=two), (8, 8))
        inside = in_a_row != 0
        assert inside.sum() >= 24
        torch.testing.assert_close(at_once[inside], in_a_row[inside])


def test_matrices_are_the_papers():
    theta = torch.arange(12.0).view(2, 6)
    assert Affine().matrix(theta)[1].tolist() == [[6.0, 7.0, 8.0], [9.0, 10.0, 11.0]]
    assert Attention().matrix(torch.tensor([[0.5, 0.25, -0.5]])).tolist() == [
        [[0.5, 0, 0.25], [0, 0.5, -0.5]]
    ]
    assert Translation(0.5).matrix(torch.tensor([[0.25, -1.0]])).tolist() == [[[0.5, 0, 0.25], [0, 0.5, -1]]]
    assert Similarity().matrix(torch.tensor([[3.0, 4.0, 1.0, 2.0]])).tolist() == [[[3, -4, 1], [4, 3, 2]]]
    assert Affine3d().matrix(torch.arange(12.0)[None])[0, 2].tolist() == [8.0, 9.0, 10.0, 11.0]
    free = Projective(bound=None).matrix(torch.arange(8.0)[None])
    assert free[0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 1]]


@matrices
def test_identity_matrix_is_exact(transform):
    axes = transform.axes
    assert torch.equal(transform.homogeneous(transform.identity()[None])[0], torch.eye(axes + 1))


def test_attention_of_half_scale_crops_a_quarter():
    image = torch.arange(16.0, dtype=torch.float64).view(1, 1, 4, 4)
    corner = Attention().sample(image, torch.tensor([[0.5, 0.5, -0.5]], dtype=torch.float64), (2, 2))
    assert torch.equal(corner, image[..., :2, 2:])


def test_a_window_of_fixed_scale_starts_in_the_middle_and_is_not_closed():
    image = torch.arange(16.0, dtype=torch.float64).view(1, 1, 4, 4)
    window = Translation(scale=0.5)
    theta = window.identity().double()[None]
    assert torch.equal(window.sample(image, theta, (2, 2)), image[..., 1:3, 1:3])
    for call in (lambda: window.compose(theta, theta), lambda: window.inverse(theta)):
        with pytest.raises(NotImplementedError, match=r"Translation\(scale=0.5\) is not closed"):
            call()


@pytest.mark.parametrize("bound", [0.9, 0.5])
def test_the_denominator_vanishes_for_no_theta(bound):
    transform = Projective(bound)
    theta = 100 * torch.randn(2000, 8, dtype=torch.float64)
    corners = torch.tensor([[x, y, 1.0] for x in (-1, 1) for y in (-1, 1)], dtype=torch.float64)
    assert (transform.matrix(theta)[:, 2] @ corners.T).min() >= 1 - bound - 1e-12
    free = torch.cat([theta[:, :6], theta[:, 6:]], 1)
    assert (Projective(None).matrix(free)[:, 2] @ corners.T).min() < 0


def test_a_bounded_last_row_starts_at_slope_one_and_says_so_where_it_cannot_follow():
    transform = Projective(0.6)
    theta = transform.identity().double()[None].clone().requires_grad_()
    (slope,) = torch.autograd.grad(transform.matrix(theta)[0, 2, 0], theta)
    assert slope[0, 6] == 1
    steep = torch.eye(3, dtype=torch.float64)[None].clone()
    steep[0, 2, 0] = 0.31  # more than half of the bound
    assert transform.parameters(steep)[0, 6].isnan()
    assert transform.parameters(steep)[0, :6].isfinite().all()


def test_corners_go_where_theta_sends_them_and_theta_comes_back():
    for bound in (0.5, None):
        transform = FourCorners(bound)
        theta = random_theta(transform, 6)
        corners = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
        sent = transform.map_points(theta, corners.expand(6, 4, 2))
        torch.testing.assert_close(sent, transform.corners(theta), rtol=0, atol=1e-12)
        torch.testing.assert_close(transform.parameters(transform.matrix(theta)), theta)


def test_corners_bounded_by_a_half_stay_convex_whatever_theta_is():
    theta = 100 * torch.randn(5000, 8, dtype=torch.float64)  # most at the bound
    corners = FourCorners().corners(theta)
    sides = corners.roll(-1, 1) - corners
    x, y = sides.unbind(-1)
    turns = x * y.roll(-1, 1) - y * x.roll(-1, 1)
    assert turns.min() > -1e-12  # at the bound itself three may be on a line
    wider = FourCorners(bound=0.8).corners(theta)
    x, y = (wider.roll(-1, 1) - wider).unbind(-1)
    assert (x * y.roll(-1, 1) - y * x.roll(-1, 1)).min() < -0.1


def test_homography_solves_the_eight_equations():
    torch.manual_seed(0)
    source = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]]) + 0.3 * torch.randn(
        7, 4, 2, dtype=torch.float64
    )
    target = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    for corners, matrix in zip(source, stn.homography(source), strict=True):
        rows, right = [], []
        for (x, y), (u, v) in zip(target.tolist(), corners.tolist(), strict=True):
            rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
            right += [u, v]
        solved = torch.linalg.solve(*(torch.tensor(a, dtype=torch.float64) for a in (rows, right)))
        torch.testing.assert_close(matrix.flatten()[:8], solved, rtol=0, atol=1e-10)
        assert matrix[2, 2] == 1


# --- meshes ------------------------------------------------------------------------------------------------


def test_vertices_go_where_theta_sends_them_and_edges_stay_straight():
    mesh = PiecewiseAffine(VERTICES, TRIANGLES)
    theta = random_theta(mesh, 2, spread=0.1)
    vertices = mesh.vertices.double().expand(2, -1, -1)
    torch.testing.assert_close(mesh.map_points(theta, vertices), mesh.source_vertices(theta))
    half = vertices[:, TRIANGLES[:, :2]].mean(2)
    expected = mesh.source_vertices(theta)[:, TRIANGLES[:, :2]].mean(2)
    torch.testing.assert_close(mesh.map_points(theta, half), expected)


def test_a_mesh_of_one_affine_map_is_that_map():
    mesh, affine = PiecewiseAffine((3, 4)), Affine()
    theta = random_theta(affine, 2)
    vertices = mesh.vertices.double().expand(2, -1, -1)
    moved = (affine.map_points(theta, vertices) - vertices).flatten(1)
    torch.testing.assert_close(mesh.grid(moved, (6, 9)), affine.grid(theta, (6, 9)))
    torch.testing.assert_close(
        mesh.determinant(moved), torch.linalg.det(affine.matrix(theta)[:, :, :2])[:, None].expand(2, 12)
    )


@pytest.mark.parametrize("mesh", [PiecewiseAffine((4, 5)), PiecewiseAffine(VERTICES, TRIANGLES)], ids=repr)
def test_a_meshs_inverse_undoes_it_where_it_does_not_fold(mesh):
    theta = random_theta(mesh, 4, spread=0.05)
    assert (mesh.determinant(theta) > 0).all()
    inside = 0.6 * (2 * torch.rand(4, 50, 2, dtype=torch.float64) - 1)
    back = mesh.inverse_points(theta, mesh.map_points(theta, inside))
    torch.testing.assert_close(back, inside, rtol=0, atol=1e-10)


def test_a_fold_shows_as_a_negative_determinant():
    mesh = PiecewiseAffine(VERTICES, TRIANGLES)
    theta = torch.zeros(1, 10, dtype=torch.float64)
    theta[0, 8] = 1.5  # the inner vertex leaves to the right
    assert (mesh.determinant(theta) < 0).sum() == 1


def test_what_belongs_to_other_vertices_does_not_move():
    mesh = PiecewiseAffine((3, 3))
    theta = torch.zeros(1, 18, dtype=torch.float64)
    theta[0, :2] = 0.2  # the upper left vertex
    moved = (mesh.grid(theta, (12, 12)) - mesh.grid(0 * theta, (12, 12))).abs().sum(-1)[0] > 1e-12
    assert moved[:6, :6].sum() > 20
    assert not moved[6:].any()
    assert not moved[:, 6:].any()


# --- bases and displacements -------------------------------------------------------------------------------


def test_hats_are_one_at_their_point_and_their_sum_is_one():
    hats = stn.hat_functions((3, 4), (5, 7), align_corners=True)
    assert hats.shape == (12, 5, 7)
    torch.testing.assert_close(hats.sum(0), torch.ones(5, 7))
    at_points = hats[:, ::2, ::2].flatten(1)
    torch.testing.assert_close(at_points, torch.eye(12))


def test_hats_displace_as_bilinear_interpolation_between_lattice_points_does():
    hats = Basis(stn.hat_functions((3, 4), SIZE, align_corners=True).double())
    field = 0.2 * torch.randn(2, 2, 3, 4, dtype=torch.float64)
    one = hats.grid(field.flatten(1), SIZE, align_corners=True)
    two = Displacement((3, 4)).grid(field.flatten(1), SIZE, align_corners=True)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-7)  # the hats are float32 numbers


def test_a_basis_is_learned_or_kept_and_both_are_saved():
    fixed, learned = basis(), basis(learned=True)
    assert [name for name, _ in fixed.named_parameters()] == []
    assert [name for name, _ in learned.named_parameters()] == ["basis"]
    assert list(fixed.state_dict()) == list(learned.state_dict()) == ["basis"]
    theta = random_theta(learned, 2).requires_grad_()
    learned.sample(image_for(learned), theta, SIZE).square().sum().backward()
    assert learned.basis.grad.abs().max() > 0
    image = image_for(learned, 1, 1)
    assert torch.autograd.gradcheck(
        lambda planes: torch.func.functional_call(
            learned, {"basis": planes}, (image, theta[:1].detach(), SIZE)
        ),
        (learned.basis.detach().clone().requires_grad_(),),
    )


def test_a_volume_bends_too():
    transform = Basis(torch.randn(2, 4, 5, 6, dtype=torch.float64))
    assert (transform.axes, transform.num_parameters) == (3, 6)
    theta, image = (
        0.1 * torch.randn(2, 6, dtype=torch.float64),
        torch.rand(2, 1, 4, 5, 6, dtype=torch.float64),
    )
    expected = grid_sample(image, transform.grid(theta, (4, 5, 6)))
    torch.testing.assert_close(transform.sample(image, theta, (4, 5, 6)), expected)


def test_a_displacement_of_a_pixel_reads_the_next_one():
    image = torch.rand(1, 2, *SIZE, dtype=torch.float64)
    theta = torch.zeros(1, 2, *SIZE, dtype=torch.float64)
    theta[:, 0] = 2 / SIZE[1]
    output = Displacement(SIZE).sample(image, theta.flatten(1), SIZE)
    torch.testing.assert_close(output[..., :-1], image[..., 1:], rtol=0, atol=1e-13)


# --- settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Translation(0), ValueError, "scale should be positive and finite, not 0"),
        (lambda: Translation("1"), TypeError, "scale should be a number, not '1'"),
        (lambda: Projective(-1), ValueError, "bound should be positive"),
        (lambda: FourCorners(float("inf")), ValueError, "bound should be positive and finite"),
        (lambda: PiecewiseAffine((1, 4)), ValueError, r"vertices should be \(rows, columns\).*not \(1, 4\)"),
        (lambda: PiecewiseAffine((3, 3), TRIANGLES), ValueError, "triangles should not be given"),
        (lambda: PiecewiseAffine(VERTICES), TypeError, r"triangles should be a tensor \(T, 3\)"),
        (lambda: PiecewiseAffine(VERTICES, TRIANGLES.float()), TypeError, "triangles should be a tensor"),
        (
            lambda: PiecewiseAffine(VERTICES, TRIANGLES[0]),
            ValueError,
            r"triangles should have shape \(T, 3\)",
        ),
        (
            lambda: PiecewiseAffine(VERTICES, TRIANGLES + 1),
            ValueError,
            "triangles should join vertices 0 to 4",
        ),
        (
            lambda: PiecewiseAffine(VERTICES, torch.tensor([[0, 1, 1]])),
            ValueError,
            "triangles should have an area, but that of triangle 0 is 0",
        ),
        (lambda: Basis(torch.zeros(2, 3)), ValueError, r"basis should have shape \(D, H', W'\)"),
        (lambda: Basis(torch.zeros(2, 3, 4, dtype=int)), TypeError, "basis should be a tensor of a floating"),
        (lambda: Displacement((0, 3)), ValueError, "size should be positive"),
        (lambda: stn.hat_functions((3,), (4, 4)), ValueError, r"lattice should be \(rows, columns\)"),
    ],
)
def test_bad_settings_are_named(make, error, message):
    with pytest.raises(error, match=f"^{message}"):
        make()


def test_differences_need_two_pixels():
    transform = Displacement((3, 3))
    with pytest.raises(ValueError, match=r"^size should be at least 2"):
        transform.jacobian(random_theta(transform), (1, 3))


@pytest.mark.parametrize("transform", [*MATRICES, *BENT], ids=label)
def test_input_of_another_batch_is_named(transform):
    with pytest.raises(ValueError, match=re.escape("should have input's batch size 2, not 3")):
        transform.sample(image_for(transform), random_theta(transform, 3), SIZE)


def test_an_affine_grid_is_pytorchs():
    theta = random_theta(Affine())
    expected = functional.affine_grid(theta.view(-1, 2, 3), [3, 1, 5, 8], False)
    torch.testing.assert_close(Affine().grid(theta, (5, 8)), expected)
