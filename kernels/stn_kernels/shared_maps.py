"""Coordinate maps of which all transforms share a part: thin plate splines and bases. The interface is that
of `coordinate_maps.py`.
"""

import triton
import triton.language as tl
from triton.language import constexpr

from .coordinate_maps import entry, linear, linear_vjp, place, ratio
from .pixel_maps import pixel_pointer


@triton.jit
def difference(shared, k, target, extents, COMPUTE: constexpr):
    """From control point k to the target's pixels in normalised coordinates, x and y, and the squared length
    of that; 1 in place of 0, where r^2 log r is 0 as well."""
    pointer, _, strides = shared
    positions, _, _ = target
    _, to = extents
    point = pointer + k * strides[0]
    x = ratio(positions[0], to[0], COMPUTE) - tl.load(point).to(COMPUTE)
    y = ratio(positions[1], to[1], COMPUTE) - tl.load(point + strides[1]).to(COMPUTE)
    squared = x * x + y * y
    return x, y, tl.where(squared > 0.0, squared, 1.0)


@triton.jit
def tps(parameters, shared, target, extents, AXES: constexpr, COMPUTE: constexpr):
    """A thin plate spline: weights (2, K + 3), of r^2 log r around control points (K, 2), then of x, y, 1."""
    count = shared[1]
    source = extents[0]
    bend_x = target[0][0] * 0.0
    bend_y = target[0][0] * 0.0
    for k in range(count):
        _, _, squared = difference(shared, k, target, extents, COMPUTE)
        radial = 0.5 * squared * tl.log(squared)
        bend_x += entry(parameters, 0, k, COMPUTE) * radial
        bend_y += entry(parameters, 1, k, COMPUTE) * radial
    x = linear(parameters, 0, count, source[0], target, extents, AXES, COMPUTE) + bend_x * source[0]
    y = linear(parameters, 1, count, source[1], target, extents, AXES, COMPUTE) + bend_y * source[1]
    return x, y, y


@triton.jit
def tps_vjp(
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
    """The weights' sums, (2, K + 3), then the control points', (K, 2)."""
    count = shared[1]
    second = count + 3  # where the weights of y begin
    source, _ = extents
    sums = linear_vjp(grad[0], lane, count, source[0], target, extents, AXES, COMPUTE)
    sums += linear_vjp(grad[1], lane, second + count, source[1], target, extents, AXES, COMPUTE)
    for k in range(count):
        x, y, squared = difference(shared, k, target, extents, COMPUTE)
        log = tl.log(squared)
        radial = 0.5 * squared * log
        sums += place(lane, k, tl.sum(grad[0] * radial) * source[0])
        sums += place(lane, second + k, tl.sum(grad[1] * radial) * source[1])
        if NEED_SHARED:  # the gradient of r^2 log r at p - c is (log r^2 + 1) (p - c), and 0 at 0
            pull = grad[0] * (entry(parameters, 0, k, COMPUTE) * source[0])
            pull += grad[1] * (entry(parameters, 1, k, COMPUTE) * source[1])
            pull *= log + 1.0
            sums += place(lane, 2 * (second + k), tl.sum(-pull * x))
            sums += place(lane, 2 * (second + k) + 1, tl.sum(-pull * y))
    return sums


@triton.jit
def plane_offset(b, strides):
    """From the first plane of a basis to plane b, in 64 bits: several planes may be larger than 32 reach."""
    return tl.cast(b, tl.int64) * strides[0]


@triton.jit
def basis(parameters, shared, target, extents, AXES: constexpr, COMPUTE: constexpr):
    """T = M B: coefficients (axes, B) of planes (B, H', W') of normalised coordinates."""
    pointer, count, strides = shared
    positions, index, inside = target
    pixels = pixel_pointer((pointer, strides), index, 1, AXES)
    x = positions[0] * 0.0
    y = x
    z = x
    for b in range(count):
        plane = tl.load(pixels + plane_offset(b, strides), mask=inside, other=0.0).to(COMPUTE)
        x += entry(parameters, 0, b, COMPUTE) * plane
        y += entry(parameters, 1, b, COMPUTE) * plane
        if AXES == 3:
            z += entry(parameters, 2, b, COMPUTE) * plane
    source, _ = extents
    return x * source[0], y * source[1], z * source[2]


@triton.jit
def residual_basis(parameters, shared, target, extents, AXES: constexpr, COMPUTE: constexpr):
    """The identity, stretched from the output's size to the input's, plus M B. Its gradients are those of
    `basis`."""
    x, y, z = basis(parameters, shared, target, extents, AXES, COMPUTE)
    positions, _, _ = target
    source, to = extents
    x += positions[0] * ratio(source[0], to[0], COMPUTE)
    y += positions[1] * ratio(source[1], to[1], COMPUTE)
    z += positions[2] * ratio(source[2], to[2], COMPUTE)
    return x, y, z


@triton.jit
def basis_vjp(
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
    """The coefficients' sums, (axes, B)."""
    pointer, count, strides = shared
    _, index, inside = target
    source, _ = extents
    pixels = pixel_pointer((pointer, strides), index, 1, AXES)
    sums = lane.to(COMPUTE) * 0.0
    for b in range(count):
        plane = tl.load(pixels + plane_offset(b, strides), mask=inside, other=0.0).to(COMPUTE)
        sums += place(lane, b, tl.sum(grad[0] * plane) * source[0])
        sums += place(lane, count + b, tl.sum(grad[1] * plane) * source[1])
        if AXES == 3:
            sums += place(lane, 2 * count + b, tl.sum(grad[2] * plane) * source[2])
    return sums


@triton.jit
def basis_shared_vjp(
    grad, gradient, parameters, shared, target, extents, AXES: constexpr, COMPUTE: constexpr
):
    """What one transform adds to the gradient of the basis, (B, H', W')."""
    _, index, inside = target
    source, _ = extents
    pixels = pixel_pointer(gradient, index, 1, AXES)
    for b in range(shared[1]):
        change = grad[0] * (entry(parameters, 0, b, COMPUTE) * source[0])
        change += grad[1] * (entry(parameters, 1, b, COMPUTE) * source[1])
        if AXES == 3:
            change += grad[2] * (entry(parameters, 2, b, COMPUTE) * source[2])
        plane = pixels + plane_offset(b, gradient[1])
        tl.store(plane, tl.load(plane, mask=inside, other=0.0) + change, mask=inside)
