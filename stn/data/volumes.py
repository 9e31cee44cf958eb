"""Digits as solids: drawn out in depth, turned in space and put into a volume (appendix A.3 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stn.data.distortions import uniform
from stn_kernels import affine_sample
from stn_kernels.checks import check_size, is_integer


@dataclass(frozen=True)
class Pose3d:
    """The true pose of N solids: how each was turned, scaled and moved from centre to centre.

    Coordinates are x to the right, y down, z away from the viewer.

    Attributes:
        rotation: (N, 3, 3), from the solid as it was extruded to the solid in the volume.
        scale: (N,) voxels of the volume per pixel of the digit's image.
        translation: (N, 3) voxels of the volume, x before y before z.
        input_size: (D, H, W) of the slab.
        output_size: (D', H', W') of the volume.
    """

    rotation: Tensor
    scale: Tensor
    translation: Tensor
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]

    def matrix(self) -> Tensor:
        """(N, 3, 4): the theta that made the volume from the slab, for `align_corners=False`.

        It maps points of the volume to points of the slab, so it turns and scales the opposite way.
        """
        backward = self.rotation.mT / self.scale[:, None, None]
        offset = -backward @ self.translation[:, :, None]
        return _normalised(torch.cat([backward, offset], dim=2), self.output_size, self.input_size)

    def inverse_matrix(self) -> Tensor:
        """(N, 3, 4): the theta with which an ideal spatial transformer gets the slab back from the volume.

        Its output frame shows exactly what the slab's frame showed, whatever size is sampled.
        """
        forward = self.rotation * self.scale[:, None, None]
        return _normalised(
            torch.cat([forward, self.translation[:, :, None]], dim=2), self.input_size, self.output_size
        )


def extruded(
    images: Tensor,
    *,
    size: int | Sequence[int] = 32,
    depth: int = 8,
    scale: float = 1.0,
    max_angles: Sequence[float] | None = None,
    max_shift: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Pose3d]:
    """Digits drawn out in depth to slabs, each turned in space about its centre and moved in a volume.

    The paper's volumes have 60 voxels each way; a turned digit of MNIST needs 28 sqrt(2) = 40 at scale 1, its
    ink 29. What leaves the volume is lost.

    Args:
        images: (N, C, H, W), floating; black (0) surrounds them.
        size: of the volume in voxels, one number for a cube, or (D', H', W').
        depth: of the slab, in pixels of the image.
        scale: voxels of the volume per pixel of the image.
        max_angles: degrees, each at least 0: angles about x, y and z are uniform within these either way, and
            the slab is turned about the volume's x axis first, then its y axis, then its z axis. None for a
            rotation that is uniform over all there are.
        max_shift: voxels, at least 0: how far the centre may move along each axis, either way.
        generator: draws the poses; the default generator if None. The same seed gives the same poses for
            images of any dtype and on any device.

    Returns:
        The volumes, (N, C, D', H', W') in the images' dtype and on their device, and their true pose. First
        met in chapter 15.
    """
    if images.ndim != 4:
        raise ValueError(f"images should be (N, C, H, W), not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise TypeError(f"images should be of a floating dtype, not {images.dtype}")
    volume = check_size([size] * 3 if is_integer(size) else size, "size", 3)
    if not is_integer(depth) or depth < 1:
        raise ValueError(f"depth should be an integer of at least 1, not {depth!r}")
    if not scale > 0:
        raise ValueError(f"scale should be positive, not {scale}")
    if max_angles is not None and (len(max_angles) != 3 or not all(angle >= 0 for angle in max_angles)):
        raise ValueError(f"max_angles should be three angles of at least 0 degrees, not {max_angles}")
    if not max_shift >= 0:
        raise ValueError(f"max_shift should be at least 0 voxels, not {max_shift}")
    draws = uniform((len(images), 6), images, generator)
    turn, shift = draws.split(3, 1)
    if max_angles is None:
        rotation = _uniform_rotation((turn + 1) / 2)
    else:
        rotation = rotation_about_axes(torch.deg2rad(turn * turn.new_tensor(max_angles)))
    slab = images[:, :, None].expand(-1, -1, depth, -1, -1)
    pose = Pose3d(
        rotation, torch.full_like(turn[:, 0], scale), max_shift * shift, tuple(slab.shape[2:]), volume
    )
    return affine_sample(slab, pose.matrix(), volume), pose


def rotation_about_axes(angles: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) from angles (..., 3) in radians: about x first, then y, then z.

    These axes stay where they are; the product is R_z R_y R_x. Positive angles take y towards z, z towards x,
    and x towards y. Chapter 15.
    """
    cosine, sine = angles.cos(), angles.sin()
    zero, one = torch.zeros_like(cosine[..., 0]), torch.ones_like(cosine[..., 0])

    def about(axis: int) -> Tensor:
        c, s = cosine[..., axis], sine[..., axis]
        rows = (
            [one, zero, zero, zero, c, -s, zero, s, c],
            [c, zero, s, zero, one, zero, -s, zero, c],
            [c, -s, zero, s, c, zero, zero, zero, one],
        )
        return torch.stack(rows[axis], -1).unflatten(-1, (3, 3))

    return about(2) @ about(1) @ about(0)


def _uniform_rotation(draws: Tensor) -> Tensor:
    """(N, 3) uniform in [0, 1) -> (N, 3, 3) uniform over all rotations, by way of unit quaternions (K.
    Shoemake, Uniform Random Rotations, Graphics Gems III, 1992)."""
    first, second = (1 - draws[:, 0]).sqrt(), draws[:, 0].sqrt()
    angles = 2 * torch.pi * draws[:, 1:]
    x, y = first * angles[:, 0].sin(), first * angles[:, 0].cos()
    z, w = second * angles[:, 1].sin(), second * angles[:, 1].cos()
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def _normalised(matrix: Tensor, target_size: tuple[int, ...], source_size: tuple[int, ...]) -> Tensor:
    """A (N, 3, 4) map of voxels about the centres, target to source, as a theta for align_corners=False."""
    target = matrix.new_tensor([*(extent / 2 for extent in reversed(target_size)), 1.0])
    source = matrix.new_tensor([extent / 2 for extent in reversed(source_size)])
    return matrix * target / source[:, None]
