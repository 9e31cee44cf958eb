"""Lines of text on a bent baseline, as on a bottle or a badge: what text recognition must straighten."""

import torch
from torch import Tensor

from stn.data.distortions import Pose, uniform
from stn_kernels import affine_sample
from stn_kernels.checks import check_size

INK = 20  # pixels of an MNIST image that its digit may take, each way


def curved_text(
    images: Tensor,
    *,
    size: tuple[int, int] = (48, 96),
    scale: float = 0.75,
    spacing: float = 17.0,
    max_bend: float = 120.0,
    max_tilt: float = 15.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Pose]:
    """Digits in a row on the arc of a circle, each turned with the arc.

    Bend, tilt and place of a line are uniform; it is placed so that its digits' centres stay half a digit
    away from the borders. Where two digits overlap the brighter is seen.

    Args:
        images: (N, L, H, W), floating: L digits a line, from left to right. Black (0) surrounds them.
        size: (H', W') of the canvas, in pixels. Lines that do not fit are centred, and cut off.
        scale: pixels of the canvas per pixel of a digit's image.
        spacing: between neighbouring digits' centres along the arc, in pixels of the canvas.
        max_bend: degrees, at least 0: by how much the direction of writing may change from the first digit
            to the last, either way.
        max_tilt: degrees, at least 0: how far the middle of the line may lean either way.
        generator: as in `rotated`.

    Returns:
        The lines, (N, 1, H', W') in the images' dtype and on their device, and the true pose of the N L
        digits, those of a line one after the other. First met in chapter 12.
    """
    if images.ndim != 4:
        raise ValueError(f"images should be (N, L, H, W), not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise TypeError(f"images should be of a floating dtype, not {images.dtype}")
    height, width = check_size(size, "size")
    for name, value in (("scale", scale), ("spacing", spacing)):
        if not value > 0:
            raise ValueError(f"{name} should be positive, not {value}")
    for name, value in (("max_bend", max_bend), ("max_tilt", max_tilt)):
        if not value >= 0:
            raise ValueError(f"{name} should be at least 0 degrees, not {value}")
    count, length = images.shape[:2]
    draws = uniform((count, 4), images, generator)
    tilt = torch.deg2rad(max_tilt * draws[:, 1:2])
    bend = torch.deg2rad(max_bend * draws[:, :1])  # clockwise, as all directions here: y points down
    along = spacing * (torch.arange(length).to(draws) - (length - 1) / 2)
    curvature = bend / (spacing * max(length - 1, 1))
    places = _arc(along, tilt, curvature)
    low, high = places.amin(1), places.amax(1)
    room = (draws.new_tensor([width, height]) - scale * INK - (high - low)).clamp(min=0)
    places = places + (draws[:, 2:] * room / 2 - (low + high) / 2)[:, None]
    angle = -torch.rad2deg(tilt + curvature * along)
    shape = (images.shape[2], images.shape[3])
    pose = Pose(
        angle.flatten(), torch.full_like(angle, scale).flatten(), places.flatten(0, 1), shape, (height, width)
    )
    digits = affine_sample(images.reshape(-1, 1, *shape), pose.matrix(), (height, width))
    return digits.unflatten(0, (count, length)).amax(1), pose


def _arc(along: Tensor, direction: Tensor, curvature: Tensor) -> Tensor:
    """Points (N, L, 2) on arcs through the origin, (L,) along from there, where the arcs' direction is
    (N, 1). A chord has the mean direction of its arc; sinc is exact for a straight line, too."""
    half = curvature * along / 2
    chord = along * torch.sinc(half / torch.pi)
    return torch.stack([chord * (direction + half).cos(), chord * (direction + half).sin()], -1)
