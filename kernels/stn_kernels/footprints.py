"""Footprints of output pixels, and the samples within them, in the kernels; `antialiasing.py` defines both.

A footprint is (place, columns, counts) of the pixels of a tile, blocks [P]: T(p) as offsets (x, y, z); J's
columns, one such triple for each axis of the output; and how many samples are taken along each of these axes.
In 2-D whatever belongs to z is zero, or one sample.
"""

import triton
import triton.language as tl
from triton.language import constexpr

from . import antialiasing
from .padding import clamp

MOST_SAMPLES = constexpr(antialiasing.MOST_SAMPLES)
TOLERANCE = constexpr(antialiasing.TOLERANCE)
LARGEST = constexpr(antialiasing.LARGEST)


@triton.jit
def neighbour(index, step, size):
    """The index of the pixel so many on, or of the last there is."""
    return tl.minimum(tl.maximum(index + step, 0), size - 1)


@triton.jit
def moved(target, size, axis, sign, BETWEEN_PIXELS: constexpr, COMPUTE: constexpr):
    """The target half a pixel on (sign 1) or back (sign -1) along an axis; for maps that know whole pixels
    only the next pixel, at the border the pixel itself. No axis, -1: the target."""
    positions, index, inside = target
    if BETWEEN_PIXELS:
        half = 0.5 * sign
        x = positions[0] + tl.where(axis == 0, half, 0.0)
        y = positions[1] + tl.where(axis == 1, half, 0.0)
        z = positions[2] + tl.where(axis == 2, half, 0.0)
        at = index
    else:
        at = (
            neighbour(index[0], tl.where(axis == 0, sign, 0), size[2]),
            neighbour(index[1], tl.where(axis == 1, sign, 0), size[1]),
            neighbour(index[2], tl.where(axis == 2, sign, 0), size[0]),
        )
        x = positions[0] + (at[0] - index[0]).to(COMPUTE)
        y = positions[1] + (at[1] - index[1]).to(COMPUTE)
        z = positions[2] + (at[2] - index[2]).to(COMPUTE)
    return (x, y, z), at, inside


@triton.jit
def per_step(index, size, BETWEEN_PIXELS: constexpr):
    """What a difference between the moved targets is multiplied with: they lie two pixels apart, or one."""
    if BETWEEN_PIXELS:
        share = 1.0
    else:
        share = tl.where((index > 0) & (index < size - 1), 0.5, 1.0)
    return share


@triton.jit
def column(
    parameters,
    shared,
    target,
    size,
    extents,
    axis,
    share,
    COORDINATE_MAP: constexpr,
    BETWEEN_PIXELS: constexpr,
    AXES: constexpr,
    COMPUTE: constexpr,
):
    """J's column for one axis of the output."""
    there = moved(target, size, axis, 1, BETWEEN_PIXELS, COMPUTE)
    ahead = COORDINATE_MAP(parameters, shared, there, extents, AXES, COMPUTE)
    there = moved(target, size, axis, -1, BETWEEN_PIXELS, COMPUTE)
    behind = COORDINATE_MAP(parameters, shared, there, extents, AXES, COMPUTE)
    x = (ahead[0] - behind[0]) * share
    y = (ahead[1] - behind[1]) * share
    z = x * 0.0
    if AXES == 3:
        z = (ahead[2] - behind[2]) * share
    return x, y, z


@triton.jit
def is_finite(vector, AXES: constexpr):
    infinity = float("inf")
    finite = (tl.abs(vector[0]) < infinity) & (tl.abs(vector[1]) < infinity)
    if AXES == 3:
        finite = finite & (tl.abs(vector[2]) < infinity)
    return finite


@triton.jit
def limited(vector, allowed, AXES: constexpr):
    """How many samples a column takes, and the column: zero if that is one."""
    x, y, z = clamp(vector[0], LARGEST), clamp(vector[1], LARGEST), clamp(vector[2], LARGEST)
    squared = x * x + y * y
    if AXES == 3:
        squared += z * z
    count = tl.ceil(tl.sqrt(squared) - TOLERANCE)
    count = tl.where(count > MOST_SAMPLES, MOST_SAMPLES * 1.0, count)
    several = allowed & is_finite(vector, AXES) & (count > 1.0)
    x, y = tl.where(several, vector[0], 0.0), tl.where(several, vector[1], 0.0)
    z = tl.where(several, vector[2], 0.0) if AXES == 3 else x * 0.0
    return tl.where(several, count, 1.0), (x, y, z)


@triton.jit
def footprints(
    parameters,
    shared,
    target,
    size,
    extents,
    COORDINATE_MAP: constexpr,
    BETWEEN_PIXELS: constexpr,
    AXES: constexpr,
    COMPUTE: constexpr,
):
    """Place, columns and counts."""
    _, index, inside = target
    place = COORDINATE_MAP(parameters, shared, target, extents, AXES, COMPUTE)
    allowed = inside & is_finite(place, AXES)
    share = per_step(index[0], size[2], BETWEEN_PIXELS)
    x = column(
        parameters, shared, target, size, extents, 0, share, COORDINATE_MAP, BETWEEN_PIXELS, AXES, COMPUTE
    )
    count_x, x = limited(x, allowed, AXES)
    share = per_step(index[1], size[1], BETWEEN_PIXELS)
    y = column(
        parameters, shared, target, size, extents, 1, share, COORDINATE_MAP, BETWEEN_PIXELS, AXES, COMPUTE
    )
    count_y, y = limited(y, allowed, AXES)
    z = y
    count_z = count_y * 0.0 + 1.0
    if AXES == 3:
        share = per_step(index[2], size[0], BETWEEN_PIXELS)
        z = column(
            parameters, shared, target, size, extents, 2, share, COORDINATE_MAP, BETWEEN_PIXELS, AXES, COMPUTE
        )
        count_z, z = limited(z, allowed, AXES)
    return place, (x, y, z), (count_x, count_y, count_z)


@triton.jit
def sample_count(counts):
    """Of all samples of each pixel."""
    return counts[0] * counts[1] * counts[2]


@triton.jit
def most_samples(counts):
    """So many samples serve every pixel of the tile."""
    return tl.max(sample_count(counts)).to(tl.int32)


@triton.jit
def rows_of(rest, count):
    """How many whole rows of `count` are in `rest`, both whole numbers, half a step from where rounding would
    matter."""
    return tl.floor((rest + 0.5) / count)


@triton.jit
def inner_points(sample, counts, AXES: constexpr, COMPUTE: constexpr):
    """Where in the pixels' unit squares a sample lies, d (x, y, z), and which pixels have it. Elsewhere it is
    the first one again."""
    number = tl.cast(sample, COMPUTE)
    exists = number < sample_count(counts)
    rest = tl.where(exists, number, 0.0)
    row = rows_of(rest, counts[0])
    x = (rest - row * counts[0] + 0.5) / counts[0] - 0.5
    z = x * 0.0
    if AXES == 3:
        layer = rows_of(row, counts[1])
        z = (layer + 0.5) / counts[2] - 0.5
        row -= layer * counts[1]
    y = (row + 0.5) / counts[1] - 0.5
    return (x, y, z), exists


@triton.jit
def offset_along(place, columns, inner, AXES: constexpr):
    """One coordinate of T(p) + J d, from that coordinate of place and columns."""
    offset = place + columns[0] * inner[0] + columns[1] * inner[1]
    if AXES == 3:
        offset += columns[2] * inner[2]
    return offset


@triton.jit
def sample_offsets(place, columns, inner, AXES: constexpr):
    """T(p) + J d."""
    x, y, z = columns
    at_x = offset_along(place[0], (x[0], y[0], z[0]), inner, AXES)
    at_y = offset_along(place[1], (x[1], y[1], z[1]), inner, AXES)
    at_z = at_y
    if AXES == 3:
        at_z = offset_along(place[2], (x[2], y[2], z[2]), inner, AXES)
    return at_x, at_y, at_z


# --- the way back ------------------------------------------------------------------------------------------


@triton.jit
def scaled(vector, factor):
    return vector[0] * factor, vector[1] * factor, vector[2] * factor


@triton.jit
def column_gradient(grad, count, share):
    """dL/dT at the pixel ahead, from dL/d(column); behind, it is minus that. Zero for one sample."""
    factor = tl.where(count > 1.0, share, 0.0)
    return (
        tl.where(count > 1.0, grad[0] * factor, 0.0),
        tl.where(count > 1.0, grad[1] * factor, 0.0),
        tl.where(count > 1.0, grad[2] * factor, 0.0),
    )


@triton.jit
def of_corner(axis, sign, place, x, y, z):
    """One coordinate of dL/dT at a moved target, from those of place and columns."""
    return tl.where(axis < 0, place, sign * tl.where(axis == 0, x, tl.where(axis == 1, y, z)))


@triton.jit
def footprint_vjp(
    place,
    columns,
    lane,
    parameters,
    shared,
    target,
    size,
    extents,
    COORDINATE_MAP_VJP: constexpr,
    BETWEEN_PIXELS: constexpr,
    NEED_SHARED: constexpr,
    AXES: constexpr,
    COMPUTE: constexpr,
):
    """The row of sums of a coordinate map's vjp, at the target and at all targets that the columns come from.
    `place` and `columns`: dL/dT there."""
    x, y, z = columns
    sums = lane.to(COMPUTE) * 0.0
    for corner in range(1 + 2 * AXES):  # the target, then ahead and behind along each axis
        axis = (corner + 1) // 2 - 1
        ahead = corner % 2
        there = moved(target, size, axis, 2 * ahead - 1, BETWEEN_PIXELS, COMPUTE)
        sign = tl.cast(2 * ahead - 1, COMPUTE)
        grads = (
            of_corner(axis, sign, place[0], x[0], y[0], z[0]),
            of_corner(axis, sign, place[1], x[1], y[1], z[1]),
            of_corner(axis, sign, place[2], x[2], y[2], z[2]),
        )
        sums += COORDINATE_MAP_VJP(
            grads, lane, parameters, shared, there, extents, NEED_SHARED, AXES, COMPUTE
        )
    return sums
