"""Localisation networks: they look at the input and regress theta (section 3.1; sizes from appendix A.4)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from stn.transforms import Transform


class Localisation(nn.Module):
    """Any network body with a regression head that starts at the transform's identity.

    The head's weights start at zero and its bias at the identity, so the transformer first changes nothing.
    Zero weights also pass no gradient on: the body learns from the second step. Chapter 06.

    Args:
        body: maps (N, *input_shape) to features (N, num_features).
        num_features: what `body` returns.
        transform: the family whose parameters are regressed.
        input_shape: (C, H, W), checked at every call.
    """

    def __init__(
        self, body: nn.Module, num_features: int, transform: Transform, input_shape: Sequence[int]
    ) -> None:
        super().__init__()
        self.input_shape = _checked_shape(input_shape)
        self.body = body
        self.head = nn.Linear(num_features, transform.num_parameters)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.copy_(transform.identity())

    def forward(self, input: Tensor) -> Tensor:
        """theta, (N, num_parameters). Autocast spares the head: bfloat16 would misplace it by 0.4 %."""
        if input.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, ("N", *self.input_shape)))
            raise ValueError(f"input should be ({expected}), not {tuple(input.shape)}")
        features = self.body(input)
        with torch.autocast(input.device.type, enabled=False):
            return self.head(features.to(self.head.weight.dtype))


class FullyConnectedLocalisation(Localisation):
    """Fully connected layers with ReLU, as in the paper's ST-FCN.

    Args:
        input_shape: (C, H, W).
        transform: the family whose parameters are regressed.
        hidden: units of each hidden layer.
    """

    def __init__(
        self, input_shape: Sequence[int], transform: Transform, hidden: Sequence[int] = (32, 32, 32)
    ) -> None:
        channels, height, width = _checked_shape(input_shape)
        units = [channels * height * width, *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(units):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(nn.Sequential(*layers), units[-1], transform, input_shape)


class ConvolutionalLocalisation(Localisation):
    """As in the paper's ST-CNN: halve, convolve 5 x 5, pool, convolve 5 x 5, one fully connected layer.

    Args:
        input_shape: (C, H, W), H and W at least 28, which leaves one pixel after the second convolution.
        transform: the family whose parameters are regressed.
        filters: of each convolution.
        hidden: units of the fully connected layer.
    """

    def __init__(
        self, input_shape: Sequence[int], transform: Transform, filters: int = 20, hidden: int = 20
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
        super().__init__(body, hidden, transform, input_shape)


def _checked_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(f"input_shape should be (C, H, W), each at least 1, not {tuple(input_shape)}")
    channels, height, width = input_shape
    return channels, height, width
