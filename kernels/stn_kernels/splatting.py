"""The adjoint of sampling: values are added to an image where sampling would have read it.

Splatting is the image's gradient in Eq. 6, and its own derivatives are sampling and Eq. 7: the operators of
`ops.py` in other roles.
"""

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from . import checks
from .autograd import (
    TENSORS,
    Choices,
    Gradients,
    Sample,
    SampleBackward,
    double_vjp_jvp,
    reference_vjp,
)
from .reference import Size

ONLY_IMAGE, ONLY_PARAMETERS = (True, False, False, False), (False, True, False, False)


def no_image(values: Tensor, images: int, size: Size) -> Tensor:
    """An image for its shape only, without memory of its own."""
    return values.new_zeros(()).expand(images, values.shape[1], *size)


class Splat(torch.autograd.Function):
    """values (M, C, H', W') and a grid (M, H', W', 2) to `images` images: then the number of images,
    `Choices.flat` and the images' size."""

    generate_vmap_rule = True

    @staticmethod
    def arguments(rest: tuple[Any, ...]) -> tuple[int, Choices, Size]:
        images, *flat = rest
        others = len(Choices._fields) - 1
        axes = (len(flat) - others) // 2
        return images, Choices.of_flat(flat[: others + axes]), tuple(flat[others + axes :])

    @staticmethod
    def forward(values: Tensor, grid: Tensor, *rest: Any) -> Tensor:
        images, choices, size = Splat.arguments(rest)
        image = no_image(values, images, size)
        operator = torch.ops.stn_kernels.sample_backward
        return operator(values, image, grid, None, None, *choices, *ONLY_IMAGE)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])
        ctx.rest = inputs[2:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, grid = ctx.saved_tensors
        _, choices, _ = Splat.arguments(ctx.rest)
        flat = choices.flat()
        grad_values = grad_grid = None
        if ctx.needs_input_grad[0]:
            grad_values = Sample.apply(grad, grid, None, None, *flat)
        if ctx.needs_input_grad[1]:
            grad_grid = SampleBackward.apply(values, grad, grid, None, None, *ONLY_PARAMETERS, *flat)[1]
        return grad_values, grad_grid, *[None] * len(ctx.rest)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        images, choices, size = Splat.arguments(ctx.rest)

        def function(values: Tensor, grid: Tensor) -> Tensor:
            image = no_image(values, images, size)
            tensors: Gradients = (image, grid, *(None,) * (TENSORS - 2))
            gradient = reference_vjp(values, tensors, choices)[0]
            assert gradient is not None
            return gradient

        return double_vjp_jvp(function, ctx.saved_tensors, tangents[:2])


def run(values: Tensor, grid: Tensor, images: int, size: Size, choices: Choices) -> Tensor:
    """Splats to so many images of a size."""
    if torch.compiler.is_compiling():
        from . import opaque

        return opaque.splat(values, grid, images, size, *choices)
    return Splat.apply(values, grid, images, *choices.flat(), *size)


@overload
def splat(
    values: Tensor,
    grid: Tensor,
    size: Sequence[int],
    *,
    mode: str = ...,
    padding_mode: str = ...,
    align_corners: bool | None = ...,
    deterministic: bool | None = ...,
    return_count: Literal[False] = ...,
) -> Tensor: ...


@overload
def splat(
    values: Tensor,
    grid: Tensor,
    size: Sequence[int],
    *,
    mode: str = ...,
    padding_mode: str = ...,
    align_corners: bool | None = ...,
    deterministic: bool | None = ...,
    return_count: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def splat(
    values: Tensor,
    grid: Tensor,
    size: Sequence[int],
    *,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = False,
    deterministic: bool | None = None,
    return_count: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The adjoint of `grid_sample` in its input: adds values to an image at the points of a grid, each to the
    pixels that sampling there would read, with the same weights.

    Args:
        values: (N, C, H', W') or (N, C, D', H', W'), any strides and floating dtype.
        grid: (N, H', W', 2) or (N, D', H', W', 3), as in `grid_sample`. With T of both for each image,
            values (N, T, C, H', W') and grid (N, T, H', W', 2) are added up.
        size: (H, W) or (D, H, W) of the image, in pixels.
        mode, padding_mode, align_corners, deterministic: as in `grid_sample`; nothing falls on a constant.
        return_count: whether to return, too, what the same grid makes of ones: (N, 1, H, W). image / count is
            then the weighted mean of what fell on each pixel.

    Returns:
        The image (N, C, H, W) in values' dtype, contiguous; or (image, count). Differentiable in values and
        grid. A point with a NaN coordinate falls nowhere.

    Raises:
        TypeError, ValueError: as in `grid_sample`.

    Taught in chapter 04.
    """
    checks.check_tensor(values, "values", "(N, C, H', W')")
    checks.check_tensor(grid, "grid", "(N, H', W', 2)")
    # Only the grid tells T images (N, T, C, H', W') from volumes (N, C, D', H', W').
    several = values.ndim == 6 or (values.ndim == 5 and grid.ndim > 0 and grid.shape[-1] == 2)
    flat = values.flatten(0, 1) if several else values
    axes = checks.check_image(flat, "values")
    expected: tuple[int | str, ...] = (*values.shape[: 1 + several], *values.shape[-axes:], axes)
    checks.check_shape(grid, "grid", expected)
    checks.check_device(grid, "grid", values, "values")
    size = checks.check_size(size, "size", axes)
    choices = checks.check_choices(mode, padding_mode, align_corners, deterministic)
    if padding_mode == "constant":
        raise ValueError("padding_mode should be 'zeros', 'border' or 'reflection', not 'constant'")
    if not isinstance(return_count, bool):
        raise TypeError(f"return_count should be True or False, not {return_count!r}")
    grid = checks.check_dtype(grid, "grid", values, "values")
    points = grid.flatten(0, 1) if several else grid
    where = (points, values.shape[0], size, Choices(tuple(flat.shape[2:]), "grid", *choices))
    image = run(flat, *where)
    if not return_count:
        return image
    ones = flat.new_ones(()).expand(flat.shape[0], 1, *flat.shape[2:])
    return image, run(ones, *where)
