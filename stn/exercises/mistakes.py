"""Wrong answers that teach: whoever makes a known mistake is told which one."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from stn.exercises.registry import Wrong, expect_close


def expect_right(
    answer: Any, right: Any, what: str, mistakes: Iterable[tuple[Any, str]], *, tolerance: float = 1e-4
) -> None:
    """Raise `Wrong` unless the answer is right; where it is a known mistake, with that one's sentence.

    Args:
        answer, right, what, tolerance: as for `expect_close`, which speaks where no mistake is recognised.
        mistakes: the values that a mistake gives, and what to tell whoever gave them.
    """
    try:
        given = _values(answer)
    except (TypeError, ValueError, RuntimeError):
        given = None
    if given is not None and not _same(given, _values(right), tolerance):
        for values, sentence in mistakes:
            if _same(given, _values(values), tolerance):
                raise Wrong(sentence)
    expect_close(answer, right, what, tolerance=tolerance)


def _values(answer: Any) -> Tensor:
    return torch.as_tensor(answer).detach().to("cpu", torch.float64)


def _same(left: Tensor, right: Tensor, tolerance: float) -> bool:
    return left.shape == right.shape and torch.allclose(left, right, rtol=0, atol=tolerance)
