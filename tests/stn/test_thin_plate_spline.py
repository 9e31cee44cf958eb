"""Splines are SciPy's, maps those of an independent solve, and both keep what the docstrings promise.

Maps are held to a solve in NumPy, with another constant in the kernel and another order of the unknowns; and
to scikit-image, which has no lambda.
"""

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import map_coordinates
from skimage.transform import ThinPlateSplineTransform
from torch.nn import functional

from families import estimated
from stn.thin_plate_spline import Spline, SplineMap, fit, fit_map, uniform_grid
from stn_kernels import grid_sample, tps_sample

CORNERS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)


def strewn(*shape, spread=1.0):
    """Points, (*shape, 2), or values, uniform in [-spread, spread]."""
    return spread * (2 * torch.rand(*shape, dtype=torch.float64) - 1)


def lattice(rows=3, columns=3, span=0.9):
    return span * uniform_grid((rows, columns), align_corners=True).flatten(0, 1)


def warp_of(sigma=0.05, batch=(), **options):
    """A map near the identity: 4 x 4 points, moved at random."""
    target = lattice(4, 4)
    moved = target + sigma * torch.randn(*batch, 16, 2, dtype=torch.float64)
    return fit_map(target_points=target, source_points=moved, **options)


def close(actual, expected, atol):
    torch.testing.assert_close(actual, torch.as_tensor(expected).to(actual), rtol=0, atol=atol)


# --- the spline --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [4, 9, 60, 400])
@pytest.mark.parametrize("regularization", [0.0, 1e-3, 1.0])
def test_values_are_scipys(count, regularization):
    points, values, locations = strewn(count, 2), strewn(count, 3), strewn(50, 2, spread=1.5)
    oracle = RBFInterpolator(points, values, kernel="thin_plate_spline", smoothing=regularization)
    close(fit(points, values, regularization)(locations), oracle(locations), atol=1e-8)


@pytest.mark.parametrize(("scale", "shift"), [(500.0, 300.0), (1e-4, 0.0), (1.0, -1000.0)])
def test_any_unit_will_do(scale, shift):
    points, values, locations = strewn(30, 2), strewn(30, 1), strewn(50, 2)
    expected = fit(points, values)(locations)
    close(fit(scale * points + shift, values)(scale * locations + shift), expected, atol=1e-8)
    # Bending energy is per area, so lambda scales with it.
    smooth, expected = fit(scale * points + shift, values, scale**2), fit(points, values, 1.0)
    close(smooth(scale * locations + shift), expected(locations), atol=1e-8)
    close(smooth.bending_energy() * scale**2, expected.bending_energy(), atol=1e-8)


def test_lambda_leads_from_interpolation_to_the_plane_of_least_squares():
    points, values = strewn(20, 2), strewn(20, 2)
    close(fit(points, values)(points), values, atol=1e-12)
    plane = torch.linalg.lstsq(torch.cat([points, torch.ones(20, 1).double()], 1), values).solution
    flat = fit(points, values, 1e9)
    close(flat.affine, plane, atol=1e-7)  # of the order of 1 / lambda
    close(flat.bending_energy(), [0.0, 0.0], atol=1e-12)
    bending = torch.stack(
        [fit(points, values, r).bending_energy() for r in (0.0, 1e-3, 1e-2, 0.1, 1.0, 10.0)]
    )
    assert (bending.diff(dim=0) < 0).all()


def test_lambda_is_eight_pi_times_the_weight_of_the_bending_energy():
    """Any other spline over the same points has more of what the fit minimises."""
    points, values, regularization = strewn(12, 2), strewn(12, 1), 0.3

    def objective(spline):
        misfit = (spline(points) - values).square().sum()
        return (misfit + regularization / (8 * math.pi) * spline.bending_energy().sum()).item()

    best = fit(points, values, regularization)
    parameters = best.reduced()
    least = objective(best)
    for _ in range(20):
        step = 1e-3 * torch.randn_like(parameters)
        there, back = (objective(Spline.from_reduced(points, parameters + s * step)) for s in (1, -1))
        assert min(there, back) > least
        assert there - least == pytest.approx(back - least, rel=1e-4)  # the gradient is 0


def test_bending_energy_is_the_integral():
    points, values = lattice(2, 3, 0.7) + strewn(6, 2, spread=0.2), strewn(6, 1)
    spline = fit(points, values)
    # Midpoints in t of x = sinh(t): dense near the points, and out to 2000, as the integrand falls like r^-4.
    steps = torch.linspace(-8.3, 8.3, 1401, dtype=torch.float64)
    t, width = (steps[1:] + steps[:-1]) / 2, steps[1] - steps[0]
    area = (t.cosh()[:, None] * t.cosh()) * width**2
    x, y = torch.meshgrid(t.sinh(), t.sinh(), indexing="xy")
    second = [torch.zeros_like(x) for _ in range(3)]
    for (px, py), weight in zip(points, spline.weights[:, 0], strict=True):
        dx, dy = x - px, y - py
        squared = dx.square() + dy.square()
        for total, product, one in zip(second, (dx * dx, dx * dy, dy * dy), (1, 0, 1), strict=True):
            total += weight * (one * (squared.log() + 1) + 2 * product / squared)
    xx, xy, yy = second
    integral = ((xx.square() + 2 * xy.square() + yy.square()) * area).sum().item()
    assert spline.bending_energy().item() == pytest.approx(integral, rel=1e-3)


def test_a_plane_does_not_bend():
    points, plane = strewn(9, 2), torch.tensor([[0.3, 1.0], [-2.0, 0.5], [4.0, 0.0]], dtype=torch.float64)
    spline = fit(points, points @ plane[:2] + plane[2:])
    close(spline.weights, torch.zeros(9, 2).double(), atol=1e-12)
    close(spline.affine, plane, atol=1e-12)


def test_outside_the_points_bending_grows_only_like_the_logarithm():
    spline = fit(strewn(9, 2), strewn(9, 1))
    far = torch.tensor([[3.0, 4.0]], dtype=torch.float64) * 10.0 ** torch.arange(1, 6)[:, None]
    bent = spline(far) - far @ spline.affine[:2] - spline.affine[2:]
    steps = bent.diff(dim=0)  # log r grows by as much at each step
    assert steps[0].abs() > 0.01
    assert (steps / steps[0] - 1).abs().max() < 0.05


def test_the_jacobian_is_autograds():
    spline, locations = fit(strewn(7, 2), strewn(7, 3)), strewn(5, 2)
    expected = torch.func.vmap(torch.func.jacrev(lambda p: spline(p[None])[0]))(locations)
    close(spline.jacobian(locations), expected, atol=1e-12)
    # At a control point, too, where log r is infinite and r log r is 0.
    at = spline.points[:1]
    step = torch.tensor([[1e-7, 0.0]], dtype=torch.float64)
    assert spline.jacobian(at)[0, :, 0].tolist() == pytest.approx(
        ((spline(at + step) - spline(at - step)) / 2e-7)[0].tolist(), abs=1e-5
    )


def test_a_batch_is_each_for_itself():
    points, values, locations = strewn(2, 3, 8, 2), strewn(3, 8, 4), strewn(2, 1, 6, 2)
    batch = fit(points, values, 0.1)
    assert batch(locations).shape == (2, 3, 6, 4)
    assert batch.jacobian(locations).shape == (2, 3, 6, 4, 2)
    for i in range(2):
        for j in range(3):
            one = fit(points[i, j], values[j], 0.1)
            close(batch(locations)[i, j], one(locations[i, 0]), atol=1e-10)
            close(batch.jacobian(locations)[i, j], one.jacobian(locations[i, 0]), atol=1e-10)
            close(batch.bending_energy()[i, j], one.bending_energy(), atol=1e-10)


def test_one_set_of_points_serves_many_values():
    points, values = strewn(6, 2), strewn(5, 6, 2)
    batch = fit(points, values)
    assert batch.weights.shape == (5, 6, 2)
    close(batch(points), values, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_any_floating_dtype(given, computed):
    points, values = lattice().to(given), strewn(9, 2).to(given)
    spline = fit(points, values)
    assert spline(points).dtype == computed
    close(spline(points).double(), values.double(), atol=1e-5 if computed == torch.float32 else 1e-12)


def test_autocast_computes_in_full_precision():
    warp, locations = warp_of().to(torch.float32), strewn(20, 2).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = warp(locations)
    assert torch.equal(inside, warp(locations))


def test_reduced_has_as_many_numbers_as_points_and_means_the_same():
    points, values = strewn(2, 10, 2), strewn(2, 10, 3)
    spline = fit(points, values)
    reduced = spline.reduced()
    assert reduced.shape == (2, 10, 3)
    back = Spline.from_reduced(points, reduced)
    close(back.weights, spline.weights, atol=1e-9)
    close(back.affine, spline.affine, atol=1e-12)


@pytest.mark.parametrize("count", [3, 4, 16])
def test_any_reduced_parameters_keep_the_side_conditions(count):
    points = lattice(4, 4)[:count] if count > 4 else CORNERS[:count]  # a lattice's first points are on a line
    spline = Spline.from_reduced(points, strewn(5, count, 2))
    assert spline.weights.shape == (5, count, 2)
    close(spline.weights.sum(-2), torch.zeros(5, 2).double(), atol=1e-12)
    close(points.mT @ spline.weights, torch.zeros(5, 2, 2).double(), atol=1e-12)


def test_from_reduced_keeps_what_a_map_has_beside():
    warp = SplineMap.from_reduced(CORNERS, strewn(4, 2), interval=(0.0, 1.0))
    assert isinstance(warp, SplineMap)
    assert warp.interval == (0.0, 1.0)


# --- gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regularization", [0.0, 0.1])
def test_gradients_through_the_fit(regularization):
    points, values = lattice(2, 3) + strewn(6, 2, spread=0.2), strewn(2, 6, 1)
    # One location is a control point's first place.
    locations = torch.cat([points[:1], strewn(3, 2)])

    def evaluate(points, values, locations):
        spline = fit(points, values, regularization)
        return (
            spline(locations),
            spline.bending_energy(),
            Spline.from_reduced(points, spline.reduced()).weights,
        )

    inputs = [t.clone().requires_grad_() for t in (points, values, locations)]
    assert torch.autograd.gradcheck(evaluate, inputs)


@pytest.mark.parametrize("regularization", [0.0, 0.1])
@pytest.mark.parametrize("align_corners", [False, True])
def test_gradients_through_fit_and_sample(regularization, align_corners):
    image = torch.rand(2, 1, 5, 6, dtype=torch.float64)
    target = lattice(2, 3) + strewn(6, 2, spread=0.1)
    source = target + strewn(2, 6, 2, spread=0.15)

    def sampled(target, source):
        warp = fit_map(target_points=target, source_points=source, regularization=regularization)
        return grid_sample(image, warp.grid((4, 3), align_corners), align_corners=align_corners)

    assert torch.autograd.gradcheck(sampled, (target.requires_grad_(), source.requires_grad_()))
    fused = tps_sample(
        image,
        source,
        (4, 3),
        target_points=target,
        regularization=regularization,
        align_corners=align_corners,
    )
    close(sampled(target, source), fused.detach().requires_grad_(), atol=1e-12)


def test_pixels_on_control_points_have_finite_gradients():
    target, source = lattice(3, 3, 1.0), strewn(9, 2)
    tensors = [target.requires_grad_(), source.requires_grad_()]
    warp = fit_map(target_points=target, source_points=source)
    grid = warp.grid((3, 3), align_corners=True)
    close(grid.flatten(0, 1).detach(), source.detach(), atol=1e-12)  # each pixel is on a point
    jacobian = warp.jacobian(target.detach())
    for gradient in torch.autograd.grad(grid.sum() + jacobian.square().sum(), tensors):
        assert gradient.isfinite().all()
        assert gradient.any()


# --- maps --------------------------------------------------------------------------------------------------


def solved_in_numpy(target, source, locations, regularization):
    """With the kernel r^2 log r^2, for which lambda is twice as large."""

    def kernel(a, b):
        squared = ((a[:, None] - b) ** 2).sum(-1)
        return squared * np.log(np.where(squared > 0, squared, 1))

    def ones(points):
        return np.concatenate([np.ones((len(points), 1)), points], 1)

    count = len(target)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = kernel(target, target) + 2 * regularization * np.eye(count)
    system[:count, count:] = ones(target)
    system[count:, :count] = ones(target).T
    solution = np.linalg.solve(system, np.concatenate([source, np.zeros((3, 2))]))
    return kernel(locations, target) @ solution[:count] + ones(locations) @ solution[count:]


@pytest.mark.parametrize("count", [4, 25, 100])
@pytest.mark.parametrize("regularization", [0.0, 0.05])
def test_maps_are_those_of_an_independent_solve(count, regularization):
    target, source, locations = strewn(count, 2), strewn(count, 2), strewn(40, 2, spread=1.2)
    warp = fit_map(target_points=target, source_points=source, regularization=regularization)
    expected = solved_in_numpy(target.numpy(), source.numpy(), locations.numpy(), regularization)
    close(warp(locations), expected, atol=1e-8)


@pytest.mark.parametrize("rows", [2, 5, 10])
def test_maps_are_those_of_scikit_image(rows):
    """From its source, our target: there, too, a map takes the output's coordinates to the input's. Its
    system is in float32: the two agree to float32's precision times the condition, 6e3 at most."""
    target = uniform_grid((rows, rows), align_corners=True).flatten(0, 1).double()
    source, locations = target + 0.1 * strewn(rows**2, 2), strewn(40, 2, spread=1.2)
    peer = estimated(ThinPlateSplineTransform, target.numpy(), source.numpy())
    warp = fit_map(target_points=target, source_points=source)
    close(warp(locations), peer(locations.numpy()), atol=6e3 * 2**-24)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("regularization", [0.0, 1.0])
def test_equal_points_give_the_identity_exactly(dtype, regularization):
    points = strewn(20, 2).to(dtype)
    warp = fit_map(target_points=points, source_points=points, regularization=regularization)
    locations = strewn(30, 2).to(dtype)
    assert torch.equal(warp(locations), locations)
    assert torch.equal(warp.determinant(locations), torch.ones(30, dtype=dtype))


def test_three_points_give_their_affine_map():
    source = strewn(3, 2)
    warp = fit_map(target_points=CORNERS[:3], source_points=source)
    close(warp.weights, torch.zeros(3, 2).double(), atol=1e-12)
    close(warp(CORNERS[3:]), source[1:2] + source[2:] - source[:1], atol=1e-12)


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_grid_is_what_the_fused_kernel_samples(align_corners):
    warp = warp_of(batch=(2,))
    image = torch.rand(2, 3, 9, 8, dtype=torch.float64)
    source = warp(warp.points)
    expected = tps_sample(image, source, (7, 6), target_points=warp.points, align_corners=align_corners)
    grid = warp.grid((7, 6), align_corners)
    close(functional.grid_sample(image, grid, align_corners=align_corners), expected, atol=1e-10)


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_interval_changes_coordinates_but_not_the_grid(align_corners):
    warp = warp_of()
    half = fit_map(
        target_points=(warp.points + 1) / 2, source_points=(warp(warp.points) + 1) / 2, interval=(0, 1)
    )
    close(half.grid((5, 7), align_corners), warp.grid((5, 7), align_corners), atol=1e-12)
    close(half((warp.points + 1) / 2), (warp(warp.points) + 1) / 2, atol=1e-12)
    for mine, others in zip(half.opencv_maps((5, 7)), warp.opencv_maps((5, 7)), strict=True):
        np.testing.assert_allclose(mine, others, rtol=0, atol=1e-6)


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_uniform_grid_is_pytorchs(align_corners):
    identity = torch.eye(2, 3, dtype=torch.float64)[None]
    expected = functional.affine_grid(identity, [1, 1, 4, 5], align_corners)[0]
    close(uniform_grid((4, 5), align_corners=align_corners), expected, atol=1e-15)
    close(uniform_grid((4, 5), (0, 1), align_corners), (expected + 1) / 2, atol=1e-15)
    assert uniform_grid((1, 1), align_corners=align_corners).tolist() == [[[0.0, 0.0]]]


@pytest.mark.parametrize("size", [(5, 7), (1, 3), (480, 641)])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("interval", [(-1.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opencv_maps_of_the_identity_are_the_pixels(size, align_corners, interval, dtype):
    points = CORNERS.to(dtype)
    warp = fit_map(target_points=points, source_points=points, interval=interval)
    columns, rows = warp.opencv_maps(size, align_corners=align_corners)
    assert columns.dtype == rows.dtype == np.float32
    expected = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in reversed(size)))
    np.testing.assert_array_equal(columns, expected[0])
    np.testing.assert_array_equal(rows, expected[1])


@pytest.mark.parametrize("align_corners", [False, True])
def test_opencv_maps_read_the_pixels_that_the_sampler_reads(align_corners):
    image, warp = torch.rand(9, 12, dtype=torch.float64), warp_of()
    columns, rows = warp.opencv_maps((6, 7), (9, 12), align_corners)
    expected = grid_sample(
        image[None, None], warp.grid((6, 7), align_corners)[None], align_corners=align_corners
    )
    inside = (columns >= 0) & (columns <= 11) & (rows >= 0) & (rows <= 8)
    assert inside.sum() > 20
    actual = map_coordinates(image.numpy(), [rows, columns], order=1)
    np.testing.assert_allclose(actual[inside], expected[0, 0].numpy()[inside], rtol=0, atol=1e-5)


def test_folds():
    assert not warp_of(0.02).folds()
    swapped = lattice(4, 4)
    swapped[[5, 6]] = swapped[[6, 5]]
    mirror = lattice(4, 4) * torch.tensor([-1.0, 1.0])
    flat = lattice(4, 4) * torch.tensor([0.0, 1.0])
    source = torch.stack([lattice(4, 4), swapped, mirror, flat])
    warps = fit_map(target_points=lattice(4, 4), source_points=source)
    assert warps.folds().tolist() == [False, True, False, True]
    assert warps.folds((8, 8)).shape == (4,)


def test_large_random_offsets_fold_and_small_ones_do_not():
    """Of 4 x 4 points at 0.9, moved by a normal distribution."""
    rates = [warp_of(sigma, (100,)).folds((32, 32)).double().mean().item() for sigma in (0.03, 0.2, 0.4)]
    assert rates[0] == 0
    assert 0.5 < rates[1] < 0.95
    assert rates[2] > 0.9


def test_the_inverse_inverts():
    warp = warp_of(0.05, (2,))
    assert not warp.folds().any()
    inside = strewn(200, 2, spread=1.3)  # also outside of the points
    close(warp.inverse(warp(inside)), inside.expand(2, -1, -1), atol=1e-9)
    close(warp(warp.inverse(inside)), inside.expand(2, -1, -1), atol=1e-9)
    float32 = warp.to(torch.float32)
    assert float32.inverse(inside.float()).dtype == torch.float32
    close(float32.inverse(inside.float()).double(), warp.inverse(inside), atol=1e-5)


def test_the_inverse_of_a_strong_warp_and_of_a_far_shift():
    target = lattice(2, 2)
    angle = torch.tensor(2.5).double()
    turn = 3 * torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    warp = fit_map(target_points=target, source_points=target @ turn + 5 + strewn(4, 2, spread=0.2))
    locations = strewn(50, 2, spread=0.8)
    close(warp.inverse(warp(locations)), locations, atol=1e-9)


def test_the_inverse_of_a_fold_is_one_of_the_answers():
    warp = warp_of(0.3)
    assert warp.folds()
    wanted = warp(strewn(100, 2))  # every one of these is reached somewhere
    found = warp.inverse(wanted)
    missing = found.isnan().any(-1)
    assert missing.double().mean() < 0.05
    close(warp(found[~missing]), wanted[~missing], atol=1e-7)


def test_what_the_map_does_not_reach_has_no_inverse():
    flat = fit_map(target_points=CORNERS, source_points=CORNERS * torch.tensor([1.0, 0.0]))
    assert flat.inverse(torch.tensor([[0.3, 0.5]]).double()).isnan().all()


def test_the_inverse_has_the_inverses_gradients():
    target, locations = lattice(2, 3), strewn(4, 2, spread=0.5)
    source = target + strewn(6, 2, spread=0.1)

    def inverse(target, source, locations):
        return fit_map(target_points=target, source_points=source).inverse(locations)

    inputs = [t.clone().requires_grad_() for t in (target, source, locations)]
    assert torch.autograd.gradcheck(inverse, inputs)


def test_to_moves_everything():
    warp = warp_of(interval=(0.0, 1.0)).to(torch.float32)
    assert isinstance(warp, SplineMap)
    assert {warp.points.dtype, warp.weights.dtype, warp.affine.dtype} == {torch.float32}
    assert warp.interval == (0.0, 1.0)


# --- what the toolbox py-thin-plate-spline claims in its tests ----------------------------------------------

SURFACE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)


def test_claim_1_heights_of_zero_are_the_plane_zero():
    spline = fit(SURFACE, torch.zeros(4, 1))
    assert not spline.weights.any()
    assert not spline.affine.any()
    assert not spline(SURFACE).any()


def test_claim_2_equal_heights_are_that_plane():
    spline = fit(SURFACE, torch.ones(4, 1))
    close(spline.weights, torch.zeros(4, 1).double(), atol=1e-12)
    close(spline.affine, [[0.0], [0.0], [1.0]], atol=1e-12)
    close(spline(uniform_grid((5, 5), (0, 1)).flatten(0, 1)), torch.ones(25, 1).double(), atol=1e-12)


def test_claim_3_the_reduced_form_is_shorter_and_has_the_same_values():
    heights = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    spline = fit(SURFACE, heights)
    assert spline.reduced().shape == (4, 1)  # there 4 + 2 numbers, of 4 + 3
    locations = strewn(9, 2)
    close(Spline.from_reduced(SURFACE, spline.reduced())(locations), spline(locations), atol=1e-12)


def test_claim_4_four_heights_not_in_a_plane_are_met():
    heights = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    close(fit(SURFACE, heights)(SURFACE), heights.double(), atol=1e-12)


def test_claim_5_a_white_square_is_enlarged_to_the_whole_output():
    image = torch.zeros(1, 1, 40, 40, dtype=torch.float64)
    image[..., 10:21, 10:21] = 255
    source = SURFACE * 10 / 39 + 10 / 39  # centres of the square's corner pixels, of 40 in [0, 1]
    warp = fit_map(target_points=SURFACE, source_points=source, interval=(0, 1))
    grid = warp.grid((20, 20), align_corners=True)[None]
    white = torch.full((1, 1, 20, 20), 255.0).double()
    close(grid_sample(image, grid, align_corners=True), white, atol=1e-9)
    # Cubic, as there: at the edge it overshoots, which bytes do not show.
    cubic = grid_sample(image, grid, mode="bicubic", align_corners=True)
    close(cubic.clamp(0, 255), white, atol=1e-9)
    columns, rows = warp.opencv_maps((20, 20), (40, 40), align_corners=True)
    remapped = map_coordinates(image[0, 0].numpy(), [rows, columns], order=1)
    np.testing.assert_allclose(remapped, 255, atol=1e-3)


def test_claim_6_all_ways_give_one_grid():
    target = torch.rand(3, 10, 2, dtype=torch.float64)
    source = torch.rand(3, 10, 2, dtype=torch.float64)
    warps = fit_map(target_points=target, source_points=source, interval=(0, 1))
    reduced = SplineMap.from_reduced(warps.points, warps.reduced(), interval=(0, 1))
    close(reduced.grid((20, 30), True), warps.grid((20, 30), True), atol=1e-7)
    places = uniform_grid((20, 30), (0, 1), True).reshape(-1, 2)
    for i in range(3):
        expected = solved_in_numpy(target[i].numpy(), source[i].numpy(), places.numpy(), 0.0)
        close(warps.grid((20, 30), True)[i].flatten(0, 1), 2 * expected - 1, atol=1e-7)


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("slope", [[1.0, 0.0], [0.3, -0.7]])
@pytest.mark.parametrize("regularization", [0.0, 1.0])
def test_points_on_a_line_are_refused(dtype, shift, slope, regularization):
    points = (torch.linspace(0, 1, 6)[:, None].double() * torch.tensor(slope) + shift).to(dtype)
    with pytest.raises(ValueError, match=r"^points should (not all be on a line|be farther)"):
        fit(points, torch.zeros(6, 1, dtype=dtype), regularization)


def test_one_bad_set_in_a_batch_is_refused():
    points = strewn(3, 5, 2)
    points[1] = points[1, :1] * torch.arange(5)[:, None]
    with pytest.raises(ValueError, match=r"^target_points should not all be on a line"):
        fit_map(target_points=points, source_points=strewn(3, 5, 2))


def test_coincident_points_are_refused_unless_smoothed():
    points, values = strewn(6, 2), strewn(6, 1)
    points[4] = points[1]
    with pytest.raises(ValueError, match=r"^points should be distinct, but points 1 and 4 coincide"):
        fit(points, values)
    with pytest.raises(ValueError, match=r"^target_points should be distinct, but points 1 and 4 coincide"):
        fit_map(target_points=points, source_points=strewn(2, 6, 2))
    oracle = RBFInterpolator(points, values, kernel="thin_plate_spline", smoothing=0.1)
    close(fit(points, values, 0.1)(points), oracle(points), atol=1e-8)


@pytest.mark.parametrize("near", ["a point", "a line"])
def test_nearly_singular_points_are_warned_of_with_the_condition_number(near):
    points = strewn(6, 2)
    if near == "a point":
        points[4] = points[1] + 1e-7
    else:
        points[:, 1] *= 1e-8
    with pytest.warns(UserWarning, match=r"^points are nearly .* condition number \d\.\de\+1\d") as caught:
        fit(points, strewn(6, 1))
    assert caught[0].filename == __file__


@pytest.mark.parametrize("near", ["a point", "a line"])
def test_points_that_float64_cannot_tell_apart_are_refused(near):
    points = strewn(6, 2)
    if near == "a point":
        points[4] = points[1] * (1 + 2e-16)
        points[4, 0] = torch.nextafter(points[1, 0], torch.tensor(2.0).double())
    else:
        points[:, 1] *= 1e-13
    with pytest.raises(ValueError, match=r"^points should be farther .* condition number"):
        fit(points, strewn(6, 1))


def test_ordinary_points_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for points in (strewn(400, 2), lattice(20, 20), lattice(2, 200), strewn(4, 2) * 1e4):
            fit(points, torch.zeros(len(points), 1))


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "points should be a tensor", ([[0, 0]], CORNERS)),
        (TypeError, "points should be of a floating dtype", (CORNERS.int(), CORNERS)),
        (ValueError, r"points should have shape \(..., K, 2\) with K of at least 3", (CORNERS[:2], CORNERS)),
        (ValueError, r"points should have shape \(..., K, 2\)", (CORNERS.mT, CORNERS)),
        (ValueError, r"points should have shape \(..., K, 2\)", (CORNERS[0], CORNERS)),
        (ValueError, r"points should be finite", (CORNERS / 0, CORNERS)),
        (ValueError, r"values should have shape \(..., 4, D\) .* not \(3, 2\)", (CORNERS, CORNERS[:3])),
        (ValueError, r"values should have shape \(..., 4, D\) .* not \(4,\)", (CORNERS, CORNERS[:, 0])),
        (ValueError, "regularization should be finite and not negative", (CORNERS, CORNERS, -1.0)),
        (TypeError, "regularization should be a number", (CORNERS, CORNERS, "1")),
    ],
)
def test_bad_arguments_of_a_fit_are_named(error, message, arguments):
    with pytest.raises(error, match="^" + message):
        fit(*arguments)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        (r"source_points should have shape \(..., 4, D\)", {"source_points": CORNERS[:3]}),
        (r"source_points should have shape \(..., K, 2\)", {"source_points": torch.zeros(4, 3)}),
        (r"interval should be \(low, high\)", {"interval": (1, 0)}),
        (r"interval should be \(low, high\)", {"interval": (0, math.nan)}),
    ],
)
def test_bad_arguments_of_a_map_are_named(message, options):
    with pytest.raises(ValueError, match="^" + message):
        fit_map(**{"target_points": CORNERS, "source_points": CORNERS, **options})


def test_bad_locations_are_named():
    warp = warp_of()
    for call in (warp, warp.jacobian, warp.determinant):
        with pytest.raises(ValueError, match=r"^locations should have shape \(..., M, 2\), not \(2,\)"):
            call(torch.zeros(2))
    with pytest.raises(TypeError, match=r"^source_locations should be a tensor"):
        warp.inverse([[0.0, 0.0]])


def test_a_spline_can_be_copied():
    warp = warp_of()
    assert torch.equal(copy.deepcopy(warp)(CORNERS), warp(CORNERS))
