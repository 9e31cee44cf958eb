"""Make the chapters' notebooks from their sources and execute them.

    python chapters/build.py               # every chapter
    python chapters/build.py 02 06         # these chapters
    python chapters/build.py --text NN     # only text cells changed: take the outputs over, execute nothing
    python chapters/build.py --check [NN]  # compare sources and notebooks, execute nothing

A source is `sources/NN_name.py`, in the percent format. It becomes `NN_name.ipynb`, with blank exercises,
and `solutions/NN_name.ipynb`, where they are solved. chapters/MAKING.md says how a source is written.
"""

from __future__ import annotations

import argparse
import ast
import base64
import difflib
import hashlib
import importlib.util
import os
import re
import sys
import textwrap
import time
from collections import defaultdict
from collections.abc import Iterator, MutableMapping
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

CHAPTERS = Path(__file__).resolve().parent

NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
TAGS = {"setup", "needed-by-exercises", "exercise", "solution", "nbval-ignore-output", "raises-exception"}
CELL_METADATA = {"tags", "alt", "save"}
NEEDS_TRITON = "# needs Triton\n"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

SOLUTION = re.compile(r"^([ \t]*)# >>> solution\n(.*?)^[ \t]*# <<< solution$", re.MULTILINE | re.DOTALL)
RELATIVE_LINK = re.compile(r"(?<=\]\()(?!\w+:|#|\.\./)")
EXERCISE_HEADING = re.compile(r"^### Exercise (\d\d-\d+)\b", re.MULTILINE)


def hide_the_machine(environment: MutableMapping[str, str]) -> None:
    """Make the environment of notebook kernels the same on every machine.

    Outputs are compared with the committed ones, so they must not depend on a GPU, on the number of cores
    (which changes the order of floating-point sums) or on the shell's settings.
    """
    environment.update(CUDA_VISIBLE_DEVICES="", HIP_VISIBLE_DEVICES="")
    environment.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    for name in ("TRITON_INTERPRET", "MPLBACKEND", "MATPLOTLIBRC"):
        environment.pop(name, None)


def read_source(path: Path) -> list[NotebookNode]:
    """The cells of a chapter's source, held to the rules that the rest of this file relies on."""
    cells = jupytext.read(path, fmt="py:percent").cells
    for number, cell in enumerate(cells, start=1):
        where = f"{path.name}, cell {number}"
        cell.metadata.pop("lines_to_next_cell", None)
        if unknown := set(cell.metadata) - CELL_METADATA:
            raise ValueError(
                f"{where}: metadata {sorted(unknown)} unknown; known are {sorted(CELL_METADATA)}"
            )
        if unknown := set(cell.metadata.get("tags", [])) - TAGS:
            raise ValueError(f"{where}: tags {sorted(unknown)} unknown; known are {sorted(TAGS)}")
        if has_tag(cell, "exercise"):
            previous = cells[number - 2].source if number > 1 else ""
            heading = EXERCISE_HEADING.search(previous)
            if not heading or heading[1] != checked_exercise(cell.source):
                raise ValueError(
                    f'{where}: an exercise needs a text cell "### Exercise NN-k: ..." before it and '
                    'check("NN-k", answer), of the same number, as its last line'
                )
            if not SOLUTION.search(cell.source):
                raise ValueError(f"{where}: no lines between '# >>> solution' and '# <<< solution'")
        elif "# >>> solution" in cell.source:
            raise ValueError(f'{where}: a solution outside a cell tagged "exercise"')
    return cells


def checked_exercise(code: str) -> str | None:
    """The name in `check("NN-k", answer)` where that is a cell's last statement."""
    match ast.parse(code).body:
        case [*_, ast.Expr(ast.Call(ast.Name("check"), [ast.Constant(str(name)), _]))]:
            return name
    return None


def has_tag(cell: NotebookNode, *tags: str) -> bool:
    return not set(tags).isdisjoint(cell.metadata.get("tags", []))


def blank(solution: re.Match[str]) -> str:
    """What stands in place of a solution: `name = ...` where it ends by assigning `name`, else `...`."""
    match ast.parse(textwrap.dedent(solution[2])).body:
        case [*_, ast.Assign([ast.Name(name)])]:
            return f"{solution[1]}{name} = ..."
    return f"{solution[1]}..."


def chapter_cells(source: list[NotebookNode]) -> list[NotebookNode]:
    """All of the source but the remarks on solutions, with exercises blank."""
    cells = [nbformat.from_dict(cell) for cell in source if not has_tag(cell, "solution")]
    for cell in cells:
        if has_tag(cell, "exercise"):
            cell.source = SOLUTION.sub(blank, cell.source)
    return cells


def solutions_cells(source: list[NotebookNode], chapter: str) -> list[NotebookNode]:
    """The exercises, solved, after the cells that they need; links start one folder further down.

    The headings of exercises are one level up, since there is no "Exercises" above them.
    """
    title = re.search(r"^# (.+)$", source[0].source, re.MULTILINE)
    if title is None:
        raise ValueError(f"{chapter}: the first cell should hold the chapter's title, '# ...'")
    opening = (
        f"# Solutions: {title[1]}\n\nOne solution for each exercise of [the chapter](../{chapter}.ipynb)."
    )
    cells = [nbformat.v4.new_markdown_cell(opening)]
    for cell, following in zip(source, [*source[1:], None], strict=True):
        heads_exercise = following is not None and has_tag(following, "exercise")
        if heads_exercise or has_tag(cell, "setup", "needed-by-exercises", "exercise", "solution"):
            copy = nbformat.from_dict(cell)
            if copy.cell_type == "markdown":
                copy.source = RELATIVE_LINK.sub("../", copy.source)
                copy.source = EXERCISE_HEADING.sub(r"## Exercise \1", copy.source)
            else:
                copy.source = SOLUTION.sub(lambda found: found[2].rstrip("\n"), copy.source)
            cells.append(copy)
    return cells


def keep_ids(cells: list[NotebookNode], committed: list[NotebookNode], salt: str) -> None:
    """Give each cell the id of the same, else of the most similar, committed cell; else one of its own.

    Ids that stay when a cell moves or is reworded keep differences between versions readable.
    """
    same = defaultdict(list)
    for cell in committed:
        same[cell.cell_type, cell.source].append(cell)
    kept = {}
    for index, cell in enumerate(cells):
        if matches := same[cell.cell_type, cell.source]:
            kept[index] = matches.pop(0).id
    left = [cell for matches in same.values() for cell in matches]
    for index, cell in enumerate(cells):
        if index not in kept:
            candidates = [
                (difflib.SequenceMatcher(None, old.source, cell.source, autojunk=False).ratio(), old.id)
                for old in left
                if old.cell_type == cell.cell_type
            ]
            likeness, id_ = max(candidates, default=(0.0, ""))
            if likeness > 0.6:
                kept[index] = id_
                left = [old for old in left if old.id != id_]
    used = set(kept.values())
    for index, cell in enumerate(cells):
        if index not in kept:
            digest = hashlib.sha256(f"{salt}\n{index}\n{cell.source}".encode()).hexdigest()
            kept[index] = next(digest[i : i + 8] for i in range(56) if digest[i : i + 8] not in used)
            used.add(kept[index])
        cell.id = kept[index]


def make_notebook(cells: list[NotebookNode], destination: Path, chapters: Path) -> NotebookNode:
    """An unexecuted notebook of these cells, with the ids of the one that is there already."""
    committed = nbformat.read(destination, as_version=4).cells if destination.exists() else []
    keep_ids(cells, committed, salt=destination.relative_to(chapters).as_posix())
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=NOTEBOOK_METADATA)
    nbformat.validate(notebook)
    return notebook


def notebooks(source: Path, chapters: Path) -> Iterator[tuple[Path, NotebookNode]]:
    """The two notebooks of a source, unexecuted, and where each belongs."""
    cells = read_source(source)
    chapter = chapters / f"{source.stem}.ipynb"
    solutions = chapters / "solutions" / f"{source.stem}.ipynb"
    yield chapter, make_notebook(chapter_cells(cells), chapter, chapters)
    if any(has_tag(cell, "exercise") for cell in cells):
        yield solutions, make_notebook(solutions_cells(cells, source.stem), solutions, chapters)


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run a notebook on a fresh kernel in `folder`; write each figure's alternative text beside its image.

    Of a figure with sliders the picture stays. The widget itself is gone with its kernel, and JupyterLab,
    which prefers it, would say "Error displaying widget" in the picture's place.
    """
    if importlib.util.find_spec("triton") is None:
        for cell in notebook.cells:
            if cell.cell_type == "code" and cell.source.startswith(NEEDS_TRITON):
                raise RuntimeError("a cell needs Triton, which is not installed here")
    environment = dict(os.environ)
    hide_the_machine(environment)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
    ).execute(env=environment)
    notebook.metadata = nbformat.from_dict(NOTEBOOK_METADATA)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data.pop(WIDGET_VIEW, None)
                if "alt" in cell.metadata:
                    output.metadata.setdefault("image/png", {})["alt"] = cell.metadata.alt


class CodeChangedError(Exception):
    """The outputs that a notebook has are not known to be those of its new code."""


def take_outputs_over(notebook: NotebookNode, committed: NotebookNode, name: str) -> None:
    """Give each code cell the outputs of the committed one with its id, if all of the code is the same.

    That includes its order: a cell that moved may print something else.
    """
    old_cells = {cell.id: cell for cell in committed.cells if cell.cell_type == "code"}
    new_cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.id in new_cells:
            old = old_cells.get(cell.id)
            if old is None:
                what = "is new"
            elif old.source != cell.source:
                what = "has another source"
            elif old.metadata != cell.metadata:
                what = "has other tags or metadata"
            else:
                cell.outputs, cell.execution_count = old.outputs, old.execution_count
                continue
            raise CodeChangedError(f"{name}: code cell {number} {what}:\n{cell.source}")
    for number, cell in enumerate(committed.cells, start=1):
        if cell.id in old_cells and cell.id not in new_cells:
            raise CodeChangedError(f"{name}: code cell {number} is gone:\n{cell.source}")
    for old_id, id_ in zip(old_cells, new_cells, strict=True):
        if old_id != id_:
            raise CodeChangedError(f"{name}: a code cell has moved:\n{new_cells[id_].source}")


def pictures(notebook: NotebookNode) -> Iterator[tuple[str, bytes]]:
    """Path and content of the figures that cells with `save="figures/..."` in their metadata drew."""
    for cell in notebook.cells:
        if "save" in cell.metadata:
            images = [
                output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})
            ]
            if len(images) != 1:
                raise ValueError(
                    f"the cell that saves {cell.metadata.save} drew {len(images)} figures, not 1"
                )
            yield cell.metadata.save, base64.b64decode(images[0])


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def build(source: Path, chapters: Path = CHAPTERS, text_only: bool = False) -> None:
    """Make, execute and write the notebooks of one source; nothing is written unless all of it runs.

    With `text_only`, nothing is executed: the outputs are those of the notebooks that are there.
    """
    files = {}
    for path, notebook in notebooks(source, chapters):
        name = path.relative_to(chapters).as_posix()
        if text_only:
            if not path.exists():
                raise CodeChangedError(f"{name} is missing")
            take_outputs_over(notebook, nbformat.read(path, as_version=4), name)
        else:
            start = time.perf_counter()
            path.parent.mkdir(parents=True, exist_ok=True)
            execute(notebook, path.parent)
            print(f"{name}: executed in {time.perf_counter() - start:.1f} s", flush=True)
        files[path] = (nbformat.writes(notebook).rstrip("\n") + "\n").encode()
        if path.parent == chapters:
            files |= {chapters / picture: content for picture, content in pictures(notebook)}
    for path, content in files.items():
        write(path, content)


def differences(source: Path, chapters: Path = CHAPTERS) -> Iterator[str]:
    """What in the committed notebooks is not as this source has it, outputs apart."""
    for path, notebook in notebooks(source, chapters):
        name = path.relative_to(chapters).as_posix()
        if not path.exists():
            yield f"{name} is missing"
            continue
        committed = nbformat.read(path, as_version=4)
        if committed.metadata != notebook.metadata:
            yield f"{name}: the notebook's metadata differ"
        if [cell.id for cell in committed.cells] != [cell.id for cell in notebook.cells]:
            yield f"{name}: cells were added, removed or moved"
            continue
        for number, (old, new) in enumerate(zip(committed.cells, notebook.cells, strict=True), start=1):
            if (old.cell_type, old.source, old.metadata) != (new.cell_type, new.source, new.metadata):
                yield f"{name}: cell {number} differs"
        if path.parent == chapters:
            for picture, content in pictures(committed):
                file = chapters / picture
                if not file.exists() or file.read_bytes() != content:
                    yield f"{picture} is not the figure in {name}"


def orphans(chapters: Path = CHAPTERS) -> Iterator[str]:
    """Notebooks that no source makes."""
    stems = {source.stem for source in (chapters / "sources").glob("*.py")}
    for path in sorted([*chapters.glob("*.ipynb"), *(chapters / "solutions").glob("*.ipynb")]):
        if path.stem not in stems:
            yield f"{path.relative_to(chapters).as_posix()} has no source"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Make the chapters' notebooks from their sources and execute them."
    )
    parser.add_argument(
        "chapters", nargs="*", metavar="NN", help="numbers of chapters; all when none is given"
    )
    without_executing = parser.add_mutually_exclusive_group()
    without_executing.add_argument(
        "--text",
        action="store_true",
        help="only the text cells changed: take the outputs over from the notebooks that are there",
    )
    without_executing.add_argument(
        "--check", action="store_true", help="compare sources and notebooks, execute nothing"
    )
    options = parser.parse_args(arguments)

    sources = sorted((CHAPTERS / "sources").glob("[0-9][0-9]_*.py"))
    known = [source.name[:2] for source in sources]
    if unknown := sorted(set(options.chapters) - set(known)):
        parser.error(f"no chapter {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [source for source in sources if not options.chapters or source.name[:2] in options.chapters]

    if options.check:
        problems = [problem for source in chosen for problem in differences(source)]
        problems += [] if options.chapters else orphans()
        for problem in problems:
            print(f"{problem}; `make chapters` makes the notebooks anew", file=sys.stderr)
        return 1 if problems else 0

    for source in chosen:
        try:
            build(source, text_only=options.text)
        except CodeChangedError as error:
            print(f"--text: nothing was written for {source.name}\n{error}", file=sys.stderr)
            return 1
        except CellExecutionError as error:
            print(f"{source.name}: a cell failed, nothing was written\n{error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
