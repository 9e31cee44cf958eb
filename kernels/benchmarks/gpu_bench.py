"""Measures the kernels on a GPU, side by side with what a user would otherwise call.

    python kernels/benchmarks/gpu_bench.py [--all] [--only WORD] [--eager] [--seconds N] [--smoke]

Writes results/<device>.json after every row; the same command goes on where it was cut off. It measures only
what `gpu_test.py` has seen pass on this device, unless --untested says otherwise, and then writes to no
results file. --smoke runs everything on the CPU with tiny tensors in Triton's interpreter, to see that it
runs: those times mean nothing.
"""

import argparse
import contextlib
import datetime
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if "--smoke" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"

import torch
import torch._functorch.config
from torch import Tensor

import cases
import compositions
import gpu_test
import implementations as peers
import measure
import network
import report
import results
from cases import BACKWARD, DIRECTIONS, FORWARD, Case
from stn_kernels.splines import tps_weights

# The library computes what PyTorch does in float64. In half precision PyTorch's coordinates are so, too:
# it is then compared with a float32 image.
LARGEST_ERROR = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}


class OutOfTime(Exception):
    pass


def points_of(case: Case, parameters: Tensor, shared: Tensor | None) -> Tensor:
    """Where the case samples: (N T, *size, axes)."""
    size, axes = case.output_size, case.axes
    if case.operation == "grid":
        return parameters
    target = compositions.target_points(size, parameters)
    if case.operation == "affine":
        points = target @ parameters.flatten(0, -3).mT
    elif case.operation == "displacement":
        points = target[:, :axes] + parameters.flatten(2).mT
    else:
        assert shared is not None
        weights = tps_weights(parameters, shared)
        points = compositions.spline_features(shared, target) @ weights.mT
    return points.view(-1, *size, axes)


def implementations(
    case: Case, direction: str, image: Tensor, parameters: Tensor, shared: Tensor | None
) -> Iterator[tuple[str, Callable[[], Any], peers.Call]]:
    """Name, a context to run in, and the call. Ours comes first: it must not fail."""
    nothing = contextlib.nullcontext
    own, eager = peers.own(case, shared), peers.pytorch(case, shared, parameters)
    yield peers.OWN, nothing, own
    if direction == BACKWARD:
        for way in peers.backward_ways(case):
            yield peers.own_way(way), lambda way=way: peers.forced(way), own
    yield peers.EAGER, nothing, eager
    if case.axes == 2 and case.operation != "tps":
        yield peers.ALIGNED, nothing, peers.pytorch(case, shared, parameters, align_corners=True)
    if direction == BACKWARD:
        yield peers.DETERMINISTIC, peers.deterministic, eager
    yield peers.COMPILED, nothing, peers.compiled(case, shared, parameters)
    kornia = peers.kornia(case, shared)
    if kornia is not None:
        yield peers.KORNIA, nothing, kornia


def agree(case: Case, image: Tensor, parameters: Tensor, shared: Tensor | None) -> None:
    """AssertionError unless the library gives what PyTorch gives in float64, or as nearly as PyTorch does in
    float32: a spline through many points magnifies roundings."""
    with torch.no_grad():
        exactly = None if shared is None else shared.double()
        exact = peers.pytorch(case, exactly, parameters.double())(image.double(), parameters.double())

        def error(output: Tensor) -> float:
            return float((output - exact).abs().max() / exact.abs().max().clamp_min(1e-6))

        own = error(peers.own(case, shared)(image, parameters))
        if own > LARGEST_ERROR[case.dtype]:
            single = error(peers.pytorch(case, shared, parameters)(image.float(), parameters))
            assert own <= 2 * single, f"{case}: off by {own:.1e}, PyTorch by {single:.1e}"


def work_of(
    call: peers.Call, direction: str, image: Tensor, parameters: Tensor
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """What is timed, and the whole step whose memory is measured."""
    if direction == FORWARD:

        def forward() -> Tensor:
            with torch.no_grad():
                return call(image, parameters)

        return forward, forward
    parameters = parameters.detach().requires_grad_()
    image = image.detach().requires_grad_(direction == BACKWARD)
    wanted = (image, parameters) if direction == BACKWARD else (parameters,)
    output = call(image, parameters)
    grad = torch.ones_like(output).normal_(generator=torch.Generator(output.device).manual_seed(1))

    def backward() -> Any:
        return torch.autograd.grad(output, wanted, grad, retain_graph=True)

    def step() -> Any:
        output = call(image, parameters)
        return output, torch.autograd.grad(output, wanted, grad)

    return backward, step


def measure_case(
    case: Case, gpu: measure.Gpu, found: results.Results, deadline: float, eager: bool = False
) -> None:
    base = results.describe(case)
    image, (parameters, shared) = case.image(gpu.device), case.parameters(gpu.device)
    bytes_moved: measure.Traffic | None = None
    copies: dict[int, float] = {}
    for direction in DIRECTIONS:
        for name, context, call in implementations(case, direction, image, parameters, shared):
            row = {**base, "direction": direction, "implementation": name}
            if found.has(row) or (eager and not (name == peers.EAGER or name.startswith(peers.OWN))):
                continue
            if time.monotonic() > deadline:
                raise OutOfTime
            if bytes_moved is None:
                agree(case, image, parameters, shared)
                points = points_of(case, parameters, shared)
                bytes_moved = measure.traffic(case, image, parameters, points)
                del points
            moved = bytes_moved.of(direction)
            if moved not in copies:
                copies[moved] = gpu.time(measure.copy_work(moved, gpu.device)).median
            row |= {"bytes": moved, "copy": copies[moved], "needed": bytes_moved.returned(direction)}
            try:
                with context():
                    timed, step = work_of(call, direction, image, parameters)
                    spent = gpu.time(timed)
                    row |= {"median": spent.median, "low": spent.low, "high": spent.high}
                    row["peak"] = gpu.peak(step)
                    if case.name == cases.LAUNCH_BOUND.name:
                        row["host"] = gpu.host_time(timed)
                        row["host of a step"] = gpu.host_time(step)
            except Exception as error:  # a peer that cannot is a result, too
                if name.startswith(peers.OWN):
                    raise
                row["error"] = str(error).strip().split("\n")[0][:200] or type(error).__name__
            found.add(row)
            print(report.progress(row), flush=True)
            timed = step = None  # what they hold would count as somebody else's memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every transform, layout and dtype, not the core")
    parser.add_argument("--only", default="", help="cases whose description holds this")
    parser.add_argument("--eager", action="store_true", help="beside eager PyTorch alone, which is quicker")
    parser.add_argument("--seconds", type=float, default=520, help="start nothing after so many; 520")
    parser.add_argument("--smoke", action="store_true", help="tiny, interpreted, on the CPU")
    parser.add_argument("--untested", action="store_true", help="without green tests, to no results file")
    parser.add_argument("--output", type=Path, help="another file to write to")
    arguments = parser.parse_args()
    if not arguments.smoke and not torch.cuda.is_available():
        sys.exit("no GPU: --smoke runs everything on the CPU, without meaning")
    gpu = measure.Smoke() if arguments.smoke else measure.Gpu()
    if not (arguments.smoke or arguments.untested or gpu_test.is_green(gpu.name())):
        sys.exit("figures are for code that works: run `make gpu-test` first, on this GPU and this code")
    path = arguments.output or results.FOLDER / results.file_name(gpu.name())
    if arguments.untested or (arguments.smoke and not arguments.output):
        path = results.FOLDER / "unkept" / path.name
    found = results.Results(path, gpu.name(), gpu.software(), datetime.date.today().isoformat())
    deadline = time.monotonic() + arguments.seconds
    chosen = cases.smoke_cases() if arguments.smoke else cases.core_cases()
    chosen = [c for c in (cases.all_cases() if arguments.all else chosen) if arguments.only in str(c)]
    # retain_graph times the backward alone; compiled graphs otherwise give their buffers away.
    torch._functorch.config.donated_buffer = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if not arguments.smoke:
        import compile_ahead

        compile_ahead.run(chosen)
    if found.content["copy_bandwidth"] is None:
        large = 2**20 if arguments.smoke else 2**31
        seconds = gpu.time(measure.copy_work(large, gpu.device)).median
        found.note("copy_bandwidth", large / seconds)
    wrong = []
    try:
        for number, case in enumerate(chosen, 1):
            print(f"{number} of {len(chosen)}: {report.title(results.describe(case))}", flush=True)
            try:
                measure_case(case, gpu, found, deadline, arguments.eager)
            except AssertionError as error:  # such a case has no figures
                wrong.append(case)
                print(f"  WRONG: {error}", flush=True)
        if not found.content["network"]:
            found.note("network", network.measure_all(gpu, smoke=arguments.smoke))
    except OutOfTime:
        print(f"Out of time; {path} keeps what was measured. The same command goes on.")
        sys.exit(75)
    if arguments.smoke:
        print(f"Smoke: {len(found.content['rows'])} rows. Everything ran; these times mean nothing.")
    else:
        print(report.table(found.content))
        print(report.verdicts(found.content))
    print(f"Written to {path}")
    if wrong:
        sys.exit(f"{len(wrong)} cases differ from PyTorch and were not timed, see above")


if __name__ == "__main__":
    main()
