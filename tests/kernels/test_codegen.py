"""What the kernels compile to for GPUs that are not here: `kernels/benchmarks/codegen.py`, with bounds.

The compiler runs in processes of its own, because in this one the kernels are interpreted.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

SCRIPT = Path(__file__).parents[2] / "kernels" / "benchmarks" / "codegen.py"
# Of a thread; the hardware's bound is 255, on AMD 512. With 128, four blocks of 128 threads share a
# multiprocessor of 65,536 registers; with 168, three wavefronts share a SIMD: others run while one waits.
REGISTERS = {"sm_80": 128, "sm_90": 128, "sm_100": 128, "gfx942": 168}
FORWARD_REGISTERS = 112  # still four blocks
MAPS = {"affine", "projective", "grid", "displacement", "basis", "residual_basis", "tps", "mesh"}
KERNELS = {"forward", "scatter", "gather", "fixed point", "rest", "theta", "shared", "collect"}
CASE = (
    "kernel",
    "coordinate_map",
    "mode",
    "padding_mode",
    "axes",
    "dtype",
    "channels_last",
    "channels",
    "antialias",
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    command = [sys.executable, str(SCRIPT), "--json", "--jobs", "1"]
    # Compiling takes one or two seconds a case; `make codegen` compiles all of them for every target. Every
    # shape of block is compiled for one target of each vendor.
    command += ["--covering", "sm_90", "--covering", "gfx942", "--values", "sm_80", "--values", "sm_100"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def choose(rows, **values):
    """The rows with these values, of which there are some."""
    rows = [r for r in rows if all(r[key] == value for key, value in values.items())]
    assert rows
    return rows


def failures(rows, holds):
    """The rows for which a bound does not hold, short enough to read."""
    kept = ("target", *CASE, "registers", "spills", "loads", "stores", "reductions", "nan_tests")
    return [{key: row[key] for key in kept} for row in rows if not holds(row)]


def test_every_target_and_every_value_of_every_choice_is_covered(report):
    for target in REGISTERS:
        rows = choose(report, target=target)
        for key, values in {
            "kernel": KERNELS,
            "coordinate_map": MAPS,
            "mode": {"nearest", "bilinear", "bicubic"},
            "padding_mode": {"zeros", "border", "reflection", "constant"},
            "dtype": {"float16", "bfloat16", "float32", "float64"},
            "axes": {2, 3},
            "channels_last": {False, True},
            "antialias": {False, True},
        }.items():
            assert {row[key] for row in rows} == values


def test_no_local_memory_or_scratch(report):
    assert not failures(report, lambda row: row["spills"] == 0)


def test_registers_leave_room_for_other_blocks(report):
    rows = [row for row in report if row["dtype"] != "float64"]  # which needs twice as many
    # Three blocks share.
    many = [r for r in rows if r["antialias"]]
    many = [r for r in many if r["mode"] == "bicubic" or r["axes"] == 3 or r["kernel"] == "fixed point"]
    assert not failures(many, lambda row: row["registers"] <= 168)
    rows = [row for row in rows if row not in many]
    assert not failures(rows, lambda row: row["registers"] <= REGISTERS[row["target"]])
    rows = choose(rows, kernel="forward", antialias=False)
    assert not failures(rows, lambda row: row["registers"] <= FORWARD_REGISTERS)


def test_channels_last_moves_16_bytes_at_a_time(report):
    rows = [row for row in choose(report, channels_last=True) if row["channels"] % 4 == 0]
    rows = [row for row in rows if row["kernel"] != "collect"]  # has no image
    # Half as many elements to a block leave room for footprints: 8 bytes a thread in half precision.
    rows = [r for r in rows if not (r["antialias"] and r["kernel"] == "scatter" and r["dtype"] == "float16")]
    assert not failures(rows, lambda row: row["loads"]["128"] >= 1)
    # Beside images forward and scatter read theta, 6 or 12 numbers. An image in scalars would be several
    # times as many.
    images = [r for r in choose(rows, coordinate_map="affine") if r["kernel"] in ("forward", "scatter")]
    images = [row for row in images if row["padding_mode"] != "constant"]  # which reads the fill
    scalars = {2: 6, 3: 12}
    assert not failures(images, lambda row: row["loads"].get("32", 0) <= scalars[row["axes"]])
    assert not failures(images, lambda row: row["loads"].get("16", 0) == 0)
    for kernel in ("forward", "gather"):
        assert not failures(choose(rows, kernel=kernel), lambda row: set(row["stores"]) == {"128"})


@pytest.mark.parametrize("target", ["sm_90", "sm_100"])
def test_image_gradient_is_reduced_in_vectors(report, target):
    rows = choose(report, target=target, kernel="scatter")
    # The hardware adds no vectors of doubles, and fewer than four channels make no vector.
    rows = [row for row in rows if row["channels"] >= 4 and row["dtype"] != "float64"]
    assert rows
    assert not failures(rows, lambda row: row["reductions"] == ["REDG.E.ADD.F32x4.FTZ.RN.STRONG.GPU"])


def test_no_compare_and_swap_anywhere(report):
    assert not failures(report, lambda row: row["compare_and_swap"] == 0)


@pytest.mark.parametrize("kernel", ["forward", "gather", "theta", "shared", "collect"])
def test_no_atomics_where_none_are_needed(report, kernel):
    assert not failures(choose(report, kernel=kernel), lambda row: not row["reductions"])


def test_nan_is_told_apart_in_machine_code(report):
    """The interpreter cannot show it: a GPU's minimum and maximum drop NaN, so an undefined coordinate must
    be compared with itself, once for each axis."""
    # Gathers only what is finite; moves gradients only.
    rows = [row for row in report if row["kernel"] not in ("gather", "collect")]
    assert not failures(rows, lambda row: row["nan_tests"] >= row["axes"])


def test_the_fill_keeps_the_precision_of_the_sum(report):
    """A Python number would reach a GPU's kernel as float32, and the interpreter's as it is."""
    rows = choose(report, kernel="forward", padding_mode="constant")
    assert {row["dtype"] for row in rows} > {"float64"}
    assert not failures(rows, lambda row: row["fill"] == ("f64" if row["dtype"] == "float64" else "f32"))
