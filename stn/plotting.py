"""The book's pictures: images, sampling grids drawn on them, and a transformer's stages side by side.

Pixel (row n, column m) is drawn around y = n, x = m, half a unit to each side. matplotlib is imported when
first needed: a model that only runs does without.
"""

from importlib import resources
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stn_kernels.reference import half_extent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = "#56B4E9"  # sky blue and orange of the book's palette: they show on black, on white and to every eye
BORDER = "#E69F00"
FRAME = "#888888"  # where a white image ends on a white page
LINES = 9  # grid lines drawn each way


def use_style() -> None:
    """Draw every later figure in the book's style, `stn/book.mplstyle`."""
    import matplotlib.pyplot as plt

    with resources.as_file(resources.files("stn") / "book.mplstyle") as path:
        plt.style.use(path)


def show_image(image: Any, ax: "Axes | None" = None, title: str | None = None) -> "Axes":
    """Draw one image: (H, W), (1, H, W) or (3, H, W). 0 is black and 1 white unless its values go beyond."""
    from matplotlib.patches import Rectangle

    image = torch.as_tensor(image).detach().double().cpu()
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"image should be (H, W), (1, H, W) or (3, H, W), not {tuple(image.shape)}")
    ax = _axes(ax)
    low, high = min(0.0, image.min().item()), max(1.0, image.max().item())
    pixels = ((image - low) / (high - low)).permute(1, 2, 0)
    height, width, channels = pixels.shape
    ax.imshow((pixels[..., 0] if channels == 1 else pixels).numpy(), cmap="gray", vmin=0, vmax=1)
    ax.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=FRAME, clip_on=False))
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if title is not None:
        ax.set_title(title)
    return ax


def show_grid(
    image: Any,
    grid: Tensor,
    ax: "Axes | None" = None,
    title: str | None = None,
    align_corners: bool = False,
) -> "Axes":
    """Draw the sampling grid on the image that it samples. Chapter 02.

    The lines join the source points along some rows and columns of the output. The output's border is
    accented and its top left corner a dot, so that turns and flips show. What lies outside shows too.

    Args:
        image: (H, W), (1, H, W) or (3, H, W).
        grid: (H', W', 2), normalised, x before y.
        ax: where to draw; a new figure if None.
        title: above the picture.
        align_corners: as it was when the grid was made.
    """
    grid = grid.detach().double().cpu()
    if grid.ndim != 3 or grid.shape[2] != 2:
        raise ValueError(f"grid should be (H', W', 2), not {tuple(grid.shape)}")
    ax = show_image(image, ax, title)
    height, width = torch.as_tensor(image).shape[-2:]
    x = (grid[..., 0] * half_extent(width, align_corners) + (width - 1) / 2).numpy()
    y = (grid[..., 1] * half_extent(height, align_corners) + (height - 1) / 2).numpy()
    rows, columns = _spread(grid.shape[0]), _spread(grid.shape[1])
    # The border last, so that it lies on top of the lines that end there.
    lines = [(x[n], y[n], n in (rows[0], rows[-1])) for n in rows]
    lines += [(x[:, m], y[:, m], m in (columns[0], columns[-1])) for m in columns]
    for along_x, along_y, on_border in sorted(lines, key=lambda line: line[2]):
        color, points = (BORDER, 2.0) if on_border else (LINE, 0.9)
        ax.plot(along_x, along_y, color=color, linewidth=points, solid_capstyle="round", clip_on=False)
    ax.plot(x[0, 0], y[0, 0], "o", markersize=6, color=BORDER, markeredgecolor="white", clip_on=False)
    # As much beyond the image on every side as the grid needs on one, so that the image stays in the middle.
    margin = max(0.5, 1.05 * max(-x.min(), x.max() - width + 1, -y.min(), y.max() - height + 1))
    ax.set(xlim=(-margin, width - 1 + margin), ylim=(height - 1 + margin, -margin))
    return ax


def show_stages(input: Tensor, grid: Tensor, output: Tensor, align_corners: bool = False) -> "Figure":
    """Draw what a spatial transformer did: the input U, the grid T(G) on it, the output V. Chapter 06.

    Args:
        input: U, (C, H, W), or (N, C, H, W) for several, a column each.
        grid: (H', W', 2) or (N, H', W', 2), from the transform's `grid`.
        output: V, (C, H', W') or (N, C, H', W').
        align_corners: as it was when the grid was made.
    """
    import matplotlib.pyplot as plt

    names = ["input $U$", r"grid $T_\theta(G)$", "output $V$"]
    if input.ndim == 3:
        figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.8), layout="compressed")
        _draw_stages(axes, input, grid, output, align_corners)
        for ax, name in zip(axes, names, strict=True):
            ax.set_title(name)
        return figure
    figure, axes = plt.subplots(
        3, len(input), figsize=(0.4 + 1.4 * len(input), 4.4), squeeze=False, layout="compressed"
    )
    for column in range(len(input)):
        _draw_stages(axes[:, column], input[column], grid[column], output[column], align_corners)
    # One margin for all, as wide as the farthest grid needs, so that all pictures are equally large.
    margin = max(-ax.get_xlim()[0] for ax in axes[1])
    height, width = input.shape[-2:]
    for ax in axes[:2].flat:
        ax.set(xlim=(-margin, width - 1 + margin), ylim=(height - 1 + margin, -margin))
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name)
    return figure


def _draw_stages(axes: Any, input: Tensor, grid: Tensor, output: Tensor, align_corners: bool) -> None:
    show_image(input, axes[0])
    show_grid(input, grid, axes[1], align_corners=align_corners)
    axes[0].set(xlim=axes[1].get_xlim(), ylim=axes[1].get_ylim())  # the same pixel, equally large
    show_image(output, axes[2])


def _axes(ax: "Axes | None") -> "Axes":
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(3.2, 3.2))[1] if ax is None else ax


def _spread(count: int) -> list[int]:
    """At most LINES indices, evenly spread, the first and the last among them."""
    return sorted({round(i * (count - 1) / (min(count, LINES) - 1 or 1)) for i in range(min(count, LINES))})
