"""What is measured, not derived: the memory that a function allocates, and the results of the GPU benchmark.

Chapter 08 counts bytes; here is what its counts are held against.
"""

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Returned = TypeVar("Returned")

OURS = "stn_kernels"
# What two rows of a results file must have in common for their times to be compared.
SETTING = (
    *("case", "shape", "size", "layout", "dtype", "operation", "points", "transforms", "transform"),
    "direction",
)


def allocations(function: Callable[[], Returned]) -> tuple[Returned, list[int]]:
    """Call `function`: what it returns, and the bytes of each piece of tensor memory that was allocated
    meanwhile, largest first. Chapter 08. On a GPU, if there is one; PyTorch rounds up to 512 bytes there."""
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with profile(activities=activities, profile_memory=True) as record:
        result = function()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        record.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    # A release is a change by less than 0. Device type 0 is the CPU, and 1 a GPU.
    changes = [event["args"] for event in events if event["name"] == "[memory]"]
    taken = [change["Bytes"] for change in changes if change["Device Type"] == on_gpu and change["Bytes"] > 0]
    return result, sorted(taken, reverse=True)


def results(folder: str | Path | None = None) -> list[dict[str, Any]]:
    """The results files of the benchmark on GPUs, read, the newest last.

    Args:
        folder: where they are; `kernels/benchmarks/results` of the checkout that this package is installed
            from if None. Where there are none, the list is empty.
    """
    if folder is None:
        folder = Path(__file__).resolve().parents[1] / "kernels" / "benchmarks" / "results"
    files = sorted(Path(folder).glob("*.json"))
    found: list[dict[str, Any]] = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    # Beside them may lie what a search for block shapes measured, which compares nothing.
    return sorted((result for result in found if "rows" in result), key=lambda result: result["date"])


class Comparison(NamedTuple):
    """One setting of the benchmark: what the fused kernels make of the memory, and how others do there."""

    setting: dict[str, Any]
    fraction: float  # of the bandwidth of a copy of as many bytes as must be moved
    low: float  # the same for the time that four calls in five stay below,
    high: float  # and for the time that one in five stays below
    ratios: dict[str, float]  # an implementation's time, divided by the fused kernels'


def comparisons(result: dict[str, Any], **only: Any) -> list[Comparison]:
    """The settings that `stn_kernels` was measured in, in the file's order.

    Args:
        result: one of `results()`.
        only: fields of a setting and the value they should have, such as `dtype="float32"`.

    Raises:
        ValueError: no setting has such a field.
    """
    if unknown := only.keys() - set(SETTING):
        raise ValueError(f"only should name fields of {', '.join(SETTING)}; got {', '.join(sorted(unknown))}")
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for row in result["rows"]:
        # What an implementation could not compute has an error instead of a time.
        if "median" in row and all(row.get(field) == value for field, value in only.items()):
            key = json.dumps([row.get(field) for field in SETTING])
            groups.setdefault(key, {})[row["implementation"]] = row
    found = []
    for rows in groups.values():
        if ours := rows.pop(OURS, None):
            found.append(
                Comparison(
                    {field: ours.get(field) for field in SETTING},
                    ours["copy"] / ours["median"],
                    ours["copy"] / ours["high"],
                    ours["copy"] / ours["low"],
                    {name: row["median"] / ours["median"] for name, row in rows.items()},
                )
            )
    return found


def show(result: dict[str, Any] | None, fraction: "Axes", ratio: "Axes", **only: Any) -> list[Comparison]:
    """Draw what was measured, a line for each setting, and return it; say so where nothing was.

    Args:
        result: one of `results()`, or None.
        fraction: receives the fraction of a copy's bandwidth that the fused kernels reach.
        ratio: receives the times of other implementations, divided by the fused kernels', on a log axis.
        only: as for `comparisons`.
    """
    found = [] if result is None else comparisons(result, **only)
    fraction.set(title="fused / a copy: bandwidth", xlim=(0, 1.05), yticks=[])
    ratio.set(title="others / fused: time", yticks=[])
    if not found:
        for ax in (fraction, ratio):
            ax.text(0.5, 0.5, "not measured yet", ha="center", va="center", transform=ax.transAxes)
            ax.set(xticks=[])
        return found

    figure: Any = fraction.figure
    figure.set_figheight(max(figure.get_figheight(), 1 + 0.2 * len(found)))
    lines = range(len(found))
    for line, one in enumerate(found):
        fraction.plot([one.low, one.high], [line, line], color="C0", linewidth=1)
    fraction.plot([one.fraction for one in found], lines, "o", color="C0", markersize=4)
    fraction.set_yticks(lines, _labels([one.setting for one in found]), fontsize=8)
    names = sorted({name for one in found for name in one.ratios})
    for number, name in enumerate(names, start=1):
        times = [one.ratios.get(name, math.nan) for one in found]
        ratio.plot(times, lines, "o", color=f"C{number}", markersize=4, label=name)
    ratio.set_xscale("log")
    ratio.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    ratio.minorticks_off()
    if names:
        figure.legend(loc="outside lower right", ncols=3, fontsize=8)
    for ax in (fraction, ratio):
        ax.axvline(1, color="#bbbbbb", linewidth=0.8)
        ax.set_ylim(len(found) - 0.5, -0.5)
    return found


def _labels(settings: list[dict[str, Any]]) -> list[str]:
    """What tells the settings apart, in words: the fields in which they differ, but shapes only if they must;
    the case if they do not differ."""
    differ = [field for field in SETTING if any(s[field] != settings[0][field] for s in settings)]
    without_shape = [field for field in differ if field not in ("shape", "size")]
    if len({json.dumps([s[field] for field in without_shape]) for s in settings}) == len(settings):
        differ = without_shape
    return [
        ", ".join(
            "×".join(map(str, setting[field])) if field in ("shape", "size") else str(setting[field])
            for field in differ or ["case"]
        )
        for setting in settings
    ]
