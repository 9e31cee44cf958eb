"""Enough of a training loop for the chapters: random batches, Adam on the cross entropy, the error rate."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stn.localisation import parameter_groups

Distortion = Callable[..., tuple[Tensor, object]]


def random_batches(
    images: Tensor,
    labels: Tensor,
    batch_size: int,
    *,
    distortion: Distortion | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches (images, labels), drawn with replacement and distorted anew each time.

    Args:
        images: (N, C, H, W); labels: (N,), on the same device.
        batch_size: digits in a batch.
        distortion: called as `stn.data.rotated` is, with a batch and `generator`; its first result is kept.
        generator: draws everything, so that its seed decides every batch; the default generator if None.
    """
    if len(images) != len(labels):
        raise ValueError(f"labels should be as many as images ({len(images)}), not {len(labels)}")
    device = generator.device if generator is not None else "cpu"
    while True:
        chosen = torch.randint(len(images), (batch_size,), generator=generator, device=device)
        chosen = chosen.to(images.device)
        batch = images[chosen]
        if distortion is not None:
            batch, _ = distortion(batch, generator=generator)
        yield batch, labels[chosen]


def train(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    steps: int,
    *,
    learning_rate: float = 1e-3,
    localisation_factor: float | None = None,
    callback: Callable[[int], None] | None = None,
) -> Tensor:
    """Train `model` in place by Adam on the cross entropy; the learning rate falls to 0 along a cosine.

    Args:
        model: maps images to scores (N, num_classes). It is left in evaluation mode.
        batches: yields (images, labels); `random_batches` does.
        steps: how many batches.
        learning_rate: at the first step.
        localisation_factor: times the learning rate for the localisation networks, as in
            `stn.parameter_groups`; None for the same rate, or for a model without one.
        callback: called after every step with the number of steps done, to record what the model does.

    Returns:
        (steps,) float32 on the CPU: the loss at every step.
    """
    if steps < 1:
        raise ValueError(f"steps should be at least 1, not {steps}")
    parameters: Any = model.parameters()
    if localisation_factor is not None:
        parameters = parameter_groups(model, learning_rate, localisation_factor)
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    losses = []
    for step, (images, labels) in zip(range(1, steps + 1), batches, strict=False):
        model.train()
        loss = functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.detach())
        if callback is not None:
            callback(step)
    if len(losses) < steps:
        raise ValueError(f"batches should yield {steps} batches, not {len(losses)}")
    model.eval()
    return torch.stack(losses).float().cpu()


@torch.no_grad()
def error_rate(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 1000) -> float:
    """The share of images, in [0, 1], whose highest score is not their label's; leaves evaluation mode on."""
    model.eval()
    pairs = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    wrong = sum(int((model(batch).argmax(1) != target).sum()) for batch, target in pairs)
    return wrong / len(labels)


def count_parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
