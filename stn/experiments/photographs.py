"""What the experiments on photographs share: where these lie, and batches that threads read ahead.

What is read does not depend on the threads: each image has a seed of its own. The same batches follow a
checkpoint, since whole parts are drawn at once.
"""

import argparse
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn
from torch.utils.data import default_collate

from stn.experiments.comparison import Batch, Schedule, ScheduledTraining
from stn.experiments.runner import Settings

THREADS = 8
AHEAD = 2  # batches
TEST_BATCH = 100

Data = TypeVar("Data")


class Images(Protocol):
    """A data set: pairs of an image and its target, a number or a tensor."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def folder(variable: str, files: Sequence[str]) -> Path:
    """The folder that an environment variable names; argparse.ArgumentTypeError if it lacks a file."""
    name = os.environ.get(variable)
    if not name:
        raise argparse.ArgumentTypeError(f"{variable} should name the folder that has {', '.join(files)}")
    for file in files:
        if not (Path(name) / file).is_file():
            raise argparse.ArgumentTypeError(f"{variable}: {name} lacks {file}")
    return Path(name)


def opened(variable: str, open_them: Callable[[], Data]) -> Data:
    """Data from the folder that a variable names; what is wrong with them is an OSError, as of a file."""
    try:
        return open_them()
    except (ImportError, ValueError) as error:
        raise OSError(f"{variable}: {error}") from error


class PhotographTraining(ScheduledTraining):
    """A run: batches drawn with replacement.

    Args:
        model: on its device.
        optimiser: as for `ScheduledTraining`.
        schedule: of the run.
        settings: of the run.
        seed: of the data that are drawn.
        train: the images to train on.
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        schedule: Schedule,
        settings: Settings,
        seed: int,
        train: Images,
    ) -> None:
        super().__init__(model, optimiser, schedule, settings, seed)
        self.train = train
        self.chosen = torch.arange(len(train))

    def draw(self, index: int, seed: int) -> Any:
        """An image to train on and its target. By default nothing about it is random."""
        return self.train[index]

    def batches(self, steps: int) -> Iterator[Batch]:
        size = (steps, self.schedule.batch_size)
        drawn = torch.randint(len(self.chosen), size, generator=self.generator)
        seeds = torch.randint(2**62, size, generator=self.generator)
        pairs = zip(self.chosen[drawn].tolist(), seeds.tolist(), strict=True)
        return self._moved(read_ahead(self.draw, pairs))

    def in_order(self, images: Images, chosen: torch.Tensor | None = None) -> Iterator[Batch]:
        """Batches of all images, or of those chosen, once."""
        chosen = torch.arange(len(images)) if chosen is None else chosen
        batches = ((batch.tolist(),) for batch in chosen.split(TEST_BATCH))
        return self._moved(read_ahead(images.__getitem__, batches))

    def _moved(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for images, targets in batches:
            yield images.to(self.device), targets.to(self.device)


def read_ahead(read: Callable[..., Any], batches: Iterable[tuple[list[int], ...]]) -> Iterator[Batch]:
    """Batches of what `read` returns, given the arguments of each image as lists."""
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[Iterator[Any]] = deque()
        for arguments in batches:
            waiting.append(pool.map(read, *arguments))
            if len(waiting) > AHEAD:
                yield tuple(default_collate(list(waiting.popleft())))
        while waiting:
            yield tuple(default_collate(list(waiting.popleft())))
