"""What four spatial transformers add to a training step of the paper's SVHN network (section 4.2, A.5).

The network is the paper's for 64 x 64 crops, with ReLU throughout; a transformer stands before each of its
first four convolutions, with two fully connected layers of 32 as localisation. The paper reports 6 per cent.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import compositions
import measure
import stn_kernels

BATCH, CROP = 128, 64
CLASSES, DIGITS = 11, 5
Sampler = Callable[[Tensor, Tensor], Tensor]


def own(image: Tensor, theta: Tensor) -> Tensor:
    return stn_kernels.affine_sample(image, theta, image.shape[2:])


def pytorch(image: Tensor, theta: Tensor) -> Tensor:
    return compositions.affine(image, theta, tuple(image.shape[2:]))


class Transformer(nn.Module):
    """A spatial transformer on feature maps, started at the identity."""

    def __init__(self, shape: tuple[int, int, int], sampler: Sampler) -> None:
        super().__init__()
        self.sampler = sampler
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()
        )
        self.head = nn.Linear(32, 6)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.copy_(torch.eye(2, 3).flatten())

    def forward(self, image: Tensor) -> Tensor:
        return self.sampler(image, self.head(self.body(image)).unflatten(1, (2, 3)))


class Svhn(nn.Module):
    """conv[48] max conv[64] conv[128] max conv[160] conv[192] max conv[192] conv[192] max conv[192] fc fc fc,
    5 x 5 convolutions, then one softmax for each of five digits. `width` divides the layers, for a trial."""

    def __init__(self, sampler: Sampler | None, crop: int = CROP, width: int = 1) -> None:
        super().__init__()
        filters = [f // width for f in (48, 64, 128, 160, 192, 192, 192, 192)]
        pooled = {0, 2, 4, 6}
        layers: list[nn.Module] = []
        channels, size = 3, crop
        for index, count in enumerate(filters):
            if sampler is not None and index < 4:
                layers.append(Transformer((channels, size, size), sampler))
            layers += [nn.Conv2d(channels, count, 5, padding=2), nn.ReLU()]
            if index in pooled:
                layers.append(nn.MaxPool2d(2))
                size //= 2
            channels = count
        units = 3072 // width
        features = channels * size * size
        layers.append(nn.Flatten())
        for _ in range(3):
            layers += [nn.Linear(features, units), nn.ReLU(), nn.Dropout()]
            features = units
        self.layers = nn.Sequential(*layers, nn.Linear(features, DIGITS * CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image).unflatten(1, (DIGITS, CLASSES))


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=5e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images).flatten(0, 1), labels.flatten()).backward()
        optimizer.step()

    return step


def measure_layout(gpu: measure.Gpu, layout: str, smoke: bool) -> list[dict[str, Any]]:
    batch, crop, width = (2, 16, 16) if smoke else (BATCH, CROP, 1)
    format = torch.channels_last if layout == "channels-last" else torch.contiguous_format
    torch.manual_seed(0)
    images = torch.randn(batch, 3, crop, crop, device=gpu.device).contiguous(memory_format=format)
    labels = torch.randint(CLASSES, (batch, DIGITS), device=gpu.device)
    samplers = {"no transformers": None, "stn_kernels": own, "PyTorch": pytorch}
    steps = {}
    for name, sampler in samplers.items():
        model = Svhn(sampler, crop, width).to(gpu.device, memory_format=format)
        steps[name] = training_step(model, images, labels)
    # In turns, so that a drift of the clock is everybody's.
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(1 if smoke else 5):
        for name, step in steps.items():
            times[name].append(gpu.time(step).median)
    plain = statistics.median(times["no transformers"])
    return [
        {
            "layout": layout,
            "implementation": name,
            "median": statistics.median(found),
            "added": statistics.median(found) / plain - 1,
        }
        for name, found in times.items()
    ]


def measure_all(gpu: measure.Gpu, smoke: bool = False) -> list[dict[str, Any]]:
    """A row for each layout and each of: no transformers, the library's, PyTorch's."""
    return [r for layout in ("channels-first", "channels-last") for r in measure_layout(gpu, layout, smoke)]
