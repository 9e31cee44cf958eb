"""From tensors to kernel launches: block shapes, buffers, and which backward runs.

The functions that end in `_launch` decide everything about a launch from the tensors alone and return it;
real calls run it, and the code-generation checks compile the very same object for a GPU that is not there.

Block shapes, `Table`, follow from compiled code: of the block shapes that leave nothing in local memory those
with the fewest instructions an element, since on an H200 instructions, not bytes, take the time.

- channels-last: a thread reads 16 bytes along the channels, at most 16 of them at a time, which is two
  sectors of memory in float32, and P x BLOCK_C is 1024 elements: two vectors of float32 for each of 128
  threads and tap; half as many backward.
- any other layout: threads lie along x, one channel at a time, and the coordinates stay in registers: two
  pixels a thread.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .backend import INTERPRETED, NO_TRITON, result_format

try:
    import triton.language as tl
except ImportError as error:
    raise ImportError(NO_TRITON) from error

from . import coordinate_maps, mesh_maps, pixel_maps, registry, sampling_kernels, shared_maps
from .autograd import Choices, Tensors
from .forward import sample_forward_kernel
from .layouts import (
    ceil_div,
    channel_unit,
    for_all_transforms,
    image,
    index_dtype,
    next_power_of_2,
    per_transform,
    vector,
    volume_size,
)
from .reference import BETWEEN_PIXELS, Size, compute_dtype
from .registry import CoordinateMap, SamplingKernel

COORDINATE_MAPS = {
    "affine": CoordinateMap(coordinate_maps.affine, coordinate_maps.affine_vjp),
    "projective": CoordinateMap(coordinate_maps.projective, coordinate_maps.projective_vjp),
    "grid": CoordinateMap(pixel_maps.grid, pixel_maps.grid_vjp, per_pixel=True),
    "displacement": CoordinateMap(pixel_maps.displacement, pixel_maps.displacement_vjp, per_pixel=True),
    "normalised_displacement": CoordinateMap(
        pixel_maps.normalised_displacement, pixel_maps.normalised_displacement_vjp, per_pixel=True
    ),
    "basis": CoordinateMap(shared_maps.basis, shared_maps.basis_vjp, shared_vjp=shared_maps.basis_shared_vjp),
    "residual_basis": CoordinateMap(
        shared_maps.residual_basis, shared_maps.basis_vjp, shared_vjp=shared_maps.basis_shared_vjp
    ),
    "tps": CoordinateMap(shared_maps.tps, shared_maps.tps_vjp),
    "mesh": CoordinateMap(mesh_maps.mesh, mesh_maps.mesh_vjp),
}
SAMPLING_KERNELS = {
    "nearest": SamplingKernel(
        sampling_kernels.box, sampling_kernels.box_derivative, 1, sampling_kernels.round_half_even
    ),
    "integer": SamplingKernel(
        sampling_kernels.box, sampling_kernels.box_derivative, 1, sampling_kernels.middle_taps
    ),
    "bilinear": SamplingKernel(
        sampling_kernels.bilinear,
        sampling_kernels.bilinear_derivative,
        2,
        sampling_kernels.middle_taps,
        vanishes=True,
    ),
    "bicubic": SamplingKernel(
        sampling_kernels.bicubic,
        sampling_kernels.bicubic_derivative,
        4,
        sampling_kernels.middle_taps,
        vanishes=True,
    ),
}
TRITON_DTYPES = {torch.float32: tl.float32, torch.float64: tl.float64}

OLDEST_CAPABILITY = (7, 0)  # as for torch.compile
AMD = torch.version.hip is not None  # 64 threads to a warp, and no limit on registers to be set


@dataclasses.dataclass(frozen=True)
class Table:
    """How much a program holds at a time: elements, that is pixels times channels, where channels are
    neighbours in memory; pixels where they are not."""

    elements: int = 1024
    narrow_elements: int = 512  # vectors under 16 bytes: twice the instructions, or bytes, for each element
    backward_elements: int = 512  # there are sums of slopes, too
    # The most of them. Few: every thread along them works out the coordinates of its pixels.
    channels: int = 16
    volume_channels: int = 32  # where coordinates take the most registers
    pixels: int = 256
    backward_pixels: int = 256
    width: int = 32  # of a block of pixels: a warp along x
    warps: int = 4  # of 32 threads
    # Enough programs to fill a large GPU several times over; below it, channels are split over programs.
    enough_programs: int = 1024


# What `make tune` found on a device, by its name; any other has the defaults.
TABLES: dict[str, Table] = {}


@functools.cache
def table_of(device: int | None) -> Table:
    """RuntimeError for a GPU that Triton does not compile for, which would say so in its compiler's words."""
    if device is None:
        return Table()
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    if not (AMD or INTERPRETED) and capability < OLDEST_CAPABILITY:
        has, needs = (".".join(map(str, version)) for version in (capability, OLDEST_CAPABILITY))
        raise RuntimeError(
            f"{name} has compute capability {has}, and Triton compiles for {needs} and later: use the CPU, "
            "or with stn_kernels.reference"
        )
    return TABLES.get(name, Table())


def table() -> Table:
    """That of the current device."""
    return table_of(torch.cuda.current_device() if torch.cuda.is_initialized() else None)


def coordinate_map(name: str) -> CoordinateMap:
    return COORDINATE_MAPS[name] if name in COORDINATE_MAPS else registry.COORDINATE_MAPS[name]


def sampling_kernel(name: str) -> SamplingKernel:
    return SAMPLING_KERNELS[name] if name in SAMPLING_KERNELS else registry.SAMPLING_KERNELS[name]


@dataclasses.dataclass(frozen=True)
class Launch:
    """A kernel with everything it is launched with."""

    kernel: Any  # a @triton.jit function
    programs: int
    arguments: tuple[Any, ...]
    constants: dict[str, Any]

    def options(self) -> dict[str, Any]:
        """By default 128 threads a program. On NVIDIA's GPUs also the registers that let four such blocks
        share a multiprocessor: left to itself the assembler now and then aims for five, and spills.
        Footprints with many taps, in volumes or in fixed point need more, and three blocks share one."""
        warps = table().warps
        if AMD:
            return {"num_warps": max(warps // 2, 1)}
        doubles = self.constants["COMPUTE"] == tl.float64
        if doubles:
            return {"num_warps": warps}
        many = self.constants.get("ANTIALIAS", False) and (
            self.constants["TAPS"] > 2
            or self.constants["AXES"] == 3
            or self.constants.get("FIXED_POINT", False)
        )
        return {"num_warps": warps, "maxnreg": 168 if many else 128}

    def run(self) -> None:
        if self.programs:
            self.kernel[(self.programs,)](*self.arguments, **self.constants, **self.options())

    def compile(self) -> Any:
        """Compiles for the active driver's target without running; takes exactly the path of `run`."""
        return self.kernel.warmup(*self.arguments, **self.constants, **self.options(), grid=(self.programs,))


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The shape of a program's block: TILE_Y x TILE_X pixels, BLOCK_C channels at a time."""

    tile_y: int
    tile_x: int
    channels: int

    def tiles(self, size: Size) -> tuple[int, int]:
        """How many tiles cover an output of this size, and how many of them lie in a row. In 3-D, rows of all
        depths follow one another."""
        tiles_x = ceil_div(size[-1], self.tile_x)
        return tiles_x * ceil_div(math.prod(size[:-1]), self.tile_y), tiles_x


def block_shape(size: Size, channels: int, vector: int, backward: bool = False) -> Blocks:
    """The shape of a block. `vector`: the smallest VECTOR of template.py among what a program reads and
    writes for each tap."""
    height, width = (next_power_of_2(max(s, 1)) for s in (math.prod(size[:-1]), size[-1]))
    channels = next_power_of_2(max(channels, 1))
    if INTERPRETED:  # Python runs once per operation and program: few programs, large blocks
        tile_x = min(width, 4096)
        return Blocks(min(height, 4096 // tile_x), tile_x, min(channels, 16))
    limits = table()
    if vector:
        elements = limits.narrow_elements if vector < 4 else limits.elements
        if backward:
            elements = min(elements, limits.backward_elements)
        most = limits.volume_channels if len(size) == 3 else limits.channels
        block_channels = min(channels, most, elements // 16)
        pixels = elements // block_channels
        widest = 2 ** (pixels.bit_length() // 2)  # near square: neighbouring pixels share taps
    else:
        block_channels, pixels = 1, limits.backward_pixels if backward else limits.pixels
        widest = limits.width
    tile_x = min(width, max(widest, pixels // height))
    return Blocks(pixels // tile_x, tile_x, block_channels)


def common_constants(
    input: Tensor, parameters: Tensor, shared: Tensor | None, choices: Choices, blocks: Blocks
) -> dict[str, Any]:
    """The constants of the forward and of the scatter template."""
    kernel = sampling_kernel(choices.mode)
    axes = len(choices.size)
    straight = kernel.taps <= 2 and not (choices.antialias and axes == 3)
    return {
        "COORDINATE_MAP": coordinate_map(choices.coordinate_map).function,
        "KERNEL": kernel.function,
        "FIRST_TAP": kernel.first_tap,
        "TAPS": kernel.taps,
        "PADDING": choices.padding_mode,
        "ALIGN_CORNERS": choices.align_corners,
        "AXES": axes,
        "ANTIALIAS": choices.antialias,
        "BETWEEN_PIXELS": choices.antialias and choices.coordinate_map in BETWEEN_PIXELS,
        "TILE_Y": blocks.tile_y,
        "TILE_X": blocks.tile_x,
        "BLOCK_C": blocks.channels,
        "CHANNEL_UNIT": channel_unit(input.shape[1]),
        "WHOLE_BLOCKS": input.shape[1] % blocks.channels == 0,
        "INPUT_VECTOR": vector(input),
        # Up to two taps along each axis in straight code; more of them would take long to compile, and spill,
        # and so would those of a volume within footprints.
        "UNROLLED_ROWS": kernel.taps ** (axes - 1) if straight else 1,
        "COMPUTE": TRITON_DTYPES[compute_dtype(input, parameters, shared)],
    }


def transforms_per_image(input: Tensor, parameters: Tensor) -> int:
    return parameters.shape[0] // max(input.shape[0], 1)


def forward_launch(output: Tensor, tensors: Tensors, choices: Choices) -> Launch:
    input, parameters, shared, fill = tensors
    channels, batch = input.shape[1], parameters.shape[0]
    lanes = vector(input)
    if choices.antialias and lanes < 8:  # footprints take registers: half a block, of full vectors still
        lanes = min(lanes, 1)
    blocks = block_shape(choices.size, channels, lanes, backward=False)
    tiles, tiles_x = blocks.tiles(choices.size)
    channel_blocks = ceil_div(channels, blocks.channels)
    groups = min(channel_blocks, ceil_div(table().enough_programs, max(batch * tiles, 1)))
    blocks_per_group = ceil_div(channel_blocks, max(groups, 1))
    groups = ceil_div(channel_blocks, max(blocks_per_group, 1))
    return Launch(
        sample_forward_kernel,
        batch * tiles * groups,
        (
            image(output),
            image(input),
            per_transform(parameters),
            for_all_transforms(shared, parameters),
            parameters if fill is None else fill,
            (volume_size(tuple(input.shape[2:])), volume_size(choices.size)),
            transforms_per_image(input, parameters),
            channels // channel_unit(channels),
            tiles,
            tiles_x,
            groups,
            blocks_per_group,
        ),
        {
            **common_constants(input, parameters, shared, choices, blocks),
            "PER_PIXEL": coordinate_map(choices.coordinate_map).per_pixel,
            "OUTPUT_VECTOR": vector(output),
            "INDEX": index_dtype(output, input, parameters, shared),
        },
    )


# --- launches planned before -------------------------------------------------------------------------------
# A small image is sampled in less time than its launch is planned in, and batches are most often alike.

PLANS: dict[Hashable, Launch] = {}
MOST_PLANS = 1024


class Place(NamedTuple):
    """Stands for a tensor in a launch that is kept: which one of the call's tensors belongs there."""

    which: int


def with_places(argument: Any, tensors: Sequence[Tensor]) -> Any:
    """An argument of a launch with places instead of tensors, which would keep their memory."""
    if isinstance(argument, Tensor):
        return Place(next(i for i, t in enumerate(tensors) if t is argument))
    return tuple(with_places(a, tensors) for a in argument) if isinstance(argument, tuple) else argument


def with_tensors(argument: Any, tensors: Sequence[Tensor]) -> Any:
    """The inverse of `with_places`, for tensors of the same geometry."""
    if type(argument) is Place:
        return tensors[argument.which]
    if type(argument) is tuple and argument and type(argument[0]) is Place:  # and what goes with it
        return (tensors[argument[0].which], *argument[1:])
    return argument


def geometry(tensor: Tensor) -> Hashable:
    """All of a tensor that a launch is planned from; the rest is its address."""
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def planned(plan: Callable[..., Launch], *arguments: Any) -> Launch:
    """`plan(*arguments)`, made once for all calls that are alike. Arguments are tensors, what has a hash, and
    tuples of both, such as the `Choices`."""
    flat = [x for a in arguments for x in (a if isinstance(a, tuple) else (a,))]
    tensors = [x for x in flat if isinstance(x, Tensor)]
    if len({id(t) for t in tensors}) < len(tensors):  # which of two places would the one tensor stand for?
        return plan(*arguments)
    choices = next(a for a in arguments if isinstance(a, Choices))
    map, kernel = coordinate_map(choices.coordinate_map), sampling_kernel(choices.mode)
    kinds = [geometry(x) if isinstance(x, Tensor) else x for x in flat]
    key = (plan, map, kernel, table(), *kinds)
    kept = PLANS.get(key)
    if kept is None:
        launch = plan(*arguments)
        kept = dataclasses.replace(launch, arguments=with_places(launch.arguments, tensors))
        if len(PLANS) >= MOST_PLANS:
            PLANS.clear()
        PLANS[key] = kept
    return Launch(
        kept.kernel, kept.programs, tuple([with_tensors(a, tensors) for a in kept.arguments]), kept.constants
    )


def sample(tensors: Tensors, choices: Choices) -> Tensor:
    """The forward operator: one kernel, nothing allocated but the output."""
    input, parameters = tensors[:2]
    shape = (parameters.shape[0], input.shape[1], *choices.size)
    output = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=result_format(input))
    with torch.cuda.device_of(input):
        planned(forward_launch, output, tensors, choices).run()
    return output
