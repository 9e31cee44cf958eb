"""Co-localisation: the paper's Table 5 (appendix A.2). What is learned is in `stn.colocalisation`.

For each digit 0 to 9: a hundred images of it on 84 x 84 pixels, anywhere (T), or anywhere among sixteen
pieces of others (TC). Trained without labels, then judged by the 28 x 28 pixels that the digit came in.

Methods, of which the first four add one thing each:

- printed: as far as the paper says. All three layers of the encoder as they are, alpha 1, the window's scale
  and place free, from 0.4 and the middle.
- unit: both convolutions' activations at unit norm; a scale of 0.34, give or take 0.03; gradients through a
  blurred copy as well.
- anchored: no gradient that moves all windows alike; instead they are centred.
- narrowed: the window starts at 1.5 and narrows to 0.34.
- loose: narrowed, but not anchored.

All train by Adam on 32 images at a time, as the paper's learning rate is not known. The encoder is
trained anew for each run, on digits that are scaled and moved a little.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from stn import data
from stn.colocalisation import ALL_LAYERS, Colocaliser, intersection_over_union
from stn.data.distortions import uniform
from stn.experiments import digits
from stn.experiments.report import aligned, common, summarise, with_standard_error
from stn.experiments.runner import Experiment, Figures, Result, Run, Settings, Training
from stn.networks import convolutional_network
from stn.training import random_batches, train
from stn.transforms import Attention

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CANVAS, SIDE = 84, 28
IMAGES = 100
BATCH = 32
CLUTTER = {"T": 0, "TC": 16}
METHODS: dict[str, dict[str, Any]] = {  # arguments of `Colocaliser`
    "printed": {"last": 0.4, "first": 0.4, "slack": None, "anchored": False, "scales": ()},
    "unit": {"last": 0.34, "first": 0.34, "anchored": False},
    "anchored": {"last": 0.34, "first": 0.34},
    "narrowed": {"last": 0.34},
    "loose": {"last": 0.34, "anchored": False},
}
FOUND = 0.5  # intersection over union
# % found, Table 5; TC for the digits 0 to 9.
PAPER = {"T": [100.0] * 10, "TC": [81.0, 82.0, 88.0, 75.0, 94.0, 84.0, 93.0, 85.0, 89.0, 87.0]}


class Schedule(NamedTuple):
    """How long a run is."""

    steps: int
    parts: int
    encoder_steps: int


SCHEDULES = {"quick": Schedule(1000, 10, 400), "smoke": Schedule(4, 2, 4)}
LEARNING_RATE = 2e-3
WARM_UP = 0.15  # of the steps, while the rate rises
CENTRED_EVERY = 0.05  # of the steps, once warm


def jittered(images: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Digits in windows of scale 0.85 to 1.35, moved by up to 0.2; and theta."""
    draws = uniform((len(images), 3), images, generator)
    theta = draws * draws.new_tensor([0.25, 0.2, 0.2]) + draws.new_tensor([1.1, 0.0, 0.0])
    return Attention().sample(images, theta, images.shape[2:]), theta


def encoder(images: Tensor, labels: Tensor, steps: int, generator: torch.Generator) -> torch.nn.Sequential:
    """A classifier of digits, trained and frozen: 16 filters a layer."""
    network = convolutional_network((1, SIDE, SIDE), 16)
    batches = random_batches(images, labels, 64, distortion=jittered, generator=generator)
    train(network, batches, steps, learning_rate=2e-3)
    return network.requires_grad_(False)


def scattered(
    images: Tensor, labels: Tensor, digit: int, clutter: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A hundred images of a digit (100, 1, 84, 84), and where it lies, x and y in pixels from the middle."""
    own = (labels == digit).nonzero().flatten()
    own = own[torch.randperm(len(own), generator=generator)[:IMAGES]]
    others = torch.randperm(len(images), generator=generator)[:IMAGES]  # what clutter may be cut from
    mixed = torch.stack([images[own], images[others]], 1).flatten(0, 1)
    seen, pose = data.translated_cluttered(mixed, size=(CANVAS, CANVAS), patches=clutter, generator=generator)
    return seen[::2], pose.translation[::2]


class ColocalisationTraining(Training):
    """A run."""

    model: Colocaliser

    def __init__(self, settings: Settings, seed: int, device: str) -> None:
        self.schedule = SCHEDULES[settings["schedule"]]
        generator = torch.Generator().manual_seed(seed)
        loaded = digits.load(settings["data"])
        images, labels = loaded.train_images, loaded.train_labels
        self.encoder = encoder(images, labels, self.schedule.encoder_steps, generator).to(device)
        seen, places = scattered(images, labels, settings["digit"], CLUTTER[settings["set"]], generator)
        self.images, self.places = seen.to(device), places.to(device)
        printed = settings["method"] == "printed"
        self.features: dict[str, Any] = {"layers": ALL_LAYERS, "unit": False} if printed else {}
        model = Colocaliser((1, CANVAS, CANVAS), **METHODS[settings["method"]]).to(device)
        optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        super().__init__(model, optimiser, generator)
        self.step = 0

    def epoch(self) -> Figures:
        steps = self.schedule.steps // self.schedule.parts
        loss = sum(self.train_step() for _ in range(steps)) / steps
        with torch.no_grad():
            theta = self.model(self.images)
        overlap = intersection_over_union(theta, self.places, (CANVAS, CANVAS), SIDE)
        off = (theta[:, 1:] * CANVAS / 2 - self.places).square().sum(1).sqrt()
        return {
            "loss": round(loss, 5),
            "found": round(100 * (overlap > FOUND).double().mean().item(), 3),
            "overlap": round(overlap.mean().item(), 4),
            "pixels_off": round(off.mean().item(), 3),
            "ink": round(self.model.cut(self.images, theta).mean().item(), 5),
        }

    def train_step(self) -> float:
        """One batch; its loss."""
        progress = self.step / self.schedule.steps
        self.step += 1
        for group in self.optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, progress / WARM_UP + 0.01, 1.3 * (1 - progress))
        self.model.narrow(progress)
        chosen = torch.randperm(len(self.images), generator=self.generator)[:BATCH].to(self.images.device)
        images = self.images[chosen]
        loss = self.model.loss(self.encoder, images, generator=self.generator, **self.features)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        every = max(1, round(CENTRED_EVERY * self.schedule.steps))
        if self.model.anchored and progress >= WARM_UP and self.step % every == 0:
            self.model.centre(self.images)
        return loss.item()

    def state(self) -> dict[str, Any]:
        return {**super().state(), "step": self.step}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.step = state["step"]


class Colocalisation(Experiment):
    """`python -m stn.experiments colocalisation`."""

    name = "colocalisation"
    description = (
        "The paper's Table 5: a digit is found in a hundred images of it, without labels, as what they have "
        "in common. As the paper prints it, and with a window that narrows. Data as for table1."
    )
    epochs = None
    keys = ("method", "set", "digit")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--sets", nargs="+", choices=CLUTTER, default=tuple(CLUTTER), help="both")
        parser.add_argument("--methods", nargs="+", choices=METHODS, default=tuple(METHODS), help="all")
        parser.add_argument(
            "--digits", nargs="+", type=int, choices=range(10), default=range(10), help="all ten"
        )
        parser.add_argument("--schedule", choices=SCHEDULES, default="quick", help="quick")

    def runs(self, arguments: argparse.Namespace, seeds: Sequence[int], epochs: int | None) -> list[Run]:
        name = digits.chosen()
        parts = SCHEDULES[arguments.schedule].parts
        return [
            self.run(
                {"method": method, "set": one, "digit": digit, "schedule": arguments.schedule, "data": name},
                parts,
                seed,
            )
            for seed in seeds
            for one in dict.fromkeys(arguments.sets)
            for method in dict.fromkeys(arguments.methods)
            for digit in dict.fromkeys(arguments.digits)
        ]

    def start(self, run: Run, device: str) -> Training:
        return ColocalisationTraining(run.settings, run.seed, device)

    def table(self, results: Sequence[Result]) -> str:
        same = common(results, self.keys)
        found = summarise(results, "found", self.keys)
        columns = [
            (method, one)
            for one in CLUTTER
            for method in METHODS
            if any(key[:2] == (method, one) for key in found)
        ]
        sets = [one for one in CLUTTER if any(column[1] == one for column in columns)]
        lines = [["digit", *(f"{one} {method}" for method, one in columns), *(f"[{one}]" for one in sets)]]
        for digit in sorted({key[2] for key in found}):
            cells = [with_standard_error(found.get((*column, digit)), digits=1) for column in columns]
            lines.append([str(digit), *cells, *(f"[{PAPER[one][digit]:.0f}]" for one in sets)])
        return (
            f"Co-localisation ({same['data']}), schedule {same['schedule']}.\n"
            f"Windows that overlap the digit's 28 x 28 pixels by more than {FOUND}, in %: mean ± standard "
            "error (how many seeds) [the paper's]\n\n" + aligned(lines)
        )

    def draw(self, results: Sequence[Result]) -> "Figure":
        import matplotlib.pyplot as plt

        from stn.plotting import use_style

        use_style()
        found = summarise(results, "found", self.keys)
        sets = [one for one in CLUTTER if any(key[1] == one for key in found)]
        figure, axes = plt.subplots(
            1, len(sets), figsize=(4 * len(sets), 3), squeeze=False, sharey=True, layout="compressed"
        )
        for ax, one in zip(axes[0], sets, strict=True):
            for color, marker, method in zip(("C2", "C3", "C4", "C0", "C5"), "sv^oD", METHODS, strict=True):
                rows = [(key[2], value.mean) for key, value in found.items() if key[:2] == (method, one)]
                if rows:
                    ax.plot(*zip(*sorted(rows), strict=True), marker, color=color, label=method)
            ax.plot(range(10), PAPER[one], "_", color="C1", markersize=12, label="the paper's")
            ax.set(title=one, xlabel="digit", ylim=(-5, 105))
            ax.set_xticks(range(10))
        axes[0, 0].set_ylabel("found, %")
        axes[0, 0].legend()
        return figure
