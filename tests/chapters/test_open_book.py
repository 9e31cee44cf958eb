"""chapters/open_book.py keeps what the reader has, adds what is new, and opens JupyterLab on it."""

import json
import shutil
import urllib.request

import pytest

import open_book
from lab import jupyterlab


@pytest.fixture
def chapters(tmp_path):
    chapters = tmp_path / "a clone" / "chapters"
    for name in ("README.md", "01_one.ipynb", "figures/one.png", "solutions/01_one.ipynb"):
        (chapters / name).parent.mkdir(parents=True, exist_ok=True)
        (chapters / name).write_text(f"{name}, first edition")
    (chapters / "sources").mkdir()
    for name in ("build.py", "sources/01_one.py"):
        (chapters / name).write_text("not for the book")
    return chapters


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_copies_what_is_read_and_nothing_else(chapters, tmp_path):
    added = open_book.copy_missing(chapters, book := tmp_path / "book")
    expected = ["01_one.ipynb", "README.md", "figures/one.png", "solutions/01_one.ipynb"]
    assert files(book) == expected
    assert sorted(path.relative_to(book).as_posix() for path in added) == expected


def test_never_overwrites_and_adds_new_chapters(chapters, tmp_path):
    open_book.copy_missing(chapters, book := tmp_path / "book")
    (book / "01_one.ipynb").write_text("my answers")
    (chapters / "01_one.ipynb").write_text("second edition")
    (chapters / "02_two.ipynb").write_text("new")
    assert open_book.copy_missing(chapters, book) == [book / "02_two.ipynb"]
    assert (book / "01_one.ipynb").read_text() == "my answers"


def test_a_book_that_cannot_be_written_is_said_in_one_line(chapters, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(open_book, "CHAPTERS", chapters)
    monkeypatch.setattr(open_book, "BOOK", tmp_path / "file" / "book")
    with pytest.raises(SystemExit, match=r"^The chapters could not be copied to .*book: \["):
        open_book.main([])


def test_readers_options_come_last_and_root_is_allowed_only_to_root(tmp_path):
    options = ["--no-browser", "--port", "8899"]
    root_dir = f"--ServerApp.root_dir={tmp_path}"
    assert open_book.jupyterlab_options(tmp_path, options, as_root=False) == [root_dir, *options]
    assert open_book.jupyterlab_options(tmp_path, options, as_root=True) == [
        root_dir,
        "--allow-root",
        *options,
    ]


def test_jupyterlab_lists_the_chapters(chapters, tmp_path):
    shutil.copy(open_book.__file__, chapters)
    with (
        jupyterlab(chapters.parent, tmp_path) as address,
        urllib.request.urlopen(address("/api/contents")) as answer,
    ):
        listing = json.load(answer)
    names = {entry["name"] for entry in listing["content"]}
    assert names == {"01_one.ipynb", "README.md", "figures", "solutions"}
