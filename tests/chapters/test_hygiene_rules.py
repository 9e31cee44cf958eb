"""Each rule of hygiene.py and its neighbours passes a good notebook and finds what a bad one has wrong."""

import copy

import nbformat
import pytest

import formulas
import hygiene
import spelling
import structure

PNG = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 640x480 with 1 Axes>"}
ALT = {"image/png": {"alt": "A line that rises from left to right."}}


OPENING = """\
# 2 A title

> **A promise.**

**You will learn** a. **You need** b. **Runs in** c.

## 2.1 A section

$\\frac{a}{b}$ as in section 1.1 and [1], with `color`; $[-1, 1]$ costs nothing.

### Below it

See [there](01_before.ipynb#1.1-A-section) and [here](picture.png).

```python
# not a heading
```

## 2.2 Another
"""
CLOSING = """\
## Summary

- one
- two,
  on two lines
- three
- four

## Exercises

Solutions are in [solutions](solutions/02_a_title.ipynb).

### Exercise 02-1: a

### Exercise 02-2: b

### Exercise 02-3: c

### Exercise 02-4: d

### Exercise 02-5: e, after exercise 02-1

## In the library

## References

1. A. Author. *On Color*. [doi](https://doi.org/10.1000/1).

## Next

[After](03_after.ipynb), [before](01_before.ipynb).
"""


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
            nbformat.v4.new_markdown_cell(OPENING),
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
            nbformat.v4.new_markdown_cell(CLOSING),
        ],
    )


GOOD = good_notebook()
RULES = (
    *hygiene.EVERYWHERE,
    structure.has_one_title_and_skips_no_level_of_headings,
    *hygiene.IN_CHAPTERS,
    *structure.IN_CHAPTERS,
    formulas.has_formulas_that_render,
    spelling.is_spelt_as_the_british_do,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Where the good notebook stands, between two others."""
    folder = tmp_path_factory.mktemp("chapters")
    (folder / "picture.png").touch()
    (folder / "solutions").mkdir()
    (folder / "solutions" / "02_a_title.ipynb").touch()
    other = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("## 1.1 A section")])
    for name in ("01_before", "03_after"):
        nbformat.write(other, folder / f"{name}.ipynb")
    nbformat.write(GOOD, folder / "02_a_title.ipynb")
    return folder / "02_a_title.ipynb"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_good_notebook_passes(rule, path):
    assert list(rule(GOOD, path)) == []


def change(cell, **values):
    """A change of one cell of the good notebook."""

    def apply(notebook):
        notebook.cells[cell].update(values)

    return apply


def prints(text, name="stdout"):
    return change(2, outputs=[printed(text, name)])


def replace(cell, old, new):
    """A change of a part of a cell of the good notebook."""

    def apply(notebook):
        assert old in notebook.cells[cell].source
        notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)

    return apply


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
    (hygiene.has_links_and_pictures_that_resolve, change(8, source="![](picture.png)"), "alternative text"),
    (hygiene.has_links_and_pictures_that_resolve, replace(0, "#1.1-A", "#1.2-A"), "called so"),
    (hygiene.has_links_and_pictures_that_resolve, change(8, source="![a](https://b.c/d)"), "a network"),
    (hygiene.has_links_and_pictures_that_resolve, change(8, source='<img src="a">'), "as HTML"),
    (structure.opens_with_a_title_a_promise_and_what_it_takes, replace(0, "# 2 A", "# 02 A"), "the title"),
    (structure.opens_with_a_title_a_promise_and_what_it_takes, replace(0, "> **A", "> A"), "no promise"),
    (
        structure.opens_with_a_title_a_promise_and_what_it_takes,
        replace(0, "**Runs in** c", ""),
        "**Runs in**",
    ),
    (
        structure.opens_with_a_title_a_promise_and_what_it_takes,
        replace(0, "**You will learn** a. **You need** b.", "**You need** b. **You will learn** a."),
        "in another order",
    ),
    (structure.has_one_title_and_skips_no_level_of_headings, replace(0, "### B", "#### B"), "level 4"),
    (structure.has_one_title_and_skips_no_level_of_headings, replace(0, "### B", "# B"), "2 titles"),
    (structure.has_numbered_sections_and_closes_as_chapters_do, replace(0, "2.2 A", "2.3 A"), "'2.3'"),
    (structure.has_numbered_sections_and_closes_as_chapters_do, replace(8, "## In", "### In"), "it closes"),
    (structure.sums_up_in_four_to_six_points, replace(8, "- four", ""), "3 points"),
    (structure.has_five_to_ten_numbered_exercises, replace(8, "### Exercise 02-5", ""), "4 exercises"),
    (structure.has_five_to_ten_numbered_exercises, replace(8, "02-2", "02-7"), "'02-7'"),
    (structure.says_where_the_solutions_are, replace(8, "solutions/02", "solutions/03"), "no link to"),
    (structure.has_references_that_can_be_followed, replace(8, "[doi](https://", "("), "without a DOI"),
    (structure.has_references_that_can_be_followed, replace(8, "1. A", "2. A"), "numbered ['2.']"),
    (structure.cites_references_that_it_has, replace(0, "[1]", "[1, 2]"), "cites [2]"),
    (structure.leads_to_its_neighbours, replace(8, "(03_after", "(04_after"), "after it, 03_after.ipynb"),
    (structure.leads_to_its_neighbours, replace(8, "(01_before", "(00_before"), "before it, 01_before.ipynb"),
    (structure.refers_to_sections_and_exercises_that_exist, replace(0, "section 1.1", "section 1.9"), "1.9"),
    (
        structure.refers_to_sections_and_exercises_that_exist,
        replace(8, "exercise 02-1", "exercise 02-8"),
        "-8",
    ),
    (formulas.has_formulas_that_render, replace(0, "{b}", "{b"), "Expected"),
    (formulas.has_formulas_that_render, replace(0, "{b}$", "{b}"), "a dollar without another"),
    (formulas.has_formulas_that_render, replace(0, "{b}$", "{b}}$"), "Expected end"),
    (formulas.has_formulas_that_render, replace(0, "nothing", "$5 or $6"), "a dollar without another"),
    (formulas.has_formulas_that_render, replace(0, r"\frac{a}", r"\frca{a}"), "Unknown symbol"),
    (formulas.has_formulas_that_render, replace(0, r"\frac{a}{b}", "a_b_c"), "Double subscript"),
    (formulas.has_formulas_that_render, replace(0, r"\frac{a}{b}", "a & b"), "outside of an environment"),
    (
        formulas.has_formulas_that_render,
        replace(0, r"\frac{a}{b}", r"\begin{cases} a \end{bmatrix}"),
        "do not match",
    ),
    (
        formulas.has_formulas_that_render,
        replace(0, r"\frac{a}{b}", r"\begin{cases} \frac{a} & b \end{cases}"),
        "Expected",
    ),
    (formulas.has_formulas_that_render, replace(0, r"\frac{a}{b}", r"\begin{x} a \end{x}"), "is not one of"),
    (formulas.has_formulas_that_render, replace(0, r"\frac{a}{b}", r"\left( a"), "right"),
    (spelling.is_spelt_as_the_british_do, replace(0, "costs", "colors"), "British is colour"),
    (spelling.is_spelt_as_the_british_do, replace(0, "costs", "normalizes"), "with s"),
    (spelling.is_spelt_as_the_british_do, change(3, metadata={"alt": "gray"}), "British is grey"),
]


@pytest.mark.parametrize(
    ("rule", "breaks", "expected"), BROKEN, ids=[f"{rule.__name__}-{text}" for rule, _, text in BROKEN]
)
def test_broken_notebook_is_found(rule, breaks, expected, path):
    notebook = copy.deepcopy(GOOD)
    breaks(notebook)
    (problem,) = rule(notebook, path)
    assert expected in problem


def test_every_rule_is_broken_once():
    assert {rule for rule, _, _ in BROKEN} == set(RULES)
