"""Random sampling problems that keep clear of kinks, ways to solve them, and a measure of agreement.

A problem is four tensors, as in the library: image, parameters of the coordinate map, what all transforms
share of it (or None) and the fill (or None). The library's `Choices` say what is done with them.
"""

import itertools
import math
import warnings

import pytest
import torch
from torch.nn import functional

import stn_kernels
from stn_kernels import reference, registry

MAPS = registry.BUILT_IN_MAPS
MODES = registry.BUILT_IN_KERNELS
PADDING_MODES = reference.PADDING_MODES
# What torch.nn.functional.grid_sample has, by dimension.
PYTORCH_MODES = {2: ("nearest", "bilinear", "bicubic"), 3: ("nearest", "bilinear")}
PYTORCH_PADDING_MODES = ("zeros", "border", "reflection")

AXES = pytest.mark.parametrize("axes", [2, 3], ids=["2-D", "3-D"])
EDGES_AND_CORNERS = pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
LAYOUTS = {"contiguous": None, "channels_last": {4: torch.channels_last, 5: torch.channels_last_3d}}
# Ways for a tensor's elements to lie apart: each keeps the values, or makes them equal along one dimension.
VIEWS = {
    "sliced": lambda t: torch.stack([t, t + 1], -1)[..., 0],
    "transposed": lambda t: t.mT.contiguous().mT,
    "first last": lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
    "expanded first": lambda t: t[:1].expand_as(t),
    "expanded everywhere": lambda t: t.flatten()[0].expand_as(t),
}
INPUT_SIZE = {2: (5, 6), 3: (4, 3, 5)}
SIZE = {2: (3, 7), 3: (3, 2, 5)}

# Weights bend at pixel centres and jump between them, reflection turns at the outer edges: together,
# multiples of half a pixel. Rounding may put a point nearer than this many pixels on the other side.
MARGIN = 1e-3


def size_id(size):
    """A readable name for a size or a pair of sizes in a test's name."""
    return "to".join(map(size_id, size)) if isinstance(size[0], tuple) else "x".join(map(str, size))


def pairwise(*factors, valid=lambda *values: True):
    """Few combinations of one value of each factor, in which any two values of two factors meet."""
    combinations = [c for c in itertools.product(*factors) if valid(*c)]
    pairs = {c: set(itertools.combinations(enumerate(c), 2)) for c in combinations}
    missing, chosen = set().union(*pairs.values()), []
    while missing:
        chosen.append(max(combinations, key=lambda c: len(pairs[c] & missing)))
        missing -= pairs[chosen[-1]]
    return chosen


def has_dimension(coordinate_map, axes):
    return coordinate_map not in ("tps", "mesh") or axes == 2


# --- drawing: float64 tensors whose values are exact in float32 --------------------------------------------


def uniform(low, high, *shape):
    return torch.empty(shape).uniform_(low, high).double()


def draw_image(batch, channels, input_size, layout="contiguous"):
    image = torch.randn(batch, channels, *input_size).double()
    formats = LAYOUTS[layout]
    return image if formats is None else image.to(memory_format=formats[image.ndim])


def draw_triangles(size, count=3):
    """Each with a pixel of its own, where the output has so many: a triangle without one has no say."""
    tries = 1000 if math.prod(size) >= count else 1
    for _ in range(tries):
        triangles = uniform(-1, 1, count, 3, 3)
        owned = [reference.mesh_triangles(triangles, size, corners).unique() for corners in (False, True)]
        if all(len(owners) == count for owners in owned):
            break
    return triangles


def draw_shared(coordinate_map, size):
    if coordinate_map in ("basis", "residual_basis"):
        return uniform(-1.5, 1.5, 4, *size)
    if coordinate_map == "mesh":
        return draw_triangles(size)
    return uniform(-1, 1, 5, 2) if coordinate_map == "tps" else None


def propose_parameters(coordinate_map, count, input_size, size, shared):
    """Parameters of any value: turned, sheared, mirrored, half of the points outside the image."""
    axes = len(size)
    if coordinate_map in ("affine", "projective"):
        theta = uniform(-1.5, 1.5, count, axes, axes + 1)
        if coordinate_map == "affine":
            return theta
        # The denominator is at least 0.3 from zero, on either side of it.
        last = torch.cat([uniform(-0.4, 0.4, count, 1, axes), uniform(1.5, 2, count, 1, 1)], 2)
        return torch.cat([theta, last * uniform(-1, 1, count, 1, 1).sign()], 1)
    if coordinate_map == "grid":
        return uniform(-3, 3, count, *size, axes)
    if coordinate_map in ("basis", "residual_basis"):
        return uniform(-1, 1, count, axes, shared.shape[0])
    if coordinate_map == "mesh":
        return uniform(-1.5, 1.5, count, len(shared), 2, 3)
    if coordinate_map == "tps":
        return torch.cat([uniform(-0.5, 0.5, count, 2, len(shared)), uniform(-1.5, 1.5, count, 2, 3)], 2)
    reach = 1.5 * max(input_size) if coordinate_map == "displacement" else 2
    return uniform(-reach, reach, count, axes, *size)


def near_kinks(parameters, shared, choices, input_size, spacing=0.5):
    """Which output pixels (M, H', W') are sampled nearer than MARGIN to a multiple of `spacing` pixels."""
    to_offsets = reference.COORDINATE_MAPS[choices.coordinate_map]
    offsets = to_offsets(parameters, shared, input_size, choices.size, choices.align_corners)
    return near_multiples(offsets, choices, input_size, spacing)


def near_multiples(offsets, choices, input_size, spacing=0.5, margin=MARGIN):
    """Which places (..., axes), in pixels from the image's centre, are so near to such a multiple."""
    steps = (offsets + torch.tensor([(s - 1) / 2 for s in reversed(input_size)])) / spacing
    near = (steps - steps.round()).abs() * spacing < margin
    for axis, length in enumerate(reversed(input_size)):
        if (
            reference.half_extent(length, choices.align_corners) == 0
            and choices.coordinate_map != "displacement"
        ):
            near[..., axis] = False  # one pixel: no parameter moves the sample away from its centre
    return near.any(-1)


def draw_parameters(choices, count, input_size, shared=None):
    """(count, ...): whole transforms, or single pixels' parameters, are drawn until all keep clear."""
    arguments = (choices.coordinate_map, count, input_size, choices.size, shared)
    parameters = propose_parameters(*arguments)
    while True:
        near = near_kinks(parameters, shared, choices, input_size)
        if not near.any():
            return parameters
        if choices.coordinate_map == "grid":
            near = near[..., None]
        elif "displacement" in choices.coordinate_map:
            near = near[:, None]
        else:
            near = near.flatten(1).any(1).view(-1, *[1] * (parameters.ndim - 1))
        parameters = torch.where(near, propose_parameters(*arguments), parameters)


def draw_problem(choices, input_size, images=2, transforms=1, channels=3, layout="contiguous"):
    """The four tensors, and a gradient for the output."""
    shared = draw_shared(choices.coordinate_map, choices.size)
    parameters = draw_parameters(choices, images * transforms, input_size, shared)
    fill = uniform(-1, 1, channels) if choices.padding_mode == "constant" else None
    grad_output = draw_image(images * transforms, channels, choices.size)
    return (draw_image(images, channels, input_size, layout), parameters, shared, fill), grad_output


def converted(tensors, *arguments):
    """All of them `.to(*arguments)`."""
    return tuple(None if t is None else t.to(*arguments) for t in tensors)


# --- solvers of one problem: (input, parameters, shared, fill) -> output -----------------------------------


def library(choices):
    """The public function made for the map."""
    size, coordinate_map, *_ = choices
    keywords = choices._asdict()
    del keywords["size"], keywords["coordinate_map"]

    def solve(input, parameters, shared=None, fill=None):
        chosen = keywords if fill is None else {**keywords, "fill_value": fill}
        if coordinate_map in ("residual_basis", "tps", "mesh"):  # tps_sample computes the weights itself
            return stn_kernels.sample(
                input, parameters, size, coordinate_map=coordinate_map, shared=shared, **chosen
            )
        images, several = input.shape[0], parameters.shape[0] != input.shape[0]
        if several:
            parameters = parameters.unflatten(0, (images, -1))
        if coordinate_map == "grid":
            output = stn_kernels.grid_sample(input, parameters, **chosen)
        elif coordinate_map == "affine":
            output = stn_kernels.affine_sample(input, parameters, size, **chosen)
        elif coordinate_map == "projective":
            output = stn_kernels.projective_sample(input, parameters, size, **chosen)
        elif coordinate_map == "basis":
            output = stn_kernels.basis_sample(input, parameters, shared, **chosen)
        else:
            unit = "pixel" if coordinate_map == "displacement" else "normalized"
            output = stn_kernels.displacement_sample(input, parameters, unit=unit, **chosen)
        return output.flatten(0, 1) if several else output

    return solve


def definition(choices):
    """The reference."""

    def solve(input, parameters, shared=None, fill=None):
        *others, _, antialias = choices
        return reference.sample(input, parameters, *others, shared, fill, antialias)

    return solve


def pytorch_grid(parameters, shared, choices, input_size):
    """The sampling grid, put together from PyTorch's functions."""
    size, coordinate_map, align_corners, axes = *choices[:2], choices.align_corners, len(choices.size)
    identity = torch.eye(axes, axes + 1).to(parameters).expand(len(parameters), axes, axes + 1)
    theta = parameters if coordinate_map == "affine" else identity
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Since version 1.3.0, affine_grid behavior has changed")
        base = functional.affine_grid(theta, [len(parameters), 1, *size], align_corners)
    if coordinate_map == "affine":
        return base
    if coordinate_map == "grid":
        return parameters
    if coordinate_map == "projective":
        points = torch.einsum("mij,m...j->m...i", parameters, functional.pad(base, (0, 1), value=1))
        return points[..., :-1] / points[..., -1:]
    if coordinate_map == "basis":
        return torch.einsum("mij,j...->m...i", parameters, shared)
    if coordinate_map == "residual_basis":
        return base + torch.einsum("mij,j...->m...i", parameters, shared)
    if coordinate_map == "mesh":
        homogeneous = functional.pad(base[0], (0, 1), value=1)
        barycentric = torch.einsum("tij,...j->t...i", shared, homogeneous)
        triangle = barycentric.amin(-1).argmax(0)
        return torch.einsum("m...ij,...j->m...i", parameters[:, triangle], homogeneous)
    if coordinate_map == "tps":
        squared = (base[..., None, :] - shared).square().sum(-1)
        features = torch.cat([torch.xlogy(squared, squared) / 2, functional.pad(base, (0, 1), value=1)], -1)
        return torch.einsum("mij,m...j->m...i", parameters, features)
    step = 1
    if coordinate_map == "displacement":
        step = parameters.new_tensor([2 / (s - align_corners) for s in reversed(input_size)])
    return base + parameters.movedim(1, -1) * step


def pytorch(choices):
    """PyTorch's own two steps; one copy of the image for each of its transforms."""
    modes = (choices.mode, choices.padding_mode, choices.align_corners)

    def solve(input, parameters, shared=None, fill=None):
        grid = pytorch_grid(parameters, shared, choices, input.shape[2:])
        copies = input.repeat_interleave(len(parameters) // len(input), 0)
        return functional.grid_sample(copies, grid, *modes)

    return solve


# --- comparison --------------------------------------------------------------------------------------------

NAMES = ("input", "parameters", "shared", "fill")


def leaves(tensors):
    """The tensors that are there, by name, as leaves of a new graph; strides are kept."""
    return {n: t.detach().requires_grad_() for n, t in zip(NAMES, tensors, strict=True) if t is not None}


def values_and_gradients(solve, tensors, grad_output):
    """Output and gradients by name. A gradient that does not exist is zero."""
    inputs = leaves(tensors)
    output = solve(*map(inputs.get, NAMES))
    grads = torch.autograd.grad(output, list(inputs.values()), grad_output, materialize_grads=True)
    return {"output": output.detach(), **{f"gradient of {n}": g for n, g in zip(inputs, grads, strict=True)}}


def deviation(actual, expected):
    """The largest difference, as a share of the expected tensor's largest value, or of one where that is zero
    up to rounding. NaN if either holds one."""
    assert actual.shape == expected.shape
    actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
    if not expected.numel():
        return 0.0
    largest = expected.abs().max()
    return float((actual - expected).abs().max() / torch.where(largest < 1e-12, 1.0, largest))


def assert_close(actual, expected, tolerance=1e-10):
    """Compares what `values_and_gradients` returns. The default leaves room for 1e5 roundings of float64, and
    none for a wrong weight or neighbour."""
    assert actual.keys() == expected.keys()
    deviations = {name: deviation(actual[name], expected[name]) for name in expected}
    assert all(d <= tolerance for d in deviations.values()), deviations


# Sums of tens of terms, in another order. In fixed point they have 50 bits or more.
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}


def assert_right(device, choices, dtype, layout="contiguous", transforms=2):
    """The library agrees with the reference on two images in this dtype."""
    tensors, grad_output = draw_problem(
        choices, INPUT_SIZE[len(choices.size)], transforms=transforms, layout=layout
    )
    moved = converted((*tensors, grad_output), device, dtype)
    actual = values_and_gradients(library(choices), moved[:4], moved[4])
    expected = values_and_gradients(definition(choices), tensors, grad_output)
    assert_close(actual, expected, TOLERANCES[dtype])


def rounding_decides(device, padding_mode, value):
    """Whether a point lies so far out that one rounding moves its mirror image to anywhere in the image. A
    GPU fuses multiplications with additions and rounds once where the reference rounds twice."""
    return device.type == "cuda" and padding_mode == "reflection" and abs(value) == 1e30


def largest(tensor):
    """The largest finite number of a tensor, signs apart, or one if that is more."""
    finite = tensor[tensor.isfinite()].abs()
    return max(float(finite.max()) if finite.numel() else 0.0, 1.0)


def assert_same(actual, expected, finite_only=False, tolerance=1e-10):
    """The same, where NaN and infinity are expected, and then in the same places; if `finite_only`, those
    places alone."""
    assert actual.keys() == expected.keys()
    for name, e in expected.items():
        if finite_only:
            assert torch.equal(actual[name].isfinite().cpu(), e.isfinite()), name
            continue
        limit = tolerance * largest(e)
        torch.testing.assert_close(
            actual[name].cpu(), e, rtol=0, atol=limit, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )


def of_present(solve, tensors):
    """A solver as a function of those of the four tensors that are there, and these."""
    names = [n for n, t in zip(NAMES, tensors, strict=True) if t is not None]
    return lambda *present: solve(**dict(zip(names, present, strict=True))), leaves(tensors).values()
