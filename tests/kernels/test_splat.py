"""Splatting is the adjoint of sampling, with its derivatives."""

import pytest
import torch
from torch.autograd import forward_ad

from sampling_cases import AXES, EDGES_AND_CORNERS, INPUT_SIZE, MODES, SIZE, deviation, pairwise, uniform
from stn_kernels import grid_sample, reference, splat

CASES = pytest.mark.parametrize(
    ("axes", "mode", "padding_mode"), pairwise((2, 3), MODES, ("zeros", "border", "reflection"))
)


def draw(axes, device, images=2, channels=3):
    values = torch.randn(images, channels, *SIZE[axes], dtype=torch.float64)
    grid = uniform(-1.5, 1.5, images, *SIZE[axes], axes)
    return values.to(device), grid.to(device)


@EDGES_AND_CORNERS
@CASES
def test_adjoint_of_sampling(device, axes, mode, padding_mode, align_corners):
    """<v, S u> = <S^T v, u> for any v and u."""
    values, grid = draw(axes, device)
    image = torch.randn(2, 3, *INPUT_SIZE[axes], dtype=torch.float64, device=device)
    choices = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    sampled, splatted = grid_sample(image, grid, **choices), splat(values, grid, INPUT_SIZE[axes], **choices)
    assert splatted.is_contiguous()
    assert deviation((values * sampled).sum(), (splatted * image).sum()) <= 1e-12


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_count_is_the_splat_of_ones_and_inside_nothing_is_lost(device, mode):
    values, grid = draw(2, device)
    inside = grid.clamp(-0.3, 0.3)  # two pixels or more from every border
    image, count = splat(values, inside, (11, 12), mode=mode, return_count=True)
    assert count.shape == (2, 1, 11, 12)
    assert deviation(count, splat(torch.ones_like(values[:, :1]), inside, (11, 12), mode=mode)) <= 1e-12
    torch.testing.assert_close(count.sum((1, 2, 3)), torch.full((2,), 21.0, dtype=count.dtype, device=device))
    torch.testing.assert_close(image.sum((2, 3)), values.sum((2, 3)))


def test_grids_of_one_image_are_added_up(device):
    values = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64, device=device)
    grid = uniform(-1.2, 1.2, 2, 3, 5, 6, 2).to(device)
    expected = sum(splat(values[:, t], grid[:, t], (7, 8)) for t in range(3))
    assert deviation(splat(values, grid, (7, 8)), expected) <= 1e-12


@AXES
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_gradients_of_both_orders_are_those_of_finite_differences(device, axes, mode):
    problem = [t.requires_grad_() for t in draw(axes, device, images=1, channels=1)]

    def function(values, grid):
        return splat(values, grid, INPUT_SIZE[axes], mode=mode)

    options = {"fast_mode": True, "nondet_tol": 1e-12}
    assert torch.autograd.gradcheck(function, problem, **options)
    if device.type != "cpu" or axes == 2:
        assert torch.autograd.gradgradcheck(function, problem, **options)


@pytest.mark.parametrize("which", [0, 1], ids=["values", "grid"])
def test_tangents_of_dual_numbers(device, which):
    problem = list(draw(2, device))
    tangent, step = torch.randn_like(problem[which]), 1e-6

    def function(moved):
        return splat(*(moved if i == which else t for i, t in enumerate(problem)), INPUT_SIZE[2])

    with forward_ad.dual_level():
        dual = function(forward_ad.make_dual(problem[which], tangent))
        actual = forward_ad.unpack_dual(dual).tangent
    ends = [function(problem[which] + sign * step * tangent) for sign in (1, -1)]
    assert actual.abs().max() > 0
    assert deviation(actual, (ends[0] - ends[1]) / (2 * step)) <= 1e-7


def test_transforms_and_compiler(device):
    values, grid = draw(2, device)

    def function(values, grid):
        return splat(values, grid, INPUT_SIZE[2])

    expected = function(values, grid)
    each = torch.func.vmap(lambda v, g: function(v[None], g[None])[0])(values, grid)
    assert deviation(each, expected) <= 1e-12
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert deviation(compiled(values, grid), expected) <= 1e-12


def test_one_compilation_serves_all_sizes(device):
    torch.compiler.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def function(values, grid):
        return splat(values, grid, (values.shape[2] + 1, values.shape[3] // 2))

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    for batch, height, width in [(4, 11, 6), (5, 8, 7)]:
        values = torch.randn(batch, 3, height, width, dtype=torch.float64, device=device)
        grid = uniform(-1.5, 1.5, batch, height, width, 2).to(device)
        assert deviation(compiled(values, grid), function(values, grid)) <= 1e-12
    assert len(graphs) == 1


def test_half_precision_adds_up_in_float32(kernels):
    """A thousand ones on one pixel; added up in float16 they would stop at 2048."""
    values, grid = torch.ones(1, 1, 50, 100, dtype=torch.float16), torch.zeros(1, 50, 100, 2)
    image = splat(values.to(kernels), grid.to(kernels), (3, 3))
    assert image.dtype == torch.float16
    assert image[0, 0, 1, 1] == 5000


def test_undefined_points_fall_nowhere(device):
    values, grid = draw(2, device)
    grid[0, 0, 0, 0], grid[1, 1, 2, 1] = torch.nan, torch.inf
    kept = values.clone()
    kept[0, :, 0, 0] = kept[1, :, 1, 2] = 0
    expected = splat(kept, grid.nan_to_num(posinf=0), INPUT_SIZE[2])
    assert deviation(splat(values, grid, INPUT_SIZE[2]), expected) <= 1e-12


def test_is_the_images_gradient_in_the_reference(kernels):
    values, grid = draw(2, kernels)
    image = torch.zeros(2, 3, *INPUT_SIZE[2], dtype=torch.float64, device=kernels, requires_grad=True)
    output = reference.sample(image, grid, SIZE[2], "grid")
    (expected,) = torch.autograd.grad(output, image, values)
    assert deviation(splat(values, grid, INPUT_SIZE[2]), expected) <= 1e-12


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (TypeError, "values should be a tensor", {"values": 3}),
        (ValueError, r"values should have shape \(N, C, H, W\)", {"values": torch.zeros(3)}),
        (TypeError, "grid should be of a floating dtype", {"grid": torch.zeros(2, 3, 7, 2, dtype=int)}),
        (ValueError, r"grid should have shape \(2, 3, 7, 2\), not", {"grid": torch.zeros(2, 3, 6, 2)}),
        (ValueError, r"grid should have shape \(2, 3, 7, 2\), not", {"grid": torch.zeros(2, 3, 7, 1)}),
        (TypeError, "grid should have values's dtype", {"grid": torch.zeros(2, 3, 7, 2).half()}),
        (ValueError, "size should be two integers", {"size": (3, 4, 5)}),
        (ValueError, "padding_mode should be 'zeros', 'border'", {"padding_mode": "constant"}),
        (TypeError, "return_count should be True or False", {"return_count": 1}),
    ],
)
def test_wrong_arguments_are_named(error, message, change):
    arguments = {"values": torch.zeros(2, 1, 3, 7), "grid": torch.zeros(2, 3, 7, 2), "size": (4, 4)}
    with pytest.raises(error, match=message):
        splat(**{**arguments, **change})
