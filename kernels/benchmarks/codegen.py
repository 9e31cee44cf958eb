"""What the kernels compile to: registers, spills, widest accesses and atomics, without a GPU.

    python kernels/benchmarks/codegen.py [--json]

Each case goes through `launch.py` as a real call does: tensors of that shape, dtype and layout on the CPU,
the launch planned for them, and Triton's own compiler, told that the active device is the target. Nothing
about a launch is declared here.
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if os.environ.get("TRITON_INTERPRET"):
    sys.exit("unset TRITON_INTERPRET: interpreted kernels are not compiled")

import torch
import triton
from triton.backends.compiler import GPUTarget

from stn_kernels import launch
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


@dataclasses.dataclass(frozen=True)
class Case:
    direction: str  # forward or backward
    coordinate_map: str
    padding_mode: str
    dtype: str
    channels_last: bool
    channels: int

    def plan(self) -> launch.Launch:
        """The launch for a batch of such images, larger than any block."""
        size = (120, 136)
        shape = (4, self.channels, *size)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        image = torch.empty(shape, dtype=DTYPES[self.dtype], memory_format=layout)
        coordinate_dtype = torch.float64 if self.dtype == "float64" else torch.float32
        parameters = torch.empty(
            (4, 2, 3) if self.coordinate_map == "affine" else (4, *size, 2), dtype=coordinate_dtype
        )
        choices = Choices(size, self.coordinate_map, "bilinear", self.padding_mode, False)
        if self.direction == "forward":
            return launch.forward_launch(torch.empty_like(image), image, parameters, choices)
        buffer = launch.scatter_buffer(image, parameters)
        return launch.backward_launch(buffer, torch.empty_like(image), image, parameters, choices, True)[0]


def cases() -> Iterator[Case]:
    """Every value of every choice, in the combinations that change the generated code."""
    for direction in ("forward", "backward"):
        for channels_last, channels in (
            (True, 64),
            (True, 12),
            (True, 3),
            (False, 64),
            (False, 3),
            (False, 1),
        ):
            yield Case(direction, "affine", "zeros", "float32", channels_last, channels)
        for dtype in ("float16", "bfloat16"):
            yield Case(direction, "affine", "zeros", dtype, True, 64)
            yield Case(direction, "affine", "zeros", dtype, False, 64 if dtype == "float16" else 3)
        yield Case(direction, "affine", "zeros", "float64", True, 64)
        yield Case(direction, "affine", "border", "float32", True, 64)
        yield Case(direction, "affine", "reflection", "float32", False, 3)
        yield Case(direction, "grid", "zeros", "float32", True, 64)
        yield Case(direction, "grid", "zeros", "bfloat16", False, 1)


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


def inspect_cuda(compiled: object) -> Code:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        sass = nvidia_tool("nvdisasm", "-c", str(path))
        usage = nvidia_tool("cuobjdump", "-res-usage", str(path))

    def named(pattern: str) -> list[str]:
        return re.findall(rf"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?({pattern}[\w.]*)", sass, re.MULTILINE)

    width = r"\.U?(16|64|128|256)\b"
    atomics = named("RED") + named("ATOM")
    return Code(
        registers=int(re.search(r"REG:(\d+)", usage)[1]),
        spills=len(named("LDL")) + len(named("STL")),
        shared=compiled.metadata.shared,
        loads=widths(named("LDG"), width),
        stores=widths(named("STG"), width),
        reductions=sorted({a for a in atomics if "CAS" not in a}),
        compare_and_swap=sum("CAS" in a for a in atomics),
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
    )


def inspect(case: Case, target: GPUTarget) -> Code:
    triton.runtime.driver.set_active(CompileOnly(target))
    planned = case.plan()
    planned.kernel.device_caches.clear()  # keyed by device number, which all targets share
    compiled = planned.compile()
    return inspect_cuda(compiled) if target.backend == "cuda" else inspect_amd(compiled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    arguments = parser.parse_args()
    for name, target in TARGETS.items():
        for case in cases():
            code = inspect(case, target)
            if arguments.json:
                print(
                    json.dumps({"target": name, **dataclasses.asdict(case), **dataclasses.asdict(code)}),
                    flush=True,
                )
                continue
            layout = "channels-last" if case.channels_last else "channels-first"
            print(
                f"{name:7} {case.direction:8} {case.coordinate_map:6} {case.padding_mode:10} {case.dtype:8} "
                f"C={case.channels:<2} {layout:14} registers {code.registers:3} spills {code.spills} "
                f"shared {code.shared:5} loads {code.loads} stores {code.stores} "
                f"{' '.join(code.reductions)} CAS {code.compare_and_swap}",
                flush=True,
            )


if __name__ == "__main__":
    main()
