"""What registration asks of a displacement field: to be smooth, and not to fold. Chapter 18.

A field is (N, 2, H, W), x before y, or (N, 3, D, H, W), x before y before z, in pixels, as
`stn_kernels.displacement_sample` takes it: pixel p of the output is sampled at p + field(p).
"""

from __future__ import annotations

import torch
from torch import Tensor

from stn_kernels import displacement_sample


def roughness(field: Tensor) -> Tensor:
    """The mean square of the differences between neighbours along each axis, and the mean of these.

    A penalty to add to a loss: 0 for a field that moves all pixels alike. Each axis of two pixels or more.

    Returns:
        A scalar, in pixels squared.
    """
    _check(field)
    return torch.stack([field.diff(dim=axis).square().mean() for axis in range(2, field.ndim)]).mean()


def jacobian_determinant(field: Tensor) -> Tensor:
    """The determinant of the map p -> p + field(p): what becomes of a pixel's area, or a voxel's volume.

    It is 1 where nothing is stretched and negative where the map folds. By differences to the next pixel of
    each axis.

    Returns:
        (N, H - 1, W - 1), in 3-D (N, D - 1, H - 1, W - 1).
    """
    axes = _check(field)
    here = (slice(None), slice(None), *[slice(None, -1)] * axes)
    columns = []
    for axis in range(axes):  # x is the last dimension
        ahead = list(here)
        ahead[-1 - axis] = slice(1, None)
        columns.append(field[tuple(ahead)] - field[here])
    slopes = torch.stack(columns, dim=-1).movedim(1, -2)  # (N, ..., of what, along what)
    return torch.linalg.det(slopes + torch.eye(axes, dtype=slopes.dtype, device=slopes.device))


def integrate(velocity: Tensor, steps: int = 7, padding_mode: str = "border") -> Tensor:
    """Where a stationary velocity field leads in one unit of time, by scaling and squaring: a displacement.

    The velocity is divided by 2^steps, to a step small enough to be a displacement; the map is then followed
    by itself, `steps` times over. Minus the velocity gives the inverse. It does not fold where a small step
    does not.

    Args:
        velocity: a field, in pixels per unit of time.
        steps: how many times the map is doubled.
        padding_mode: how the field goes on outside the image, as in `stn_kernels.grid_sample`. VoxelMorph has
            "zeros".
    """
    _check(velocity)
    field = velocity / 2**steps
    for _ in range(steps):
        field = field + displacement_sample(field, field, padding_mode=padding_mode)
    return field


def _check(field: Tensor) -> int:
    """The number of axes of a field."""
    axes = field.ndim - 2
    if axes not in (2, 3) or field.shape[1] != axes:
        raise ValueError(f"field should be (N, 2, H, W) or (N, 3, D, H, W), not {tuple(field.shape)}")
    return axes
