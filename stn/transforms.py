"""Families of transforms T_theta: what a spatial transformer's parameters mean (section 3.2 of the paper).

Here are the interface and the families of matrices; `warps.py` has those that bend.
"""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor, nn

from stn_kernels import affine_sample, checks, projective_sample
from stn_kernels.reference import affine_grid, compute_dtype, normalised_pixels

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SamplingOptions(TypedDict, total=False):
    """The keywords of every `sample`: those of `stn_kernels.affine_sample`."""

    mode: str
    padding_mode: str
    align_corners: bool
    fill_value: float | Tensor
    antialias: bool
    deterministic: bool | None


class Transform(ABC):
    """One family: how many numbers a localisation network must regress, and how to sample with them.

    `theta` is flat, (N, num_parameters), or (N, T, num_parameters) for T transforms of each image; each
    family says what its entries are. All maps run from the target to the source, both in [-1, 1].
    """

    num_parameters: int
    axes = 2

    @abstractmethod
    def identity(self) -> Tensor:
        """(num_parameters,) float32: the theta that changes nothing."""

    @abstractmethod
    def grid(self, theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
        """T_theta(G), to look at: each output pixel's source point, (N, H', W', 2), normalised, x first; with
        T transforms (N, T, H', W', 2)."""

    @abstractmethod
    def sample(
        self, input: Tensor, theta: Tensor, size: Sequence[int], **options: Unpack[SamplingOptions]
    ) -> Tensor:
        """V: `input` (N, C, H, W) sampled at T_theta(G), (N, C, H', W') or (N, T, C, H', W'), through the
        kernels; an image is not copied for its T transforms.

        options: as in `stn_kernels.affine_sample`.
        """

    def jacobian(self, theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
        """The derivatives of the source by the target, both normalised, at each output pixel: (N, H', W', 2,
        2), entry (i, j) that of source coordinate i by target coordinate j. With T transforms (N, T, ...).

        Families without a formula take differences between neighbouring pixels; `size` is at least 2 then.
        """
        size = checks.check_size(size, "size", self.axes)
        if min(size) < 2:
            raise ValueError(f"size should be at least 2 for differences between pixels, not {size}")
        grid = self.grid(theta, size, align_corners)
        pixels = normalised_pixels(size, grid, align_corners)  # x first
        dims = [-2 - axis for axis in range(self.axes)]
        slopes = [
            torch.gradient(grid, spacing=(p.flatten(),), dim=dim)[0]
            for p, dim in zip(pixels, dims, strict=True)
        ]
        return torch.stack(slopes, -1)

    def sample_over(
        self,
        canvas: Tensor | float,
        input: Tensor,
        theta: Tensor,
        size: Sequence[int],
        **options: Unpack[SamplingOptions],
    ) -> Tensor:
        """The warped image laid over a canvas, which shows where the warp leaves the image: (N, C, H', W').

        It is V + (1 - mask) canvas, with zeros around the input in V, and its mask an image of ones sampled
        at the same points. A pixel half outside is half the canvas; V has been multiplied by the mask
        already. Differentiable in canvas, input and theta.

        Args:
            canvas: a number, or a tensor that broadcasts to (N, C, H', W').
            others: as in `sample`, without padding_mode and fill_value, which the canvas stands for.
        """
        for name in ("padding_mode", "fill_value"):
            if name in options:
                raise TypeError(f"{name} should not be given: the canvas is what lies outside")
        output = self.sample(input, theta, size, **options)
        mask = self.sample(input.new_ones(1, 1, *input.shape[2:]), theta, size, **options)
        if isinstance(canvas, Tensor):
            shape = tuple(output.shape)
            pairs = zip(reversed(canvas.shape), reversed(shape), strict=False)
            if canvas.ndim > len(shape) or any(given not in (1, wanted) for given, wanted in pairs):
                raise ValueError(f"canvas should broadcast to {shape}, not have shape {tuple(canvas.shape)}")
        return output + (1 - mask) * canvas

    def check(self, theta: Tensor) -> None:
        """ValueError unless `theta` is (N, num_parameters) or (N, T, num_parameters), TypeError unless it is
        floating."""
        if theta.ndim not in (2, 3) or theta.shape[-1] != self.num_parameters:
            expected = f"(N, {self.num_parameters}) for {self}"
            raise ValueError(f"theta should have shape {expected}, not {tuple(theta.shape)}")
        if not theta.is_floating_point():
            raise TypeError(f"theta should be of a floating dtype, not {theta.dtype}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MatrixTransform(Transform):
    """A family of matrices: (x, y, 1) of the target times the matrix is the source, in homogeneous
    coordinates."""

    @abstractmethod
    def matrix(self, theta: Tensor) -> Tensor:
        """(N, 2, 3), in three dimensions (N, 3, 4): A of Eq. 1. (N, 3, 3) for projective maps."""

    def parameters(self, matrix: Tensor) -> Tensor:
        """The theta whose `matrix` is this one, if it belongs to the family: what the family cannot say is
        left out. NotImplementedError for families that are not closed under composition."""
        raise NotImplementedError(f"{self} is not closed under composition and inversion")

    def homogeneous(self, theta: Tensor) -> Tensor:
        """(N, 3, 3), in three dimensions (N, 4, 4): the matrix with its last row."""
        return _with_last_row(self.matrix(theta))

    def compose(self, theta: Tensor, then: Tensor) -> Tensor:
        """The theta of warping by `theta`, and the result by `then`, in one step: T_theta after T_then, since
        the last warp's pixels are asked first. (N, num_parameters) each; leading dimensions broadcast."""
        return self.parameters(_matmul(self.homogeneous(theta), self.homogeneous(then)))

    def inverse(self, theta: Tensor) -> Tensor:
        """The theta of the map from source to target. Raises torch.linalg.LinAlgError where there is none."""
        theta = theta.to(compute_dtype(theta))  # no matrix is inverted in half precision
        return self.parameters(torch.linalg.inv(self.homogeneous(theta)))

    def map_points(self, theta: Tensor, points: Tensor) -> Tensor:
        """The sources of target points (N, M, 2), normalised, x first: as many, as they are."""
        dtype = torch.promote_types(theta.dtype, points.dtype)
        source = _matmul(_with_ones(points.to(dtype)), self.homogeneous(theta.to(dtype)).mT)
        return source[..., : self.axes] / source[..., self.axes :]

    def grid(self, theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
        matrix = self.matrix(theta)
        source = self._homogeneous_grid(matrix, size, align_corners)
        if matrix.shape[-2] == self.axes:
            return source
        return source[..., : self.axes] / source[..., self.axes :]

    def jacobian(self, theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
        matrix = self.homogeneous(theta)
        source = self._homogeneous_grid(matrix, size, align_corners)
        # The derivative of h_i / h_3 is (M_ij - (h_i / h_3) M_3j) / h_3.
        last = source[..., self.axes :, None]
        ratios = source[..., : self.axes, None] / last
        pixels = (*matrix.shape[:-2], *[1] * self.axes)
        rows, bottom = matrix[..., : self.axes].split([self.axes, 1], -2)
        return (rows.reshape(*pixels, *rows.shape[-2:]) - ratios * bottom.reshape(*pixels, 1, -1)) / last

    def _homogeneous_grid(self, matrix: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
        """The matrix times (x, y, 1) of each output pixel, (N, H', W', rows of the matrix)."""
        size = checks.check_size(size, "size", self.axes)
        return affine_grid(matrix.flatten(0, -3), size, align_corners).unflatten(0, matrix.shape[:-2])

    def sample(
        self, input: Tensor, theta: Tensor, size: Sequence[int], **options: Unpack[SamplingOptions]
    ) -> Tensor:
        return affine_sample(input, self.matrix(theta), size, **options)

    def sample_matrix(
        self, input: Tensor, matrix: Tensor, size: Sequence[int], **options: Unpack[SamplingOptions]
    ) -> Tensor:
        """As `sample`, by a homogeneous matrix (N, 3, 3), in three dimensions (N, 4, 4), such as a product of
        several that need not belong to the family."""
        return affine_sample(input, matrix[..., :-1, :], size, **options)


class Affine(MatrixTransform):
    """Eq. 1: theta is A row by row, (theta11, theta12, theta13, theta21, theta22, theta23). Chapter 02."""

    num_parameters = 6

    def identity(self) -> Tensor:
        return torch.eye(self.axes, self.axes + 1).flatten()

    def matrix(self, theta: Tensor) -> Tensor:
        self.check(theta)
        return theta.unflatten(-1, (self.axes, self.axes + 1))

    def parameters(self, matrix: Tensor) -> Tensor:
        return matrix[..., : self.axes, :].flatten(-2)


class Affine3d(Affine):
    """Eq. 1 for volumes (appendix A.3): theta is the 3 x 4 matrix row by row. Chapter 15.

    Sizes are (D', H', W'), inputs (N, C, D, H, W), coordinates x before y before z.
    """

    num_parameters = 12
    axes = 3


class Attention(MatrixTransform):
    """Eq. 2: isotropic scale and translation, theta = (s, t_x, t_y). It crops: s < 1 zooms in. Chapter 02."""

    num_parameters = 3

    def identity(self) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0])

    def matrix(self, theta: Tensor) -> Tensor:
        """A = [[s, 0, t_x], [0, s, t_y]], (N, 2, 3)."""
        self.check(theta)
        s, t_x, t_y = theta.unbind(-1)
        zero = torch.zeros_like(s)
        return torch.stack([s, zero, t_x, zero, s, t_y], -1).unflatten(-1, (2, 3))

    def parameters(self, matrix: Tensor) -> Tensor:
        return torch.stack([matrix[..., 0, 0], matrix[..., 0, 2], matrix[..., 1, 2]], -1)


class Translation(MatrixTransform):
    """A window of a fixed scale that moves, theta = (t_x, t_y): the paper's crops of birds are half of the
    image wide (appendix A.6). Chapter 13.

    Args:
        scale: s of Eq. 2, positive. The identity changes nothing only if it is 1, else it is the window in
            the middle; and only then are two translations in a row a translation.
    """

    num_parameters = 2

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = check_positive(scale, "scale")

    def identity(self) -> Tensor:
        return torch.zeros(2)

    def matrix(self, theta: Tensor) -> Tensor:
        """A = [[s, 0, t_x], [0, s, t_y]], (N, 2, 3)."""
        self.check(theta)
        block = self.scale * torch.eye(2, dtype=theta.dtype, device=theta.device)
        return torch.cat([block.expand(*theta.shape[:-1], 2, 2), theta[..., None]], -1)

    def parameters(self, matrix: Tensor) -> Tensor:
        if self.scale != 1:
            return super().parameters(matrix)
        return matrix[..., :2, 2]

    def __repr__(self) -> str:
        return f"Translation(scale={self.scale:g})"


class Similarity(MatrixTransform):
    """Rotation, isotropic scale and translation, theta = (p, q, t_x, t_y): A = [[p, -q, t_x], [q, p, t_y]].

    Right angles stay right where pixels are square in normalised coordinates, that is, from a square image to
    a square one. The scale is sqrt(p^2 + q^2) and the angle atan2(q, p). Chapter 06, exercise 5.
    """

    num_parameters = 4

    def identity(self) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0, 0.0])

    def matrix(self, theta: Tensor) -> Tensor:
        self.check(theta)
        p, q, t_x, t_y = theta.unbind(-1)
        return torch.stack([p, -q, t_x, q, p, t_y], -1).unflatten(-1, (2, 3))

    def parameters(self, matrix: Tensor) -> Tensor:
        return torch.stack([matrix[..., 0, 0], matrix[..., 1, 0], matrix[..., 0, 2], matrix[..., 1, 2]], -1)


class Projective(MatrixTransform):
    """A homography with the entry M_33 = 1, theta its other 8 row by row. Chapter 10.

    The source is (h_1 / h_3, h_2 / h_3) with h = M (x, y, 1). Where h_3 reaches 0 the source is infinite, and
    beyond it is behind the viewer. So the last row is bounded, m = b tanh(theta / b) with b half of `bound`
    for each of the two: |M_31| + |M_32| < bound, and h_3 > 1 - bound on all of the output.

    Args:
        bound: positive, below 1 for a denominator that vanishes nowhere in the output; None for no bound.

    A bounded family is not closed: `compose` and `inverse` give NaN where the last row would be beyond the
    bound. Chains (`stn.InverseCompositional`) multiply matrices and need not care.
    """

    num_parameters = 8

    def __init__(self, bound: float | None = 0.9) -> None:
        self.bound = None if bound is None else check_positive(bound, "bound")

    def identity(self) -> Tensor:
        return torch.eye(3).flatten()[:8]

    def matrix(self, theta: Tensor) -> Tensor:
        """M, (N, 3, 3)."""
        self.check(theta)
        upper, last = theta.split([6, 2], -1)
        if self.bound is not None:
            last = self.bound / 2 * (last * (2 / self.bound)).tanh()
        return torch.cat([upper, last, torch.ones_like(last[..., :1])], -1).unflatten(-1, (3, 3))

    def homogeneous(self, theta: Tensor) -> Tensor:
        return self.matrix(theta)

    def parameters(self, matrix: Tensor) -> Tensor:
        theta = (matrix / matrix[..., 2:, 2:]).flatten(-2)[..., :8]
        if self.bound is None:
            return theta
        upper, last = theta.split([6, 2], -1)
        return torch.cat([upper, self.bound / 2 * (last * (2 / self.bound)).atanh()], -1)

    def sample(
        self, input: Tensor, theta: Tensor, size: Sequence[int], **options: Unpack[SamplingOptions]
    ) -> Tensor:
        return projective_sample(input, self.matrix(theta), size, **options)

    def sample_matrix(
        self, input: Tensor, matrix: Tensor, size: Sequence[int], **options: Unpack[SamplingOptions]
    ) -> Tensor:
        return projective_sample(input, matrix, size, **options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(bound={self.bound})"


class FourCorners(Projective):
    """A homography by where it takes the output's four corners, better behaved than its matrix. Chapter 10.

    theta, (N, 8), moves the corners (-1, -1), (1, -1), (1, 1), (-1, 1), in this order, x before y: each goes
    to itself plus b tanh(theta / b), with b the bound. With b at most 1 / 2 no theta makes the quadrilateral
    cross itself or bend inwards, and the denominator vanishes nowhere in the output.

    Args:
        bound: b, positive; None for offsets without a bound, where a quadrilateral that is not convex has a
            denominator that vanishes in the output.
    """

    def __init__(self, bound: float | None = 0.5) -> None:
        super().__init__(bound)

    def identity(self) -> Tensor:
        return torch.zeros(8)

    def corners(self, theta: Tensor) -> Tensor:
        """Where the corners go, (N, 4, 2)."""
        self.check(theta)
        offsets = theta if self.bound is None else self.bound * (theta / self.bound).tanh()
        return offsets.unflatten(-1, (4, 2)) + _CORNERS.to(offsets)

    def matrix(self, theta: Tensor) -> Tensor:
        return homography(self.corners(theta))

    def parameters(self, matrix: Tensor) -> Tensor:
        source = _matmul(_with_ones(_CORNERS.to(matrix)), matrix.mT)
        offsets = (source[..., :2] / source[..., 2:] - _CORNERS.to(matrix)).flatten(-2)
        return offsets if self.bound is None else self.bound * (offsets / self.bound).atanh()


_CORNERS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def homography(corners: Tensor) -> Tensor:
    """The projective map M, (..., 3, 3) with M_33 = 1, that takes (-1, -1), (1, -1), (1, 1), (-1, 1) to
    `corners`, (..., 4, 2), x before y. Exactly the identity for these corners themselves.

    Heckbert's closed form for the unit square (Fundamentals of Texture Mapping and Image Warping, 1989),
    after x -> (x + 1) / 2. Not finite where three corners are on a line.
    """
    p0, p1, p2, p3 = corners.unbind(-2)
    right, up, cross = p1 - p2, p3 - p2, p0 - p1 + p2 - p3
    determinant = right[..., 0] * up[..., 1] - right[..., 1] * up[..., 0]
    g = (cross[..., 0] * up[..., 1] - cross[..., 1] * up[..., 0]) / determinant
    h = (right[..., 0] * cross[..., 1] - right[..., 1] * cross[..., 0]) / determinant
    first = p1 - p0 + g[..., None] * p1
    second = p3 - p0 + h[..., None] * p3
    upper = torch.stack([first / 2, second / 2, p0 + (first + second) / 2], -1)
    last = torch.stack([g / 2, h / 2, 1 + (g + h) / 2], -1)
    return torch.cat([upper, last[..., None, :]], -2) / last[..., 2, None, None]


def _with_ones(points: Tensor) -> Tensor:
    return nn.functional.pad(points, (0, 1), value=1.0)


def _with_last_row(matrix: Tensor) -> Tensor:
    """(..., a, a + 1) -> (..., a + 1, a + 1)."""
    axes = matrix.shape[-2]
    last = torch.eye(axes + 1, dtype=matrix.dtype, device=matrix.device)[axes:]
    return torch.cat([matrix, last.expand(*matrix.shape[:-2], 1, axes + 1)], -2)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, also under autocast, which would compute coordinates in half precision."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def check_positive(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} should be a number, not {value!r}")
    if not 0 < float(value) < math.inf:
        raise ValueError(f"{name} should be positive and finite, not {value!r}")
    return float(value)


def check_lattice(value: Any, name: str, otherwise: str = "") -> tuple[int, int]:
    """(rows, columns); `otherwise` says in the message what else the argument may be."""
    try:
        rows, columns = value
    except (TypeError, ValueError):
        rows = columns = 0
    if not all(checks.is_integer(count) and count >= 2 for count in (rows, columns)):
        raise ValueError(
            f"{name} should be (rows, columns), integers of at least 2{otherwise}, not {value!r}"
        )
    return rows, columns
