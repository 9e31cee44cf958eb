"""Coordinate maps: where in the input each output pixel is sampled, and the way back for gradients.

A map is a pair of `@triton.jit` functions, and a twin in `reference.py`:

    map(parameters_ptr, strides, n, row, column, inside, input_size, output_size, ALIGN_CORNERS, COMPUTE)
        -> offset_x, offset_y: source pixels relative to the centre of the input, one per output pixel
    map_vjp(grad_parameters_ptr, n, tile, tiles, row, column, inside, grad_x, grad_y, input_size, output_size,
            ALIGN_CORNERS, COMPUTE)
        receives dL/d(offset) for a tile of output pixels and stores its share of dL/d(parameters)

Sizes are (height, width); row, column and inside are blocks [P], the pixels of one tile, of which `inside`
are in the output. `reference.py` says why coordinates are relative to the centre.

A map whose parameters belong to a sample rather than to a pixel (theta) stores one row of partial sums per
tile; `launch.py` adds the rows in a fixed order. That needs no atomics and gives the same bits on every run.
"""

import triton
import triton.language as tl


@triton.jit
def half_extent(size, ALIGN_CORNERS: tl.constexpr, COMPUTE: tl.constexpr):
    """Pixels from the centre of the image to the coordinate 1."""
    if ALIGN_CORNERS:
        extent = tl.cast(size - 1, COMPUTE) * 0.5
    else:
        extent = tl.cast(size, COMPUTE) * 0.5
    return extent


@triton.jit
def centre(size, COMPUTE: tl.constexpr):
    """Pixel coordinate of the centre of the image."""
    return tl.cast(size - 1, COMPUTE) * 0.5


@triton.jit
def ratio(numerator, denominator, COMPUTE: tl.constexpr):
    """numerator / denominator, correctly rounded (so x / x is 1), and 0 where the denominator is."""
    divisor = tl.where(denominator == 0, 1.0, denominator)
    if COMPUTE == tl.float64:
        quotient = numerator / divisor
    else:
        quotient = tl.div_rn(numerator, divisor)
    return tl.where(denominator == 0, 0.0, quotient)


@triton.jit
def affine_scales(input_size, output_size, ALIGN_CORNERS: tl.constexpr, COMPUTE: tl.constexpr):
    """What turns theta's six numbers into pixels: (x <- x), (x <- y), x; (y <- x), (y <- y), y."""
    source_x = half_extent(input_size[1], ALIGN_CORNERS, COMPUTE)
    source_y = half_extent(input_size[0], ALIGN_CORNERS, COMPUTE)
    target_x = half_extent(output_size[1], ALIGN_CORNERS, COMPUTE)
    target_y = half_extent(output_size[0], ALIGN_CORNERS, COMPUTE)
    return (
        ratio(source_x, target_x, COMPUTE),
        ratio(source_x, target_y, COMPUTE),
        source_x,
        ratio(source_y, target_x, COMPUTE),
        ratio(source_y, target_y, COMPUTE),
        source_y,
    )


@triton.jit
def affine(
    parameters_ptr,
    strides,
    n,
    row,
    column,
    inside,
    input_size,
    output_size,
    ALIGN_CORNERS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Eq. 1 with theta (N, 2, 3)."""
    xx, xy, x, yx, yy, y = affine_scales(input_size, output_size, ALIGN_CORNERS, COMPUTE)
    first = parameters_ptr + n * strides[0]
    second = first + strides[1]
    t11 = tl.load(first).to(COMPUTE)
    t12 = tl.load(first + strides[2]).to(COMPUTE)
    t13 = tl.load(first + 2 * strides[2]).to(COMPUTE)
    t21 = tl.load(second).to(COMPUTE)
    t22 = tl.load(second + strides[2]).to(COMPUTE)
    t23 = tl.load(second + 2 * strides[2]).to(COMPUTE)

    target_x = column.to(COMPUTE) - centre(output_size[1], COMPUTE)
    target_y = row.to(COMPUTE) - centre(output_size[0], COMPUTE)
    offset_x = t11 * xx * target_x + (t12 * xy * target_y + t13 * x)
    offset_y = t21 * yx * target_x + (t22 * yy * target_y + t23 * y)
    return offset_x, offset_y


@triton.jit
def affine_vjp(
    grad_parameters_ptr,
    n,
    tile,
    tiles,
    row,
    column,
    inside,
    grad_x,
    grad_y,
    input_size,
    output_size,
    ALIGN_CORNERS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """dL/dA = sum over pixels of dL/d(offset) times (x, y, 1) of the target: partial sums, (N, tiles, 6)."""
    xx, xy, x, yx, yy, y = affine_scales(input_size, output_size, ALIGN_CORNERS, COMPUTE)
    target_x = column.to(COMPUTE) - centre(output_size[1], COMPUTE)
    target_y = row.to(COMPUTE) - centre(output_size[0], COMPUTE)
    partial = grad_parameters_ptr + (n * tiles + tile) * 6
    tl.store(partial, tl.sum(grad_x * target_x) * xx)
    tl.store(partial + 1, tl.sum(grad_x * target_y) * xy)
    tl.store(partial + 2, tl.sum(grad_x) * x)
    tl.store(partial + 3, tl.sum(grad_y * target_x) * yx)
    tl.store(partial + 4, tl.sum(grad_y * target_y) * yy)
    tl.store(partial + 5, tl.sum(grad_y) * y)


@triton.jit
def grid(
    parameters_ptr,
    strides,
    n,
    row,
    column,
    inside,
    input_size,
    output_size,
    ALIGN_CORNERS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """A sampling grid (N, H', W', 2) of normalised coordinates, read pixel by pixel."""
    point = parameters_ptr + n * strides[0] + row * strides[1] + column * strides[2]
    both = point[:, None] + tl.arange(0, 2)[None, :] * strides[3]
    x, y = tl.split(tl.load(both, mask=inside[:, None], other=0.0).to(COMPUTE))
    offset_x = x * half_extent(input_size[1], ALIGN_CORNERS, COMPUTE)
    offset_y = y * half_extent(input_size[0], ALIGN_CORNERS, COMPUTE)
    return offset_x, offset_y


@triton.jit
def grid_vjp(
    grad_parameters_ptr,
    n,
    tile,
    tiles,
    row,
    column,
    inside,
    grad_x,
    grad_y,
    input_size,
    output_size,
    ALIGN_CORNERS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """The chain rule through the scaling: (N, H', W', 2), contiguous, one pair per pixel."""
    grad_x *= half_extent(input_size[1], ALIGN_CORNERS, COMPUTE)
    grad_y *= half_extent(input_size[0], ALIGN_CORNERS, COMPUTE)
    point = grad_parameters_ptr + ((n * output_size[0] + row) * output_size[1] + column) * 2
    tl.store(point[:, None] + tl.arange(0, 2)[None, :], tl.join(grad_x, grad_y), mask=inside[:, None])
