"""Thin plate splines: from control points to the weights that the coordinate map "tps" reads."""

import torch
from torch import Tensor

from .reference import compute_dtype, radial


def tps_weights(source_points: Tensor, target_points: Tensor, regularization: float = 0.0) -> Tensor:
    """The spline that takes target points to source points and bends least (Bookstein, PAMI 11, 1989).

    f(p) = sum_k w_k phi(|p - c_k|) + a_x x + a_y y + a_0 with phi(r) = r^2 log r solves, for each f,

        [K + lambda I  P] [w]   [c']
        [     P^T      0] [a] = [0 ],    K_jk = phi(|c_j - c_k|),  P = [c_x, c_y, 1].

    Args:
        source_points: c', (M, K, 2), where the target points go.
        target_points: c, (K, 2), at least three, not all on a line, no two equal.
        regularization: lambda, at least 0. 0 interpolates; the larger, the nearer to an affine map.

    Returns:
        (M, 2, K + 3): w, then a_x, a_y and a_0, in `compute_dtype`, solved in float64. Differentiable.

    Raises:
        ValueError: target_points are on a line or not distinct.
    """
    dtype = compute_dtype(source_points, target_points)
    points = target_points.double()
    count = points.shape[0]
    squared = (points[:, None] - points[None]).square().sum(-1)
    affine = torch.cat([points, points.new_ones(count, 1)], 1)
    bend = radial(squared) + regularization * torch.eye(count, dtype=points.dtype, device=points.device)
    system = torch.cat([torch.cat([bend, affine], 1), torch.cat([affine.mT, points.new_zeros(3, 3)], 1)])
    values = source_points.double().movedim(1, 0).flatten(1)  # (K, M 2)
    values = torch.cat([values, values.new_zeros(3, values.shape[1])])
    try:
        weights = torch.linalg.solve(system, values)
    except torch.linalg.LinAlgError:
        raise ValueError(
            "target_points should be distinct and not all on a line: no thin plate spline goes through them"
        ) from None
    return weights.unflatten(1, (-1, 2)).permute(1, 2, 0).to(dtype)
