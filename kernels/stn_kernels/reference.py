"""Every operation in differentiable plain PyTorch: the definition that the kernels are held to.

Nothing here is fast. Each function says what a kernel must compute, in any floating dtype, and PyTorch's
autograd differentiates it. It also serves whatever no fused kernel covers: second derivatives, forward mode,
mixed dtypes and non-finite coordinates on the CPU.

Coordinates are pixels *relative to the centre of the image*. With `half_extent` e and `centre` c,

    normalised u in [-1, 1]  ->  offset r = e u  ->  pixel a = c + r,     c = (W - 1) / 2,

    e = W / 2 for align_corners=False (-1 and 1 are the outer edges of the border pixels),
    e = (W - 1) / 2 for align_corners=True (-1 and 1 are the centres of the border pixels).

A map between images of one size then never multiplies and divides by that size: the identity is exact at
every width, where the usual ((u + 1) W - 1) / 2 is off by rounding unless W is a power of two.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Size = tuple[int, int]


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if any tensor is float64, else float32: the dtype of coordinates, weights and sums."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def half_extent(size: int, align_corners: bool) -> float:
    """Pixels from the centre of `size` pixels to the coordinate 1."""
    return (size - 1) / 2 if align_corners else size / 2


def pixels_from_centre(size: int, like: Tensor) -> Tensor:
    """Positions of `size` pixels relative to their centre: (size,), multiples of one half, exact."""
    return torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2


# --- coordinate maps: parameters -> offsets (N, H', W', 2), x before y -------------------------------------


def affine_offsets(theta: Tensor, input_size: Size, size: Size, align_corners: bool) -> Tensor:
    """Eq. 1, A (x, y, 1)^T, written between pixel offsets: theta (N, 2, 3) -> (N, H', W', 2)."""
    source = [half_extent(s, align_corners) for s in reversed(input_size)]
    target = [half_extent(s, align_corners) for s in reversed(size)]
    x = pixels_from_centre(size[1], theta)[:, None]
    y = pixels_from_centre(size[0], theta)[:, None, None]

    def row(i: int) -> Tensor:  # source pixels along axis i for each target pixel
        # A single target pixel sits at the centre: its offset is zero, and so may be its half extent.
        x_scale, y_scale = (source[i] / t if t else 0.0 for t in target)
        t = theta[:, i, :, None, None, None]
        return t[:, 0] * x_scale * x + (t[:, 1] * y_scale * y + t[:, 2] * source[i])

    return torch.cat([row(0), row(1)], dim=-1)


def grid_offsets(grid: Tensor, input_size: Size, size: Size, align_corners: bool) -> Tensor:
    """A sampling grid of normalised coordinates (N, H', W', 2) as pixel offsets, same shape."""
    height, width = input_size
    return torch.stack(
        [grid[..., 0] * half_extent(width, align_corners), grid[..., 1] * half_extent(height, align_corners)],
        dim=-1,
    )


def affine_grid(theta: Tensor, size: Size, align_corners: bool = False) -> Tensor:
    """The sampling grid T_theta(G) of Eq. 1: source coordinates for each pixel of the output.

    Args:
        theta: (N, 2, 3), any floating dtype; rows give x and y.
        size: (H', W') of the output.
        align_corners: whether -1 and 1 are the centres (True) or the outer edges (False) of border pixels.

    Returns:
        (N, H', W', 2) in theta's dtype, normalised so that the image spans [-1, 1], x before y: the same
        values as `torch.nn.functional.affine_grid`, rounded less.
    """
    height, width = size
    x_extent, y_extent = half_extent(width, align_corners), half_extent(height, align_corners)
    x = pixels_from_centre(width, theta) / (x_extent or 1.0)
    y = pixels_from_centre(height, theta) / (y_extent or 1.0)
    a = theta[:, None, None]
    return a[..., 0] * x[:, None] + (a[..., 1] * y[:, None, None] + a[..., 2])


# --- padding: offset -> offset inside the image ------------------------------------------------------------


def pad_zeros(offset: Tensor, half_extent: float, centre: float) -> Tensor:
    """The offset itself. Farther than two pixels outside, every tap is zero: stop there, so that it stays
    finite."""
    return offset.clamp(-centre - 2, centre + 2)


def pad_border(offset: Tensor, half_extent: float, centre: float) -> Tensor:
    """The nearest offset between the border pixels; no gradient from there on outwards, as in PyTorch."""
    return torch.where(offset.abs() < centre, offset, offset.detach().clamp(-centre, centre))


def pad_reflection(offset: Tensor, half_extent: float, centre: float) -> Tensor:
    """The offset mirrored at -half_extent and half_extent as often as needed, then as `pad_border`."""
    if half_extent == 0:
        return offset * 0
    span = 2 * half_extent
    distance = torch.where(offset < -half_extent, -(offset + half_extent), offset + half_extent)
    turns = (distance.detach() / span).floor()
    rest = distance - turns * span
    odd = turns - 2 * (turns / 2).floor() == 1
    return pad_border(torch.where(odd, half_extent - rest, rest - half_extent), half_extent, centre)


# --- sampling kernels: distance in pixels -> weight --------------------------------------------------------


def bilinear(t: Tensor) -> Tensor:
    """Eq. 5, max(0, 1 - |t|). Autograd sees the derivative to the right of the kinks at -1, 0 and 1."""
    return torch.where((t >= -1) & (t < 1), torch.where(t < 0, 1 + t, 1 - t), torch.zeros_like(t))


CoordinateMap = Callable[[Tensor, Size, Size, bool], Tensor]
COORDINATE_MAPS: dict[str, CoordinateMap] = {"affine": affine_offsets, "grid": grid_offsets}
PADDINGS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "zeros": pad_zeros,
    "border": pad_border,
    "reflection": pad_reflection,
}
SAMPLING_KERNELS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "bilinear": (bilinear, 2)
}  # weight, taps


def sample(
    input: Tensor,
    parameters: Tensor,
    size: Size,
    coordinate_map: str,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Tensor:
    """Eq. 3: V[c, i] = sum over n, m of U[c, n, m] k(a_i - m) k(b_i - n), the sums over the kernel's support.

    (a_i, b_i) are the pixel coordinates to which the coordinate map sends output pixel i.

    Args:
        input: U, (N, C, H, W), any floating dtype.
        parameters: what the coordinate map reads: for "affine" theta (N, 2, 3), for "grid" (N, H', W', 2).
        size: (H', W') of the output.
        coordinate_map, mode, padding_mode: names in COORDINATE_MAPS, SAMPLING_KERNELS and PADDINGS.
        align_corners: see `affine_grid`.

    Returns:
        V, (N, C, H', W') in input's dtype, computed in `compute_dtype`. Where a coordinate is NaN (or
        infinite, under reflection), the output is NaN, the image gets no gradient, and the coordinate's
        gradient is NaN.
    """
    dtype = compute_dtype(input, parameters)
    height, width = input.shape[-2:]
    weight, taps = SAMPLING_KERNELS[mode]
    pad = PADDINGS[padding_mode]

    offsets = COORDINATE_MAPS[coordinate_map](parameters.to(dtype), (height, width), size, align_corners)
    undefined = ~offsets.isfinite() if padding_mode == "reflection" else offsets.isnan()
    undefined = undefined.any(-1)
    # Left at the undefined points: zero weight for the image, and a NaN that follows the coordinate
    # backwards.
    raw = torch.where(undefined, offsets.sum(-1), 0)
    poison = raw * torch.where(undefined, torch.nan, 1.0)
    offsets = torch.where(undefined[..., None], 0, offsets)

    def along(axis: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Index, weight and validity of each tap along one axis: (taps, N, H', W')."""
        centre = (length - 1) / 2
        position = pad(offsets[..., axis], half_extent(length, align_corners), centre) + centre
        first = position.detach().floor() - (taps // 2 - 1)
        neighbours = torch.stack([first + i for i in range(taps)])
        valid = (neighbours >= 0) & (neighbours < length)
        return neighbours.clamp(0, length - 1).long(), weight(position - neighbours), valid

    columns, column_weights, column_valid = along(0, width)
    rows, row_weights, row_valid = along(1, height)

    pixels = input.to(dtype).flatten(2)  # (N, C, H W)
    output = pixels.new_zeros((*input.shape[:2], size[0] * size[1]))
    for n in range(taps):
        for m in range(taps):
            index = (rows[n] * width + columns[m]).flatten(1)[:, None].expand(-1, input.shape[1], -1)
            w = row_weights[n] * column_weights[m]
            w = torch.where(row_valid[n] & column_valid[m] & ~undefined, w, 0)
            output = output + pixels.gather(2, index) * w.flatten(1)[:, None]
    output = output.unflatten(2, size) + poison[:, None]
    return output.to(input.dtype)
