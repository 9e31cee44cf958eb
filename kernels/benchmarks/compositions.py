"""What a careful user writes in PyTorch where stn_kernels has one call: the peers of both benchmarks.

Each takes the image, then what the library's operation takes. What does not change between calls (the target
grid, a spline's features) is made once, outside of what is timed; `torch.nn.functional.affine_grid` makes its
own on every call.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stn_kernels.reference import Size
from stn_kernels.splines import tps_weights


def target_points(size: Size, like: Tensor, align_corners: bool = False) -> Tensor:
    """The target grid in homogeneous coordinates: (pixels, axes + 1)."""
    axes = len(size)
    identity = torch.eye(axes, axes + 1, dtype=like.dtype, device=like.device)
    grid = F.affine_grid(identity[None], [1, 1, *size], align_corners).reshape(-1, axes)
    return torch.cat([grid, torch.ones_like(grid[:, :1])], 1)


def spline_features(control: Tensor, target: Tensor) -> Tensor:
    """What a thin plate spline is linear in, at every target point: (pixels, K + 3)."""
    squared = (target[:, None, :2] - control).square().sum(-1)
    return torch.cat([0.5 * squared * squared.clamp_min(1e-30).log(), target], 1)


def sampled(image: Tensor, points: Tensor, size: Size, align_corners: bool = False, **choices: str) -> Tensor:
    grid = points.view(-1, *size, len(size))
    return F.grid_sample(image, grid, align_corners=align_corners, **choices)


def affine(image: Tensor, theta: Tensor, size: Size, align_corners: bool = False, **choices: str) -> Tensor:
    """theta (N, 2, 3), or (N, T, 2, 3) for T transforms of each image, which is repeated T times."""
    transforms = theta.shape[1] if theta.ndim == 4 else 1
    if theta.ndim == 4:
        image, theta = image.repeat_interleave(transforms, 0), theta.flatten(0, 1)
    grid = F.affine_grid(theta.to(image.dtype), [*image.shape[:2], *size], align_corners)
    output = F.grid_sample(image, grid, align_corners=align_corners, **choices)
    return output.unflatten(0, (-1, transforms)) if transforms > 1 else output


def projective(image: Tensor, theta: Tensor, size: Size, target: Tensor) -> Tensor:
    homogeneous = target @ theta.mT
    return sampled(image, homogeneous[..., :-1] / homogeneous[..., -1:], size)


def grid(image: Tensor, points: Tensor, align_corners: bool = False) -> Tensor:
    return F.grid_sample(image, points.to(image.dtype), align_corners=align_corners)


def displacement(image: Tensor, shift: Tensor, target: Tensor, align_corners: bool = False) -> Tensor:
    """shift (N, 2, H, W) in normalised coordinates, in 3-D (N, 3, D, H, W)."""
    axes = shift.shape[1]
    points = target[:, :axes] + shift.flatten(2).mT
    return sampled(image, points.to(image.dtype), tuple(shift.shape[2:]), align_corners)


def basis(image: Tensor, coefficients: Tensor, planes: Tensor) -> Tensor:
    points = torch.einsum("nad,dhw->nhwa", coefficients, planes)
    return sampled(image, points, tuple(planes.shape[1:]))


def spline(image: Tensor, source: Tensor, control: Tensor, features: Tensor, size: Size) -> Tensor:
    """The system is solved on every call, as the library does; its features are given."""
    points = features @ tps_weights(source, control).mT
    return sampled(image, points.to(image.dtype), size)
