"""Networks for digits in volumes (appendix A.3): projected to an image as they come, or turned first.

- sum: the volume summed over its depth, and the fully connected classifier on that image;
- st-sum: behind an affine transformer of the volume, whose localisation network sees the sums along all three
  axes, halved if they have 56 pixels or more, with two hidden layers of 64 units.

Both have about 400,000 parameters, or as many as are asked for, to 1 %. The paper shows this experiment and
reports neither sizes nor an error.
"""

import torch
from torch import Tensor, nn

from stn.localisation import Localisation
from stn.networks import widest_fully_connected
from stn.spatial_transformer import SpatialTransformer
from stn.training import count_parameters
from stn.transforms import Affine3d

MODELS = ("sum", "st-sum")
PARAMETERS = 400_000
UNITS = 64


class Sums(nn.Module):
    """Means of volumes (N, C, D, H, W) along each of `axes`, as channels; times 4, so that ink is about 1."""

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, volumes: Tensor) -> Tensor:
        return 4 * torch.cat([volumes.mean(axis) for axis in self.axes], 1)


def build(
    model: str, shape: tuple[int, ...], *, num_classes: int = 10, parameters: int | None = None
) -> nn.Module:
    """One of `MODELS`: volumes (N, 1, S, S, S) to scores (N, num_classes).

    Raises:
        ValueError: an unknown model, or a localisation network with more than nine tenths of the parameters.
    """
    if model not in MODELS:
        raise ValueError(f"model should be one of {', '.join(MODELS)}, not {model!r}")
    side, wanted = shape[-1], parameters or PARAMETERS
    front: list[nn.Module] = []
    if model == "st-sum":
        times = 2 if side >= 56 else 1
        layers = [nn.Linear(3 * (side // times) ** 2, UNITS), nn.ReLU(), nn.Linear(UNITS, UNITS), nn.ReLU()]
        body = nn.Sequential(Sums(2, 3, 4), nn.AvgPool2d(times), nn.Flatten(), *layers)
        transform = Affine3d()
        front = [SpatialTransformer(Localisation(body, UNITS, transform, shape), transform, shape[1:])]
    left = wanted - sum(map(count_parameters, front))
    if left < wanted / 10:
        raise ValueError(f"parameters should be more than {wanted:,}: {wanted - left:,} are for localisation")
    return nn.Sequential(*front, Sums(2), widest_fully_connected((1, side, side), left, num_classes))
