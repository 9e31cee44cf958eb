"""What the forward and backward templates share: which pixels a program owns, and where each is sampled."""

import triton
import triton.language as tl

from .coordinate_maps import centre, half_extent


@triton.jit
def tile_pixels(tile, tiles_x, TILE_Y: tl.constexpr, TILE_X: tl.constexpr, INDEX: tl.constexpr):
    """Rows and columns of a tile's pixels: two blocks [P], x fastest."""
    lane = tl.arange(0, TILE_Y * TILE_X)
    row = (tile // tiles_x) * TILE_Y + lane // TILE_X
    column = (tile % tiles_x) * TILE_X + lane % TILE_X
    return row.to(INDEX), column.to(INDEX)


@triton.jit
def taps_along(
    offset,
    size,
    PADDING: tl.constexpr,
    TAPS: tl.constexpr,
    ALIGN_CORNERS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """The kernel's support along one axis: its first pixel, the distance from there to the sample, the slope
    of the padding, and whether the coordinate is undefined (NaN). Undefined ones are moved to the centre."""
    middle = centre(size, COMPUTE)
    offset, slope = PADDING(offset, half_extent(size, ALIGN_CORNERS, COMPUTE), middle)
    undefined = offset != offset
    position = tl.where(undefined, 0.0, offset) + middle
    first = tl.floor(position) - (TAPS // 2 - 1)
    return first.to(tl.int32), position - first, slope, undefined


@triton.jit
def sample_points(
    parameters_ptr,
    parameters_strides,
    n,
    tile,
    tiles_x,
    input_size,
    output_size,
    COORDINATE_MAP: tl.constexpr,
    PADDING: tl.constexpr,
    TAPS: tl.constexpr,
    ALIGN_CORNERS: tl.constexpr,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """The output pixels of a tile, which of them exist, the taps of each along x and along y, and whether its
    sample is undefined: blocks [P]."""
    row, column = tile_pixels(tile, tiles_x, TILE_Y, TILE_X, INDEX)
    inside = (row < output_size[0]) & (column < output_size[1])
    offset_x, offset_y = COORDINATE_MAP(
        parameters_ptr,
        parameters_strides,
        n,
        row,
        column,
        inside,
        input_size,
        output_size,
        ALIGN_CORNERS,
        COMPUTE,
    )
    first_x, distance_x, slope_x, undefined_x = taps_along(
        offset_x, input_size[1], PADDING, TAPS, ALIGN_CORNERS, COMPUTE
    )
    first_y, distance_y, slope_y, undefined_y = taps_along(
        offset_y, input_size[0], PADDING, TAPS, ALIGN_CORNERS, COMPUTE
    )
    taps_x = (first_x, distance_x, slope_x)
    taps_y = (first_y, distance_y, slope_y)
    return row, column, inside, taps_x, taps_y, undefined_x | undefined_y


# VECTOR says how a tensor (N, C, H, W) lies in memory. 0: strides in elements. v > 0: channels-last, strides
# of n, y and x in vectors of v elements. The compiler sees only whether an integer argument is a multiple of
# 16; counting in vectors tells it that rows and pixels of 4, 8, 12 or 24 channels are aligned too.


@triton.jit
def pixel_offset(n, row, column, strides, VECTOR: tl.constexpr):
    """Where the channels of a pixel begin."""
    offset = n * strides[0] + row * strides[2] + column * strides[3]
    if VECTOR > 1:
        offset *= VECTOR
    return offset


@triton.jit
def channel_offset(channel, strides, VECTOR: tl.constexpr):
    """From a pixel's first channel to the given ones; channels-last, they are neighbours."""
    if VECTOR > 0:
        offset = channel
    else:
        offset = channel * strides[1]
    return offset
