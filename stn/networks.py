"""The paper's classifiers for distorted MNIST (appendix A.4): three weight layers each, ReLU between them."""

from collections.abc import Sequence

from torch import nn


def fully_connected_network(input_shape: Sequence[int], units: int, num_classes: int = 10) -> nn.Sequential:
    """The FCN: images of `input_shape` (C, H, W) to scores (N, num_classes), two hidden layers of `units`."""
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * width, units),
        nn.ReLU(),
        nn.Linear(units, units),
        nn.ReLU(),
        nn.Linear(units, num_classes),
    )


def convolutional_network(
    input_shape: Sequence[int], filters: int | tuple[int, int], num_classes: int = 10
) -> nn.Sequential:
    """The CNN: 9 x 9 and 7 x 7 convolutions of `filters`, each max-pooled by 2, to scores (N, num_classes).

    `filters` are those of both convolutions, or of the one and of the other.

    H and W are at least 21. The pools round up (`ceil_mode`), or a halved RTS digit, 21 x 21, would be one
    pixel too small for the second convolution.
    """
    channels, height, width = input_shape
    if min(height, width) < 21:
        raise ValueError(f"input_shape should have H and W of at least 21, not {tuple(input_shape)}")
    first, second = (filters, filters) if isinstance(filters, int) else filters
    left = [-(-(-(-(extent - 8) // 2) - 6) // 2) for extent in (height, width)]
    return nn.Sequential(
        nn.Conv2d(channels, first, 9),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.ReLU(),
        nn.Conv2d(first, second, 7),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * left[0] * left[1], num_classes),
    )
