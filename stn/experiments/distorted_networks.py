"""The paper's networks for distorted MNIST (appendix A.4): a classifier, alone or behind a transformer.

| | classifier | localisation network |
| --- | --- | --- |
| fcn | two hidden layers of equal width, about 400,000 parameters | none |
| cnn | 9 x 9 and 7 x 7 convolutions, `filters` each | none |
| st-fcn-... | the same, narrower | three hidden layers of 32 |
| st-cnn-... | the same, narrower | the image halved, two 5 x 5 convolutions of 20, 20 units |
| 2st-fcn-... | the same, narrower, for both outputs, as channels | two of three hidden layers of 32 |

`aff`, `proj` and `tps` (4 x 4 control points) say by which maps. The transformer hands on an image of the
input's size; for RTS and TC it is halved behind it, as in the paper. A classifier behind a transformer has
so many units or filters that both networks have the same number of parameters, to 1 %.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stn.localisation import ConvolutionalLocalisation, FullyConnectedLocalisation
from stn.networks import convolutional_network, matched_convolutional, widest_fully_connected
from stn.spatial_transformer import SpatialTransformer
from stn.spline_transforms import ThinPlateSpline
from stn.training import count_parameters
from stn.transforms import Affine, Projective, Transform

TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "aff": Affine,
    "proj": Projective,
    "tps": lambda: ThinPlateSpline((4, 4)),
}
MODELS = (
    "fcn",
    "cnn",
    *(f"{kind}-{name}" for kind in ("st-fcn", "st-cnn", "2st-fcn") for name in TRANSFORMS),
)
FCN_PARAMETERS = 400_000


class SideBySide(nn.Module):
    """Several transformers of the same images; their outputs as channels."""

    def __init__(self, *transformers: nn.Module) -> None:
        super().__init__()
        self.transformers = nn.ModuleList(transformers)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([transformer(images) for transformer in self.transformers], 1)


def build(
    model: str,
    shape: tuple[int, int, int] = (1, 28, 28),
    *,
    num_classes: int = 10,
    halved: bool = False,
    parameters: int | None = None,
    filters: int = 32,
) -> nn.Module:
    """One of `MODELS`: images (N, *shape) to scores (N, num_classes).

    Args:
        model: see the module's docstring.
        shape: (C, H, W) of the images, at least 28 x 28; at least 42 x 42 if halved.
        num_classes: how many scores.
        halved: whether the transformer's output is pooled by 2 before the classifier.
        parameters: how many there should be, to 1 %; None for the paper's networks: about 400,000 fully
            connected ones, and a CNN of `filters`.
        filters: of each layer of the plain CNN, and so the parameters of all networks with a CNN.

    Raises:
        ValueError: the localisation networks would have more than nine tenths of the parameters.
    """
    if model not in MODELS:
        raise ValueError(f"model should be one of {', '.join(MODELS)}, not {model!r}")
    kind = "fcn" if "fcn" in model else "cnn"
    classifier = widest_fully_connected if kind == "fcn" else matched_convolutional
    wanted = parameters or FCN_PARAMETERS
    if parameters is None and kind == "cnn":
        wanted = count_parameters(convolutional_network(shape, filters, num_classes))
    if model == kind:
        return classifier(shape, wanted, num_classes)
    localise = FullyConnectedLocalisation if kind == "fcn" else ConvolutionalLocalisation
    transformers = []
    for _ in range(2 if model.startswith("2") else 1):
        transform = TRANSFORMS[model.rpartition("-")[2]]()
        transformers.append(SpatialTransformer(localise(shape, transform), transform, shape[1:]))
    front = SideBySide(*transformers) if len(transformers) > 1 else transformers[0]
    left = wanted - count_parameters(front)
    if left < wanted / 10:
        raise ValueError(f"parameters should be more than {wanted:,}: {wanted - left:,} are for localisation")
    channels, height, width = shape
    seen = (channels * len(transformers), *((height // 2, width // 2) if halved else (height, width)))
    pool = [nn.AvgPool2d(2)] if halved else []
    return nn.Sequential(front, *pool, classifier(seen, left, num_classes))
