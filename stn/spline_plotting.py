"""Pictures of thin plate splines: a plate over its nails, an image and what a warp makes of it. Chapter 11.

matplotlib is imported when first needed.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from stn.plotting import BORDER, LINE, show_grid, show_image
from stn.thin_plate_spline import Spline, SplineMap, uniform_grid
from stn_kernels.reference import half_extents

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d import Axes3D

INK = "#222222"
FAULT = "#D55E00"  # vermilion of the book's palette


def show_plate(spline: Spline, heights: Tensor, ax: "Axes3D", title: str | None = None) -> "Axes3D":
    """Draw a surface over [-1, 1]², and a nail from the floor to each height that it was given.

    Args:
        spline: from `fit`, with one value at each point.
        heights: (K, 1), as given to `fit`; the surface meets them if it was not smoothed.
        ax: from `plt.subplots(subplot_kw={"projection": "3d"})`.
        title: above the picture.
    """
    if heights.shape != (*spline.points.shape[:-1], 1) or heights.ndim != 2:
        raise ValueError(
            f"heights should have shape ({spline.points.shape[-2]}, 1), not {tuple(heights.shape)}"
        )
    grid = uniform_grid((41, 41), align_corners=True)
    surface = spline(grid.flatten(0, 1)).detach().unflatten(0, (41, 41))[..., 0].double().cpu()
    low, high = heights.min().item(), heights.max().item()
    floor = low - 0.4 * (high - low)  # of the heights alone, so that panels side by side compare
    for (x, y), (z,) in zip(spline.points.tolist(), heights.tolist(), strict=True):
        ax.plot([x, x], [y, y], [floor, z], color=INK, linewidth=1.2, zorder=0)
    ax.plot_surface(
        *grid.numpy().transpose(2, 0, 1),
        surface.numpy(),
        rstride=2,
        cstride=2,
        color=LINE,
        alpha=0.55,
        linewidth=0.3,
        edgecolor="white",
    )
    x, y = spline.points.double().cpu().numpy().T
    ax.scatter(x, y, heights[:, 0].double().cpu().numpy(), color=FAULT, s=22, depthshade=False)
    ax.set(xticks=[-1, 0, 1], yticks=[-1, 0, 1], zticks=[], zlim=(floor, high))
    ax.tick_params(labelsize=7, pad=-3)
    ax.view_init(elev=24, azim=-62)
    if title is not None:
        ax.set_title(title)
    return ax


def show_warp(
    image: Tensor,
    warp: SplineMap,
    source_points: Tensor | None = None,
    *,
    names: bool = True,
    margin: float = 0.12,
) -> "Figure":
    """Draw, left, the image with the grid that samples it and the source points, and, right, the output, as
    large as the image, with the target points. Where the warp has turned over, the output is shaded.

    Args:
        image: (C, H, W), C of 1 or 3.
        warp: one map, from `fit_map`, with align_corners=False.
        source_points: (K, 2), where the points should be sampled; where they are if None. With a smoothed
            warp the two differ, and a line joins them.
        names: whether to number the points, from 0.
        margin: what of the plane around the images to show, as a share of their height and width.
    """
    import matplotlib.pyplot as plt

    size = image.shape[-2:]
    warp = warp.to(device="cpu")
    image = image.detach().double().cpu()
    with torch.no_grad():
        grid = warp.grid(size)
        output = functional.grid_sample(image[None], grid[None].to(image), align_corners=False)[0]
        turned = (
            warp.determinant(uniform_grid(size, warp.interval).flatten(0, 1)).unflatten(0, tuple(size)) < 0
        )
        reached = warp(warp.points)
    wanted = reached if source_points is None else source_points.detach().cpu()

    figure, axes = plt.subplots(1, 2, figsize=(8, 4.3), layout="compressed")
    left, right = axes
    show_grid(image, grid, left, "input, grid and source points")
    for line in left.lines:
        line.set_clip_on(True)
    show_image(output, right, "output and target points")
    if turned.any():
        shade = torch.tensor([213, 94, 0, 150]) * turned[..., None]
        right.imshow(shade.to(torch.uint8).numpy())
    _mark(left, _pixels(wanted, warp, size), names)
    for start, end in zip(_pixels(wanted, warp, size), _pixels(reached, warp, size), strict=True):
        left.plot(*zip(start, end, strict=True), color=FAULT, linewidth=1.5)
    _mark(right, _pixels(warp.points, warp, size), names)
    height, width = size
    for ax in axes:
        ax.set(
            xlim=(-0.5 - margin * width, (1 + margin) * width - 0.5),
            ylim=((1 + margin) * height - 0.5, -0.5 - margin * height),
        )
    return figure


def _pixels(points: Tensor, warp: SplineMap, size: Any) -> list[list[float]]:
    """The points' columns and rows in an image of this size."""
    low, high = warp.interval
    height, width = size
    normalised = (points.double() - (low + high) / 2) * (2 / (high - low))
    extents = normalised.new_tensor(half_extents(tuple(size), False))
    return (normalised * extents + normalised.new_tensor([(width - 1) / 2, (height - 1) / 2])).tolist()


def _mark(ax: Any, points: list[list[float]], names: bool) -> None:
    for number, (x, y) in enumerate(points):
        ax.plot(x, y, "o", color=BORDER, markeredgecolor="white", markersize=6 if not names else 11, zorder=4)
        if names:
            ax.text(x, y, str(number), color=INK, fontsize=7, ha="center", va="center_baseline", zorder=5)
