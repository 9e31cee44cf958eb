"""Measure what the chapters' prose tells of more runs than a notebook has time for.

    python chapters/repeats.py 10 14  # these chapters, one to ten minutes each; without a number, all

A chapter's own cells are executed, up to its exercises, and then its functions are called with other seeds.
The results go to repeated/NN.json, by name; check_numbers.py holds the prose to them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jupytext

CHAPTERS = Path(__file__).resolve().parent
RESULTS = CHAPTERS / "repeated"

Results = dict[str, dict[str, float]]


class Chapter:
    """A chapter's cells, executed up to its exercises; nothing is shown."""

    def __init__(self, number: str) -> None:
        (source,) = (CHAPTERS / "sources").glob(f"{number}_*.py")
        self.names: dict[str, Any] = {"__name__": source.stem}
        self.cells: list[str] = []
        for cell in jupytext.read(source, fmt="py:percent").cells:
            if "## Exercises" in cell.source:
                break
            if cell.cell_type == "code":
                self.cells.append(cell.source)
                self.execute(cell.source)

    def __getitem__(self, name: str) -> Any:
        return self.names[name]

    def execute(self, code: str) -> None:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            exec(code, self.names)

    def again(self, start: str, seed: int, *, until: str = "", change: tuple[str, str] = ("", "")) -> None:
        """Execute the cell that has `start` once more, with `seed` where it has 0, and one more change.

        With `until`, only what comes before that text.
        """
        (code,) = (cell for cell in self.cells if start in cell)
        if until:
            code = code[: code.index(until)]
        if change[0] not in code:
            raise ValueError(f"no {change[0]!r} in the cell with {start!r}")
        code = code.replace(*change) if change[0] else code
        self.execute(code.replace("manual_seed(0)", f"manual_seed({seed})"))


def rounded(value: float) -> float:
    """To five digits, but for whole numbers."""
    return value if value % 1 == 0 else float(f"{value:.5g}")


def mean_and_spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.mean(values), "spread": statistics.stdev(values)}


def minimise(groups: Any, steps: int, loss: Callable[[], Any], rate: float = 3e-3) -> None:
    """Adam on parameters or groups of them, each rate falling to 0 along a cosine; `loss` draws its batch."""
    import torch

    optimiser = torch.optim.Adam(groups, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        schedule.step()


class Notes:
    """Values by name, one of each run."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def note(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def results(self) -> Results:
        return {name: mean_and_spread(values) for name, values in self.values.items()}

    def ranges(self) -> Results:
        return {name: {"least": min(values), "most": max(values)} for name, values in self.values.items()}

    def runs(self) -> Results:
        return {
            f"{name}, run by run": {str(run): value for run, value in enumerate(values)}
            for name, values in self.values.items()
        }


def regression(names: Chapter) -> Results:
    """Sections 5.1 to 5.3 with five seeds, and section 5.1 with three times the steps."""
    import torch

    notes, pose, r_squared = Notes(), names["pose"], names["r_squared"]
    own, ones = names["own"], names["ones"]
    for seed in range(5):
        names.again("by_pose = two_layers()", seed)
        names.again("by_picture = two_layers()", seed)
        with torch.no_grad():
            told, learned = (
                names["read"](names[name](names["canvases"])) for name in ("by_pose", "by_picture")
            )
        for name, chosen in (("all", slice(None)), ("ones", ones)):
            turn, seen = pose.angle[chosen], told["angle"][chosen]
            notes.note(f"{name}, turn", r_squared(seen, turn))
            notes.note(f"{name}, turn and slant", r_squared(seen, turn + own[chosen]))
        notes.note("place from the pose", names["off"](told["place"]))
        notes.note("place from the picture", names["off"](learned["place"]))
        notes.note("angle from the picture", r_squared(learned["angle"], pose.angle))
    names.again("by_pose = two_layers()", 0, change=("steps=500", "steps=1500"))
    with torch.no_grad():
        told = names["read"](names["by_pose"](names["canvases"]))
    longer = {"angle": r_squared(told["angle"], pose.angle)}
    return {**notes.results(), "three times the steps": longer}


def bodies(names: Chapter) -> Results:
    """Section 5.5 with five seeds; the place in pixels."""
    import torch

    import stn

    def pooled() -> Any:
        return stn.Localisation(names["papers_convolutions_pooled"](), 20, names["translation"], (1, 60, 60))

    notes, true = Notes(), names["test_places"]
    for seed in range(5):
        names.again("def place_loss", seed, until="moved_digits, places =")
        for name, build in (*names["networks"](), ("the paper's, pooled", pooled)):
            torch.manual_seed(seed)
            network = build().to(names["device"])
            names["fit"](network, names["place_loss"](), steps=120)
            with torch.no_grad():
                theta = network(names["test_moved"])
            off = (30 * theta - true).square().sum(1).mean().sqrt().item()
            notes.note(f"{name}, R squared", names["r_squared"](theta[:, 0], true[:, 0]))
            notes.note(f"{name}, off by", off)
            notes.note(f"{name}, parameters", sum(parameter.numel() for parameter in network.parameters()))
    return notes.results()


def widths(names: Chapter) -> Results:
    """The sum of features in section 5.7 for three widths, mean of three seeds."""
    import torch

    import stn

    found = {}
    for units in (128, 256, 512):
        sums = []
        for seed in range(3):
            torch.manual_seed(seed)
            layers = stn.FullyConnectedLocalisation((1, 42, 42), names["affine"], hidden=(units, units))
            _, U, _ = names["new_digits"](128, torch.Generator().manual_seed(seed))
            with torch.no_grad():
                sums.append(layers.body(U).abs().sum(1).mean().item())
        found[str(units)] = {"units": units, "mean": statistics.mean(sums)}
    return found


def bounds(names: Chapter) -> Results:
    """Section 5.9 with five seeds, in per cent, the least and the most."""
    notes = Notes()
    for seed in range(5):
        names.again("def classify", seed, until="free, bounded =")
        for factor in (20, 10, 1):
            for bound in (None, 0.6):
                error, black, rim = names["classify"](factor, bound)
                for what, value in (("error", error), ("black", black), ("rim", rim)):
                    notes.note(f"{factor} times, bound {bound}, {what}", 100 * value)
        _, black, _ = names["classify"](20, None, steps=30)
        notes.note("20 times, bound None, after 30 steps, black", 100 * black)
    ten = "10 times, bound"
    died = sum(black > 95 for black in notes.values[f"{ten} None, black"])
    frozen = sum(rim > 90 for rim in notes.values[f"{ten} 0.6, rim"])
    return {**notes.ranges(), "10 times": {"free ones that died": died, "bounded ones that froze": frozen}}


def descents(names: Chapter) -> Results:
    """Section 6.2's descent from one pose, a little added to the first parameter: the share of loss left."""
    start = "affine.identity().to(digit)"
    names.again("def descend", 0, until="found, remaining", change=(start, f"({start} + added)"))
    pose = {"angle": 20.0, "right": 4.0, "down": -3.0}
    canvas, _ = names["placed"](names["digit"], **pose)
    found: Results = {"pose": pose}
    for added in (thousandths / 1000 for thousandths in range(-5, 6)):
        names.names["added"] = names["digit"].new_tensor([added, 0, 0, 0, 0, 0])
        _, left = names["descend"](canvas, names["digit"])
        found[f"{added} added"] = {"added": added, "left": left}
    return found


def contest(names: Chapter) -> Results:
    """Section 6.5 with five seeds and other learning rates, in per cent."""
    start, until = "def compete", "model = compete"

    def error(name: str) -> float:
        return 100 * names["history"][name][-1][2]

    def plain(seed: int, change: tuple[str, str] = ("", "")) -> float:
        names.again(start, seed, until=until, change=change)
        names["compete"]("without", names["without_transformer"])
        return error("without")

    found = {}
    for rate in (1, 2, 3, 5):
        value = plain(0, ("learning_rate=3e-3", f"learning_rate={rate}e-3"))
        found[f"without, learning rate {rate}e-3"] = {"rate": 1e-3 * rate, "error": value}
    value = plain(0, ("STEPS, EARLY = 3000", "STEPS, EARLY = 12000"))
    found["without, four times the steps"] = {"steps": 12000, "error": value}

    notes = Notes()
    for seed in range(5):
        names.again(start, seed, until=until)
        names["compete"]("with", names["with_transformer"])
        names["compete"]("without", names["without_transformer"])
        notes.note("with", error("with"))
        notes.note("without", error("without"))
        notes.note("without / with", error("without") / error("with"))
        budget = names["history"]["without"][-1][1]
        in_time = [row[2] for row in names["history"]["with"] if row[1] <= budget]
        notes.note("with, at equal time", 100 * in_time[-1])
    return {**notes.results(), **notes.runs(), **found}


def localisations(names: Chapter) -> Results:
    """Section 6.5 with other rates of the localisation network, with another one, and one told the angles."""
    import torch
    import torch.nn.functional as F

    import stn

    start, until = "def compete", "model = compete"
    rate = "learning_rate=3e-3"
    truth, affine = names["truth"], names["affine"]
    found: Results = {}

    def learn(name: str, change: tuple[str, str] = ("", "")) -> None:
        names.again(start, 0, until=until, change=change)
        names["compete"]("with", names["with_transformer"], names["take_down_theta"])
        angle = names["read"](names["film"][names["STEPS"]])["angle"]
        found[name] = {
            "error": 100 * names["history"]["with"][-1][2],
            "angle": names["r_squared"](angle, truth["angle"]),
        }

    for part, factor in (("all of", "1"), ("a third of", "1 / 3"), ("a tenth of", "1 / 10")):
        learn(f"{part} the rate", (rate, f"{rate}, localisation_factor={factor}"))
    names.again("def with_transformer", 0, change=("hidden=(128, 128)", "hidden=(32, 32, 32)"))
    learn("three layers")
    found["three layers"]["units"] = 32

    torch.manual_seed(0)
    told = stn.FullyConnectedLocalisation((1, 42, 42), affine, hidden=(128, 128)).to(names["device"])
    generator = torch.Generator().manual_seed(0)

    def loss() -> torch.Tensor:
        chosen = torch.randint(len(names["images"]), (128,), generator=generator)
        batch = names["images"][chosen.to(names["device"])]
        canvases, pose = names["rotated_translated_scaled"](batch, generator=generator)
        return F.mse_loss(names["read"](told(canvases))["angle"] / 45, pose.angle / 45)

    minimise(told.parameters(), names["STEPS"], loss)
    with torch.no_grad():
        angle = names["read"](told(names["canvases"]))["angle"]
    found["told the angles"] = {"angle": names["r_squared"](angle, truth["angle"])}
    return found


def families(names: Chapter) -> Results:
    """Section 10.11 with five sets of digits and warps."""
    import torch

    runs = [names["compete"](torch.Generator().manual_seed(seed)) for seed in range(5)]
    found = {}
    for task, family in runs[0]:
        left, off = zip(*(run[task, family] for run in runs), strict=True)
        found[f"{task}, {family}"] = {"left": statistics.mean(left), **mean_and_spread(off)}
    return found


def readers(names: Chapter) -> Results:
    """Section 12.4 with five seeds, other learning rates, and one rate for all; lines read, in per cent."""
    start, until = "def share_read", "with_spline = compete"

    def share(name: str, rate: float, factor: float | None = None) -> float:
        return 100 * names["share_read"](names["compete"](name, rate, factor))

    found = {}
    for name, factor in (("none", None), ("affine", 0.5), ("spline", 0.5)):
        for rate in (2, 3, 5, 8, 12):
            value = share(name, 1e-3 * rate, factor)
            found[f"{name}, learning rate {rate}e-3"] = {"rate": 1e-3 * rate, "read": value}
    notes = Notes()
    for seed in range(5):
        names.again("def lines_of", seed)
        names.again(start, seed, until=until)
        none, affine, spline = share("none", 8e-3), share("affine", 5e-3, 0.5), share("spline", 5e-3, 0.5)
        notes.note("none", none)
        notes.note("affine", affine)
        notes.note("spline", spline)
        notes.note("spline - none", spline - none)
        notes.note("spline - affine", spline - affine)
        notes.note("affine, at 8e-3", share("affine", 8e-3, 0.5))
        if seed < 2:
            notes.note("spline, one rate for all", share("spline", 5e-3))
    return {**notes.results(), **notes.runs(), **found}


def planes(names: Chapter) -> Results:
    """Section 12.6 with five seeds, in degrees, and its planes before a classifier, three seeds."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    import stn
    from stn.networks import fully_connected_network

    size, device, angles = names["SIZE"], names["device"], names["principal_angles"]

    def classify(seed: int, steps: int = 1000) -> tuple[float, float]:
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        noise = stn.blur(torch.randn(1, 2, *size, generator=generator), 4)[0].to(device)
        learned = stn.Basis(0.3 * noise / noise.std(), learned=True).to(device)
        looks = stn.FullyConnectedLocalisation((1, *size), learned, hidden=(128, 128))
        nn.init.normal_(looks.head.weight, std=1e-2)
        transformer = stn.SpatialTransformer(looks, learned, size).to(device)
        classifier = fully_connected_network((1, *size), units=64).to(device)
        others = [*looks.parameters(), *classifier.parameters()]
        groups = [{"params": others, "lr": 3e-3}, {"params": learned.parameters(), "lr": 3e-2}]

        def loss() -> torch.Tensor:
            chosen = torch.randint(len(names["images"]), (64,), generator=generator).to(device)
            M = 0.12 * torch.randn(64, 4, generator=generator).to(device)
            warped = names["true_basis"].sample(names["images"][chosen], M, size)
            return F.cross_entropy(classifier(transformer(warped)), names["labels"][chosen])

        minimise(groups, steps, loss)
        true = names["true_planes"]
        return angles(noise, true)[-1].item(), angles(learned.basis.detach(), true)[-1].item()

    notes = Notes()
    for seed in range(5):
        learned, _ = names["learn_basis"](seed=seed)
        notes.note("from pairs", angles(learned, names["true_planes"])[-1].item())
    for seed in range(3):
        start, end = classify(seed)
        notes.note("from labels, start", start)
        notes.note("from labels, end", end)
    return {"from labels": {"steps": 1000}, **notes.runs()}


def sums(names: Chapter) -> Results:
    """Sections 13.3 and 13.4 with five seeds, in per cent; one transformer, and other learning rates."""
    from torch import nn

    import stn
    from stn.networks import fully_connected_network
    from stn.training import count_parameters, error_rate

    adder: Any = names["Adder"]

    class Whole(adder):
        """Both digits read off the whole canvas."""

        def read(self, canvases: Any) -> Any:
            return self.reader(canvases).unflatten(1, (2, 10))

    def without_windows() -> Any:
        return Whole(nn.Identity(), fully_connected_network((1, 40, 60), 80, num_classes=20))

    def one_transformer() -> Any:
        attention = stn.Attention()
        localisation = stn.FullyConnectedLocalisation((1, 40, 60), attention, hidden=(64, 64))
        look = stn.SpatialTransformer(localisation, attention, (20, 30))
        return Whole(look, fully_connected_network((1, 20, 30), 64, num_classes=20))

    class One(Whole):
        def read(self, canvases: Any) -> Any:
            return self.reader(self.look(canvases)).unflatten(1, (2, 10))

    builds = {
        "windows that move": lambda: names["two_transformers"](names["apart"]),
        "fixed windows": names["fixed_windows"],
        "without windows": without_windows,
        "one transformer": lambda: One(*one_transformer().children()),
    }
    notes = Notes()
    for seed in range(5):
        names.again("def two_transformers", seed)
        for name, build in builds.items():
            if name != "one transformer" or seed < 3:
                model = names["learn_sums"](build, steps=500)
                notes.note(name, 100 * error_rate(model, names["canvases"], names["test_sums"]))
    found = notes.results()
    for name, build in builds.items():
        found[name]["parameters"] = count_parameters(build())
    for rate in (1, 3, 10):
        names.again("def two_transformers", 0, change=("3e-3", f"{rate}e-3"))
        for name in ("fixed windows", "without windows"):
            model = names["learn_sums"](builds[name], steps=500)
            error = 100 * error_rate(model, names["canvases"], names["test_sums"])
            found[f"{name}, learning rate {rate}e-3"] = {"rate": 1e-3 * rate, "error": error}
    names.again("def two_transformers", 0)
    model = names["learn_sums"](lambda: names["two_transformers"](names["apart"] * 0), steps=500)
    theta = names["thetas"](model)
    found["both from the middle"] = {
        "error": 100 * error_rate(model, names["canvases"], names["test_sums"]),
        "difference": (theta[:, 0] - theta[:, 1]).abs().max().item(),
    }
    return found


def looks(names: Chapter) -> Results:
    """Section 13.5 with five seeds, in per cent, pixels and R squared, and with 700 steps."""
    from stn.training import error_rate

    notes = Notes()

    def error(network: Any) -> float:
        return 100 * error_rate(network, names["rts"], names["test_labels"])

    for seed in range(5):
        names.again("def learn_rts", seed, until="once, twice =", change=("400", "700"))
        notes.note("one look, 700 steps", error(names["learn_rts"](1)))
        names.again("def learn_rts", seed, until="once, twice =")
        once, twice = names["learn_rts"](1), names["learn_rts"](2)
        notes.note("one look", error(once))
        notes.note("two looks", error(twice))
        for name, network, count in (("only", once, 1), ("first", twice, 1), ("second", twice, 2)):
            _, matrix = names["after"](network, count)
            notes.note(f"{name}, off by", names["off"](matrix))
            notes.note(f"{name}, angle", names["r_squared_of_angle"](matrix))
    return notes.results()


def clutter(names: Chapter) -> Results:
    """Section 13.7 with five seeds, in per cent and pixels, and at three learning rates."""
    from stn.training import error_rate

    notes, found = Notes(), {}
    start, until = "def learn_cluttered", "counts = "

    def errors() -> list[float]:
        networks = names["attentive"], names["plain"]
        return [100 * error_rate(network, names["cluttered"], names["test_labels"]) for network in networks]

    for seed in range(5):
        names.again(start, seed, until=until)
        for name, error in zip(("with", "without"), errors(), strict=True):
            notes.note(name, error)
        names.again("all_thetas", seed)
        notes.note("median miss", names["miss"])
    for rate in (1, 3, 6):
        names.again(start, 0, until=until, change=("3e-3", f"{rate}e-3"))
        found[f"without, learning rate {rate}e-3"] = {"rate": 1e-3 * rate, "error": errors()[1]}
    return {**notes.results(), **found}


def five_sets(names: Chapter) -> Results:
    """Sections 14.8 and 14.9 with five sets of 16 digits and directions; shares in per cent, else pixels."""
    import torch
    import torch.nn.functional as F

    images, descend, pushed_off = names["images"], names["descend"], names["pushed_off"]
    translation, device = names["translation"], names["device"]
    sign = torch.tensor([[1.0], [-1.0]], device=device).repeat(8, 1)
    notes = Notes()
    note = notes.note

    def share(errors: torch.Tensor, below: float) -> float:
        return 100 * (errors < below).float().mean().item()

    for k in range(5):
        chosen = images[16 * k : 16 * (k + 1)]
        digits = F.pad(chosen, (26, 26, 26, 26))
        roomy = digits[:, :, 12:68, 12:68]
        for scales, shifts in (((), (3, 8)), ((8, 24), (8, 16, 24, 28))):
            for shift in shifts:
                end = descend(translation, digits, digits, pushed_off(16, shift, k), scales)
                note(f"scales {scales}, from {shift} pixels", share((end * 40).norm(dim=1), 0.5))
        for scales in ((), (4, 12)):
            for degrees in (60, 90):
                start = math.radians(degrees) * sign
                end = descend(names["Turn"](), chosen, chosen, start, scales, rate=0.03)
                note(f"scales {scales}, turned by {degrees}", share(end.abs(), math.radians(2)))
            start = torch.full((16, 1), math.log(3), device=device)
            end = descend(names["Zoom"](), roomy, roomy, start, scales, rate=0.03)
            note(f"scales {scales}, a third of the size", share(end.abs(), 0.03))
        for deviation in (0.1, 0.3):
            noise = torch.randn(digits.shape, generator=torch.Generator().manual_seed(3 + k)).to(device)
            noisy = digits + deviation * noise
            near = descend(translation, digits, noisy, pushed_off(16, 1.5, k), ())
            far = descend(translation, digits, noisy, pushed_off(16, 16, k), (8, 24))
            refined = descend(translation, digits, noisy, far, (), steps=50, rate=0.005)
            for name, end in (("plain", near), ("copies", far), ("copies, then plain", refined)):
                note(f"noise {deviation}, {name}", (end * 40).norm(dim=1).median().item())
    return notes.results()


def factors(names: Chapter) -> Results:
    """Section 14.8 from 24 pixels with other factors than the scale's square; who arrives, in per cent."""
    import torch

    import stn

    translation, digits = names["translation"], names["digits"]

    def seen(theta: torch.Tensor, power: int) -> torch.Tensor:
        return sum(
            scale**power * translation.sample(stn.blur(digits, scale), theta, digits.shape[2:])
            for scale in (8, 24)
        )

    def descended(start: torch.Tensor, power: int, steps: int = 100) -> torch.Tensor:
        theta = start.clone().requires_grad_()

        def loss() -> torch.Tensor:
            output = translation.sample(digits, theta.detach(), digits.shape[2:])
            slopes = seen(theta, power)
            return (output + slopes - slopes.detach() - digits).square().sum()

        minimise([theta], steps, loss, rate=0.02)
        return theta.detach()

    notes = Notes()
    for seed in range(3):
        for power in (0, 1, 2, 3):
            end = descended(names["pushed_off"](16, 24, seed), power)
            arrived = (end * 40).norm(dim=1) < 0.5
            notes.note(f"to the power of {power}", 100 * arrived.float().mean().item())
    return {"trial": {"pixels": 24}, **notes.ranges()}


def training(names: Chapter) -> Results:
    """A classifier behind a transformer that translates, with and without copies, five seeds; in per cent."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    import stn
    from stn.networks import fully_connected_network
    from stn.training import error_rate, random_batches, train

    side, translation, device = 60, names["translation"], names["device"]

    def anywhere(
        images: torch.Tensor, *, generator: torch.Generator | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        small = F.avg_pool2d(images, 2)
        corner = torch.randint(side - 14 + 1, (len(images), 2), generator=generator).to(device)
        rows, columns = (corner[:, axis, None] + torch.arange(14, device=device) for axis in (0, 1))
        canvases = images.new_zeros(len(images), 1, side, side)
        image = torch.arange(len(images), device=device)[:, None, None]
        canvases[image, 0, rows[:, :, None], columns[:, None]] = small[:, 0]
        return canvases, corner

    images, labels = (tensor.to(device) for tensor in stn.data.digits("train"))
    test_images, test_labels = (tensor.to(device) for tensor in stn.data.digits("test"))
    test_canvases, _ = anywhere(test_images, generator=torch.Generator().manual_seed(1))
    notes = Notes()
    for seed in range(5):
        for name, scales in (("plain", ()), ("copies 4 and 16", (4, 16))):
            torch.manual_seed(seed)
            localisation = stn.FullyConnectedLocalisation((1, side, side), translation, hidden=(64, 64))
            transformer = stn.SpatialTransformer(
                localisation, translation, (side, side), gradient_scales=scales
            )
            model = nn.Sequential(transformer, fully_connected_network((1, side, side), units=64)).to(device)
            generator = torch.Generator().manual_seed(seed)
            batches = random_batches(images, labels, 128, distortion=anywhere, generator=generator)
            train(model, batches, 600, learning_rate=3e-3)
            notes.note(name, 100 * error_rate(model, test_canvases, test_labels))
    return {"digits": {"pixels": 14, "canvas": side, "steps": 600}, **notes.results()}


def valleys(names: Chapter) -> Results:
    """Local minima of section 14.5's loss along its scale."""
    import torch
    import torch.nn.functional as F

    attention, home = names["attention"], names["home"]
    steps, least, most, off = 81, 0.65, 0.85, 0.4
    theta = home.repeat(steps, 1)
    theta[:, 0] = torch.linspace(least, most, steps)
    theta[:, 1] = 2 * off / 96
    found: Results = {"scales": {"least": least, "most": most, "steps": steps, "off by": off}}
    for name, image in (("zone plate", names["zone_plate"]), ("digits", names["canvas"])):
        wanted = F.avg_pool2d(attention.sample(image, home, (36 * 16, 36 * 16)), 16)
        found[name] = {}
        for antialias in (False, True):
            output = attention.sample(image, theta[None], (36, 36), antialias=antialias)[0]
            loss = (output - wanted).square().mean((1, 2, 3))
            falls, rises = loss[1:-1] < loss[:-2], loss[1:-1] < loss[2:]
            found[name]["antialiased" if antialias else "plain"] = int((falls & rises).sum())
    return found


def solids(names: Chapter) -> Results:
    """Section 15.9 with five seeds, other baselines and families, in per cent; section 15.10 of its runs."""
    import torch
    from torch import nn

    import stn
    from stn.networks import fully_connected_network

    class Cut(stn.MatrixTransform):
        """theta = (theta_33, t_x, t_y, t_z), all else as in the identity."""

        axes, num_parameters = 3, 4

        def identity(self) -> torch.Tensor:
            return torch.tensor([1.0, 0.0, 0.0, 0.0])

        def matrix(self, theta: torch.Tensor) -> torch.Tensor:
            self.check(theta)
            matrix = torch.eye(3, 4).to(theta).repeat(*theta.shape[:-1], 1, 1)
            matrix[..., 2, 2] = theta[..., 0]
            matrix[..., 3] = theta[..., 1:]
            return matrix

    side, affine, families_ = names["SIDE"], names["affine"], names["families"]

    def classifier(*before: nn.Module, channels: int = 1, units: int = 288) -> nn.Sequential:
        return nn.Sequential(*before, fully_connected_network((channels, side, side), units=units))

    builds: dict[str, Callable[[], Any]] = {
        "depth": names["without_transformer"],
        "all axes": lambda: classifier(names["Project"](2, 3, 4), channels=3, units=148),
        "line of sight": lambda: names["with_transformer"](families_["line of sight"]),
        "rigid": lambda: names["with_transformer"](families_["rigid"]),
        "affine": lambda: names["with_transformer"](affine),
        "cut": lambda: names["with_transformer"](Cut()),
    }
    volumes, pose = names["volumes"], names["true_pose"]
    normal = pose.rotation[:, :, 2]
    notes = Notes()

    def matrices(model: Any, family: Any) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([family.matrix(model[0](U, return_theta=True)[1]) for U in volumes.split(500)])

    for seed in range(5):
        names.again("def learn(build)", seed, until="baseline, error_without =")
        for name, build in builds.items():
            model, error = names["learn"](build)
            notes.note(f"{name}, error", 100 * error)
            if name in families_:
                A = matrices(model, families_[name])
                notes.note(f"{name}, rays to normal", names["degrees_between"](A[:, :, 2], normal))
            if name == "affine":
                plane = torch.linalg.cross(A[:, :, 0], A[:, :, 1])
                notes.note("affine, plane to face", names["degrees_between"](plane, normal))
                notes.note("affine, theta_33", A[:, 2, 2].mean().item())
                names.names["classifier"] = model[1:]
                same_place, same_cut = A.clone(), A.mean(0).repeat(len(A), 1, 1)
                same_place[:, :, 3] = A[:, :, 3].mean(0)
                same_cut[:, :, 3] = A[:, :, 3]
                notes.note("affine, all at one place", 100 * names["misread"](same_place))
                notes.note("affine, all with one slant", 100 * names["misread"](same_cut))
        names.names["STEPS"] = 800
        for name in ("depth", "line of sight", "rigid", "affine"):
            notes.note(f"{name}, error after 800 steps", 100 * names["learn"](builds[name])[1])
    return {**notes.results(), **notes.runs()}


def cuts(names: Chapter) -> Results:
    """Section 15.9's classifier on so many layers in the middle of the volumes, five seeds, in per cent."""
    from torch import nn

    from stn.networks import fully_connected_network

    side = names["SIDE"]

    class Middle(nn.Module):
        def __init__(self, layers: int) -> None:
            super().__init__()
            self.first, self.layers = (side - layers) // 2, layers

        def forward(self, volume: Any) -> Any:
            return volume.narrow(2, self.first, self.layers).sum(2) * (4 / side)

    def middle(layers: int) -> Any:
        return nn.Sequential(Middle(layers), fully_connected_network((1, side, side), units=288))

    notes = Notes()
    for seed in range(5):
        names.again("def learn(build)", seed, until="baseline, error_without =")
        for count in (4, 8):
            _, error = names["learn"](lambda count=count: middle(count))
            notes.note(f"{count} layers", 100 * error)
    return {**notes.results(), **notes.runs()}


REPEATS: dict[str, dict[str, Callable[[Chapter], Results]]] = {
    "05": {"regression": regression, "bodies": bodies, "widths": widths, "bounds": bounds},
    "06": {"descents": descents, "contest": contest, "localisations": localisations},
    "10": {"families": families},
    "12": {"readers": readers, "planes": planes},
    "13": {"sums": sums, "looks": looks, "clutter": clutter},
    "14": {"five sets": five_sets, "valleys": valleys, "factors": factors, "training": training},
    "15": {"solids": solids, "cuts": cuts},
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure anew what the prose tells of repeated runs.")
    parser.add_argument("chapters", nargs="*", metavar="NN", help=f"of {', '.join(REPEATS)}; all if none")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.chapters) - set(REPEATS)):
        parser.error(f"no repeats of chapter {', '.join(unknown)}; there are {', '.join(REPEATS)}")

    import matplotlib as mpl

    mpl.use("agg")
    for number in options.chapters or REPEATS:
        chapter = Chapter(number)
        found = {name: repeat(chapter) for name, repeat in REPEATS[number].items()}
        for rows in found.values():
            for row in rows.values():
                row.update({what: rounded(value) for what, value in row.items()})
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{number}.json"
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(path.relative_to(CHAPTERS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
