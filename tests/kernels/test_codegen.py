"""What the kernels compile to for GPUs that are not here: `kernels/benchmarks/codegen.py`, with bounds.

The compiler runs in a process of its own, because in this one the kernels are interpreted.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

SCRIPT = Path(__file__).parents[2] / "kernels" / "benchmarks" / "codegen.py"
# Of a thread. The hardware's bound is 255; with 128, four blocks of 128 threads share a multiprocessor of
# 65,536 registers, so that others run while one waits for memory.
REGISTERS = {"forward": 96, "backward": 128}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    command = [sys.executable, str(SCRIPT), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def failures(rows, holds):
    return [row for row in rows if not holds(row)]


def test_every_target_direction_and_dtype_is_covered(report):
    kinds = {(row["target"], row["direction"], row["dtype"], row["channels_last"]) for row in report}
    assert {target for target, *_ in kinds} == {"sm_80", "sm_90", "sm_100", "gfx942"}
    assert len(kinds) == 4 * 2 * (2 * 3 + 1)  # float64 in one layout


def test_no_local_memory_or_scratch(report):
    assert not failures(report, lambda row: row["spills"] == 0)


def test_registers_leave_room_for_other_blocks(report):
    # Three channels are neither a vector nor a plane; float64 needs twice the registers.
    rows = [row for row in report if row["dtype"] != "float64" and row["channels"] != 3]
    assert not failures(rows, lambda row: row["registers"] <= REGISTERS[row["direction"]])


def test_channels_last_float32_moves_16_bytes_at_a_time(report):
    rows = [row for row in report if row["channels_last"] and row["dtype"] == "float32"]
    rows = [row for row in rows if row["channels"] % 4 == 0]
    forward = [row for row in rows if row["direction"] == "forward"]
    assert forward
    assert not failures(forward, lambda row: set(row["stores"]) == {"128"})
    assert not failures(rows, lambda row: row["loads"]["128"] >= 4)
    # Beside them only coordinates: theta is six numbers, a grid two for each pixel of a thread. The image in
    # scalars would be sixteen loads or more.
    assert not failures(rows, lambda row: row["loads"].get("32", 0) <= 6)


@pytest.mark.parametrize("target", ["sm_90", "sm_100"])
def test_image_gradient_is_reduced_in_vectors(report, target):
    rows = [row for row in report if row["target"] == target and row["direction"] == "backward"]
    # The hardware adds no vectors of doubles, and fewer than four channels make no vector.
    rows = [row for row in rows if row["channels"] >= 4 and row["dtype"] != "float64"]
    assert rows
    assert not failures(rows, lambda row: row["reductions"] == ["REDG.E.ADD.F32x4.FTZ.RN.STRONG.GPU"])


def test_no_compare_and_swap_in_any_dtype(report):
    assert not failures(report, lambda row: row["compare_and_swap"] == 0)


def test_forward_has_no_atomics(report):
    assert not failures(report, lambda row: row["direction"] == "backward" or not row["reductions"])
