"""What experiments share that train networks by a schedule and set their errors beside the paper's."""

import argparse
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from stn.experiments.report import Key, aligned, common, summarise, with_standard_error
from stn.experiments.runner import Experiment, Figures, Result, Settings, Training
from stn.experiments.steps import CapturedStep, Step
from stn.localisation import Localisation, parameter_groups

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRECISIONS = ("float32", "bfloat16")
Batch = tuple[Tensor, Tensor]  # images and targets
SomeSchedule = TypeVar("SomeSchedule", bound="Schedule")


def parameters_to_learn(
    model: nn.Module, learning_rate: float, localisation_factor: float
) -> list[dict[str, Any]]:
    """For an optimiser: localisation networks, if the model has any, learn at a factor of the rate."""
    if any(isinstance(module, Localisation) for module in model.modules()):
        return parameter_groups(model, learning_rate, localisation_factor)
    return [{"params": list(model.parameters()), "lr": learning_rate}]


@dataclass(frozen=True)
class Schedule:
    """How long and at which rates a network is trained.

    Attributes:
        steps: batches in all.
        parts: after each, the errors and a checkpoint.
        batch_size: images in a batch.
        learning_rate: at the first step.
        drops: the steps from which on the rate is a tenth of what it was; None if it falls to 0 along a
            cosine.
        warm_up: the rate rises to its course over so many steps.
    """

    steps: int
    parts: int
    batch_size: int
    learning_rate: float
    drops: tuple[int, ...] | None
    warm_up: int = field(default=0, kw_only=True)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if self.drops is None:
            course = (1 + math.cos(math.pi * step / self.steps)) / 2
        else:
            course = 0.1 ** sum(step >= drop for drop in self.drops)
        return self.learning_rate * course * min(1.0, (step + 1) / (self.warm_up or 1))

    def in_steps(self: SomeSchedule, steps: int) -> SomeSchedule:
        """The same course of rates in another number of steps."""
        drops = None if self.drops is None else tuple(drop * steps // self.steps for drop in self.drops)
        return replace(self, steps=steps, drops=drops)


class ScheduledTraining(Training):
    """A run of a schedule, whose parts are its epochs.

    Args:
        model: on its device.
        optimiser: with the rates of the first step. Groups of parameters keep their ratios.
        schedule: of the run.
        settings: of the run; here their precision counts.
        seed: of the data that are drawn.
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        schedule: Schedule,
        settings: Settings,
        seed: int,
    ) -> None:
        super().__init__(model, optimiser, torch.Generator().manual_seed(seed))
        self.schedule = schedule
        self.ratios = [group["lr"] / schedule.learning_rate for group in optimiser.param_groups]
        self.step = 0
        self.device = next(model.parameters()).device
        self.low = settings["precision"] == "bfloat16"
        self.take_step = self._from_the_first()

    @abstractmethod
    def batches(self, steps: int) -> Iterator[Batch]:
        """The next batches to train on, drawn by the generator."""

    @abstractmethod
    def evaluate(self) -> Figures:
        """What is found on other images than those to train on; the model is in evaluation mode."""

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The batch's mean."""
        return functional.cross_entropy(scores, targets)

    def error(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The batch's share that is wrong."""
        return (scores.argmax(1) != targets).double().mean()

    def epoch(self) -> Figures:
        self.model.train()
        steps = self.schedule.steps // self.schedule.parts
        total = torch.zeros((), device=self.device)
        for images, targets in self.batches(steps):
            total += self.train_step(images, targets)
        self.model.eval()
        with torch.no_grad():
            return {"train_loss": round(total.item() / steps, 5), **self.evaluate()}

    def train_step(self, images: Tensor, targets: Tensor) -> Tensor:
        """One batch; its loss."""
        for group, ratio in zip(self.optimiser.param_groups, self.ratios, strict=True):
            rate = ratio * self.schedule.rate(self.step)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self.step += 1
        return self.take_step(images, targets)

    def scores(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.low):
            scores: Tensor = self.model(images)
        return scores.float()

    def _from_the_first(self) -> Step:
        """How steps are taken, from the present state of model and optimiser on."""

        def loss(images: Tensor, targets: Tensor) -> Tensor:
            return self.loss(self.scores(images), targets)

        if self.device.type == "cuda":
            return CapturedStep(loss, self.optimiser, self.device)
        return Step(loss, self.optimiser)

    def measure(self, batches: Iterable[Batch]) -> tuple[float, float]:
        """Error in % and mean loss, rounded as results have them."""
        count, wrong, loss = 0, 0.0, 0.0
        for images, targets in batches:
            scores = self.scores(images)
            count += len(targets)
            wrong += len(targets) * self.error(scores, targets).item()
            loss += len(targets) * self.loss(scores, targets).item()
        return round(100 * wrong / count, 3), round(loss / count, 5)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "step": self.step}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.step = state["step"]
        self.take_step = self._from_the_first()


class Comparison(Experiment):
    """Models, the first of its keys, by their final error.

    Attributes:
        title: of the table; `{data}` stands for that setting.
        models: the table's rows.
        schedules: by their names, the first of which is taken if nothing else is asked for.
        paper: errors in %, by model and column.
        of_some: settings that only some of its models have.
    """

    title: str
    models: tuple[str, ...]
    schedules: Mapping[str, Schedule]
    paper: Mapping[str, Mapping[str, float]]
    of_some: tuple[str, ...] = ()
    epochs = None

    @property
    @abstractmethod
    def columns(self) -> dict[str, Key]:
        """The table's columns: the values of the keys after the model."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        first = next(iter(self.schedules))
        parser.add_argument("--models", nargs="+", choices=self.models, default=self.models, help="all")
        parser.add_argument("--schedule", choices=self.schedules, default=first, help=first)
        parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="float32")

    def table(self, results: Sequence[Result]) -> str:
        same = common(results, self.keys, self.of_some)
        errors = summarise(results, "error", self.keys)
        counts = {
            tuple(result["settings"][key] for key in self.keys): int(result["final"]["parameters"])
            for result in results
        }
        models, columns = self._found(errors)
        lines = [["", *columns, "parameters"]]
        for model in models:
            cells = []
            for column, key in columns.items():
                found, paper = errors.get((model, *key)), self.paper.get(model, {}).get(column)
                beside = "" if paper is None else f" [{paper:.1f}]"
                cells.append((with_standard_error(found) + beside).strip())
            own = [counts[(model, *key)] for key in columns.values() if (model, *key) in counts]
            count = f"{min(own):,}" + (f" to {max(own):,}" if max(own) != min(own) else "")
            lines.append([model, *cells, count])
        return (
            f"{self.title.format(**same)}, {self.schedule(same)}.\n"
            "Error on the test images in %: mean ± standard error (how many seeds) [the paper's]\n\n"
            + aligned(lines)
        )

    def schedule(self, settings: Settings) -> str:
        """By which results were trained, for the title of the table."""
        return f"schedule {settings['schedule']}"

    def draw(self, results: Sequence[Result]) -> "Figure":
        import matplotlib.pyplot as plt

        from stn.plotting import use_style

        use_style()
        errors = summarise(results, "error", self.keys)
        models, columns = self._found(errors)
        size = (2.6 * len(columns) + 1, 3)
        figure, axes = plt.subplots(
            1, len(columns), figsize=size, squeeze=False, sharey=True, layout="compressed"
        )
        for ax, (column, key) in zip(axes[0], columns.items(), strict=True):
            for row, model in enumerate(models):
                found, paper = errors.get((model, *key)), self.paper.get(model, {}).get(column)
                if found is not None:
                    bar = 0.0 if math.isnan(found.error) else found.error
                    ax.errorbar(found.mean, row, xerr=bar, color="C0", marker="o", capsize=3)
                if paper is not None:
                    ax.plot(paper, row, "|", color="C1", markersize=12)
            ax.set(title=column, xlabel="error, %")
            ax.set_yticks(range(len(models)), models)
            ax.set_xlim(left=0)
        axes[0, 0].invert_yaxis()
        return figure

    def _found(self, errors: Mapping[Key, object]) -> tuple[list[str], dict[str, Key]]:
        """The rows and columns that are not empty."""
        models = [model for model in self.models if any(key[0] == model for key in errors)]
        columns = {
            name: rest for name, rest in self.columns.items() if any(key[1:] == rest for key in errors)
        }
        return models, columns
