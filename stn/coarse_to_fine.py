"""Gradients of theta that see further: values through the image, slopes through blurred copies of it.

A bilinear sample looks at four neighbours, so its slope knows of nothing farther away than a pixel (chapter
04). A blurred image has slopes as far as the blur reaches. Chapter 14 derives this and measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stn.transforms import SamplingOptions, Transform
from stn_kernels import checks
from stn_kernels.reference import compute_dtype

if TYPE_CHECKING:
    from typing_extensions import Unpack


def sample_coarse_to_fine(
    transform: Transform,
    input: Tensor,
    theta: Tensor,
    size: Sequence[int],
    scales: Sequence[int],
    **options: Unpack[SamplingOptions],
) -> Tensor:
    """`transform.sample(input, theta, size)`: the same values, the same gradient of the input, and another
    gradient of theta: that of bilinear samples of blurred copies, added up, each times the square of its
    scale.

    A blur flattens slopes, by about that factor: without it the finest copy alone would be heard. The image
    itself is not among the copies. Its slopes are the steepest, and point to the nearest stroke, whichever
    stroke that is. Where the output is what it should be, the gradient is zero, like the true one. For
    translations it is the gradient of the squared difference between images that are both blurred by a box;
    for other families it need not be the gradient of any function. Chapter 14.

    Args:
        transform, input, theta, size, options: as in `Transform.sample`. mode is that of the values alone:
            with mode="nearest" theta learns too. A learned basis keeps its own gradient and gets the copies'
            besides.
        scales: half-widths of the blurs, in pixels of the input, integers of at least 2, such as (8, 24): the
            largest about as far as theta may be off. A copy costs its blur and one more sample, forward and
            backward, where theta requires a gradient, else nothing.

    Returns:
        (N, C, H', W'), with T transforms (N, T, C, H', W'), in input's dtype.

    Raises:
        TypeError, ValueError: scales is not what it should be; otherwise as in `Transform.sample`.
    """
    scales = check_scales(scales, "scales")
    if not (scales and theta.requires_grad and torch.is_grad_enabled()):
        return transform.sample(input, theta, size, **options)
    output = transform.sample(input, theta.detach(), size, **options)
    # Neighbours in a blurred copy differ by less than half precision can tell.
    dtype = compute_dtype(input, theta)
    image, theta = input.detach().to(dtype), theta.to(dtype)
    options["mode"] = "bilinear"
    if isinstance(fill := options.get("fill_value"), Tensor):
        options["fill_value"] = fill.detach().to(dtype)
    seen = output.new_zeros((), dtype=dtype)
    for scale in scales:
        copy = blur(image, scale, options.get("padding_mode", "zeros"))
        seen = seen + scale**2 * transform.sample(copy, theta, size, **options)
    return output + (seen - seen.detach()).to(output.dtype)  # plus 0, with a gradient


def blur(input: Tensor, half_width: int, padding_mode: str = "zeros") -> Tensor:
    """The image (N, C, H, W), or volume (N, C, D, H, W), averaged with a tent along each axis: the weights of
    pixels at distance d are (half_width - |d|) / half_width^2, none from half_width on. Outside lie zeros;
    under any other padding_mode the average is over what is inside.

    A tent, for it is a box blurred by a box: none of its frequencies is turned round. Chapter 14.
    """
    axes = checks.check_image(input)
    dtype = compute_dtype(input)
    output = input.to(dtype)
    with torch.autocast(input.device.type, enabled=False):
        for axis in range(2, 2 + axes):
            index = torch.arange(input.shape[axis], device=input.device)
            weights = (half_width - (index - index[:, None]).abs()).clamp(min=0).to(dtype)
            total = half_width**2 if padding_mode == "zeros" else weights.sum(1)
            # A matrix, though most of it is zeros: faster than pooling from widths of four pixels on.
            output = (output.movedim(axis, -1) @ (weights.mT / total)).movedim(-1, axis)
    return output.to(input.dtype)


def check_scales(scales: Any, name: str) -> tuple[int, ...]:
    try:
        widths = tuple(scales)
    except TypeError:
        raise TypeError(f"{name} should be a sequence of integers, not {scales!r}") from None
    if not all(checks.is_integer(width) and width >= 2 for width in widths):
        raise ValueError(f"{name} should be integers of at least 2, not {scales!r}")
    return widths
