"""Whether formulas render: none is unclosed, and each is read by matplotlib's parser, which is strict.

That parser knows no environments and fewer commands than MathJax. So the cells of an environment are read one
by one, and what MathJax knows besides has a stand-in below. A command that is in neither is an error: see
whether MathJax has it before you add it.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from matplotlib.mathtext import MathTextParser
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode

STAND_INS = {r"\big": "", r"\Big": "", r"\ge": r"\geq", r"\le": r"\leq", r"\tfrac": r"\frac"}
ENVIRONMENTS = ("aligned", "bmatrix", "cases", "pmatrix")
FRACTION_OF_DIGITS = re.compile(r"\\frac(\d)(\d)")
TAG = re.compile(r"\\tag\{[^{}]*\}")
BEGIN_OR_END = re.compile(r"\\(begin|end)\s*\{([^{}]*)\}")

markdown = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, allow_space=False)
parser = MathTextParser("path")


def formulas(text: str) -> Iterator[tuple[str, str]]:
    """What is between dollars in a text, and the texts that are left with a dollar in them: ("$", ...)."""
    for token in markdown.parse(text):
        for part in token.children or [token]:
            if part.type.startswith("math"):
                yield "formula", part.content
            elif part.type == "text" and "$" in part.content:
                yield "$", part.content


def without_environments(formula: str) -> str:
    """The formula with a letter for each environment, whose cells have been read, from the inside out."""
    while True:
        marks = list(BEGIN_OR_END.finditer(formula))
        if not marks:
            return formula
        pairs = [(begin, end) for begin, end in pairwise(marks) if (begin[1], end[1]) == ("begin", "end")]
        if not pairs or pairs[0][0][2] != pairs[0][1][2]:
            raise ValueError(f"\\begin and \\end do not match: {[mark[0] for mark in marks]}")
        begin, end = pairs[0]
        if begin[2] not in ENVIRONMENTS:
            raise ValueError(f"the environment {begin[2]} is not one of {ENVIRONMENTS}")
        for cell in re.split(r"(?<!\\)&|\\\\", formula[begin.end() : end.start()]):
            parse(cell)
        formula = f"{formula[: begin.start()]}{{X}}{formula[end.end() :]}"


def parse(formula: str) -> None:
    """Read a formula without environments; ValueError where it makes no sense."""
    if "&" in formula or r"\\" in formula:
        raise ValueError("& or \\\\ outside of an environment")
    for command, stand_in in STAND_INS.items():
        formula = re.sub(re.escape(command) + r"(?![a-zA-Z])", lambda _, s=stand_in: s, formula)
    formula = " ".join(FRACTION_OF_DIGITS.sub(r"\\frac{\1}{\2}", formula).split())
    if formula:
        parser.parse(f"${formula}$")


def problems(text: str) -> Iterator[str]:
    """The formulas of a Markdown text that would not render."""
    for kind, formula in formulas(text):
        if kind == "$":
            yield f"a dollar without another: {formula}"
            continue
        try:
            parse(without_environments(TAG.sub("", formula)))
        except ValueError as error:
            yield f"${formula.strip()}$: {str(error).splitlines()[-1]}"


def has_formulas_that_render(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield from problems(cell.source)
