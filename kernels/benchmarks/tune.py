"""Finds the block shapes of a device: the `Table` in stn_kernels/launch.py that is quickest on it.

    python kernels/benchmarks/tune.py [--seconds N] [--smoke]

One entry of the table after another takes each of its values while the others keep theirs; the best stays. A
value is judged by the cases that it changes: the geometric mean of their times beside those of the table so
far. Every measurement goes to results/tune-<device>.json at once, so the same command goes on where it was
cut off. Nothing in the library changes: the line to paste into `launch.TABLES` is printed.
"""

import argparse
import dataclasses
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

if "--smoke" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"

import torch

import cases
import compile_ahead
import implementations as peers
import measure
import results
from cases import BACKWARD, FORWARD, Case
from gpu_bench import work_of
from stn_kernels import launch

CANDIDATES = {
    "elements": (512, 1024, 2048),
    "narrow_elements": (256, 512, 1024),
    "backward_elements": (256, 512, 1024),
    "volume_channels": (16, 32),
    "channels": (16, 32, 64, 128),
    "pixels": (128, 256, 512, 1024),
    "backward_pixels": (64, 128, 256),
    "width": (8, 16, 32, 64),
    "warps": (2, 4, 8),
    "enough_programs": (256, 1024, 4096),
}
# A change smaller than this is noise: the table stays as it is.
WORTHWHILE = 0.98


def tuned_cases() -> Iterator[Case]:
    """Each layout, width of vector, dimension and kind of map, under rotation: neither best nor worst."""
    vary = dataclasses.replace
    yield vary(cases.PHOTOGRAPHS, transform=cases.ROTATION)
    yield vary(cases.FEATURES, transform=cases.ROTATION)
    yield vary(cases.FEATURES, transform=cases.ROTATION, dtype="float16")
    yield vary(cases.FEATURES, transform=cases.ROTATION, layout=cases.LAYOUTS[0])
    yield vary(cases.DEEP_FEATURES, transform=cases.ROTATION)
    yield vary(cases.PHOTOGRAPHS, shape=(16, 6, 512, 512), transform=cases.ROTATION, layout=cases.LAYOUTS[1])
    yield vary(cases.VOLUME, transform=cases.ROTATION)
    yield vary(cases.DEEP_VOLUME, transform=cases.ROTATION)
    yield cases.SPLINE


class Sweep:
    """Times of every case and direction under a table, kept on disk."""

    def __init__(self, gpu: measure.Gpu, deadline: float, smoke: bool) -> None:
        self.gpu, self.deadline = gpu, deadline
        self.path = results.FOLDER / ("unkept" if smoke else "") / f"tune-{results.file_name(gpu.name())}"
        before = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        same = before.get("sources") == results.sources()
        self.content = before if same else {"sources": results.sources(), "device": gpu.name(), "times": {}}
        self.cases = list(tuned_cases())
        if smoke:
            self.cases = [dataclasses.replace(c, shape=(1, 2, *[8] * c.axes)) for c in self.cases]

    def measured(self, table: launch.Table) -> dict[str, list[Any]]:
        """By case and direction: seconds, and the launches that the table made of it. None: it does not
        compile, or does not fit."""
        key = json.dumps(dataclasses.asdict(table))
        if key not in self.content["times"]:
            if time.monotonic() > self.deadline:
                print(f"Out of time; {self.path} keeps what was measured. The same command goes on.")
                sys.exit(75)
            launch.table = lambda: table
            found = {f"{c} {d}": self.one(c, d) for c in self.cases for d in (FORWARD, BACKWARD)}
            self.content["times"][key] = found
            results.write(self.path, self.content)
        return self.content["times"][key]

    def one(self, case: Case, direction: str) -> list[Any]:
        image, (parameters, shared) = case.image(self.gpu.device), case.parameters(self.gpu.device)
        launches: set[str] = set()

        def noted(self: launch.Launch) -> None:
            shape = [self.constants[name] for name in ("TILE_Y", "TILE_X", "BLOCK_C")]
            launches.add(f"{self.programs} {shape} {self.options()}")
            run(self)

        run = launch.Launch.run
        try:
            timed, _ = work_of(peers.own(case, shared), direction, image, parameters)
            with compile_ahead.replaced(launch.Launch, "run", noted):
                timed()
            return [self.gpu.time(timed).median, sorted(launches)]
        except Exception as error:  # too many registers, or elements that no block shape has
            print(f"  {type(error).__name__} for {launch.table()}: {str(error).splitlines()[0][:120]}")
            return [None, sorted(launches)]

    def ratio(self, table: launch.Table, before: launch.Table) -> float:
        """Geometric mean of the times of what a table launches otherwise, beside another's; infinite if one
        fails."""
        pairs = zip(self.measured(table).values(), self.measured(before).values(), strict=True)
        changed = [(new, old) for (new, launches), (old, others) in pairs if launches != others]
        if any(new is None for new, _ in changed):
            return math.inf
        return math.exp(statistics.mean(math.log(new / old) for new, old in changed)) if changed else 1.0

    def best(self) -> launch.Table:
        best = launch.Table()
        for name, values in CANDIDATES.items():
            start = best
            ratios = {}
            for value in values:
                candidate = dataclasses.replace(start, **{name: value})
                ratios[value] = 1.0 if candidate == start else self.ratio(candidate, start)
            shown = ", ".join(f"{value}: {r:.3f}" for value, r in ratios.items())
            print(f"{name:26}{shown}", flush=True)
            value = min(ratios, key=lambda v: ratios[v])
            if ratios[value] < WORTHWHILE:
                best = dataclasses.replace(start, **{name: value})
        return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=520, help="start nothing after so many; 520")
    parser.add_argument("--smoke", action="store_true", help="tiny, interpreted, on the CPU")
    arguments = parser.parse_args()
    if not arguments.smoke and not torch.cuda.is_available():
        sys.exit("no GPU: --smoke runs everything on the CPU, without meaning")
    gpu = measure.Smoke() if arguments.smoke else measure.Gpu()
    best = Sweep(gpu, time.monotonic() + arguments.seconds, arguments.smoke).best()
    changed = {k: v for k, v in dataclasses.asdict(best).items() if v != getattr(launch.Table(), k)}
    settings = ", ".join(f"{name}={value}" for name, value in changed.items())
    print(f"TABLES[{gpu.name()!r}] = Table({settings})")
    if arguments.smoke:
        print("Smoke: everything ran. These times mean nothing.")


if __name__ == "__main__":
    main()
