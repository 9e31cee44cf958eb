"""The backward template: Eqs. 6 and 7 for any coordinate map, sampling kernel, padding, dimension and layout.

A program owns a run of tiles of P output pixels, and all their channels. The image's gradient is scattered
with relaxed atomic additions into a zeroed buffer: of the computing precision, or, if FIXED_POINT, of 64-bit
integers, whose sums do not depend on the order. The coordinates' gradient is summed over the channels in
registers and handed to the coordinate map, which stores it, or returns its sums over the tile.
"""

import triton
import triton.language as tl
from triton.language import constexpr

from .collect import store_planes
from .footprints import (
    column_gradient,
    footprint_vjp,
    footprints,
    inner_points,
    most_samples,
    per_step,
    sample_count,
    sample_offsets,
)
from .gather import is_gathered
from .template import (
    block_channels,
    half_extents,
    pointers,
    sample_points,
    tap,
    target_points,
    tile_pixels,
)


@triton.jit
def scatter_taps(
    sums,  # dL/dx, dL/dy, dL/dz, still apart by channel
    grad_input,
    input,
    input_size,
    n,
    taps,
    sampled,
    channel,
    exists,
    grad,
    scaled,
    KERNEL: constexpr,
    KERNEL_DERIVATIVE: constexpr,
    TAPS: constexpr,
    PADDING: constexpr,
    ALIGN_CORNERS: constexpr,
    AXES: constexpr,
    NEED_INPUT: constexpr,
    NEED_COORDINATES: constexpr,
    FIXED_POINT: constexpr,
    GRAD_INPUT_VECTOR: constexpr,
    INPUT_VECTOR: constexpr,
    UNROLLED_ROWS: constexpr,
    INDEX: constexpr,
    COMPUTE: constexpr,
):
    """The taps of one sample of each pixel: adds to the image's gradient, and to the sums."""
    ROWS: constexpr = TAPS if AXES == 2 else TAPS * TAPS  # of taps along x
    sum_x, sum_y, sum_z = sums
    for row in tl.range(0, ROWS, loop_unroll_factor=UNROLLED_ROWS):
        y, valid_row, distance = tap(taps[1], row % TAPS, input_size[1], PADDING, TAPS, ALIGN_CORNERS)
        weight_y = KERNEL(distance)
        slope_y = KERNEL_DERIVATIVE(distance)
        z = y
        weight_z = 1.0
        slope_z = 0.0
        if AXES == 3:
            z, valid, distance = tap(taps[2], row // TAPS, input_size[0], PADDING, TAPS, ALIGN_CORNERS)
            valid_row = valid_row & valid
            weight_z = KERNEL(distance)
            slope_z = KERNEL_DERIVATIVE(distance)
        for i in tl.static_range(TAPS):
            x, valid, distance = tap(taps[0], i, input_size[2], PADDING, TAPS, ALIGN_CORNERS)
            weight_x = KERNEL(distance)
            mask = (sampled & valid & valid_row)[:, None] & exists[None, :]
            if NEED_INPUT:  # Eq. 6
                share = scaled * (weight_x * weight_y * weight_z)[:, None]
                if FIXED_POINT:
                    share = share.to(tl.int64)
                sums_there = pointers(grad_input, n, x, y, z, channel, GRAD_INPUT_VECTOR, AXES, INDEX)
                tl.atomic_add(sums_there, share, mask=mask, sem="relaxed")
            if NEED_COORDINATES:  # Eq. 7
                slope_x = KERNEL_DERIVATIVE(distance)
                pixels = pointers(input, n, x, y, z, channel, INPUT_VECTOR, AXES, INDEX)
                product = grad * tl.load(pixels, mask=mask, other=0.0).to(COMPUTE)
                sum_x += product * (slope_x * weight_y * weight_z)[:, None]
                sum_y += product * (weight_x * slope_y * weight_z)[:, None]
                if AXES == 3:
                    sum_z += product * (weight_x * weight_y * slope_z)[:, None]
    return sum_x, sum_y, sum_z


@triton.jit
def sample_scatter_kernel(
    grad_input,  # (N, C, D, H, W), zeroed, of dtype COMPUTE or, if FIXED_POINT, int64: pointer, strides
    grad_parameters,  # as parameters, or rows of sums (M, runs, row_length); of dtype COMPUTE
    grad_shared,  # as shared, of dtype COMPUTE: pointer, strides; written if RUNS_OVER_TRANSFORMS
    grad_output,  # (M, C, D', H', W'): pointer, strides
    input,  # (N, C, D, H, W): pointer, strides
    parameters,  # the coordinate map's, (M, ...): pointer, stride of M, strides of one transform's
    shared,  # the coordinate map's, for all transforms: pointer, length, strides
    scale_ptr,  # (N, C), of dtype COMPUTE: what makes a gradient a fixed-point number; read if FIXED_POINT
    sizes,  # (D, H, W), (D', H', W')
    row_length,  # of a row of sums
    transforms,  # M / N, of each image
    channels,  # C / CHANNEL_UNIT
    blocks,  # of BLOCK_C channels
    tiles_x,  # in a row of tiles
    runs,  # of tiles, of an output
    run_length,  # tiles of a run; transforms if RUNS_OVER_TRANSFORMS
    COORDINATE_MAP: constexpr,
    COORDINATE_MAP_VJP: constexpr,
    SHARED_VJP: constexpr,
    PER_PIXEL: constexpr,  # whether the parameters belong to pixels
    KERNEL: constexpr,
    KERNEL_DERIVATIVE: constexpr,
    FIRST_TAP: constexpr,
    TAPS: constexpr,
    PADDING: constexpr,
    ALIGN_CORNERS: constexpr,
    AXES: constexpr,
    ANTIALIAS: constexpr,
    BETWEEN_PIXELS: constexpr,  # whether the map is a formula of a position; only if ANTIALIAS
    NEED_INPUT: constexpr,
    NEED_PARAMETERS: constexpr,
    NEED_SHARED: constexpr,
    RUNS_OVER_TRANSFORMS: constexpr,  # the same tile of one transform after another
    FIXED_POINT: constexpr,
    EXCEPT_GATHERED: constexpr,  # leave out the transforms whose image gradient is gathered
    TILE_Y: constexpr,
    TILE_X: constexpr,
    BLOCK_C: constexpr,
    ROW: constexpr,  # lanes of a row of sums
    CHANNEL_UNIT: constexpr,
    WHOLE_BLOCKS: constexpr,  # of channels
    GRAD_INPUT_VECTOR: constexpr,
    GRAD_OUTPUT_VECTOR: constexpr,
    INPUT_VECTOR: constexpr,
    UNROLLED_ROWS: constexpr,  # of taps
    INDEX: constexpr,
    COMPUTE: constexpr,
):
    program = tl.program_id(0)
    run = program % runs
    m = (program // runs).to(INDEX)
    tile = run if RUNS_OVER_TRANSFORMS else run * run_length
    input_size, output_size = sizes
    extents = half_extents(sizes, ALIGN_CORNERS, COMPUTE)
    NEED_COORDINATES: constexpr = NEED_PARAMETERS or NEED_SHARED
    lane = tl.arange(0, ROW)
    sums = tl.zeros([ROW], COMPUTE)

    if EXCEPT_GATHERED:
        own = (parameters[0] + m * parameters[1], parameters[2])
        run_length = tl.where(is_gathered(own, sizes, extents, TAPS, AXES, COMPUTE), 0, run_length)
    for _ in range(run_length):
        n = m // transforms
        own = (parameters[0] + m * parameters[1], parameters[2])
        pixel, inside = tile_pixels(tile, tiles_x, output_size, TILE_Y, TILE_X, AXES, INDEX)  # [P]
        target = target_points(pixel, inside, output_size, COMPUTE)
        if ANTIALIAS:
            place, columns, counts = footprints(
                own, shared, target, output_size, extents, COORDINATE_MAP, BETWEEN_PIXELS, AXES, COMPUTE
            )
            samples = most_samples(counts)
            weight = 1.0 / sample_count(counts)
            grads = zero_gradients(TILE_Y * TILE_X, COMPUTE)
            along_x = zero_gradients(TILE_Y * TILE_X, COMPUTE)  # dL/d(column)
            along_y = zero_gradients(TILE_Y * TILE_X, COMPUTE)
            along_z = zero_gradients(TILE_Y * TILE_X, COMPUTE)
            loaded = inside
        else:
            offsets = COORDINATE_MAP(own, shared, target, extents, AXES, COMPUTE)
            taps, undefined, outside = sample_points(
                offsets, extents[0], input_size, FIRST_TAP, PADDING, TAPS, AXES, COMPUTE
            )
            sampled = inside & ~undefined & ~outside
            loaded = sampled
            sum_x = tl.zeros([TILE_Y * TILE_X, BLOCK_C], COMPUTE)  # dL/dx, still apart by channel
            sum_y = tl.zeros([TILE_Y * TILE_X, BLOCK_C], COMPUTE)
            sum_z = tl.zeros([TILE_Y * TILE_X, BLOCK_C], COMPUTE)
        for block in range(blocks):
            channel, exists = block_channels(block, channels, BLOCK_C, CHANNEL_UNIT, WHOLE_BLOCKS, INDEX)
            x, y, z = pixel
            own_pixels = pointers(grad_output, m, x, y, z, channel, GRAD_OUTPUT_VECTOR, AXES, INDEX, True)
            grad = tl.load(own_pixels, mask=loaded[:, None] & exists[None, :], other=0.0).to(COMPUTE)
            if ANTIALIAS:
                grad *= weight[:, None]
            scaled = grad
            if FIXED_POINT:
                scale = tl.load(scale_ptr + n * channels * CHANNEL_UNIT + channel, mask=exists, other=0.0)
                scaled *= scale[None, :]
                scaled = tl.where(scaled == scaled, scaled, 0.0)  # the scale is NaN as well, and tells

            if ANTIALIAS:
                for sample in range(samples):
                    inner, taken = inner_points(sample, counts, AXES, COMPUTE)
                    taken = taken & inside
                    offsets = sample_offsets(place, columns, inner, AXES)
                    taps, undefined, outside = sample_points(
                        offsets, extents[0], input_size, FIRST_TAP, PADDING, TAPS, AXES, COMPUTE
                    )
                    sampled = taken & ~undefined & ~outside
                    zeros = tl.zeros([TILE_Y * TILE_X, BLOCK_C], COMPUTE)
                    sums_of_taps = scatter_taps(
                        (zeros, zeros, zeros),
                        grad_input,
                        input,
                        input_size,
                        n,
                        taps,
                        sampled,
                        channel,
                        exists,
                        tl.where(sampled[:, None], grad, 0.0),
                        scaled,
                        KERNEL,
                        KERNEL_DERIVATIVE,
                        TAPS,
                        PADDING,
                        ALIGN_CORNERS,
                        AXES,
                        NEED_INPUT,
                        NEED_COORDINATES,
                        FIXED_POINT,
                        GRAD_INPUT_VECTOR,
                        INPUT_VECTOR,
                        UNROLLED_ROWS,
                        INDEX,
                        COMPUTE,
                    )
                    if NEED_COORDINATES:
                        here = (
                            coordinate_gradient(sums_of_taps[0], taps[0], undefined, taken),
                            coordinate_gradient(sums_of_taps[1], taps[1], undefined, taken),
                            coordinate_gradient(sums_of_taps[2], taps[2], undefined, taken),
                        )
                        grads = plus(grads, here, 1.0)
                        along_x = plus(along_x, here, inner[0])
                        along_y = plus(along_y, here, inner[1])
                        if AXES == 3:
                            along_z = plus(along_z, here, inner[2])
            else:
                sum_x, sum_y, sum_z = scatter_taps(
                    (sum_x, sum_y, sum_z),
                    grad_input,
                    input,
                    input_size,
                    n,
                    taps,
                    sampled,
                    channel,
                    exists,
                    grad,
                    scaled,
                    KERNEL,
                    KERNEL_DERIVATIVE,
                    TAPS,
                    PADDING,
                    ALIGN_CORNERS,
                    AXES,
                    NEED_INPUT,
                    NEED_COORDINATES,
                    FIXED_POINT,
                    GRAD_INPUT_VECTOR,
                    INPUT_VECTOR,
                    UNROLLED_ROWS,
                    INDEX,
                    COMPUTE,
                )

        if NEED_COORDINATES:
            if ANTIALIAS:
                along_x = column_gradient(
                    along_x, counts[0], per_step(pixel[0], output_size[2], BETWEEN_PIXELS)
                )
                along_y = column_gradient(
                    along_y, counts[1], per_step(pixel[1], output_size[1], BETWEEN_PIXELS)
                )
                along_z = column_gradient(
                    along_z, counts[2], per_step(pixel[2], output_size[0], BETWEEN_PIXELS)
                )
            else:
                grads = (
                    coordinate_gradient(sum_x, taps[0], undefined, inside),
                    coordinate_gradient(sum_y, taps[1], undefined, inside),
                    coordinate_gradient(sum_z, taps[2], undefined, inside),
                )
            if RUNS_OVER_TRANSFORMS:
                SHARED_VJP(grads, grad_shared, own, shared, target, extents, AXES, COMPUTE)
                tl.debug_barrier()  # the next transform adds to what was stored
            elif PER_PIXEL:
                gradient = (grad_parameters[0] + m * grad_parameters[1], grad_parameters[2])
                if ANTIALIAS:  # to be collected, by collect_kernel
                    store_planes(gradient, pixel, inside, 0, grads, AXES)
                    store_planes(gradient, pixel, inside, 1, along_x, AXES)
                    store_planes(gradient, pixel, inside, 2, along_y, AXES)
                    if AXES == 3:
                        store_planes(gradient, pixel, inside, 3, along_z, AXES)
                else:
                    COORDINATE_MAP_VJP(grads, gradient, target, extents, AXES, COMPUTE)
            elif ANTIALIAS:
                sums += footprint_vjp(
                    grads,
                    (along_x, along_y, along_z),
                    lane,
                    own,
                    shared,
                    target,
                    output_size,
                    extents,
                    COORDINATE_MAP_VJP,
                    BETWEEN_PIXELS,
                    NEED_SHARED,
                    AXES,
                    COMPUTE,
                )
            else:
                sums += COORDINATE_MAP_VJP(
                    grads, lane, own, shared, target, extents, NEED_SHARED, AXES, COMPUTE
                )
        if RUNS_OVER_TRANSFORMS:
            m += 1
        else:
            tile += 1

    if (NEED_PARAMETERS or NEED_SHARED) and not (PER_PIXEL or RUNS_OVER_TRANSFORMS):
        rows = grad_parameters[0] + (m * runs + run) * row_length
        tl.store(rows + lane, sums, mask=lane < row_length)


@triton.jit
def coordinate_gradient(sums, taps, undefined, inside):
    """dL/d(offset) along one axis, [P], from sums [P, BLOCK_C]: NaN if undefined, 0 if there is no pixel."""
    _, _, slope = taps
    grad = tl.where(undefined, float("nan"), tl.sum(sums, axis=1) * slope)
    return tl.where(inside, grad, 0.0)


@triton.jit
def zero_gradients(PIXELS: constexpr, COMPUTE: constexpr):
    """No gradient of an offset (x, y, z)."""
    zeros = tl.zeros([PIXELS], COMPUTE)
    return zeros, zeros, zeros


@triton.jit
def plus(total, vector, factor):
    return total[0] + vector[0] * factor, total[1] + vector[1] * factor, total[2] + vector[2] * factor
