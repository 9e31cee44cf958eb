"""What holds of every problem: the reference's values and gradients, and the laws of sampling and splatting.

`make test` tries the same examples each time, a hundred and twenty of each property with ATen and a twentieth
of them by the kernels; `make properties` tries new ones, ten thousand. In Triton's interpreter each address
that a kernel uses is checked, too: `addresses.py`.
"""

import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

from problems import TOLERANCES, Problem, Splatting, interpreted, problems, splattings
from sampling_cases import MAPS, NAMES, assert_same, definition, largest, library, values_and_gradients
from stn_kernels import affine_sample, backend, reference, splat

# Sums and products of infinities are meant to be infinite or NaN; in the interpreter NumPy remarks on them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:(invalid value|overflow|divide by zero) encountered in .*:RuntimeWarning"
)
FLOAT64 = (torch.float64,)
# Maps whose parameters hold a row, or a plane, for each coordinate of the source: its dimension.
ROWS = {"affine": 1, "projective": 1, "grid": -1, "basis": 1, "tps": 1, "mesh": 2}


def solve(problem, tensors=None):
    return library(problem.choices)(*(problem.tensors if tensors is None else tensors))


def decided(tensor, problem):
    """The output without the pixels that rounding decides."""
    return torch.where(problem.undecided[:, None], 0, tensor)


def assert_all_same(actual, expected, tolerance):
    """As `assert_same`, of results in any dtype and on any device."""
    actual, expected = ({n: t.double().cpu() for n, t in results.items()} for results in (actual, expected))
    assert_same(actual, expected, tolerance=tolerance)


def assert_equal(actual, expected, tolerance=1e-10):
    assert_all_same({"": actual}, {"": expected}, tolerance)


# --- the properties, of any device -------------------------------------------------------------------------


def agrees_with_the_reference(problem: Problem):
    actual = values_and_gradients(library(problem.choices), problem.tensors, problem.grad_output)
    expected = values_and_gradients(
        definition(problem.choices), problem.exact(), problem.grad_output.double()
    )
    assert actual["output"].dtype == problem.tensors[0].dtype
    for results in (actual, expected):
        results["output"] = decided(results["output"], problem)
    for name, tensor in zip(NAMES, problem.tensors, strict=True):
        if tensor is not None:
            assert actual[f"gradient of {name}"].dtype == tensor.dtype
    for results in (actual, expected):
        if "gradient of shared" in results:  # whose terms are as large as the parameters, and may cancel
            results["gradient of shared"] = results["gradient of shared"].double() / largest(
                problem.tensors[1]
            )
    tolerance = max(TOLERANCES[t.dtype] for t in problem.tensors if t is not None)
    assert_all_same(actual, expected, tolerance)


def is_linear_in_image_and_fill(problem: Problem):
    image, parameters, shared, fill = problem.tensors
    others = torch.randn_like(image), None if fill is None else torch.randn_like(fill)
    total = None if fill is None else 2 * fill - 3 * others[1]
    combined = solve(problem, (2 * image - 3 * others[0], parameters, shared, total))
    apart = 2 * solve(problem) - 3 * solve(problem, (others[0], parameters, shared, others[1]))
    assert_equal(combined, apart)


def weights_add_up_to_one(problem: Problem):
    """An image of ones gives ones wherever no tap is outside of it."""
    choices, (image, parameters, shared, fill) = problem.choices, problem.tensors
    output = decided(solve(problem, (torch.ones_like(image), parameters, shared, fill)), problem)
    offsets = problem.offsets()
    centres = offsets.new_tensor([(s - 1) / 2 for s in reversed(problem.input_size)])
    undefined = ~offsets.isfinite() if choices.padding_mode == "reflection" else offsets.isnan()
    known = ~undefined.any(-1) & ~problem.undecided
    if choices.padding_mode == "zeros":
        taps = reference.SAMPLING_KERNELS[choices.mode].taps
        known &= (offsets.abs() <= centres - (taps - 1) / 2).all(-1)
    elif choices.padding_mode == "constant":
        extents = offsets.new_tensor(reference.half_extents(problem.input_size, choices.align_corners))
        known &= (offsets.abs() <= extents).all(-1)
    ones = torch.where(known[:, None], output, 1)
    assert_equal(ones, torch.ones_like(output), 1e-12)


def axes_may_change_places(problem: Problem):
    """An image turned over or transposed, and the source's coordinates with it, give the same output."""
    choices, (image, parameters, shared, fill) = problem.choices, problem.tensors
    axes, dimension = len(choices.size), ROWS[choices.coordinate_map]
    order = torch.randperm(axes).tolist()  # of x, y, z
    signs = [1 if s else -1 for s in torch.randint(2, (axes,)).tolist()]
    rows = parameters.unbind(dimension)
    moved = torch.stack(
        [s * rows[o] for s, o in zip(signs, order, strict=True)] + list(rows[axes:]), dimension
    )
    turned = image.permute(0, 1, *(1 + axes - order[axes - 1 - i] for i in range(axes)))
    turned = turned.flip([1 + axes - i for i in range(axes) if signs[i] < 0])
    assert_equal(
        decided(solve(problem, (turned, moved, shared, fill)), problem), decided(solve(problem), problem)
    )


def images_and_channels_are_apart(problem: Problem):
    """In another order they give the same in that order."""
    image, parameters, shared, fill = problem.tensors
    images, channels = image.shape[:2]
    order, colours = torch.randperm(images), torch.randperm(channels)
    transforms = len(parameters) // max(images, 1)
    of_transforms = (order[:, None] * transforms + torch.arange(transforms)).flatten()
    tensors = (
        image[order][:, colours],
        parameters[of_transforms],
        shared,
        None if fill is None else fill[colours],
    )
    assert_equal(solve(problem, tensors), solve(problem)[of_transforms][:, colours], 1e-13)


def a_map_of_whole_pixels_goes_before_any_other(problem: Problem):
    """A cube turned by right angles or mirrored, then sampled: the same as by the product of the two maps."""
    choices, (image, theta, _, fill) = problem.choices, problem.tensors
    axes, length = len(choices.size), min(problem.input_size)
    cube = image[(..., *[slice(length)] * axes)]
    turn = torch.eye(axes + 1).to(theta)[[*torch.randperm(axes).tolist(), axes]]
    turn[:axes] *= (torch.randint(2, (axes, 1)) * 2 - 1).to(theta)
    options = {
        "mode": choices.mode,
        "padding_mode": choices.padding_mode,
        "align_corners": choices.align_corners,
    }
    if fill is not None:
        options["fill_value"] = fill
    theta = theta.unflatten(0, (image.shape[0], -1)) if image.shape[0] else theta[:, None]
    one_each = turn[:axes].expand(image.shape[0], axes, axes + 1)
    turned = affine_sample(cube, one_each, cube.shape[2:], **options)
    apart = affine_sample(turned, theta, choices.size, **options).flatten(0, 1)
    last = torch.eye(axes + 1).to(theta)[-1:].expand(*theta.shape[:2], 1, axes + 1)
    product = turn @ torch.cat([theta, last], -2)
    at_once = affine_sample(cube, product[..., :axes, :], choices.size, **options).flatten(0, 1)
    undecided = problem.of_image(cube).undecided
    assert_equal(*(torch.where(undecided[:, None], 0, t) for t in (apart, at_once)))


def splat_is_the_adjoint(splatting: Splatting):
    """The image is the reference's gradient of <values, sample(image)>. In the derivatives of splatting, the
    result's gradient has the image's place."""
    values, grid, size, options, undecided = splatting
    several = values.ndim == grid.shape[-1] + 3
    leaves = [t.detach().requires_grad_() for t in (values, grid)]
    image, count = splat(*leaves, size, return_count=True, **options)
    assert image.shape == (values.shape[0], values.shape[1 + several], *size)
    assert count.shape == (values.shape[0], 1, *size)
    assert image.is_contiguous()
    assert image.dtype == count.dtype == values.dtype
    cotangent = torch.randn(image.shape).to(values)
    of_values, of_grid = torch.autograd.grad(image, leaves, cotangent, materialize_grads=True)

    cotangent, values, grid = (t.double().contiguous().requires_grad_() for t in (cotangent, values, grid))
    choices = [options[name] for name in ("mode", "padding_mode", "align_corners")]
    points = grid.flatten(0, 1) if several else grid
    weights = values.flatten(0, 1) if several else values

    def sample(image):
        return reference.sample(image, points, points.shape[1:-1], "grid", *choices)

    output = sample(cotangent)
    first, second = torch.autograd.grad(output, (cotangent, grid), weights, materialize_grads=True)
    actual = {
        "image": image.detach(),
        "gradient of values": of_values,
        "gradient of grid": of_grid,
    }
    expected = {
        "image": first,
        "gradient of values": output.detach().view(values.shape),
        "gradient of grid": second,
    }
    if not undecided.any():
        ones = torch.ones_like(count, dtype=torch.float64).requires_grad_()
        actual["count"] = count.detach()
        (expected["count"],) = torch.autograd.grad(sample(ones).sum(), ones, materialize_grads=True)
    mask = undecided.unsqueeze(1 + several)
    for results in (actual, expected):
        results["gradient of values"] = torch.where(mask, 0, results["gradient of values"])
    tolerance = max(TOLERANCES[t.dtype] for t in leaves)
    assert_all_same(actual, expected, tolerance)


# --- the properties of every way to a result ---------------------------------------------------------------

WITH_ROWS = tuple(m for m in MAPS if m in ROWS)
PROPERTIES = {
    **{f"{m} is the reference's": (agrees_with_the_reference, problems((m,))) for m in MAPS},
    "antialiased as the reference": (
        agrees_with_the_reference,
        problems(MAPS, FLOAT64, modes=("bilinear",), wild=False, antialias=True, most=3),
    ),
    "linear": (is_linear_in_image_and_fill, problems(MAPS, FLOAT64)),
    "partition of unity": (weights_add_up_to_one, problems(MAPS, FLOAT64)),
    "axes": (axes_may_change_places, problems(WITH_ROWS, FLOAT64, wild=False)),
    "batch": (images_and_channels_are_apart, problems(MAPS, FLOAT64)),
    "chain": (a_map_of_whole_pixels_goes_before_any_other, problems(("affine",), FLOAT64, wild=False)),
    "splat": (splat_is_the_adjoint, splattings()),
}
EVERY_PROPERTY = pytest.mark.parametrize("name", PROPERTIES)


def check(name, data, device):
    law, strategy = PROPERTIES[name]
    law(data.draw(strategy).to(device))


@EVERY_PROPERTY
@given(data=st.data())
def test_with_aten(cpu_path, name, data):
    check(name, data, cpu_path)


@pytest.fixture
def watched_kernels(kernels, monkeypatch):
    """The kernels; interpreted, each address that they use is checked."""
    if backend.INTERPRETED:
        import addresses

        addresses.install(monkeypatch)
    return kernels


@EVERY_PROPERTY
@interpreted()
@given(data=st.data())
def test_by_kernels(watched_kernels, name, data):
    check(name, data, watched_kernels)
