"""What every committed notebook keeps to, one rule a function: from a notebook to the problems found in it.

nbval compares nothing in a cell without an execution count, shows a line's value in spite of a semicolon, and
cannot pass where an output names a machine.
"""

import io
import re
import tokenize
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import nbformat
from nbformat import NotebookNode

from structure import headings, text_of

Rule = Callable[[NotebookNode, Path], Iterator[str]]

MACHINE_DEPENDENT = {
    "a path": r"(?<![\w.:])/(home|Users|root|tmp|usr|opt|var|mnt|private)/|\b[A-Z]:\\",
    "an address": r"\b0x[0-9a-f]{4,}",
    "a device": r"\b(cuda|mps|nvidia|amd|intel)\b",
    "a date or time": r"\b\d{4}-\d\d-\d\d\b|\b\d\d:\d\d\b",
    "a duration": r"\b\d[\d.]*\s?(ns|us|µs|ms|s|seconds?|minutes?|it/s|s/it)\b",
    "a version": r"\b\d+\.\d+\.\d+\b|\+(cpu|cu\d+)\b",
}
FIGURE = re.compile(r"<Figure size .*? Axes>")
NUMBER_OR_VERDICT = re.compile(r"\d|\b(True|False|correct|no answer yet)\b")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(<?([^)\s>]+)[^)]*\)")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def excused(cell: NotebookNode) -> bool:
    return "nbval-ignore-output" in cell.metadata.get("tags", [])


def compared_text(cell: NotebookNode) -> str:
    """What nbval compares of a cell's outputs, pictures' sizes apart."""
    if excused(cell):
        return ""
    texts = []
    for output in cell.outputs:
        texts += [output.get("text", ""), output.get("evalue", "")]
        texts += [
            str(text) for kind, text in output.get("data", {}).items() if not kind.startswith("image/p")
        ]
    return FIGURE.sub("", "\n".join(texts))


def has_figure(cell: NotebookNode) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


def is_valid_and_of_a_format_with_ids(notebook: NotebookNode, path: Path) -> Iterator[str]:
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5):
        yield "its format is older than 4.5, which has no cell ids"
        return
    ids = [cell.id for cell in notebook.cells]
    if len(set(ids)) < len(ids):
        yield f"an id is not unique in {ids}"
        return  # validate() would give the cells new ones
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        yield f"invalid: {error.message}"


def names_the_standard_kernel_and_no_version(notebook: NotebookNode, path: Path) -> Iterator[str]:
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield f"its kernelspec is {kernel}, not python3"
    if "version" in notebook.metadata.get("language_info", {}):
        yield "its metadata name a version of Python"


def was_executed_from_1_to_n(notebook: NotebookNode, path: Path) -> Iterator[str]:
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"its cells were executed as {counts}"


def has_no_semicolons(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for cell in code_cells(notebook):
        for token in tokenize.generate_tokens(io.StringIO(cell.source).readline):
            if token.type == tokenize.OP and token.string == ";":
                yield f"a semicolon: {token.line.strip()}"


def excuses_cells_by_tags_only(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for cell in code_cells(notebook):
        if re.search(r"^\s*#\s*(NBVAL|PYTEST_VALIDATE)_", cell.source, re.MULTILINE):
            yield "a comment that changes what nbval does; use a tag"
        if "nbval-skip" in cell.metadata.get("tags", []):
            yield "a cell that nbval skips"


def excuses_few_cells(notebook: NotebookNode, path: Path) -> Iterator[str]:
    cells = code_cells(notebook)
    count = sum(map(excused, cells))
    if count > 0.15 * len(cells):
        yield f"{count} of {len(cells)} code cells are excused, more than 15 %"


def compares_a_number_or_verdict_in_half_of_its_cells(notebook: NotebookNode, path: Path) -> Iterator[str]:
    cells = code_cells(notebook)
    count = sum(NUMBER_OR_VERDICT.search(compared_text(cell)) is not None for cell in cells)
    if count < 0.5 * len(cells):
        yield f"only {count} of {len(cells)} code cells have a number or verdict that is compared"


def has_outputs_that_are_the_same_everywhere(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for cell in code_cells(notebook):
        text = compared_text(cell)
        for what, pattern in MACHINE_DEPENDENT.items():
            if found := re.search(pattern, text, re.IGNORECASE if what == "a device" else 0):
                yield f"{what} in an output: {found[0]}"
        if not excused(cell) and any(output.get("name") == "stderr" for output in cell.outputs):
            yield "a warning or progress bar in an output"


def describes_its_figures(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for cell in code_cells(notebook):
        figures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        if "alt" in cell.metadata and not figures:
            yield f"alternative text without a figure: {cell.metadata.alt}"
        for output in figures:
            if len(output.metadata.get("image/png", {}).get("alt", "")) < 20:
                yield f"a figure without alternative text: {cell.source.strip().splitlines()[-1]}"


def shows_no_figure_without_a_checked_number_beside_it(notebook: NotebookNode, path: Path) -> Iterator[str]:
    cells = code_cells(notebook)
    for index, cell in enumerate(cells):
        beside = "".join(compared_text(near) for near in cells[max(index - 1, 0) : index + 2])
        if has_figure(cell) and not NUMBER_OR_VERDICT.search(beside):
            yield f"a figure with no checked number in its cell or beside it, cell {cell.execution_count}"


def has_links_and_pictures_that_resolve(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield from broken_links(cell.source, path)


@cache
def anchors(path: Path) -> frozenset[str]:
    """What a link can name after `#`: in a notebook as JupyterLab does, in Markdown as GitHub does."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        titles = [title for _, title in headings(text)]
        return frozenset(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)
    return frozenset(title.replace(" ", "-") for _, title in headings(text_of(nbformat.v4.reads(text))))


def broken_links(text: str, path: Path) -> Iterator[str]:
    """Links and pictures of a Markdown text that do not lead anywhere, or need a network to be seen."""
    if "<img" in text:
        yield "a picture as HTML; write ![what it shows](path)"
    for picture, label, target in LINK.findall(text):
        if re.match(r"https?://|mailto:", target):
            if picture:
                yield f"a picture that needs a network: {target}"
            continue
        name, _, anchor = unquote(target).partition("#")
        file = path.parent / name if name else path
        if not file.exists():
            yield f"a link to {target}, which is not there"
        elif anchor and file.suffix in (".ipynb", ".md") and anchor not in anchors(file):
            yield f"a link to {target}, where no heading is called so"
        if picture and not label.strip():
            yield f"a picture without alternative text: {target}"


EVERYWHERE: tuple[Rule, ...] = (
    is_valid_and_of_a_format_with_ids,
    names_the_standard_kernel_and_no_version,
    was_executed_from_1_to_n,
    has_no_semicolons,
    excuses_cells_by_tags_only,
    has_outputs_that_are_the_same_everywhere,
    describes_its_figures,
    has_links_and_pictures_that_resolve,
)
IN_CHAPTERS: tuple[Rule, ...] = (
    excuses_few_cells,
    compares_a_number_or_verdict_in_half_of_its_cells,
    shows_no_figure_without_a_checked_number_beside_it,
)
