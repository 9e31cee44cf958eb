"""House numbers, the paper's Table 2 (section 4.2, appendix A.5): up to five digits read at once.

Schedules:

- paper: SGD, 400,000 steps of 128, the learning rate 0.01, a tenth of it after every 80,000, and a tenth of
  that in localisation networks; weight decay 0.0005;
- smoke: two steps of narrow networks, to see that it works.

What the paper leaves open is decided so: no momentum; the 5,000 images that are held out for validation are
drawn from `train` and `extra`, the same for every run; the test error is that after the last step, and no
choice is made by the validation error; crops are as `stn.data.house_numbers` says.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from stn.data.house_numbers import SIZES, HouseNumbers
from stn.experiments.comparison import Comparison, Schedule, parameters_to_learn
from stn.experiments.photographs import PhotographTraining, folder, opened
from stn.experiments.report import Key
from stn.experiments.runner import Figures, Run, Settings, Training
from stn.experiments.svhn_networks import MODELS, UNITS, HouseNumberNetwork, sequence_error, sequence_loss

FOLDER = "STN_SVHN"
FILES = tuple(f"{name}/digitStruct.mat" for name in ("train", "extra", "test"))
VALIDATION_SEED = 0  # holds images out, whatever the run's seed

# Errors in %, Table 2.
PAPER = {
    "cnn": {"64 pixels": 4.0, "128 pixels": 5.6},
    "st-single": {"64 pixels": 3.7, "128 pixels": 3.9},
    "st-multi": {"64 pixels": 3.6, "128 pixels": 3.9},
}


@dataclass(frozen=True)
class HouseNumberSchedule(Schedule):
    """A schedule and what else decides how long a run takes.

    Attributes:
        validation: so many images are held out.
        units: of the fully connected layers.
    """

    validation: int = 5000
    units: int = UNITS


SCHEDULES = {
    "paper": HouseNumberSchedule(400_000, 200, 128, 0.01, (80_000, 160_000, 240_000, 320_000)),
    "smoke": HouseNumberSchedule(2, 2, 2, 0.01, (), validation=2, units=8),
}


class HouseNumberTraining(PhotographTraining):
    """A run on house numbers."""

    def __init__(self, settings: Settings, seed: int, device: str) -> None:
        schedule = SCHEDULES[settings["schedule"]]
        size = settings["size"]
        train, self.test = opened(FOLDER, lambda: _images(size))
        if len(train) <= schedule.validation:
            raise OSError(f"{FOLDER}: {len(train)} numbers to train on, {schedule.validation} to hold out")
        model = HouseNumberNetwork(settings["model"], size, schedule.units).to(device)
        parameters = parameters_to_learn(model, schedule.learning_rate, 0.1)
        optimiser = torch.optim.SGD(parameters, lr=schedule.learning_rate, weight_decay=5e-4)
        super().__init__(model, optimiser, schedule, settings, seed, train)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(VALIDATION_SEED))
        self.held_out, self.chosen = order[: schedule.validation], order[schedule.validation :]

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        return sequence_loss(scores, targets)

    def error(self, scores: Tensor, targets: Tensor) -> Tensor:
        return sequence_error(scores, targets)

    def evaluate(self) -> Figures:
        validation_error, _ = self.measure(self.in_order(self.train, self.held_out))
        error, loss = self.measure(self.in_order(self.test))
        return {"validation_error": validation_error, "test_loss": loss, "error": error}


@lru_cache(maxsize=len(SIZES))
def _images(size: int) -> tuple[HouseNumbers, HouseNumbers]:
    """To train on, those held out among them, and to test on."""
    root = folder(FOLDER, FILES)
    return HouseNumbers(root, ("train", "extra"), size=size), HouseNumbers(root, ("test",), size=size)


class Svhn(Comparison):
    """`python -m stn.experiments svhn`."""

    name = "svhn"
    description = (
        "House numbers of the paper's Table 2: up to five digits, read by a convolutional network alone, "
        "with one spatial transformer and with four. The error is the share of numbers that are not read "
        "whole. STN_SVHN names the folder with train, extra and test, SVHN's format 1, each unpacked. To "
        "read their lists takes minutes; a run of the paper's 400,000 steps asks for a GPU."
    )
    title = "House numbers (SVHN)"
    models = MODELS
    schedules = SCHEDULES
    paper = PAPER
    keys = ("model", "size")

    @property
    def columns(self) -> dict[str, Key]:
        return {f"{size} pixels": (size,) for size in SIZES}

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=SIZES, help="all; pixels")
        super().add_arguments(parser)

    def runs(self, arguments: argparse.Namespace, seeds: Sequence[int], epochs: int | None) -> list[Run]:
        folder(FOLDER, FILES)
        return [
            self.run(
                {
                    "model": model,
                    "size": size,
                    "schedule": arguments.schedule,
                    "precision": arguments.precision,
                },
                SCHEDULES[arguments.schedule].parts,
                seed,
            )
            for seed in seeds
            for size in dict.fromkeys(arguments.sizes)
            for model in dict.fromkeys(arguments.models)
        ]

    def start(self, run: Run, device: str) -> Training:
        return HouseNumberTraining(run.settings, run.seed, device)
