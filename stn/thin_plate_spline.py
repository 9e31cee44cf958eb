"""Thin plate splines: surfaces through heights, and maps between points, that bend least. Chapter 11.

A thin plate spline (Bookstein, PAMI 11, 1989) is

    f(p) = sum_k w_k phi(|p - p_k|) + a_x x + a_y y + a_0,   phi(r) = r^2 log r,   sum w = 0,  sum w p_k = 0,

the least bent of all that fit. `fit` finds it for values at points, `fit_map` for points that go to points:

    surface = fit(points, heights)                                      # (K, 2), (K, 1)
    surface(torch.zeros(1, 2))                                          # (1, 1): the height at the origin
    warp = fit_map(target_points=corners, source_points=moved)
    output = stn_kernels.grid_sample(image, warp.grid((28, 28))[None])  # the image, pulled along
    warp.inverse(moved)                                                 # corners again

Everything is batched over leading dimensions, differentiable in all points and values, and computed in
float64 for float64, else in float32, half precision included; the system is always solved in float64. A
surface's coordinates may have any unit. A map's are those of two images whose borders are at `interval`: [-1,
1], as for our samplers, or [0, 1], or another. What lies on a border, the outer edge or the centre of a
pixel, is said by `align_corners`, False by default, as everywhere.

Sampling an image through a spline without a grid in memory is `stn_kernels.tps_sample`; learning one is
`stn.ThinPlateSpline`.

**From the toolbox py-thin-plate-spline** (import name `thinplate`). Its coordinates are in [0, 1], with
centres of pixels on the borders: here, interval=(0, 1) and align_corners=True.

================================  ===================================  ======================================
there                             here                                 what is different here
================================  ===================================  ======================================
TPS.fit(c, lambd, reduced)        fit(points, values, regularization)  batched, differentiable, in float64;
                                                                       several values at a point; the order is
                                                                       w, a_x, a_y, a_0; there a_0 is first;
                                                                       bad points are named
reduced=True, n + 2 parameters    .reduced(), Spline.from_reduced      K parameters: side conditions all hold,
                                                                       not sum w = 0 alone, so that bending
                                                                       grows no faster than log r outside
TPS.z(x, c, theta)                spline(locations)                    the spline holds its points
TPS.d(a, b)                       torch.cdist(a, b)
TPS.u(r)                          stn_kernels.reference.radial(r**2)   no 1e-6 in the logarithm; value and
                                                                       gradient are 0 at 0, not NaN
uniform_grid(shape), twice        uniform_grid(size, (0, 1), True)     any interval, edges or centres
tps_theta_from_points(src, dst)   fit_map(source_points=src,           has lambda; it returns the map itself,
                                          target_points=dst)           not the displacement
tps_grid(theta, dst, shape)       warp.grid(size, align_corners)       in [-1, 1], as samplers want it
tps_grid_to_remap(grid, shape)    warp.opencv_maps(size, source_size)  the identity is the identity; there it
                                                                       is scaled by W / (W - 1)
torch.tps(theta, ctrl, grid)      Spline(points, weights, affine)      locations have no leading 1
                                      (locations)
torch.tps_grid(theta, ctrl, ...)  warp.grid(size, align_corners)       any align_corners; there only True
torch.tps_sparse(theta, ...)      warp(locations)                      and jacobian, folds, inverse
================================  ===================================  ======================================
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from stn.spline_system import distances, solve, triangle_last, with_ones
from stn_kernels import checks
from stn_kernels.reference import compute_dtype, half_extents, pixels_from_centre, radial

S = TypeVar("S", bound="Spline")


def uniform_grid(
    size: Sequence[int], interval: tuple[float, float] = (-1.0, 1.0), align_corners: bool = False
) -> Tensor:
    """The pixels of an image whose borders are at `interval`: (H', W', 2), x first, float64.

    With align_corners the outermost pixels' centres lie on the borders; a single pixel lies in the middle.
    """
    height, width = checks.check_size(size, "size")
    low, high = _checked_interval(interval)
    steps = [max(n - 1, 1) if align_corners else n for n in (width, height)]
    pixels = [pixels_from_centre(n, torch.zeros((), dtype=torch.float64)) for n in (width, height)]
    # Doubled and divided by the number of steps first: the centre and the borders are then exact.
    x, y = ((low + high) / 2 + 2 * p / n * ((high - low) / 2) for p, n in zip(pixels, steps, strict=True))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


@dataclass(frozen=True, eq=False)
class Spline:
    """One thin plate spline, or a batch of them, with D values at each location. Made by `fit`.

    Attributes:
        points: p_k, (..., K, 2).
        weights: w, (..., K, D).
        affine: the rows a_x, a_y and a_0, (..., 3, D).
    """

    points: Tensor
    weights: Tensor
    affine: Tensor

    def __call__(self, locations: Tensor) -> Tensor:
        """f, (..., M, D), at locations (..., M, 2); leading dimensions broadcast with the spline's.

        It makes (..., M, K) distances: for whole images `stn_kernels.tps_sample` does without.
        """
        locations, points, weights, affine = self._together(locations)
        bent = _matmul(radial(distances(locations, points)[2]), weights)
        return bent + _matmul(with_ones(locations), affine)

    def jacobian(self, locations: Tensor) -> Tensor:
        """df_d / dx and df_d / dy, (..., M, D, 2). A point adds no slope at its own place."""
        locations, points, weights, affine = self._together(locations)
        x, y, squared = distances(locations, points)
        apart = squared > 0
        # The gradient of phi at p - p_k is (2 log r + 1) (p - p_k).
        slope = torch.where(apart, torch.where(apart, squared, 1).log() + 1, 0)
        bent = torch.stack([_matmul(slope * x, weights), _matmul(slope * y, weights)], -1)
        return bent + affine[..., :2, :].mT.unsqueeze(-3)

    def bending_energy(self) -> Tensor:
        """The integral over the plane of f_xx^2 + 2 f_xy^2 + f_yy^2, (..., D): it is 8 pi w^T K w."""
        bend = radial(distances(self.points, self.points)[2])
        return 8 * math.pi * (self.weights * _matmul(bend, self.weights)).sum(-2)

    def reduced(self) -> Tensor:
        """K numbers for each value, not K + 3: (..., K, D), all weights but three, then the affine part.

        The three follow from sum w = 0 and sum w p_k = 0. They belong to three points that span a large
        triangle; the others keep their order.
        """
        order, _ = triangle_last(self.points)
        free = _take(self.weights, order)[..., :-3, :]
        return torch.cat([free, self.affine.expand(*free.shape[:-2], 3, -1)], -2)

    @classmethod
    def from_reduced(cls: type[S], points: Tensor, parameters: Tensor, **options: Any) -> S:
        """The inverse of `reduced`. Any parameters (..., K, D) give a spline that keeps its side conditions,
        so that its bending grows no faster than log r outside the points. Differentiable in both.

        options: what the class has beside, the interval of a `SplineMap`.
        """
        order, back = triangle_last(points)
        rest, corners = _take(with_ones(points), order).split([points.shape[-2] - 3, 3], -2)
        free, affine = parameters.split([points.shape[-2] - 3, 3], -2)
        three = -torch.linalg.solve(corners.mT, _matmul(rest.mT, free))
        return cls(points, _take(torch.cat([free, three], -2), back), affine, **options)

    def to(self: S, *args: Any, **kwargs: Any) -> S:
        """In another dtype or on another device: arguments as of `torch.Tensor.to`."""
        moved = {name: getattr(self, name).to(*args, **kwargs) for name in ("points", "weights", "affine")}
        return replace(self, **moved)

    def _together(self, locations: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Locations, points, weights and affine in the finer of the spline's and the locations' dtype."""
        checks.check_tensor(locations, "locations", "(..., M, 2)")
        if locations.ndim < 2 or locations.shape[-1] != 2:
            raise ValueError(f"locations should have shape (..., M, 2), not {tuple(locations.shape)}")
        dtype = torch.promote_types(self.weights.dtype, locations.dtype)
        return locations.to(dtype), self.points.to(dtype), self.weights.to(dtype), self.affine.to(dtype)


@dataclass(frozen=True, eq=False)
class SplineMap(Spline):
    """A thin plate spline from the target's plane to the source's, D = 2. Made by `fit_map`.

    Attributes:
        interval: where the borders of both images are, along x and y.
    """

    interval: tuple[float, float] = (-1.0, 1.0)

    def determinant(self, locations: Tensor) -> Tensor:
        """Of the Jacobian, (..., M): the area in the source for an area in the target, negative where the map
        turns over."""
        (a, b), (c, d) = (row.unbind(-1) for row in self.jacobian(locations).unbind(-2))
        return a * d - b * c

    def folds(self, size: Sequence[int] = (64, 64)) -> Tensor:
        """Whether the map folds, (...) bool: whether the determinant is 0 somewhere or changes its sign, on a
        lattice of `size` points, (rows, columns), borders included. A mirror image is no fold."""
        sign = self.determinant(self._lattice(size, align_corners=True)).sign()
        return (sign.amin(-1) != sign.amax(-1)) | (sign == 0).any(-1)

    def inverse(
        self, source_locations: Tensor, *, size: Sequence[int] = (33, 33), iterations: int = 50
    ) -> Tensor:
        """Where in the target the map takes which values, (..., M, 2): f(inverse) = source_locations.

        It is no thin plate spline, so it is searched for: from the nearest of a lattice of `size` points by
        Newton's method, where a step that leads away is halved. NaN where nothing is found; where the map
        folds there are several answers, and this is one. Differentiable in source_locations and in the
        spline.
        """
        checks.check_tensor(source_locations, "source_locations", "(..., M, 2)")
        with torch.no_grad():
            found = self.to(torch.float64)._search(source_locations.double(), size, iterations)
        # A last step, in the dtype asked for, is where the derivative comes from: that of the inverse is the
        # Jacobian's inverse (the implicit function theorem).
        found = found.to(torch.promote_types(self.weights.dtype, source_locations.dtype))
        return found - _newton_step(self.jacobian(found).detach(), self(found) - source_locations)

    def grid(self, size: Sequence[int], align_corners: bool = False) -> Tensor:
        """The grid (..., H', W', 2) for `stn_kernels.grid_sample`, or PyTorch's, with the same
        `align_corners`: in [-1, 1], whatever the interval."""
        source = self(self._lattice(size, align_corners))
        low, high = self.interval
        if (low, high) != (-1, 1):
            source = (source - (low + high) / 2) * (2 / (high - low))
        return source.unflatten(-2, tuple(size))

    def opencv_maps(
        self, size: Sequence[int], source_size: Sequence[int] | None = None, align_corners: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """map1 and map2 of `cv2.remap(image, map1, map2, interpolation)`, (..., H', W') float32: the column
        and the row of the source to read at each pixel of the output, (H', W') = `size`.

        `source_size` is (H, W) of the image, `size` if None. For the identity the maps are the pixels' own
        indices, exactly.
        """
        height, width = checks.check_size(source_size or size, "source_size")
        with torch.no_grad():
            x, y = self.to(torch.float64).grid(size, align_corners).unbind(-1)
        along_x, along_y = half_extents((height, width), align_corners)
        columns, rows = x * along_x + (width - 1) / 2, y * along_y + (height - 1) / 2
        return columns.float().numpy(force=True), rows.float().numpy(force=True)

    def _lattice(self, size: Sequence[int], align_corners: bool) -> Tensor:
        """(H' W', 2), row by row, beside the spline."""
        return uniform_grid(size, self.interval, align_corners).to(self.weights).flatten(0, 1)

    def _search(self, wanted: Tensor, size: Sequence[int], iterations: int) -> Tensor:
        lattice = self._lattice(size, align_corners=True)
        reached = self(lattice)
        # All distances of 4096 points at a time.
        nearest = [torch.cdist(part, reached).argmin(-1) for part in wanted.split(4096, -2)]
        found = lattice[torch.cat(nearest, -1)]
        away = self(found) - wanted
        length = torch.ones_like(away[..., :1])
        low, high = self.interval
        rounding = 1e-14 * max(abs(low), abs(high), high - low)
        for _ in range(iterations):
            if not (away.norm(dim=-1) > rounding).any():
                break
            tried = found - length * _newton_step(self.jacobian(found), away)
            left = self(tried) - wanted
            closer = left.norm(dim=-1, keepdim=True) < away.norm(dim=-1, keepdim=True)
            found, away = torch.where(closer, tried, found), torch.where(closer, left, away)
            length = torch.where(closer, 1.0, length / 2)
        # What many points' rounding leaves is far below what a failed search does.
        return torch.where(away.norm(dim=-1, keepdim=True) < 1e6 * rounding, found, torch.nan)


def fit(points: Tensor, values: Tensor, regularization: float = 0.0) -> Spline:
    """The thin plate spline that has the values at the points and bends least.

    It minimises sum_k (f(p_k) - z_k)^2 + lambda / (8 pi) J, J the bending energy.

    Args:
        points: p_k, (..., K, 2): at least three, distinct, not all on a line.
        values: z, (..., K, D), D numbers at each point; leading dimensions broadcast with those of points.
        regularization: lambda. 0 interpolates; the larger, the nearer to the plane that fits best. The same
            as `smoothing` in SciPy's RBFInterpolator; with r^2 log r^2 as the kernel it would be twice as
            much.

    Returns:
        The spline, float64 if points or values are, else float32. Differentiable in both.

    Raises:
        ValueError: points coincide (with regularization > 0 they may), or are on a line, or nearly so.
        TypeError, ValueError: an argument has another dtype, shape or device than it should.

    Warns, with the condition number of the system, where points are so near to coincident or to a line that
    more than ten digits may be lost.
    """
    regularization = _check(points, "points", values, "values", regularization)
    dtype = compute_dtype(points, values)
    weights, affine = solve(points, values, regularization, "points")
    return Spline(points.to(dtype), weights.to(dtype), affine.to(dtype))


def fit_map(
    *,
    target_points: Tensor,
    source_points: Tensor,
    regularization: float = 0.0,
    interval: tuple[float, float] = (-1.0, 1.0),
) -> SplineMap:
    """The thin plate spline that takes target points to source points and bends least.

    Args:
        target_points: (..., K, 2), in the output, x before y: at least three, distinct, not all on a line.
        source_points: (..., K, 2), where in the input they are sampled; leading dimensions broadcast.
        regularization: lambda, as in `fit`: 0 goes through the points; the larger, the nearer the map is to
            an affine one.
        interval: where the borders of both images are: (-1, 1), (0, 1) or others.

    Returns, raises and warns as `fit`. Equal points give the identity, exactly.
    """
    interval = _checked_interval(interval)
    regularization = _check(target_points, "target_points", source_points, "source_points", regularization)
    if source_points.shape[-1] != 2:
        raise ValueError(f"source_points should have shape (..., K, 2), not {tuple(source_points.shape)}")
    dtype = compute_dtype(target_points, source_points)
    # The spline of the displacement, and the identity: each affine map is its own spline, whatever lambda.
    displacement = source_points.to(dtype) - target_points.to(dtype)
    weights, affine = solve(target_points, displacement, regularization, "target_points")
    affine = affine + torch.eye(3, 2).to(affine)
    return SplineMap(target_points.to(dtype), weights.to(dtype), affine.to(dtype), interval)


def _check(points: Tensor, name: str, values: Tensor, values_name: str, regularization: float) -> float:
    """What can be said before looking at the numbers; returns lambda."""
    checks.check_tensor(points, name, "(..., K, 2)")
    if points.ndim < 2 or points.shape[-1] != 2 or points.shape[-2] < 3:
        raise ValueError(
            f"{name} should have shape (..., K, 2) with K of at least 3, not {tuple(points.shape)}"
        )
    count = points.shape[-2]
    checks.check_tensor(values, values_name, f"(..., {count}, D)")
    if values.ndim < 2 or values.shape[-2] != count:
        raise ValueError(
            f"{values_name} should have shape (..., {count}, D) beside {count} {name}, "
            f"not {tuple(values.shape)}"
        )
    checks.check_device(values, values_name, points, name)
    return checks.check_regularization(regularization)


def _checked_interval(interval: tuple[float, float]) -> tuple[float, float]:
    low, high = interval
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"interval should be (low, high), low below high, not {interval!r}")
    return low, high


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, also under autocast, which would compute coordinates in half precision."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def _take(rows: Tensor, order: Tensor) -> Tensor:
    """The rows of (..., K, D) in an order (..., K); leading dimensions broadcast."""
    leading = torch.broadcast_shapes(rows.shape[:-2], order.shape[:-1])
    rows = rows.expand(*leading, *rows.shape[-2:])
    return rows.gather(-2, order.expand(*leading, -1)[..., None].expand_as(rows))


def _newton_step(jacobian: Tensor, away: Tensor) -> Tensor:
    """jacobian^-1 away, (..., 2, 2) and (..., 2): infinite or NaN where there is none."""
    (a, b), (c, d) = (row.unbind(-1) for row in jacobian.unbind(-2))
    x, y = away.unbind(-1)
    return torch.stack([d * x - b * y, a * y - c * x], -1) / (a * d - b * c).unsqueeze(-1)
