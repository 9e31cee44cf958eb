"""Tables, verdicts and a figure from a results file.

python kernels/benchmarks/report.py [FILE ...] [--figure results/figure.png]
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cases
import implementations as peers
import results
from cases import BACKWARD, FORWARD

Row = dict[str, Any]
Content = dict[str, Any]


def title(row: Row) -> str:
    """A case in a few words."""
    shape = "x".join(map(str, row["shape"]))
    points = f", {row['points']} points" if row["points"] else ""
    layout = "" if row["layout"] == cases.LAYOUTS[0] else f", {row['layout']}"
    dtype = "" if row["dtype"] == "float32" else f", {row['dtype']}"
    return f"{row['case']} {shape}, {row['operation']}{points}, {row['transform']}{layout}{dtype}"


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"


def progress(row: Row) -> str:
    who = f"  {row['direction']:18}{row['implementation']:32}"
    if "error" in row:
        return f"{who}{row['error']}"
    share = row["copy"] / row["median"]
    peak = f"{row['peak'] / 2**20:.0f} MiB"
    return f"{who}{milliseconds(row['median']):>8} ms  {share:5.0%} of a copy's speed  {peak:>9}"


def timed(content: Content, **choices: Any) -> Iterator[Row]:
    return (row for row in results.rows_of(content, **choices) if "median" in row)


def beside(content: Content, row: Row, implementation: str) -> Row | None:
    """The same case and direction by another implementation."""
    wanted = results.key({**row, "implementation": implementation})
    return next((r for r in timed(content) if results.key(r) == wanted), None)


def speed(content: Content, row: Row, peer: str) -> float | None:
    """How many times as long the peer takes."""
    other = beside(content, row, peer)
    return None if other is None else other["median"] / row["median"]


PEERS = (peers.EAGER, peers.ALIGNED, peers.COMPILED, peers.KORNIA)


def ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def table(content: Content, direction: str | None = None) -> str:
    """Markdown. Columns of peers: how many times as long they take."""
    heading = ["case", "direction", "ms", "copy's speed", "extra MiB", "PyTorch's", *PEERS]
    lines = ["| " + " | ".join(heading) + " |", "| --- | --- |" + " ---: |" * (len(heading) - 2)]
    for row in timed(content, implementation=peers.OWN):
        if direction not in (None, row["direction"]):
            continue
        eager = beside(content, row, peers.EAGER)
        cells = [
            title(row),
            row["direction"],
            milliseconds(row["median"]),
            f"{row['copy'] / row['median']:.0%}",
            f"{row['peak'] / 2**20:.0f}",
            "-" if eager is None else f"{eager['peak'] / 2**20:.0f}",
            *(ratio(speed(content, row, peer)) for peer in PEERS),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


# --- targets -----------------------------------------------------------------------------------------------


def judge(name: str, found: Sequence[tuple[Row, float | None]], bound: float, least: bool = True) -> str:
    """A line: the worst of what was measured, against the target."""
    known = [(value, row) for row, value in found if value is not None]
    if not known:
        return f"not measured  {name}"
    value, row = (min if least else max)(known, key=lambda pair: pair[0])
    held = value >= bound if least else value <= bound
    sign = "at least" if least else "at most"
    worst = f"worst {value:.2f}, {title(row)}"
    return f"{'holds' if held else 'MISSED':13} {name}: {sign} {bound:g}; {worst}"


def verdicts(content: Content) -> str:
    """The project's targets, each held or missed by what the file says."""
    straight = (cases.IDENTITY, cases.ROTATION)

    def own(direction: str, choose: Callable[[Row], bool]) -> list[Row]:
        rows = timed(content, implementation=peers.OWN, direction=direction, dtype="float32")
        return [row for row in rows if row["operation"] == "affine" and choose(row)]

    def photographs(row: Row) -> bool:
        return row["case"] == "photographs" and row["transform"] in straight

    def features(row: Row) -> bool:
        last = row["layout"] == "channels-last"
        return row["case"] == "feature maps" and last and row["transform"] in straight

    def against(rows: Sequence[Row], peer: str) -> list[tuple[Row, float | None]]:
        return [(row, speed(content, row, peer)) for row in rows]

    fast = own(FORWARD, lambda row: photographs(row) or features(row))
    three = own(FORWARD, photographs)
    sixty_four = own(FORWARD, lambda row: features(row) and row["shape"][1] == 64)
    lines = [
        judge("forward, of a copy's speed", [(r, r["copy"] / r["median"]) for r in fast], 0.85),
        judge("forward, C=3, times PyTorch", against(three, peers.EAGER), 2.5),
        judge("forward, C=64 channels-last, times PyTorch", against(sixty_four, peers.EAGER), 1.5),
    ]
    everything = list(timed(content, implementation=peers.OWN, direction=FORWARD))
    compiled = [(row, 1 / s) for row in everything if (s := speed(content, row, peers.COMPILED))]
    lines.append(judge("forward, time beside torch.compile's", compiled, 1.05, least=False))
    if compiled:
        mean = math.exp(statistics.mean(math.log(value) for _, value in compiled))
        held = "holds" if mean <= 1 else "MISSED"
        lines.append(f"{held:13} the same, geometric mean: at most 1; {mean:.2f}")
    three = own(BACKWARD, photographs)
    sixty_four = own(BACKWARD, lambda row: features(row) and row["shape"][1] == 64)
    unit = [*three, *own(BACKWARD, features)]
    gather, scatter = peers.own_way("gather"), peers.own_way("scatter")
    fixed = peers.own_way("gather, fixed point")
    own_scatter = [(g, (beside(content, g, peers.OWN) or g)["median"] / g["median"]) for r in unit
                   if (g := beside(content, r, gather))]  # fmt: skip
    deterministic = [(g, speed(content, g, peers.EAGER)) for r in unit if (g := beside(content, r, fixed))]
    lines += [
        judge("backward, C=3, times PyTorch", against(three, peers.EAGER), 3),
        judge("backward, C=64 channels-last, times PyTorch", against(sixty_four, peers.EAGER), 5),
        judge(f"backward, gather against {scatter}", own_scatter, 1),
        judge("backward, deterministic, times PyTorch's atomic one", deterministic, 3),
    ]
    volumes = {d: own(d, lambda row: row["case"] == "volumes") for d in (FORWARD, BACKWARD)}
    lines += [
        judge("volumes, forward, times PyTorch", against(volumes[FORWARD], peers.EAGER), 2),
        judge("volumes, backward, times PyTorch", against(volumes[BACKWARD], peers.EAGER), 3),
    ]
    extra = [
        (row, (row["peak"] - row["needed"]) / (4 * math.prod(row["shape"])))
        for row in timed(content, implementation=peers.OWN)
        if row["operation"] != "tps"  # whose system of equations is solved beforehand
    ]
    # The buffer that gradients are added up in; a tenth of a grid's bytes of partial sums.
    lines.append(judge("memory beyond results, in float32 images", extra, 1.2, least=False))
    host = []
    for row in own(FORWARD, lambda row: "host" in row):
        eager = beside(content, row, peers.EAGER)
        host.append((row, None if eager is None else row["host"] / eager["host"]))
    lines.append(judge("CPU time of a forward call beside PyTorch's two", host, 1, least=False))
    return "\n".join(lines)


# --- figure ------------------------------------------------------------------------------------------------


def figure(content: Content, path: Path) -> None:
    """Speed-ups over the peers, forward and backward, a row per float32 core case."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    core = {results.key({**results.describe(c), "direction": None}) for c in cases.core_cases()}
    rows = [
        row
        for row in timed(content, implementation=peers.OWN, dtype="float32")
        if results.key({**row, "direction": None, "implementation": None}) in core
    ]
    figure, panels = plt.subplots(1, 2, figsize=(12, 0.3 * max(len(rows) / 3, 6) + 1.5), sharey=True)
    names = list(dict.fromkeys(title(row) for row in rows))
    for panel, direction in zip(panels, (FORWARD, BACKWARD), strict=True):
        for peer, marker in zip(PEERS, "osD^", strict=True):
            found = [
                (names.index(title(row)), value)
                for row in rows
                if row["direction"] == direction and (value := speed(content, row, peer))
            ]
            if found:
                heights, values = zip(*found, strict=True)
                panel.plot(values, heights, marker, label=peer, alpha=0.8)
        panel.axvline(1, color="0.5", linewidth=1)
        panel.set(xscale="log", title=direction, xlabel="times as long as stn_kernels")
        panel.set_yticks(range(len(names)), names, fontsize="small")
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    if names:
        panels[0].legend()
    figure.suptitle(f"{content['device']}, torch {content['software']['torch']}, float32 cases")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def network_table(content: Content) -> str:
    lines = ["| layout | spatial transformers by | ms a step | added |", "| --- | --- | ---: | ---: |"]
    for row in content["network"]:
        cells = (row["layout"], row["implementation"], milliseconds(row["median"]), f"{row['added']:.1%}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(content: Content) -> str:
    software = content["software"]
    versions = ", ".join(f"{name} {version}" for name, version in software.items())
    copy = content["copy_bandwidth"]
    bandwidth = "" if copy is None else f" A large copy moves {copy / 1e12:.2f} TB/s."
    return f"{content['device']}, {content['date']}: {versions}.{bandwidth}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="by default all of results/")
    parser.add_argument("--figure", type=Path, help="also draw it, to this file")
    arguments = parser.parse_args()
    chosen = arguments.files or list(results.files())
    if not chosen:
        print("Not measured yet: no file in results/. `make gpu` writes one.")
    for path in chosen:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = (summary(content), table(content), network_table(content), verdicts(content))
        print(*parts, sep="\n\n")
        if arguments.figure:
            figure(content, arguments.figure)


if __name__ == "__main__":
    main()
