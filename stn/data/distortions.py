"""The paper's distorted digits (appendix A.4): R, rotated; RTS, rotated, translated and scaled. P and E are
in `warped`."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stn_kernels import affine_sample

CANVAS = (42, 42)  # of RTS
SCALES = (0.7, 1.2)
MAX_ANGLE_RTS = 45.0


@dataclass(frozen=True)
class Pose:
    """The true pose of N distorted digits: how each was turned, scaled and moved from centre to centre.

    Attributes:
        angle: (N,) degrees, positive counter-clockwise as displayed.
        scale: (N,) pixels of the canvas per pixel of the digit's image.
        translation: (N, 2) pixels of the canvas, x to the right before y down.
        input_size: (H, W) of the digit's image.
        output_size: (H', W') of the canvas.
    """

    angle: Tensor
    scale: Tensor
    translation: Tensor
    input_size: tuple[int, int]
    output_size: tuple[int, int]

    def matrix(self) -> Tensor:
        """(N, 2, 3): the theta of Eq. 1 that made the canvas from the digit, for `align_corners=False`.

        It maps points of the canvas to points of the digit's image, so it turns and scales the opposite way.
        """
        backward = self._rotation().mT / self.scale[:, None, None]
        offset = -backward @ self.translation[:, :, None]
        return _normalised(torch.cat([backward, offset], dim=2), self.output_size, self.input_size)

    def inverse_matrix(self) -> Tensor:
        """(N, 2, 3): the theta with which an ideal spatial transformer gets the digit back from the canvas.

        Its output frame shows exactly what the digit's image showed, whatever size is sampled.
        """
        forward = self._rotation() * self.scale[:, None, None]
        return _normalised(
            torch.cat([forward, self.translation[:, :, None]], dim=2), self.input_size, self.output_size
        )

    def _rotation(self) -> Tensor:
        """(N, 2, 2), digit to canvas. As y points down, counter-clockwise takes (1, 0) towards (0, -1)."""
        angle = torch.deg2rad(self.angle)
        cosine, sine = angle.cos(), angle.sin()
        return torch.stack([torch.stack([cosine, sine], 1), torch.stack([-sine, cosine], 1)], 1)


def rotated(
    images: Tensor, *, generator: torch.Generator | None = None, max_angle: float = 90.0
) -> tuple[Tensor, Pose]:
    """The paper's set R: each digit turned about its centre, uniformly within `max_angle` degrees.

    Args:
        images: (N, C, H, W), floating; black (0) is what surrounds them.
        generator: draws the angles; the default generator if None. The same seed gives the same poses for
            images of any dtype and on any device.
        max_angle: degrees, at least 0.

    Returns:
        The rotated images, of the same shape, dtype and device, and their pose. First met in chapter 01.
    """
    check_images(images)
    if not max_angle >= 0:
        raise ValueError(f"max_angle should be at least 0 degrees, not {max_angle}")
    turn = uniform((len(images),), images, generator)
    size = (images.shape[2], images.shape[3])
    scale, translation = torch.ones_like(turn), turn.new_zeros(len(images), 2)
    pose = Pose(max_angle * turn, scale, translation, size, size)
    return affine_sample(images, pose.matrix(), size), pose


def rotated_translated_scaled(
    images: Tensor, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Pose]:
    """The paper's set RTS: turned within 45 degrees, scaled by 0.7 to 1.2, placed anywhere on 42 x 42 pixels.

    All three are uniform. The paper does not say which places are allowed: here, those that keep the scaled
    image, before it is turned, on the canvas. A turned corner may leave it, but MNIST's corners are black.

    Args:
        images: (N, C, H, W), floating, at most 35 x 35 so that 1.2 times their size fits.
        generator: as in `rotated`.

    Returns:
        (N, C, 42, 42) in the images' dtype and on their device, and the true pose. First met in chapter 06.
    """
    check_images(images)
    size = (images.shape[2], images.shape[3])
    if any(SCALES[1] * extent > canvas for extent, canvas in zip(size, CANVAS, strict=True)):
        raise ValueError(f"images should fit {CANVAS} when scaled by {SCALES[1]}, not (H, W) = {size}")
    draws = uniform((len(images), 4), images, generator)
    low, high = SCALES
    scale = (low + high) / 2 + (high - low) / 2 * draws[:, 1]
    room = draws.new_tensor([CANVAS[1], CANVAS[0]]) - scale[:, None] * draws.new_tensor([size[1], size[0]])
    pose = Pose(MAX_ANGLE_RTS * draws[:, 0], scale, room / 2 * draws[:, 2:], size, CANVAS)
    return affine_sample(images, pose.matrix(), CANVAS), pose


def check_images(images: Tensor) -> None:
    """ValueError or TypeError unless (N, C, H, W), floating."""
    if images.ndim != 4:
        raise ValueError(f"images should be (N, C, H, W), not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise TypeError(f"images should be of a floating dtype, not {images.dtype}")


def uniform(shape: tuple[int, ...], images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform in [-1, 1), drawn where the generator lives, in float64: no dtype changes the draw."""
    return _drawn(lambda **options: 2 * torch.rand(shape, **options) - 1, images, generator)


def normal(shape: tuple[int, ...], images: Tensor, generator: torch.Generator | None) -> Tensor:
    """As `uniform`, but normal with standard deviation 1."""
    return _drawn(lambda **options: torch.randn(shape, **options), images, generator)


def _drawn(draw: Callable[..., Tensor], images: Tensor, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else "cpu"
    draws = draw(generator=generator, dtype=torch.float64, device=device)
    # Never half precision: it would misplace the digits.
    return draws.to(device=images.device, dtype=torch.promote_types(images.dtype, torch.float32))


def _normalised(matrix: Tensor, target_size: tuple[int, int], source_size: tuple[int, int]) -> Tensor:
    """A (N, 2, 3) map of pixels about the centres, target to source, as a theta for align_corners=False."""
    target = matrix.new_tensor([target_size[1] / 2, target_size[0] / 2, 1.0])
    source = matrix.new_tensor([source_size[1] / 2, source_size[0] / 2])
    return matrix * target / source[:, None]
