"""What the templates share: which pixels a program owns, where each is sampled, where tensors' elements lie.

Points run x, y, z; sizes (D, H, W); strides n, c, z, y, x. In 2-D, AXES = 2, depth is one, and whatever
belongs to z is left out of the compiled code. A tensor is a pair of pointer and strides.
"""

import triton
import triton.language as tl
from triton.language import constexpr

from .padding import is_outside, pad_coordinate, pad_tap


@triton.jit
def centre(size, COMPUTE: constexpr):
    """Pixel coordinate of the centre of the image, along one axis."""
    return tl.cast(size - 1, COMPUTE) * 0.5


@triton.jit
def half_extent(size, ALIGN_CORNERS: constexpr, COMPUTE: constexpr):
    """Pixels from the centre of the image to the coordinate 1, along one axis."""
    if ALIGN_CORNERS:
        extent = tl.cast(size - 1, COMPUTE) * 0.5
    else:
        extent = tl.cast(size, COMPUTE) * 0.5
    return extent


@triton.jit
def half_extents(sizes, ALIGN_CORNERS: constexpr, COMPUTE: constexpr):
    """`half_extent` along x, y and z, of the input and of the output."""
    source, target = sizes
    return (
        (
            half_extent(source[2], ALIGN_CORNERS, COMPUTE),
            half_extent(source[1], ALIGN_CORNERS, COMPUTE),
            half_extent(source[0], ALIGN_CORNERS, COMPUTE),
        ),
        (
            half_extent(target[2], ALIGN_CORNERS, COMPUTE),
            half_extent(target[1], ALIGN_CORNERS, COMPUTE),
            half_extent(target[0], ALIGN_CORNERS, COMPUTE),
        ),
    )


@triton.jit
def tile_pixels(tile, tiles_x, size, TILE_Y: constexpr, TILE_X: constexpr, AXES: constexpr, INDEX: constexpr):
    """The pixels of a tile, x fastest: their indices along x, y and z, blocks [P], and which of them exist.
    Rows of all depths follow one another."""
    lane = tl.arange(0, TILE_Y * TILE_X)
    row = ((tile // tiles_x) * TILE_Y + lane // TILE_X).to(INDEX)
    x = ((tile % tiles_x) * TILE_X + lane % TILE_X).to(INDEX)
    inside = (row < size[0] * size[1]) & (x < size[2])
    y = row
    z = row * 0
    if AXES == 3:
        y = row % size[1]
        z = row // size[1]
    return (x, y, z), inside


@triton.jit
def target_points(pixel, inside, size, COMPUTE: constexpr):
    """What coordinate maps know of output pixels: positions relative to the output's centre, indices, and
    which exist."""
    x = pixel[0].to(COMPUTE) - centre(size[2], COMPUTE)
    y = pixel[1].to(COMPUTE) - centre(size[1], COMPUTE)
    z = pixel[2].to(COMPUTE) - centre(size[0], COMPUTE)
    return (x, y, z), pixel, inside


@triton.jit
def taps_along(
    offset, extent, size, FIRST_TAP: constexpr, PADDING: constexpr, TAPS: constexpr, COMPUTE: constexpr
):
    """The kernel's support along one axis, (first pixel, distance from there to the sample, slope of the
    padding), and whether the coordinate is undefined or outside. Undefined ones are moved to the centre."""
    middle = centre(size, COMPUTE)
    padded, slope, undefined = pad_coordinate(offset, extent, middle, PADDING, TAPS)
    position = tl.where(undefined, 0.0, padded) + middle
    first = FIRST_TAP(position, TAPS)
    return (first.to(tl.int32), position - first, slope), undefined, is_outside(offset, extent, PADDING)


@triton.jit
def sample_points(
    offsets,
    extents,
    size,
    FIRST_TAP: constexpr,
    PADDING: constexpr,
    TAPS: constexpr,
    AXES: constexpr,
    COMPUTE: constexpr,
):
    """From offsets (x, y, z), blocks [P], to the taps along x, y and z, and to which samples are undefined or
    outside."""
    x, undefined, outside = taps_along(offsets[0], extents[0], size[2], FIRST_TAP, PADDING, TAPS, COMPUTE)
    y, undefined_y, outside_y = taps_along(offsets[1], extents[1], size[1], FIRST_TAP, PADDING, TAPS, COMPUTE)
    undefined = undefined | undefined_y
    outside = outside | outside_y
    z = y
    if AXES == 3:
        z, undefined_z, outside_z = taps_along(
            offsets[2], extents[2], size[0], FIRST_TAP, PADDING, TAPS, COMPUTE
        )
        undefined = undefined | undefined_z
        outside = outside | outside_z
    return (x, y, z), undefined, outside


@triton.jit
def tap(taps, i, size, PADDING: constexpr, TAPS: constexpr, ALIGN_CORNERS: constexpr):
    """Tap i along one axis: its pixel, whether there is one, and the sample's distance from it."""
    first, distance, _ = taps
    index, valid = pad_tap(first + i, size, PADDING, TAPS, ALIGN_CORNERS)
    return index, valid, distance - i


@triton.jit
def block_channels(
    block, channels, BLOCK_C: constexpr, CHANNEL_UNIT: constexpr, WHOLE_BLOCKS: constexpr, INDEX: constexpr
):
    """The channels of a block, and which of them exist: known when compiling, if all blocks are whole."""
    channel = (block * BLOCK_C + tl.arange(0, BLOCK_C)).to(INDEX)
    if WHOLE_BLOCKS:
        exists = tl.full([BLOCK_C], True, tl.int1)
    else:
        exists = channel < channels * CHANNEL_UNIT
    return channel, exists


@triton.jit
def pointers(
    tensor,
    n,
    x,
    y,
    z,
    channel,
    VECTOR: constexpr,
    AXES: constexpr,
    INDEX: constexpr,
    ONE_BY_ONE: constexpr = False,
):
    """Where a tensor (N, C, D, H, W) keeps the channels [BLOCK_C] of pixels [P]: [P, BLOCK_C].

    VECTOR says how it lies in memory. 0: strides in elements. v > 0: channels-last, strides of n, z, y and x
    in vectors of v elements. The compiler sees only whether an integer argument is a multiple of 16; counting
    in vectors tells it that rows and pixels of 4, 8, 12 or 24 channels are aligned too.

    ONE_BY_ONE, not channels-last: neighbouring pixels are left to neighbouring threads. Else a thread takes
    several of them, and their values change hands in shared memory on the way to where images are read.
    """
    pointer, strides = tensor
    pixel = n * strides[0] + y.to(INDEX) * strides[3] + x.to(INDEX) * strides[4]
    if AXES == 3:
        pixel += z.to(INDEX) * strides[2]
    if VECTOR > 1:
        pixel *= VECTOR
    if VECTOR == 0:
        channel = channel * strides[1]
        if ONE_BY_ONE:
            pixel = tl.max_contiguous(pixel, 1)
    return pointer + pixel[:, None] + channel[None, :]
