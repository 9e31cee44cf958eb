"""The paper's networks for house numbers (section 4.2, appendix A.5), ready to train.

Up to five digits are read from a crop of 64 x 64 or 128 x 128 pixels. Eight convolutions and three fully
connected layers end in five classifiers, one for each place, each of the ten digits and "none":

- cnn: the classifier alone;
- st-single: an affine transformer of the image, with a localisation network of four layers;
- st-multi: an affine transformer before each of the first four convolutions, of the image and three times of
  feature maps, with localisation networks of two layers of 32 units.

Dropout of 0.5 everywhere but after the first convolution and in the localisation networks.

The paper does not say how the weights start. Here their variance is one over a unit's inputs, which keeps the
signal's size through dropout of 0.5 and ReLU. From PyTorch's own start the scores hardly depend on the image.
"""

from torch import Tensor, nn
from torch.nn import functional

from stn.data.house_numbers import PLACES, SIZES
from stn.localisation import FullyConnectedLocalisation, Localisation
from stn.spatial_transformer import SpatialTransformer
from stn.transforms import Affine

MODELS = ("cnn", "st-single", "st-multi")
CLASSES = 11  # ten digits and none
# Channels, the kernel's side, and whether a maximum over 2 x 2 follows.
CONVOLUTIONS = (
    (48, 5, True),
    (64, 5, False),
    (128, 5, True),
    (160, 5, False),
    (192, 5, True),
    (192, 5, False),
    (192, 5, True),
    (192, 5, False),
)
UNITS = 3072


class HouseNumberNetwork(nn.Module):
    """Images (N, 3, size, size) to scores (N, 5, 11), from the left digit to the right one, then none.

    Args:
        model: one of `MODELS`.
        size: 64 or 128, pixels.
        units: of the fully connected layers.
    """

    def __init__(self, model: str, size: int = 64, units: int = UNITS) -> None:
        super().__init__()
        if model not in MODELS:
            raise ValueError(f"model should be one of {', '.join(MODELS)}, not {model!r}")
        if size not in SIZES:
            raise ValueError(f"size should be 64 or 128, not {size}")
        layers: list[nn.Module] = []
        channels, side = 3, size
        for number, (filters, kernel, pooled) in enumerate(CONVOLUTIONS):
            shape = (channels, side, side)
            if model == "st-multi" and number < 4:
                transform = Affine()
                localisation = FullyConnectedLocalisation(shape, transform, hidden=(32, 32))
                layers.append(SpatialTransformer(localisation, transform, (side, side)))
            if model == "st-single" and number == 0:
                layers.append(_single(shape))
            layers += [nn.Conv2d(channels, filters, kernel, padding=kernel // 2), nn.ReLU()]
            if pooled:
                layers.append(nn.MaxPool2d(2))
                side //= 2
            if number > 0:
                layers.append(nn.Dropout())
            channels = filters
        layers.append(nn.Flatten())
        features = channels * side**2
        for _ in range(3):
            layers += [nn.Linear(features, units), nn.ReLU(), nn.Dropout()]
            features = units
        self.layers = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.places = nn.Linear(features, PLACES * CLASSES)  # five classifiers side by side

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.places(self.layers(images))
        return scores.unflatten(1, (PLACES, CLASSES))


def _single(shape: tuple[int, int, int]) -> SpatialTransformer:
    channels, height, width = shape
    body = nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (height // 2) * (width // 2), 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
    )
    transform = Affine()
    return SpatialTransformer(Localisation(body, 32, transform, shape), transform, (height, width))


def sequence_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """The sum of the five places' cross entropies, mean over the batch: scores (N, 5, 11), targets (N, 5)."""
    return functional.cross_entropy(scores.mT, targets, reduction="none").sum(1).mean()


def sequence_error(scores: Tensor, targets: Tensor) -> Tensor:
    """The share of house numbers of which a place is wrong: a scalar in [0, 1]."""
    return (scores.argmax(2) != targets).any(1).double().mean()
