"""The paper's networks for birds (section 4.3, appendix A.6), ready to train: CUB-200-2011.

Inception with batch normalisation reads a 224 x 224 crop of a bird. With 2 or 4 transformers, one
localisation network, the same Inception without its last pooling, says where as many windows lie, each half
as wide and as high as the image; each window goes to an Inception of its own, and their features together to
one classifier. An image of 448 x 448 pixels costs no more, since the windows have 224: only the localisation
network sees it, halved.

The paper starts from Inception networks trained on ImageNet. None comes with this project.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stn.localisation import Localisation
from stn.transforms import Translation

CROP = 224
FEATURES = 1024
SPECIES = 200


def convolution(channels: int, filters: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the size but for its stride, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, filters, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(filters),
        nn.ReLU(inplace=True),
    )


class Inception(nn.Module):
    """A module of Inception with batch normalisation: its branches' outputs as channels.

    Args:
        channels: of the input.
        single: filters of the 1 x 1 branch; 0 for a module that halves the size and has none.
        triple: of the 3 x 3 branch, its 1 x 1 reduction before.
        double: of the branch of two 3 x 3 convolutions, its reduction before.
        projected: of the 1 x 1 convolution behind the pooling; 0 for a module that halves the size.
        pool: "mean" or "max".
    """

    def __init__(
        self,
        channels: int,
        single: int,
        triple: tuple[int, int],
        double: tuple[int, int],
        projected: int,
        pool: str = "mean",
    ) -> None:
        super().__init__()
        stride = 1 if single else 2
        branches: list[nn.Module] = [convolution(channels, single, 1)] if single else []
        branches.append(
            nn.Sequential(convolution(channels, triple[0], 1), convolution(triple[0], triple[1], 3, stride))
        )
        branches.append(
            nn.Sequential(
                convolution(channels, double[0], 1),
                convolution(double[0], double[1], 3),
                convolution(double[1], double[1], 3, stride),
            )
        )
        pooling: nn.Module = nn.AvgPool2d(3, 1, 1) if pool == "mean" else nn.MaxPool2d(3, stride, 1)
        project = [convolution(channels, projected, 1)] if projected else []
        branches.append(nn.Sequential(pooling, *project))
        self.branches = nn.ModuleList(branches)
        self.filters = single + triple[1] + double[1] + (projected or channels)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([branch(images) for branch in self.branches], 1)


# Ioffe and Szegedy, Batch Normalization (2015), figure 5: single, triple, double, projected, pool.
MODULES: tuple[tuple[int, tuple[int, int], tuple[int, int], int, str], ...] = (
    (64, (64, 64), (64, 96), 32, "mean"),  # 3a
    (64, (64, 96), (64, 96), 64, "mean"),
    (0, (128, 160), (64, 96), 0, "max"),
    (224, (64, 96), (96, 128), 128, "mean"),  # 4a
    (192, (96, 128), (96, 128), 128, "mean"),
    (160, (128, 160), (128, 160), 96, "mean"),
    (96, (128, 192), (160, 192), 96, "mean"),
    (0, (128, 192), (192, 256), 0, "max"),
    (352, (192, 320), (160, 224), 128, "mean"),  # 5a
    (352, (192, 320), (192, 224), 128, "max"),
)


def inception() -> nn.Sequential:
    """Images (N, 3, H, W) to features (N, 1024, H / 32, W / 32): Inception with batch normalisation, without
    its last pooling and its classifiers."""
    layers: list[nn.Module] = [
        convolution(3, 64, 7, 2),
        nn.MaxPool2d(3, 2, 1),
        convolution(64, 64, 1),
        convolution(64, 192, 3),
        nn.MaxPool2d(3, 2, 1),
    ]
    channels = 192
    for single, triple, double, projected, pool in MODULES:
        module = Inception(channels, single, triple, double, projected, pool)
        layers.append(module)
        channels = module.filters
    return nn.Sequential(*layers)


def tiling(crops: int) -> Tensor:
    """Where the windows start, (crops, 2), x before y: 2 side by side, or 4 in the quarters of the image."""
    places = {2: [[-0.5, 0.0], [0.5, 0.0]], 4: [[x, y] for y in (-0.5, 0.5) for x in (-0.5, 0.5)]}
    if crops not in places:
        raise ValueError(f"crops should be 0, 2 or 4, not {crops}")
    return torch.tensor(places[crops])


class BirdNetwork(nn.Module):
    """Images (N, 3, size, size) to scores (N, 200).

    Args:
        crops: 2 or 4 transformers; 0 for Inception alone.
        size: 224 or 448 pixels; 224 without transformers.
        dropout: before the classifier.
    """

    def __init__(self, crops: int, size: int = CROP, dropout: float = 0.7) -> None:
        super().__init__()
        if size not in ((CROP, 2 * CROP) if crops else (CROP,)):
            raise ValueError(f"size should be 224, or 448 with transformers, not {size}")
        self.localisation: Localisation | None = None
        if crops:
            start = tiling(crops)
            self.window = Translation(0.5)
            body = nn.Sequential(
                inception(),
                nn.Conv2d(FEATURES, 128, 1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(128 * (CROP // 32) ** 2, 128),
                nn.ReLU(),
            )
            self.localisation = Localisation(body, 128, self.window, (3, CROP, CROP), start=start)
        self.readers = nn.ModuleList(inception() for _ in range(max(crops, 1)))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(FEATURES * len(self.readers), SPECIES)

    def windows(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the transformers hand on, (N, crops, 3, 224, 224), and theta, (N, crops, 2)."""
        if self.localisation is None:
            raise RuntimeError("a network without transformers has no windows")
        seen = functional.avg_pool2d(images, 2) if images.shape[-1] > CROP else images
        theta = self.localisation(seen)
        return self.window.sample(images, theta, (CROP, CROP)), theta

    def forward(self, images: Tensor) -> Tensor:
        crops = images[:, None] if self.localisation is None else self.windows(images)[0]
        features = [
            reader(crop).mean((2, 3)) for reader, crop in zip(self.readers, crops.unbind(1), strict=True)
        ]
        scores: Tensor = self.classifier(self.dropout(torch.cat(features, 1)))
        return scores
