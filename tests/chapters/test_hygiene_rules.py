"""Each rule of hygiene.py passes a good notebook and finds what is wrong with one that breaks it."""

import copy
from pathlib import Path

import nbformat
import pytest

import hygiene

HERE = Path(__file__)
PNG = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 640x480 with 1 Axes>"}
ALT = {"image/png": {"alt": "A line that rises from left to right."}}


def code(source, *outputs, count, **metadata):
    return nbformat.v4.new_code_cell(source, execution_count=count, outputs=list(outputs), metadata=metadata)


def printed(text, name="stdout"):
    return nbformat.v4.new_output("stream", name=name, text=text)


def good_notebook():
    return nbformat.v4.new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"},
            "language_info": {"name": "python"},
        },
        cells=[
            nbformat.v4.new_markdown_cell(
                "# A title\n\n**You will learn** a, **You need** b, **Runs in** c."
            ),
            code("import math", count=1),
            code("print(0.5)", printed("0.5, 28 x 28 pixels, x: 16:9\n"), count=2),
            code(
                "plt.show()",
                nbformat.v4.new_output("display_data", data=PNG, metadata=ALT),
                count=3,
                alt="A line.",
            ),
            code("check(1)", printed("Exercise 01-1: no answer yet.\n"), count=4),
            code("time()", printed("3.2 s on cuda\n"), count=5, tags=["nbval-ignore-output"]),
            code("print('a;b')", printed("True\n"), count=6),
            code("2 + 2", nbformat.v4.new_output("execute_result", data={"text/plain": "4"}), count=7),
            nbformat.v4.new_markdown_cell(
                f"[here]({HERE.name}), [there](https://example.org)\n"
                "## Summary\n## Exercises\n### Exercise 01-1\n## References\n## Next"
            ),
        ],
    )


GOOD = good_notebook()
RULES = hygiene.EVERYWHERE + hygiene.IN_CHAPTERS


def problems(rule, notebook):
    return list(rule(notebook, HERE))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_good_notebook_passes(rule):
    assert problems(rule, GOOD) == []


def change(cell, **values):
    """A change of one cell of the good notebook."""

    def apply(notebook):
        notebook.cells[cell].update(values)

    return apply


def prints(text, name="stdout"):
    return change(2, outputs=[printed(text, name)])


def ignore_two(notebook):
    notebook.cells[2].metadata.tags = ["nbval-ignore-output"]


def say_nothing(notebook):
    for cell in notebook.cells[3:-1]:
        cell.outputs = []


def figure_without_number(notebook):
    notebook.cells[2].outputs = []
    notebook.cells[4].outputs = [printed("a picture\n")]


BROKEN = [
    (hygiene.is_valid_and_of_a_format_with_ids, lambda n: n.update(nbformat_minor=4), "older than 4.5"),
    (hygiene.is_valid_and_of_a_format_with_ids, change(2, id=GOOD.cells[1].id), "is not unique"),
    (hygiene.is_valid_and_of_a_format_with_ids, change(2, outputs=[{"text": "1"}]), "invalid"),
    (
        hygiene.names_the_standard_kernel_and_no_version,
        lambda n: n.metadata.kernelspec.update(name=".venv"),
        "kernelspec is .venv",
    ),
    (
        hygiene.names_the_standard_kernel_and_no_version,
        lambda n: n.metadata.language_info.update(version="3.11.7"),
        "name a version",
    ),
    (hygiene.was_executed_from_1_to_n, change(2, execution_count=None), "[1, None, 3,"),
    (hygiene.was_executed_from_1_to_n, change(2, execution_count=9), "[1, 9, 3,"),
    (hygiene.has_no_semicolons, change(2, source="plt.plot([1]);"), "plt.plot([1]);"),
    (hygiene.excuses_cells_by_tags_only, change(2, source="# NBVAL_SKIP\n1"), "a comment"),
    (hygiene.excuses_cells_by_tags_only, change(2, metadata={"tags": ["nbval-skip"]}), "nbval skips"),
    (
        hygiene.opens_and_closes_as_chapters_do,
        change(0, source="# A title\n\n**You will learn** a, **You need** b."),
        "its first cell does not say: **Runs in**",
    ),
    (hygiene.opens_and_closes_as_chapters_do, change(8, source="## Summary"), "headings ['Summary']"),
    (hygiene.excuses_few_cells, ignore_two, "2 of 7 code cells are excused"),
    (hygiene.compares_a_number_or_verdict_in_half_of_its_cells, say_nothing, "only 1 of 7"),
    (hygiene.has_outputs_that_are_the_same_everywhere, prints("in /home/me/x"), "a path"),
    (hygiene.has_outputs_that_are_the_same_everywhere, prints(r"in C:\me"), "a path"),
    (hygiene.has_outputs_that_are_the_same_everywhere, prints("<f at 0x7f3a2c>"), "an address"),
    (hygiene.has_outputs_that_are_the_same_everywhere, prints("device='cuda:0'"), "a device"),
    (hygiene.has_outputs_that_are_the_same_everywhere, prints("NVIDIA H200"), "a device"),
    (hygiene.has_outputs_that_are_the_same_everywhere, prints("on 2026-01-31"), "a date"),
    (hygiene.has_outputs_that_are_the_same_everywhere, prints("took 3.25 s"), "a duration"),
    (hygiene.has_outputs_that_are_the_same_everywhere, prints("12ms"), "a duration"),
    (hygiene.has_outputs_that_are_the_same_everywhere, prints("torch 2.13.0"), "a version"),
    (hygiene.has_outputs_that_are_the_same_everywhere, prints("1", "stderr"), "a warning"),
    (hygiene.describes_its_figures, lambda n: n.cells[3].outputs[0].update(metadata={}), "without alt"),
    (hygiene.describes_its_figures, change(3, outputs=[]), "without a figure"),
    (hygiene.shows_no_figure_without_a_checked_number_beside_it, figure_without_number, "cell 3"),
    (hygiene.has_links_and_pictures_that_resolve, change(8, source="[a](b.md)"), "a link to b.md"),
    (hygiene.has_links_and_pictures_that_resolve, change(8, source=f"![]({HERE.name})"), "alternative text"),
    (hygiene.has_links_and_pictures_that_resolve, change(8, source="![a](https://b.c/d)"), "a network"),
    (hygiene.has_links_and_pictures_that_resolve, change(8, source='<img src="a">'), "as HTML"),
]


@pytest.mark.parametrize(
    ("rule", "breaks", "expected"), BROKEN, ids=[f"{rule.__name__}-{text}" for rule, _, text in BROKEN]
)
def test_broken_notebook_is_found(rule, breaks, expected):
    notebook = copy.deepcopy(GOOD)
    breaks(notebook)
    (problem,) = problems(rule, notebook)
    assert expected in problem


def test_every_rule_is_broken_once():
    assert {rule for rule, _, _ in BROKEN} == set(RULES)
