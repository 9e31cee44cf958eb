"""chapters/build.py makes of one source a chapter with blanks and a notebook of solutions."""

import base64
import shutil

import nbformat
import pytest

import build

SOURCE = """\
# %% [markdown]
# # 99 Trial
#
# One promise, and [a link](sources/99_trial.py).

# %% tags=["setup"]
import matplotlib.pyplot as plt


def check(name, answer):
    print(name, answer)


# %%
print("in the chapter only")

# %% alt="A straight line." save="figures/line.png"
plt.plot([0, 1])
plt.show()

# %% tags=["needed-by-exercises"]
two = 2

# %% [markdown]
# ### Exercise 99-1: double it
#
# ![a figure](figures/line.png)

# %% tags=["exercise"]
# >>> solution
answer = two * 2
# <<< solution
check("99-1", answer)

# %% [markdown] tags=["solution"]
# Because two and two are four.

# %% [markdown]
# ### Exercise 99-2: a function


# %% tags=["exercise"]
def triple(x):
    # >>> solution
    return 3 * x
    # <<< solution


check("99-2", triple(2))
"""


@pytest.fixture
def trial(tmp_path):
    source = tmp_path / "sources" / "99_trial.py"
    source.parent.mkdir()
    source.write_text(SOURCE)
    return source


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    chapters = tmp_path_factory.mktemp("chapters")
    source = chapters / "sources" / "99_trial.py"
    source.parent.mkdir()
    source.write_text(SOURCE)
    build.build(source, chapters)
    return chapters


def read(path):
    return nbformat.read(path, as_version=4)


def unexecuted(source):
    chapters = source.parents[1]
    return [notebook for _, notebook in build.notebooks(source, chapters)]


def sources(notebook):
    return [cell.source for cell in notebook.cells]


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_chapter_has_blanks_and_no_remarks_on_solutions(trial):
    chapter, _ = unexecuted(trial)
    assert 'answer = ...\ncheck("99-1", answer)' in sources(chapter)
    assert 'def triple(x):\n    ...\n\n\ncheck("99-2", triple(2))' in sources(chapter)
    assert not any("Because" in text or "solution" in text for text in sources(chapter))


def test_solutions_have_setup_needed_cells_and_solved_exercises(trial):
    _, solutions = unexecuted(trial)
    texts = sources(solutions)
    assert texts[0] == (
        "# Solutions: 99 Trial\n\nOne solution for each exercise of [the chapter](../99_trial.ipynb)."
    )
    assert texts[1].startswith("import matplotlib")
    assert texts[2] == "two = 2"
    assert texts[4] == 'answer = two * 2\ncheck("99-1", answer)'
    assert texts[5] == "Because two and two are four."
    assert texts[7] == 'def triple(x):\n    return 3 * x\n\n\ncheck("99-2", triple(2))'
    assert len(texts) == 8


def test_links_of_an_exercise_are_relative_to_the_solutions(trial):
    _, solutions = unexecuted(trial)
    assert "![a figure](../figures/line.png)" in sources(solutions)[3]


def test_built_notebooks_are_executed_from_1_to_n_and_carry_alternative_text(built):
    chapter, solutions = read(built / "99_trial.ipynb"), read(built / "solutions" / "99_trial.ipynb")
    for notebook in (chapter, solutions):
        counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
        assert counts == list(range(1, len(counts) + 1))
        assert notebook.metadata == build.NOTEBOOK_METADATA
        assert not any("execution" in cell.metadata for cell in notebook.cells)
    (figure,) = (cell for cell in chapter.cells if "alt" in cell.metadata)
    assert figure.outputs[0].metadata["image/png"]["alt"] == "A straight line."
    assert chapter.cells[-1].outputs[0].text == "99-2 None\n"
    assert solutions.cells[-1].outputs[0].text == "99-2 6\n"


def test_nbconvert_finds_the_alternative_text(built):
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(template_name="classic").from_filename(built / "99_trial.ipynb")
    assert 'alt="A straight line."' in page
    assert "No description has been provided" not in page


WITH_SLIDER = """\
import matplotlib.pyplot as plt
from stn.widgets import Slider, explore

def line(end):
    figure, ax = plt.subplots()
    ax.plot([0, end])
    return figure

explore(line, end=Slider(0, 3, step=1, start=2))
"""


def test_of_a_figure_with_sliders_the_picture_stays_and_the_widget_goes(tmp_path):
    cell = nbformat.v4.new_code_cell(WITH_SLIDER, metadata={"alt": "A line that rises."})
    notebook = nbformat.v4.new_notebook(cells=[cell])
    build.execute(notebook, tmp_path)
    (output,) = notebook.cells[0].outputs
    assert set(output.data) == {"text/plain", "image/png"}
    assert output.data["text/plain"] == "end = 2"
    assert output.metadata["image/png"]["alt"] == "A line that rises."


def test_cell_that_needs_triton_is_not_executed_without_it(tmp_path, monkeypatch):
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("# needs Triton\n1")])
    with pytest.raises(RuntimeError, match="needs Triton"):
        build.execute(notebook, tmp_path)


def test_saved_figure_is_the_cells_output(built):
    (figure,) = (cell for cell in read(built / "99_trial.ipynb").cells if "save" in cell.metadata)
    content = (built / "figures" / "line.png").read_bytes()
    assert content == base64.b64decode(figure.outputs[0].data["image/png"])
    assert content.startswith(b"\x89PNG")


def test_notebooks_just_built_do_not_differ_and_have_sources(built):
    assert list(build.differences(built / "sources" / "99_trial.py", built)) == []
    assert list(build.orphans(built)) == []


@pytest.fixture
def copied(built, tmp_path):
    """The built chapter once more, to be changed."""
    return shutil.copytree(built, tmp_path / "copied") / "sources" / "99_trial.py"


def test_changed_text_is_taken_over_with_the_outputs_as_they_were(copied):
    chapters = copied.parents[1]
    paths = [chapters / "99_trial.ipynb", chapters / "solutions" / "99_trial.ipynb"]
    before = [read(path) for path in paths]
    text = SOURCE.replace("One promise", "Another promise").replace("two and two", "two twos")
    copied.write_text(
        text.replace("# %% [markdown]\n# ### Ex", "# %% [markdown]\n# More.\n\n# %% [markdown]\n# ### Ex")
    )
    build.build(copied, chapters, text_only=True)
    assert list(build.differences(copied, chapters)) == []
    for path, old in zip(paths, before, strict=True):
        new = read(path)
        assert "".join(sources(new)) != "".join(sources(old))
        assert code(new) == code(old)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("two = 2", "two = 3", "^99_trial.ipynb: code cell 5 has another source:\ntwo = 3$"),
        ("two * 2", "two + two", "^solutions/99_trial.ipynb: code cell 5 has another source"),
        ('alt="A straight', 'alt="A', "^99_trial.ipynb: code cell 4 has other tags or metadata"),
        (
            "two = 2\n",
            "two = 2\n\n# %%\nentirely(different)\n",
            "^99_trial.ipynb: code cell 6 is new:\nentirely",
        ),
        ('\n# %%\nprint("in the chapter only")\n', "", "^99_trial.ipynb: code cell 3 is gone:\nprint"),
    ],
)
def test_outputs_are_not_taken_over_when_code_changed(copied, old, new, message):
    assert SOURCE.count(old) == 1
    copied.write_text(SOURCE.replace(old, new).replace("One promise", "Another promise"))
    chapters = copied.parents[1]
    before = [path.read_bytes() for path in sorted(chapters.rglob("*.ipynb"))]
    with pytest.raises(build.CodeChangedError, match=message):
        build.build(copied, chapters, text_only=True)
    assert [path.read_bytes() for path in sorted(chapters.rglob("*.ipynb"))] == before


def test_outputs_are_not_taken_over_when_code_moved_or_no_notebook_is_there(copied, trial):
    first, second = '# %%\nprint("in the chapter only")\n', '# %% tags=["needed-by-exercises"]\ntwo = 2\n'
    copied.write_text(SOURCE.replace(first, "XXX").replace(second, first).replace("XXX", second))
    with pytest.raises(build.CodeChangedError, match=r"^99_trial\.ipynb: a code cell has moved:\ntwo = 2$"):
        build.build(copied, copied.parents[1], text_only=True)
    with pytest.raises(build.CodeChangedError, match=r"^99_trial\.ipynb is missing$"):
        build.build(trial, trial.parents[1], text_only=True)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("One promise", "A promise", ["99_trial.ipynb: cell 1 differs"]),
        ("two * 2", "two + two", ["solutions/99_trial.ipynb: cell 5 differs"]),
        ('alt="A straight', 'alt="A', ["99_trial.ipynb: cell 4 differs"]),
        ("save=", 'tags=["raises-exception"] save=', ["99_trial.ipynb: cell 4 differs"]),
        (
            '\n# %%\nprint("in the chapter only")\n',
            "",
            ["99_trial.ipynb: cells were added, removed or moved"],
        ),
    ],
)
def test_any_change_of_the_source_is_a_difference(built, tmp_path, old, new, expected):
    assert SOURCE.count(old) == 1
    changed = tmp_path / "99_trial.py"
    changed.write_text(SOURCE.replace(old, new))
    assert list(build.differences(changed, built)) == expected


def test_missing_notebooks_stale_pictures_and_orphans_are_reported(trial, built):
    assert list(build.differences(trial, trial.parents[1])) == [
        "99_trial.ipynb is missing",
        "solutions/99_trial.ipynb is missing",
    ]
    orphan, picture = built / "98_gone.ipynb", built / "figures" / "line.png"
    content = picture.read_bytes()
    try:
        orphan.write_text("{}")
        picture.write_bytes(b"another")
        assert list(build.orphans(built)) == ["98_gone.ipynb has no source"]
        problems = list(build.differences(built / "sources" / "99_trial.py", built))
        assert problems == ["figures/line.png is not the figure in 99_trial.ipynb"]
    finally:
        orphan.unlink()
        picture.write_bytes(content)


def test_ids_stay_when_cells_move_or_are_reworded_and_new_ones_are_reproducible():
    def cells(*texts):
        return [nbformat.v4.new_code_cell(text) for text in texts]

    committed = cells("alpha = 1", "print(alpha, 'a long line of text')", "gone = True")
    ids = [cell.id for cell in committed]
    new = cells("print(alpha, 'a long line of words')", "alpha = 1", "something_else(entirely)")
    build.keep_ids(new, committed, salt="name")
    assert [cell.id for cell in new[:2]] == [ids[1], ids[0]]
    assert new[2].id not in ids
    again = cells(*(cell.source for cell in new))
    build.keep_ids(again, committed, salt="name")
    assert [cell.id for cell in again] == [cell.id for cell in new]


def test_equal_cells_get_different_ids():
    cells = [nbformat.v4.new_code_cell("x = 1") for _ in range(3)]
    build.keep_ids(cells, [], salt="name")
    assert len({cell.id for cell in cells}) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["setup"]', '["set-up"]', r"cell 2: tags \['set-up'\] unknown"),
        ("save=", "safe=", r"cell 4: metadata \['safe'\] unknown"),
        ('check("99-1", answer)', 'check("99-2", answer)', "cell 7: an exercise needs"),
        ("### Exercise 99-2", "### Exercise", "cell 10: an exercise needs"),
        ("    # <<< solution\n", "", "cell 10: no lines between"),
        ('tags=["needed-by-exercises"]\n', "\n# >>> solution\n", "cell 5: a solution outside"),
    ],
)
def test_malformed_source_is_refused(trial, old, new, message):
    assert SOURCE.count(old) == 1
    trial.write_text(SOURCE.replace(old, new))
    with pytest.raises(ValueError, match=f"99_trial.py, {message}"):
        unexecuted(trial)


def test_nothing_is_written_when_a_cell_fails(trial):
    trial.write_text(SOURCE.replace("return 3 * x", "return 3 / 0"))
    with pytest.raises(build.CellExecutionError, match="ZeroDivisionError"):
        build.build(trial, trial.parents[1])
    assert not list(trial.parents[1].rglob("*.ipynb"))
    assert not (trial.parents[1] / "figures").exists()


def test_kernels_see_no_gpu_and_none_of_the_shells_settings():
    environment = {"MPLBACKEND": "agg", "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "0", "PATH": "/bin"}
    build.hide_the_machine(environment)
    assert "MPLBACKEND" not in environment
    assert "TRITON_INTERPRET" not in environment
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["PATH"] == "/bin"


def test_unknown_chapter_is_refused(capsys):
    with pytest.raises(SystemExit):
        build.main(["77"])
    assert "no chapter 77" in capsys.readouterr().err
