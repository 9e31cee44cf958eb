"""A reader's own coordinate maps and sampling kernels, by name, wherever a built-in one goes."""

import pytest
import torch

import stn_kernels
from sampling_cases import (
    AXES,
    INPUT_SIZE,
    MODES,
    SIZE,
    assert_close,
    deviation,
    leaves,
    values_and_gradients,
)
from stn_kernels import backend, reference, register_coordinate_map, register_sampling_kernel, registry

if not backend.HAS_TRITON:
    pytest.skip("the kernels need Triton", allow_module_level=True)

import triton
import triton.language as tl
from triton.language import constexpr

from stn_kernels.coordinate_maps import entry, place

# --- a map: translations (M, axes) in normalised coordinates, added to a shared pull (1,) to the centre ----


def drift_twin(parameters, shared, input_size, size, align_corners):
    axes = len(size)
    pixels = torch.broadcast_tensors(*reference.normalised_pixels(size, parameters, align_corners))
    grid = torch.stack(pixels, -1) * shared + parameters.view(-1, *[1] * axes, axes)
    return reference.grid_offsets(grid, None, input_size, size, align_corners)


@triton.jit
def drift(parameters, shared, target, extents, AXES: constexpr, COMPUTE: constexpr):
    source, to = extents
    pull = tl.load(shared[0]).to(COMPUTE)
    x = (target[0][0] / to[0] * pull + entry(parameters, 0, 0, COMPUTE)) * source[0]
    y = (target[0][1] / to[1] * pull + entry(parameters, 1, 0, COMPUTE)) * source[1]
    z = y
    if AXES == 3:
        z = (target[0][2] / to[2] * pull + entry(parameters, 2, 0, COMPUTE)) * source[2]
    return x, y, z


@triton.jit
def drift_vjp(
    grad,
    lane,
    parameters,
    shared,
    target,
    extents,
    NEED_SHARED: constexpr,
    AXES: constexpr,
    COMPUTE: constexpr,
):
    source, to = extents
    sums = place(lane, 0, tl.sum(grad[0]) * source[0]) + place(lane, 1, tl.sum(grad[1]) * source[1])
    pull = tl.sum(grad[0] * target[0][0]) * (source[0] / to[0])
    pull += tl.sum(grad[1] * target[0][1]) * (source[1] / to[1])
    if AXES == 3:
        sums += place(lane, 2, tl.sum(grad[2]) * source[2])
        pull += tl.sum(grad[2] * target[0][2]) * (source[2] / to[2])
    if NEED_SHARED:
        sums += place(lane, AXES, pull)
    return sums


# --- a sampling kernel: the quadratic B-spline, three taps -------------------------------------------------


def spline_twin(t):
    t = t.abs()
    return torch.where(t < 0.5, 0.75 - t * t, torch.where(t < 1.5, 0.5 * (1.5 - t).square(), 0))


@triton.jit
def spline(t):
    t = tl.abs(t)
    return tl.where(t < 0.5, 0.75 - t * t, tl.where(t < 1.5, 0.5 * (1.5 - t) * (1.5 - t), 0.0))


@triton.jit
def spline_derivative(t):
    slope = tl.where(t < 0.0, 1.5 + t, t - 1.5)
    return tl.where(tl.abs(t) < 0.5, -2.0 * t, tl.where(tl.abs(t) < 1.5, slope, 0.0))


SPLINE = {"taps": 3, "function": spline, "derivative": spline_derivative, "vanishes": True}


@pytest.fixture(autouse=True)
def _registered_for_one_test(monkeypatch):
    for module in (registry, reference):
        for table in ("COORDINATE_MAPS", "SAMPLING_KERNELS"):
            monkeypatch.setattr(module, table, dict(getattr(module, table)))


@pytest.fixture
def names():
    register_coordinate_map("drift", drift_twin, drift, drift_vjp)
    register_sampling_kernel("spline", spline_twin, **SPLINE)


def draw_problem(axes, device, images=2):
    """Two transforms of each image."""
    image = torch.randn(images, 3, *INPUT_SIZE[axes], dtype=torch.float64)
    shift, pull = torch.randn(2 * images, axes, dtype=torch.float64), torch.tensor([1.3], dtype=torch.float64)
    grad_output = torch.randn(2 * images, 3, *SIZE[axes], dtype=torch.float64)
    return [t.to(device) for t in (image, shift, pull)], grad_output.to(device)


def solver(axes, mode="spline", padding_mode="zeros"):
    def solve(input, parameters, shared, fill=None):
        choices = {"coordinate_map": "drift", "shared": shared, "mode": mode, "padding_mode": padding_mode}
        return stn_kernels.sample(input, parameters, SIZE[axes], **choices)

    return solve


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@AXES
def test_own_map_and_kernel_equal_their_twins(device, names, axes, padding_mode):
    (image, shift, pull), grad_output = draw_problem(axes, device)

    def expected(input, parameters, shared, fill=None):
        return reference.sample(input, parameters, SIZE[axes], "drift", "spline", padding_mode, shared=shared)

    problem = (image, shift, pull, None)
    actual = values_and_gradients(solver(axes, padding_mode=padding_mode), problem, grad_output)
    assert_close(actual, values_and_gradients(expected, problem, grad_output))


@pytest.mark.parametrize("mode", MODES)
def test_own_map_goes_with_every_kernel(kernels, names, mode):
    (image, shift, pull), _ = draw_problem(2, kernels)
    actual = solver(2, mode)(image, shift, pull)
    assert deviation(actual, reference.sample(image, shift, SIZE[2], "drift", mode, shared=pull)) <= 1e-10


def test_own_kernel_goes_with_every_operation(kernels, names):
    """Splatting and the gathered backward among them."""
    image, theta = torch.randn(1, 2, 5, 6, device=kernels), torch.eye(2, 3, device=kernels)[None]
    image.requires_grad_()
    output = stn_kernels.affine_sample(image, theta, (3, 7), mode="spline", deterministic=True)
    values = torch.randn_like(output)
    (gradient,) = torch.autograd.grad(output, image, values)
    grid = reference.affine_grid(theta, (3, 7))
    assert deviation(stn_kernels.splat(values, grid, (5, 6), mode="spline"), gradient) <= 1e-6


def test_names_travel_through_the_compiler(device, names):
    torch.compiler.reset()
    (image, shift, pull), grad_output = draw_problem(2, device)
    compiled = torch.compile(solver(2), fullgraph=True, backend="aot_eager")
    problem = (image, shift, pull, None)
    results = [values_and_gradients(solve, problem, grad_output) for solve in (compiled, solver(2))]
    assert_close(*results, tolerance=1e-14)


def test_second_derivatives_and_forward_mode_come_from_the_twin(device, names):
    problem, _ = draw_problem(2, device, images=1)
    inputs = tuple(leaves((*problem, None)).values())
    options = {"fast_mode": True, "nondet_tol": 1e-12, "check_undefined_grad": False}
    assert torch.autograd.gradgradcheck(solver(2), inputs, **options)
    tangents = tuple(torch.randn_like(t) for t in problem)
    _, actual = torch.func.jvp(solver(2), tuple(problem), tangents)
    assert actual.abs().max() > 0


def test_a_twin_alone_runs_everywhere(device):
    register_coordinate_map("drift", drift_twin)
    register_sampling_kernel("spline", spline_twin, taps=3)
    (image, shift, pull), _ = draw_problem(2, device)
    expected = reference.sample(image, shift, SIZE[2], "drift", "spline", shared=pull)
    assert deviation(solver(2)(image, shift, pull), expected) <= 1e-10


def test_kernels_alone_run_where_kernels_do(kernels, names):
    (image, shift, pull), _ = draw_problem(2, kernels)
    expected = solver(2)(image, shift, pull)
    register_coordinate_map("drift", None, drift, drift_vjp)
    register_sampling_kernel("spline", None, **SPLINE)
    assert torch.equal(solver(2)(image, shift, pull), expected)
    with pytest.raises(NotImplementedError, match="'spline' was registered without a twin"):
        torch.func.jvp(solver(2), (image, shift, pull), (image, shift, pull))


def test_kernels_alone_do_not_run_on_the_cpu(cpu_path):
    register_coordinate_map("drift", None, drift, drift_vjp)
    (image, shift, pull), _ = draw_problem(2, cpu_path)
    with pytest.raises(NotImplementedError, match="'drift' was registered without a twin"):
        solver(2, "bilinear")(image, shift, pull)


def test_a_name_can_be_registered_again():
    register_sampling_kernel("mine", spline_twin, taps=3)
    register_sampling_kernel("mine", reference.bilinear, taps=2)
    image, grid = torch.randn(1, 1, 4, 4), torch.rand(1, 3, 3, 2)
    expected = stn_kernels.grid_sample(image, grid)
    assert deviation(stn_kernels.grid_sample(image, grid, mode="mine"), expected) <= 1e-6


@pytest.mark.parametrize(
    ("error", "message", "register"),
    [
        (ValueError, "name should be an identifier", lambda: register_coordinate_map("a b", drift_twin)),
        (ValueError, "'affine' is", lambda: register_coordinate_map("affine", drift_twin)),
        (ValueError, "'bicubic' is", lambda: register_sampling_kernel("bicubic", spline_twin)),
        (ValueError, "twin or function should be given", lambda: register_coordinate_map("drift")),
        (TypeError, "twin should be a function", lambda: register_coordinate_map("drift", 3)),
        (ValueError, "function and vjp", lambda: register_coordinate_map("drift", drift_twin, drift)),
        (TypeError, "vjp should be a @triton.jit", lambda: register_coordinate_map("d", None, drift, len)),
        (ValueError, "taps should be from 1 to 16", lambda: register_sampling_kernel("s", spline_twin, 17)),
        (TypeError, "taps should be an integer", lambda: register_sampling_kernel("s", spline_twin, 2.0)),
        (
            ValueError,
            "function and derivative",
            lambda: register_sampling_kernel("s", spline_twin, 3, derivative=spline_derivative),
        ),
    ],
)
def test_wrong_registrations_say_what_is_wrong(error, message, register):
    with pytest.raises(error, match=message):
        register()


def test_unknown_names_list_the_known_ones(names):
    image, theta = torch.zeros(1, 1, 2, 2), torch.eye(2, 3)[None]
    with pytest.raises(ValueError, match=r"mode should be one of .*'bicubic', 'spline'.*not 'splines'"):
        stn_kernels.affine_sample(image, theta, (2, 2), mode="splines")
    with pytest.raises(ValueError, match=r"coordinate_map should be one of .*'drift'.*not 'draft'"):
        stn_kernels.sample(image, theta, (2, 2), coordinate_map="draft")
