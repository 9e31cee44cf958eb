"""Distorted MNIST: the paper's Table 1, cluttered set, sums and volumes (section 4.1, appendix A).

Networks of as many parameters, alone or behind spatial transformers, read digits that are distorted anew for
every batch; `distorted_tasks` says how, `distorted_networks` and `volume_networks` what reads them. The test
digits are distorted the same way for every run.

Schedules:

- paper: the paper's own, SGD, 150,000 steps of 256, the learning rate 0.01, a tenth of it after every 50,000;
- quick: Adam, 3,000 steps of 128, the learning rate falling along a cosine; all of Table 1 in hours of a CPU;
- smoke: a few steps, to see that it works.

What the paper leaves open is decided so: no momentum; the test error is that after the last step; where
digits are placed and how patches are cut, as `stn.data` says.
"""

import argparse
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from stn.experiments import digits, volume_networks
from stn.experiments import distorted_networks as networks
from stn.experiments.distorted_tasks import TASKS, Drawn
from stn.experiments.report import aligned, common, summarise
from stn.experiments.runner import Experiment, Figures, Result, Run, Settings, Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEST_BATCH = 500
TEST_SEED = 0  # distorts the test digits, whatever the run's seed
PRECISIONS = ("float32", "bfloat16")

# Errors in %, Tables 1 and 4. ST-FCN and ST-CNN on TC are given without saying which maps.
PAPER: dict[str, dict[str, float]] = {
    "fcn": {"R": 2.1, "RTS": 5.2, "P": 3.1, "E": 3.2, "TC": 13.2, "SUM": 47.7},
    "cnn": {"R": 1.2, "RTS": 0.8, "P": 1.5, "E": 1.4, "TC": 3.5, "SUM": 14.7},
    "st-fcn-aff": {"R": 1.2, "RTS": 0.8, "P": 1.5, "E": 2.7, "TC": 2.0, "SUM": 22.6},
    "st-fcn-proj": {"R": 1.3, "RTS": 0.9, "P": 1.4, "E": 2.6, "SUM": 18.5},
    "st-fcn-tps": {"R": 1.1, "RTS": 0.8, "P": 1.4, "E": 2.4, "SUM": 19.1},
    "st-cnn-aff": {"R": 0.7, "RTS": 0.5, "P": 0.8, "E": 1.2, "TC": 1.7},
    "st-cnn-proj": {"R": 0.8, "RTS": 0.6, "P": 0.8, "E": 1.3},
    "st-cnn-tps": {"R": 0.7, "RTS": 0.5, "P": 0.8, "E": 1.1},
    "2st-fcn-aff": {"SUM": 9.0},
    "2st-fcn-proj": {"SUM": 5.9},
    "2st-fcn-tps": {"SUM": 5.8},
}


@dataclass(frozen=True)
class Schedule:
    """How long and by what a run is trained.

    Attributes:
        steps: batches in all.
        parts: after each, the test error and a checkpoint.
        batch_size: digits in a batch.
        optimiser: "sgd", with a tenth of the rate after every third of the steps; or "adam", with the rate
            falling to 0 along a cosine.
        learning_rate: at the first step.
        filters: of the plain CNN's layers.
        test_images: only the first so many; all if None.
    """

    steps: int
    parts: int
    batch_size: int
    optimiser: str
    learning_rate: float
    filters: int
    test_images: int | None = None

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if self.optimiser == "sgd":
            return self.learning_rate * 0.1 ** (3 * step // self.steps)
        return self.learning_rate * (1 + math.cos(math.pi * step / self.steps)) / 2


SCHEDULES = {
    "paper": Schedule(150_000, 150, 256, "sgd", 0.01, 64),
    "quick": Schedule(3_000, 10, 128, "adam", 2e-3, 32),
    "smoke": Schedule(4, 2, 16, "adam", 2e-3, 32, test_images=50),
}


class DistortedTraining(Training):
    """A run: batches drawn with replacement, each distorted anew."""

    def __init__(self, settings: Settings, seed: int, device: str) -> None:
        self.schedule = SCHEDULES[settings["schedule"]]
        self.task = TASKS[settings["set"]]
        model = self.task.build(
            settings["model"],
            self.task.shape,
            num_classes=self.task.num_classes,
            parameters=settings["parameters"],
            filters=self.schedule.filters,
        ).to(device)
        if len(self.task.shape) == 3:  # two thirds of the time, on a CPU
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        rate = self.schedule.learning_rate
        optimiser: torch.optim.Optimizer = (
            torch.optim.SGD(model.parameters(), lr=rate)
            if self.schedule.optimiser == "sgd"
            else torch.optim.Adam(model.parameters(), lr=rate)
        )
        super().__init__(model, optimiser, torch.Generator().manual_seed(seed))
        self.step = 0
        self.low = settings["precision"] == "bfloat16"
        self.compiled = torch.compile(model) if device.startswith("cuda") else model
        loaded = digits.load(settings["data"])
        self.images, self.labels = loaded.train_images.to(device), loaded.train_labels.to(device)
        chosen = slice(self.schedule.test_images)
        self.test = loaded.test_images[chosen].to(device), loaded.test_labels[chosen].to(device)

    def epoch(self) -> Figures:
        self.model.train()
        steps = self.schedule.steps // self.schedule.parts
        total = torch.zeros((), device=self.images.device)
        for _ in range(steps):
            total += self.train_step()
        error, test_loss = self.evaluate()
        return {
            "train_loss": round(total.item() / steps, 5),
            "test_loss": round(test_loss, 5),
            "error": round(error, 3),
        }

    def train_step(self) -> Tensor:
        """One batch; its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate(self.step)
        self.step += 1
        chosen = torch.randint(len(self.images), (self.schedule.batch_size,), generator=self.generator)
        chosen = chosen.to(self.images.device)
        images, targets = self.task.draw(self.images[chosen], self.labels[chosen], self.generator)
        loss = functional.cross_entropy(self.scores(images), targets)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def scores(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.low):
            scores: Tensor = self.compiled(images)
        return scores.float()

    def test_batches(self) -> Iterator[Drawn]:
        """The distorted test digits, the same at every call. Not kept, since volumes would take gigabytes."""
        generator = torch.Generator().manual_seed(TEST_SEED)
        for images, labels in zip(*(tensor.split(TEST_BATCH) for tensor in self.test), strict=True):
            yield self.task.draw(images, labels, generator)

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Error in % and mean cross entropy on the distorted test digits."""
        self.model.eval()
        wrong, loss = 0, 0.0
        for images, targets in self.test_batches():
            scores = self.scores(images)
            wrong += int((scores.argmax(1) != targets).sum())
            loss += functional.cross_entropy(scores, targets, reduction="sum").item()
        count = len(self.test[1])
        return 100 * wrong / count, loss / count

    def state(self) -> dict[str, Any]:
        return {**super().state(), "step": self.step}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.step = state["step"]


class Distorted(Experiment):
    """Table 1, the cluttered set, the sums and the volumes, which differ by their sets and networks only."""

    sets: tuple[str, ...]
    models: tuple[str, ...]
    epochs = None
    keys = ("model", "set")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        if len(self.sets) > 1:
            parser.add_argument("--sets", nargs="+", choices=self.sets, default=self.sets, help="all")
        parser.add_argument("--models", nargs="+", choices=self.models, default=self.models, help="all")
        parser.add_argument("--schedule", choices=SCHEDULES, default="quick", help="quick")
        parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="float32")
        help = "of every network, such as 400k; by default the paper's widths: 400k with fully connected ones"
        parser.add_argument("--parameters", type=_thousands, help=help)

    def runs(self, arguments: argparse.Namespace, seeds: Sequence[int], epochs: int | None) -> list[Run]:
        name = digits.chosen()
        schedule, sets = (
            SCHEDULES[arguments.schedule],
            list(dict.fromkeys(getattr(arguments, "sets", self.sets))),
        )
        models = list(dict.fromkeys(arguments.models))
        if arguments.parameters is not None:  # or the networks have sizes that are known to do
            try:
                for task, model in itertools.product((TASKS[one] for one in sets), models):
                    task.build(model, task.shape, parameters=arguments.parameters, filters=schedule.filters)
            except ValueError as error:
                raise argparse.ArgumentTypeError(f"argument --parameters: {error}") from error
        return [
            self.run(
                {
                    "model": model,
                    "set": one,
                    "schedule": arguments.schedule,
                    "precision": arguments.precision,
                    "parameters": arguments.parameters,
                    "data": name,
                },
                schedule.parts,
                seed,
            )
            for seed in seeds
            for one in sets
            for model in models
        ]

    def start(self, run: Run, device: str) -> Training:
        return DistortedTraining(run.settings, run.seed, device)

    def table(self, results: Sequence[Result]) -> str:
        same = common(results, self.keys)
        errors = summarise(results, "error", self.keys)
        counts = {
            (result["settings"]["model"], result["settings"]["set"]): int(result["final"]["parameters"])
            for result in results
        }
        sets = [one for one in self.sets if any(key[1] == one for key in errors)]
        lines = [["", *(f"{one}" for one in sets), "parameters"]]
        for model in self.models:
            if not any(key[0] == model for key in errors):
                continue
            cells = []
            for one in sets:
                found, paper = errors.get((model, one)), PAPER.get(model, {}).get(one)
                error = "" if found is None or math.isnan(found.error) else f" ± {found.error:.2f}"
                cell = "" if found is None else f"{found.mean:.2f}{error} ({found.seeds})"
                cells.append((cell + ("" if paper is None else f" [{paper:.1f}]")).strip())
            own = [counts[model, one] for one in sets if (model, one) in counts]
            count = f"{min(own):,}" + (f" to {max(own):,}" if max(own) != min(own) else "")
            lines.append([model, *cells, count])
        return (
            f"Distorted digits ({same['data']}), schedule {same['schedule']}.\n"
            "Error on the test digits in %: mean ± standard error (how many seeds) [the paper's]\n\n"
            + aligned(lines)
        )

    def draw(self, results: Sequence[Result]) -> "Figure":
        import matplotlib.pyplot as plt

        from stn.plotting import use_style

        use_style()
        errors = summarise(results, "error", self.keys)
        sets = [one for one in self.sets if any(key[1] == one for key in errors)]
        models = [model for model in self.models if any(key[0] == model for key in errors)]
        figure, axes = plt.subplots(
            1, len(sets), figsize=(2.6 * len(sets) + 1, 3), squeeze=False, sharey=True, layout="compressed"
        )
        for ax, one in zip(axes[0], sets, strict=True):
            for row, model in enumerate(models):
                found, paper = errors.get((model, one)), PAPER.get(model, {}).get(one)
                if found is not None:
                    bar = 0.0 if math.isnan(found.error) else found.error
                    ax.errorbar(found.mean, row, xerr=bar, color="C0", marker="o", capsize=3)
                if paper is not None:
                    ax.plot(paper, row, "|", color="C1", markersize=12)
            ax.set(title=one, xlabel="error, %")
            ax.set_yticks(range(len(models)), models)
            ax.set_xlim(left=0)
        axes[0, 0].invert_yaxis()
        return figure


class Table1(Distorted):
    """`python -m stn.experiments table1`."""

    name = "table1"
    description = (
        "Table 1 of the paper: distorted digits, read by eight networks of equal size, six of them with a "
        "spatial transformer. The result files hold the whole curve of each run. Whole MNIST is read from "
        "the folder that STN_DATA names; if that is not set, the 12,000 embedded digits are taken, and the "
        "results say so."
    )
    sets = ("R", "RTS", "P", "E")
    models = tuple(model for model in networks.MODELS if not model.startswith("2"))


class Cluttered(Distorted):
    """`python -m stn.experiments cluttered`."""

    name = "cluttered"
    description = (
        "The paper's cluttered digits (TC): a digit anywhere on 60 x 60 pixels among six pieces of others, "
        "read with and without a spatial transformer. The data are chosen as for table1."
    )
    sets = ("TC",)
    models = ("fcn", "cnn", "st-fcn-aff", "st-cnn-aff")


class Addition(Distorted):
    """`python -m stn.experiments addition`."""

    name = "addition"
    description = (
        "The paper's sums of two digits (appendix A.1): each is rotated, translated and scaled in a channel "
        "of its own, and networks with none, one or two spatial transformers, each of which sees both "
        "channels and warps both, say the sum. The data are chosen as for table1."
    )
    sets = ("SUM",)
    models = tuple(model for model in networks.MODELS if not model.startswith("st-cnn"))


class Volumes(Distorted):
    """`python -m stn.experiments volumes`."""

    name = "volumes"
    description = (
        "Digits in volumes, the paper's appendix A.3: sawn out of a board, turned in space and moved, in "
        "cubes of 60 voxels a side or of 28; summed over the depth and read, with and without an affine "
        "transformer of the volume. The paper reports no error. The data are chosen as for table1."
    )
    sets = ("V60", "V28")
    models = volume_networks.MODELS


def _thousands(text: str) -> int:
    digits, factor = (text[:-1], 1000) if text.endswith("k") else (text, 1)
    if not digits.isdecimal() or int(digits) == 0:
        raise argparse.ArgumentTypeError(f"a number such as 400k, not {text!r}")
    return int(digits) * factor
