"""The backward template: Eqs. 6 and 7 for any coordinate map, sampling kernel, padding and layout.

A program owns a tile of P output pixels of one image and all its channels. The image's gradient is scattered
with relaxed atomic additions into a zeroed buffer of the computing precision. The coordinates' gradient is
summed over the channels in registers and handed to the coordinate map, which stores it, or its sum over the
tile.
"""

import triton
import triton.language as tl

from .template import channel_offset, pixel_offset, sample_points


@triton.jit
def sample_scatter_kernel(
    grad_input_ptr,  # (N, C, H, W), zeroed, of dtype COMPUTE
    grad_parameters_ptr,  # laid out by the coordinate map, of dtype COMPUTE
    grad_output_ptr,  # (N, C, H', W')
    input_ptr,  # (N, C, H, W)
    parameters_ptr,  # the coordinate map's
    grad_input_strides,  # n, c, y, x
    grad_output_strides,
    input_strides,
    parameters_strides,  # up to four, in the order of its dimensions
    output_size,  # H', W'
    input_size,  # H, W
    channels,  # C / CHANNEL_UNIT
    tiles,  # of an image
    tiles_x,  # in a row of tiles
    blocks,  # of BLOCK_C channels
    COORDINATE_MAP: tl.constexpr,
    COORDINATE_MAP_VJP: tl.constexpr,
    KERNEL: tl.constexpr,
    KERNEL_DERIVATIVE: tl.constexpr,
    PADDING: tl.constexpr,
    TAPS: tl.constexpr,
    ALIGN_CORNERS: tl.constexpr,
    NEED_INPUT: tl.constexpr,
    NEED_PARAMETERS: tl.constexpr,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHANNEL_UNIT: tl.constexpr,
    GRAD_INPUT_VECTOR: tl.constexpr,
    GRAD_OUTPUT_VECTOR: tl.constexpr,
    INPUT_VECTOR: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    program = tl.program_id(0)
    tile = program % tiles
    n = (program // tiles).to(INDEX)

    row, column, inside, taps_x, taps_y, undefined = sample_points(  # [P]
        parameters_ptr,
        parameters_strides,
        n,
        tile,
        tiles_x,
        input_size,
        output_size,
        COORDINATE_MAP,
        PADDING,
        TAPS,
        ALIGN_CORNERS,
        TILE_Y,
        TILE_X,
        INDEX,
        COMPUTE,
    )
    first_x, distance_x, slope_x = taps_x
    first_y, distance_y, slope_y = taps_y

    source = pixel_offset(n, row, column, grad_output_strides, GRAD_OUTPUT_VECTOR)
    sum_x = tl.zeros([TILE_Y * TILE_X, BLOCK_C], COMPUTE)  # dL/dx, still apart by channel
    sum_y = tl.zeros([TILE_Y * TILE_X, BLOCK_C], COMPUTE)
    for block in range(blocks):
        channel = (block * BLOCK_C + tl.arange(0, BLOCK_C)).to(INDEX)
        valid = inside[:, None] & (channel < channels * CHANNEL_UNIT)[None, :]
        grad_input_channel = channel_offset(channel, grad_input_strides, GRAD_INPUT_VECTOR)
        grad_output_channel = channel_offset(channel, grad_output_strides, GRAD_OUTPUT_VECTOR)
        input_channel = channel_offset(channel, input_strides, INPUT_VECTOR)

        pixels = grad_output_ptr + source[:, None] + grad_output_channel[None, :]
        grad = tl.load(pixels, mask=valid, other=0.0).to(COMPUTE)
        for j in tl.static_range(TAPS):
            y = first_y + j
            weight_y = KERNEL(distance_y - j)
            slope_weight_y = KERNEL_DERIVATIVE(distance_y - j)
            for i in tl.static_range(TAPS):
                x = first_x + i
                weight_x = KERNEL(distance_x - i)
                slope_weight_x = KERNEL_DERIVATIVE(distance_x - i)
                in_image = (x >= 0) & (x < input_size[1]) & (y >= 0) & (y < input_size[0]) & ~undefined
                mask = valid & in_image[:, None]
                if NEED_INPUT:  # Eq. 6
                    tap = pixel_offset(n, y.to(INDEX), x.to(INDEX), grad_input_strides, GRAD_INPUT_VECTOR)
                    pixels = grad_input_ptr + tap[:, None] + grad_input_channel[None, :]
                    tl.atomic_add(pixels, grad * (weight_x * weight_y)[:, None], mask=mask, sem="relaxed")
                if NEED_PARAMETERS:  # Eq. 7
                    tap = pixel_offset(n, y.to(INDEX), x.to(INDEX), input_strides, INPUT_VECTOR)
                    pixels = input_ptr + tap[:, None] + input_channel[None, :]
                    product = grad * tl.load(pixels, mask=mask, other=0.0).to(COMPUTE)
                    sum_x += product * (slope_weight_x * weight_y)[:, None]
                    sum_y += product * (weight_x * slope_weight_y)[:, None]

    if NEED_PARAMETERS:
        grad_x = tl.where(undefined, float("nan"), tl.sum(sum_x, axis=1) * slope_x)
        grad_y = tl.where(undefined, float("nan"), tl.sum(sum_y, axis=1) * slope_y)
        COORDINATE_MAP_VJP(
            grad_parameters_ptr,
            n,
            tile,
            tiles,
            row,
            column,
            inside,
            tl.where(inside, grad_x, 0.0),
            tl.where(inside, grad_y, 0.0),
            input_size,
            output_size,
            ALIGN_CORNERS,
            COMPUTE,
        )
