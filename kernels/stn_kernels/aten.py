"""The CPU path: what ATen already computes, composed so that it costs less than the usual two calls.

`torch.nn.functional.affine_grid` lays out a (N, H, W, 3) base grid on every call and writes x and y
interleaved. Here the base grid is kept, it is shared by the batch, and one matrix product writes x and y as
separate planes, which ATen's sampler reads with plain vector loads. Values differ from `reference.py` by
rounding only.

ATen's CPU sampler reads outside the image on some non-finite coordinates, so nothing reaches it unchecked:
see `is_safe`.
"""

import functools

import torch
from torch import Tensor

from .autograd import Choices
from .reference import Size, half_extent, pixels_from_centre

PADDING_MODES = {"zeros": 0, "border": 1, "reflection": 2}
# Far beyond any image, and far below where a coordinate times a size would overflow float32 or an integer.
SAFE_COORDINATE = 1e6
LARGEST_CACHED = 2**18  # pixels: 16 grids of 3 MB in float32


def is_safe(parameters: Tensor) -> bool:
    """Whether every theta or grid value is finite and moderate; synchronises, so the CPU only."""
    if parameters.numel() == 0:
        return True
    # The infinity norm propagates NaN, and a comparison with NaN is false.
    return float(torch.linalg.vector_norm(parameters.detach(), torch.inf)) <= SAFE_COORDINATE


def computes_same(input: Tensor, parameters: Tensor) -> bool:
    """Whether ATen's CPU sampler gives what the reference defines. It computes half-precision coordinates in
    half precision, and non-finite ones not at all."""
    return (
        input.device.type == "cpu"
        and input.dtype == parameters.dtype
        and input.dtype in (torch.float32, torch.float64)
        and is_safe(parameters)
    )


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
    """The target grid G of Eq. 1 in homogeneous coordinates: rows x, y, 1 of every pixel, (3, H' W')."""
    build = cached_base_grid if size[0] * size[1] <= LARGEST_CACHED else build_base_grid
    return build(size, align_corners, dtype)


# Not an inference tensor even under torch.inference_mode: the cache outlives the call.
@torch.inference_mode(False)
def build_base_grid(size: Size, align_corners: bool, dtype: torch.dtype) -> Tensor:
    height, width = size
    grid = torch.ones((3, height, width), dtype=dtype, device="cpu")
    grid[0] = pixels_from_centre(width, grid) / (half_extent(width, align_corners) or 1.0)
    grid[1] = (pixels_from_centre(height, grid) / (half_extent(height, align_corners) or 1.0))[:, None]
    return grid.flatten(1)


cached_base_grid = functools.lru_cache(maxsize=16)(build_base_grid)


def full_precision_matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, also under autocast, which would compute coordinates in half precision."""
    if torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return a @ b
    return a @ b


def affine_grid(theta: Tensor, size: Size, align_corners: bool) -> Tensor:
    """(N, H', W', 2) as planes: x and y are each contiguous. Differentiable."""
    planes = full_precision_matmul(theta, base_grid(size, align_corners, theta.dtype))
    return planes.unflatten(2, size).permute(0, 2, 3, 1)


def affine_grid_backward(grad_grid: Tensor, size: Size, align_corners: bool) -> Tensor:
    """The gradient of `affine_grid` for theta: (N, H', W', 2) -> (N, 2, 3)."""
    base = base_grid(size, align_corners, grad_grid.dtype)
    return full_precision_matmul(grad_grid.flatten(1, 2).mT, base.T)


def sampling_grid(parameters: Tensor, choices: Choices) -> Tensor:
    if choices.coordinate_map == "grid":
        return parameters
    return affine_grid(parameters, choices.size, choices.align_corners)


def sample(input: Tensor, parameters: Tensor, choices: Choices) -> Tensor:
    """Bilinear sampling by ATen, differentiable where autograd watches."""
    grid, padding = sampling_grid(parameters, choices), PADDING_MODES[choices.padding_mode]
    return torch.grid_sampler(input, grid, 0, padding, choices.align_corners)


def sample_backward(
    grad_output: Tensor, input: Tensor, parameters: Tensor, choices: Choices, need_input: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of `sample` for image and parameters; the image's is undefined unless needed."""
    grid, padding = sampling_grid(parameters, choices), PADDING_MODES[choices.padding_mode]
    grad_input, grad_grid = torch.ops.aten.grid_sampler_2d_backward(
        grad_output, input, grid, 0, padding, choices.align_corners, (need_input, True)
    )
    if choices.coordinate_map == "grid":
        return grad_input, grad_grid
    return grad_input, affine_grid_backward(grad_grid, choices.size, choices.align_corners)
