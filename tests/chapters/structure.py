"""How every chapter is built, one rule a function, as in hygiene.py: opening, headings, closing, mentions."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import nbformat
from markdown_it import MarkdownIt
from nbformat import NotebookNode

from prose import prose, without_code, without_formulas

PROMISES = ("**You will learn**", "**You need**", "**Runs in**")
CLOSING = ("Summary", "Exercises", "In the library", "References", "Next")
SECTION = re.compile(r"\b[Ss]ections?\s+((?:\d+\.\d+(?:,\s+|\s+and\s+|\s+to\s+)?)+)")
EXERCISE = re.compile(r"\b[Ee]xercises?\s+((?:\d\d-\d+(?:,\s+|\s+and\s+|\s+to\s+)?)+)")


def text_of(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def headings(markdown: str) -> list[tuple[int, str]]:
    """Level and text of each heading; a `#` in a block of code is none."""
    tokens = MarkdownIt("commonmark").parse(markdown)
    return [
        (int(token.tag[1]), following.content)
        for token, following in pairwise(tokens)
        if token.type == "heading_open"
    ]


def section(notebook: NotebookNode, heading: str) -> str:
    """What stands below a heading of the second level, down to the next such heading."""
    found = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", text_of(notebook), re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def items(markdown: str) -> list[tuple[str, str]]:
    """Marker and text of the items of a list."""
    return re.findall(r"^(-|\d+\.) +(.*(?:\n[ \t]+.*)*)", markdown, re.MULTILINE)


def number_of(path: Path) -> int:
    return int(path.name[:2])


def neighbours(path: Path) -> tuple[str | None, str | None]:
    """The chapters before and after a chapter."""
    names = sorted(other.name for other in path.parent.glob("[0-9][0-9]_*.ipynb"))
    before = [name for name in names if name < path.name]
    after = [name for name in names if name > path.name]
    return (before[-1] if before else None), (after[0] if after else None)


@cache
def numbered(folder: Path) -> frozenset[str]:
    """All sections, "2.10", and exercises, "02-1", of the chapters in a folder."""
    found = set()
    for path in folder.glob("[0-9][0-9]_*.ipynb"):
        for _, text in headings(text_of(nbformat.v4.reads(path.read_text(encoding="utf-8")))):
            found.update(re.findall(r"^(?:Exercise )?(\d+\.\d+|\d\d-\d+)\b", text))
    return frozenset(found)


def opens_with_a_title_a_promise_and_what_it_takes(notebook: NotebookNode, path: Path) -> Iterator[str]:
    opening = notebook.cells[0].source
    if not re.match(rf"# {number_of(path)} \S", opening):
        yield f"its first line is not the title, # {number_of(path)} ..."
    if not re.match(r"# .+\n\n> \*\*[^*]+\*\*\n\n", opening):
        yield "no promise below the title, a quote in bold"
    places = [opening.find(promise) for promise in PROMISES]
    for promise, place in zip(PROMISES, places, strict=True):
        if place < 0:
            yield f"its first cell does not say: {promise}"
    if -1 not in places and places != sorted(places):
        yield f"its first cell says {', '.join(PROMISES)} in another order"


def has_one_title_and_skips_no_level_of_headings(notebook: NotebookNode, path: Path) -> Iterator[str]:
    found = headings(text_of(notebook))
    levels = [level for level, _ in found]
    if levels.count(1) != 1 or levels[0] != 1:
        yield f"{levels.count(1)} titles, or headings before the title"
    for (upper, _), (lower, text) in pairwise(found):
        if lower > upper + 1:
            yield f"a heading of level {lower} below one of level {upper}: {text}"


def has_numbered_sections_and_closes_as_chapters_do(notebook: NotebookNode, path: Path) -> Iterator[str]:
    sections = [text for level, text in headings(text_of(notebook)) if level == 2]
    if tuple(sections[-len(CLOSING) :]) != CLOSING:
        yield f"it closes with the headings {sections[-len(CLOSING) :]}, not {list(CLOSING)}"
        return
    numbers = [text.partition(" ")[0] for text in sections[: -len(CLOSING)]]
    if numbers != [f"{number_of(path)}.{k}" for k in range(1, len(numbers) + 1)]:
        yield f"its sections are numbered {numbers}"


def sums_up_in_four_to_six_points(notebook: NotebookNode, path: Path) -> Iterator[str]:
    count = len([marker for marker, _ in items(section(notebook, "Summary")) if marker == "-"])
    if not 4 <= count <= 6:
        yield f"its summary has {count} points"


def has_five_to_ten_numbered_exercises(notebook: NotebookNode, path: Path) -> Iterator[str]:
    names = re.findall(r"^### Exercise (\S+):", text_of(notebook), re.MULTILINE)
    if not 5 <= len(names) <= 10:
        yield f"it has {len(names)} exercises"
    if names != [f"{number_of(path):02}-{k}" for k in range(1, len(names) + 1)]:
        yield f"its exercises are numbered {names}"


def says_where_the_solutions_are(notebook: NotebookNode, path: Path) -> Iterator[str]:
    if f"](solutions/{path.name})" not in section(notebook, "Exercises"):
        yield f"no link to solutions/{path.name} below Exercises"


def has_references_that_can_be_followed(notebook: NotebookNode, path: Path) -> Iterator[str]:
    references = items(section(notebook, "References"))
    if [marker for marker, _ in references] != [f"{k}." for k in range(1, len(references) + 1)]:
        yield f"its references are numbered {[marker for marker, _ in references]}"
    for marker, reference in references:
        if not re.search(r"\]\(https://", reference):
            yield f"reference {marker} without a DOI, an arXiv number or an address: {reference}"


def cites_references_that_it_has(notebook: NotebookNode, path: Path) -> Iterator[str]:
    count = len(items(section(notebook, "References")))
    text = without_formulas(without_code(text_of(notebook)))
    for cited in re.findall(r"\[(\d+(?:, \d+)*)\](?!\()", text):
        for number in map(int, cited.split(", ")):
            if not 1 <= number <= count:
                yield f"it cites [{number}] and has {count} references"


def leads_to_its_neighbours(notebook: NotebookNode, path: Path) -> Iterator[str]:
    text = section(notebook, "Next")
    for which, name in zip(("before", "after"), neighbours(path), strict=True):
        if name and f"]({name})" not in text:
            yield f"no link below Next to the chapter {which} it, {name}"


def missing(markdown: str, folder: Path) -> Iterator[str]:
    """What sections and exercises a text mentions that the chapters in a folder do not have."""
    text = prose(markdown)
    for pattern, name in ((SECTION, r"\d+\.\d+"), (EXERCISE, r"\d\d-\d+")):
        for found in pattern.finditer(text):
            for number in re.findall(name, found[1]):
                if number not in numbered(folder):
                    yield f"it refers to {number}, which is not there"


def refers_to_sections_and_exercises_that_exist(notebook: NotebookNode, path: Path) -> Iterator[str]:
    yield from missing(text_of(notebook), path.parent)


IN_CHAPTERS = (
    opens_with_a_title_a_promise_and_what_it_takes,
    has_numbered_sections_and_closes_as_chapters_do,
    sums_up_in_four_to_six_points,
    has_five_to_ten_numbered_exercises,
    says_where_the_solutions_are,
    has_references_that_can_be_followed,
    cites_references_that_it_has,
    leads_to_its_neighbours,
    refers_to_sections_and_exercises_that_exist,
)
