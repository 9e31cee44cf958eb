"""Sphinx's settings for `make html`: the book as a static site that needs no network.

Notebooks are shown with the outputs that are committed. index.md is the first page and gives the order.
"""

from __future__ import annotations

import nbformat
from docutils import nodes
from sphinx.application import Sphinx

project = "Spatial transformers"
author = "The Spatial Transformers authors"
copyright = f"{author}. Text and figures: CC BY 4.0. Code: MIT"
exclude_patterns = ["README.md", "MAKING.md", "**.ipynb_checkpoints"]
nitpicky = True

extensions = ["myst_nb", "sphinx-mathjax-offline"]  # the latter brings MathJax's own files with it
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"
nb_merge_streams = True

html_theme = "furo"
html_title = project
html_copy_source = False


def adapt(notebook: str) -> str:
    """A notebook's text for myst-nb: alternative texts in metadata of its own."""
    content = nbformat.reads(notebook, as_version=4)
    for cell in content.cells:
        if "alt" in cell.metadata:
            cell.metadata["mystnb"] = {"image": {"alt": cell.metadata.alt}}
    return nbformat.writes(content)


def adapt_source(app: Sphinx, docname: str, source: list[str]) -> None:
    if app.env.doc2path(docname).suffix == ".ipynb":
        source[0] = adapt(source[0])


def keep_formulas(app: Sphinx, doctree: nodes.document) -> None:
    r"""Hand formulas to MathJax as they are written: Sphinx would put those with more than one line into an
    environment that allows no \tag."""
    for formula in doctree.findall(nodes.math_block):
        formula["nowrap"] = formula["no-wrap"] = True  # its name up to Sphinx 8.1, and after
        formula[:] = [nodes.Text(rf"\[{formula.astext()}\]")]


def setup(app: Sphinx) -> None:
    app.connect("source-read", adapt_source)
    app.connect("doctree-read", keep_formulas)
