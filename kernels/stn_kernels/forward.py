"""The forward template: Eq. 3 for any coordinate map, sampling kernel, padding and layout.

A program owns a tile of P output pixels of one image and a run of channels. It computes the coordinates of
its pixels once, then walks through its channels in blocks [P, BLOCK_C].
"""

import triton
import triton.language as tl

from .template import channel_offset, pixel_offset, sample_points


@triton.jit
def sample_forward_kernel(
    output_ptr,  # (N, C, H', W')
    input_ptr,  # (N, C, H, W)
    parameters_ptr,  # the coordinate map's
    output_strides,  # n, c, y, x
    input_strides,
    parameters_strides,  # up to four, in the order of its dimensions
    output_size,  # H', W'
    input_size,  # H, W
    channels,  # C / CHANNEL_UNIT
    tiles,  # of an image
    tiles_x,  # in a row of tiles
    channel_groups,  # programs that share a tile, each with channels of its own
    blocks_per_group,  # of BLOCK_C channels
    COORDINATE_MAP: tl.constexpr,
    KERNEL: tl.constexpr,
    PADDING: tl.constexpr,
    TAPS: tl.constexpr,
    ALIGN_CORNERS: tl.constexpr,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHANNEL_UNIT: tl.constexpr,
    OUTPUT_VECTOR: tl.constexpr,
    INPUT_VECTOR: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    program = tl.program_id(0)
    tile = program % tiles
    group = program // tiles % channel_groups
    n = (program // tiles // channel_groups).to(INDEX)

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
    first_x, distance_x, _ = taps_x
    first_y, distance_y, _ = taps_y

    target = pixel_offset(n, row, column, output_strides, OUTPUT_VECTOR)
    first_block = group * blocks_per_group
    for block in range(first_block, first_block + blocks_per_group):
        channel = (block * BLOCK_C + tl.arange(0, BLOCK_C)).to(INDEX)
        valid = inside[:, None] & (channel < channels * CHANNEL_UNIT)[None, :]
        input_channel = channel_offset(channel, input_strides, INPUT_VECTOR)
        output_channel = channel_offset(channel, output_strides, OUTPUT_VECTOR)

        total = tl.zeros([TILE_Y * TILE_X, BLOCK_C], COMPUTE)
        for j in tl.static_range(TAPS):
            y = first_y + j
            weight_y = KERNEL(distance_y - j)
            for i in tl.static_range(TAPS):
                x = first_x + i
                weight = weight_y * KERNEL(distance_x - i)
                in_image = (x >= 0) & (x < input_size[1]) & (y >= 0) & (y < input_size[0]) & ~undefined
                tap = pixel_offset(n, y.to(INDEX), x.to(INDEX), input_strides, INPUT_VECTOR)
                pixels = input_ptr + tap[:, None] + input_channel[None, :]
                value = tl.load(pixels, mask=valid & in_image[:, None], other=0.0)
                total += weight[:, None] * value.to(COMPUTE)

        total = tl.where(undefined[:, None], float("nan"), total)
        pixels = output_ptr + target[:, None] + output_channel[None, :]
        tl.store(pixels, total.to(output_ptr.dtype.element_ty), mask=valid)
