"""How an exercise is registered and an answer is checked.

The exercises of a chapter live in one module, `stn/exercises/chapter_NN.py`:

    @exercise("02-1")
    def pixel_centre(answer):
        expect_close(answer, -0.75, "the centre of the first of 4 pixels")
        return "With align_corners=True it would be -1."

A checker returns None, or a sentence for whoever got it right, and raises `Wrong` with what is wrong.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import torch

from stn_kernels import backend

Checker = Callable[[Any], str | None]

_checkers: dict[str, Checker] = {}
_need_triton: set[str] = set()


class Wrong(Exception):
    """Raised by a checker: the answer is wrong, and this is what is wrong with it."""


class _NoAnswer(Exception):
    """The reader's function returned the blank."""


class _AnswerFailed(Exception):
    """The reader's function raised the exception that is this one's cause."""


def exercise(name: str, *, needs_triton: bool = False) -> Callable[[Checker], Checker]:
    """Register a checker under the exercise's name, "NN-k" for exercise k of chapter NN.

    With `needs_triton` an answer is a kernel, which cannot be checked where Triton is missing.
    """

    def register(checker: Checker) -> Checker:
        if name in _checkers:
            raise ValueError(f"exercise {name!r} is registered twice")
        _checkers[name] = checker
        if needs_triton:
            _need_triton.add(name)
        return checker

    return register


def check(name: str, answer: Any) -> None:
    """Say whether `answer` solves exercise `name`: no answer yet, not correct and why, or correct.

    An answer is blank while it is `...` or None, or a function that returns one of these. Whatever an answer
    does, exceptions included, is reported in one line and never raised.

    Raises:
        ValueError: there is no exercise of that name.

    Example:
        >>> check("02-1", ...)
        Exercise 02-1: no answer yet.
    """
    checkers = _load()
    if name not in checkers:
        raise ValueError(f"name should be one of {', '.join(map(repr, names()))}; got {name!r}")
    verdict = _verdict(checkers[name], answer)
    if name in _need_triton and not backend.HAS_TRITON and verdict.startswith("not correct"):
        verdict = "not checked: it needs Triton, which is not installed."
    print(f"Exercise {name}: {verdict}")


def names() -> list[str]:
    """The names of all exercises, in order."""
    return sorted(_load(), key=lambda name: [int(number) for number in name.split("-")])


def expect(condition: bool, otherwise: str) -> None:
    """Raise `Wrong(otherwise)` unless the condition holds."""
    if not condition:
        raise Wrong(otherwise)


def expect_close(answer: Any, expected: Any, what: str, *, tolerance: float = 1e-4) -> None:
    """Raise `Wrong` unless a number, sequence or tensor has the expected shape and values.

    Args:
        answer: what the reader gave: anything that `torch.as_tensor` takes.
        expected: the right values, likewise.
        what: what the values are, named in the verdict.
        tolerance: largest absolute difference that passes.
    """
    try:
        given = torch.as_tensor(answer).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{what} should be numbers; got {type(answer).__name__}") from None
    right = torch.as_tensor(expected).detach().to("cpu", torch.float64)
    if given.shape != right.shape:
        raise Wrong(f"{what} should have shape {tuple(right.shape)}; got {tuple(given.shape)}")
    # `not <=` rather than `>`, so that NaN counts as wrong.
    wrong = ~((given - right).abs() <= tolerance)
    if wrong.any():
        if given.ndim == 0:
            raise Wrong(f"{what} is not {given.item():.6g}")
        first = tuple(wrong.nonzero()[0].tolist())
        raise Wrong(
            f"{int(wrong.sum())} of {given.numel()} values of {what} are off; "
            f"the first, at {list(first)}, is {given[first].item():.6g}"
        )


@functools.cache
def _load() -> dict[str, Checker]:
    """Import the chapters' modules, which fills the registry."""
    package = importlib.import_module("stn.exercises")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("chapter_"):
            importlib.import_module(f"stn.exercises.{module.name}")
    return _checkers


def _verdict(checker: Checker, answer: Any) -> str:
    if _is_blank(answer):
        return "no answer yet."
    try:
        remark = checker(_watched(answer) if inspect.isroutine(answer) else answer)
    except _NoAnswer:
        return "no answer yet."
    except Wrong as wrong:
        return f"not correct yet: {_sentence(str(wrong))}"
    except _AnswerFailed as failed:
        return f"not correct yet: your function raised {_named(failed.__cause__)}"
    except Exception as error:
        return f"not correct yet: checking it raised {_named(error)}"
    return f"correct. {_sentence(remark)}" if remark else "correct."


def _is_blank(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_is_blank, value))
    return value is None or value is Ellipsis


def _watched(function: Callable[..., Any]) -> Callable[..., Any]:
    """The reader's function, telling a blank and an exception of its own from those of the checker."""

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        try:
            value = function(*arguments, **keywords)
        except Exception as error:
            raise _AnswerFailed from error
        if _is_blank(value):
            raise _NoAnswer
        return value

    return call


def _named(error: BaseException | None) -> str:
    return _sentence(f"{type(error).__name__}: {error}")


def _sentence(text: str) -> str:
    first_line = text.strip().partition("\n")[0]
    return first_line if first_line.endswith((".", "!", "?")) else f"{first_line}."
