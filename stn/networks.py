"""The paper's classifiers for distorted MNIST (appendix A.4): three weight layers each, ReLU between them."""

from collections.abc import Callable, Sequence

from torch import nn

from stn.training import count_parameters


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


def widest_fully_connected(
    input_shape: Sequence[int], parameters: int, num_classes: int = 10
) -> nn.Sequential:
    """The FCN of as many units as `parameters` allow, at least 1."""
    return fully_connected_network(
        input_shape,
        _largest(lambda units: fully_connected_network(input_shape, units, num_classes), parameters),
        num_classes,
    )


def matched_convolutional(
    input_shape: Sequence[int], parameters: int, num_classes: int = 10
) -> nn.Sequential:
    """The CNN that has `parameters` to 0.5 % or as nearly as can be, its layers' filters as alike as can be.

    Filters of both layers alike are too coarse a step: 5 % of the parameters of a small network.
    """

    def count(first: int, second: int) -> int:
        return count_parameters(convolutional_network(input_shape, (first, second), num_classes))

    # Linear in each layer's filters, so four networks tell that of all.
    both = count(2, 2) - count(2, 1) - count(1, 2) + count(1, 1)
    of_first, of_second = count(2, 1) - count(1, 1) - both, count(1, 2) - count(1, 1) - both
    base = count(1, 1) - of_first - of_second - both

    def off(pair: tuple[int, int]) -> float:
        return abs(base + of_first * pair[0] + of_second * pair[1] + both * pair[0] * pair[1] - parameters)

    width = _largest(lambda filters: convolutional_network(input_shape, filters, num_classes), parameters)
    pairs = [(a, b) for b in range(max(1, width - 4), width + 5) for a in range(max(1, b // 2), 2 * b + 1)]
    near = [pair for pair in pairs if off(pair) < parameters / 200] or [min(pairs, key=off)]
    return convolutional_network(input_shape, min(near, key=lambda pair: abs(pair[0] - pair[1])), num_classes)


def _largest(make: Callable[[int], nn.Module], parameters: int) -> int:
    """The largest width with at most so many parameters, at least 1."""
    width = 1
    while count_parameters(make(2 * width)) <= parameters:
        width *= 2
    step = width // 2
    while step:
        if count_parameters(make(width + step)) <= parameters:
            width += step
        step //= 2
    return width


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
