"""Figures with sliders: what is drawn follows the sliders, and every page has something to show."""

import base64
import subprocess
import sys

import nbformat
import pytest

from stn.widgets import WIDGET_VIEW, Choice, Points, Slider, draw, explore

pytest.importorskip("matplotlib").use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")
ipywidgets = pytest.importorskip("ipywidgets")

START = [(0.0, 0.0), (0.5, -0.25), (-0.5, 0.5)]


def bar(height=1.0):
    """A figure that shows its parameter."""
    figure, ax = plt.subplots(figsize=(2, 2))
    ax.bar(0, height)
    ax.set_ylim(-2, 2)
    return figure, f"twice that is {2 * height:.1f}"


def png():
    figure = plt.figure(figsize=(1, 1))
    return draw(lambda: figure, {})[0]


def record(**values):
    """A picture that is always the same, and the parameters as a note."""
    return PNG, repr(sorted(values.items()))


PNG = png()


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    plt.close("all")
    yield
    assert plt.get_fignums() == []


def controls(explorer):
    return {
        widget.description: widget for widget in explorer.widget.children if hasattr(widget, "description")
    }


def shown(explorer):
    """The picture and the line below it, as the widget has them."""
    image, line = explorer.widget.children[-2:]
    return bytes(image.value), line.value


# --- the bundle --------------------------------------------------------------------------------------------


def test_the_bundle_holds_widget_picture_and_text():
    explorer = explore(bar, height=Slider(0, 1.5, step=0.5, start=1))
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "image/png", WIDGET_VIEW}
    assert bundle["text/plain"] == "height = 1\ntwice that is 2.0"
    assert base64.b64decode(bundle["image/png"]) == explorer.picture == shown(explorer)[0]
    assert bundle[WIDGET_VIEW]["model_id"] == explorer.widget.model_id


def test_without_ipywidgets_the_picture_and_the_text_remain(monkeypatch):
    expected = explore(bar, height=Slider(0, 1.5, step=0.5, start=1))._repr_mimebundle_()
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # an import of it fails
    explorer = explore(bar, height=Slider(0, 1.5, step=0.5, start=1))
    del expected[WIDGET_VIEW]
    assert explorer._repr_mimebundle_() == expected
    assert explorer.widget is None


def test_the_text_is_the_same_everywhere():
    explorer = explore(
        record,
        number=Slider(-1.0, 1.0, step=0.1, start=0.1 + 0.2),
        zero=Slider(-1.0, 1.0, step=0.1, start=-0.0),
        whole=Slider(0, 4, step=1, start=3),
        name=Choice(["near", "far"], start="far"),
        points=Points([[0.0, -0.0], [0.1 + 0.2, 1.0]], -1, 1, step=0.1),
    )
    assert repr(explorer).splitlines()[:-1] == [
        "number = 0.3",
        "zero = 0",
        "whole = 3",
        "name = far",
        "points = ((0, 0), (0.3, 1))",
    ]


def test_a_figure_without_a_note_and_a_png_will_do():
    assert repr(explore(lambda height: bar(height)[0], height=Slider(0, 1, step=1, start=1))) == "height = 1"
    assert explore(lambda height: PNG, height=Slider(0, 1, step=1, start=1)).picture == PNG


def test_a_parameter_may_have_any_name():
    assert repr(explore(lambda render: PNG, render=Slider(0, 1, step=1, start=1))) == "render = 1"


def test_the_page_keeps_its_size_whatever_is_drawn():
    def circle(x):
        figure, ax = plt.subplots(figsize=(2, 1))
        ax.text(x, 0, "far out", clip_on=False)
        return figure

    sizes = {draw(circle, {"x": x})[0][16:24] for x in (0, -1, 3)}  # width and height, in a PNG's header
    assert len(sizes) == 1


# --- moving ------------------------------------------------------------------------------------------------


def test_moving_a_slider_draws_what_the_function_draws_there():
    explorer = explore(bar, height=Slider(-1.5, 1.5, step=0.5, start=1.0))
    slider = controls(explorer)["height"]
    pictures = {}
    for height in (1.0, 0.5, -1.5, 1.0):
        slider.value = height
        expected = draw(bar, {"height": height})
        assert (explorer.picture, explorer.note) == expected
        assert shown(explorer) == (expected[0], f"<pre>{expected[1]}</pre>")
        assert explorer._repr_mimebundle_()["text/plain"] == f"height = {height:g}\n{expected[1]}"
        pictures[height] = explorer.picture
    assert len(set(pictures.values())) == 3
    assert explorer.widget.children[-2].tooltip is None  # with one, JupyterLab shows an error


def test_whole_numbers_stay_whole_and_a_choice_is_one_of_its_options():
    explorer = explore(
        record, count=Slider(0, 9, step=1, start=3), smoothing=Choice([0, 0.01, 1.0], start=0, label="λ")
    )
    controls(explorer)["count"].value = 5
    controls(explorer)["λ"].value = 0.01
    assert explorer.values == {"count": 5, "smoothing": 0.01}
    assert type(explorer.values["count"]) is int
    assert explorer.note == repr([("count", 5), ("smoothing", 0.01)])


@pytest.mark.parametrize(("step", "shown_as"), [(0.05, ".2f"), (0.25, ".2f"), (0.5, ".1f"), (2, ".0f")])
def test_a_slider_shows_as_many_decimals_as_its_steps_have(step, shown_as):
    (slider,) = Slider(0.0, 10.0, step=step, start=0.0).widgets("x", lambda value: None)
    assert slider.readout_format == shown_as


def test_points_move_one_at_a_time_and_stay_where_they_are_put():
    drawn = []

    def render(points):
        drawn.append(points)
        return PNG

    explorer = explore(render, points=Points(START, -1.0, 1.0, step=0.05, label="point"))
    point, x, y = (controls(explorer)[name] for name in ("point", "x", "y"))
    x.value = 0.2
    point.value = 2
    assert (x.value, y.value) == START[2]  # the sliders have gone to the point,
    assert len(drawn) == 2  # which has not moved
    y.value = -0.1
    point.value = 0
    assert (x.value, y.value) == (0.2, 0.0)
    y.value = 0.3
    assert explorer.values == {"points": [(0.2, 0.3), START[1], (-0.5, -0.1)]}
    assert drawn == [
        START,
        [(0.2, 0.0), START[1], START[2]],
        [(0.2, 0.0), START[1], (-0.5, -0.1)],
        [(0.2, 0.3), START[1], (-0.5, -0.1)],
    ]


# --- what goes wrong ---------------------------------------------------------------------------------------


def picky(height):
    plt.figure()  # left open by the exception
    if height < 0:
        raise ValueError("a <bar> below 0")
    return bar(height)


def test_an_exception_at_the_start_escapes():
    with pytest.raises(ValueError, match="below 0"):
        explore(picky, height=Slider(-1, 1, step=1, start=-1))


def test_an_exception_at_a_move_takes_the_pictures_place_and_escapes():
    explorer = explore(picky, height=Slider(-1, 1, step=1, start=1))
    image = explorer.widget.children[-2]
    before = explorer.picture
    with pytest.raises(ValueError, match="below 0"):
        controls(explorer)["height"].value = -1
    assert shown(explorer) == (b"", "<pre>ValueError: a &lt;bar&gt; below 0</pre>")
    assert image.layout.display == "none"
    assert explorer._repr_mimebundle_()["text/plain"] == "height = -1\nValueError: a <bar> below 0"
    assert "image/png" not in explorer._repr_mimebundle_()
    controls(explorer)["height"].value = 1
    assert explorer.picture == before == shown(explorer)[0]
    assert image.layout.display is None


@pytest.mark.parametrize(
    ("drawn", "kind"),
    [
        (None, "NoneType"),
        (b"GIF89a", "bytes"),
        ((PNG, 3), r"\(bytes, int\)"),
        ((PNG, "a", "b"), r"\(bytes, str, str\)"),
    ],
)
def test_what_is_no_picture_is_refused(drawn, kind):
    with pytest.raises(TypeError, match=f"render should return a matplotlib Figure .* not {kind}$"):
        explore(lambda height: drawn, height=Slider(0, 1, step=1, start=1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Slider(0, 1, step=0.1, start=2), "in this order"),
        (lambda: Slider(1, 0, step=0.1, start=1), "in this order"),
        (lambda: Slider(1, 1, step=0.1, start=1), "in this order"),
        (lambda: Slider(0, float("inf"), step=1, start=1), "finite"),
        (lambda: Slider(0, 1, step=0, start=1), "step should be positive"),
        (lambda: Choice([1, 2], start=3), r"start should be one of \(1, 2\), not 3"),
        (lambda: Points([(0.0, 0.0), (0.0, 2.0)], -1, 1, step=0.1), "in this order"),
    ],
)
def test_bad_controls_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- in a notebook -----------------------------------------------------------------------------------------

CELL = """
import matplotlib.pyplot as plt
from stn.widgets import Slider, explore

def line(end):
    figure, ax = plt.subplots()
    ax.plot([0, end])
    return figure

explore(line, end=Slider(0, 3, step=1, start=2))
"""


def test_a_notebook_shows_it_once():
    client = pytest.importorskip("nbclient")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    client.NotebookClient(notebook, kernel_name="python3", store_widget_state=False).execute()
    (output,) = notebook.cells[0].outputs  # and not once more by matplotlib's own display
    assert set(output.data) == {"text/plain", "image/png", WIDGET_VIEW}
    assert output.data["text/plain"] == "end = 2"
    assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG")


def test_importing_it_leaves_matplotlib_and_ipywidgets_alone():
    code = "import sys, stn.widgets; sys.exit('matplotlib' in sys.modules or 'ipywidgets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
