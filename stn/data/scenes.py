"""Scenes: canvases with several digits, and the paper's translated, cluttered digits, TC (appendix A.4)."""

import torch
from torch import Tensor

from stn.data.distortions import Pose, uniform
from stn.data.text import INK
from stn_kernels import affine_sample
from stn_kernels.checks import check_size


def side_by_side(
    images: Tensor, *, size: tuple[int, int] = (40, 60), generator: torch.Generator | None = None
) -> tuple[Tensor, Pose]:
    """Digits from left to right on one canvas, upright and in their own size, each at its own height.

    All arrangements are equally likely in which the inner 20 x 20 pixels of the images, as many as an MNIST
    digit's ink takes, lie on the canvas and do not overlap from left to right. MNIST centres ink by its mass,
    so a stroke may reach beyond: 0.2 % of the ink is lost at borders or below a neighbour.

    Args:
        images: (N, L, H, W), floating: L digits a canvas, from left to right. Black (0) surrounds them.
        size: (H', W') of the canvas, in pixels: at least 20 high and 20 L wide.
        generator: draws the places; the default generator if None. The same seed gives the same places for
            images of any dtype and on any device.

    Returns:
        The canvases, (N, 1, H', W') in the images' dtype and on their device, and the true pose of the N L
        digits, those of a canvas one after the other. First met in chapter 13.
    """
    _check_floating(images, "(N, L, H, W)")
    height, width = check_size(size, "size")
    count, length = images.shape[:2]
    if height < INK or width < length * INK:
        raise ValueError(
            f"size should be at least {INK, length * INK} for {length} digits, not {height, width}"
        )
    draws = uniform((2, count, length), images, generator)
    # Where the gaps are equally likely: L sorted points in the free width, and a digit's width between each.
    free = (width - length * INK) / 2
    across = free * draws[0].sort(1).values + INK * (torch.arange(length).to(draws) - (length - 1) / 2)
    down = (height - INK) / 2 * draws[1]
    places = torch.stack([across, down], -1).flatten(0, 1)
    pose = _moved(places, images.shape[2:], (height, width))
    digits = affine_sample(images.flatten(0, 1)[:, None], pose.matrix(), (height, width))
    return digits.unflatten(0, (count, length)).amax(1), pose


def translated_cluttered(
    images: Tensor,
    *,
    size: tuple[int, int] = (60, 60),
    patches: int = 6,
    patch_size: int = 6,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Pose]:
    """The paper's set TC: each digit anywhere on 60 x 60 pixels, among six 6 x 6 patches of other digits.

    The paper does not say where patches are cut or how they meet the digit. Here a patch is cut from another
    image of the batch, anywhere in its inner 20 x 20 pixels, where the ink is; it lands anywhere on the
    canvas, by whole pixels; and where things overlap the brighter is seen.

    Args:
        images: (N, C, H, W), floating, at least 20 x 20 and at most the canvas; at least 2 of them if there
            are patches.
        size: (H', W') of the canvas, in pixels.
        patches: how many on each canvas, at least 0.
        patch_size: of a side, in pixels, from 1 to 20.
        generator: as in `side_by_side`.

    Returns:
        (N, C, H', W') in the images' dtype and on their device, and the digits' true pose. First met in
        chapter 13.
    """
    _check_floating(images, "(N, C, H, W)")
    height, width = check_size(size, "size")
    count, _, *shape = images.shape
    if min(shape) < INK or shape[0] > height or shape[1] > width:
        raise ValueError(f"images should be from {INK, INK} to {height, width} pixels, not {tuple(shape)}")
    if not patches >= 0:
        raise ValueError(f"patches should be at least 0, not {patches}")
    if not 1 <= patch_size <= INK:
        raise ValueError(f"patch_size should be from 1 to {INK}, not {patch_size}")
    if patches and count < 2:
        raise ValueError(f"images should be at least 2, or there is none to cut clutter from, not {count}")
    draws = uniform((count, 2), images, generator)
    room = draws.new_tensor([width - shape[1], height - shape[0]])
    pose = _moved(room / 2 * draws, tuple(shape), (height, width))
    canvases = affine_sample(images, pose.matrix(), (height, width))
    if patches:
        canvases = _clutter(canvases, images, patches, patch_size, generator)
    return canvases, pose


def _clutter(
    canvases: Tensor, images: Tensor, patches: int, side: int, generator: torch.Generator | None
) -> Tensor:
    count, channels, height, width = canvases.shape
    rows, columns = images.shape[2:]

    def draw(choices: int) -> Tensor:
        """(N, K, 1, 1, 1), each from 0 up to but without `choices`."""
        device = generator.device if generator is not None else "cpu"
        drawn = torch.randint(choices, (count, patches, 1, 1, 1), generator=generator, device=device)
        return drawn.to(images.device)

    index = torch.arange(max(count, channels, side), device=images.device)
    own, channel = index[:count, None, None, None, None], index[:channels, None, None]
    down, across = index[:side, None], index[:side]
    other = (own + 1 + draw(count - 1)) % count
    top, left = ((extent - INK) // 2 + draw(INK - side + 1) for extent in (rows, columns))
    cut = images[other, channel, top + down, left + across]  # (N, K, C, side, side)
    onto = (draw(height - side + 1) + down) * width + draw(width - side + 1) + across
    places = (channel * height * width + onto).expand_as(cut)
    flat = canvases.flatten(1).scatter_reduce(1, places.flatten(1), cut.flatten(1), "amax")
    return flat.view_as(canvases)


def _moved(places: Tensor, input_size: tuple[int, ...], output_size: tuple[int, int]) -> Pose:
    """The pose of digits that are moved and neither turned nor scaled."""
    still = places.new_zeros(len(places))
    height, width = input_size
    return Pose(still, still + 1, places, (height, width), output_size)


def _check_floating(images: Tensor, shape: str) -> None:
    if images.ndim != 4:
        raise ValueError(f"images should be {shape}, not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise TypeError(f"images should be of a floating dtype, not {images.dtype}")
