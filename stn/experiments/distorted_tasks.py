"""What the experiments on distorted MNIST show to a network, and ask of it.

| set | digits are | asked |
| --- | --- | --- |
| R | rotated | which |
| RTS | rotated, translated and scaled | which |
| P, E | seen in projection; bent | which |
| TC | anywhere among clutter | which |
| SUM | two, each RTS in a channel of its own | their sum |
| V60, V28 | sawn out of a board, turned and moved in a volume of so many voxels a side | which |
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stn import data
from stn.experiments import distorted_networks as networks
from stn.experiments import volume_networks

Drawn = tuple[Tensor, Tensor]  # images, targets


@dataclass(frozen=True)
class Task:
    """What is seen and asked.

    Attributes:
        draw: digits (N, 1, 28, 28) and their labels to distorted images and what they should be read as.
        shape: (C, H, W) of these images, or (C, D, H, W).
        build: the networks, of a model's name, `shape` and other choices.
        num_classes: of the targets.
    """

    draw: Callable[[Tensor, Tensor, torch.Generator], Drawn]
    shape: tuple[int, ...]
    build: Callable[..., nn.Module] = networks.build
    num_classes: int = 10


def _read(
    distortion: Callable[..., tuple[Tensor, object]],
) -> Callable[[Tensor, Tensor, torch.Generator], Drawn]:
    def draw(images: Tensor, labels: Tensor, generator: torch.Generator) -> Drawn:
        return distortion(images, generator=generator)[0], labels

    return draw


def _add(images: Tensor, labels: Tensor, generator: torch.Generator) -> Drawn:
    """Each digit with another one of the batch."""
    other = torch.randperm(len(images), generator=generator).to(images.device)
    channels = [
        data.rotated_translated_scaled(some, generator=generator)[0] for some in (images, images[other])
    ]
    return torch.cat(channels, 1), labels + labels[other]


def _tumbled(
    images: Tensor, *, size: int, scale: float, generator: torch.Generator
) -> tuple[Tensor, data.Pose3d]:
    """Slabs 12 pixels thick, turned within 60 degrees about each axis, and moved."""
    angles, shift = (60.0, 60.0, 60.0), size / 10
    return data.extruded(
        images, size=size, depth=12, scale=scale, max_angles=angles, max_shift=shift, generator=generator
    )


def _volumes(model: str, shape: tuple[int, ...], *, filters: int, **options: Any) -> nn.Module:
    return volume_networks.build(model, shape, **options)  # no CNN, so no filters


HALVED = partial(networks.build, halved=True)  # a transformer's output is pooled by 2, as in the paper
TASKS = {
    "R": Task(_read(data.rotated), (1, 28, 28)),
    "RTS": Task(_read(data.rotated_translated_scaled), (1, 42, 42), HALVED),
    "P": Task(_read(data.projected), (1, 28, 28)),
    "E": Task(_read(data.elastic), (1, 28, 28)),
    "TC": Task(_read(data.translated_cluttered), (1, 60, 60), HALVED),
    "SUM": Task(_add, (2, 42, 42), HALVED, num_classes=19),
    "V60": Task(_read(partial(_tumbled, size=60, scale=1.0)), (1, 60, 60, 60), _volumes),
    "V28": Task(_read(partial(_tumbled, size=28, scale=0.6)), (1, 28, 28, 28), _volumes),
}
