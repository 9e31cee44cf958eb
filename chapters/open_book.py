"""Open JupyterLab on `book/`, a working copy of the chapters.

    python chapters/open_book.py [options of JupyterLab]

A reader's runs and answers live in the copy, where they neither break the tests nor collide with an update.
A file that is there is never overwritten; to have a chapter afresh, rename or delete its copy and open the
book again.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

CHAPTERS = Path(__file__).resolve().parent
BOOK = CHAPTERS.parent / "book"
CONTENTS = ("README.md", "*.ipynb", "figures/*", "solutions/*.ipynb")


def copy_missing(chapters: Path, book: Path) -> list[Path]:
    """Copy what of the chapters `book` does not have yet; returns the copies."""
    added = []
    for pattern in CONTENTS:
        for original in sorted(chapters.glob(pattern)):
            copy = book / original.relative_to(chapters)
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                unfinished = copy.with_name(f".{copy.name}.unfinished")
                shutil.copyfile(original, unfinished)
                unfinished.replace(copy)
                added.append(copy)
    return added


def jupyterlab_options(book: Path, options: list[str], as_root: bool) -> list[str]:
    """JupyterLab's command line; the reader's own options come last and so win."""
    return [f"--ServerApp.root_dir={book}", *(["--allow-root"] if as_root else []), *options]


def main(options: list[str]) -> None:
    try:
        added = copy_missing(CHAPTERS, BOOK)
    except OSError as error:
        sys.exit(f"The chapters could not be copied to {BOOK}: {error}")
    if added:
        print(f"{len(added)} new files in {BOOK}")

    from jupyterlab.labapp import main as jupyterlab  # slow to import, and the copy needs none of it

    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    jupyterlab(jupyterlab_options(BOOK, options, as_root))


if __name__ == "__main__":
    main(sys.argv[1:])
