"""Every operation in differentiable plain PyTorch: the definition that the kernels are held to.

Nothing here is fast. Each function says what a kernel must compute, in any floating dtype, and PyTorch's
autograd differentiates it. It also serves whatever no fused kernel covers: second derivatives, forward mode,
mixed dtypes and non-finite coordinates on the CPU.

Coordinates are pixels *relative to the centre of the image*. With `half_extent` e and `centre` c,

    normalised u in [-1, 1]  ->  offset r = e u  ->  pixel a = c + r,     c = (W - 1) / 2,

    e = W / 2 for align_corners=False (-1 and 1 are the outer edges of the border pixels),
    e = (W - 1) / 2 for align_corners=True (-1 and 1 are the centres of the border pixels).

A map between images of one size then never multiplies and divides by that size: the identity is exact at
every width, where the usual ((u + 1) W - 1) / 2 is off by rounding unless W is a power of two.

Sizes are (H, W) or (D, H, W); coordinates run x before y before z. `axes` stands for the number of spatial
dimensions, 2 or 3.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from .antialiasing import Footprints, make_footprints, neighbour_differences, samples

Size = tuple[int, ...]
Shift = Sequence[float]  # along x, y and z
NO_SHIFT = (0.0, 0.0, 0.0)
T = TypeVar("T")


def compute_dtype(*tensors: Tensor | None) -> torch.dtype:
    """float64 if any tensor is float64, else float32: the dtype of coordinates, weights and sums."""
    for tensor in tensors:
        if tensor is not None and tensor.dtype == torch.float64:
            return torch.float64
    return torch.float32


def half_extent(size: int, align_corners: bool) -> float:
    """Pixels from the centre of `size` pixels to the coordinate 1."""
    return (size - 1) / 2 if align_corners else size / 2


def half_extents(size: Size, align_corners: bool) -> list[float]:
    """`half_extent` along x, y and z."""
    return [half_extent(s, align_corners) for s in reversed(size)]


def pixels_from_centre(size: int, like: Tensor) -> Tensor:
    """Positions of `size` pixels relative to their centre: (size,), multiples of one half, exact."""
    return torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2


def target_pixels(size: Size, like: Tensor, shift: Shift = NO_SHIFT) -> list[Tensor]:
    """Positions of the output's pixels relative to its centre, along x, y and z; they broadcast to `size`.
    Shifted by so many pixels of the output, they lie between pixels."""
    return [pixels_from_centre(s, like).view(-1, *[1] * i) + shift[i] for i, s in enumerate(reversed(size))]


def normalised_pixels(size: Size, like: Tensor, align_corners: bool, shift: Shift = NO_SHIFT) -> list[Tensor]:
    """The same in normalised coordinates: the target grid G of Eq. 1. A single pixel is at 0."""
    extents = half_extents(size, align_corners)
    return [p / (e or 1.0) for p, e in zip(target_pixels(size, like, shift), extents, strict=True)]


def per_pixel(numbers: Tensor, axes: int) -> Tensor:
    """Appends the dimensions of an output, so that numbers of a transform broadcast over its pixels."""
    return numbers.view(*numbers.shape, *[1] * axes)


# --- coordinate maps: parameters -> offsets (M, H', W', axes), x before y ----------------------------------
# A map takes (parameters, shared, input_size, size, align_corners). `parameters` belong to the M transforms,
# `shared`, if the map has any, to all of them.


def linear(row: Tensor, source: float, size: Size, align_corners: bool, shift: Shift = NO_SHIFT) -> Tensor:
    """`source` times one row of Eq. 1: (M, axes + 1), its constant last -> (M, *size)."""
    axes = len(size)
    row = per_pixel(row, axes)
    total = row[:, axes] * source
    extents, pixels = half_extents(size, align_corners), target_pixels(size, row, shift)
    for axis in reversed(range(axes)):
        # A single target pixel sits at the centre: its offset is zero, and so may be its half extent.
        scale = source / extents[axis] if extents[axis] else 0.0
        total = row[:, axis] * scale * pixels[axis] + total
    return total


def affine_offsets(
    theta: Tensor,
    shared: Tensor | None,
    input_size: Size,
    size: Size,
    align_corners: bool,
    shift: Shift = NO_SHIFT,
) -> Tensor:
    """Eq. 1, A (x, y, 1)^T, written between pixel offsets: theta (M, 2, 3), or (M, 3, 4) in 3-D."""
    extents = half_extents(input_size, align_corners)
    rows = [linear(theta[:, i], e, size, align_corners, shift) for i, e in enumerate(extents)]
    return torch.stack(rows, -1)


def _nothing_of_nothing(arrives: Tensor, handed_on: Tensor) -> Tensor:
    return torch.where((arrives == 0) & ~handed_on.isfinite(), 0, handed_on)


class Quotient(torch.autograd.Function):
    """numerator / denominator, with derivatives of every order, that hands no gradient on where none arrives,
    as the kernels do. A point that the map sends to infinity reads nothing and learns nothing; of that the
    derivative of a plain division would make NaN, zero times infinity, for the whole transform."""

    generate_vmap_rule = True

    @staticmethod
    def forward(numerator: Tensor, denominator: Tensor) -> Tensor:
        return numerator / denominator

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        numerator, denominator = ctx.saved_tensors
        # Not wherever the gradient is 0: it is linear there, too, which derivatives of it ask for.
        of_numerator = _nothing_of_nothing(grads[0], grads[0] / denominator)
        of_denominator = -of_numerator * Quotient.apply(numerator, denominator)
        return of_numerator, _nothing_of_nothing(of_numerator, of_denominator)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        numerator, denominator = ctx.saved_tensors
        return (tangents[0] - numerator / denominator * tangents[1]) / denominator


def projective_offsets(
    theta: Tensor,
    shared: Tensor | None,
    input_size: Size,
    size: Size,
    align_corners: bool,
    shift: Shift = NO_SHIFT,
) -> Tensor:
    """Eq. 1 in homogeneous coordinates, divided by the last row: theta (M, 3, 3), or (M, 4, 4) in 3-D."""
    homogeneous = linear(theta[:, -1], 1.0, size, align_corners, shift)
    offsets = affine_offsets(theta, shared, input_size, size, align_corners, shift)
    return Quotient.apply(offsets, homogeneous[..., None].expand_as(offsets))


def grid_offsets(
    grid: Tensor, shared: Tensor | None, input_size: Size, size: Size, align_corners: bool
) -> Tensor:
    """A sampling grid of normalised coordinates (M, H', W', axes) as pixel offsets, same shape."""
    extents = half_extents(input_size, align_corners)
    return torch.stack([grid[..., i] * e for i, e in enumerate(extents)], -1)


def displacement_offsets(
    displacement: Tensor, shared: Tensor | None, input_size: Size, size: Size, align_corners: bool
) -> Tensor:
    """The identity plus a displacement in pixels of the input: (M, axes, H', W'), x before y."""
    axes = len(size)
    identity = torch.eye(axes, axes + 1, dtype=displacement.dtype, device=displacement.device)
    offsets = affine_offsets(identity[None], shared, input_size, size, align_corners)
    return offsets + displacement.movedim(1, -1)


def normalised_displacement_offsets(
    displacement: Tensor, shared: Tensor | None, input_size: Size, size: Size, align_corners: bool
) -> Tensor:
    """The same with a displacement in normalised coordinates."""
    extents = per_pixel(displacement.new_tensor(half_extents(input_size, align_corners)), len(size))
    return displacement_offsets(displacement * extents, shared, input_size, size, align_corners)


def basis_offsets(
    coefficients: Tensor, basis: Tensor, input_size: Size, size: Size, align_corners: bool
) -> Tensor:
    """T = M B: normalised coordinates as combinations of the planes of a basis (B, H', W'), with coefficients
    (M, axes, B)."""
    grid = torch.einsum("mab,b...->m...a", coefficients, basis)
    return grid_offsets(grid, None, input_size, size, align_corners)


def residual_basis_offsets(
    coefficients: Tensor, basis: Tensor, input_size: Size, size: Size, align_corners: bool
) -> Tensor:
    """The identity, stretched from the output's size to the input's, plus M B."""
    displacement = torch.einsum("mab,b...->ma...", coefficients, basis)
    return normalised_displacement_offsets(displacement, None, input_size, size, align_corners)


def mesh_triangles(triangles: Tensor, size: Size, align_corners: bool) -> Tensor:
    """The triangle that each output pixel lies in, (H', W'): the one whose smallest barycentric coordinate is
    largest. Outside the mesh it is one of the nearest.

    Args:
        triangles: (T, 3, 3), what times (x, y, 1) gives the barycentric coordinates.
    """
    x, y = torch.broadcast_tensors(*normalised_pixels(size, triangles, align_corners))
    barycentric = torch.einsum("tij,j...->it...", triangles, torch.stack([x, y, torch.ones_like(x)]))
    return barycentric.amin(0).argmax(0)


def mesh_offsets(
    theta: Tensor, triangles: Tensor, input_size: Size, size: Size, align_corners: bool
) -> Tensor:
    """An affine map in each triangle of a mesh: theta (M, T, 2, 3), triangles (T, 3, 3) as in
    `mesh_triangles`. Which triangle a pixel lies in has no gradient."""
    index = mesh_triangles(triangles.detach(), size, align_corners)
    own = theta[:, index]  # (M, H', W', 2, 3)
    rows = []
    for row, source in enumerate(half_extents(input_size, align_corners)):
        total = own[..., row, 2] * source
        for axis in (1, 0):
            extent, pixels = half_extents(size, align_corners)[axis], target_pixels(size, theta)[axis]
            total = own[..., row, axis] * (source / extent if extent else 0.0) * pixels + total
        rows.append(total)
    return torch.stack(rows, -1)


def radial(squared: Tensor) -> Tensor:
    """The thin plate spline's kernel r^2 log r of the squared distance r^2; 0, with all derivatives, at 0."""
    safe = torch.where(squared > 0, squared, 1)
    return 0.5 * safe * safe.log()


def tps_offsets(
    weights: Tensor,
    control_points: Tensor,
    input_size: Size,
    size: Size,
    align_corners: bool,
    shift: Shift = NO_SHIFT,
) -> Tensor:
    """A thin plate spline: weights (M, 2, K + 3) of K control points (K, 2) in the target's normalised
    coordinates, then of x, y and 1."""
    bend, theta = weights[..., :-3], weights[..., -3:]
    x, y = normalised_pixels(size, weights, align_corners, shift)
    dx, dy = (p - per_pixel(c, 2) for p, c in zip((x, y), control_points.unbind(-1), strict=True))
    bent = torch.einsum("mak,k...->m...a", bend, radial(dx.square() + dy.square()))
    extents = bent.new_tensor(half_extents(input_size, align_corners))
    return bent * extents + affine_offsets(theta, None, input_size, size, align_corners, shift)


def affine_grid(theta: Tensor, size: Size, align_corners: bool = False) -> Tensor:
    """The sampling grid T_theta(G) of Eq. 1: source coordinates for each pixel of the output.

    Args:
        theta: (N, 2, 3), any floating dtype; rows give x and y. In 3-D (N, 3, 4).
        size: (H', W') of the output. In 3-D (D', H', W').
        align_corners: whether -1 and 1 are the centres (True) or the outer edges (False) of border pixels.

    Returns:
        (N, H', W', 2) in theta's dtype, normalised so that the image spans [-1, 1], x before y: the same
        values as `torch.nn.functional.affine_grid`, rounded less. In 3-D (N, D', H', W', 3).
    """
    a = per_pixel(theta, len(size))
    pixels = normalised_pixels(size, theta, align_corners)
    grid = a[:, :, -1]
    for axis in reversed(range(len(size))):
        grid = a[:, :, axis] * pixels[axis] + grid
    return grid.movedim(1, -1)


# --- padding: coordinates and taps outside the image -------------------------------------------------------
# Kernels of one or two taps see a padded coordinate; with more, each tap is padded. The values are the same,
# the former costs less, and it is what PyTorch does, also where the derivative jumps.


def mirror(offset: Tensor, half_extent: float) -> Tensor:
    """The offset mirrored at -half_extent and half_extent as often as needed."""
    if half_extent == 0:
        return offset * 0
    span = 2 * half_extent
    distance = torch.where(offset < -half_extent, -(offset + half_extent), offset + half_extent)
    turns = (distance.detach() / span).floor()
    rest = distance - turns * span
    odd = turns - 2 * (turns / 2).floor() == 1
    return torch.where(odd, half_extent - rest, rest - half_extent)


def pad_coordinate(offset: Tensor, half_extent: float, centre: float, padding_mode: str, taps: int) -> Tensor:
    """The offset at which to sample instead, finite where `offset` is defined."""
    if padding_mode == "reflection":
        offset = mirror(offset, half_extent)
    if padding_mode == "zeros" or taps > 2:
        # From there on every tap is zero, or every tap is the same border pixel.
        limit = centre + taps // 2 + 1
        return offset.clamp(-limit, limit)
    # No gradient from the border pixel's centre on outwards, as in PyTorch.
    return torch.where(offset.abs() < centre, offset, offset.detach().clamp(-centre, centre))


def pad_tap(index: Tensor, length: int, padding_mode: str, align_corners: bool) -> tuple[Tensor, Tensor]:
    """The pixel that stands for a tap (whole numbers, any dtype), and whether there is one."""
    valid = torch.ones_like(index, dtype=torch.bool)
    if padding_mode == "zeros":
        valid = (index >= 0) & (index < length)
    elif padding_mode == "reflection":
        period = max(2 * (length - align_corners), 1)
        index = index.remainder(period)
        index = torch.minimum(index, period - 1 + align_corners - index)
    return index.clamp(0, length - 1).long(), valid


PADDING_MODES = ("zeros", "border", "reflection", "constant")


# --- sampling kernels: distance in pixels -> weight --------------------------------------------------------


def box(t: Tensor) -> Tensor:
    """One tap: the whole weight."""
    return torch.ones_like(t)


def bilinear(t: Tensor) -> Tensor:
    """Eq. 5, max(0, 1 - |t|). Autograd sees the derivative to the right of the kinks at -1, 0 and 1."""
    return torch.where((t >= -1) & (t < 1), torch.where(t < 0, 1 + t, 1 - t), torch.zeros_like(t))


def bicubic(t: Tensor) -> Tensor:
    """Keys' cubic convolution (IEEE Trans. ASSP 29, 1981) with a = -0.75, as in PyTorch and ONNX."""
    a, t = -0.75, t.abs()
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = a * (((t - 5) * t + 8) * t - 4)
    return torch.where(t <= 1, near, torch.where(t < 2, far, 0))


def round_half_even(position: Tensor) -> Tensor:
    """The nearest pixel, of two equally near the even one, as in PyTorch."""
    return position.round()


class SamplingKernel(NamedTuple):
    """k(t) of Eq. 3 and its support."""

    weight: Callable[[Tensor], Tensor]
    taps: int  # along each axis
    first: Callable[[Tensor], Tensor] | None = None  # position -> first tap; by default the middle ones

    def first_tap(self, position: Tensor) -> Tensor:
        if self.first is not None:
            return self.first(position)
        return (position + (1 - self.taps / 2)).floor()


SAMPLING_KERNELS = {
    "nearest": SamplingKernel(box, 1, round_half_even),
    "integer": SamplingKernel(box, 1),  # Eq. 4: the pixel at floor(x + 0.5)
    "bilinear": SamplingKernel(bilinear, 2),
    "bicubic": SamplingKernel(bicubic, 4),
}
# (parameters, shared, input_size, size, align_corners) -> offsets; `shared` is what the map wants, or None.
CoordinateMap = Callable[[Tensor, Any, Size, Size, bool], Tensor]
COORDINATE_MAPS: dict[str, CoordinateMap] = {
    "affine": affine_offsets,
    "projective": projective_offsets,
    "grid": grid_offsets,
    "displacement": displacement_offsets,
    "normalised_displacement": normalised_displacement_offsets,
    "basis": basis_offsets,
    "residual_basis": residual_basis_offsets,
    "tps": tps_offsets,
    "mesh": mesh_offsets,
}
# Maps that also take a `shift`: formulas of a position, which need not be a pixel's.
BETWEEN_PIXELS = ("affine", "projective", "tps")


def lookup(table: Mapping[str, T], name: str, kind: str) -> T:
    """An entry, or the reason why there is none: a name registered without a PyTorch twin."""
    if name not in table:
        raise NotImplementedError(
            f"the {kind} {name!r} was registered without a twin in PyTorch; the CPU, second derivatives and "
            "forward mode need one"
        )
    return table[name]


# --- sampling ----------------------------------------------------------------------------------------------


def footprints(
    parameters: Tensor,
    shared: Tensor | None,
    coordinate_map: str,
    input_size: Size,
    size: Size,
    align_corners: bool,
) -> Footprints:
    """Place and footprint of each output pixel, as `antialiasing` defines them."""
    to_offsets = lookup(COORDINATE_MAPS, coordinate_map, "coordinate map")
    arguments = (parameters, shared, input_size, size, align_corners)
    places = to_offsets(*arguments)
    if coordinate_map not in BETWEEN_PIXELS:
        return make_footprints(places, neighbour_differences(places))
    shifts = [[0.5 * (i == axis) for i in range(3)] for axis in range(len(size))]
    shifted: Any = to_offsets  # these take a shift, too
    columns = [
        shifted(*arguments, shift=shift) - shifted(*arguments, shift=[-s for s in shift]) for shift in shifts
    ]
    return make_footprints(places, torch.stack(columns, -1))


def sample(
    input: Tensor,
    parameters: Tensor,
    size: Sequence[int],
    coordinate_map: str,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
    shared: Tensor | None = None,
    fill: Tensor | None = None,
    antialias: bool = False,
) -> Tensor:
    """Eq. 3: V[c, i] = sum over n, m of U[c, n, m] k(a_i - m) k(b_i - n), the sums over the kernel's support.

    (a_i, b_i) are the pixel coordinates to which the coordinate map sends output pixel i.

    Args:
        input: U, (N, C, H, W) or (N, C, D, H, W), any floating dtype.
        parameters: what the coordinate map reads for each of M transforms, M a multiple of N: transforms
            m = 0 ... M / N - 1 are the first image's, and so on.
        size: (H', W') or (D', H', W') of the output.
        coordinate_map, mode: names in COORDINATE_MAPS and SAMPLING_KERNELS.
        padding_mode: a name in PADDING_MODES. "constant": taps are those of "border", and where the
            coordinate leaves the image, [-1, 1] normalised, the output is `fill`.
        align_corners: see `affine_grid`.
        shared: what the coordinate map reads for all transforms; None if nothing.
        fill: (C,), for "constant".
        antialias: whether V is the mean of such samples over a pixel's footprint; see `antialiasing`.

    Returns:
        V, (M, C, H', W') or (M, C, D', H', W') in input's dtype, computed in `compute_dtype`. Where a
        coordinate is NaN (or infinite, under reflection), the output is NaN, the image gets no gradient, and
        the coordinate's gradient is NaN.
    """
    dtype = compute_dtype(input, parameters, shared)
    size, input_size = tuple(size), tuple(input.shape[2:])
    lookup(SAMPLING_KERNELS, mode, "sampling kernel")
    to_offsets = lookup(COORDINATE_MAPS, coordinate_map, "coordinate map")

    numbers, shared = parameters.to(dtype), None if shared is None else shared.to(dtype)
    image, fill = input.to(dtype), None if fill is None else fill.to(dtype)
    if antialias:
        each = samples(footprints(numbers, shared, coordinate_map, input_size, size, align_corners))
        output = image.new_zeros(())
        for offsets, weight in each:
            values = sample_at(image, offsets, mode, padding_mode, align_corners, fill)
            output = output + torch.where(weight[:, None] > 0, values, 0) * weight[:, None]
    else:
        offsets = to_offsets(numbers, shared, input_size, size, align_corners)
        output = sample_at(image, offsets, mode, padding_mode, align_corners, fill)
    return output.to(input.dtype).contiguous()


def sample_at(
    input: Tensor, offsets: Tensor, mode: str, padding_mode: str, align_corners: bool, fill: Tensor | None
) -> Tensor:
    """`sample` at offsets (M, *size, axes), all in one dtype."""
    kernel, input_size, size = SAMPLING_KERNELS[mode], tuple(input.shape[2:]), tuple(offsets.shape[1:-1])
    undefined = ~offsets.isfinite() if padding_mode == "reflection" else offsets.isnan()
    undefined = undefined.any(-1)
    # Left at the undefined points: zero weight for the image, and a NaN that follows the coordinate
    # backwards.
    raw = torch.where(undefined, offsets.sum(-1), 0)
    poison = raw * torch.where(undefined, torch.nan, 1.0)
    offsets = torch.where(undefined[..., None], 0, offsets)

    def along(axis: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Index, validity and weight of each tap along one axis: blocks (M, *size)."""
        length = input_size[-1 - axis]
        extent, centre = half_extent(length, align_corners), (length - 1) / 2
        position = pad_coordinate(offsets[..., axis], extent, centre, padding_mode, kernel.taps) + centre
        first = kernel.first_tap(position.detach())
        taps = [first + i for i in range(kernel.taps)]
        tap_padding = padding_mode if kernel.taps > 2 else "zeros"
        index, valid = zip(*(pad_tap(tap, length, tap_padding, align_corners) for tap in taps), strict=True)
        return list(index), list(valid), [kernel.weight(position - tap) for tap in taps]

    axes = [along(axis) for axis in reversed(range(len(size)))]  # z, y, x, as the image's dimensions
    pixels = input.flatten(2)  # (N, C, H W)
    transforms = offsets.shape[0] // max(input.shape[0], 1)
    points = transforms * math.prod(size)  # of one image
    output = pixels.new_zeros((*pixels.shape[:2], points))
    for taps in itertools.product(range(kernel.taps), repeat=len(size)):
        index, weight, valid = torch.zeros_like(undefined, dtype=torch.long), raw.new_ones(()), ~undefined
        for tap, length, (indices, validities, weights) in zip(taps, input_size, axes, strict=True):
            index = index * length + indices[tap]
            weight = weight * weights[tap]
            valid = valid & validities[tap]
        weight = torch.where(valid, weight, 0).reshape(input.shape[0], 1, points)
        index = index.reshape(input.shape[0], 1, points).expand(-1, input.shape[1], -1)
        output = output + pixels.gather(2, index) * weight
    output = output.unflatten(2, (transforms, *size)).transpose(1, 2).flatten(0, 1)  # (M, C, *size)
    if padding_mode == "constant":
        extents = offsets.new_tensor(half_extents(input_size, align_corners))
        outside = (offsets.abs() > extents).any(-1) & ~undefined
        assert fill is not None
        output = torch.where(outside[:, None], per_pixel(fill, len(size)), output)
    return output + poison[:, None]
