"""What a training step takes, beside the same network with its transformer written by hand in PyTorch.

    python -m stn.experiments.step_time [--sets R RTS TC] [--models st-fcn-aff st-cnn-aff] [--pairs 40]

Both networks have the same weights and take their steps in turn, on one thread, with the same batches; a line
says the seconds of ours, and how many times the other's that is: medians over pairs. On the CPU.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from stn import data
from stn.experiments.distorted_tasks import TASKS
from stn.experiments.steps import Step
from stn.spatial_transformer import SpatialTransformer


class ByHand(nn.Module):
    """PyTorch's own functions in the place of an affine `SpatialTransformer`."""

    def __init__(self, transformer: SpatialTransformer) -> None:
        super().__init__()
        self.localisation = transformer.localisation

    def forward(self, images: Tensor) -> Tensor:
        theta = self.localisation(images).view(-1, 2, 3)
        size = list(images.shape)
        grid = functional.affine_grid(theta, size, align_corners=False)
        return functional.grid_sample(images, grid, align_corners=False)


def rewritten(network: nn.Sequential) -> nn.Sequential:
    """A copy of a network that begins with an affine transformer, with this one by hand."""
    same = copy.deepcopy(network)
    first, *others = same
    if not isinstance(first, SpatialTransformer):
        raise ValueError(f"network should begin with a SpatialTransformer, not {type(first).__name__}")
    return nn.Sequential(ByHand(first), *others)


class TimedStep:
    """Training steps of a network."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.step = Step(self.loss, torch.optim.Adam(network.parameters(), lr=1e-3))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(self.network(images), labels)

    def take(self, images: Tensor, labels: Tensor) -> tuple[float, float]:
        """Seconds, and the loss."""
        start = time.perf_counter()
        loss = self.step(images, labels)
        return time.perf_counter() - start, loss.item()


def compare(name: str, model: str, batch_size: int, pairs: int) -> tuple[float, float]:
    """Seconds of our step, and how many times the other's that is: medians."""
    torch.manual_seed(0)
    task = TASKS[name]
    network = task.build(model, task.shape, filters=32)
    assert isinstance(network, nn.Sequential)
    ours, other = TimedStep(network), TimedStep(rewritten(network))
    images, labels = data.digits("train")
    generator = torch.Generator().manual_seed(0)
    ratios, seconds = [], []
    for pair in range(pairs + 3):
        chosen = torch.randint(len(images), (batch_size,), generator=generator)
        batch = task.draw(images[chosen], labels[chosen], generator)
        steps = (ours, other) if pair % 2 else (other, ours)
        taken = {step: step.take(*batch) for step in steps}
        if pair == 0 and abs(taken[ours][1] - taken[other][1]) > 1e-4:
            raise AssertionError("both networks should be the same")
        if pair >= 3:  # the first are slow
            ratios.append(taken[ours][0] / taken[other][0])
            seconds.append(taken[ours][0])
    return statistics.median(seconds), statistics.median(ratios)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=("R", "RTS", "P", "E", "TC"), default=["R", "RTS", "TC"])
    models = ["st-fcn-aff", "st-cnn-aff"]
    parser.add_argument("--models", nargs="+", choices=models, default=models)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=40)
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    for name in arguments.sets:
        for model in arguments.models:
            seconds, ratio = compare(name, model, arguments.batch_size, arguments.pairs)
            print(f"{name:3}  {model:10}  {1000 * seconds:6.1f} ms  {ratio:.2f} times by hand", flush=True)


if __name__ == "__main__":
    main()
