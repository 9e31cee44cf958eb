"""Coordinate maps with parameters for each output pixel: grids and displacements. The interface is that of
`coordinate_maps.py`.
"""

import triton
import triton.language as tl
from triton.language import constexpr

from .coordinate_maps import ratio


@triton.jit
def pixel_pointer(tensor, index, FIRST: constexpr, AXES: constexpr):
    """Where a tensor (..., [D,] H, W, ...) keeps pixels; its dimension FIRST is D or H."""
    pointer, strides = tensor
    pointer += index[1] * strides[FIRST + AXES - 2] + index[0] * strides[FIRST + AXES - 1]
    if AXES == 3:
        pointer += index[2] * strides[FIRST]
    return pointer


@triton.jit
def load_vectors(pointer, stride, inside, INTERLEAVED: constexpr, AXES: constexpr, COMPUTE: constexpr):
    """Two or three numbers for each pixel, which are neighbours if INTERLEAVED."""
    if AXES == 2 and INTERLEAVED:
        both = pointer[:, None] + tl.arange(0, 2)[None, :] * stride
        x, y = tl.split(tl.load(both, mask=inside[:, None], other=0.0).to(COMPUTE))
    else:
        x = tl.load(pointer, mask=inside, other=0.0).to(COMPUTE)
        y = tl.load(pointer + stride, mask=inside, other=0.0).to(COMPUTE)
    z = y
    if AXES == 3:
        z = tl.load(pointer + stride + stride, mask=inside, other=0.0).to(COMPUTE)
    return x, y, z


@triton.jit
def store_vectors(pointer, stride, x, y, z, inside, INTERLEAVED: constexpr, AXES: constexpr):
    """The inverse of `load_vectors`."""
    if AXES == 2 and INTERLEAVED:
        both = pointer[:, None] + tl.arange(0, 2)[None, :] * stride
        tl.store(both, tl.join(x, y), mask=inside[:, None])
    else:
        tl.store(pointer, x, mask=inside)
        tl.store(pointer + stride, y, mask=inside)
        if AXES == 3:
            tl.store(pointer + stride + stride, z, mask=inside)


@triton.jit
def grid(parameters, shared, target, extents, AXES: constexpr, COMPUTE: constexpr):
    """A sampling grid (H', W', 2) of normalised coordinates, in 3-D (D', H', W', 3)."""
    _, index, inside = target
    pointer = pixel_pointer(parameters, index, 0, AXES)
    x, y, z = load_vectors(pointer, parameters[1][AXES], inside, True, AXES, COMPUTE)
    source, _ = extents
    return x * source[0], y * source[1], z * source[2]


@triton.jit
def grid_vjp(grad, gradient, target, extents, AXES: constexpr, COMPUTE: constexpr):
    """The chain rule through the scaling."""
    _, index, inside = target
    source, _ = extents
    x, y, z = grad[0] * source[0], grad[1] * source[1], grad[2] * source[2]
    pointer = pixel_pointer(gradient, index, 0, AXES)
    store_vectors(pointer, gradient[1][AXES], x, y, z, inside, True, AXES)


@triton.jit
def displaced(parameters, target, extents, NORMALISED: constexpr, AXES: constexpr, COMPUTE: constexpr):
    """The identity, stretched from the output's size to the input's, plus a displacement."""
    positions, index, inside = target
    source, to = extents
    x = positions[0] * ratio(source[0], to[0], COMPUTE)
    y = positions[1] * ratio(source[1], to[1], COMPUTE)
    z = positions[2] * ratio(source[2], to[2], COMPUTE)
    pointer = pixel_pointer(parameters, index, 1, AXES)
    by_x, by_y, by_z = load_vectors(pointer, parameters[1][0], inside, False, AXES, COMPUTE)
    if NORMALISED:
        by_x, by_y, by_z = by_x * source[0], by_y * source[1], by_z * source[2]
    return x + by_x, y + by_y, z + by_z


@triton.jit
def displacement(parameters, shared, target, extents, AXES: constexpr, COMPUTE: constexpr):
    """The identity plus a displacement (2, H', W') in pixels of the input, in 3-D (3, D', H', W')."""
    return displaced(parameters, target, extents, False, AXES, COMPUTE)


@triton.jit
def displacement_vjp(grad, gradient, target, extents, AXES: constexpr, COMPUTE: constexpr):
    """A displacement in pixels is in the offset's own unit."""
    _, index, inside = target
    pointer = pixel_pointer(gradient, index, 1, AXES)
    store_vectors(pointer, gradient[1][0], grad[0], grad[1], grad[2], inside, False, AXES)


@triton.jit
def normalised_displacement(parameters, shared, target, extents, AXES: constexpr, COMPUTE: constexpr):
    """The same with a displacement in normalised coordinates."""
    return displaced(parameters, target, extents, True, AXES, COMPUTE)


@triton.jit
def normalised_displacement_vjp(grad, gradient, target, extents, AXES: constexpr, COMPUTE: constexpr):
    """The chain rule through the scaling."""
    source, _ = extents
    scaled = (grad[0] * source[0], grad[1] * source[1], grad[2] * source[2])
    displacement_vjp(scaled, gradient, target, extents, AXES, COMPUTE)
