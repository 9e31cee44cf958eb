"""Registration with PyTorch: two operators, `stn_kernels::sample` and `stn_kernels::sample_backward`.

Operators are what torch.compile, export, fake tensors and vmap see; they are opaque to all of them, so a
kernel launch, or a look at the values of theta, may happen inside. Importing this module registers them.
"""

from typing import Any

import torch
from torch import Tensor

from . import aten, reference
from .autograd import Choices, Sample, reference_double_vjp, reference_vjp
from .backend import result_format, runs_kernels
from .reference import Size

CHOICES = "SymInt[2] size, str coordinate_map, str mode, str padding_mode, bool align_corners"
TENSORS = "Tensor input, Tensor parameters"

library = torch.library.Library("stn_kernels", "DEF")
library.define(f"sample({TENSORS}, {CHOICES}) -> Tensor", tags=torch.Tag.pt2_compliant_tag)
library.define(
    f"sample_backward(Tensor grad_output, {TENSORS}, {CHOICES}, bool need_input, bool need_parameters)"
    " -> (Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)


# --- implementations ---------------------------------------------------------------------------------------


def sample(input: Tensor, parameters: Tensor, *choices: Any) -> Tensor:
    chosen = Choices.of(choices)
    if runs_kernels(input.device):
        from . import launch

        return launch.sample(input, parameters, chosen)
    if aten.computes_same(input, parameters):
        return aten.sample(input, parameters, chosen)
    return reference.sample(input, parameters, *chosen).contiguous()


def sample_backward(
    grad_output: Tensor, input: Tensor, parameters: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    *choices, need_input, need_parameters = rest
    chosen = Choices.of(choices)
    if runs_kernels(input.device):
        from . import launch

        return launch.sample_backward(grad_output, input, parameters, chosen, need_input, need_parameters)
    if aten.computes_same(input, parameters):
        grads = aten.sample_backward(grad_output, input, parameters, chosen, need_input)
    else:
        with torch.enable_grad():
            grads = reference_vjp(grad_output, input, parameters, chosen)
    return (
        grads[0].contiguous() if need_input else input.new_empty(0),
        grads[1].contiguous() if need_parameters else parameters.new_empty(0),
    )


for device in ("CPU", "CUDA"):
    library.impl("sample", sample, device)
    library.impl("sample_backward", sample_backward, device)


# --- fake tensors ------------------------------------------------------------------------------------------


@torch.library.register_fake("stn_kernels::sample", lib=library)
def _(input: Tensor, parameters: Tensor, size: Size, *choices: Any) -> Tensor:
    shape = (*input.shape[:2], *size)
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=result_format(input))


@torch.library.register_fake("stn_kernels::sample_backward", lib=library)
def _(grad_output: Tensor, input: Tensor, parameters: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    need_input, need_parameters = rest[-2:]
    return (
        torch.empty_like(input, memory_format=result_format(input)) if need_input else input.new_empty(0),
        torch.empty_like(parameters, memory_format=torch.contiguous_format)
        if need_parameters
        else parameters.new_empty(0),
    )


# --- autograd of the bare operators ------------------------------------------------------------------------
# The public functions differentiate through `autograd.Sample`, which also knows forward mode; a graph that
# holds a bare operator (an exported one) differentiates through these.


def setup_sample(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, parameters, *choices = inputs
    ctx.save_for_backward(input, parameters)
    ctx.choices = choices


def sample_vjp(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad[:2]
    grads = torch.ops.stn_kernels.sample_backward(grad_output, *ctx.saved_tensors, *ctx.choices, *needs)
    return *(g if need else None for g, need in zip(grads, needs, strict=True)), *[None] * len(ctx.choices)


def setup_sample_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3])
    *choices, need_input, need_parameters = inputs[3:]
    ctx.choices = Choices.of(choices)
    ctx.needs = need_input, need_parameters


def sample_backward_vjp(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    needed = tuple(g if need else None for g, need in zip(grads, ctx.needs, strict=True))
    second = reference_double_vjp(needed, ctx.saved_tensors, ctx.choices)
    return *second, *[None] * (len(ctx.choices) + 2)


torch.library.register_autograd("stn_kernels::sample", sample_vjp, setup_context=setup_sample, lib=library)
torch.library.register_autograd(
    "stn_kernels::sample_backward", sample_backward_vjp, setup_context=setup_sample_backward, lib=library
)


# --- vmap: the mapped dimension joins the batch ------------------------------------------------------------


def join_batch(tensor: Tensor, in_dim: int | None, batch: int) -> Tensor:
    mapped = tensor.expand(batch, *tensor.shape) if in_dim is None else tensor.movedim(in_dim, 0)
    return mapped.flatten(0, 1)


@torch.library.register_vmap("stn_kernels::sample", lib=library)
def _(info: Any, in_dims: Any, input: Tensor, parameters: Tensor, *choices: Any) -> tuple[Tensor, int]:
    tensors = [join_batch(t, d, info.batch_size) for t, d in zip((input, parameters), in_dims, strict=False)]
    output = torch.ops.stn_kernels.sample(*tensors, *choices)
    return output.unflatten(0, (info.batch_size, -1)), 0


@torch.library.register_vmap("stn_kernels::sample_backward", lib=library)
def _(
    info: Any, in_dims: Any, *arguments: Any
) -> tuple[tuple[Tensor, Tensor], tuple[int | None, int | None]]:
    tensors = [join_batch(t, d, info.batch_size) for t, d in zip(arguments[:3], in_dims, strict=False)]
    grads = torch.ops.stn_kernels.sample_backward(*tensors, *arguments[3:])
    split = tuple(
        g.unflatten(0, (info.batch_size, -1)) if need else g.expand(info.batch_size, 0)
        for g, need in zip(grads, arguments[-2:], strict=True)
    )
    return split, (0, 0)


# --- the way in --------------------------------------------------------------------------------------------


@torch.compiler.allow_in_graph
def apply(input: Tensor, parameters: Tensor, *choices: Any) -> Tensor:
    """Sample with all derivatives, opaque to Dynamo, which cannot trace an autograd.Function with a jvp."""
    return Sample.apply(input, parameters, *Choices.of(choices).flat())
