"""The benchmark's results are read, compared and drawn as they are, and allocations are counted."""

import json

import pytest
import torch

from stn import measured
from stn.plotting import use_style

pytest.importorskip("matplotlib").use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

PHOTOGRAPHS = {
    "case": "photographs",
    "shape": [16, 3, 1024, 1024],
    "layout": "channels-first",
    "dtype": "float32",
    "operation": "affine",
    "transform": "identity",
    "direction": "forward",
    "size": [1024, 1024],
    "points": 0,
    "transforms": 1,
}


def row(implementation, median, **others):
    times = {"median": median, "low": 0.8 * median, "high": 1.25 * median}
    return {
        **PHOTOGRAPHS,
        "implementation": implementation,
        **times,
        "bytes": 800,
        "copy": 1.0,
        "peak": 0,
    } | others


@pytest.fixture
def invented(tmp_path):
    """Two invented files; the newer one's name comes first."""
    rows = [
        row("PyTorch", 5.0),
        row("stn_kernels", 2.0),
        row("torch.compile", 3.0),
        row("stn_kernels", 4.0, direction="backward"),
        row("PyTorch", 5.0, transform="rotation"),
        {**PHOTOGRAPHS, "implementation": "kornia", "error": "it could not"},
    ]
    files = {"b.json": ("2001-01-01", rows[:1]), "a.json": ("2002-02-02", rows)}
    (tmp_path / "tune-none.json").write_text(json.dumps({"device": "none", "times": {}}))
    for name, (date, some) in files.items():
        (tmp_path / name).write_text(json.dumps({"device": "none", "date": date, "rows": some}))
    return tmp_path


def test_results_are_those_of_the_folder_newest_last(invented):
    assert [result["date"] for result in measured.results(invented)] == ["2001-01-01", "2002-02-02"]


def test_where_there_are_no_results_the_list_is_empty(tmp_path):
    assert measured.results(tmp_path / "missing") == []
    assert isinstance(measured.results(), list)


def test_settings_are_compared_where_the_fused_kernels_were_measured(invented):
    forward, backward = measured.comparisons(measured.results(invented)[-1])
    assert forward.setting == PHOTOGRAPHS
    assert (forward.fraction, forward.low, forward.high) == pytest.approx((0.5, 0.4, 0.625))
    assert forward.ratios == {"PyTorch": 2.5, "torch.compile": 1.5}
    assert backward.setting == PHOTOGRAPHS | {"direction": "backward"}
    assert (backward.fraction, backward.ratios) == (0.25, {})


def test_settings_can_be_chosen(invented):
    newest = measured.results(invented)[-1]
    assert len(measured.comparisons(newest, direction="backward")) == 1
    assert measured.comparisons(newest, dtype="float16") == []
    with pytest.raises(ValueError, match=r"only should name fields of case, .*; got median"):
        measured.comparisons(newest, median=2.0)


@pytest.fixture
def axes():
    with plt.rc_context():
        use_style()
        yield plt.subplots(1, 2)[1]
    plt.close("all")


def test_what_was_measured_is_drawn(invented, axes):
    fraction, ratio = axes
    assert len(measured.show(measured.results(invented)[-1], fraction, ratio)) == 2
    dots = [line for line in fraction.lines if line.get_marker() == "o"]
    assert list(dots[0].get_xdata()) == [0.5, 0.25]
    assert [label.get_text() for label in fraction.get_yticklabels()] == ["forward", "backward"]
    dots = {line.get_label(): line.get_xdata()[0] for line in ratio.lines if line.get_marker() == "o"}
    assert dots == {"PyTorch": 2.5, "torch.compile": 1.5}
    assert all(ax.yaxis_inverted() for ax in axes)


@pytest.mark.parametrize("result", [None, {"rows": []}])
def test_where_nothing_was_measured_the_figure_says_so(result, axes):
    assert measured.show(result, *axes) == []
    assert [ax.texts[0].get_text() for ax in axes] == ["not measured yet"] * 2


@pytest.mark.parametrize(
    ("others", "labels"),
    [
        ({"shape": [1, 3, 8, 8]}, ["16×3×1024×1024", "1×3×8×8"]),
        ({"shape": [1, 3, 8, 8], "case": "stamps"}, ["photographs", "stamps"]),
    ],
)
def test_shapes_are_named_where_nothing_else_tells_settings_apart(others, labels, axes):
    rows = [row("stn_kernels", 2.0), row("stn_kernels", 2.0, **others)]
    measured.show({"rows": rows}, *axes)
    assert [label.get_text() for label in axes[0].get_yticklabels()] == labels


def test_a_single_setting_is_labelled_with_its_case(invented, axes):
    measured.show(measured.results(invented)[-1], *axes, direction="forward")
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["photographs"]


def test_every_allocated_tensor_is_counted():
    kept = torch.ones(256)
    result, sizes = measured.allocations(lambda: (kept + 1).repeat(2) + kept.repeat(2))
    assert result[0] == 3
    assert sizes[:4] == [2048, 2048, 2048, 1024]
    assert sum(sizes[4:]) < 512  # scalars
