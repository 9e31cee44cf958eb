"""Time, memory and bytes of one call, on a GPU; and stand-ins that run anywhere and mean nothing."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cases import BACKWARD, FORWARD, Case

MEASURED = 0.1  # seconds of each call's own time, if that is no more than so many runs, and no fewer
MOST_RUNS, FEWEST_RUNS = 500, 7
CACHE = 2**28  # bytes, more than any second-level cache has
Work = Callable[[], Any]


@dataclasses.dataclass
class Time:
    """Seconds: the median of many runs, and the 20 and 80 per cent quantiles."""

    median: float
    low: float
    high: float


def overwritings(host: float, each: float) -> int:
    """How often the cache is overwritten, in `each` seconds, before a call that takes the CPU `host` seconds:
    until the call is surely waiting in the device's queue."""
    return min(max(math.ceil(2 * host / each), 1), 100)


class Gpu:
    """Times by the device's own events. Before each run it overwrites its second-level cache, for as long as
    the CPU takes to send the call: what is timed is the device's work and no waiting for the CPU, which
    `host_time` measures. (`triton.testing.do_bench` overwrites once: a short backward pass waits.)
    """

    device = torch.device("cuda")

    def time(self, work: Work) -> Time:
        cache = torch.empty(CACHE, dtype=torch.int8, device=self.device)
        for _ in range(3):  # compiles, and lets the allocator settle
            work()
        each = statistics.median(self.events(cache.zero_, cache, 0, 5))
        before = overwritings(self.host_time(work, 5), each)
        estimate = statistics.median(self.events(work, cache, before, FEWEST_RUNS))
        runs = min(max(round(MEASURED / max(estimate, 1e-9)), FEWEST_RUNS), MOST_RUNS)
        times = self.events(work, cache, before, runs)
        low, *_, high = statistics.quantiles(times, n=5)
        return Time(statistics.median(times), low, high)

    def events(self, work: Work, cache: Tensor, before: int, runs: int) -> list[float]:
        """Seconds of the device for each run, after so many overwritings of the cache."""
        pairs = []
        for _ in range(runs):
            for _ in range(before):
                cache.zero_()
            pair = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            pair[0].record()
            work()
            pair[1].record()
            pairs.append(pair)
        torch.cuda.synchronize()
        return [1e-3 * start.elapsed_time(end) for start, end in pairs]

    def host_time(self, work: Work, calls: int = 100) -> float:
        """Seconds of the CPU per call: the device computes behind, with less work than its queue holds."""
        times = []
        for _ in range(5):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                work()
            times.append((time.perf_counter() - start) / calls)
        torch.cuda.synchronize()
        return statistics.median(times)

    def peak(self, work: Work) -> int:
        """The most bytes that were allocated at a time beyond what already was."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = work()
        torch.cuda.synchronize()
        del result
        return torch.cuda.max_memory_allocated() - before

    def software(self) -> dict[str, str]:
        import triton

        versions = {"torch": torch.__version__, "triton": triton.__version__, "driver": nvidia_driver()}
        return versions | {"cuda": str(torch.version.cuda or torch.version.hip)}

    def name(self) -> str:
        return torch.cuda.get_device_name()


def nvidia_driver() -> str:
    """The driver's version, from the tool that comes with it."""
    import shutil
    import subprocess

    if shutil.which("nvidia-smi") is None:
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.split("\n")[0] or "unknown"


class Smoke(Gpu):
    """The same on the CPU, to see that everything runs."""

    device = torch.device("cpu")

    def time(self, work: Work) -> Time:
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        return Time(seconds, seconds, seconds)

    def host_time(self, work: Work, calls: int = 1) -> float:
        return self.time(work).median

    def peak(self, work: Work) -> int:
        work()
        return 0

    def software(self) -> dict[str, str]:
        return {"torch": torch.__version__, "triton": "interpreted", "driver": "none", "cuda": "none"}

    def name(self) -> str:
        return "smoke"


# --- bytes -------------------------------------------------------------------------------------------------


def touched(points: Tensor, case: Case) -> float:
    """The share of the image's pixels that the points (N, *size, axes) read: where a sampled image of ones
    has a gradient. All weights are positive, so that none cancel."""
    shares = []
    for some in points:  # one image at a time, which takes less memory
        image = torch.zeros(1, 1, *case.shape[2:], device=points.device, requires_grad=True)
        F.grid_sample(image, some[None], align_corners=False).sum().backward()
        assert image.grad is not None
        shares.append(float((image.grad != 0).float().mean()))
    return statistics.mean(shares)


@dataclasses.dataclass
class Traffic:
    """Bytes that any implementation must move: each that is read once, each that is written once."""

    image: int  # what the points read of it
    whole_image: int
    output: int
    parameters: int

    def of(self, direction: str) -> int:
        if direction == FORWARD:
            return self.image + self.parameters + self.output
        read = self.output + self.image + self.parameters  # the output's gradient; the slopes of the image
        return read + self.parameters + (self.whole_image if direction == BACKWARD else 0)

    def returned(self, direction: str) -> int:
        """Bytes that a step returns: the output, and the gradients that are wanted."""
        if direction == FORWARD:
            return self.output
        return self.output + self.parameters + (self.whole_image if direction == BACKWARD else 0)


def traffic(case: Case, image: Tensor, parameters: Tensor, points: Tensor) -> Traffic:
    """`points`: of every transform (N T, *size, axes)."""
    output = case.transforms * case.shape[0] * case.shape[1] * torch.Size(case.output_size).numel()
    # The transforms of an image overlap: their union is what must be read.
    share = touched(points.unflatten(0, (case.shape[0], -1)).flatten(1, 2), case)
    whole = image.nbytes
    return Traffic(round(share * whole), whole, output * image.element_size(), parameters.nbytes)


def copy_work(bytes_moved: int, device: torch.device) -> Work:
    """A copy that moves as many bytes, read and written together."""
    source = torch.ones(max(bytes_moved // 8, 1), device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)
