"""chapters/repeats.py runs a chapter's cells, and single ones again with another seed."""

import pytest

import repeats

SOURCE = """# %%
value = 0


def manual_seed(seed):
    global value
    value = seed


# %%
manual_seed(0)
steps = 500
print(steps)
rest = True

# %% [markdown]
# ## Exercises

# %%
raise AssertionError("an exercise was executed")
"""


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "99_trial.py").write_text(SOURCE)
    monkeypatch.setattr(repeats, "CHAPTERS", tmp_path)
    return repeats.Chapter("99")


def test_cells_are_executed_up_to_the_exercises_and_nothing_is_shown(chapter, capsys):
    assert (chapter["value"], chapter["steps"]) == (0, 500)
    assert capsys.readouterr().out == ""


def test_cell_is_executed_again_with_a_seed_and_a_change(chapter):
    chapter.names["rest"] = False
    chapter.again("steps =", 3, until="rest =", change=("500", "700"))
    assert (chapter["value"], chapter["steps"], chapter["rest"]) == (3, 700, False)


def test_change_that_changes_nothing_is_an_error(chapter):
    with pytest.raises(ValueError, match="no '600'"):
        chapter.again("steps =", 3, change=("600", "700"))


def test_results_have_mean_and_spread_or_the_range():
    notes = repeats.Notes()
    for value in (1.0, 2.0, 6.0):
        notes.note("error", value)
    assert notes.results()["error"] == pytest.approx({"mean": 3, "spread": 7**0.5})
    assert notes.ranges() == {"error": {"least": 1, "most": 6}}
