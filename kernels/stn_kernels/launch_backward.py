"""The backward operator: its launches, its buffers, and which way the image's gradient takes.

| way | image's gradient | when |
| --- | --- | --- |
| scatter | atomic additions of floating-point numbers, in no fixed order | by default |
| fixed point | atomic additions of 64-bit integers: the same bits on every run | deterministic |
| gather | without atomics, straight into the result; affine maps, zeros padding, not antialiased | forced |
| gather, fixed point | the same; what cannot be gathered, in fixed point | deterministic, where possible |

Whichever it is, parameters get partial sums that are added up in a fixed order.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .autograd import Choices, Tensors
from .backend import result_format
from .backward import sample_scatter_kernel
from .gather import sample_gather_kernel
from .launch import (
    TRITON_DTYPES,
    Blocks,
    Launch,
    block_shape,
    common_constants,
    coordinate_map,
    planned,
    sample,
    sampling_kernel,
    transforms_per_image,
)
from .launch_collect import collect_launch
from .layouts import (
    ceil_div,
    channel_unit,
    for_all_transforms,
    image,
    index_dtype,
    last_format,
    next_power_of_2,
    padded_strides,
    per_transform,
    vector,
    volume_size,
)
from .reference import compute_dtype


class Way(NamedTuple):
    """How the image's gradient comes about."""

    gather: bool
    fixed_point: bool


WAYS = {
    "scatter": Way(False, False),
    "fixed point": Way(False, True),
    "gather": Way(True, False),
    "gather, fixed point": Way(True, True),
}
forced_way: str | None = None  # for tests and measurements: a name in WAYS

# From this many channels on, the scatter into a channels-last buffer is worth a transposed copy at the end:
# on sm_90 one vector reduction then does the work of four.
CHANNELS_LAST_SCATTER = 4
# The sums of a program's run of tiles take at most this share of what its part of a grid would.
PARTIAL_SUMS = 0.1


def choose_way(choices: Choices) -> Way:
    """The table above."""
    can_gather = choices.coordinate_map == "affine" and choices.padding_mode == "zeros"
    can_gather = can_gather and not choices.antialias
    if forced_way is not None:
        way = WAYS[forced_way]
        return way._replace(gather=way.gather and can_gather)
    deterministic = choices.deterministic
    if deterministic is None:
        deterministic = torch.are_deterministic_algorithms_enabled()
    return Way(gather=deterministic and can_gather, fixed_point=deterministic)


# --- buffers -----------------------------------------------------------------------------------------------


def scatter_buffer(input: Tensor, compute: torch.dtype, fixed_point: bool) -> Tensor:
    """Zeros for the image's gradient. float32 or float64, since half-precision atomics in the channels-first
    layout compile to compare-and-swap loops and lose precision; channels-last where vector reductions
    pay."""
    last = last_format(input.ndim - 2)
    is_last = result_format(input) == last or input.shape[1] >= CHANNELS_LAST_SCATTER
    buffer = torch.empty(
        input.shape,
        dtype=torch.int64 if fixed_point else compute,
        device=input.device,
        memory_format=last if is_last else torch.contiguous_format,
    )
    return buffer.zero_()


def fixed_point_scale(
    grad_output: Tensor, tensors: Tensors, choices: Choices, compute: torch.dtype
) -> Tensor:
    """(N, C): powers of two by which gradients become integers. No pixel's sum can overflow 63 bits, as each
    output pixel adds no more than the largest gradient times the number of its taps. NaN where a gradient is
    not finite, and so is then the whole channel's result."""
    input = tensors[0]
    images, transforms = input.shape[0], transforms_per_image(input, tensors[1])
    points = transforms * math.prod(choices.size)
    if not grad_output.numel():
        return torch.ones(input.shape[:2], dtype=compute, device=input.device)
    taps = sampling_kernel(choices.mode).taps ** len(choices.size)
    bits = 60 - math.ceil(math.log2(points * taps))
    grouped = grad_output.unflatten(0, (images, transforms))
    largest = torch.linalg.vector_norm(grouped, torch.inf, dim=(1, *range(3, grouped.ndim))).to(compute)
    limit = 126 if compute == torch.float32 else 1022  # beyond which a power of two is no normal number
    exponent = (bits - torch.frexp(largest).exponent).clamp(-limit, limit)
    scale = torch.ldexp(torch.ones_like(largest), exponent)
    return torch.where(largest.isfinite(), scale, torch.nan)


# --- launches ----------------------------------------------------------------------------------------------


class Sums(NamedTuple):
    """What one launch of the scatter template computes, and where to. None is not computed."""

    grad_input: Tensor | None = None
    scale: Tensor | None = None  # if grad_input is in fixed point
    grad_parameters: Tensor | None = None  # rows (M, runs, ...) of sums, or as the parameters
    footprints: bool = False  # grad_parameters are those of footprints instead, (M, axes (1 + axes), *size)
    shared_in_rows: bool = False
    grad_shared: Tensor | None = None  # as shared; then nothing else
    except_gathered: bool = False


def scatter_launch(grad_output: Tensor, tensors: Tensors, choices: Choices, sums: Sums) -> Launch:
    input, parameters, shared, _ = tensors
    batch, channels = parameters.shape[0], input.shape[1]
    kernel, map = sampling_kernel(choices.mode), coordinate_map(choices.coordinate_map)
    scattered = input if sums.grad_input is None else sums.grad_input
    blocks = scatter_blocks(sums, tensors, choices)
    tiles, tiles_x = blocks.tiles(choices.size)
    grad_shared = sums.grad_shared
    over_transforms = grad_shared is not None
    per_pixel = map.per_pixel or sums.footprints
    in_rows = sums.grad_parameters is not None and not per_pixel
    runs, row, length = tiles, 1, 1
    if over_transforms:
        length = batch
    elif in_rows:
        assert sums.grad_parameters is not None
        runs, row = sums.grad_parameters.shape[1:]
        length = ceil_div(tiles, runs)
    # What is not computed is not touched either: any pointer will do.
    written = parameters if sums.grad_parameters is None else sums.grad_parameters
    return Launch(
        sample_scatter_kernel,
        runs if over_transforms else batch * runs,
        (
            image(scattered),
            per_transform(written),
            (written, (0, 0, 0, 0)) if grad_shared is None else (grad_shared, padded_strides(grad_shared)),
            image(grad_output),
            image(input),
            per_transform(parameters),
            for_all_transforms(shared, parameters),
            parameters if sums.scale is None else sums.scale,
            (volume_size(tuple(input.shape[2:])), volume_size(choices.size)),
            row,
            transforms_per_image(input, parameters),
            channels // channel_unit(channels),
            ceil_div(channels, blocks.channels),
            tiles_x,
            runs,
            length,
        ),
        {
            **common_constants(input, parameters, shared, choices, blocks),
            "COORDINATE_MAP_VJP": map.vjp,
            "SHARED_VJP": map.shared_vjp or map.vjp,
            "PER_PIXEL": per_pixel,
            "KERNEL_DERIVATIVE": kernel.derivative,
            "NEED_INPUT": sums.grad_input is not None,
            "NEED_PARAMETERS": sums.grad_parameters is not None,
            "NEED_SHARED": over_transforms or sums.shared_in_rows,
            "RUNS_OVER_TRANSFORMS": over_transforms,
            "FIXED_POINT": sums.scale is not None,
            "EXCEPT_GATHERED": sums.except_gathered,
            "ROW": next_power_of_2(max(row, 1)),
            "GRAD_INPUT_VECTOR": vector(scattered),
            "GRAD_OUTPUT_VECTOR": vector(grad_output),
            "INDEX": index_dtype(
                scattered, written, sums.grad_shared, grad_output, input, parameters, shared
            ),
        },
    )


def gather_launch(
    grad_input: Tensor,
    grad_output: Tensor,
    tensors: Tensors,
    choices: Choices,
    scattered: Tensor,
    scale: Tensor | None,
) -> Launch:
    input, parameters, _, _ = tensors
    channels, input_size = input.shape[1], tuple(input.shape[2:])
    kernel = sampling_kernel(choices.mode)
    blocks = block_shape(input_size, channels, vector(grad_output), backward=True)
    tiles, tiles_x = blocks.tiles(input_size)
    channel_blocks = ceil_div(channels, blocks.channels)
    return Launch(
        sample_gather_kernel,
        input.shape[0] * tiles * channel_blocks,
        (
            image(grad_input),
            image(grad_output),
            per_transform(parameters),
            image(scattered),
            parameters if scale is None else scale,
            (volume_size(input_size), volume_size(choices.size)),
            transforms_per_image(input, parameters),
            channels // channel_unit(channels),
            tiles,
            tiles_x,
            channel_blocks,
        ),
        {
            "KERNEL": kernel.function,
            "FIRST_TAP": kernel.first_tap,
            "TAPS": kernel.taps,
            "VANISHES": kernel.vanishes,
            "ALIGN_CORNERS": choices.align_corners,
            "AXES": len(choices.size),
            "FIXED_POINT": scale is not None,
            "TILE_Y": blocks.tile_y,
            "TILE_X": blocks.tile_x,
            "BLOCK_C": blocks.channels,
            "CHANNEL_UNIT": channel_unit(channels),
            "WHOLE_BLOCKS": channels % blocks.channels == 0,
            "GRAD_INPUT_VECTOR": vector(grad_input),
            "GRAD_OUTPUT_VECTOR": vector(grad_output),
            "SCATTERED_VECTOR": vector(scattered),
            "INDEX": index_dtype(grad_input, grad_output, parameters, scattered),
            "COMPUTE": TRITON_DTYPES[compute_dtype(input, parameters)],
        },
    )


# --- the operator ------------------------------------------------------------------------------------------


def scatter_blocks(sums: Sums, tensors: Tensors, choices: Choices) -> Blocks:
    """The block shape of a scatter. It is smaller where the state of a program is larger: its buffer and its
    image lie differently, its sums are 64-bit integers, which have no vectors, its taps are many, or it has
    footprints."""
    input = tensors[0]
    narrowest = vector(input) if sums.grad_input is None else vector(sums.grad_input)
    large = sums.scale is not None or not vector(input) or sampling_kernel(choices.mode).taps > 2
    large = large or choices.antialias
    narrowest = min(narrowest, 1) if large else narrowest
    return block_shape(choices.size, input.shape[1], narrowest, backward=True)


def with_parameters(sums: Sums, tensors: Tensors, choices: Choices, need_shared: bool = False) -> Sums:
    """Adds what the parameters' gradient, and if it is summed in the same rows that of `shared`, needs."""
    input, parameters, shared, _ = tensors
    if coordinate_map(choices.coordinate_map).per_pixel:
        shape: tuple[int, ...] = tuple(parameters.shape)
    else:
        blocks = scatter_blocks(sums, tensors, choices)
        tiles, _ = blocks.tiles(choices.size)
        row = math.prod(parameters.shape[1:]) + (shared.numel() if need_shared and shared is not None else 0)
        # As many tiles a row that it is small beside what their part of a grid would be.
        tile = PARTIAL_SUMS * blocks.tile_y * blocks.tile_x * len(choices.size)
        length = max(1, min(tiles, math.ceil(row / tile)))
        shape = (parameters.shape[0], ceil_div(tiles, length), row)
    grad_parameters = torch.empty(shape, dtype=compute_dtype(input, parameters, shared), device=input.device)
    return sums._replace(grad_parameters=grad_parameters, shared_in_rows=need_shared)


def with_footprints(sums: Sums, tensors: Tensors, choices: Choices) -> Sums:
    """Adds gradients of footprints, which `collect_launch` brings to parameters that belong to pixels."""
    input, parameters, shared, _ = tensors
    axes = len(choices.size)
    shape = (parameters.shape[0], axes * (1 + axes), *choices.size)
    gradients = torch.empty(shape, dtype=compute_dtype(input, parameters, shared), device=input.device)
    return sums._replace(grad_parameters=gradients, footprints=True)


def parameter_gradients(
    grad_output: Tensor, tensors: Tensors, choices: Choices, needs: Sequence[bool], sums: Sums
) -> tuple[Tensor | None, Tensor | None]:
    """Runs the scatter template for `sums` and for the gradients of parameters and shared, as needed."""
    input, parameters, shared, _ = tensors
    map = coordinate_map(choices.coordinate_map)
    _, need_parameters, need_shared, _ = needs
    need_planes = need_shared and map.shared_vjp is not None
    shared_in_rows = need_shared and not need_planes
    if shared_in_rows and map.per_pixel:
        raise NotImplementedError(
            f"the coordinate map {choices.coordinate_map!r} was registered without a shared_vjp, which the "
            "gradient of `shared` needs beside parameters for each pixel"
        )
    if need_parameters and map.per_pixel and choices.antialias:
        sums = with_footprints(sums, tensors, choices)
    elif need_parameters or shared_in_rows:
        sums = with_parameters(sums, tensors, choices, shared_in_rows)
    if sums.grad_input is not None or sums.grad_parameters is not None:
        planned(scatter_launch, grad_output, tensors, choices, sums).run()
    grad_parameters, grad_shared = sums.grad_parameters, None
    compute = compute_dtype(input, parameters, shared)
    if sums.footprints and sums.grad_parameters is not None:
        grad_parameters = torch.empty(parameters.shape, dtype=compute, device=input.device)
        collect_launch(sums.grad_parameters, tensors, choices, grad_parameters=grad_parameters).run()
    elif grad_parameters is not None and not map.per_pixel:
        rows = grad_parameters.sum(1)
        own = math.prod(parameters.shape[1:])
        grad_parameters = rows[:, :own].contiguous().view(parameters.shape)
        if shared_in_rows and shared is not None:
            grad_shared = rows[:, own:].sum(0).reshape(shared.shape)
    if need_planes and shared is not None:
        grad_shared = torch.zeros(shared.shape, dtype=compute, device=input.device)
        if choices.antialias:
            if not sums.footprints:
                sums = with_footprints(Sums(), tensors, choices)
                planned(scatter_launch, grad_output, tensors, choices, sums).run()
            assert sums.grad_parameters is not None
            collect_launch(sums.grad_parameters, tensors, choices, grad_shared=grad_shared).run()
        else:
            planned(scatter_launch, grad_output, tensors, choices, Sums(grad_shared=grad_shared)).run()
    return grad_parameters, grad_shared


def fill_gradient(grad_output: Tensor, tensors: Tensors, choices: Choices) -> Tensor:
    """Each channel's sum over the points that took the fill: they are where a black image shows white. That
    picture, one channel of the output, is the only thing of its size that a gradient puts in memory."""
    input, parameters, shared, fill = tensors
    assert fill is not None
    black = fill.new_zeros(()).expand(input.shape[0], 1, *input.shape[2:])
    outside = sample((black, parameters, shared, fill.new_ones(1)), choices).nan_to_num_(nan=0.0)
    return (grad_output.to(fill.dtype).flatten(2) @ outside.flatten(2).mT).sum(0).flatten()


def sample_backward(
    grad_output: Tensor, tensors: Tensors, choices: Choices, needs: Sequence[bool]
) -> list[Tensor | None]:
    """The backward operator: gradients of the four tensors, None where not needed."""
    input, parameters, shared, _ = tensors
    need_input, need_parameters, _, need_fill = needs
    compute = compute_dtype(input, parameters, shared)
    way = choose_way(choices)
    format = result_format(input)
    grad_input = buffer = scale = None
    with torch.cuda.device_of(input):
        if need_input:
            buffer = scatter_buffer(input, compute, way.fixed_point)
            if way.fixed_point:
                scale = fixed_point_scale(grad_output, tensors, choices, compute)
            if way.gather or way.fixed_point:
                grad_input = torch.empty(
                    input.shape, dtype=input.dtype, device=input.device, memory_format=format
                )
        sums = Sums(grad_input=buffer, scale=scale)
        if buffer is not None and grad_input is not None and way.gather:
            planned(scatter_launch, grad_output, tensors, choices, sums._replace(except_gathered=True)).run()
            planned(gather_launch, grad_input, grad_output, tensors, choices, buffer, scale).run()
            sums = Sums()
        grad_parameters, grad_shared = parameter_gradients(grad_output, tensors, choices, needs, sums)
        grad_fill = fill_gradient(grad_output, tensors, choices) if need_fill else None
    if buffer is not None and grad_input is None:
        grad_input = buffer.to(input.dtype).contiguous(memory_format=format)
    elif grad_input is not None and not way.gather:
        assert buffer is not None
        assert scale is not None
        torch.div(buffer, scale.view(*scale.shape, *[1] * len(choices.size)), out=grad_input)
    return [
        grad_input,
        grad_parameters.to(parameters.dtype) if need_parameters and grad_parameters is not None else None,
        grad_shared.to(shared.dtype) if shared is not None and grad_shared is not None else None,
        grad_fill,
    ]
