"""Birds, the paper's Table 3 (section 4.3, appendix A.6): 200 species of CUB-200-2011.

Schedules:

- paper: SGD, the learning rate 0.1, a tenth of it after 10,000, 20,000 and 25,000 steps, and a ten-thousandth
  of that in localisation networks; weight decay 0.00001;
- smoke: two steps, to see that it works.

What the paper leaves open is decided so: 30,000 steps of 256; no momentum; the test error is that after the
last step. The paper starts from Inception networks trained on ImageNet. None comes with this project: these
networks start from nothing.
"""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from stn.data.birds import Birds
from stn.experiments.birds_networks import BirdNetwork
from stn.experiments.comparison import Comparison, Schedule, parameters_to_learn
from stn.experiments.photographs import PhotographTraining, folder, opened
from stn.experiments.report import Key
from stn.experiments.runner import Figures, Run, Settings, Training

FOLDER = "STN_CUB"
FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt")

# How many transformers, and the image's size.
MODELS = {"cnn": (0, 224), "2st-224": (2, 224), "2st-448": (2, 448), "4st-448": (4, 448)}
COLUMN = "species"
# Errors in %: 100 less the accuracies of Table 3.
ACCURACIES = {"cnn": 82.3, "2st-224": 83.1, "2st-448": 83.9, "4st-448": 84.1}
PAPER = {model: {COLUMN: 100 - accuracy} for model, accuracy in ACCURACIES.items()}

SCHEDULES = {
    "paper": Schedule(30_000, 60, 256, 0.1, (10_000, 20_000, 25_000)),
    "smoke": Schedule(2, 2, 2, 0.1, ()),
}


class BirdTraining(PhotographTraining):
    """A run on birds."""

    train: Birds

    def __init__(self, settings: Settings, seed: int, device: str) -> None:
        schedule = SCHEDULES[settings["schedule"]]
        crops, size = MODELS[settings["model"]]
        root = folder(FOLDER, FILES)
        train = opened(FOLDER, lambda: Birds(root, train=True, size=size))
        self.test = opened(FOLDER, lambda: Birds(root, train=False, size=size))
        model = BirdNetwork(crops, size).to(device)
        parameters = parameters_to_learn(model, schedule.learning_rate, 1e-4)
        optimiser = torch.optim.SGD(parameters, lr=schedule.learning_rate, weight_decay=1e-5)
        super().__init__(model, optimiser, schedule, settings, seed, train)

    def draw(self, index: int, seed: int) -> tuple[Tensor, int]:
        return self.train.draw(index, torch.Generator().manual_seed(seed))

    def evaluate(self) -> Figures:
        error, loss = self.measure(self.in_order(self.test))
        return {"test_loss": loss, "error": error}


class Species(Comparison):
    """`python -m stn.experiments birds`."""

    name = "birds"
    description = (
        "Birds of the paper's Table 3: 200 species, told apart by Inception alone and by as many Inceptions "
        "as spatial transformers, two or four, that each crop a part of the bird. The paper starts from "
        "networks trained on ImageNet, which do not come with this project: these start from nothing, and "
        "its errors, 100 less its accuracies, are out of their reach. STN_CUB names the folder CUB_200_2011 "
        "as it is unpacked. A run of the paper's schedule asks for a GPU."
    )
    title = "Birds (CUB-200-2011)"
    models = tuple(MODELS)
    schedules = SCHEDULES
    paper = PAPER
    keys = ("model",)

    @property
    def columns(self) -> dict[str, Key]:
        return {COLUMN: ()}

    def runs(self, arguments: argparse.Namespace, seeds: Sequence[int], epochs: int | None) -> list[Run]:
        folder(FOLDER, FILES)
        return [
            self.run(
                {"model": model, "schedule": arguments.schedule, "precision": arguments.precision},
                SCHEDULES[arguments.schedule].parts,
                seed,
            )
            for seed in seeds
            for model in dict.fromkeys(arguments.models)
        ]

    def start(self, run: Run, device: str) -> Training:
        return BirdTraining(run.settings, run.seed, device)
