"""What the kernels compile to: registers, spills, widest accesses and atomics, without a GPU.

    python kernels/benchmarks/codegen.py [--json] [--target sm_90] [--covering sm_90] [--values sm_80]

Each case goes through `launch.py` as a real call does: tensors of that shape, dtype and layout on the CPU,
the launch planned for them, and Triton's own compiler, told that the active device is the target. Nothing
about a launch is declared here.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

if os.environ.get("TRITON_INTERPRET"):
    sys.exit("unset TRITON_INTERPRET: interpreted kernels are not compiled")

import torch
import triton
from triton.backends.compiler import GPUTarget

from stn_kernels import checks, launch, launch_collect
from stn_kernels import launch_backward as backward
from stn_kernels.autograd import Choices

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


class CompileOnly:
    """A Triton driver for a device that is not there."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0


MAPS = ("projective", "grid", "displacement", "basis", "residual_basis", "tps", "mesh")


@dataclasses.dataclass(frozen=True)
class Case:
    # forward, scatter, fixed point, gather; rest: what a gather leaves to a scatter in fixed point; theta:
    # the gradient of parameters alone; shared: that of a basis; collect: of a grid, from its footprints'
    kernel: str
    coordinate_map: str = "affine"
    mode: str = "bilinear"
    padding_mode: str = "zeros"
    axes: int = 2
    dtype: str = "float32"
    channels_last: bool = True
    channels: int = 64
    antialias: bool = False

    def tensors(self, size: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """An image, parameters and what is shared, for a batch of four."""
        last = torch.channels_last if self.axes == 2 else torch.channels_last_3d
        layout = last if self.channels_last else torch.contiguous_format
        image = torch.empty((4, self.channels, *size), dtype=DTYPES[self.dtype], memory_format=layout)
        dtype = torch.float64 if self.dtype == "float64" else torch.float32
        planes = (8, *size)
        shared = {"tps": (16, 2), "mesh": (18, 3, 3), "basis": planes, "residual_basis": planes}.get(
            self.coordinate_map
        )
        others = None if shared is None else torch.empty(shared, dtype=dtype)
        shape = checks.parameter_shape(self.coordinate_map, self.axes, size, others)
        return image, torch.empty((4, *shape), dtype=dtype), others

    def plan(self) -> launch.Launch:
        """The launch for a batch of such images, larger than any block."""
        size = (120, 136) if self.axes == 2 else (24, 28, 40)
        image, parameters, shared = self.tensors(size)
        compute = torch.float64 if self.dtype == "float64" else torch.float32
        fill = torch.empty(self.channels, dtype=compute) if self.padding_mode == "constant" else None
        tensors = (image, parameters, shared, fill)
        choices = Choices(size, self.coordinate_map, self.mode, self.padding_mode, antialias=self.antialias)
        output = torch.empty_like(image)
        if self.kernel == "forward":
            return launch.forward_launch(output, tensors, choices)
        if self.kernel == "collect":
            gradients = backward.with_footprints(backward.Sums(), tensors, choices).grad_parameters
            wanted = "grad_parameters" if shared is None else "grad_shared"
            written = torch.empty_like(parameters if shared is None else shared)
            return launch_collect.collect_launch(gradients, tensors, choices, **{wanted: written})
        if self.kernel == "shared":
            assert shared is not None
            sums = backward.Sums(grad_shared=torch.empty_like(shared))
            return backward.scatter_launch(output, tensors, choices, sums)
        if self.kernel == "theta":
            sums = backward.with_parameters(backward.Sums(), tensors, choices)
            return backward.scatter_launch(output, tensors, choices, sums)
        fixed_point = self.kernel in ("fixed point", "rest")
        buffer = backward.scatter_buffer(image, compute, fixed_point)
        scale = torch.empty((4, self.channels), dtype=compute) if fixed_point else None
        if self.kernel == "gather":
            return backward.gather_launch(output, output, tensors, choices, buffer, scale)
        sums = backward.Sums(buffer, scale, except_gathered=self.kernel == "rest")
        if self.kernel == "rest":
            return backward.scatter_launch(output, tensors, choices, sums)
        if self.antialias and launch.coordinate_map(self.coordinate_map).per_pixel:
            sums = backward.with_footprints(sums, tensors, choices)
        else:
            sums = backward.with_parameters(sums, tensors, choices)
        return backward.scatter_launch(output, tensors, choices, sums)


def cases() -> Iterator[Case]:
    """Every value of every choice, in the combinations that change the generated code."""
    for kernel in ("forward", "scatter"):
        for last, channels in ((True, 64), (True, 12), (True, 3), (False, 64), (False, 3), (False, 1)):
            yield Case(kernel, channels_last=last, channels=channels)
        yield Case(kernel, dtype="float16")
        yield Case(kernel, dtype="float16", channels_last=False)
        yield Case(kernel, dtype="bfloat16")
        yield Case(kernel, dtype="bfloat16", channels_last=False, channels=3)
        yield Case(kernel, padding_mode="border")
        yield Case(kernel, padding_mode="reflection", channels_last=False, channels=3)
        yield Case(kernel, padding_mode="constant", dtype="float64")
        yield Case(kernel, mode="nearest", padding_mode="constant")
        yield Case(kernel, mode="bicubic")
        yield Case(kernel, mode="bicubic", padding_mode="reflection", channels_last=False, channels=3)
        for coordinate_map in MAPS:
            yield Case(kernel, coordinate_map)
        yield Case(kernel, "grid", dtype="bfloat16", channels_last=False, channels=1)
        yield Case(kernel, "tps", channels_last=False, channels=1)
        yield Case(kernel, axes=3, channels=32)
        yield Case(kernel, "grid", axes=3, channels_last=False, channels=1)
        yield Case(kernel, mode="bicubic", axes=3, channels_last=False, channels=1)
    for kernel in ("gather", "fixed point"):
        yield Case(kernel)
        yield Case(kernel, dtype="float16", channels_last=False, channels=1)
        yield Case(kernel, mode="bicubic", axes=3, channels_last=False, channels=1)
    for kernel in ("rest", "theta"):
        yield Case(kernel)
        yield Case(kernel, channels_last=False, channels=3)
    yield Case("shared", "basis")
    yield from antialiased_cases()


def antialiased_cases() -> Iterator[Case]:
    """What a footprint adds to a program's state depends on map, dimension, layout and taps."""
    for kernel in ("forward", "scatter"):
        yield Case(kernel, antialias=True)
        yield Case(kernel, antialias=True, channels_last=False, channels=3)
        yield Case(kernel, antialias=True, dtype="float16")
        yield Case(kernel, antialias=True, padding_mode="constant", dtype="float64")
        yield Case(kernel, antialias=True, mode="bicubic", padding_mode="reflection")
        for coordinate_map in ("projective", "grid", "basis", "tps"):
            yield Case(kernel, coordinate_map, antialias=True)
        yield Case(kernel, "tps", antialias=True, channels_last=False, channels=1)
        yield Case(kernel, antialias=True, axes=3, channels=32)
        yield Case(kernel, "grid", antialias=True, axes=3, channels_last=False, channels=1)
    yield Case("fixed point", antialias=True)
    yield Case("theta", antialias=True)
    yield Case("collect", "basis", antialias=True)
    for axes in (2, 3):
        yield Case("collect", "grid", antialias=True, axes=axes)


Features = set[tuple[str, ...]]


def values(case: Case) -> Features:
    """The value of every choice; and the type of the fill, which two of them set."""
    fill = ("fill", str(case.padding_mode == "constant"), str(case.dtype == "float64"))
    return {fill, *((name, str(value)) for name, value in dataclasses.asdict(case).items())}


def variants(case: Case) -> Features:
    """The same; and the kernel with all that the number of its registers and the kind of its
    atomics follow from: the shape of its block, its dimension, and the numbers in which it adds up."""
    planned = case.plan()
    names = ("TILE_Y", "TILE_X", "BLOCK_C", "AXES", "COMPUTE", "FIXED_POINT", "ANTIALIAS")
    variant = (planned.kernel.__name__, *(str(planned.constants.get(name)) for name in names))
    return {variant, *values(case)}


def covering(features: Callable[[Case], Features] = variants) -> list[Case]:
    """Few of the cases, which have every feature of all of them: always the one that adds most, and of equals
    the last, because the list goes from small kernels to large ones."""
    of_each = {case: features(case) for case in reversed(list(cases()))}
    missing = set[tuple[str, ...]]().union(*of_each.values())
    chosen = []
    while missing:
        chosen.append(max(of_each, key=lambda case: len(of_each[case] & missing)))
        missing -= of_each[chosen[-1]]
    return chosen


@dataclasses.dataclass
class Code:
    """What the machine code of one case holds. Widths in bits; instructions counted where they stand."""

    registers: int
    spills: int  # local-memory or scratch instructions
    shared: int  # bytes
    loads: dict[int, int]  # width -> instructions
    stores: dict[int, int]
    reductions: list[str]  # the atomic instructions, by name
    compare_and_swap: int
    nan_tests: int  # comparisons that only NaN makes true, or false
    fill: str  # the type of the fill's pointer


def nvidia_tool(name: str, *arguments: str) -> str:
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([str(path), *arguments], capture_output=True, text=True, check=True).stdout


def widths(instructions: list[str], suffix: str) -> dict[int, int]:
    counts: dict[int, int] = {}
    for instruction in instructions:
        width = re.search(suffix, instruction)
        bits = int(width[1]) if width else 32
        counts[bits] = counts.get(bits, 0) + 1
    return counts


def fill_type(compiled: object) -> str:
    found = re.search(r"%fill_ptr: !tt.ptr<(\w+)>", compiled.asm["ttir"])
    return found[1] if found else ""


def inspect_cuda(compiled: object) -> Code:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        sass = nvidia_tool("nvdisasm", "-c", "-ndf", str(path))  # -ndf: no data-flow analysis, which is slow
        usage = nvidia_tool("cuobjdump", "-res-usage", str(path))

    def named(pattern: str) -> list[str]:
        return re.findall(rf"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?({pattern}[\w.]*)", sass, re.MULTILINE)

    width = r"\.U?(16|64|128|256)\b"
    atomics = named(r"REDG?\.") + named("ATOM")
    return Code(
        registers=int(re.search(r"REG:(\d+)", usage)[1]),
        spills=len(named("LDL")) + len(named("STL")),
        shared=compiled.metadata.shared,
        loads=widths(named("LDG"), width),
        stores=widths(named("STG"), width),
        reductions=sorted({a for a in atomics if "CAS" not in a}),
        compare_and_swap=sum("CAS" in a for a in atomics),
        nan_tests=len(re.findall(r"setp\.(?:nan|num)\.f\d\d", compiled.asm["ptx"])),
        fill=fill_type(compiled),
    )


def inspect_amd(compiled: object) -> Code:
    assembly = compiled.asm["amdgcn"]

    def named(pattern: str) -> list[str]:
        return re.findall(rf"^\s+((?:global|buffer|flat)_{pattern}\w*)", assembly, re.MULTILINE)

    def bits(instructions: list[str]) -> dict[int, int]:
        words = {"x2": 64, "x3": 96, "x4": 128, "rt": 16}  # dwordx2 ... short, ushort
        counts: dict[int, int] = {}
        for instruction in instructions:
            width = words.get(instruction[-2:], 32)
            counts[width] = counts.get(width, 0) + 1
        return counts

    atomics = named("atomic")
    scratch = re.findall(r"^\s+scratch_(?:load|store)", assembly, re.MULTILINE)
    private = int(re.search(r"\.private_segment_fixed_size:\s*(\d+)", assembly)[1])
    return Code(
        registers=int(re.search(r"\.vgpr_count:\s*(\d+)", assembly)[1]),
        spills=max(len(scratch), private),
        shared=compiled.metadata.shared,
        loads=bits(named("load")),
        stores=bits(named("store")),
        reductions=sorted({a for a in atomics if "cmpswap" not in a}),
        compare_and_swap=sum("cmpswap" in a for a in atomics),
        nan_tests=len(re.findall(r"v_cmp_[uo]_f\d\d", assembly)),
        fill=fill_type(compiled),
    )


def inspect(case: Case, target: GPUTarget) -> Code:
    triton.runtime.driver.set_active(CompileOnly(target))
    launch.AMD = target.backend == "hip"
    planned = case.plan()
    planned.kernel.device_caches.clear()  # keyed by device number, which all targets share
    compiled = planned.compile()
    return inspect_cuda(compiled) if target.backend == "cuda" else inspect_amd(compiled)


HEADINGS = (
    "target",
    "kernel",
    "map",
    "mode",
    "padding",
    "dtype",
    "layout",
    "registers",
    "spills",
    "shared",
    "load",
    "store",
    "reduction",
    "CAS",
)
WIDTHS = (7, 11, 12, 8, 10, 8, 11, 9, 6, 6, 5, 5, 26, 3)


def table_row(target: str, case: Case, code: Code) -> tuple[str, ...]:
    """A line of the table: widths are those of the widest access, in bits."""
    layout = f"{case.axes}D {'last' if case.channels_last else 'first'} {case.channels}"
    load, store = (max(counts, default=0) for counts in (code.loads, code.stores))
    # The parts of a name that say what is added, and how many at a time.
    reductions = " ".join(code.reductions).replace("global_atomic_", "").replace(".STRONG.GPU", "")
    return (
        target,
        case.kernel,
        case.coordinate_map,
        case.mode,
        case.padding_mode,
        case.dtype,
        layout,
        *map(str, (code.registers, code.spills, code.shared, load, store, reductions, code.compare_and_swap)),
    )


def line(cells: tuple[str, ...]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def report(target: str, features: Callable[[Case], Features] | None, as_json: bool) -> list[str]:
    """The cases of one target, or few that have all these features, in a process of its own."""
    lines = []
    for case in covering(features) if features else cases():
        code = inspect(case, TARGETS[target])
        if as_json:
            row = {"target": target, **dataclasses.asdict(case), **dataclasses.asdict(code)}
            lines.append(json.dumps(row))
        else:
            lines.append(line(table_row(target, case, code)))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    parser.add_argument("--target", choices=TARGETS, action="append", help="by default all")
    few = {"choices": TARGETS, "action": "append", "default": []}
    help = "of this target only few cases, among them every value of every choice and every shape of block"
    parser.add_argument("--covering", **few, help=help)
    help = "of this target still fewer, among them every value of every choice"
    parser.add_argument("--values", **few, help=help)
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4), help="targets at a time")
    arguments = parser.parse_args()
    targets = arguments.target or list(TARGETS)
    if not arguments.json:
        print(line(HEADINGS), flush=True)
    with ProcessPoolExecutor(arguments.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        features = {**dict.fromkeys(arguments.covering, variants), **dict.fromkeys(arguments.values, values)}
        wanted = [features.get(target) for target in targets]
        for lines in pool.map(report, targets, wanted, [arguments.json] * len(targets)):
            print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
