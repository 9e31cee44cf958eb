"""The typical wrong answers to chapter 16's exercises are rejected, each with the sentence that helps."""

import pytest
import torch
from torch.nn import functional

from stn.colocalisation import hinge_loss
from verdicts import assert_mistake_is_named


def squares(signed=False, union=True, half=0.5):
    def overlap(a, b):
        shared = 1.0
        for axis in (0, 1):
            low = max(a[axis] - half * a[2], b[axis] - half * b[2])
            high = min(a[axis] + half * a[2], b[axis] + half * b[2])
            shared *= (high - low) if signed else max(0.0, high - low)
        return shared / (a[2] ** 2 + b[2] ** 2 - (shared if union else 0))

    return overlap


def terms(e, r, alpha):
    return (e[:, None] - e).square().sum(2) - (e - r).square().sum(1, keepdim=True) + alpha


def off_diagonal(matrix):
    return matrix.sum() - matrix.diagonal().sum()


def shift(scaled=True, sign=1.0, swapped=False):
    def shift_to_middle(picture, s):
        height, width = picture.shape
        x, y = ((2 * torch.arange(extent) + 1) / extent - 1 for extent in (width, height))
        place = torch.stack([(picture.sum(0) * x).sum(), (picture.sum(1) * y).sum()]) / picture.sum()
        return sign * (s if scaled else 1) * (place.flip(0) if swapped else place)

    return shift_to_middle


def flat(layers):
    return torch.cat([layer.flatten(1) for layer in layers], 1)


def all_common(theta):
    return theta - theta.mean(0) + theta.mean(0).detach()


MISTAKES = [
    ("16-1", 0.68, "its own image"),
    ("16-1", -0.72, "without the margin"),
    ("16-1", 1.88, "is subtracted"),
    ("16-2", 0.35, "the black ones at random pay"),
    ("16-2", 0.5, "only where the window at random is black"),
    ("16-3", squares(signed=True), "two negative sides make no area"),
    ("16-3", squares(union=False), "two equal squares share all"),
    ("16-4", lambda layers: functional.normalize(flat(layers), dim=1), "the large one drowns"),
    ("16-4", flat, "the norm of each image's layer should be 1"),
    ("16-5", lambda e, r, alpha: terms(e, r, alpha).clamp(min=0).mean(), "should be left out, of the sum"),
    ("16-5", lambda e, r, alpha: off_diagonal(terms(e, r, alpha).clamp(min=0)), "not the sum"),
    ("16-5", lambda e, r, alpha: off_diagonal(terms(e, r, alpha)) / 30, "each term is cut at 0"),
    ("16-5", lambda e, r, alpha: hinge_loss(e, r, 1.0), "for some features it should be"),
    ("16-6", lambda theta: theta - theta.mean(0), "the values should stay"),
    ("16-6", lambda theta: theta.detach() + 0 * theta.detach().requires_grad_(), "no gradient comes back"),
    ("16-6", lambda theta: theta - theta.mean(0) + theta.mean(0), "the gradient is what it was"),
    ("16-6", all_common, "the scales lost their common gradient"),
    ("16-7", shift(scaled=False), "so is every way in it"),
    ("16-7", shift(sign=-1.0), "the other way"),
    ("16-7", shift(swapped=True), "columns are x"),
]


@pytest.mark.parametrize(("exercise", "answer", "sentence"), MISTAKES)
def test_mistakes_are_named(exercise, answer, sentence, capsys):
    assert_mistake_is_named(exercise, answer, sentence, capsys)
