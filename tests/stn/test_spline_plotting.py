"""Pictures of splines show what they claim: the drawn data is checked, not the pixels."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from stn.plotting import BORDER, use_style
from stn.spline_plotting import FAULT, show_plate, show_warp
from stn.thin_plate_spline import fit, fit_map, uniform_grid

pytest.importorskip("matplotlib").use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

TARGET = 0.75 * uniform_grid((3, 3), align_corners=True).flatten(0, 1)


@pytest.fixture(autouse=True)
def _book_style_and_no_figures_left():
    with plt.rc_context():
        use_style()
        yield
    plt.close("all")


def moved(*offset, regularization=0.0):
    """The warp whose middle point is sampled elsewhere, and where its points should be sampled."""
    source = TARGET.clone()
    source[4] += torch.tensor(offset)
    return fit_map(target_points=TARGET, source_points=source, regularization=regularization), source


def dots(ax):
    """Where the marked points are, in pixels."""
    return np.array(
        [line.get_xydata()[0] for line in ax.lines if len(line.get_xdata()) == 1 and line.get_zorder() == 4]
    )


def in_pixels(points, height, width):
    return ((points + 1) * torch.tensor([width, height]) / 2 - 0.5).numpy()


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.3, -0.2), (-0.1, 0.25)])
def test_a_warp_is_shown_with_its_output_and_its_points(offset):
    image = torch.rand(3, 12, 20, dtype=torch.float64)
    warp, source = moved(*offset)
    left, right = show_warp(image, warp).axes
    output = functional.grid_sample(image[None], warp.grid((12, 20))[None], align_corners=False)[0]
    np.testing.assert_allclose(left.images[0].get_array(), image.permute(1, 2, 0), atol=1e-12)
    np.testing.assert_allclose(right.images[0].get_array(), output.permute(1, 2, 0), atol=1e-12)
    np.testing.assert_allclose(dots(left), in_pixels(source, 12, 20), atol=1e-9)
    np.testing.assert_allclose(dots(right), in_pixels(TARGET, 12, 20), atol=1e-9)
    assert [text.get_text() for text in right.texts] == [str(k) for k in range(9)]
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()


def test_the_same_warp_gives_the_same_picture_and_another_another():
    image = torch.rand(1, 16, 16)

    def pixels(*offset):
        figure = show_warp(image, moved(*offset)[0])
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba()).copy()

    assert np.array_equal(pixels(0.3, 0.0), pixels(0.3, 0.0))
    assert not np.array_equal(pixels(0.3, 0.0), pixels(0.25, 0.0))


def test_a_smoothed_warp_shows_by_how_much_it_misses():
    warp, source = moved(0.4, 0.0, regularization=1.0)
    left, _ = show_warp(torch.rand(1, 16, 16), warp, source).axes
    misses = np.array([line.get_xydata() for line in left.lines if line.get_color() == FAULT])
    assert misses.shape == (9, 2, 2)
    np.testing.assert_allclose(misses[:, 0], in_pixels(source, 16, 16), atol=1e-9)
    np.testing.assert_allclose(misses[:, 1], in_pixels(warp(TARGET), 16, 16), atol=1e-9)
    assert np.ptp(misses[4], axis=0)[0] > 1


@pytest.mark.parametrize("interval", [(-1.0, 1.0), (0.0, 1.0)])
def test_what_has_turned_over_is_shaded(interval):
    low, high = interval
    warp, source = moved(0.9, 0.0)
    there, here = ((low + high) / 2 + points * (high - low) / 2 for points in (TARGET, source))
    same = fit_map(target_points=there, source_points=here, interval=interval)
    _, right = show_warp(torch.rand(1, 16, 16), same).axes
    shade = right.images[1].get_array()[..., 3] > 0
    turned = warp.determinant(uniform_grid((16, 16)).flatten(0, 1)) < 0
    assert turned.any()
    np.testing.assert_array_equal(shade, turned.view(16, 16).numpy())
    np.testing.assert_allclose(dots(right), in_pixels(TARGET, 16, 16), atol=1e-9)
    flat, _ = moved(0.1, 0.0)
    assert len(show_warp(torch.rand(1, 16, 16), flat).axes[1].images) == 1


def test_names_can_be_left_out():
    figure = show_warp(torch.rand(1, 16, 16), moved(0.1, 0.0)[0], names=False)
    assert not any(ax.texts for ax in figure.axes)
    assert {line.get_color() for line in figure.axes[1].lines} == {BORDER}


def test_a_plate_is_drawn_over_its_nails():
    points = TARGET[[0, 2, 4, 6, 8]]
    heights = torch.tensor([[0.0], [0.5], [1.0], [0.2], [-0.3]])
    _, ax = plt.subplots(subplot_kw={"projection": "3d"})
    show_plate(fit(points, heights), heights, ax, "a title")
    ax.figure.canvas.draw()
    nails = np.array([line.get_data_3d() for line in ax.lines])  # (nails, 3, 2): from the floor to the head
    np.testing.assert_allclose(nails[:, :2, 0], points, atol=1e-12)
    np.testing.assert_allclose(nails[:, 2, 1], heights[:, 0], atol=1e-7)
    assert len(set(nails[:, 2, 0])) == 1
    assert nails[0, 2, 0] < -0.3
    assert ax.get_title() == "a title"


@pytest.mark.parametrize("shape", [(5,), (4, 1), (5, 2), (1, 5, 1)])
def test_heights_of_another_shape_are_refused(shape):
    plate = fit(TARGET[[0, 2, 4, 6, 8]], torch.rand(5, 1))
    _, ax = plt.subplots(subplot_kw={"projection": "3d"})
    with pytest.raises(ValueError, match=r"heights should have shape \(5, 1\), not \("):
        show_plate(plate, torch.zeros(shape), ax)
