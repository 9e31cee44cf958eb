"""The paper's networks for distorted MNIST (appendix A.4): a classifier, alone or behind a transformer.

| | classifier | localisation network |
| --- | --- | --- |
| fcn | two hidden layers of equal width, about 400,000 parameters | none |
| cnn | 9 x 9 and 7 x 7 convolutions, `filters` each | none |
| st-fcn-... | the same, narrower | three hidden layers of 32 |
| st-cnn-... | the same, narrower | the image halved, two 5 x 5 convolutions of 20, 20 units |

`aff`, `proj` and `tps` (4 x 4 control points) say by which maps. The transformer hands on an image of the
input's size; for RTS and TC it is halved behind it, as in the paper. A classifier behind a transformer has
so many units or filters that both networks have the same number of parameters, to 1 %.
"""

from collections.abc import Callable

from torch import nn

from stn.localisation import ConvolutionalLocalisation, FullyConnectedLocalisation
from stn.networks import convolutional_network, fully_connected_network
from stn.spatial_transformer import SpatialTransformer
from stn.spline_transforms import ThinPlateSpline
from stn.training import count_parameters
from stn.transforms import Affine, Projective, Transform

TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "aff": Affine,
    "proj": Projective,
    "tps": lambda: ThinPlateSpline((4, 4)),
}
MODELS = ("fcn", "cnn", *(f"st-{kind}-{name}" for kind in ("fcn", "cnn") for name in TRANSFORMS))
FCN_PARAMETERS = 400_000
SIZES = {"R": 28, "P": 28, "E": 28, "RTS": 42, "TC": 60}
HALVED = ("RTS", "TC")
TOLERANCE = 0.01


def build(
    model: str, size: int, *, halved: bool = False, parameters: int | None = None, filters: int = 32
) -> nn.Module:
    """One of `MODELS`: images (N, 1, size, size) to scores (N, 10).

    Args:
        model: see the module's docstring.
        size: of the images, at least 28; at least 42 if halved.
        halved: whether the transformer's output is pooled by 2 before the classifier.
        parameters: how many there should be, to 1 %; None for the paper's networks: about 400,000 fully
            connected ones, and a CNN of `filters`.
        filters: of each layer of the plain CNN, and so the parameters of all networks with a CNN.

    Raises:
        ValueError: the localisation network alone would have more parameters.
    """
    if model not in MODELS:
        raise ValueError(f"model should be one of {', '.join(MODELS)}, not {model!r}")
    kind = "fcn" if "fcn" in model else "cnn"
    wanted = parameters or (FCN_PARAMETERS if kind == "fcn" else _cnn_parameters(size, filters))
    if model == kind:
        return _classifier(kind, size, wanted)
    transform = TRANSFORMS[model.rpartition("-")[2]]()
    if kind == "fcn":
        localisation: nn.Module = FullyConnectedLocalisation((1, size, size), transform)
    else:
        localisation = ConvolutionalLocalisation((1, size, size), transform)
    transformer = SpatialTransformer(localisation, transform, (size, size))
    left = wanted - count_parameters(transformer)
    if left < wanted / 10:
        raise ValueError(f"parameters should be more than {wanted:,}: {wanted - left:,} are for localisation")
    if halved:
        return nn.Sequential(transformer, nn.AvgPool2d(2), _classifier(kind, size // 2, left))
    return nn.Sequential(transformer, _classifier(kind, size, left))


def _cnn_parameters(size: int, filters: int) -> int:
    return count_parameters(convolutional_network((1, size, size), filters))


def _classifier(kind: str, size: int, wanted: int) -> nn.Sequential:
    """The classifier whose number of parameters comes nearest."""
    shape = (1, size, size)
    if kind == "fcn":
        width = _largest(lambda units: fully_connected_network(shape, units), wanted)
        return fully_connected_network(shape, width)
    # Filters of both layers alike are too coarse a step: 5 % of the parameters. So the first layer's differ a
    # little; counted by hand, since making hundreds of networks takes seconds.
    width = _largest(lambda filters: convolutional_network(shape, filters), wanted)
    base, first, second, both = (_cnn_terms(shape)[name] for name in ("1", "first", "second", "both"))
    pairs = [(a, b) for b in range(max(1, width - 4), width + 5) for a in range(max(1, b // 2), 2 * b + 1)]

    def off(pair: tuple[int, int]) -> float:
        return abs(base + first * pair[0] + second * pair[1] + both * pair[0] * pair[1] - wanted)

    near = [pair for pair in pairs if off(pair) < wanted / 200] or [min(pairs, key=off)]
    closest = min(near, key=lambda pair: abs(pair[0] - pair[1]))
    return convolutional_network(shape, closest)


def _cnn_terms(shape: tuple[int, int, int]) -> dict[str, int]:
    """The number of parameters is linear in each layer's filters: its four coefficients."""
    counts = {p: count_parameters(convolutional_network(shape, p)) for p in ((1, 1), (2, 1), (1, 2), (2, 2))}
    both = counts[2, 2] - counts[2, 1] - counts[1, 2] + counts[1, 1]
    first, second = counts[2, 1] - counts[1, 1] - both, counts[1, 2] - counts[1, 1] - both
    return {"first": first, "second": second, "both": both, "1": counts[1, 1] - first - second - both}


def _largest(make: Callable[[int], nn.Module], wanted: int) -> int:
    """The largest width with at most so many parameters, at least 1."""
    width = 1
    while count_parameters(make(2 * width)) <= wanted:
        width *= 2
    step = width // 2
    while step:
        if count_parameters(make(width + step)) <= wanted:
            width += step
        step //= 2
    return width
