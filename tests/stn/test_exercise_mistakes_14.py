"""The typical wrong answers to chapter 14's exercises are rejected, each with the sentence that helps."""

import math

import pytest
import torch
import torch.nn.functional as F

import stn
from verdicts import assert_mistake_is_named


def value(image, a, b):
    height, width = image.shape
    total = 0.0
    for n in (math.floor(b), math.floor(b) + 1):
        for m in (math.floor(a), math.floor(a) + 1):
            if 0 <= n < height and 0 <= m < width:
                total += (1 - abs(a - m)) * (1 - abs(b - n)) * float(image[n, m])
    return total


def middles(n):
    return [(i + 0.5) / n - 0.5 for i in range(n)]


def mean_with(
    spread=middles, rounded=math.ceil, columns=lambda J: J, swapped=False, middle=lambda p: p, total=False
):
    """`footprint_mean` with a mistake in one of its parts."""

    def footprint_mean(image, place, J):
        n_x, n_y = (max(1, rounded(length)) for length in J.norm(dim=0).tolist())
        if swapped:
            n_x, n_y = n_y, n_x
        samples = [
            value(image, *middle(place + columns(J) @ torch.tensor([d_x, d_y])).tolist())
            for d_x in spread(n_x)
            for d_y in spread(n_y)
        ]
        return sum(samples) / (1 if total else len(samples))

    return footprint_mean


def to_the_ends(n):
    return torch.linspace(-0.5, 0.5, n).tolist() if n > 1 else [0.0]


def without_the_half(n):
    return [i / n - 0.5 for i in range(n)]


def from_the_corner(n):
    return [(i + 0.5) / n for i in range(n)]


def pooled_with(pool, before=False):
    def sample_and_pool(transform, input, theta, size, times):
        if before:
            return transform.sample(pool(input, times), theta, size)
        return pool(transform.sample(input, theta, (size[0] * times, size[1] * times)), times)

    return sample_and_pool


def pooled_width_first(transform, input, theta, size, times):
    return F.avg_pool2d(transform.sample(input, theta, (size[1] * times, size[0] * times)), times)


def sampled_only(transform, input, theta, size, times):
    return transform.sample(input, theta, size)


def plane(offsets, values):
    with_height = torch.cat([offsets, torch.ones_like(offsets[:, :1])], 1)
    return torch.linalg.lstsq(with_height, values[:, None]).solution[:, 0]


def through_zero(offsets, values):
    return torch.linalg.lstsq(offsets, values[:, None]).solution[:, 0]


def descend(transform, input, wanted, start, scales, steps=100, rate=0.02):
    theta = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([theta], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        output = stn.sample_coarse_to_fine(transform, input, theta, wanted.shape[2:], scales)
        optimiser.zero_grad()
        (output - wanted).square().sum().backward()
        optimiser.step()
        schedule.step()
    return theta.detach()


def aligned_by(scales):
    return lambda transform, input, wanted, start: descend(transform, input, wanted, start, scales)


def aligned_in_the_wrong_order(transform, input, wanted, start):
    near = descend(transform, input, wanted, start, ())
    return descend(transform, input, wanted, near, (8, 24))


@pytest.mark.parametrize(
    ("exercise", "answer", "sentence"),
    [
        ("14-1", [1, 4 / 9, 1 / 9, 4 / 49], "where s is odd"),
        ("14-1", [1 / 4, 1 / 9, 1 / 36, 1 / 49], "where s is even"),
        ("14-1", [1, 1 / 3, 1 / 3, 1 / 7], "along one axis"),
        ("14-1", [0, 8 / 9, 8 / 9, 48 / 49], "not read"),
        ("14-1", [1, 1, 1, 1], "four pixels at most"),
        ("14-2", [1.2, 0.8], "at most a half"),
        ("14-2", [0.2, 0.8], "0.2 back"),
        ("14-2", [0.2, -0.2], "looks like one that runs forwards"),
        ("14-2", [0.3, 0.2], "are four pixels"),
        ("14-2", [0.075, 0.05], "four times as many"),
        ("14-2", [0.05, 0.05], "for each kept pixel is asked for"),
        ("14-3", [4, 2, 4.6], "J's rows"),
        ("14-3", [3, 2, 4.6], "rounded up"),
        ("14-3", [3.0414, 2.3324, 4.6], "whole number"),
        ("14-3", [3, 4, 4.6], "swapped"),
        ("14-3", [4, 3, 2.6], "the determinant is"),
        ("14-3", [4, 3, 12], "the area is"),
        ("14-3", [4, 3, 7.0937], "that is a rectangle"),
        ("14-3", [4, 3, 3.6], "both products"),
        ("14-3", [3, 1, 4.6], "not one entry"),
        ("14-4", mean_with(total=True), "that is the sum"),
        ("14-4", mean_with(spread=lambda n: [0.0]), "in the middle alone"),
        ("14-4", mean_with(columns=lambda J: J.T), "not its rows"),
        ("14-4", mean_with(swapped=True), "n_y to the second"),
        ("14-4", mean_with(spread=to_the_ends), "reach the border"),
        ("14-4", mean_with(spread=without_the_half), "up and left"),
        ("14-4", mean_with(spread=from_the_corner), "not its corner"),
        ("14-4", mean_with(middle=lambda place: place.flip(0)), "is the first coordinate"),
        ("14-4", mean_with(rounded=math.floor), "round up"),
        ("14-5", sampled_only, "plain sampling"),
        ("14-5", pooled_with(lambda fine, times: fine), "not pooled"),
        ("14-5", pooled_with(F.max_pool2d), "not the maximum"),
        ("14-5", pooled_with(lambda fine, times: fine[..., ::times, ::times]), "mean of all"),
        ("14-5", pooled_with(F.avg_pool2d, before=True), "the image is pooled first"),
        ("14-5", pooled_width_first, "height before width"),
        ("14-6", ["tent", "pointed", "binomial"], "plain gradient"),
        ("14-6", ["one pixel", "pointed", "binomial"], "2 + 2 cos"),
        ("14-6", ["one pixel", "tent", "binomial"], "3 + 2 cos"),
        ("14-6", ["one pixel", "tent", "pointed"], "blurred by itself"),
        ("14-6", ["one pixel", "tent", "pointed", "binomial", "box"], "1 + 2 cos"),
        ("14-6", ["one pixel", "tent", "pointed", "binomial", "flat"], "1.5 + 2 cos"),
        ("14-6", ["gaussian"], "there is no 'gaussian'"),
        ("14-6", "tent", "should be a list"),
        ("14-7", lambda offsets, values: plane(offsets, values)[:2].flip(0), "swapped"),
        ("14-7", lambda offsets, values: -plane(offsets, values)[:2], "the sign"),
        ("14-7", plane, "the whole plane"),
        ("14-7", lambda offsets, values: plane(offsets, values)[:2, None], "a column"),
        ("14-7", through_zero, "needs a height"),
        ("14-7", lambda offsets, values: through_zero(offsets, values - values.mean()), "take it from both"),
        ("14-8", lambda transform, input, wanted, start: start, "has not moved"),
        ("14-8", lambda transform, input, wanted, start: start[0], "should return theta"),
        ("14-8", lambda transform, input, wanted, start: start * math.nan, "not finite"),
        ("14-8", aligned_by(()), "not all come home"),
        ("14-8", aligned_by((8, 24)), "only to within a fifth"),
        ("14-8", aligned_in_the_wrong_order, "take the last steps"),
    ],
)
def test_a_typical_mistake_is_named(exercise, answer, sentence, capsys):
    assert_mistake_is_named(exercise, answer, sentence, capsys)
