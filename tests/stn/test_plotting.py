"""Pictures show what they claim: the drawn data is checked, not the pixels."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from stn import Affine
from stn.plotting import BORDER, LINES, show_grid, show_image, show_stages, use_style

pytest.importorskip("matplotlib").use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def _book_style_and_no_figures_left():
    with plt.rc_context():
        use_style()
        yield
    plt.close("all")


def grid_of(theta, size, align_corners=False):
    return Affine().grid(torch.tensor([theta]), size, align_corners)[0]


IDENTITY = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def curves(ax):
    """The grid lines (not the dot at the corner), as (points, 2) arrays of pixel coordinates."""
    return [line.get_xydata() for line in ax.lines if len(line.get_xdata()) > 1]


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_identity_grid_passes_through_the_pixels_centres(align_corners):
    ax = show_grid(torch.zeros(5, 7), grid_of(IDENTITY, (5, 7), align_corners), align_corners=align_corners)
    rows = [curve for curve in curves(ax) if np.ptp(curve[:, 1]) < 1e-5]
    columns = [curve for curve in curves(ax) if np.ptp(curve[:, 0]) < 1e-5]
    assert sorted(round(float(row[0, 1]), 4) for row in rows) == [0, 1, 2, 3, 4]
    assert sorted(round(float(column[0, 0]), 4) for column in columns) == [0, 1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(rows[0][:, 0], range(7), atol=1e-5)


def test_a_shift_by_half_the_image_moves_the_lines_by_half_its_pixels():
    shifted = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    ax = show_grid(torch.zeros(8, 8), grid_of(shifted, (8, 8)))
    points = np.concatenate(curves(ax))
    assert (points[:, 0].min(), points[:, 0].max()) == (4, 11)
    assert (points[:, 1].min(), points[:, 1].max()) == (0, 7)


def test_large_grids_are_thinned_but_keep_their_border_accented():
    ax = show_grid(torch.zeros(28, 28), grid_of(IDENTITY, (28, 28)))
    assert len(curves(ax)) == 2 * LINES
    border = [line.get_xydata() for line in ax.lines if line.get_color() == BORDER]
    extremes = {(round(float(curve[:, axis].mean()), 4)) for curve in border for axis in (0, 1)}
    assert extremes == {0.0, 13.5, 27.0}


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (2, 2)])
def test_the_smallest_grids_are_drawn(size):
    show_grid(torch.zeros(4, 4), grid_of(IDENTITY, size)).figure.canvas.draw()


def test_the_dot_marks_the_outputs_top_left_corner():
    turned = [0.0, 1.0, 0.0, -1.0, 0.0, 0.0]  # the output's left is the image's bottom
    ax = show_grid(torch.zeros(8, 8), grid_of(turned, (8, 8)))
    (dot,) = [line.get_xydata()[0].tolist() for line in ax.lines if len(line.get_xdata()) == 1]
    assert dot == [0, 7]


@pytest.mark.parametrize("theta", [IDENTITY, [2.0, 0.5, -1.0, 0.3, 1.5, 0.8], [0.1, 0.0, 0.0, 0.0, 0.1, 0.0]])
def test_the_whole_image_and_the_whole_grid_are_in_view_with_rows_downwards(theta):
    grid = grid_of(theta, (20, 20))
    ax = show_grid(torch.zeros(12, 9), grid)
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert left <= -0.5
    assert right >= 8.5
    assert top <= -0.5
    assert bottom >= 11.5
    points = np.concatenate(curves(ax))
    assert left < points[:, 0].min()
    assert points[:, 0].max() < right
    assert top < points[:, 1].min()
    assert points[:, 1].max() < bottom


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (3, 4, 6)])
def test_images_of_every_shape_show_their_values(shape):
    image = torch.rand(shape)
    drawn = show_image(image, title="a title").images[0].get_array()
    expected = image.permute(1, 2, 0) if shape[0] == 3 else image.reshape(4, 6)
    np.testing.assert_allclose(drawn, expected, atol=1e-7)


def test_zero_is_black_and_one_white_until_values_go_beyond():
    grey = show_image(torch.full((2, 2), 0.5)).images[0].get_array()
    stretched = show_image(torch.tensor([[-1.0, 3.0], [1.0, 0.0]])).images[0].get_array()
    np.testing.assert_allclose(grey, 0.5)
    np.testing.assert_allclose(stretched, [[0, 1], [0.5, 0.25]])


def test_stages_stand_side_by_side_and_several_in_columns():
    images, outputs = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 5, 5)
    grids = Affine().grid(torch.tensor([IDENTITY] * 4), (5, 5))
    one = show_stages(images[0], grids[0], outputs[0])
    several = show_stages(images, grids, outputs)
    assert [ax.get_title() for ax in one.axes] == ["input $U$", r"grid $T_\theta(G)$", "output $V$"]
    assert len(several.axes) == 12
    np.testing.assert_allclose(several.axes[1].images[0].get_array(), images[1, 0])
    np.testing.assert_allclose(several.axes[11].images[0].get_array(), outputs[3, 0])
    assert len(curves(several.axes[6])) == 10


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"image should be .* not \(2, 4, 4\)"):
        show_image(torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match=r"grid should be \(H', W', 2\), not \(1, 4, 4, 2\)"):
        show_grid(torch.zeros(4, 4), torch.zeros(1, 4, 4, 2))


def test_every_figure_has_an_opaque_white_page():
    assert plt.rcParams["figure.facecolor"] == "white"
    assert plt.rcParams["savefig.facecolor"] == "white"


def test_importing_the_library_leaves_matplotlib_alone():
    code = "import sys, stn; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
