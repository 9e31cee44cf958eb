"""The linear system of a thin plate spline: whether it has a solution, how certain, and which. Chapter 11.

    [K + lambda I  P] [w]   [z]
    [     P^T      0] [a] = [0],    K_jk = phi(|p_j - p_k|),  phi(r) = r^2 log r,  P = [x, y, 1].

It is solved in float64 and in coordinates of its own, with the points around the origin and in the unit disc,
so that pixels, [0, 1] and [-1, 1] are equally well conditioned. With p = m + s q,

    sum_k w_k phi(|p - p_k|) = s^2 sum_k w_k phi(|q - q_k|) + s^2 log(s) sum_k w_k |q - q_k|^2,

and the side conditions P^T w = 0 leave of the last sum the constant sum_k w_k |q_k|^2: the spline is the
same.
"""

import math
import warnings

import torch
from torch import Tensor

from stn_kernels.reference import radial

# One over the rounding error: beyond it, no digit of a float64 solution is certain.
SINGULAR = 1 / torch.finfo(torch.float64).eps
# 400 points strewn at random stay below 1e9.
NEARLY_SINGULAR = 1e10


def distances(locations: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From points (..., K, 2) to locations (..., M, 2): along x, along y, and squared, each (..., M, K)."""
    x = locations[..., :, None, 0] - points[..., None, :, 0]
    y = locations[..., :, None, 1] - points[..., None, :, 1]
    return x, y, x.square() + y.square()


def with_ones(points: Tensor) -> Tensor:
    """P = [x, y, 1]: (..., K, 2) -> (..., K, 3)."""
    return torch.cat([points, torch.ones_like(points[..., :1])], -1)


def solve(points: Tensor, values: Tensor, regularization: float, name: str) -> tuple[Tensor, Tensor]:
    """w (..., K, D) and a (..., 3, D), float64, differentiable in both tensors.

    Args:
        points: (..., K, 2), K at least 3, whose name in messages is `name`.
        values: z, (..., K, D); the leading dimensions broadcast.
        regularization: lambda, at least 0.

    Raises ValueError for points on a line, for coincident ones (unless lambda > 0), and where float64 cannot
    tell them from such; warns where more than ten of its sixteen digits may be lost.
    """
    check_points(points, regularization, name)
    points, values = points.double(), values.double()
    with torch.no_grad():  # the spline does not depend on them, so they have no gradient
        centre = points.mean(-2, keepdim=True)
        scale = (points - centre).norm(dim=-1).amax(-1)[..., None, None]
    local = (points - centre) / scale
    smoothing = regularization / scale.square()
    large = smoothing.clamp_min(1)  # divides K + lambda I, beside which P would be lost
    identity = torch.eye(points.shape[-2]).to(points)
    bend = (radial(distances(local, local)[2]) + smoothing * identity) / large
    plane = with_ones(local)
    corner = torch.zeros(*points.shape[:-2], 3, 3).to(points)
    system = torch.cat([torch.cat([bend, plane], -1), torch.cat([plane.mT, corner], -1)], -2)
    factors, pivots, _ = torch.linalg.lu_factor_ex(system)
    condition = condition_number(system, factors, pivots)
    if condition >= SINGULAR:
        raise ValueError(
            f"{name} should be farther from one another and from a line: the thin plate spline's system has "
            f"the condition number {condition:.1e}, singular in float64"
        )
    if condition >= NEARLY_SINGULAR:
        warnings.warn(
            f"{name} are nearly coincident or nearly on a line: the thin plate spline's system has the "
            f"condition number {condition:.1e}, so about {math.log10(condition):.0f} of 16 digits are lost",
            stacklevel=3,  # whoever called what called this
        )
    sides = torch.zeros(*values.shape[:-2], 3, values.shape[-1]).to(values)
    solution = torch.linalg.lu_solve(factors, pivots, torch.cat([values, sides], -2))
    weights, slope, level = solution.split([points.shape[-2], 2, 1], -2)
    weights = weights / large
    # Back to the points' own coordinates.
    moment = (weights * local.square().sum(-1, keepdim=True)).sum(-2, keepdim=True)
    slope = slope / scale
    level = level - centre @ slope - scale.log() * moment
    return weights / scale.square(), torch.cat([slope, level], -2)


@torch.no_grad()
def check_points(points: Tensor, regularization: float, name: str) -> None:
    """Whether the points (..., K, 2) hold a thin plate spline: finite, distinct, and not all on a line."""
    if not points.isfinite().all():
        raise ValueError(f"{name} should be finite")
    exact = points.double()
    # The root of the summed squared distances from the line that fits best, and what rounding to the points'
    # dtype makes of that for points on a line.
    thickness = torch.linalg.svdvals(exact - exact.mean(-2, keepdim=True))[..., -1]
    rounding = 4 * torch.finfo(points.dtype).eps * exact.abs().amax((-2, -1)) * points.shape[-2] ** 0.5
    if (thickness <= rounding).any():
        raise ValueError(f"{name} should not all be on a line: they determine no thin plate spline")
    if regularization > 0:
        return  # smoothing has an answer for different values at one point: near their mean
    equal = (exact[..., :, None, :] == exact[..., None, :, :]).all(-1).triu(1).nonzero()
    if equal.numel():
        first, second = equal[0, -2:].tolist()
        raise ValueError(
            f"{name} should be distinct, but points {first} and {second} coincide, which only "
            "regularization > 0 allows"
        )


@torch.no_grad()
def condition_number(system: Tensor, factors: Tensor, pivots: Tensor) -> float:
    """In the 1-norm, of the worst system of a batch; infinite for a singular one."""
    identity = torch.eye(system.shape[-1]).to(system).expand_as(system)
    inverse = torch.linalg.lu_solve(factors, pivots, identity)
    condition = torch.linalg.matrix_norm(system, 1) * torch.linalg.matrix_norm(inverse, 1)
    return condition.nan_to_num(nan=math.inf).amax().item() if condition.numel() else 0.0


@torch.no_grad()
def triangle_last(points: Tensor) -> tuple[Tensor, Tensor]:
    """An order of the points whose last three span a large triangle, and its inverse, each (..., K)."""
    x, y = points.double().unbind(-1)

    def from_point(index: Tensor) -> tuple[Tensor, Tensor]:
        return x - x.gather(-1, index), y - y.gather(-1, index)

    dx, dy = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    first = (dx.square() + dy.square()).argmax(-1, keepdim=True)
    dx, dy = from_point(first)
    second = (dx.square() + dy.square()).argmax(-1, keepdim=True)
    third = (dx * dy.gather(-1, second) - dy * dx.gather(-1, second)).abs().argmax(-1, keepdim=True)
    corners = torch.cat([first, second, third], -1)
    order = torch.zeros_like(x).scatter(-1, corners, 1.0).argsort(dim=-1, stable=True)
    return order, order.argsort(dim=-1)
