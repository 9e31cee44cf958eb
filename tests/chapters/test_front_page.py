"""chapters/README.md tells of every chapter what the chapter tells of itself, and its terms and signs are the
chapters'."""

import re
from itertools import pairwise

import nbformat
import pytest

import build
import formulas
import hygiene
import structure
from prose import words

ROOT = build.CHAPTERS.parent
CHAPTERS = sorted(build.CHAPTERS.glob("*.ipynb"))
FRONT = (build.CHAPTERS / "README.md").read_text(encoding="utf-8")
PAGES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "chapters/README.md",
    "chapters/MAKING.md",
    "kernels/README.md",
)
TEXTS = {
    path.name[:2]: structure.text_of(nbformat.v4.reads(path.read_text(encoding="utf-8"))) for path in CHAPTERS
}


def table(heading):
    """The cells of the table below a heading, row by row, without its head."""
    below = FRONT.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.*) \|$", below, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows[2:]]


def without_space(text):
    return re.sub(r"\s|\\,", "", text)


CONTENTS, NOTATION, GLOSSARY = table("Contents"), table("Notation"), table("Glossary")


def test_contents_list_every_chapter_once_in_order_and_by_its_title():
    titles = []
    for path in CHAPTERS:
        number, _, title = TEXTS[path.name[:2]].splitlines()[0].removeprefix("# ").partition(" ")
        titles.append(f"[{int(number):02} {title}]({path.name})")
    assert [row[0] for row in CONTENTS] == titles


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_contents_have_the_run_time_that_the_chapter_has(path):
    (time,) = re.findall(r"\*\*Runs in\*\*\s+about\s+(\d+)\s+seconds", TEXTS[path.name[:2]])
    assert [row[-1] for row in CONTENTS if path.name in row[0]] == [f"{time} s"]


def test_contents_name_only_chapters_before_as_needed():
    for row in CONTENTS:
        assert all(needed < row[0][1:3] for needed in re.findall(r"\b\d\d\b", row[2])), row[0]


def test_glossary_has_forty_terms_or_more_in_order():
    terms = [term for term, *_ in GLOSSARY]
    assert len(terms) >= 40
    assert terms == sorted(set(terms), key=str.lower)


@pytest.mark.parametrize("row", GLOSSARY, ids=lambda row: row[0])
def test_term_is_in_the_chapter_that_introduces_it(row):
    term, chinese, meaning, chapter = row
    assert re.fullmatch(r"[\u4e00-\u9fff]+", chinese)
    assert meaning
    assert re.search(rf"\b{term}", words(TEXTS[chapter]), re.IGNORECASE)


def test_notation_is_there():
    assert len(NOTATION) > 20
    assert {len(row) for row in NOTATION} == {4}


@pytest.mark.parametrize("row", NOTATION, ids=lambda row: row[0])
def test_symbol_is_in_the_chapter_that_introduces_it(row):
    in_chapter = [without_space(text) for kind, text in formulas.formulas(TEXTS[row[3]]) if kind == "formula"]
    for symbol in re.findall(r"\$(.+?)\$", row[0]):
        name = re.escape(without_space(symbol))
        start = r"(?<![A-Za-z\\])" if symbol[0].isalpha() else ""
        end = r"(?![A-Za-z])" if symbol[-1].isalpha() else ""
        assert any(re.search(start + name + end, text) for text in in_chapter), symbol


@pytest.mark.parametrize("path", PAGES)
def test_links_of_the_pages_resolve(path):
    file = ROOT / path
    assert list(hygiene.broken_links(file.read_text(encoding="utf-8"), file)) == []


def test_front_page_names_sections_that_exist():
    assert list(structure.missing(FRONT, build.CHAPTERS)) == []


@pytest.mark.parametrize("path", PAGES)
def test_formulas_of_the_pages_render(path):
    assert list(formulas.problems((ROOT / path).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", PAGES)
def test_pages_skip_no_level_of_headings(path):
    levels = [level for level, _ in structure.headings((ROOT / path).read_text(encoding="utf-8"))]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(lower <= upper + 1 for upper, lower in pairwise(levels))
