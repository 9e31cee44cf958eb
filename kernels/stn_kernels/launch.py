"""From tensors to a kernel launch: block shapes, layouts, index width, buffers.

`forward_launch` and `backward_launch` decide everything about a launch from the tensors alone and return it;
real calls run it, and the code-generation checks compile the very same object for a GPU that is not there.

Block shapes follow from arithmetic and from compiled code, not yet from measurements on a GPU:

- channels-last: a thread reads 16 bytes along the channels, so BLOCK_C covers the channels up to 64, and P x
  BLOCK_C is 1024 elements: two vectors of float32 for each of 128 threads and tap.
- any other layout: threads lie along x, one channel at a time, and the coordinates stay in registers: two
  pixels a thread forward, one backward, where twice the state would spill on sm_100.
"""

import dataclasses
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .backend import INTERPRETED, NO_TRITON, result_format

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError(NO_TRITON) from error

from . import coordinate_maps, padding, sampling_kernels
from .autograd import Choices
from .backward import sample_scatter_kernel
from .forward import sample_forward_kernel
from .reference import Size, compute_dtype


class CoordinateMap(NamedTuple):
    function: Any  # @triton.jit functions, both
    vjp: Any


class SamplingKernel(NamedTuple):
    function: Any
    derivative: Any
    taps: int  # along each axis


COORDINATE_MAPS = {
    "affine": CoordinateMap(coordinate_maps.affine, coordinate_maps.affine_vjp),
    "grid": CoordinateMap(coordinate_maps.grid, coordinate_maps.grid_vjp),
}
SAMPLING_KERNELS = {
    "bilinear": SamplingKernel(sampling_kernels.bilinear, sampling_kernels.bilinear_derivative, taps=2),
}
PADDINGS = {"zeros": padding.zeros, "border": padding.border, "reflection": padding.reflection}
TRITON_DTYPES = {torch.float32: tl.float32, torch.float64: tl.float64}

# Enough programs to fill a large GPU several times over; below it, channels are split over programs.
ENOUGH_PROGRAMS = 1024
# From this many channels on, the scatter into a channels-last buffer is worth a transposed copy at the end:
# on sm_90 one vector reduction then does the work of four.
CHANNELS_LAST_SCATTER = 4


@dataclasses.dataclass(frozen=True)
class Launch:
    """A kernel with everything it is launched with."""

    kernel: Any  # a @triton.jit function
    programs: int
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    num_warps: int = 4

    def run(self) -> None:
        if self.programs:
            self.kernel[(self.programs,)](*self.arguments, **self.constants, num_warps=self.num_warps)

    def compile(self) -> Any:
        """Compiles for the active driver's target without running; takes exactly the path of `run`."""
        return self.kernel.warmup(
            *self.arguments, **self.constants, num_warps=self.num_warps, grid=(self.programs,)
        )


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The shape of a program's block: TILE_Y x TILE_X output pixels, BLOCK_C channels at a time."""

    tile_y: int
    tile_x: int
    channels: int

    def tiles(self, size: Size) -> tuple[int, int]:
        """How many tiles cover an output of this size, and how many of them lie in a row."""
        tiles_x = triton.cdiv(size[1], self.tile_x)
        return tiles_x * triton.cdiv(size[0], self.tile_y), tiles_x


def block_shape(size: Size, channels: int, vector: int, backward: bool) -> Blocks:
    """The table of block shapes. `vector`: VECTOR of template.py for what the taps read, or add to."""
    height, width = (triton.next_power_of_2(s) for s in size)
    channels = triton.next_power_of_2(max(channels, 1))
    if INTERPRETED:  # Python runs once per operation and program: few programs, large blocks
        tile_x = min(width, 4096)
        return Blocks(min(height, 4096 // tile_x), tile_x, min(channels, 16))
    if vector:
        block_channels = min(channels, 64)
        elements = 1024 if vector >= 4 else 512  # twice the instructions, or bytes, per element: half as many
        pixels = max(elements // block_channels, 16)
        widest = 2 ** (pixels.bit_length() // 2)  # near square: neighbouring pixels share taps
    else:
        block_channels, pixels, widest = 1, 128 if backward else 256, 32  # a warp along x
    tile_x = min(width, max(widest, pixels // height))
    return Blocks(pixels // tile_x, tile_x, block_channels)


# --- layouts -----------------------------------------------------------------------------------------------


def channel_unit(channels: int) -> int:
    """The largest power of two up to 8 that divides the number of channels."""
    return min(channels & -channels, 8) if channels else 1


def vector(tensor: Tensor) -> int:
    """VECTOR of template.py: 0 unless channels are neighbours, else the elements of a 16-byte vector as far
    as the channels and strides allow."""
    if tensor.stride(1) != 1 or tensor.shape[1] == 1:
        return 0
    unit = min(channel_unit(tensor.shape[1]), 16 // tensor.element_size())
    for stride in (tensor.stride(0), tensor.stride(2), tensor.stride(3)):
        while stride % unit:
            unit //= 2
    return unit


def strides(tensor: Tensor) -> tuple[int, ...]:
    """Strides as the templates count them."""
    unit = max(vector(tensor), 1)
    n, c, y, x = tensor.stride()
    return n // unit, c, y // unit, x // unit


def four(numbers: tuple[int, ...]) -> tuple[int, ...]:
    return (*numbers, *[0] * (4 - len(numbers)))


def index_dtype(*tensors: Tensor) -> tl.dtype:
    """32 bits unless an element lies 2^31 or more elements from its tensor's first."""
    reach = max(
        sum((s - 1) * abs(stride) for s, stride in zip(t.shape, t.stride(), strict=True)) for t in tensors
    )
    # Masked pixels, up to a block beyond the tensor, must not wrap around either.
    return tl.int32 if reach < 2**31 - 2**16 else tl.int64


# --- launches ----------------------------------------------------------------------------------------------


def common_constants(input: Tensor, parameters: Tensor, choices: Choices, blocks: Blocks) -> dict[str, Any]:
    """The constants of both templates."""
    kernel = SAMPLING_KERNELS[choices.mode]
    return {
        "COORDINATE_MAP": COORDINATE_MAPS[choices.coordinate_map].function,
        "KERNEL": kernel.function,
        "TAPS": kernel.taps,
        "PADDING": PADDINGS[choices.padding_mode],
        "ALIGN_CORNERS": choices.align_corners,
        "TILE_Y": blocks.tile_y,
        "TILE_X": blocks.tile_x,
        "BLOCK_C": blocks.channels,
        "CHANNEL_UNIT": channel_unit(input.shape[1]),
        "INPUT_VECTOR": vector(input),
        "COMPUTE": TRITON_DTYPES[compute_dtype(input, parameters)],
    }


def forward_launch(output: Tensor, input: Tensor, parameters: Tensor, choices: Choices) -> Launch:
    batch, channels = input.shape[:2]
    blocks = block_shape(choices.size, channels, vector(input), backward=False)
    tiles, tiles_x = blocks.tiles(choices.size)
    channel_blocks = triton.cdiv(channels, blocks.channels)
    groups = min(channel_blocks, triton.cdiv(ENOUGH_PROGRAMS, max(batch * tiles, 1)))
    blocks_per_group = triton.cdiv(channel_blocks, max(groups, 1))
    groups = triton.cdiv(channel_blocks, max(blocks_per_group, 1))
    return Launch(
        sample_forward_kernel,
        batch * tiles * groups,
        (
            output,
            input,
            parameters,
            strides(output),
            strides(input),
            four(parameters.stride()),
            tuple(choices.size),
            tuple(input.shape[2:]),
            channels // channel_unit(channels),
            tiles,
            tiles_x,
            groups,
            blocks_per_group,
        ),
        {
            **common_constants(input, parameters, choices, blocks),
            "OUTPUT_VECTOR": vector(output),
            "INDEX": index_dtype(output, input, parameters),
        },
    )


def backward_launch(
    grad_input: Tensor | None,
    grad_output: Tensor,
    input: Tensor,
    parameters: Tensor,
    choices: Choices,
    need_parameters: bool,
) -> tuple[Launch, Tensor | None]:
    """The scatter, and the buffer that it fills with the parameters' gradient or its partial sums."""
    batch, channels = input.shape[:2]
    scattered = input if grad_input is None else grad_input
    blocks = block_shape(choices.size, channels, vector(scattered), backward=True)
    tiles, tiles_x = blocks.tiles(choices.size)
    compute = compute_dtype(input, parameters)
    grad_parameters = None
    if need_parameters:
        shape = (batch, tiles, 2, 3) if choices.coordinate_map == "affine" else parameters.shape
        grad_parameters = torch.empty(shape, dtype=compute, device=input.device)
    written = parameters if grad_parameters is None else grad_parameters
    launch = Launch(
        sample_scatter_kernel,
        batch * tiles,
        (
            scattered,  # not touched unless it is the buffer
            written,  # likewise
            grad_output,
            input,
            parameters,
            strides(scattered),
            strides(grad_output),
            strides(input),
            four(parameters.stride()),
            tuple(choices.size),
            tuple(input.shape[2:]),
            channels // channel_unit(channels),
            tiles,
            tiles_x,
            triton.cdiv(channels, blocks.channels),
        ),
        {
            **common_constants(input, parameters, choices, blocks),
            "COORDINATE_MAP_VJP": COORDINATE_MAPS[choices.coordinate_map].vjp,
            "KERNEL_DERIVATIVE": SAMPLING_KERNELS[choices.mode].derivative,
            "NEED_INPUT": grad_input is not None,
            "NEED_PARAMETERS": need_parameters,
            "GRAD_INPUT_VECTOR": vector(scattered),
            "GRAD_OUTPUT_VECTOR": vector(grad_output),
            "INDEX": index_dtype(scattered, written, grad_output, input, parameters),
        },
    )
    return launch, grad_parameters


# --- operators ---------------------------------------------------------------------------------------------


def sample(input: Tensor, parameters: Tensor, choices: Choices) -> Tensor:
    """The forward operator: one kernel, nothing allocated but the output."""
    shape = (*input.shape[:2], *choices.size)
    output = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=result_format(input))
    with torch.cuda.device_of(input):
        forward_launch(output, input, parameters, choices).run()
    return output


def scatter_buffer(input: Tensor, parameters: Tensor) -> Tensor:
    """Zeros for the image's gradient. float32 or float64, since half-precision atomics in the channels-first
    layout compile to compare-and-swap loops and lose precision; channels-last where vector reductions
    pay."""
    last = result_format(input) == torch.channels_last or input.shape[1] >= CHANNELS_LAST_SCATTER
    memory_format = torch.channels_last if last else torch.contiguous_format
    buffer = torch.empty(
        input.shape, dtype=compute_dtype(input, parameters), device=input.device, memory_format=memory_format
    )
    return buffer.zero_()


def alert_not_deterministic() -> None:
    """What PyTorch's own sampler does under torch.use_deterministic_algorithms(True)."""
    if torch.are_deterministic_algorithms_enabled():
        message = (
            "the sampled image's gradient is added up in no fixed order; there is no deterministic kernel yet"
        )
        if not torch.is_deterministic_algorithms_warn_only_enabled():
            raise RuntimeError(message)
        warnings.warn(message, stacklevel=2)


def sample_backward(
    grad_output: Tensor,
    input: Tensor,
    parameters: Tensor,
    choices: Choices,
    need_input: bool,
    need_parameters: bool,
) -> tuple[Tensor, Tensor]:
    """The backward operator: one kernel; what is not needed comes back empty."""
    if need_input and input.is_cuda:
        alert_not_deterministic()
    grad_input = scatter_buffer(input, parameters) if need_input else None
    with torch.cuda.device_of(input):
        launch, grad_parameters = backward_launch(
            grad_input, grad_output, input, parameters, choices, need_parameters
        )
        launch.run()
    if grad_parameters is not None and choices.coordinate_map == "affine":
        grad_parameters = grad_parameters.sum(1)
    return (
        input.new_empty(0)
        if grad_input is None
        else grad_input.to(input.dtype).contiguous(memory_format=result_format(input)),
        parameters.new_empty(0) if grad_parameters is None else grad_parameters.to(parameters.dtype),
    )
