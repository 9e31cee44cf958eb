"""The committed notebooks keep to the rules of hygiene.py and its neighbours, and are what their sources and
exercises say."""

import re
from functools import cache

import nbformat
import pytest

import build
import formulas
import hygiene
import spelling
import structure
from stn.exercises import names

ROOT = build.CHAPTERS.parent
CHAPTERS = sorted(build.CHAPTERS.glob("*.ipynb"))
SOLUTIONS = sorted((build.CHAPTERS / "solutions").glob("*.ipynb"))
SOURCES = sorted((build.CHAPTERS / "sources").glob("*.py"))
EVERYWHERE = (
    *hygiene.EVERYWHERE,
    structure.has_one_title_and_skips_no_level_of_headings,
    formulas.has_formulas_that_render,
    spelling.is_spelt_as_the_british_do,
)
IN_CHAPTERS = hygiene.IN_CHAPTERS + structure.IN_CHAPTERS
# What a chapter does not keep to yet. It fails once the chapter does, and then goes from here.
VERDICT = re.compile(r"^Exercise (\d\d-\d+): (no answer yet\.|correct\b)", re.MULTILINE)


@cache
def read(path):
    # Not nbformat.read, which mends some of what is looked for.
    return nbformat.v4.reads(path.read_text(encoding="utf-8"))


def verdicts(path):
    """What `check` printed in a notebook, by exercise."""
    texts = "\n".join(hygiene.compared_text(cell) for cell in hygiene.code_cells(read(path)))
    return dict(VERDICT.findall(texts))


@pytest.mark.parametrize("rule", EVERYWHERE, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", CHAPTERS + SOLUTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_notebook(path, rule):
    assert list(rule(read(path), path)) == []


@pytest.mark.parametrize("rule", IN_CHAPTERS, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter(path, rule):
    assert list(rule(read(path), path)) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebooks_are_what_their_source_says(source):
    assert list(build.differences(source)) == []


def test_every_notebook_has_a_source():
    assert list(build.orphans()) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_exercises_are_blank_in_the_chapter_and_solved_in_the_solutions(path):
    expected = [name for name in names() if name.startswith(path.name[:2])]
    assert expected, "a chapter ends with exercises"
    assert verdicts(path) == dict.fromkeys(expected, "no answer yet.")
    assert verdicts(path.parent / "solutions" / path.name) == dict.fromkeys(expected, "correct")


def test_every_exercise_belongs_to_a_chapter():
    assert {name[:2] for name in names()} == {path.name[:2] for path in CHAPTERS}
