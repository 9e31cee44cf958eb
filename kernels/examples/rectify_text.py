"""A rectifier of text in front of its recogniser, as in RARE and ASTER.

RARE: arXiv:1603.03915. ASTER: doi:10.1109/TPAMI.2018.2848939. A network predicts where the upper and lower
edge of a line of text run; the thin plate spline that takes them to the edges of a straight box straightens
the line. What it learns it learns from the recogniser's loss, here CTC.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import ctc_loss

from stn_kernels import tps_sample


def box_points(count: int) -> Tensor:
    """Control points on the edges of the output, the upper from left to right, then the lower: (count, 2)."""
    x = torch.linspace(-1, 1, count // 2)
    return torch.cat([torch.stack([x, torch.full_like(x, y)], dim=1) for y in (-1.0, 1.0)])


class Rectifier(nn.Module):
    """Images (N, C, H, W) -> rectified ones (N, C, *size), unchanged before training."""

    target_points: Tensor

    def __init__(self, channels: int, size: tuple[int, int] = (32, 100), points: int = 20) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("target_points", box_points(points))
        head = nn.Linear(64, 2 * points)
        nn.init.zeros_(head.weight)
        head.bias.data = self.target_points.flatten().clone()
        self.localisation = nn.Sequential(
            *(nn.Conv2d(channels, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d((2, 8)), nn.Flatten(), nn.Linear(64 * 2 * 8, 64), nn.ReLU(), head),
        )

    def forward(self, images: Tensor) -> Tensor:
        points = self.localisation(images).unflatten(1, (-1, 2))
        return tps_sample(images, points, self.size, target_points=self.target_points, padding_mode="border")


class Recogniser(nn.Module):
    """A stand-in for yours: images (N, 1, H, W) -> log probabilities (W / 4, N, classes), for CTC."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU())
        )
        self.classes = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        columns = self.features(images).mean(2).permute(2, 0, 1)
        return self.classes(columns).log_softmax(-1)


def main() -> None:
    torch.manual_seed(0)
    rectifier = Rectifier(channels=1)
    model = nn.Sequential(rectifier, Recogniser(classes=37))
    images, texts = torch.rand(4, 1, 48, 160), torch.randint(1, 37, (4, 6))
    columns, letters = torch.full((4,), 25), torch.full((4,), 6)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = ctc_loss(model(images), texts, columns, letters)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    print("the loss falls:", losses[-1] < losses[0])
    with torch.no_grad():
        points = rectifier.localisation(images).unflatten(1, (-1, 2))
    print("and its gradient moved the points:", bool((points != rectifier.target_points).any()))


if __name__ == "__main__":
    main()
