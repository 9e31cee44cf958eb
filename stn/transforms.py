"""Families of transforms T_theta: what a spatial transformer's parameters mean."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from stn_kernels import affine_sample
from stn_kernels.reference import affine_grid


class Transform(ABC):
    """One family: how many numbers a localisation network must regress, and how to sample with them.

    `theta` is always flat, (N, num_parameters); each family says what its entries are.
    """

    num_parameters: int

    @abstractmethod
    def identity(self) -> Tensor:
        """(num_parameters,) float32: the theta that changes nothing."""

    @abstractmethod
    def grid(self, theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
        """T_theta(G), to look at: each output pixel's source point, (N, H', W', 2), normalised, x first."""

    @abstractmethod
    def sample(
        self,
        input: Tensor,
        theta: Tensor,
        size: Sequence[int],
        *,
        padding_mode: str = "zeros",
        align_corners: bool = False,
    ) -> Tensor:
        """V: `input` (N, C, H, W) sampled bilinearly at T_theta(G), (N, C, H', W'), through the kernels."""

    def sample_over(
        self,
        canvas: Tensor | float,
        input: Tensor,
        theta: Tensor,
        size: Sequence[int],
        *,
        align_corners: bool = False,
    ) -> Tensor:
        """The warped image laid over a canvas, which shows where the warp leaves the image: (N, C, H', W').

        It is V + (1 - mask) canvas, with zeros around the input in V, and its mask an image of ones sampled
        at the same points. A pixel half outside is half the canvas; V has been multiplied by the mask
        already. Differentiable in canvas, input and theta.

        Args:
            canvas: a number, or a tensor that broadcasts to (N, C, H', W').
            others: as in `sample`.
        """
        output = self.sample(input, theta, size, align_corners=align_corners)
        mask = self.sample(input.new_ones(1, 1, *input.shape[2:]), theta, size, align_corners=align_corners)
        if isinstance(canvas, Tensor):
            shape = tuple(output.shape)
            pairs = zip(reversed(canvas.shape), reversed(shape), strict=False)
            if canvas.ndim > len(shape) or any(given not in (1, wanted) for given, wanted in pairs):
                raise ValueError(f"canvas should broadcast to {shape}, not have shape {tuple(canvas.shape)}")
        return output + (1 - mask) * canvas

    def check(self, theta: Tensor) -> None:
        """ValueError unless `theta` is (N, num_parameters), TypeError unless it is floating."""
        if theta.ndim != 2 or theta.shape[1] != self.num_parameters:
            expected = f"(N, {self.num_parameters}) for {self}"
            raise ValueError(f"theta should have shape {expected}, not {tuple(theta.shape)}")
        if not theta.is_floating_point():
            raise TypeError(f"theta should be of a floating dtype, not {theta.dtype}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Affine(Transform):
    """Eq. 1: theta is A row by row, (theta11, theta12, theta13, theta21, theta22, theta23). Chapter 02."""

    num_parameters = 6

    def identity(self) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])

    def matrix(self, theta: Tensor) -> Tensor:
        """A, (N, 2, 3): target (x, y, 1) to source (x, y), normalised."""
        self.check(theta)
        return theta.unflatten(1, (2, 3))

    def grid(self, theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
        height, width = size
        return affine_grid(self.matrix(theta), (height, width), align_corners)

    def sample(
        self,
        input: Tensor,
        theta: Tensor,
        size: Sequence[int],
        *,
        padding_mode: str = "zeros",
        align_corners: bool = False,
    ) -> Tensor:
        return affine_sample(
            input, self.matrix(theta), size, padding_mode=padding_mode, align_corners=align_corners
        )


class Attention(Affine):
    """Eq. 2: isotropic scale and translation, theta = (s, t_x, t_y). It crops: s < 1 zooms in. Chapter 02."""

    num_parameters = 3

    def identity(self) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0])

    def matrix(self, theta: Tensor) -> Tensor:
        """A = [[s, 0, t_x], [0, s, t_y]], (N, 2, 3)."""
        self.check(theta)
        s, t_x, t_y = theta.unbind(1)
        zero = torch.zeros_like(s)
        return torch.stack([s, zero, t_x, zero, s, t_y], dim=1).unflatten(1, (2, 3))
