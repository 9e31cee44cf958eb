"""British spelling of prose. test_spelling.py runs codespell, which looks for misspellings of any English."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

from prose import prose

# American, and what the book writes.
AMERICAN = {
    "analog": "analogue",
    "artifact": "artefact",
    "behavior": "behaviour",
    "canceled": "cancelled",
    "catalog": "catalogue",
    "center": "centre",
    "color": "colour",
    "defense": "defence",
    "dialog": "dialogue",
    "favor": "favour",
    "favorite": "favourite",
    "fiber": "fibre",
    "fulfill": "fulfil",
    "gotten": "got",
    "gray": "grey",
    "honor": "honour",
    "judgment": "judgement",
    "labeled": "labelled",
    "labeling": "labelling",
    "labor": "labour",
    "liter": "litre",
    "meter": "metre",
    "modeled": "modelled",
    "modeling": "modelling",
    "neighbor": "neighbour",
    "neighborhood": "neighbourhood",
    "neighboring": "neighbouring",
    "offense": "offence",
    "plow": "plough",
    "signaling": "signalling",
    "skeptical": "sceptical",
    "skillful": "skilful",
    "theater": "theatre",
    "traveled": "travelled",
    "traveling": "travelling",
    "tunneling": "tunnelling",
    "vapor": "vapour",
}
ENDING_IN_ZE = re.compile(r"[a-z]{2,}(?:iz|yz)(?:e|ed|es|er|ers|ing|able|ation|ations)")
WITH_Z = {"prize", "prizes", "resize", "resized", "resizing", "seize", "size", "sized", "sizes", "sizing"}
# Names of arguments and of a tool, which docstrings speak of.
NAMES = {"normalized", "parameterization", "regularization", "sanitize", "sanitizer"}


def american(text: str, names: frozenset[str] | set[str] = frozenset()) -> Iterator[str]:
    """The American spellings in a Markdown text."""
    for word in re.findall(r"[a-z]+", prose(text).lower()):
        singular = word.removesuffix("s").removesuffix("ed")
        if word in AMERICAN or singular in AMERICAN:
            yield f"{word}: British is {AMERICAN.get(word) or AMERICAN[singular]}"
        elif ENDING_IN_ZE.fullmatch(word) and word not in WITH_Z | names:
            yield f"{word}: British is with s"


def docstrings(path: Path) -> str:
    """The docstrings of a Python file, as Markdown."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    texts = (
        ast.get_docstring(node)
        for node in nodes
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    )
    return "\n\n".join(text for text in texts if text)


def without_titles(text: str) -> str:
    """A chapter's text without its references, since others spell their titles as they like."""
    return re.sub(r"^## References$.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)


def is_spelt_as_the_british_do(notebook: NotebookNode, path: Path) -> Iterator[str]:
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    texts += [cell.metadata.alt for cell in notebook.cells if "alt" in cell.metadata]
    for text in texts:
        yield from american(without_titles(text))
