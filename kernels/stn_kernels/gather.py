"""The image's gradient without atomics: each program owns pixels of the *input* and gathers what they get.

Under an affine map the output pixels whose taps reach input pixel q lie in a box around M^-1 (q - s), where
a = M p + s in pixel indices. Row by row of that box, the map's own inequalities |M p + s - q| < reach leave
an interval of x. Box and interval only select candidates: a candidate's weight comes from the same functions
as in the forward template. Bounds that are too wide cost time, and none may be too narrow: each is widened by
how much it may have been rounded.

Nothing gathered is added up in another order on another run. A transform that is nearly
singular, or magnifies so much that the box holds more than LARGEST_BOX pixels, is left to the scatter, whose
sums are read from its buffer. Programs find that out from theta themselves: nobody has to wait for the GPU.
"""

import triton
import triton.language as tl
from triton.language import constexpr

from .coordinate_maps import affine, divide, entry, ratio
from .template import (
    block_channels,
    centre,
    half_extents,
    pointers,
    sample_points,
    target_points,
    tile_pixels,
)

LARGEST_BOX = constexpr(1024.0)
LARGEST_CONDITION = constexpr(1000.0)
LARGEST_OFFSET = constexpr(1e6)  # pixels; an image that is so far away is never met


@triton.jit
def roundings(count: constexpr, COMPUTE: constexpr):
    """So many half units in the last place of 1."""
    return count * (1.2e-16 if COMPUTE == tl.float64 else 6e-8)


@triton.jit
def pixel_row(parameters, ROW: constexpr, sizes, extents, AXES: constexpr, COMPUTE: constexpr):
    """One row of M and s: how a source index changes with the target's x, y and z, and its value at 0."""
    source, to = extents
    input_size, output_size = sizes
    x = entry(parameters, ROW, 0, COMPUTE) * ratio(source[ROW], to[0], COMPUTE)
    y = entry(parameters, ROW, 1, COMPUTE) * ratio(source[ROW], to[1], COMPUTE)
    s = entry(parameters, ROW, AXES, COMPUTE) * source[ROW] + centre(input_size[2 - ROW], COMPUTE)
    s -= x * centre(output_size[2], COMPUTE) + y * centre(output_size[1], COMPUTE)
    z = s * 0.0
    if AXES == 3:
        z = entry(parameters, ROW, 2, COMPUTE) * ratio(source[ROW], to[2], COMPUTE)
        s -= z * centre(output_size[0], COMPUTE)
    return x, y, z, s


@triton.jit
def adjugate(x, y, z, SIGN: constexpr):
    """The adjugate of a matrix by rows, SIGN = -1; of absolute values with SIGN = 1, a bound on its terms."""
    a, b, c = x[0], x[1], x[2]
    d, e, f = y[0], y[1], y[2]
    g, h, i = z[0], z[1], z[2]
    return (
        (e * i + SIGN * (f * h), c * h + SIGN * (b * i), b * f + SIGN * (c * e)),
        (f * g + SIGN * (d * i), a * i + SIGN * (c * g), c * d + SIGN * (a * f)),
        (d * h + SIGN * (e * g), b * g + SIGN * (a * h), a * e + SIGN * (b * d)),
    )


@triton.jit
def magnitudes(row):
    return tl.abs(row[0]), tl.abs(row[1]), tl.abs(row[2])


@triton.jit
def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@triton.jit
def pixel_matrix(parameters, sizes, extents, AXES: constexpr, COMPUTE: constexpr):
    """M by rows, s, the adjugate of M, a bound on the adjugate's terms, M's determinant, and how much of it
    cancels (1: nothing)."""
    x0, x1, x2, s0 = pixel_row(parameters, 0, sizes, extents, AXES, COMPUTE)
    y0, y1, y2, s1 = pixel_row(parameters, 1, sizes, extents, AXES, COMPUTE)
    z0, z1, z2, s2 = x2, x2, x2 + 1.0, x2
    if AXES == 3:
        z0, z1, z2, s2 = pixel_row(parameters, 2, sizes, extents, AXES, COMPUTE)
    x, y, z = (x0, x1, x2), (y0, y1, y2), (z0, z1, z2)
    inverse = adjugate(x, y, z, -1.0)
    bounds = adjugate(magnitudes(x), magnitudes(y), magnitudes(z), 1.0)
    determinant = dot(x, (inverse[0][0], inverse[1][0], inverse[2][0]))
    bound = dot(magnitudes(x), (bounds[0][0], bounds[1][0], bounds[2][0]))
    condition = bound / tl.where(determinant == 0.0, 1e-30, tl.abs(determinant))
    return (x, y, z), (s0, s1, s2), inverse, bounds, determinant, condition


@triton.jit
def is_gathered(parameters, sizes, extents, TAPS: constexpr, AXES: constexpr, COMPUTE: constexpr):
    """Whether a transform's image gradient is gathered. NaN and infinity are not."""
    _, s, inverse, _, determinant, condition = pixel_matrix(parameters, sizes, extents, AXES, COMPUTE)
    size = tl.abs(determinant)
    reach = (TAPS * 0.5, TAPS * 0.5, TAPS * 0.5)
    box = (2.0 * dot(magnitudes(inverse[0]), reach) + size) * (
        2.0 * dot(magnitudes(inverse[1]), reach) + size
    )
    largest = LARGEST_BOX * size * size
    if AXES == 3:
        box *= 2.0 * dot(magnitudes(inverse[2]), reach) + size
        largest *= size
    near = (tl.abs(s[0]) < LARGEST_OFFSET) & (tl.abs(s[1]) < LARGEST_OFFSET) & (tl.abs(s[2]) < LARGEST_OFFSET)
    return near & (largest > 0.0) & (condition < LARGEST_CONDITION) & (box <= largest) & (largest < 1e30)


@triton.jit
def whole_between(middle, half, length, COMPUTE: constexpr):
    """First, and one past the last, whole number in the open interval middle +- half and in [0, length)."""
    first = tl.floor(middle - half) + 1.0
    end = tl.ceil(middle + half)
    limit = tl.cast(length, COMPUTE)
    first = tl.minimum(tl.maximum(first, 0.0), limit)
    end = tl.minimum(tl.maximum(end, 0.0), limit)
    return first.to(tl.int32), end.to(tl.int32)


@triton.jit
def box_side(inverse, bounds, determinant, condition, q, s, reach, length, COMPUTE: constexpr):
    """Along one axis of the target: the first and one past the last pixel that may reach input pixel q."""
    size = tl.abs(determinant)
    middle = dot(inverse, (q[0] - s[0], q[1] - s[1], q[2] - s[2])) / determinant
    rounded = dot(
        bounds, (tl.abs(q[0]) + tl.abs(s[0]), tl.abs(q[1]) + tl.abs(s[1]), tl.abs(q[2]) + tl.abs(s[2]))
    )
    half = dot(magnitudes(inverse), reach) / size + roundings(6, COMPUTE) * condition * (rounded / size)
    return whole_between(middle, half, length, COMPUTE)


@triton.jit
def row_interval(row, s, q, at, reach, length, COMPUTE: constexpr):
    """Along the target's row (y, z) = at: first, and one past the last, x with |row . (x, y, z) + s - q| <
    reach."""
    y, z = at
    rest = row[1] * y + row[2] * z + s - q
    magnitude = tl.abs(row[1] * y) + tl.abs(row[2] * z) + tl.abs(s) + tl.abs(q)
    reach += roundings(4, COMPUTE) * magnitude
    width = tl.abs(row[0]) * tl.cast(length, COMPUTE)
    flat = width < 1e-3  # hardly depends on x: all of the row or nothing
    slope = tl.where(flat, 1.0, row[0])
    middle = tl.where(flat, 0.0, -rest / slope)
    half = tl.where(flat, tl.where(tl.abs(rest) < reach + width, 1e6, 0.0), reach / tl.abs(slope))
    return whole_between(middle, half, length, COMPUTE)


@triton.jit
def share(q, taps, KERNEL: constexpr, TAPS: constexpr, COMPUTE: constexpr):
    """The weight with which a sample with these taps reads input pixel q, along one axis."""
    first, distance, _ = taps
    tap = q - first
    return tl.where((tap >= 0) & (tap < TAPS), KERNEL(distance - tap.to(COMPUTE)), 0.0)


@triton.jit
def sample_gather_kernel(
    grad_input,  # (N, C, D, H, W): pointer, strides
    grad_output,  # (M, C, D', H', W'): pointer, strides
    parameters,  # theta, (M, axes, axes + 1): pointer, stride of M, strides of one transform's
    scattered,  # (N, C, D, H, W), the buffer of the transforms that are not gathered: pointer, strides
    scale_ptr,  # (N, C), of dtype COMPUTE; read if FIXED_POINT
    sizes,  # (D, H, W), (D', H', W')
    transforms,  # M / N, of each image
    channels,  # C / CHANNEL_UNIT
    tiles,  # of an input
    tiles_x,  # in a row of tiles
    channel_blocks,  # of BLOCK_C, each in a program of its own
    KERNEL: constexpr,
    FIRST_TAP: constexpr,
    TAPS: constexpr,
    VANISHES: constexpr,  # whether the kernel is zero at both ends of its support
    ALIGN_CORNERS: constexpr,
    AXES: constexpr,
    FIXED_POINT: constexpr,
    TILE_Y: constexpr,
    TILE_X: constexpr,
    BLOCK_C: constexpr,
    CHANNEL_UNIT: constexpr,
    WHOLE_BLOCKS: constexpr,  # of channels
    GRAD_INPUT_VECTOR: constexpr,
    GRAD_OUTPUT_VECTOR: constexpr,
    SCATTERED_VECTOR: constexpr,
    INDEX: constexpr,
    COMPUTE: constexpr,
):
    program = tl.program_id(0)
    tile = program % tiles
    block = program // tiles % channel_blocks
    n = (program // tiles // channel_blocks).to(INDEX)
    input_size, output_size = sizes
    extents = half_extents(sizes, ALIGN_CORNERS, COMPUTE)

    pixel, inside = tile_pixels(tile, tiles_x, input_size, TILE_Y, TILE_X, AXES, INDEX)  # [P]
    channel, exists = block_channels(block, channels, BLOCK_C, CHANNEL_UNIT, WHOLE_BLOCKS, INDEX)
    q = (pixel[0].to(COMPUTE), pixel[1].to(COMPUTE), pixel[2].to(COMPUTE))
    # At the ends of its support a kernel that vanishes there gives no more than rounding: so much narrower
    # than what the bounds are widened by, that the identity still visits one pixel and not nine.
    margin = roundings(-16 if VANISHES else 16, COMPUTE)
    reach = (
        TAPS * 0.5 + margin * tl.cast(input_size[2], COMPUTE),
        TAPS * 0.5 + margin * tl.cast(input_size[1], COMPUTE),
        TAPS * 0.5 + margin * tl.cast(input_size[0], COMPUTE),
    )

    total = tl.zeros([TILE_Y * TILE_X, BLOCK_C], COMPUTE)
    left = 0
    for t in range(transforms):
        m = n * transforms + t
        own = (parameters[0] + m * parameters[1], parameters[2])
        if is_gathered(own, sizes, extents, TAPS, AXES, COMPUTE):
            matrix, s, inverse, bounds, determinant, condition = pixel_matrix(
                own, sizes, extents, AXES, COMPUTE
            )
            low, high = box_side(
                inverse[1], bounds[1], determinant, condition, q, s, reach, output_size[1], COMPUTE
            )
            first_y = tl.min(tl.where(inside, low, output_size[1]))
            end_y = tl.max(tl.where(inside, high, 0))
            first_z, end_z = 0, 1
            if AXES == 3:
                low, high = box_side(
                    inverse[2], bounds[2], determinant, condition, q, s, reach, output_size[0], COMPUTE
                )
                first_z = tl.min(tl.where(inside, low, output_size[0]))
                end_z = tl.max(tl.where(inside, high, 0))
            for z in range(first_z, end_z):
                for y in range(first_y, end_y):
                    row = (tl.cast(y, COMPUTE), tl.cast(z, COMPUTE))
                    low, high = row_interval(matrix[0], s[0], q[0], row, reach[0], output_size[2], COMPUTE)
                    low_y, high_y = row_interval(
                        matrix[1], s[1], q[1], row, reach[1], output_size[2], COMPUTE
                    )
                    low, high = tl.maximum(low, low_y), tl.minimum(high, high_y)
                    if AXES == 3:
                        low_z, high_z = row_interval(
                            matrix[2], s[2], q[2], row, reach[2], output_size[2], COMPUTE
                        )
                        low, high = tl.maximum(low, low_z), tl.minimum(high, high_z)
                    high = tl.where(inside, high, 0)
                    for i in range(tl.max(high - low)):
                        x = low + i
                        visited = x < high
                        index = (x.to(INDEX), pixel[1] * 0 + y, pixel[2] * 0 + z)
                        target = target_points(index, visited, output_size, COMPUTE)
                        offsets = affine(own, 0, target, extents, AXES, COMPUTE)
                        taps, _, _ = sample_points(
                            offsets, extents[0], input_size, FIRST_TAP, "zeros", TAPS, AXES, COMPUTE
                        )
                        weight = share(pixel[0], taps[0], KERNEL, TAPS, COMPUTE)
                        weight *= share(pixel[1], taps[1], KERNEL, TAPS, COMPUTE)
                        if AXES == 3:
                            weight *= share(pixel[2], taps[2], KERNEL, TAPS, COMPUTE)
                        pixels = pointers(
                            grad_output,
                            m,
                            index[0],
                            index[1],
                            index[2],
                            channel,
                            GRAD_OUTPUT_VECTOR,
                            AXES,
                            INDEX,
                        )
                        mask = (visited & (weight != 0.0))[:, None] & exists[None, :]
                        total += weight[:, None] * tl.load(pixels, mask=mask, other=0.0).to(COMPUTE)
        else:
            left += 1

    valid = inside[:, None] & exists[None, :]
    pixels = pointers(scattered, n, pixel[0], pixel[1], pixel[2], channel, SCATTERED_VECTOR, AXES, INDEX)
    rest = tl.load(pixels, mask=valid & (left > 0), other=0).to(COMPUTE)
    if FIXED_POINT:
        scale = tl.load(scale_ptr + n * channels * CHANNEL_UNIT + channel, mask=exists, other=1.0)
        rest = divide(rest, tl.broadcast_to(scale[None, :], rest.shape), COMPUTE)
    total += tl.where(left > 0, rest, 0.0)
    pixels = pointers(grad_input, n, pixel[0], pixel[1], pixel[2], channel, GRAD_INPUT_VECTOR, AXES, INDEX)
    tl.store(pixels, total.to(grad_input[0].dtype.element_ty), mask=valid)
