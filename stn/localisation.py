"""Localisation networks: they look at the input and regress theta (section 3.1; sizes from appendix A.4)."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from stn.transforms import Transform, check_positive


class Localisation(nn.Module):
    """Any network body with a regression head that starts at the transform's identity. Chapter 05.

    The head's weights start at zero and its bias at the identity, so the transformer first changes nothing.
    Zero weights also pass no gradient on: the body learns from the second step.

    Args:
        body: maps (N, *input_shape) to features (N, num_features).
        num_features: what `body` returns.
        transform: the family whose parameters are regressed.
        input_shape: (C, H, W), in three dimensions (C, D, H, W), checked at every call.
        start: theta at the start, (num_parameters,), or (T, num_parameters) for T transforms of each image;
            the identity if None.
        bound: how far each number of theta may leave its start, a number or (num_parameters,); None for any
            distance. A bounded head returns start + bound tanh(h / bound), with h, 0 at first, from its
            linear layer: near the start a step does what it would without the bound.

    Raises ValueError or TypeError naming `input_shape`, `start` or `bound` if it is none of these.
    """

    bound: Tensor | None

    def __init__(
        self,
        body: nn.Module,
        num_features: int,
        transform: Transform,
        input_shape: Sequence[int],
        *,
        start: Tensor | None = None,
        bound: float | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.input_shape = _checked_shape(input_shape, transform.axes)
        self.body = body
        start = transform.identity() if start is None else _checked_start(start, transform)
        self.shape = tuple(start.shape)  # of one image's theta
        self.head = nn.Linear(num_features, start.numel())
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.copy_(start.flatten())
        self.register_buffer("bound", None)
        if bound is not None:
            self.bound = _checked_bound(bound, transform).expand(self.shape).clone()
            self.register_buffer("start", start.clone())
            with torch.no_grad():
                self.head.bias.zero_()

    def forward(self, input: Tensor) -> Tensor:
        """theta, (N, num_parameters), or (N, T, num_parameters).

        Autocast spares the head: bfloat16 would misplace it by 0.4 %.
        """
        if input.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, ("N", *self.input_shape)))
            raise ValueError(f"input should be ({expected}), not {tuple(input.shape)}")
        features = self.body(input)
        with torch.autocast(input.device.type, enabled=False):
            theta = self.head(features.to(self.head.weight.dtype)).unflatten(1, self.shape)
            if self.bound is not None:
                theta = self.start + self.bound * (theta / self.bound).tanh()
            return theta


class FullyConnectedLocalisation(Localisation):
    """Fully connected layers with ReLU, as in the paper's ST-FCN.

    Args:
        input_shape: (C, H, W), in three dimensions (C, D, H, W).
        transform: the family whose parameters are regressed.
        hidden: units of each hidden layer.
        options: start and bound, as in `Localisation`.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        transform: Transform,
        hidden: Sequence[int] = (32, 32, 32),
        **options: Any,
    ) -> None:
        units = [math.prod(_checked_shape(input_shape, transform.axes)), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(units):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(nn.Sequential(*layers), units[-1], transform, input_shape, **options)


class ConvolutionalLocalisation(Localisation):
    """As in the paper's ST-CNN: halve, convolve 5 x 5, pool, convolve 5 x 5, one fully connected layer.

    Args:
        input_shape: (C, H, W), H and W at least 28, which leaves one pixel after the second convolution.
        transform: the family whose parameters are regressed.
        filters: of each convolution.
        hidden: units of the fully connected layer.
        options: start and bound, as in `Localisation`.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        transform: Transform,
        filters: int = 20,
        hidden: int = 20,
        **options: Any,
    ) -> None:
        channels, height, width = _checked_shape(input_shape)
        if min(height, width) < 28:
            raise ValueError(f"input_shape should have H and W of at least 28, not {tuple(input_shape)}")
        left = [((extent // 2 - 4) // 2) - 4 for extent in (height, width)]
        body = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(channels, filters, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 5),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(filters * left[0] * left[1], hidden),
            nn.ReLU(),
        )
        super().__init__(body, hidden, transform, input_shape, **options)


def parameter_groups(
    model: nn.Module, learning_rate: float, localisation_factor: float = 0.1
) -> list[dict[str, Any]]:
    """Two parameter groups for an optimiser: the localisation networks' parameters, at a factor times the
    learning rate, and all others. Chapter 06.

    The paper's factor is 1 for digits (appendix A.4), 0.1 for house numbers (A.5) and 0.0001 for birds (A.6).

    Args:
        model: holds at least one `Localisation`, anywhere.
        learning_rate: of all others, positive.
        localisation_factor: positive; 0 would stop them: use `requires_grad_(False)` for that.

    Raises ValueError if `model` holds no `Localisation`.
    """
    learning_rate = check_positive(learning_rate, "learning_rate")
    factor = check_positive(localisation_factor, "localisation_factor")
    inside = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, Localisation)
        for parameter in module.parameters()
    }
    groups: tuple[list[Tensor], list[Tensor]] = [], []
    for parameter in model.parameters():
        groups[id(parameter) not in inside].append(parameter)
    localisation, others = groups
    if not localisation:
        raise ValueError("model should hold a stn.Localisation, and holds none")
    return [
        {"params": others, "lr": learning_rate},
        {"params": localisation, "lr": factor * learning_rate},
    ]


def _checked_shape(input_shape: Sequence[int], axes: int = 2) -> tuple[int, ...]:
    names = "(C, H, W)" if axes == 2 else "(C, D, H, W)"
    if len(input_shape) != axes + 1 or min(input_shape) < 1:
        raise ValueError(f"input_shape should be {names}, each at least 1, not {tuple(input_shape)}")
    return tuple(input_shape)


def _checked_start(start: Tensor, transform: Transform) -> Tensor:
    expected = f"({transform.num_parameters},) or (T, {transform.num_parameters}) for {transform}"
    if not isinstance(start, Tensor) or not start.is_floating_point():
        raise TypeError(f"start should be a floating tensor {expected}, not {start!r}")
    if start.ndim not in (1, 2) or start.shape[-1] != transform.num_parameters or not start.numel():
        raise ValueError(f"start should have shape {expected}, not {tuple(start.shape)}")
    return start.detach().cpu().float()


def _checked_bound(bound: float | Tensor, transform: Transform) -> Tensor:
    bounds = torch.as_tensor(bound, dtype=torch.float32)
    if bounds.shape not in ((), (transform.num_parameters,)):
        raise ValueError(
            f"bound should be a number or have shape ({transform.num_parameters},) for {transform}, not "
            f"{tuple(bounds.shape)}"
        )
    if not ((bounds > 0) & bounds.isfinite()).all():
        raise ValueError(f"bound should be positive and finite, not {bound!r}")
    return bounds
