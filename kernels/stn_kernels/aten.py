"""The CPU path: what ATen already computes, composed so that it costs less than the usual two calls.

`torch.nn.functional.affine_grid` lays out a (N, H, W, 3) base grid on every call and writes x and y
interleaved. Here the base grid is kept, it is shared by the batch, and one matrix product writes x and y as
separate planes, which ATen's sampler reads with plain vector loads. Values differ from `reference.py` by
rounding only.

ATen's CPU sampler reads outside the image on some non-finite coordinates, so they are looked at first, see
`is_safe`; or afterwards, where it is known to do no harm and that costs less, see `shows_unsafe`.
"""

import functools
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from . import reference
from .antialiasing import samples
from .autograd import Choices, Gradients, Tensors, gradients, present, restored, sample_reference
from .reference import Size, half_extents, mesh_triangles, normalised_pixels, per_pixel, radial

MODES = {"bilinear": 0, "nearest": 1, "bicubic": 2}
PADDING_MODES = {"zeros": 0, "border": 1, "reflection": 2}
# Far beyond any image, and far below where a coordinate times a size would overflow float32 or an integer.
SAFE_COORDINATE = 1e6
LARGEST_CACHED = 2**18  # pixels: 16 grids of 3 MB in float32
LARGEST_CACHED_PLANES = 2**22  # numbers: 4 splines of 16 MB in float32


def is_safe(numbers: Tensor) -> bool:
    """Whether every theta or grid value is finite and moderate; synchronises, so the CPU only."""
    flat = numbers.detach()
    if not flat.is_contiguous() and flat.ndim > 3:
        flat = flat.movedim(-1, 1)  # as `sampling_grid` lays planes out
    flat = flat.reshape(-1)
    # Squares take a twentieth of the largest magnitude's time, and bound it. They propagate NaN, with which a
    # comparison is false.
    if float(flat @ flat) <= SAFE_COORDINATE**2:
        return True
    return float(torch.linalg.vector_norm(flat, torch.inf)) <= SAFE_COORDINATE


def shows_unsafe(choices: Choices, input: Tensor) -> bool:
    """Whether ATen takes any coordinate without harm and gives NaN for those that it gets wrong. With
    bilinear taps and zeros padding it masks every tap by its position, and a coordinate that is not finite,
    or no longer is in pixels, has weights of NaN, which times a masked zero is NaN."""
    return choices.mode == "bilinear" and choices.padding_mode == "zeros" and input.ndim == 4


@functools.cache
@torch.inference_mode(False)
@torch.enable_grad()
def differentiates_twice() -> bool:
    """Whether ATen's sampler has second derivatives, as in PyTorch 2.13 and not in 2.11: tried once."""
    image, grid = torch.zeros(1, 1, 2, 2, requires_grad=True), torch.zeros(1, 1, 1, 2, requires_grad=True)
    output = torch.grid_sampler(image, grid, 0, 0, False)
    try:
        (gradient,) = torch.autograd.grad(output.sum(), image, create_graph=True)
        torch.autograd.grad(gradient.square().sum(), grid)
    except RuntimeError:
        return False
    return True


def base_grid(size: Size, align_corners: bool, dtype: torch.dtype) -> Tensor:
    """The target grid G of Eq. 1 in homogeneous coordinates: rows x, y, 1 of every pixel, (3, H' W'); in 3-D
    x, y, z, 1."""
    build = cached_base_grid if math.prod(size) <= LARGEST_CACHED else build_base_grid
    return build(size, align_corners, dtype)


# Not an inference tensor even under torch.inference_mode: the cache outlives the call.
@torch.inference_mode(False)
def build_base_grid(size: Size, align_corners: bool, dtype: torch.dtype) -> Tensor:
    grid = torch.ones((len(size) + 1, *size), dtype=dtype, device="cpu")
    for plane, pixels in zip(grid, normalised_pixels(size, grid, align_corners), strict=False):
        plane[:] = pixels
    return grid.flatten(1)


cached_base_grid = functools.lru_cache(maxsize=16)(build_base_grid)


def spline_planes(points: Tensor, size: Size, align_corners: bool) -> Tensor:
    """What a thin plate spline is linear in: phi of the distance to each target point (K, 2), and the rows of
    `base_grid`; (K + 3, H' W'). As a rule the points stay the same, and their planes are kept."""
    if points.requires_grad or points.shape[0] * math.prod(size) > LARGEST_CACHED_PLANES:
        return build_spline_planes(points, size, align_corners)
    return cached_spline_planes(tuple(points.flatten().tolist()), size, align_corners, points.dtype)


def build_spline_planes(points: Tensor, size: Size, align_corners: bool) -> Tensor:
    base = base_grid(size, align_corners, points.dtype)
    squared = (base[:2] - points[..., None]).square().sum(1)  # (K, pixels)
    return torch.cat([radial(squared), base])


@functools.lru_cache(maxsize=4)
@torch.inference_mode(False)
def cached_spline_planes(
    coordinates: tuple[float, ...], size: Size, align_corners: bool, dtype: torch.dtype
) -> Tensor:
    points = torch.tensor(coordinates, dtype=dtype, device="cpu").view(-1, 2)
    return build_spline_planes(points, size, align_corners)


def full_precision_matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, also under autocast, which would compute coordinates in half precision."""
    if torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return a @ b
    return a @ b


def combine(rows: Tensor, planes: Tensor, images: int) -> Tensor:
    """Linear combinations (M, axes, K) of planes (K, pixels): (N, axes, transforms x pixels), so that
    the transforms of an image follow one another."""
    if rows.shape[0] == images:
        combined = full_precision_matmul(rows.reshape(-1, rows.shape[2]), planes)
        return combined.view(images, rows.shape[1], planes.shape[1])
    transforms = rows.shape[0] // max(images, 1)
    grouped = rows.unflatten(0, (images, transforms)).transpose(1, 2)
    combined = full_precision_matmul(grouped.reshape(-1, rows.shape[2]), planes)
    return combined.view(images, rows.shape[1], transforms * planes.shape[1])


def sampling_grid(tensors: Tensors, choices: Choices) -> Tensor | None:
    """Normalised coordinates as planes, x, y and z each contiguous, with an image's transforms stacked:
    (N, transforms x H', W', 2), or 3-D. Differentiable. None where there are none."""
    input, parameters, shared, _ = tensors
    size, map, align_corners = choices.size, choices.coordinate_map, choices.align_corners
    images, axes = input.shape[0], len(size)
    stacked = (parameters.shape[0] // max(images, 1) * size[0], *size[1:])
    if map == "grid":
        if parameters.shape[0] == images:
            return parameters
        return parameters.reshape(images, *stacked, axes)
    base = base_grid(size, align_corners, parameters.dtype)
    if map == "affine":
        planes = combine(parameters, base, images)
    elif map == "projective":
        homogeneous = combine(parameters, base, images)
        planes = homogeneous[:, :axes] / homogeneous[:, axes:]
    elif map == "basis" and shared is not None:
        planes = combine(parameters, shared.flatten(1), images)
    elif map == "residual_basis" and shared is not None:
        planes = combine(parameters, shared.flatten(1), images).unflatten(2, (-1, base.shape[1]))
        planes = (planes + base[:axes, None]).flatten(2)
    elif map == "mesh" and shared is not None:
        own = parameters.flatten(2)[:, mesh_triangles(shared.detach(), size, align_corners).flatten()]
        by_row = own.unflatten(2, (2, 3)).movedim(1, -1)  # (M, 2, 3, pixels)
        planes = (by_row * base).sum(2).unflatten(0, (images, -1)).transpose(1, 2).flatten(2)
    elif map == "tps" and shared is not None:
        planes = combine(parameters, spline_planes(shared, size, align_corners), images)
    elif map in ("displacement", "normalised_displacement"):
        displacement = parameters
        if map == "displacement":
            extents = half_extents(tuple(input.shape[2:]), align_corners)
            if 0 in extents:
                return None  # one pixel under align_corners=True: no normalised coordinate leaves it
            displacement = displacement / per_pixel(displacement.new_tensor(extents), axes)
        planes = displacement.unflatten(0, (images, -1)).transpose(1, 2).flatten(3) + base[:axes, None]
    else:
        return None
    return planes.reshape(images, axes, *stacked).movedim(1, -1)


def computes(tensors: Tensors, choices: Choices) -> bool:
    """Whether ATen's CPU sampler gives what the reference defines, coordinates apart. It computes
    half-precision ones in half precision."""
    input, parameters, shared, _ = tensors
    return (
        input.device.type == "cpu"
        and input.dtype in (torch.float32, torch.float64)
        and parameters.numel() > 0
        and parameters.dtype == input.dtype
        and (shared is None or shared.dtype == input.dtype)
        and choices.mode in MODES
        and choices.padding_mode in PADDING_MODES
        and not (choices.mode == "bicubic" and input.ndim == 5)
    )


def checked_grid(tensors: Tensors, choices: Choices) -> Tensor | None:
    """`sampling_grid`, where all of it is safe."""
    if choices.coordinate_map == "affine":  # theta is smaller than the grid, and bounds it
        return sampling_grid(tensors, choices) if is_safe(tensors[1]) else None
    grid = sampling_grid(tensors, choices)
    return grid if grid is not None and is_safe(grid) else None


def quick_backward(grid: Tensor, choices: Choices) -> Tensor:
    """The grid as ATen's backward pass is quickest with it: for nearest, planes would take twice as long."""
    return grid.contiguous() if choices.mode == "nearest" else grid


def sample(tensors: Tensors, choices: Choices) -> Tensor | None:
    """Sampling by ATen, differentiable where autograd watches. None where ATen does not compute it."""
    if not computes(tensors, choices):
        return None
    if choices.antialias:
        return sample_footprints(tensors, choices)
    input = tensors[0]
    # A channel is half as many numbers as its coordinates are, and tells of all of them.
    afterwards = choices.coordinate_map != "affine" and input.shape[1] > 0 and shows_unsafe(choices, input)
    grid = sampling_grid(tensors, choices) if afterwards else checked_grid(tensors, choices)
    if grid is None:
        return None
    if torch.is_grad_enabled() and input.requires_grad:
        grid = quick_backward(grid, choices)
    mode, padding = MODES[choices.mode], PADDING_MODES[choices.padding_mode]
    output = torch.grid_sampler(input, grid, mode, padding, choices.align_corners)
    if afterwards and not math.isfinite(output.detach()[:, 0].sum()) and not is_safe(grid):
        return None
    return unstacked(output, tensors, choices)


def unstacked(output: Tensor, tensors: Tensors, choices: Choices) -> Tensor:
    """From (N, C, transforms x H', W') to (M, C, H', W')."""
    if tensors[1].shape[0] == tensors[0].shape[0]:
        return output
    return output.unflatten(2, (-1, choices.size[0])).transpose(1, 2).flatten(0, 1).contiguous()


def sample_footprints(tensors: Tensors, choices: Choices) -> Tensor | None:
    """Antialiased sampling: ATen takes one sample of all footprints at a time."""
    input, parameters, shared, _ = tensors
    input_size, size, align_corners = tuple(input.shape[2:]), choices.size, choices.align_corners
    extents = half_extents(input_size, align_corners)
    grid = checked_grid(tensors, choices)
    if grid is None or 0 in extents:
        return None
    map = choices.coordinate_map
    footprints = reference.footprints(parameters, shared, map, input_size, size, align_corners)
    if not is_safe(footprints.columns):
        return None
    footprints = footprints._replace(
        places=grid.reshape(parameters.shape[0], *size, len(size)),
        columns=footprints.columns / footprints.columns.new_tensor(extents)[:, None],
    )
    mode, padding = MODES[choices.mode], PADDING_MODES[choices.padding_mode]
    output = input.new_zeros(())
    for points, weight in samples(footprints):
        values = torch.grid_sampler(input, points.view(grid.shape), mode, padding, align_corners)
        weight = weight.view(grid.shape[:-1])[:, None]
        output = output + torch.where(weight > 0, values, 0) * weight
    return unstacked(output, tensors, choices)


def sample_backward(
    grad_output: Tensor, tensors: Tensors, choices: Choices, needs: Sequence[bool]
) -> Gradients | None:
    """Gradients of `sample` for its tensors, None where not needed. None where ATen does not compute them."""
    if choices.antialias:

        def whole(*some: Tensor) -> Tensor:
            every = cast(Tensors, tuple(restored(some, tensors)))
            output = sample(every, choices)
            return sample_reference(every, choices) if output is None else output

        return restored(gradients(whole, present(tensors), grad_output), tensors)
    input, parameters, shared, _ = tensors
    grid = checked_grid(tensors, choices) if computes(tensors, choices) else None
    if grid is None:
        return None
    if grad_output.shape[0] != input.shape[0]:
        grad_output = grad_output.unflatten(0, (input.shape[0], -1)).transpose(1, 2).flatten(2, 3)
    grid = quick_backward(grid, choices)
    operators = torch.ops.aten
    backward = operators.grid_sampler_2d_backward if input.ndim == 4 else operators.grid_sampler_3d_backward
    mode, padding = MODES[choices.mode], PADDING_MODES[choices.padding_mode]
    mask = (needs[0], any(needs[1:]))
    grad_input, grad_grid = backward(grad_output, input, grid, mode, padding, choices.align_corners, mask)
    if not mask[1]:
        return grad_input, None, None, None

    def function(parameters: Tensor, shared: Tensor | None = None) -> Tensor:
        grid = sampling_grid((input, parameters, shared, None), choices)
        assert grid is not None
        return grid

    grads = gradients(function, [parameters] if shared is None else [parameters, shared], grad_grid)
    return grad_input, grads[0], grads[1] if shared is not None else None, None
