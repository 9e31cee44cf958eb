"""What the result files say together: mean and spread over seeds, as a table."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stn.experiments.runner import Result, read_result

RESULTS = Path(__file__).resolve().parent / "results"
Key = tuple[Any, ...]  # values of settings


class Summary(NamedTuple):
    """A figure over several seeds."""

    mean: float
    spread: float  # standard deviation of the seeds (n - 1); NaN of one
    error: float  # standard error of the mean
    seeds: int


def read(folder: str | Path) -> list[Result]:
    """All results of a folder, in the order of their names; an empty list if there are none.

    Args:
        folder: a Path, or the name of an experiment, for its committed results.

    Raises:
        DamagedFileError: a file is not a result.
    """
    files = sorted((RESULTS / folder if isinstance(folder, str) else folder).glob("*.json"))
    return [read_result(file) for file in files]


def common(results: Sequence[Result], keys: Sequence[str], of_some: Sequence[str] = ()) -> dict[str, Any]:
    """The settings that all results share, epochs among them.

    Args:
        results: as read.
        keys: settings in which they may differ.
        of_some: settings that not every result has. Those that lack one, or have None, agree with any value.

    Raises:
        ValueError: results differ in another setting, so that they cannot be compared.
    """
    settings = [{**result["settings"], "epochs": result["epochs"]} for result in results]
    shared: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in settings for name in one if name not in keys):
        values = dict.fromkeys(one.get(name) for one in settings)
        if name in of_some and len(values) > 1:
            values.pop(None, None)
        shared[name], *others = values
        if others:
            raise ValueError(
                f"results should agree in {name}, which is {shared[name]} in one and {others[0]} in another"
            )
    return shared


def summarise(results: Sequence[Result], figure: str, keys: Sequence[str]) -> dict[Key, Summary]:
    """A final figure's mean and spread over the seeds, for every combination of the settings `keys`."""
    values: dict[Key, list[float]] = {}
    for result in results:
        key = tuple(result["settings"][name] for name in keys)
        values.setdefault(key, []).append(result["final"][figure])
    return {key: _summary(some) for key, some in values.items()}


def _summary(values: Sequence[float]) -> Summary:
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return Summary(statistics.fmean(values), spread, spread / math.sqrt(len(values)), len(values))


def difference(one: Summary, other: Summary) -> Summary:
    """Of two means: its mean, and the standard error as of independent runs; seeds are the fewer."""
    mean, error = one.mean - other.mean, math.hypot(one.error, other.error)
    return Summary(mean, math.hypot(one.spread, other.spread), error, min(one.seeds, other.seeds))


def table(
    summaries: Mapping[Key, Summary], names: Sequence[str], write: Callable[[Summary], str] | None = None
) -> str:
    """Rows for all settings but the last of `names`, which has the columns; None comes first, as a dash.

    Args:
        summaries: as from `summarise`, in the order in which the rows are wanted.
        names: of the settings that make up its keys.
        write: what stands in a cell; mean ± spread and the number of seeds if None.
    """
    write = write or with_spread
    rows = list(dict.fromkeys(key[:-1] for key in summaries))
    columns = sorted({key[-1] for key in summaries}, key=lambda value: (value is not None, value))
    lines = [[*names[:-1], *("" if column is None else f"{names[-1]} {column:g}" for column in columns)]]
    for row in rows:
        cells = [summaries.get((*row, column)) for column in columns]
        lines.append([*(_word(value) for value in row), *(write(cell) if cell else "" for cell in cells)])
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """A table's lines of cells in text, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def with_spread(summary: Summary) -> str:
    spread = "" if summary.seeds == 1 else f" ± {summary.spread:.2f}"
    return f"{summary.mean:.2f}{spread} ({summary.seeds})"


def with_error(summary: Summary) -> str:
    return f"{summary.mean:+.2f}" + ("" if math.isnan(summary.error) else f" ± {summary.error:.2f}")


def with_standard_error(summary: Summary | None, digits: int = 2) -> str:
    """Mean ± standard error and the number of seeds; nothing where there is no run."""
    if summary is None:
        return ""
    error = "" if math.isnan(summary.error) else f" ± {summary.error:.{digits}f}"
    return f"{summary.mean:.{digits}f}{error} ({summary.seeds})"


def _word(value: str | int | float | None) -> str:
    return f"{value:g}" if isinstance(value, float) else "-" if value is None else str(value)
