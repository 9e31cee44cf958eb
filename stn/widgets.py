"""Figures with sliders: they move in JupyterLab, and are a picture wherever no kernel answers.

    def turned(angle):
        figure, ax = plt.subplots()
        show_image(rotate(digit, angle), ax)
        return figure, f"brightest pixel {rotate(digit, angle).max():.2f}"

    explore(turned, angle=Slider(-90, 90, step=5, start=30))

as a cell's last line. The function is pure, from parameters to a figure, so that it can be tested without a
browser; the note beside the figure may be left out. The cell's output is one bundle: the widget, for
JupyterLab; the figure as a PNG, for pages without a kernel; and text, with the parameters and the note, which
is what tests of the notebook compare. First met in chapter 11.

matplotlib and ipywidgets are imported when first needed. Without ipywidgets there is the picture.
"""

import base64
import functools
import html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

Changed = Callable[[Any], None]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class Control(Protocol):
    """What sets one parameter."""

    @property
    def start(self) -> Any:
        """The parameter's first value."""

    def widgets(self, name: str, changed: Changed) -> list[Any]:
        """The ipywidgets that set it, from top to bottom. They call `changed` with each new value."""


@dataclass(frozen=True)
class Slider:
    """A number from low to high. Whole numbers if all four are.

    Raises ValueError unless low <= start <= high, low < high and step > 0.
    """

    low: float
    high: float
    step: float
    start: float
    label: str = ""

    def __post_init__(self) -> None:
        if not (-math.inf < self.low <= self.start <= self.high < math.inf and self.low < self.high):
            raise ValueError(f"low, start and high should be in this order, finite, and not all one: {self}")
        if not 0 < self.step < math.inf:
            raise ValueError(f"step should be positive and finite, not {self.step!r}")

    def widgets(self, name: str, changed: Changed) -> list[Any]:
        import ipywidgets

        numbers = self.low, self.high, self.step, self.start
        options: dict[str, Any] = dict(zip(("min", "max", "step", "value"), numbers, strict=True))
        options["description"] = self.label or name
        if all(isinstance(number, int) for number in numbers):
            slider = ipywidgets.IntSlider(**options)
        else:
            decimals = max(0, -int(Decimal(str(self.step)).as_tuple().exponent))
            slider = ipywidgets.FloatSlider(**options, readout_format=f".{decimals}f")
        slider.observe(lambda change: changed(change.new), "value")
        return [slider]


@dataclass(frozen=True)
class Choice:
    """One of some values in a row: numbers in unequal steps, or names.

    Raises ValueError if start is none of the options.
    """

    options: Sequence[Any]
    start: Any
    label: str = ""

    def __post_init__(self) -> None:
        if self.start not in self.options:
            raise ValueError(f"start should be one of {_text(self.options)}, not {self.start!r}")

    def widgets(self, name: str, changed: Changed) -> list[Any]:
        import ipywidgets

        slider = ipywidgets.SelectionSlider(
            options=[(_text(option), option) for option in self.options],
            value=self.start,
            description=self.label or name,
        )
        slider.observe(lambda change: changed(change.new), "value")
        return [slider]


@dataclass(frozen=True)
class Points:
    """Points to be moved one at a time: which one, and a slider each for x and y.

    The parameter is a list of all points, each a pair (x, y). On the page they are counted from 0.

    Raises ValueError if a point does not start between low and high.
    """

    start: Sequence[tuple[float, float]]
    low: float
    high: float
    step: float
    label: str = ""

    def __post_init__(self) -> None:
        for point in self.start:
            self._sliders(point)

    def widgets(self, name: str, changed: Changed) -> list[Any]:
        import ipywidgets

        points = list(self.start)
        choosing = False

        def choose(change: Any) -> None:
            # The sliders go to where the chosen point is; no point moves.
            nonlocal choosing
            choosing = True
            x.value, y.value = points[change.new]
            choosing = False

        def move(_: Any) -> None:
            if not choosing:
                points[chosen.value] = x.value, y.value
                changed(list(points))

        chosen = ipywidgets.Dropdown(options=range(len(points)), description=self.label or name)
        chosen.observe(choose, "value")
        x, y = (
            slider.widgets(axis, move)[0] for axis, slider in zip("xy", self._sliders(points[0]), strict=True)
        )
        return [chosen, x, y]

    def _sliders(self, point: tuple[float, float]) -> list[Slider]:
        return [Slider(self.low, self.high, self.step, coordinate) for coordinate in point]


class Explorer:
    """What `explore` returns; as a cell's last line, it is shown.

    Attributes:
        values: the parameters as they are now, by name.
        picture: the figure for these values, a PNG's bytes; none if drawing it failed.
        note: what was said beside it.
        widget: sliders and picture, for JupyterLab; None without ipywidgets.
    """

    def __init__(self, render: Callable[..., Any], controls: Mapping[str, Control]) -> None:
        self._render = render
        self.values = {name: control.start for name, control in controls.items()}
        self.picture, self.note = draw(render, self.values)
        self.widget = self._make_widget(controls)

    def __repr__(self) -> str:
        lines = [f"{name} = {_text(value)}" for name, value in self.values.items()]
        return "\n".join([*lines, self.note] if self.note else lines)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": repr(self)}
        if self.picture:
            bundle["image/png"] = base64.b64encode(self.picture).decode()
        if self.widget is not None:
            bundle[WIDGET_VIEW] = self.widget._repr_mimebundle_()[WIDGET_VIEW]
        return bundle

    def _make_widget(self, controls: Mapping[str, Control]) -> Any:
        try:
            import ipywidgets
        except ImportError:
            return None
        self._image = ipywidgets.Image(format="png")
        self._line = ipywidgets.HTML()
        self._show()
        rows = [
            widget
            for name, control in controls.items()
            for widget in control.widgets(name, functools.partial(self._change, name))
        ]
        return ipywidgets.VBox([*rows, self._image, self._line])

    def _change(self, name: str, value: Any) -> None:
        self.values[name] = value
        try:
            self.picture, self.note = draw(self._render, self.values)
        except Exception as error:
            # A page hides in its log what a slider's move has raised. Said in the picture's place it is seen,
            # and no picture of other values is left standing.
            self.picture, self.note = b"", f"{type(error).__name__}: {error}"
            raise
        finally:
            self._show()

    def _show(self) -> None:
        self._image.layout.display = None if self.picture else "none"
        self._image.value = self.picture
        # No tooltip: ipywidgets' front end fails to show an image that has one.
        self._line.value = f"<pre>{html.escape(self.note)}</pre>" if self.note else ""


def explore(render: Callable[..., Any], /, **controls: Control) -> Explorer:
    """Show what `render` draws, with a control for each of its parameters. Chapter 11.

    Args:
        render: takes a keyword argument for each control; returns a matplotlib Figure or the bytes of a PNG,
            or a tuple of that and a note, which is a text. It should depend on its arguments alone.
        controls: by parameter: `Slider`, `Choice` or `Points`.

    Returns:
        An `Explorer`, which a cell shows when it ends with it.

    Raises:
        TypeError: `render` returned something else. Whatever `render` raises is passed on; when it was a
            slider's move that made it raise, it is also said in the picture's place.
    """
    return Explorer(render, controls)


def draw(render: Callable[..., Any], values: Mapping[str, Any]) -> tuple[bytes, str]:
    """The PNG and the note of what `render` returns for these values. It leaves no figure open."""
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    before = set(plt.get_fignums())
    try:
        drawn = render(**values)
        picture, note = drawn if isinstance(drawn, tuple) and len(drawn) == 2 else (drawn, "")
        if isinstance(picture, Figure):
            file = io.BytesIO()
            # The whole page, not only what is drawn on it: its size stays when things move.
            with plt.rc_context({"savefig.bbox": "standard"}):
                picture.savefig(file, format="png")
            picture = file.getvalue()
    finally:
        # Left open, a figure would be shown again at the end of the cell, and never be freed.
        for number in set(plt.get_fignums()) - before:
            plt.close(number)
    if not (isinstance(picture, bytes) and picture.startswith(PNG_SIGNATURE) and isinstance(note, str)):
        raise TypeError(
            "render should return a matplotlib Figure or the bytes of a PNG, or a tuple of that and a text, "
            f"not {_kind(drawn)}"
        )
    return picture, note


def _text(value: Any) -> str:
    """The same on every machine: no signs of zeros, no last digits."""
    if isinstance(value, float):
        return f"{value + 0.0:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"({', '.join(map(_text, value))})"
    return str(value)


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_kind, value))})"
    return type(value).__name__
