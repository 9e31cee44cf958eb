"""The paper's distorted digits that no similarity undoes (appendix A.4): P, projective; E, elastic."""

import torch
from torch import Tensor

from stn.data.distortions import check_images, normal, uniform
from stn.transforms import homography
from stn_kernels import projective_sample, tps_sample

SCALES = (0.75, 1.0)
CORNERS_SIGMA = 5.0  # pixels along the diagonal, of each corner
POINTS_SIGMA = 1.5  # pixels, of each control point's x and y
POINTS = 4  # rows and columns of control points
CANDIDATES = 16


def projected(images: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """The paper's set P: scaled by 0.75 to 1, then each corner stretched by a normal draw of 5 pixels.

    An amount for each corner, the paper says, and not which way: here the corner moves along its diagonal,
    outwards or inwards. (If x and y are drawn apart, digits shrink to a few pixels or leave the image: a
    fully connected network errs on 17 %, where the paper has 3.1 and this reading 2.8.) One amount in a
    thousand pushes its corner past the centre, which no view of a plane does: such corners are drawn anew.

    Args:
        images: (N, C, H, W), floating; black (0) is what surrounds them.
        generator: draws everything; the default generator if None. The same seed gives the same maps for
            images of any dtype and on any device.

    Returns:
        The distorted images, of the same shape, dtype and device; and (N, 3, 3), the homography M with which
        an ideal spatial transformer, sampling the distorted image at M p, gets each digit back, as
        `stn_kernels.projective_sample` takes it.
    """
    check_images(images)
    scale = _scales(images, generator)
    square = scale.new_tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    half = scale.new_tensor([images.shape[3] / 2, images.shape[2] / 2])
    outwards = square * half / half.norm()
    amounts = CORNERS_SIGMA * normal((len(images), CANDIDATES, 4, 1), images, generator)
    corners = square * scale[:, None, None, None] + amounts * outwards / half
    # The first that is convex; should none be, without amounts.
    convex = is_convex(corners)
    first = convex.to(torch.uint8).argmax(1)
    chosen = corners[torch.arange(len(images), device=first.device), first]
    chosen = torch.where(convex.any(1)[:, None, None], chosen, square * scale[:, None, None])
    matrix = homography(chosen)
    undone = torch.linalg.inv(matrix)
    undone = undone / undone[:, 2:, 2:]
    return projective_sample(images, undone, images.shape[2:]), matrix


def is_convex(corners: Tensor) -> Tensor:
    """Whether quadrilaterals (..., 4, 2) are convex and not mirrored: (...)."""
    sides = corners.roll(-1, -2) - corners
    following = sides.roll(-1, -2)
    turns = sides[..., 0] * following[..., 1] - sides[..., 1] * following[..., 0]
    return (turns > 0).all(-1)


def elastic(images: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """The paper's set E: scaled by 0.75 to 1, then bent by a thin plate spline, whose 4 x 4 control points
    are moved by a normal draw of 1.5 pixels each.

    The paper does not say whether the points move in the digit or in the distorted image: here the spline
    tells where in the digit each pixel of the distorted image lies. Such a warp may fold, and then no warp
    undoes it.

    Args:
        images, generator: as in `projected`.

    Returns:
        The distorted images, of the same shape, dtype and device; and (N, 16, 2), the points of the digit,
        in normalised coordinates, that lie at the distorted image's 4 x 4 regular points from -1 to 1, row
        by row.
    """
    check_images(images)
    scale = _scales(images, generator)
    line = torch.linspace(-1, 1, POINTS, dtype=scale.dtype, device=scale.device)
    regular = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).flatten(0, 1)
    half = scale.new_tensor([images.shape[3] / 2, images.shape[2] / 2])
    moves = POINTS_SIGMA * normal((len(images), POINTS**2, 2), images, generator) / half
    source = regular / scale[:, None, None] + moves
    return tps_sample(images, source, images.shape[2:], target_points=regular), source


def _scales(images: Tensor, generator: torch.Generator | None) -> Tensor:
    low, high = SCALES
    return (low + high) / 2 + (high - low) / 2 * uniform((len(images),), images, generator)
