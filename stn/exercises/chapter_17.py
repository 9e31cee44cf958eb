"""Checks of chapter 17's exercises: the experiments."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stn.exercises.mistakes import expect_right
from stn.exercises.registry import Wrong, exercise, expect
from stn.networks import fully_connected_network, widest_fully_connected
from stn.training import count_parameters


@exercise("17-1")
def mean_and_error(answer: Any) -> str:
    mistakes = [
        ((2.3, 0.3), "that is the standard deviation of the runs, not yet the error of their mean"),
        ((2.3, 0.06**0.5 / 3**0.5), "squares are divided by n - 1: one of three went into the mean"),
        ((2.3, 0.3 / 3), "divided by the square root of n"),
        ((2.3, 0.03), "that is the square of the standard error"),
    ]
    expect_right(answer, (2.3, 0.3 / 3**0.5), "the mean and its standard error", mistakes)
    return "To halve the error takes four times as many runs."


@exercise("17-2")
def how_many(answer: Any) -> str:
    mistakes = [
        (0.45 / 0.21, "errors of independent means add in squares"),
        (0.45 / (0.12**2 + 0.09**2), "the root of the sum of squares is missing"),
        (-3.0, "the sign is of no account here"),
        (0.45, "that is the difference, in points"),
        (0.15, "that is the standard error of the difference"),
    ]
    expect_right(answer, 3.0, "how many standard errors", mistakes)
    return "3 : 4 : 5, as in any right-angled triangle."


@exercise("17-3")
def rate(answer: Callable[[int], float]) -> str:
    rights = {0: 1e-2, 49_999: 1e-2, 50_000: 1e-3, 99_999: 1e-3, 100_000: 1e-4, 149_999: 1e-4}
    for step, right in rights.items():
        given = float(answer(step))
        expect(math.isclose(given, right, rel_tol=1e-6), f"at step {step:,} it is {right:g}, not {given:g}")
    return "Two thirds of the training are spent at a tenth of the rate and less."


@exercise("17-4")
def most_units(answer: Callable[[int, int], int]) -> str:
    whole = count_parameters(fully_connected_network((1, 28, 28), 300))
    for side, parameters in ((28, 400_000), (20, 100_000), (28, whole), (28, whole - 1)):
        given, right = answer(side**2, parameters), widest_fully_connected((1, side, side), parameters)
        units = right[1].out_features
        expect(int(given) == given, "a whole number of units is asked for")
        expect(
            given == units,
            f"{side**2:,} pixels and {parameters:,} parameters allow {units} units, "
            f"which have {count_parameters(right):,}; not {given}",
        )
    return "Nearly all of them are in the first layer."


@exercise("17-5")
def cost(answer: Callable[..., int]) -> str:
    cases = [
        ((9, 1, 1, 9, 1), 81, "one place for the kernel: 81 multiplications"),
        ((60, 1, 32, 9, 1), 52**2 * 32 * 81, "52 x 52 places without padding"),
        ((26, 32, 32, 7, 1), 20**2 * 32 * 32 * 49, "each of the filters looks at all channels"),
        ((84, 1, 8, 9, 4), 19**2 * 8 * 81, "with a stride of 4 there are 19 x 19 places"),
    ]
    for arguments, right, sentence in cases:
        given = answer(*arguments)
        expect(given == right, f"of {arguments}: {sentence}, in all {right:,}, not {given:,}")
    return "Twice as many pixels a side are four times the work."


@exercise("17-6")
def share_out(answer: Callable[[Tensor], float]) -> str:
    activations = torch.tensor([[0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 3.0, 0.0, 5.0]])
    mistakes = [
        (0.75, "alive is who is above zero for any image; the question is who is out"),
        (8 / 12, "a unit that is zero for some images is not out"),
        (1.0, "a unit that is zero for some images is not out; and the share of units is asked for"),
        (0.0, "units are columns"),
    ]
    expect_right(answer(activations), 0.25, "the share", mistakes)
    expect_right(answer(torch.zeros(2, 3)), 1.0, "the share, where all are out,", [])
    return "Worth a line in every log of a network that localises."


@exercise("17-7")
def too_good(answer: Any) -> str:
    right = 0.1163  # of five normal numbers, the mean of the largest in standard deviations: 1.163
    mistakes = [
        (-right, "too good by so much: a positive number"),
        (right / 0.1, "in points: a standard deviation is 0.1 of them"),
        (0.1 / 5**0.5, "that is the standard error of the mean of five; here the best is taken"),
    ]
    expect_right(answer, right, "how much too good the report is", mistakes, tolerance=5e-3)
    return "More than a standard deviation, for nothing. Report the mean."


@exercise("17-8")
def seeds_needed(answer: Callable[[float, float], int]) -> str:
    for s, gain, right in ((0.1, 0.11, 15), (0.1, 0.25, 3), (0.2, 0.11, 60)):
        given = answer(s, gain)
        wrong = f"for s = {s} and a gain of {gain} it takes {right}, not {given}"
        if given == math.ceil((3 * s / gain) ** 2):
            raise Wrong(f"{wrong}: both means have an error, and their squares add up")
        if given == math.floor(2 * (3 * s / gain) ** 2) != right:
            raise Wrong(f"{wrong}: at least three standard errors, so round up")
        expect(given == right, wrong)
    return "Half the gain takes four times the runs: small gains are costly to prove."
