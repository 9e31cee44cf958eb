"""Every number in the chapters' prose has a source, and chapters/check_numbers.py finds one that has none."""

import nbformat
import pytest

import build
import check_numbers
from check_numbers import Source

CHAPTERS = sorted(build.CHAPTERS.glob("[0-9][0-9]_*.ipynb"))
SOURCES = check_numbers.read_sources()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_numbers_have_a_source(path):
    entries = SOURCES.get(path.name[:2], [])
    found = check_numbers.chapter_findings(path, entries)
    assert [finding.context for finding in found if finding.source is None] == []
    assert list(check_numbers.unneeded(entries)) == []


def test_sources_are_of_chapters():
    assert set(SOURCES) <= {path.name[:2] for path in CHAPTERS}


def sources_of(prose, code="", output="", entries=()):
    """The sources of the numbers in a notebook of two cells."""
    outputs = [nbformat.v4.new_output("stream", text=output)] if output else []
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell(prose),
            nbformat.v4.new_code_cell(code, execution_count=7, outputs=outputs),
        ]
    )
    return [finding.source for finding in check_numbers.findings(notebook, "01", list(entries))]


@pytest.mark.parametrize(
    ("prose", "code", "output"),
    [
        ("off by 0.72 pixels", "", "0.7184"),
        ("it falls to 5.3 %", "", "error 0.0532"),
        ("it falls to 5.3 per cent", "", "error 5.31%"),
        ("all 2,000 digits", "", "images (2000, 28, 28)"),
        ("a rate of $3 \\cdot 10^{-3}$", "rate = 3e-3", ""),
        ("of $28 \\times 28$ pixels", "size = 28", ""),
        ("784 pixels", "count = 28 * 28", ""),
        ("by −0.42", "", "-0.4242"),
        ("Thirteen of a hundred", "n = 13, 100", ""),
    ],
)
def test_number_with_a_source_is_found(prose, code, output):
    sources = sources_of(prose, code, output)
    assert sources
    assert all(source.startswith("cell [7]") for source in sources)


@pytest.mark.parametrize(
    "prose",
    [
        "off by 0.73 pixels",
        "off by 0.718 pixels",
        "it falls to 71 %",
        "all 3,000 digits",
        "a rate of $7 \\cdot 10^{-3}$",
        "| 0.71 |",
        "seventeen times",
        "**8**",
    ],
)
def test_number_without_a_source_is_found(prose):
    assert sources_of(prose, "size = 28", "0.7249") == [None]


@pytest.mark.parametrize(
    "prose",
    [
        "## 4.3 A heading",
        "as in sections 4.3, 4.5 and 4.7, chapters 03 to 05, Equations 3 to 5 and exercise 04-6",
        "see [chapter 07](07_a.ipynb) or [3], appendix A.4 and figure 2",
        "`size=28`, $x_{13} = 0.5 W$, and\n\n$$ 3.7 $$\n\n```\n99\n```",
        "**Runs in** about 30 seconds",
        "0, 1 and 2, twice; float32; a 7",
        "### Exercise 01-1: how many?\n\nThere are 45 pixels.",
        "## References\n\n1. A. Author. 1999.",
    ],
)
def test_what_names_something_is_not_looked_at(prose):
    assert sources_of(prose) == []


def test_entry_covers_its_phrase_only():
    entry = Source("over five seeds, 0.44 [...] 0.50", "given", "five seeds")
    prose = "It is 0.44; over five\nseeds, 0.44 (0.01) and 0.50, not 0.51"
    assert sources_of(prose, entries=[entry]) == [None, *["given: five seeds"] * 3, None]
    assert list(check_numbers.unneeded([entry])) == []


def test_arithmetic_gives_the_number():
    right, wrong = (Source("0.9 of it, 1.27", "arithmetic", "", [value]) for value in (1.2728, 1.28))
    assert sources_of("0.9 of it, 1.27", "x = 0.9", entries=[right])[1].startswith("arithmetic")
    assert list(check_numbers.unneeded([right])) == []
    assert sources_of("0.9 of it, 1.27", "x = 0.9", entries=[wrong])[1] is None
    assert len(list(check_numbers.unneeded([wrong]))) == 2


def test_repeated_runs_give_the_number(tmp_path):
    (tmp_path / "repeated").mkdir()
    (tmp_path / "repeated" / "01.json").write_text('{"seeds": {"error": {"mean": 15.93, "spread": 2.1}}}')
    (tmp_path / "numbers.toml").write_text('[["01"]]\nphrase = "15.9 (2.2)"\nrepeat = "seeds"')
    (entry,) = check_numbers.read_sources(tmp_path / "numbers.toml")["01"]
    assert sources_of("15.9 (2.2)", entries=[entry]) == ["repeat: seeds", None]
    assert list(check_numbers.unneeded([entry])) == []


@pytest.mark.parametrize(
    "entry",
    [
        'phrase = "a"',
        'phrase = "a"\ngiven = "b"\nreference = "c"',
        'phrase = "a"\nhearsay = "b"',
        'phrase = "a"\narithmetic = "x + 1"',
    ],
)
def test_entry_that_names_no_source_is_an_error(entry, tmp_path):
    (tmp_path / "numbers.toml").write_text(f'[["01"]]\n{entry}\n')
    with pytest.raises(ValueError, match="chapter 01"):
        check_numbers.read_sources(tmp_path / "numbers.toml")


def test_command_lists_and_succeeds(capsys):
    assert check_numbers.main(["--list", "02"]) == 0
    listed = capsys.readouterr().out
    assert "28 / 2 = 3.5" in listed
    assert "cell [" in listed
