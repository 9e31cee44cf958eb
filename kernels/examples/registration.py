"""A step of unsupervised image registration, as in VoxelMorph (arXiv:1809.05231), in two or three dimensions.

A network looks at two images and returns a displacement field; one image is warped by it; the loss is what
is left of their difference, and how rough the field is. VoxelMorph's layers compute coordinates, normalise
them, change the order of their axes and call `grid_sample`. Here that is one operation, in pixels.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from stn_kernels import displacement_sample


def warp(moving: Tensor, field: Tensor, mode: str = "bilinear") -> Tensor:
    """VoxelMorph's SpatialTransformer: images (N, C, H, W) or (N, C, D, H, W) at pixels plus a displacement.

    Args:
        field: (N, 2, H, W) or (N, 3, D, H, W), in pixels. Its channels are in the order of the image's axes,
            z before y before x, as VoxelMorph's are. (`displacement_sample` takes x before y before z: where
            no trained weights have to fit, leave out the flip, and its copy.)
    """
    return displacement_sample(moving, field.flip(1), unit="pixel", mode=mode, align_corners=True)


def integrate(velocity: Tensor, steps: int = 7) -> Tensor:
    """VoxelMorph's VecInt: where following a stationary velocity field for one unit of time leads, in pixels.

    The field is scaled to a small step, which is followed by itself, `steps` times. The map is smooth and
    has an inverse.
    """
    field = velocity / 2**steps
    for _ in range(steps):
        field = field + warp(field, field)
    return field


def roughness(field: Tensor) -> Tensor:
    """The mean square of the field's differences from pixel to pixel, as a mean over its axes."""
    return torch.stack([field.diff(dim=axis).square().mean() for axis in range(2, field.ndim)]).mean()


class Registration(nn.Module):
    """Two images (N, 1, ...) -> a velocity field that takes the first to the second, zero before training."""

    def __init__(self, axes: int, width: int = 16) -> None:
        super().__init__()
        convolution = nn.Conv2d if axes == 2 else nn.Conv3d
        layers: list[nn.Module] = []
        for channels in pairwise((2, width, width, width)):
            layers += [convolution(*channels, kernel_size=3, padding=1), nn.LeakyReLU(0.2)]
        last = convolution(width, axes, kernel_size=3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        return self.layers(torch.cat([moving, fixed], dim=1))


def registration_step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    moving: Tensor,
    fixed: Tensor,
    smoothness: float = 0.01,
) -> float:
    """One step of training on a batch of pairs; the loss before it."""
    field = integrate(model(moving, fixed))
    loss = mse_loss(warp(moving, field), fixed) + smoothness * roughness(field)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def ball(centre: float, size: int, axes: int) -> Tensor:
    """A soft ball (1, 1, size, ...) around (centre, centre, ...)."""
    distances = (torch.arange(float(size)) - centre).square()
    total = sum(distances.view(-1, *[1] * axis) for axis in range(axes))
    return torch.sigmoid(4 - torch.as_tensor(total).sqrt())[None, None]


def main() -> None:
    for axes, size in ((2, 24), (3, 16)):
        torch.manual_seed(0)
        moving, fixed = ball(size / 2 - 1.5, size, axes), ball(size / 2 + 0.5, size, axes)
        model = Registration(axes)
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        losses = [registration_step(model, optimiser, moving, fixed) for _ in range(30)]
        print(f"{axes}-D: less than a quarter of the loss is left:", losses[-1] < 0.25 * losses[0])


if __name__ == "__main__":
    main()
