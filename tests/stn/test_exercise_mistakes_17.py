"""The typical wrong answers to chapter 17's exercises are rejected, each with the sentence that helps."""

import math

import pytest
import torch

from verdicts import assert_mistake_is_named


def units(pixels, parameters, biases=True):
    for width in range(1, 10_000):
        count = pixels * width + width**2 + 10 * width + biases * (2 * width + 10)
        if count > parameters:
            return width - 1


MISTAKES = [
    ("17-1", (2.3, 0.3), "not yet the error of their mean"),
    ("17-1", (2.3, 0.06**0.5 / 3**0.5), "divided by n - 1"),
    ("17-1", (2.3, 0.1), "the square root of n"),
    ("17-2", 0.45 / 0.21, "add in squares"),
    ("17-2", 0.45 / 0.0225, "the root of the sum"),
    ("17-2", 0.15, "standard error of the difference"),
    ("17-3", lambda step: 0.01 * 0.1 ** ((step - 1) // 50_000), "at step 0 it is 0.01, not 0.1"),
    ("17-3", lambda step: 0.01 / (1 + step // 50_000), "at step 50,000 it is 0.001, not 0.005"),
    ("17-4", lambda pixels, parameters: units(pixels, parameters) + 1, "784 pixels and 400,000 parameters"),
    ("17-4", lambda pixels, parameters: units(pixels, parameters) + 0.5, "a whole number"),
    ("17-4", lambda pixels, parameters: units(pixels, parameters, biases=False), "parameters allow"),
    ("17-5", lambda n, c, f, k, s: n**2 * f * c * k**2, "one place for the kernel"),
    ("17-5", lambda n, c, f, k, s: (n - k + 1) ** 2 * f * k**2, "looks at all channels"),
    ("17-5", lambda n, c, f, k, s: (n - k + 1) ** 2 * f * c * k**2, "with a stride of 4"),
    ("17-6", lambda a: (a > 0).any(0).double().mean().item(), "the question is who is out"),
    ("17-6", lambda a: (a == 0).double().mean().item(), "zero for some images"),
    ("17-6", lambda a: (a == 0).any(0).double().mean().item(), "zero for some images"),
    ("17-6", lambda a: (a == 0).all(1).double().mean().item(), "units are columns"),
    ("17-6", lambda a: 0.25, "where all are out"),
    ("17-7", -0.1163, "a positive number"),
    ("17-7", 1.163, "in points"),
    ("17-7", 0.1 / 5**0.5, "here the best is taken"),
    ("17-8", lambda s, gain: math.ceil((3 * s / gain) ** 2), "both means have an error"),
    ("17-8", lambda s, gain: math.floor(2 * (3 * s / gain) ** 2), "round up"),
    ("17-8", lambda s, gain: 4, "it takes 15, not 4"),
]


@pytest.mark.parametrize(("exercise", "answer", "sentence"), MISTAKES)
def test_mistakes_are_named(exercise, answer, sentence, capsys):
    assert_mistake_is_named(exercise, answer, sentence, capsys)


def test_the_best_of_five_is_as_much_too_good_as_a_simulation_says():
    generator = torch.Generator().manual_seed(1)
    best = torch.randn(400_000, 5, generator=generator, dtype=torch.float64).amin(1).mean().item()
    assert -0.1 * best == pytest.approx(0.1163, abs=5e-4)  # four standard errors of the simulation: 4e-4
