"""Families of transforms that bend: piecewise affine meshes, structured classes T = M B, displacement fields.

Thin plate splines, which bend smoothly, have a module of their own, `spline_transforms.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from stn.thin_plate_spline import uniform_grid
from stn.transforms import SamplingOptions, Transform, check_lattice
from stn_kernels import checks, displacement_sample, sample
from stn_kernels.reference import affine_grid, compute_dtype, mesh_triangles

if TYPE_CHECKING:
    from typing_extensions import Unpack


class PiecewiseAffine(Transform):
    """A triangulated mesh whose vertices move: affine in each triangle, continuous, bent at the edges.
    Chapter 10.

    theta, (N, 2 K), moves vertex k by (theta[2 k], theta[2 k + 1]), x first, from where it lies in the target
    to where it is sampled in the source, both in [-1, 1]; the identity is 0. A pixel belongs to the triangle
    that it lies in; outside the mesh to the one whose smallest barycentric coordinate is largest, which goes
    on as in its inside.

    Args:
        vertices: (rows, columns) of a lattice over [-1, 1], row by row from the top left; or vertices of
            one's own, a tensor (K, 2), x first.
        triangles: (T, 3), integers, which vertices each triangle joins; needed beside vertices of one's own.
            A lattice has its own, two for each cell, whose diagonal runs from the top left.

    Raises TypeError or ValueError naming the argument that is none of these, also for triangles without area.
    """

    def __init__(self, vertices: Sequence[int] | Tensor = (4, 4), triangles: Tensor | None = None) -> None:
        if isinstance(vertices, Tensor):
            checks.check_shape(vertices, "vertices", ("K", 2))
            points, self._layout = vertices.detach().cpu(), f"<{len(vertices)} vertices>"
            self.triangles = _checked_triangles(triangles, len(points))
        else:
            rows, columns = check_lattice(vertices, "vertices", ", or a tensor (K, 2)")
            if triangles is not None:
                raise ValueError("triangles should not be given: a lattice has its own")
            points = uniform_grid((rows, columns), align_corners=True).flatten(0, 1)
            self._layout = f"({rows}, {columns})"
            self.triangles = _lattice_triangles(rows, columns)
        self.num_parameters = points.numel()
        self.vertices = points.float()
        corners = functional.pad(self.vertices.double()[self.triangles], (0, 1), value=1.0).mT  # (T, 3, 3)
        areas = torch.linalg.det(corners).abs() / 2
        if not (areas > torch.finfo(torch.float32).eps).all():
            raise ValueError(
                f"triangles should have an area, but that of triangle {int(areas.argmin())} is 0"
            )
        self._barycentric = torch.linalg.inv(corners)

    def identity(self) -> Tensor:
        return torch.zeros(self.num_parameters)

    def source_vertices(self, theta: Tensor) -> Tensor:
        """Where the vertices are sampled, (N, K, 2)."""
        self.check(theta)
        return self.vertices.to(theta) + theta.unflatten(-1, (-1, 2))

    def matrices(self, theta: Tensor) -> Tensor:
        """The affine map of each triangle, (N, T, 2, 3), with T transforms for each image one dimension
        more."""
        self.check(theta)
        theta = theta.to(compute_dtype(theta))
        moved = theta.unflatten(-1, (-1, 2))[..., self.triangles.to(theta.device), :]  # (N, T, 3, 2)
        with torch.autocast(theta.device.type, enabled=False):  # half precision would misplace pixels
            return moved.mT @ self._barycentric.to(theta) + torch.eye(2, 3).to(theta)

    def determinant(self, theta: Tensor) -> Tensor:
        """Of the Jacobian in each triangle, (N, T): the area in the source for an area in the target. 0 or
        less where the mesh has collapsed or turned over."""
        return torch.linalg.det(self.matrices(theta)[..., :2])

    def map_points(self, theta: Tensor, points: Tensor) -> Tensor:
        """The sources of target points (N, M, 2), normalised, x first: as many, as they are."""
        homogeneous = functional.pad(points, (0, 1), value=1.0)
        triangle = _nearest(torch.einsum("tij, nmj -> nmti", self._barycentric.to(points), homogeneous))
        own = _of_triangle(self.matrices(theta).to(points), triangle)
        return (own @ homogeneous[..., None])[..., 0]

    def inverse_points(self, theta: Tensor, points: Tensor) -> Tensor:
        """The targets of source points (N, M, 2), normalised, x first. Where the mesh folds there are
        several, and this is one. Not finite where a triangle has collapsed."""
        linear, shift = self.matrices(theta).to(points).split([2, 1], -1)
        inverse = torch.linalg.inv(linear)  # (N, T, 2, 2)
        targets = torch.einsum("ntij, nmtj -> nmti", inverse, points[:, :, None] - shift[:, None, ..., 0])
        homogeneous = functional.pad(targets, (0, 1), value=1.0)
        triangle = _nearest(torch.einsum("tij, nmtj -> nmti", self._barycentric.to(points), homogeneous))
        return targets.gather(2, triangle[..., None, None].expand(*triangle.shape, 1, 2))[:, :, 0]

    def grid(self, theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
        own = self._of_pixels(theta, size, align_corners)
        homogeneous = affine_grid(torch.eye(3).to(own)[None], checks.check_size(size, "size"), align_corners)
        return (own @ homogeneous[0][..., None])[..., 0]

    def jacobian(self, theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
        return self._of_pixels(theta, size, align_corners)[..., :2]

    def sample(
        self, input: Tensor, theta: Tensor, size: Sequence[int], **options: Unpack[SamplingOptions]
    ) -> Tensor:
        checks.check_image(input)
        self.check(theta)
        checks.check_parameters(theta, "theta", input, (self.num_parameters,))
        theta = _beside(theta, input)
        matrices = self.matrices(theta)
        output = sample(
            input,
            matrices.flatten(0, -4),
            size,
            coordinate_map="mesh",
            shared=self._barycentric.to(matrices),
            **options,
        )
        return output.unflatten(0, theta.shape[:-1])

    def _of_pixels(self, theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
        """The affine map at each output pixel, (N, H', W', 2, 3)."""
        matrices = self.matrices(theta)
        size = checks.check_size(size, "size")
        return matrices[..., mesh_triangles(self._barycentric.to(matrices), size, align_corners), :, :]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._layout})"


class Basis(nn.Module, Transform):
    """The structured class T = M B (section 3.2): warps that are combinations of a basis. Chapters 10, 12.

    Each output pixel is sampled where it lies, plus M b: b are the basis's values at the pixel, one for each
    of its planes, and M, 2 x D, is theta: x's D coefficients, then y's. (In the paper's notation B has two
    more planes, x and y, with coefficients that stay 1; so the identity is theta = 0.) Displacements are
    normalised: 1 is half of the input's extent.

    Args:
        basis: B, (D, H', W'), in three dimensions (D, D', H', W'): planes, in the order of D. At another size
            they are interpolated linearly.
        learned: whether B is a parameter, learned with the network; else it is a buffer. A basis of zeros
            never learns, since then the gradient of theta is zero, and that of B as well at theta = 0.
    """

    def __init__(self, basis: Tensor, *, learned: bool = False) -> None:
        super().__init__()
        if not isinstance(basis, Tensor) or not basis.is_floating_point():
            raise TypeError(f"basis should be a tensor of a floating dtype, not {basis!r}")
        if basis.ndim not in (3, 4):
            raise ValueError(
                f"basis should have shape (D, H', W') or (D, D', H', W'), not {tuple(basis.shape)}"
            )
        self.basis: Tensor
        if learned:
            self.basis = nn.Parameter(basis.detach().clone())
        else:
            self.register_buffer("basis", basis.detach().clone())
        self.axes = basis.ndim - 1
        self.num_parameters = self.axes * basis.shape[0]

    def identity(self) -> Tensor:
        return torch.zeros(self.num_parameters)

    def coefficients(self, theta: Tensor) -> Tensor:
        """M, (N, 2, D)."""
        self.check(theta)
        return theta.unflatten(-1, (self.axes, -1))

    def planes(self, size: Sequence[int], align_corners: bool = False) -> Tensor:
        """B at this size, (D, H', W')."""
        return _resized(self.basis[None], checks.check_size(size, "size", self.axes), align_corners)[0]

    def grid(self, theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
        planes = self.planes(size, align_corners).to(theta)
        displacement = torch.tensordot(self.coefficients(theta), planes, 1)  # (N, 2, H', W')
        return _identity_grid(displacement, self.axes, align_corners)

    def sample(
        self, input: Tensor, theta: Tensor, size: Sequence[int], **options: Unpack[SamplingOptions]
    ) -> Tensor:
        checks.check_image(input)
        coefficients = _beside(self.coefficients(theta), input)
        checks.check_parameters(coefficients, "theta", input, coefficients.shape[-2:])
        planes = self.planes(size, options.get("align_corners", False)).to(coefficients)
        output = sample(
            input,
            coefficients.flatten(0, -3),
            size,
            coordinate_map="residual_basis",
            shared=planes,
            **options,
        )
        return output.unflatten(0, theta.shape[:-1])

    forward = sample

    def extra_repr(self) -> str:
        learned = isinstance(self.basis, nn.Parameter)
        return f"{tuple(self.basis.shape)}" + (", learned=True" if learned else "")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


class Displacement(Transform):
    """A displacement for each pixel, or for each point of a coarser lattice: the loosest family. Chapter 10.

    theta, (N, 2 H' W'), is a field (2, H', W') row by row, x before y, in normalised coordinates: each output
    pixel is sampled where it lies, plus its displacement. The identity is 0. Nothing makes neighbours agree.

    Args:
        size: (H', W') of the field. At another size it is interpolated linearly.
    """

    def __init__(self, size: Sequence[int]) -> None:
        self.size = checks.check_size(size, "size")
        self.num_parameters = 2 * self.size[0] * self.size[1]

    def identity(self) -> Tensor:
        return torch.zeros(self.num_parameters)

    def field(self, theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
        """The displacements, (N, 2, H', W')."""
        self.check(theta)
        field = theta.unflatten(-1, (2, *self.size))
        resized = _resized(field.flatten(0, -4), checks.check_size(size, "size"), align_corners)
        return resized.unflatten(0, theta.shape[:-1])

    def grid(self, theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
        return _identity_grid(self.field(theta, size, align_corners), 2, align_corners)

    def sample(
        self, input: Tensor, theta: Tensor, size: Sequence[int], **options: Unpack[SamplingOptions]
    ) -> Tensor:
        field = self.field(theta, size, options.get("align_corners", False))
        return displacement_sample(input, field, unit="normalized", **options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size})"


def hat_functions(lattice: Sequence[int], size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Hats on a lattice over [-1, 1]: a basis (rows columns, H', W') for `Basis`, float32. Chapter 10.

    The hat of a lattice point is 1 there, falls linearly in x and in y, and is 0 from the neighbouring
    points on; at each pixel the hats' sum is 1. With them as a basis, M holds the displacements of the
    lattice points, and the warp is bilinear between them.

    Args:
        lattice: (rows, columns), each at least 2, row by row from the top left.
        size: (H', W') of the planes.
        align_corners: whether -1 and 1 are the centres (True) or the outer edges (False) of border pixels.
    """
    rows, columns = check_lattice(lattice, "lattice")
    x, y = uniform_grid(checks.check_size(size, "size"), align_corners=align_corners).unbind(-1)
    across = _hats(x[0], columns)  # (columns, W')
    down = _hats(y[:, 0], rows)
    return torch.einsum("rh, cw -> rchw", down, across).flatten(0, 1).float()


def _hats(positions: Tensor, count: int) -> Tensor:
    steps = (positions + 1) / 2 * (count - 1)
    return (1 - (steps - torch.arange(count).to(steps)[:, None]).abs()).clamp(min=0)


def _identity_grid(displacement: Tensor, axes: int, align_corners: bool) -> Tensor:
    """G plus a displacement (N, 2, H', W'), normalised: (N, H', W', 2)."""
    identity = torch.eye(axes, axes + 1).to(displacement)[None]
    return affine_grid(identity, tuple(displacement.shape[-axes:]), align_corners)[0] + displacement.movedim(
        -1 - axes, -1
    )


def _resized(planes: Tensor, size: tuple[int, ...], align_corners: bool) -> Tensor:
    """Planes (N, D, H, W), or of volumes, at another size."""
    if tuple(planes.shape[2:]) == size:
        return planes
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return functional.interpolate(planes, size, mode=mode, align_corners=align_corners)


def _beside(theta: Tensor, input: Tensor) -> Tensor:
    """theta in the dtype in which coordinates beside this input are computed."""
    checks.check_device(theta, "theta", input)
    return checks.check_dtype(theta, "theta", input)


def _nearest(barycentric: Tensor) -> Tensor:
    """The triangle of each point, from its barycentric coordinates in all of them, (N, M, T, 3): (N, M)."""
    return barycentric.detach().amin(-1).argmax(-1)


def _of_triangle(matrices: Tensor, triangle: Tensor) -> Tensor:
    """Rows (N, M, 2, 3) of matrices (N, T, 2, 3) by the triangle of each point (N, M)."""
    index = triangle[..., None, None].expand(*triangle.shape, *matrices.shape[-2:])
    return matrices.gather(1, index)


def _lattice_triangles(rows: int, columns: int) -> Tensor:
    corner = torch.arange(rows * columns).view(rows, columns)
    top_left, top_right = corner[:-1, :-1].flatten(), corner[:-1, 1:].flatten()
    bottom_left, bottom_right = corner[1:, :-1].flatten(), corner[1:, 1:].flatten()
    upper = torch.stack([top_left, top_right, bottom_right], 1)
    lower = torch.stack([top_left, bottom_right, bottom_left], 1)
    return torch.stack([upper, lower], 1).flatten(0, 1)


def _checked_triangles(triangles: Tensor | None, count: int) -> Tensor:
    if not isinstance(triangles, Tensor) or triangles.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"triangles should be a tensor (T, 3) of integers, not {triangles!r}")
    if triangles.ndim != 2 or triangles.shape[1] != 3 or not len(triangles):
        raise ValueError(f"triangles should have shape (T, 3), not {tuple(triangles.shape)}")
    if triangles.min() < 0 or triangles.max() >= count:
        raise ValueError(f"triangles should join vertices 0 to {count - 1}, not {int(triangles.max())}")
    return triangles.detach().cpu().long()
