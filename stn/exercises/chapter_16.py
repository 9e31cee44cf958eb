"""Checks of chapter 16's exercises: co-localisation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stn.colocalisation import hinge_loss
from stn.exercises.mistakes import expect_right
from stn.exercises.registry import Wrong, exercise, expect


@exercise("16-1")
def term(answer: Any) -> str:
    mistakes = [
        (0.08**0.5 - 0.8**0.5 + 1, "distances are squared"),
        (0.08 - 0.4 + 1, "the window at random is compared with that of its own image, e_1"),
        (0.08 - 0.8, "without the margin alpha"),
        (0.08 + 0.8 + 1, "the second distance is subtracted"),
        (0.0, "the hinge cuts at 0, and this term is above it"),
    ]
    expect_right(answer, 0.28, "the term", mistakes)
    return "Far enough apart by 0.72, and 1 is asked for."


@exercise("16-2")
def blank_loss(answer: Any) -> str:
    mistakes = [
        (0.35, "the black ones at random pay: 0 - 0 + alpha; the others are far enough away"),
        (0.3, "a term is alpha, 0.5, where the window at random is black"),
        (0.5, "only where the window at random is black, too"),
        (0.0, "black windows are alike, but no better than a black one at random"),
    ]
    expect_right(answer, 0.15, "the loss", mistakes)
    return "The blacker the images, the more nothing pays; on a large canvas that is most of them."


@exercise("16-3")
def overlap_of_squares(answer: Callable[..., float]) -> str:
    cases = [
        ((0, 0, 2), (0, 0, 2), 1.0, "two equal squares share all"),
        ((0, 0, 4), (0, 0, 2), 0.25, "a square of a quarter of the area inside another"),
        ((0, 0, 2), (1, 0, 2), 1 / 3, "moved by half a side: 2 shared of 6"),
        ((0, 0, 2), (1, 1, 2), 1 / 7, "moved by half a side in x and y: 1 shared of 7"),
        ((0, 0, 2), (3, 3, 2), 0.0, "squares that lie apart share nothing; two negative sides make no area"),
        ((0, 0, 2), (0, 5, 4), 0.0, "squares that lie apart share nothing"),
    ]
    for a, b, right, sentence in cases:
        given = float(answer(a, b))
        expect(abs(given - right) < 1e-6, f"of {a} and {b}: {sentence}, {right:.3f}, not {given:.3f}")
    return "Half is a high bar: of two equal squares, two thirds must be shared."


@exercise("16-4")
def unit_features(answer: Callable[[list[Tensor]], Tensor]) -> str:
    generator = torch.Generator().manual_seed(0)
    layers = [10 * torch.rand(3, 2, 4, 4, generator=generator), torch.randn(3, 5, generator=generator)]
    given = answer(layers)
    expect(isinstance(given, Tensor), f"a tensor is asked for, not {type(given).__name__}")
    expect(
        tuple(given.shape) == (3, 37),
        f"for 3 images of 32 and 5 activations: (3, 37), not {tuple(given.shape)}",
    )
    norms = [given[:, :32].norm(dim=1), given[:, 32:].norm(dim=1)]
    if torch.allclose(given.norm(dim=1), torch.ones(3), atol=1e-4):
        raise Wrong(
            "each layer by itself should have norm 1: here all together have, and the large one drowns"
        )
    for norm in norms:
        expect(torch.allclose(norm, torch.ones(3), atol=1e-4), "the norm of each image's layer should be 1")
    right = torch.cat([functional.normalize(layer.flatten(1), dim=1) for layer in layers], 1)
    expect(torch.allclose(given, right, atol=1e-5), "the order should be that of the layers, signs kept")
    return "Now no layer can shout another down."


@exercise("16-5")
def loss_of_features(answer: Callable[[Tensor, Tensor, float], Tensor]) -> str:
    e, r = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    given, right = float(answer(e, r, 0.8)), hinge_loss(e, r, 0.8).item()
    alike = (e[:, None] - e).square().sum(2)
    apart = (e - r).square().sum(1, keepdim=True)
    raw = alike - apart + 0.8
    hinged = raw.clamp(min=0)
    mistakes = [
        (hinged.mean().item(), "the diagonal, m = n, should be left out, of the sum and of the count"),
        (hinged.sum().item() / 30, "the diagonal, m = n, should be left out of the sum, too"),
        (30 * _mean_off_diagonal(hinged), "the mean is asked for, not the sum"),
        (_mean_off_diagonal(raw), "each term is cut at 0, before the mean"),
        (
            _mean_off_diagonal((alike - apart.T + 0.8).clamp(min=0)),
            "the window at random is that of image n, the row's",
        ),
    ]
    for value, sentence in mistakes:
        if abs(given - value) < 1e-6 and abs(value - right) > 1e-5:
            raise Wrong(sentence)
    expect(abs(given - right) < 1e-6, f"for some features it should be {right:.4f}, not {given:.4f}")
    return "N (N - 1) terms from one matrix."


@exercise("16-6")
def without_common_motion(answer: Callable[[Tensor], Tensor]) -> str:
    generator = torch.Generator().manual_seed(2)
    theta = torch.randn(4, 3, generator=generator).requires_grad_()
    pull = torch.randn(4, 3, generator=generator) + 1
    given = answer(theta)
    if not torch.allclose(given, theta, atol=1e-6):
        raise Wrong("the values should stay: what is subtracted is added again, without gradient")
    (gradient,) = torch.autograd.grad(given, theta, pull, allow_unused=True)
    expect(gradient is not None, "no gradient comes back at all: only the common motion should be without")
    if torch.allclose(gradient, pull, atol=1e-5):
        raise Wrong("the gradient is what it was: detach what is added again")
    if torch.allclose(gradient.mean(0), torch.zeros(3), atol=1e-5):
        raise Wrong("the scales lost their common gradient as well: leave s alone")
    right = pull - pull.mean(0) * torch.tensor([0.0, 1.0, 1.0])
    expect(
        torch.allclose(gradient, right, atol=1e-5),
        "the gradient of the places should have mean 0 over images",
    )
    return "What is left is how each should move relative to the others."


@exercise("16-7")
def shift_to_middle(answer: Callable[[Tensor, float], Tensor]) -> str:
    picture = torch.zeros(10, 20)
    picture[1, 4], picture[3, 14] = 1.0, 3.0
    right = 0.5 * torch.tensor([0.2, -0.4])
    given = answer(picture, 0.5)
    mistakes = [
        (right / 0.5, "the window is s times as wide as the image: so is every way in it"),
        (right.flip(0), "x before y: columns are x"),
        (-right, "the windows should go to where the mass is: the other way"),
        (torch.tensor([11.5, 2.5]), "that is in pixels of the window, from its corner"),
    ]
    expect_right(given, right, "the shift of the windows", mistakes)
    return "One shift for all: the windows keep agreeing."


def _mean_off_diagonal(matrix: Tensor) -> float:
    return ((matrix.sum() - matrix.diagonal().sum()) / (len(matrix) * (len(matrix) - 1))).item()
