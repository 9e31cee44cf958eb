"""How tensors lie in memory, as the templates count it: layouts, strides, vectors, index widths."""

from typing import Any

import torch
import triton.language as tl
from torch import Tensor


def ceil_div(numerator: int, denominator: int) -> int:
    """The quotient, rounded up. `triton.cdiv` and `triton.next_power_of_2` would take most of the time that a
    launch is planned in."""
    return -(-numerator // denominator)


def next_power_of_2(number: int) -> int:
    """The smallest power of two that is no less than a number from 1 on."""
    return 1 << (number - 1).bit_length()


def volume(tensor: Tensor) -> Tensor:
    """An image (N, C, H, W) as a volume of depth one; a volume as it is."""
    return tensor.unsqueeze(2) if tensor.ndim == 4 else tensor


def volume_size(size: tuple[int, ...]) -> tuple[int, ...]:
    return (1, *size) if len(size) == 2 else tuple(size)


def channel_unit(channels: int) -> int:
    """The largest power of two up to 8 that divides the number of channels."""
    return min(channels & -channels, 8) if channels else 1


def vector(tensor: Tensor) -> int:
    """VECTOR of template.py: 0 unless channels are neighbours, else the elements of a 16-byte vector as far
    as the channels and strides allow."""
    if tensor.stride(1) != 1 or tensor.shape[1] == 1:
        return 0
    unit = min(channel_unit(tensor.shape[1]), 16 // tensor.element_size())
    for dimension in (0, *range(2, tensor.ndim)):
        while tensor.stride(dimension) % unit:
            unit //= 2
    return unit


def strides(tensor: Tensor) -> tuple[int, ...]:
    """Strides of n, c, z, y and x as the templates count them."""
    unit = max(vector(tensor), 1)
    n, c, z, y, x = volume(tensor).stride()
    return n // unit, c, z // unit, y // unit, x // unit


def image(tensor: Tensor) -> tuple[Any, ...]:
    """An image as the templates take it: pointer, strides."""
    return tensor, strides(tensor)


def padded_strides(tensor: Tensor, length: int = 4) -> tuple[int, ...]:
    """The strides of a tensor of any number of dimensions, filled up with zeros."""
    return (*tensor.stride(), *[0] * (length - tensor.ndim))


def per_transform(tensor: Tensor) -> tuple[Any, ...]:
    """Parameters as the templates take them: pointer, stride of the transforms, strides within one."""
    first, *rest = padded_strides(tensor, 5)
    return tensor, first, tuple(rest)


def for_all_transforms(tensor: Tensor | None, otherwise: Tensor) -> tuple[Any, ...]:
    """What is shared, as the templates take it: pointer, length, strides. If nothing is, any pointer does."""
    if tensor is None:
        return otherwise, 0, (0, 0, 0, 0)
    return tensor, tensor.shape[0], padded_strides(tensor)


def index_dtype(*tensors: Tensor | None) -> tl.dtype:
    """32 bits unless an element lies 2^31 or more elements from its tensor's first."""
    reach = max(
        sum((s - 1) * abs(stride) for s, stride in zip(t.shape, t.stride(), strict=True))
        for t in tensors
        if t is not None
    )
    # Masked pixels, up to a block beyond the tensor, must not wrap around either.
    return tl.int32 if reach < 2**31 - 2**16 else tl.int64


def last_format(axes: int) -> torch.memory_format:
    """Channels-last of an image or of a volume."""
    return torch.channels_last if axes == 2 else torch.channels_last_3d
