"""Derivatives of every order and direction, around one forward and one backward operator.

First derivatives are fused (`ops.sample_backward`). Second derivatives and forward mode differentiate the
reference: exact, differentiable again, and slower.

An operation has four tensors, of which the last two may be missing: image, parameters of the coordinate map,
what all transforms share of it, and the fill.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import reference
from .backend import is_plain
from .reference import Size

Tensors = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
Gradients = Sequence[Tensor | None]
TENSORS = 4


class Choices(NamedTuple):
    """What fixes an operation beside its tensors; the trailing arguments of both operators."""

    size: Size
    coordinate_map: str
    mode: str = "bilinear"
    padding_mode: str = "zeros"
    align_corners: bool = False
    deterministic: bool | None = None  # None: as torch.use_deterministic_algorithms says
    antialias: bool = False

    @classmethod
    def of(cls, arguments: Sequence[Any]) -> "Choices":
        """From an operator's trailing arguments, in which the dispatcher has turned the size into a list."""
        size, *others = arguments
        return cls(tuple(size), *others)

    @classmethod
    def of_flat(cls, arguments: Sequence[Any]) -> "Choices":
        """The inverse of `flat`."""
        others, size = arguments[: len(cls._fields) - 1], arguments[len(cls._fields) - 1 :]
        return cls(tuple(size), *others)

    def flat(self) -> tuple[Any, ...]:
        """Without the tuple, of which PyTorch miscounts the tangents in an autograd.Function's arguments."""
        return *self[1:], *self.size


def vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """torch.func.vjp, with the one type that it has without auxiliary outputs."""
    output, pullback = torch.func.vjp(function, *primals)  # type: ignore[misc]
    return output, pullback


def present(tensors: Gradients) -> list[Tensor]:
    return [t for t in tensors if t is not None]


def restored(some: Sequence[Tensor], like: Gradients) -> list[Tensor | None]:
    """The inverse of `present`: None where `like` has it."""
    rest = iter(some)
    return [None if t is None else next(rest) for t in like]


def sample_reference(tensors: Gradients, choices: Choices) -> Tensor:
    input, parameters, shared, fill = tensors
    assert input is not None
    assert parameters is not None
    return reference.sample(input, parameters, *choices[:5], shared, fill, choices.antialias)


def reference_function(tensors: Gradients, choices: Choices) -> Callable[..., Tensor]:
    """The reference as a function of those tensors that are there."""
    return lambda *some: sample_reference(restored(some, tensors), choices)


def reference_vjp(grad_output: Tensor, tensors: Gradients, choices: Choices) -> list[Tensor | None]:
    """Gradients of the reference, themselves differentiable in grad_output and in all tensors."""
    _, pullback = vjp(reference_function(tensors, choices), *present(tensors))
    return restored(pullback(grad_output), tensors)


def gradients(
    function: Callable[..., Tensor], primals: Sequence[Tensor], grad_output: Tensor
) -> tuple[Tensor, ...]:
    """A vector-Jacobian product within an operator's implementation. The dispatcher has switched autograd off
    there, and where a mode watches also functorch; leaving inference mode switches autograd on. Autocast
    would compute sums in half precision."""
    device = grad_output.device.type
    full_precision = (
        torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
    )
    with torch.inference_mode(False), torch.enable_grad(), full_precision:
        leaves = [p.detach().requires_grad_() for p in primals]
        return torch.autograd.grad(function(*leaves), leaves, grad_output, materialize_grads=True)


def reference_vjp_function(tensors: Gradients, choices: Choices) -> Callable[..., Any]:
    """`reference_vjp` as a function of grad_output and of the tensors that are there."""

    def function(grad_output: Tensor, *some: Tensor) -> tuple[Tensor, ...]:
        return tuple(present(reference_vjp(grad_output, restored(some, tensors), choices)))

    return function


def reference_double_vjp(
    grads: Gradients, grad_output: Tensor, tensors: Gradients, choices: Choices
) -> list[Tensor | None]:
    """Vector-Jacobian product of `reference_vjp`: for grad_output, then for the tensors."""
    _, pullback = vjp(reference_vjp_function(tensors, choices), grad_output, *present(tensors))
    filled = [
        torch.zeros_like(t) if g is None else g for g, t in zip(grads, tensors, strict=True) if t is not None
    ]
    first, *second = pullback(tuple(filled))
    return [first, *restored(second, tensors)]


def double_vjp_jvp(function: Callable[..., Any], primals: Sequence[Tensor], tangents: Gradients) -> Any:
    """J t without forward mode: u -> J^T u is linear in u, and its vector-Jacobian product at t is J t."""
    output, pullback = vjp(function, *primals)
    zero = torch.zeros_like(output) if isinstance(output, Tensor) else tuple(map(torch.zeros_like, output))
    _, transposed = vjp(pullback, zero)
    filled = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True))
    (tangent,) = transposed(filled)
    return tangent


def empty(like: Tensor | None, otherwise: Tensor) -> Tensor:
    """What an operator returns in place of a gradient that nobody needs."""
    return (otherwise if like is None else like).new_empty(0)


class Sample(torch.autograd.Function):
    """The forward operator, with its derivatives: four tensors, then `Choices.flat`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        choices = Choices.of_flat(arguments[TENSORS:])
        return torch.ops.stn_kernels.sample(*arguments[:TENSORS], *choices)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:TENSORS])
        ctx.save_for_forward(*inputs[:TENSORS])
        ctx.choices = Choices.of_flat(inputs[TENSORS:])

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        needs, flat, tensors = ctx.needs_input_grad[:TENSORS], ctx.choices.flat(), ctx.saved_tensors
        if not torch.is_grad_enabled() and is_plain(grad_output, *tensors):
            from . import ops

            # Nothing will differentiate this: without what an operator and its derivatives cost.
            grads = ops.sample_backward(grad_output, *tensors, *ctx.choices, *needs)
        else:
            grads = SampleBackward.apply(grad_output, *tensors, *needs, *flat)
        return *(g if need else None for g, need in zip(grads, needs, strict=True)), *[None] * len(flat)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        tensors = ctx.saved_tensors
        there = [t for t, tensor in zip(tangents, tensors, strict=False) if tensor is not None]
        return double_vjp_jvp(reference_function(tensors, ctx.choices), present(tensors), there)


class SampleBackward(torch.autograd.Function):
    """The backward operator, with its derivatives: grad_output, four tensors, whether their gradients are
    needed, `Choices.flat`. A gradient that is not needed is an empty tensor."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        tensors, rest = arguments[: 1 + TENSORS], arguments[1 + TENSORS :]
        needs, choices = rest[:TENSORS], Choices.of_flat(rest[TENSORS:])
        return torch.ops.stn_kernels.sample_backward(*tensors, *choices, *needs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        tensors, rest = inputs[: 1 + TENSORS], inputs[1 + TENSORS :]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.needs, ctx.choices = rest[:TENSORS], Choices.of_flat(rest[TENSORS:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        needed = [g if need else None for g, need in zip(grads, ctx.needs, strict=True)]
        grad_output, *tensors = ctx.saved_tensors
        second = reference_double_vjp(needed, grad_output, tensors, ctx.choices)
        return *second, *[None] * (TENSORS + len(ctx.choices.flat()))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
        _, *tensors = ctx.saved_tensors
        there = [t for t, tensor in zip(tangents, ctx.saved_tensors, strict=False) if tensor is not None]
        function = reference_vjp_function(tensors, ctx.choices)
        products = restored(double_vjp_jvp(function, present(ctx.saved_tensors), there), tensors)
        return tuple(
            p if need and p is not None else empty(t, tensors[0])
            for p, need, t in zip(products, ctx.needs, tensors, strict=True)
        )
