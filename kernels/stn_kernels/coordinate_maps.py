"""Coordinate maps: where in the input each output pixel is sampled, and the way back for gradients.

A map is a pair of `@triton.jit` functions, and a twin in `reference.py`:

    map(parameters, shared, target, extents, AXES, COMPUTE)
        -> offsets (x, y, z): source pixels relative to the centre of the input, one per output pixel

    parameters      (pointer, strides) of one transform's parameters
    shared          (pointer, length, strides) of what all transforms share; length is its first dimension
    target          of the output pixels of a tile, blocks [P]: their positions (x, y, z) in pixels from the
                    centre of the output, their indices (x, y, z), and which of them exist
    extents         of the input and of the output: pixels (x, y, z) from the centre to the coordinate 1
    AXES, COMPUTE   2 or 3; tl.float32 or tl.float64, in which coordinates are computed

In 2-D the z of a target is 0 and the z of offsets is not looked at. Antialiased, map and vector-Jacobian
product are also called for targets around those of the tile: neighbouring pixels, or for the maps in
`reference.BETWEEN_PIXELS` positions half a pixel away. The vector-Jacobian product receives
dL/d(offset), (x, y, z) blocks [P], zero at pixels that do not exist. Parameters of a transform are summed
over its pixels, and

    map_vjp(grad, lane, parameters, shared, target, extents, NEED_SHARED, AXES, COMPUTE) -> sums, one per lane

returns a row of sums: entry i of the row is dL/d(parameter i), counted in row-major order. If NEED_SHARED,
the gradient of `shared` follows in the same row. `launch_backward.py` adds up the rows of all programs in a
fixed order: no atomics, and the same bits on every run. Maps with parameters for each pixel have instead

    map_vjp(grad, gradient, target, extents, AXES, COMPUTE)

which stores them at `gradient`, (pointer, strides). What all transforms share but belongs to pixels (a basis)
is added to, one transform after another, by

    map_shared_vjp(grad, gradient, parameters, shared, target, extents, AXES, COMPUTE)

This file holds what every map may use, and the maps of matrices. `reference.py` says why coordinates are
relative to the centre.
"""

import triton
import triton.language as tl
from triton.language import constexpr


@triton.jit
def divide(numerator, denominator, COMPUTE: constexpr):
    """Correctly rounded, so that x / x is 1 on every device."""
    if COMPUTE == tl.float64:
        quotient = numerator / denominator
    else:
        quotient = tl.div_rn(numerator, denominator)
    return quotient


@triton.jit
def ratio(numerator, denominator, COMPUTE: constexpr):
    """numerator / denominator, and 0 where the denominator is: the half extent of a single pixel."""
    quotient = divide(numerator, tl.where(denominator == 0, 1.0, denominator), COMPUTE)
    return tl.where(denominator == 0, 0.0, quotient)


@triton.jit
def entry(parameters, row, column, COMPUTE: constexpr):
    """One number of a matrix of parameters."""
    pointer, strides = parameters
    return tl.load(pointer + row * strides[0] + column * strides[1]).to(COMPUTE)


@triton.jit
def place(lane, index, value):
    """`value` in one lane of a row of sums, and zeros."""
    return tl.where(lane == index, value, 0.0)


@triton.jit
def linear(parameters, row, column, source, target, extents, AXES: constexpr, COMPUTE: constexpr):
    """`source` times one row of Eq. 1, which begins at a column of the parameters; its constant is last.

    Multiplications and additions are fused by name: left to the compiler, forward and backward kernels could
    round otherwise, and disagree on which pixel is the nearest."""
    positions, _, _ = target
    _, to = extents
    total = entry(parameters, row, column + AXES, COMPUTE) * source
    if AXES == 3:
        slope = entry(parameters, row, column + 2, COMPUTE) * ratio(source, to[2], COMPUTE)
        total = tl.fma(slope, positions[2], total)
    slope = entry(parameters, row, column + 1, COMPUTE) * ratio(source, to[1], COMPUTE)
    total = tl.fma(slope, positions[1], total)
    slope = entry(parameters, row, column, COMPUTE) * ratio(source, to[0], COMPUTE)
    return tl.fma(slope, positions[0], total)


@triton.jit
def linear_vjp(grad, lane, first, source, target, extents, AXES: constexpr, COMPUTE: constexpr):
    """The sums for the numbers of that row, from lane `first` on."""
    positions, _, _ = target
    _, to = extents
    sums = place(lane, first, tl.sum(grad * positions[0]) * ratio(source, to[0], COMPUTE))
    sums += place(lane, first + 1, tl.sum(grad * positions[1]) * ratio(source, to[1], COMPUTE))
    if AXES == 3:
        sums += place(lane, first + 2, tl.sum(grad * positions[2]) * ratio(source, to[2], COMPUTE))
    return sums + place(lane, first + AXES, tl.sum(grad) * source)


@triton.jit
def affine(parameters, shared, target, extents, AXES: constexpr, COMPUTE: constexpr):
    """Eq. 1: theta (2, 3), in 3-D (3, 4)."""
    source, _ = extents
    x = linear(parameters, 0, 0, source[0], target, extents, AXES, COMPUTE)
    y = linear(parameters, 1, 0, source[1], target, extents, AXES, COMPUTE)
    z = y
    if AXES == 3:
        z = linear(parameters, 2, 0, source[2], target, extents, AXES, COMPUTE)
    return x, y, z


@triton.jit
def affine_vjp(
    grad,
    lane,
    parameters,
    shared,
    target,
    extents,
    NEED_SHARED: constexpr,
    AXES: constexpr,
    COMPUTE: constexpr,
):
    """dL/dA = sum over pixels of dL/d(offset) times (x, y, 1) of the target."""
    source, _ = extents
    sums = linear_vjp(grad[0], lane, 0, source[0], target, extents, AXES, COMPUTE)
    sums += linear_vjp(grad[1], lane, AXES + 1, source[1], target, extents, AXES, COMPUTE)
    if AXES == 3:
        sums += linear_vjp(grad[2], lane, 8, source[2], target, extents, AXES, COMPUTE)
    return sums


@triton.jit
def projective(parameters, shared, target, extents, AXES: constexpr, COMPUTE: constexpr):
    """Eq. 1 in homogeneous coordinates, divided by the last row: theta (3, 3), in 3-D (4, 4)."""
    x, y, z = affine(parameters, shared, target, extents, AXES, COMPUTE)
    w = linear(parameters, AXES, 0, 1.0, target, extents, AXES, COMPUTE)
    return divide(x, w, COMPUTE), divide(y, w, COMPUTE), divide(z, w, COMPUTE)


@triton.jit
def quotient_vjp(grad, offset, w):
    """Gradients of numerator and denominator of offset = numerator / w. Where no gradient arrives none is
    handed on, even if w is zero."""
    numerator = tl.where(grad == 0, 0.0, grad / w)
    return numerator, tl.where(numerator == 0, 0.0, -numerator * offset)


@triton.jit
def projective_vjp(
    grad,
    lane,
    parameters,
    shared,
    target,
    extents,
    NEED_SHARED: constexpr,
    AXES: constexpr,
    COMPUTE: constexpr,
):
    """As `affine_vjp`, through the quotient."""
    x, y, z = projective(parameters, shared, target, extents, AXES, COMPUTE)
    w = linear(parameters, AXES, 0, 1.0, target, extents, AXES, COMPUTE)
    grad_x, grad_w = quotient_vjp(grad[0], x, w)
    grad_y, grad_w_of_y = quotient_vjp(grad[1], y, w)
    grad_w += grad_w_of_y
    grad_z = grad_y
    if AXES == 3:
        grad_z, grad_w_of_z = quotient_vjp(grad[2], z, w)
        grad_w += grad_w_of_z
    grads = (grad_x, grad_y, grad_z)
    sums = affine_vjp(grads, lane, parameters, shared, target, extents, NEED_SHARED, AXES, COMPUTE)
    return sums + linear_vjp(grad_w, lane, AXES * (AXES + 1), 1.0, target, extents, AXES, COMPUTE)
