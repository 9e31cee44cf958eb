"""Chapters with kernels where Triton cannot be imported: what a cell would show, instead of an error.

A chapter's setup calls `replay_kernel_cells("07_a_first_triton_kernel.ipynb")`. Without Triton, a cell whose
first line is `# needs Triton` is then not run; it shows a sentence that says so, and the outputs that are
saved for the same code in the chapter's notebook. All other cells run. With Triton nothing changes.

IPython and nbformat are imported when first needed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stn_kernels import backend

MARK = "# needs Triton"
# The sentences are Markdown and nothing else, so that tests can tell them from the outputs that they compare.
SENTENCE_TYPE = "text/markdown"
MISSING = "**Triton is not installed.** "
SHOWS = MISSING + "Where it is, this cell shows:"
SHOWS_NOTHING = MISSING + "Where it is, this cell shows nothing: later ones use what it makes."
UNKNOWN = MISSING + "Nothing is saved of what this cell shows where it is."

Outputs = list[dict[str, Any]]

_saved: dict[str, Outputs] = {}  # by the cell's code


def replay_kernel_cells(notebook: str) -> None:
    """Where Triton is missing, let cells that begin with `# needs Triton` show their saved outputs.

    Does nothing where Triton is there, and outside IPython.

    Args:
        notebook: file name of the chapter. The outputs are those of its notebooks in the checkout that this
            package is installed from, if it is, then of the one in the working directory.
    """
    if backend.HAS_TRITON or "IPython" not in sys.modules:
        return
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return
    chapters = Path(__file__).resolve().parents[1] / "chapters"
    _saved.clear()
    _saved.update(saved_outputs([chapters / notebook, chapters / "solutions" / notebook, Path(notebook)]))
    if _replayed not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.append(_replayed)


def saved_outputs(notebooks: Sequence[Path]) -> dict[str, Outputs]:
    """The outputs of the marked cells that were run, by their code; the first file that has it wins.

    A notebook that was saved without Triton has this module's sentences among its outputs; they are left out.
    """
    import nbformat

    found: dict[str, Outputs] = {}
    for path in notebooks:
        if not path.exists():
            continue
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and _is_marked(cell.source) and cell.execution_count is not None:
                sentences = [output.get("data", {}).get(SENTENCE_TYPE) for output in cell.outputs]
                if UNKNOWN not in sentences:
                    outputs = [
                        output
                        for output, sentence in zip(cell.outputs, sentences, strict=True)
                        if sentence not in (SHOWS, SHOWS_NOTHING)
                    ]
                    found.setdefault(cell.source.strip(), outputs)
    return found


def show_saved(code: str) -> None:
    """Show what is saved for a cell's code, after a sentence that says why it was not run."""
    from IPython.display import publish_display_data

    outputs = _saved.get(code)
    sentence = UNKNOWN if outputs is None else SHOWS if outputs else SHOWS_NOTHING
    publish_display_data({SENTENCE_TYPE: sentence})
    for output in outputs or []:
        if "data" in output:
            publish_display_data(output["data"], output["metadata"])
        elif "text" in output:
            print(output["text"], end="", file=getattr(sys, output["name"]), flush=True)


def _is_marked(code: str) -> bool:
    return code.strip().partition("\n")[0].rstrip() == MARK


def _replayed(lines: list[str]) -> list[str]:
    """IPython's input transformation: a marked cell becomes a call of `show_saved`."""
    code = "".join(lines)
    if not _is_marked(code):
        return lines
    return ["import stn.without_triton\n", f"stn.without_triton.show_saved({code.strip()!r})\n"]
