"""Derivatives of every order and direction, around one forward and one backward operator.

First derivatives are fused (`ops.sample_backward`). Second derivatives and forward mode differentiate the
reference: exact, differentiable again, and slower.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import reference
from .reference import Size


class Choices(NamedTuple):
    """What fixes an operation beside its tensors; the trailing arguments of both operators."""

    size: Size
    coordinate_map: str
    mode: str
    padding_mode: str
    align_corners: bool

    @classmethod
    def of(cls, arguments: Sequence[Any]) -> "Choices":
        """From an operator's trailing arguments, in which the dispatcher has turned the size into a list."""
        size, *names = arguments
        return cls(tuple(size), *names)

    @classmethod
    def of_flat(cls, arguments: Sequence[Any]) -> "Choices":
        """The inverse of `flat`."""
        height, width, *names = arguments
        return cls((height, width), *names)

    def flat(self) -> tuple[Any, ...]:
        """Without the tuple, of which PyTorch miscounts the tangents in an autograd.Function's arguments."""
        return *self.size, *self[1:]


def vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """torch.func.vjp, with the one type that it has without auxiliary outputs."""
    output, pullback = torch.func.vjp(function, *primals)  # type: ignore[misc]
    return output, pullback


def reference_vjp(
    grad_output: Tensor, input: Tensor, parameters: Tensor, choices: Choices
) -> tuple[Tensor, Tensor]:
    """Gradients of the reference for image and parameters, themselves differentiable in all three tensors."""
    _, pullback = vjp(lambda i, p: reference.sample(i, p, *choices), input, parameters)
    return pullback(grad_output)


def reference_double_vjp(
    grads: Sequence[Tensor | None], tensors: tuple[Tensor, Tensor, Tensor], choices: Choices
) -> tuple[Tensor, Tensor, Tensor]:
    """Vector-Jacobian product of `reference_vjp`, for its tensors grad_output, input and parameters."""
    _, input, parameters = tensors
    grad_input, grad_parameters = grads
    _, pullback = vjp(lambda g, i, p: reference_vjp(g, i, p, choices), *tensors)
    return pullback(
        (
            torch.zeros_like(input) if grad_input is None else grad_input,
            torch.zeros_like(parameters) if grad_parameters is None else grad_parameters,
        )
    )


def double_vjp_jvp(
    function: Callable[..., Any], primals: tuple[Tensor, ...], tangents: tuple[Tensor | None, ...]
) -> Any:
    """J t without forward mode: u -> J^T u is linear in u, and its vector-Jacobian product at t is J t."""
    output, pullback = vjp(function, *primals)
    zero = torch.zeros_like(output) if isinstance(output, Tensor) else tuple(map(torch.zeros_like, output))
    _, transposed = vjp(pullback, zero)
    filled = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True))
    (tangent,) = transposed(filled)
    return tangent


class Sample(torch.autograd.Function):
    """The forward operator, with its derivatives."""

    generate_vmap_rule = True

    @staticmethod
    def forward(input: Tensor, parameters: Tensor, *flat: Any) -> Tensor:
        return torch.ops.stn_kernels.sample(input, parameters, *Choices.of_flat(flat))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, parameters, *flat = inputs
        ctx.save_for_backward(input, parameters)
        ctx.save_for_forward(input, parameters)
        ctx.choices = Choices.of_flat(flat)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        needs, flat = ctx.needs_input_grad[:2], ctx.choices.flat()
        grads = SampleBackward.apply(grad_output, *ctx.saved_tensors, *flat, *needs)
        return *(g if need else None for g, need in zip(grads, needs, strict=True)), *[None] * len(flat)

    @staticmethod
    def jvp(ctx: Any, input_tangent: Tensor | None, parameters_tangent: Tensor | None, *_: None) -> Tensor:
        choices = ctx.choices
        return double_vjp_jvp(
            lambda i, p: reference.sample(i, p, *choices),
            ctx.saved_tensors,
            (input_tangent, parameters_tangent),
        )


class SampleBackward(torch.autograd.Function):
    """The backward operator, with its derivatives. A gradient that is not needed is an empty tensor."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad_output: Tensor, input: Tensor, parameters: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        *flat, need_input, need_parameters = rest
        return torch.ops.stn_kernels.sample_backward(
            grad_output, input, parameters, *Choices.of_flat(flat), need_input, need_parameters
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        tensors, (*flat, need_input, need_parameters) = inputs[:3], inputs[3:]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.choices = Choices.of_flat(flat)
        ctx.needs = need_input, need_parameters

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        needed = tuple(g if need else None for g, need in zip(grads, ctx.needs, strict=True))
        second = reference_double_vjp(needed, ctx.saved_tensors, ctx.choices)
        return *second, *[None] * (len(ctx.choices.flat()) + 2)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
        choices = ctx.choices
        products = double_vjp_jvp(
            lambda g, i, p: reference_vjp(g, i, p, choices), ctx.saved_tensors, tangents[:3]
        )
        return tuple(p if need else p.new_empty(0) for p, need in zip(products, ctx.needs, strict=True))
