"""Footprints' gradients to parameters that belong to output pixels: grids, displacements, bases.

Such a pixel's parameters place its own samples, and the columns of its neighbours' footprints. The scatter
template stores dL/d(place) and dL/d(columns) of each pixel, as offsets; here each pixel collects from its
neighbours what belongs to it, and its coordinate map's vjp stores the result. Nothing is added up in another
order on another run.
"""

import triton
import triton.language as tl
from triton.language import constexpr

from .pixel_maps import pixel_pointer
from .template import half_extents, target_points, tile_pixels


@triton.jit
def store_planes(gradient, index, inside, PART: constexpr, vector, AXES: constexpr):
    """Stores one of the parts of a footprint's gradient: place, then the columns along x, y and z.
    `gradient`: (pointer, strides) of planes (AXES (1 + AXES), [D',] H', W')."""
    stride = gradient[1][0]
    pointer = pixel_pointer(gradient, index, 1, AXES) + PART * AXES * stride
    tl.store(pointer, vector[0], mask=inside)
    tl.store(pointer + stride, vector[1], mask=inside)
    if AXES == 3:
        tl.store(pointer + 2 * stride, vector[2], mask=inside)


@triton.jit
def load_planes(gradient, index, mask, PART: constexpr, AXES: constexpr):
    """The inverse; zero where the mask does not hold."""
    stride = gradient[1][0]
    pointer = pixel_pointer(gradient, index, 1, AXES) + PART * AXES * stride
    x = tl.load(pointer, mask=mask, other=0.0)
    y = tl.load(pointer + stride, mask=mask, other=0.0)
    z = y
    if AXES == 3:
        z = tl.load(pointer + 2 * stride, mask=mask, other=0.0)
    return x, y, z


@triton.jit
def plus(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@triton.jit
def minus(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@triton.jit
def add_neighbours(total, gradient, pixel, inside, size, AXIS: constexpr, AXES: constexpr):
    """Adds the columns along one axis for which a pixel is the one ahead, and takes away those for which it
    is the one behind. At the border it is so for itself."""
    x, y, z = pixel
    along, length = pixel[AXIS], size[2 - AXIS]
    back, on = (x - 1, y, z), (x + 1, y, z)
    if AXIS == 1:
        back, on = (x, y - 1, z), (x, y + 1, z)
    if AXIS == 2:
        back, on = (x, y, z - 1), (x, y, z + 1)
    first, last = along == 0, along == length - 1
    total = plus(total, load_planes(gradient, back, inside & ~first, 1 + AXIS, AXES))
    total = plus(total, load_planes(gradient, pixel, inside & last, 1 + AXIS, AXES))
    total = minus(total, load_planes(gradient, on, inside & ~last, 1 + AXIS, AXES))
    return minus(total, load_planes(gradient, pixel, inside & first, 1 + AXIS, AXES))


@triton.jit
def collect_kernel(
    grad_parameters,  # as parameters, of dtype COMPUTE: pointer, stride of M, strides of one transform's
    grad_shared,  # as shared, of dtype COMPUTE: pointer, strides; written if RUNS_OVER_TRANSFORMS
    gradients,  # of footprints, (M, AXES (1 + AXES), [D',] H', W'): pointer, stride of M, strides
    parameters,  # the coordinate map's, (M, ...): pointer, stride of M, strides of one transform's
    shared,  # the coordinate map's, for all transforms: pointer, length, strides
    sizes,  # (D, H, W), (D', H', W')
    tiles,  # of an output
    tiles_x,  # in a row of tiles
    run_length,  # transforms of a program: one, or if RUNS_OVER_TRANSFORMS all
    COORDINATE_MAP_VJP: constexpr,
    SHARED_VJP: constexpr,
    RUNS_OVER_TRANSFORMS: constexpr,  # for the gradient of shared
    ALIGN_CORNERS: constexpr,
    AXES: constexpr,
    TILE_Y: constexpr,
    TILE_X: constexpr,
    INDEX: constexpr,
    COMPUTE: constexpr,
):
    program = tl.program_id(0)
    tile = program % tiles
    m = (program // tiles).to(INDEX)
    output_size = sizes[1]
    extents = half_extents(sizes, ALIGN_CORNERS, COMPUTE)
    pixel, inside = tile_pixels(tile, tiles_x, output_size, TILE_Y, TILE_X, AXES, INDEX)  # [P]
    target = target_points(pixel, inside, output_size, COMPUTE)
    for _ in range(run_length):
        own_gradients = (gradients[0] + m * gradients[1], gradients[2])
        grads = load_planes(own_gradients, pixel, inside, 0, AXES)
        grads = add_neighbours(grads, own_gradients, pixel, inside, output_size, 0, AXES)
        grads = add_neighbours(grads, own_gradients, pixel, inside, output_size, 1, AXES)
        if AXES == 3:
            grads = add_neighbours(grads, own_gradients, pixel, inside, output_size, 2, AXES)
        if RUNS_OVER_TRANSFORMS:
            own = (parameters[0] + m * parameters[1], parameters[2])
            SHARED_VJP(grads, grad_shared, own, shared, target, extents, AXES, COMPUTE)
            tl.debug_barrier()  # the next transform adds to what was stored
        else:
            gradient = (grad_parameters[0] + m * grad_parameters[1], grad_parameters[2])
            COORDINATE_MAP_VJP(grads, gradient, target, extents, AXES, COMPUTE)
        m += 1
