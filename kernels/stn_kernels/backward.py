"""The backward template: Eqs. 6 and 7 for any coordinate map, sampling kernel, padding, dimension and layout.

A program owns a run of tiles of P output pixels, and all their channels. The image's gradient is scattered
with relaxed atomic additions into a zeroed buffer: of the computing precision, or, if FIXED_POINT, of 64-bit
integers, whose sums do not depend on the order. The coordinates' gradient is summed over the channels in
registers and handed to the coordinate map, which stores it, or returns its sums over the tile.
"""

import triton
import triton.language as tl
from triton.language import constexpr

from .gather import is_gathered
from .template import half_extents, pointers, sample_points, tap, target_points, tile_pixels


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
    ROWS: constexpr = TAPS if AXES == 2 else TAPS * TAPS  # of taps along x
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
        offsets = COORDINATE_MAP(own, shared, target, extents, AXES, COMPUTE)
        taps, undefined, outside = sample_points(
            offsets, extents[0], input_size, FIRST_TAP, PADDING, TAPS, AXES, COMPUTE
        )
        sampled = inside & ~undefined & ~outside

        sum_x = tl.zeros([TILE_Y * TILE_X, BLOCK_C], COMPUTE)  # dL/dx, still apart by channel
        sum_y = tl.zeros([TILE_Y * TILE_X, BLOCK_C], COMPUTE)
        sum_z = tl.zeros([TILE_Y * TILE_X, BLOCK_C], COMPUTE)
        for block in range(blocks):
            channel = (block * BLOCK_C + tl.arange(0, BLOCK_C)).to(INDEX)
            exists = channel < channels * CHANNEL_UNIT
            own_pixels = pointers(
                grad_output, m, pixel[0], pixel[1], pixel[2], channel, GRAD_OUTPUT_VECTOR, AXES, INDEX
            )
            grad = tl.load(own_pixels, mask=sampled[:, None] & exists[None, :], other=0.0).to(COMPUTE)
            scaled = grad
            if FIXED_POINT:
                scale = tl.load(scale_ptr + n * channels * CHANNEL_UNIT + channel, mask=exists, other=0.0)
                scaled *= scale[None, :]
                scaled = tl.where(scaled == scaled, scaled, 0.0)  # the scale is NaN as well, and tells

            for row in tl.range(0, ROWS, loop_unroll_factor=UNROLLED_ROWS):
                y, valid_row, distance = tap(taps[1], row % TAPS, input_size[1], PADDING, TAPS, ALIGN_CORNERS)
                weight_y = KERNEL(distance)
                slope_y = KERNEL_DERIVATIVE(distance)
                z = y
                weight_z = 1.0
                slope_z = 0.0
                if AXES == 3:
                    z, valid, distance = tap(
                        taps[2], row // TAPS, input_size[0], PADDING, TAPS, ALIGN_CORNERS
                    )
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
                    if NEED_PARAMETERS or NEED_SHARED:  # Eq. 7
                        slope_x = KERNEL_DERIVATIVE(distance)
                        pixels = pointers(input, n, x, y, z, channel, INPUT_VECTOR, AXES, INDEX)
                        product = grad * tl.load(pixels, mask=mask, other=0.0).to(COMPUTE)
                        sum_x += product * (slope_x * weight_y * weight_z)[:, None]
                        sum_y += product * (weight_x * slope_y * weight_z)[:, None]
                        if AXES == 3:
                            sum_z += product * (weight_x * weight_y * slope_z)[:, None]

        if NEED_PARAMETERS or NEED_SHARED:
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
                COORDINATE_MAP_VJP(grads, gradient, target, extents, AXES, COMPUTE)
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
