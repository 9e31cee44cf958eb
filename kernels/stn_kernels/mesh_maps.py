"""The coordinate map of a triangulated mesh: affine in each triangle. The interface is that of
`coordinate_maps.py`.
"""

import triton
import triton.language as tl
from triton.language import constexpr

from .coordinate_maps import linear_vjp, ratio


@triton.jit
def triangle_of(shared, target, extents, COMPUTE: constexpr):
    """The triangle of each pixel of a tile: the one whose smallest barycentric coordinate is largest. Inside
    the mesh it is the one that the pixel lies in, and outside one of the nearest."""
    pointer, count, strides = shared
    positions, _, _ = target
    _, to = extents
    x = ratio(positions[0], to[0], COMPUTE)
    y = ratio(positions[1], to[1], COMPUTE)
    highest = x * 0.0 - float("inf")
    index = (x * 0.0).to(tl.int32)
    for t in range(count):
        lowest = x * 0.0 + float("inf")
        for i in tl.static_range(3):
            row = pointer + t * strides[0] + i * strides[1]
            by_x, by_y = tl.load(row).to(COMPUTE), tl.load(row + strides[2]).to(COMPUTE)
            barycentric = by_x * x + by_y * y + tl.load(row + 2 * strides[2]).to(COMPUTE)
            lowest = tl.minimum(lowest, barycentric)
        nearer = lowest > highest
        highest = tl.where(nearer, lowest, highest)
        index = tl.where(nearer, t, index)
    return index


@triton.jit
def row_of_own(parameters, index, row, source, target, extents, COMPUTE: constexpr):
    """`source` times one row of Eq. 1, of each pixel's own triangle."""
    pointer, strides = parameters
    positions, _, _ = target
    _, to = extents
    own = pointer + index * strides[0] + row * strides[1]
    total = tl.load(own + 2 * strides[2]).to(COMPUTE) * source
    by_y = tl.load(own + strides[2]).to(COMPUTE)
    total = by_y * ratio(source, to[1], COMPUTE) * positions[1] + total
    return tl.load(own).to(COMPUTE) * ratio(source, to[0], COMPUTE) * positions[0] + total


@triton.jit
def mesh(parameters, shared, target, extents, AXES: constexpr, COMPUTE: constexpr):
    """An affine map for each triangle, (T, 2, 3). Shared are the triangles, (T, 3, 3): what times (x, y, 1)
    of the target, normalised, gives the three barycentric coordinates."""
    index = triangle_of(shared, target, extents, COMPUTE)
    source, _ = extents
    x = row_of_own(parameters, index, 0, source[0], target, extents, COMPUTE)
    y = row_of_own(parameters, index, 1, source[1], target, extents, COMPUTE)
    return x, y, y


@triton.jit
def mesh_vjp(
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
    """The triangles' sums, (T, 2, 3). Which triangle a pixel lies in has no gradient, so the triangles'
    edges, (T, 3, 3), have zeros."""
    index = triangle_of(shared, target, extents, COMPUTE)
    source, _ = extents
    sums = lane.to(COMPUTE) * 0.0
    for t in range(shared[1]):
        own = index == t
        sums += linear_vjp(tl.where(own, grad[0], 0.0), lane, 6 * t, source[0], target, extents, 2, COMPUTE)
        sums += linear_vjp(
            tl.where(own, grad[1], 0.0), lane, 6 * t + 3, source[1], target, extents, 2, COMPUTE
        )
    return sums
