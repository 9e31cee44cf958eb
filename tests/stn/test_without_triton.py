"""Without Triton a marked cell shows what is saved of it, and every other cell runs.

tests/chapters/test_chapters_without_triton.py runs chapters so.
"""

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from stn import without_triton
from stn.without_triton import MARK, SHOWS, SHOWS_NOTHING, UNKNOWN, replay_kernel_cells, saved_outputs

NAME = "99_of_this_test.ipynb"
KERNEL = f"{MARK}\nimport no_such_module"
PICTURE = {"image/png": "iVBORw0=", "text/plain": "<Figure>"}
VALUE = {"text/plain": "7"}
OUTPUTS = [
    nbformat.v4.new_output("stream", name="stdout", text="two\nlines\n"),
    nbformat.v4.new_output("display_data", PICTURE, metadata={"image/png": {"alt": "A figure."}}),
    nbformat.v4.new_output("execute_result", VALUE, execution_count=3),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(without_triton, "_saved", {})
    monkeypatch.setattr(without_triton.backend, "HAS_TRITON", False)
    return tmp_path


@pytest.fixture
def shell(folder):
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def save(path, outputs, code=KERNEL, execution_count=3):
    cell = nbformat.v4.new_code_cell(code, outputs=outputs, execution_count=execution_count)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)


def sentence_alone(text):
    return nbformat.v4.new_output("display_data", {"text/markdown": text})


def shown(shell, code):
    """What a cell puts out, as a notebook would save it."""
    with capture_output() as captured:
        result = shell.run_cell(code)
    result.raise_error()
    outputs = [
        nbformat.v4.new_output("display_data", output.data, metadata=output.metadata or {})
        for output in captured.outputs
    ]
    if captured.stdout:
        outputs.insert(1, nbformat.v4.new_output("stream", name="stdout", text=captured.stdout))
    return outputs


def data(outputs):
    return [output.get("data", output.get("text")) for output in outputs]


def test_marked_cell_shows_its_saved_outputs_and_others_run(shell, folder):
    save(folder / NAME, OUTPUTS)
    replay_kernel_cells(NAME)
    sentence, *outputs = shown(shell, KERNEL + "\n")
    assert sentence.data == {"text/markdown": SHOWS}
    assert data(outputs) == ["two\nlines\n", PICTURE, VALUE]
    assert outputs[1].metadata == OUTPUTS[1].metadata
    assert data(shown(shell, f"print(6 * 7)\n{MARK}")) == ["42\n"]


def test_notebook_saved_without_triton_shows_the_same_again(shell, folder):
    save(folder / NAME, OUTPUTS)
    replay_kernel_cells(NAME)
    once = shown(shell, KERNEL)
    save(folder / NAME, once)
    replay_kernel_cells(NAME)
    assert shown(shell, KERNEL) == once


@pytest.mark.parametrize(
    ("saved", "sentence"),
    [
        ({"outputs": []}, SHOWS_NOTHING),
        ({"outputs": [], "execution_count": None}, UNKNOWN),
        ({"outputs": OUTPUTS, "code": KERNEL + "  # changed"}, UNKNOWN),
        ({"outputs": [nbformat.v4.new_output("display_data", {"text/markdown": UNKNOWN})]}, UNKNOWN),
        (
            {"outputs": [nbformat.v4.new_output("display_data", {"text/markdown": SHOWS_NOTHING})]},
            SHOWS_NOTHING,
        ),
    ],
)
def test_cell_without_outputs_that_are_its_own_says_so(shell, folder, saved, sentence):
    save(folder / NAME, **saved)
    replay_kernel_cells(NAME)
    assert data(shown(shell, KERNEL)) == [{"text/markdown": sentence}]


def test_first_notebook_that_has_a_cell_wins(tmp_path):
    save(tmp_path / "first", OUTPUTS[:1])
    save(tmp_path / "second", OUTPUTS[1:])
    notebooks = [tmp_path / name for name in ("missing", "first", "second")]
    assert saved_outputs(notebooks) == {KERNEL: OUTPUTS[:1]}


def test_is_registered_once_and_not_where_triton_is(shell, folder, monkeypatch):
    before = list(shell.input_transformers_cleanup)
    monkeypatch.setattr(without_triton.backend, "HAS_TRITON", True)
    replay_kernel_cells(NAME)
    assert shell.input_transformers_cleanup == before
    monkeypatch.setattr(without_triton.backend, "HAS_TRITON", False)
    for _ in range(2):
        replay_kernel_cells(NAME)
    assert len(shell.input_transformers_cleanup) == len(before) + 1


def test_does_nothing_in_a_script(folder):
    save(folder / NAME, OUTPUTS)
    replay_kernel_cells(NAME)
    assert without_triton._saved == {}
