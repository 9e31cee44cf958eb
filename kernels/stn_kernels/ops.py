"""Registration with PyTorch: two operators, `stn_kernels::sample` and `stn_kernels::sample_backward`.

Operators are what torch.compile, export, fake tensors and vmap see; they are opaque to all of them, so a
kernel launch, or a look at the values of theta, may happen inside. Importing the package registers
them, so that a process which only loads an exported program needs nothing more.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import aten, registry
from .autograd import (
    TENSORS,
    Choices,
    Gradients,
    empty,
    gradients,
    present,
    reference_double_vjp,
    reference_function,
    restored,
    sample_reference,
)
from .backend import result_format, runs_kernels
from .reference import Size

ARGUMENTS = "Tensor input, Tensor parameters, Tensor? shared, Tensor? fill"
CHOICES = (
    "SymInt[] size, str coordinate_map, str mode, str padding_mode, bool align_corners, bool? deterministic, "
    "bool antialias"
)
NEEDS = "bool need_input, bool need_parameters, bool need_shared, bool need_fill"

library = torch.library.Library("stn_kernels", "DEF")
library.define(f"sample({ARGUMENTS}, {CHOICES}) -> Tensor", tags=torch.Tag.pt2_compliant_tag)
library.define(
    f"sample_backward(Tensor grad_output, {ARGUMENTS}, {CHOICES}, {NEEDS})"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)


# --- implementations ---------------------------------------------------------------------------------------


def runs_fused(input: Tensor, choices: Choices) -> bool:
    return runs_kernels(input.device) and registry.has_kernels(choices.coordinate_map, choices.mode)


def sample(*arguments: Any) -> Tensor:
    tensors, choices = arguments[:TENSORS], Choices.of(arguments[TENSORS:])
    if runs_fused(tensors[0], choices):
        from . import launch

        return launch.sample(tensors, choices)
    output = aten.sample(tensors, choices)
    if output is None:
        output = sample_reference(tensors, choices)
    return output.contiguous(memory_format=result_format(tensors[0]))


def sample_backward(grad_output: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    tensors, rest = arguments[:TENSORS], arguments[TENSORS:]
    choices, needs = Choices.of(rest[:-TENSORS]), rest[-TENSORS:]
    if runs_fused(tensors[0], choices):
        from . import launch_backward

        grads: Gradients | None = launch_backward.sample_backward(grad_output, tensors, choices, needs)
    else:
        grads = aten.sample_backward(grad_output, tensors, choices, needs)
    if grads is None:
        function = reference_function(tensors, choices)
        grads = restored(gradients(function, present(tensors), grad_output), tensors)
    return tuple(
        g.contiguous(memory_format=f) if need and g is not None else empty(t, tensors[0])
        for g, need, t, f in zip(grads, needs, tensors, formats(tensors[0]), strict=True)
    )


def formats(input: Tensor) -> tuple[torch.memory_format, ...]:
    """The memory formats of the four gradients."""
    return result_format(input), *[torch.contiguous_format] * (TENSORS - 1)


for device in ("CPU", "CUDA"):
    library.impl("sample", sample, device)
    library.impl("sample_backward", sample_backward, device)


# --- fake tensors ------------------------------------------------------------------------------------------


@torch.library.register_fake("stn_kernels::sample", lib=library)
def _(
    input: Tensor, parameters: Tensor, shared: Tensor | None, fill: Tensor | None, size: Size, *choices: Any
) -> Tensor:
    shape = (parameters.shape[0], input.shape[1], *size)
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=result_format(input))


@torch.library.register_fake("stn_kernels::sample_backward", lib=library)
def _(grad_output: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    tensors, needs = arguments[:TENSORS], arguments[-TENSORS:]
    return tuple(
        torch.empty_like(t, memory_format=f) if need and t is not None else empty(t, tensors[0])
        for t, need, f in zip(tensors, needs, formats(tensors[0]), strict=True)
    )


# --- autograd of the bare operators ------------------------------------------------------------------------
# The public functions differentiate through `autograd.Sample`, which also knows forward mode; a graph that
# holds a bare operator (an exported one) differentiates through these.


def setup_sample(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:TENSORS])
    ctx.choices = inputs[TENSORS:]


def sample_vjp(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad[:TENSORS]
    grads = torch.ops.stn_kernels.sample_backward(grad_output, *ctx.saved_tensors, *ctx.choices, *needs)
    return *(g if need else None for g, need in zip(grads, needs, strict=True)), *[None] * len(ctx.choices)


def setup_sample_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[: 1 + TENSORS])
    ctx.choices = Choices.of(inputs[1 + TENSORS : -TENSORS])
    ctx.needs = inputs[-TENSORS:]


def sample_backward_vjp(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    needed = [g if need else None for g, need in zip(grads, ctx.needs, strict=True)]
    grad_output, *tensors = ctx.saved_tensors
    second = reference_double_vjp(needed, grad_output, tensors, ctx.choices)
    return *second, *[None] * (len(ctx.choices) + TENSORS)


torch.library.register_autograd("stn_kernels::sample", sample_vjp, setup_context=setup_sample, lib=library)
torch.library.register_autograd(
    "stn_kernels::sample_backward", sample_backward_vjp, setup_context=setup_sample_backward, lib=library
)


# --- vmap: the mapped dimension joins the batch ------------------------------------------------------------


def join_batch(tensor: Tensor, in_dim: int | None, batch: int) -> Tensor:
    mapped = tensor.expand(batch, *tensor.shape) if in_dim is None else tensor.movedim(in_dim, 0)
    return mapped.flatten(0, 1)


def one_by_one(
    operator: Callable[..., Any], batch: int, in_dims: Sequence[int | None], arguments: Sequence[Any]
) -> list[Any]:
    """A loop, for what belongs to the whole batch: the shared tensor, the fill, and their gradients."""
    return [
        operator(
            *(a.select(d, i) if isinstance(d, int) else a for a, d in zip(arguments, in_dims, strict=True))
        )
        for i in range(batch)
    ]


@torch.library.register_vmap("stn_kernels::sample", lib=library)
def _(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Tensor, int]:
    batch, operator = info.batch_size, torch.ops.stn_kernels.sample
    if any(d is not None for d in in_dims[2:TENSORS]):
        return torch.stack(one_by_one(operator, batch, in_dims, arguments)), 0
    input, parameters, *rest = arguments
    if in_dims[0] is None:  # one image for all: so many more transforms of it
        joined = parameters.movedim(in_dims[1], 1).flatten(0, 1)
        return operator(input, joined, *rest).unflatten(0, (joined.shape[0] // batch, batch)), 1
    tensors = [join_batch(t, d, batch) for t, d in zip((input, parameters), in_dims, strict=False)]
    return operator(*tensors, *rest).unflatten(0, (batch, -1)), 0


@torch.library.register_vmap("stn_kernels::sample_backward", lib=library)
def _(
    info: Any, in_dims: Sequence[int | None], *arguments: Any
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    batch, operator = info.batch_size, torch.ops.stn_kernels.sample_backward
    needs = arguments[-TENSORS:]
    if any(d is not None for d in in_dims[3 : 1 + TENSORS]) or any(needs[2:]):
        grads = one_by_one(operator, batch, in_dims, arguments)
        return tuple(map(torch.stack, zip(*grads, strict=True))), (0,) * TENSORS
    tensors = [join_batch(t, d, batch) for t, d in zip(arguments[:3], in_dims, strict=False)]
    grads = operator(*tensors, *arguments[3:])
    split = tuple(
        g.unflatten(0, (batch, -1)) if need else g.expand(batch, 0)
        for g, need in zip(grads, needs, strict=True)
    )
    return split, (0,) * TENSORS
