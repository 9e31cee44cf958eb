"""`check` gives every answer, whatever it is or does, one line and never an exception."""

import pytest
import torch

from stn.exercises import Wrong, check, exercise, expect, expect_close, registry


@pytest.fixture(autouse=True)
def exercises(monkeypatch):
    """A registry with two exercises of its own."""
    monkeypatch.setattr(registry, "_checkers", checkers := {})
    monkeypatch.setattr(registry, "_load", lambda: checkers)

    @exercise("90-1")
    def sum_of_two(answer):
        expect_close(answer, 3.0, "the sum")
        return "It is the first odd prime"

    @exercise("90-2")
    def doubling(answer):
        expect(answer(2) == 4, "double(2) should be 4")

    return checkers


def verdict(capsys, name, answer):
    check(name, answer)
    return capsys.readouterr().out


@pytest.mark.parametrize("answer", [..., None, (1, ...), [None]])
def test_blank_value_is_no_answer_yet(capsys, answer):
    assert verdict(capsys, "90-1", answer) == "Exercise 90-1: no answer yet.\n"


@pytest.mark.parametrize("value", [..., None, (1.0, ...)])
def test_function_that_returns_a_blank_is_no_answer_yet(capsys, value):
    assert verdict(capsys, "90-2", lambda x: value) == "Exercise 90-2: no answer yet.\n"


@pytest.mark.parametrize("answer", [3, 3.00001, torch.tensor(3.0, requires_grad=True)])
def test_right_answer_is_correct_and_the_remark_ends_with_a_full_stop(capsys, answer):
    expected = "Exercise 90-1: correct. It is the first odd prime.\n"
    assert verdict(capsys, "90-1", answer) == expected


def test_right_function_is_correct(capsys):
    assert verdict(capsys, "90-2", lambda x: 2 * x) == "Exercise 90-2: correct.\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (4, "the sum is not 4."),
        (float("nan"), "the sum is not nan."),
        ([3.0, 3.0], "the sum should have shape (); got (2,)."),
        ("three", "the sum should be numbers; got str."),
    ],
)
def test_wrong_answer_says_what_is_wrong(capsys, answer, reason):
    assert verdict(capsys, "90-1", answer) == f"Exercise 90-1: not correct yet: {reason}\n"


def test_wrong_function_says_what_is_wrong(capsys):
    assert verdict(capsys, "90-2", lambda x: x) == "Exercise 90-2: not correct yet: double(2) should be 4.\n"


def test_answer_that_raises_is_reported_as_the_readers(capsys):
    expected = "Exercise 90-2: not correct yet: your function raised ZeroDivisionError: division by zero.\n"
    assert verdict(capsys, "90-2", lambda x: x / 0) == expected


def test_answer_of_the_wrong_kind_is_reported(capsys):
    assert "checking it raised TypeError: 'int' object is not callable." in verdict(capsys, "90-2", 7)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="name should be one of '90-1', '90-2'; got '90-3'"):
        check("90-3", 1)


def test_name_can_be_registered_once(exercises):
    with pytest.raises(ValueError, match="'90-1' is registered twice"):
        exercise("90-1")(exercises["90-2"])


def test_expect_close_points_to_the_first_wrong_value():
    with pytest.raises(Wrong, match=r"2 of 4 values of the grid are off; the first, at \[0, 1\], is 5"):
        expect_close([[1, 5], [2, 7]], torch.tensor([[1.0, 1.0], [2.0, 2.0]]), "the grid")


def test_expect_close_takes_its_tolerance_as_the_largest_error():
    expect_close(1.25, 1.0, "it", tolerance=0.25)
    with pytest.raises(Wrong):
        expect_close(1.26, 1.0, "it", tolerance=0.25)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda x: triton.jit(x), "not checked: it needs Triton, which is not installed."),  # noqa: F821
        (lambda x: ..., "no answer yet."),
        (lambda x: 2 * x, "correct."),
    ],
)
def test_kernel_without_triton_is_not_called_wrong(capsys, monkeypatch, answer, expected):
    exercise("90-3", needs_triton=True)(registry._checkers["90-2"])
    assert "not installed" not in verdict(capsys, "90-3", lambda x: x)
    monkeypatch.setattr(registry.backend, "HAS_TRITON", False)
    assert verdict(capsys, "90-3", answer) == f"Exercise 90-3: {expected}\n"
