"""RAFT's two samplers (arXiv:2003.12039): warping by optical flow, and correlations around a match.

RAFT normalises pixel coordinates and calls `grid_sample`. A flow is in pixels already, and a lookup is a
square window: an affine map for each pixel, six numbers in the place of a grid of (2 r + 1)^2 points.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from stn_kernels import affine_sample, displacement_sample


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """The second image (N, C, H, W) at the places of the first, by the flow (N, 2, H, W), x before y."""
    return displacement_sample(image, flow, unit="pixel")


class CorrelationBlock:
    """RAFT's CorrBlock: correlations of all pairs of pixels of two feature maps (N, C, H, W), at all scales.

    Called with matches (N, 2, H, W), x before y, in pixels of the second map, it returns the correlations in
    a window of 2 radius + 1 pixels a side around each match, at each scale: (N, levels (2 radius + 1)^2, H,
    W). As in RAFT, whose trained weights expect it, a window's columns come one after another, not its rows.
    """

    def __init__(self, first: Tensor, second: Tensor, levels: int = 4, radius: int = 4) -> None:
        count, channels, height, width = first.shape
        volume = first.flatten(2).transpose(1, 2) @ second.flatten(2) / channels**0.5
        self.pyramid = [volume.view(count * height * width, 1, height, width)]
        for _ in range(levels - 1):
            self.pyramid.append(avg_pool2d(self.pyramid[-1], 2))
        self.radius = radius

    def __call__(self, matches: Tensor) -> Tensor:
        count, _, height, width = matches.shape
        side = 2 * self.radius + 1
        x, y = matches.permute(1, 0, 2, 3).flatten(1)
        found = []
        for level, volume in enumerate(self.pyramid):
            theta = x.new_zeros(len(x), 2, 3)
            for axis, match in enumerate((x, y)):
                extent = volume.shape[3 - axis] - 1  # pixels from -1 to 1: the border pixels' centres
                # Transposed: x goes down the window's rows.
                theta[:, axis, 1 - axis] = 2 * self.radius / extent
                theta[:, axis, 2] = 2 * (match / 2**level) / extent - 1
            window = affine_sample(volume, theta, (side, side), align_corners=True)
            found.append(window.view(count, height, width, side**2))
        return torch.cat(found, dim=-1).permute(0, 3, 1, 2).contiguous()


def main() -> None:
    torch.manual_seed(0)
    first = torch.randn(1, 32, 16, 24)
    flow = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 16, 24)
    second = first.roll((-2, 3), (2, 3))  # what was at (x, y) is now at (x + 3, y - 2)
    inside = (..., slice(2, None), slice(None, -3))
    print("warped back:", torch.allclose(warp(second, flow)[inside], first[inside], atol=1e-5))

    matches = torch.stack(torch.meshgrid(torch.arange(24.0), torch.arange(16.0), indexing="xy"))[None]
    best = CorrelationBlock(first, second, levels=1)(matches).argmax(1)[inside]
    across, down = best // 9 - 4, best % 9 - 4
    print("found by correlation:", bool((across == 3).all() and (down == -2).all()))


if __name__ == "__main__":
    main()
