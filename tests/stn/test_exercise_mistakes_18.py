"""The typical wrong answers to chapter 18's exercises are rejected, each with the sentence that helps."""

import pytest
import torch
from torch.nn import functional as F

from stn.displacement_fields import jacobian_determinant
from stn_kernels import displacement_sample, grid_sample
from verdicts import assert_mistake_is_named


def grid(flow, width, height, offset=0, own=1):
    a = own * torch.arange(flow.shape[3]) + flow[:, 0]
    b = own * torch.arange(flow.shape[2])[:, None] + flow[:, 1]
    return torch.stack([(2 * a + offset) / width - own, (2 * b + offset) / height - own], dim=-1)


def larger(field, **options):
    return F.interpolate(field, scale_factor=2, **options)


def feature_map(value, height, width):
    return value.transpose(1, 2).unflatten(2, (height, width))


def known(flow):
    return displacement_sample(torch.ones_like(flow[:, :1]), flow) > 0.999


def difference(first, second, flow):
    return (displacement_sample(second, flow) - first).abs()


MISTAKES = [
    ("18-1", lambda f: grid(f, 7, 5, offset=1), "align_corners=False"),
    ("18-1", lambda f: grid(f, 7, 5), "W - 1 pixels apart"),
    ("18-1", lambda f: grid(f, 4, 6), "x is divided by the width"),
    ("18-1", lambda f: grid(f, 6, 4).flip(-1), "x comes before y"),
    ("18-1", lambda f: grid(f.flip(1), 6, 4), "the flow's x"),
    ("18-1", lambda f: grid(f, 6, 4).movedim(-1, 1), "x and y come last"),
    ("18-1", lambda f: grid(f, 6, 4, own=0), "each pixel's own place"),
    ("18-1", lambda f: grid(-f, 6, 4), "not minus"),
    ("18-2", lambda v, f: displacement_sample(v, f), "takes x before y before z"),
    ("18-2", lambda v, f: displacement_sample(v, f[:, [1, 0, 2]]), "all three are the other way round"),
    ("18-2", lambda v, f: displacement_sample(v, f[:, [2, 0, 1]]), "y in the middle"),
    ("18-2", lambda v, f: displacement_sample(v, f.flip(1), unit="normalized"), "in voxels"),
    ("18-2", lambda v, f: displacement_sample(v, -f.flip(1)), "not minus"),
    ("18-3", lambda f: larger(f, mode="bilinear"), "the numbers double, too"),
    ("18-3", lambda f: larger(f, mode="bilinear") / 2, "the numbers double"),
    ("18-3", lambda f: 4 * larger(f, mode="bilinear"), "each number doubles, once"),
    ("18-3", lambda f: 2 * larger(f, mode="bilinear", align_corners=True), "with align_corners=True"),
    ("18-3", lambda f: 2 * larger(f), "repeats each vector"),
    ("18-4", lambda a, b, f: difference(a, b, f).mean(), "over all pixels"),
    ("18-4", lambda a, b, f: (difference(a, b, f) * known(f)).mean(), "divide by the number"),
    ("18-4", lambda a, b, f: difference(a, b, f)[known(f)].sum(), "that is the sum"),
    (
        "18-4",
        lambda a, b, f: difference(a, b, f)[displacement_sample(torch.ones_like(b), f) > 0].mean(),
        "one neighbour of four",
    ),
    ("18-4", lambda a, b, f: difference(a, b, -f)[known(-f)].mean(), "plus the flow"),
    ("18-4", lambda a, b, f: difference(a, b, f)[known(f)].square().mean(), "not its square"),
    ("18-4", lambda a, b, f: difference(b, a, f)[known(f)].mean(), "the second image is warped back"),
    ("18-4", lambda a, b, f: (a - b).abs()[known(f)].mean(), "warp the second image first"),
    ("18-5", lambda f: (jacobian_determinant(f) > 0).double().mean(), "count the negative ones"),
    ("18-5", lambda f: (jacobian_determinant(f) < 0).sum(), "that is how many"),
    ("18-5", lambda f: (jacobian_determinant(f.flip(1)) < 0).double().mean(), "channel 0 is x"),
    ("18-5", lambda f: (jacobian_determinant(f) < 1).double().mean(), "below 1 it shrinks"),
    ("18-6", 2.0, "off by half of it"),
    ("18-6", 0.5, "the leading bit"),
    ("18-6", 2**-9, "in half widths"),
    ("18-6", 2**-8, "the spacing"),
    ("18-7", lambda v, h, w, p: grid_sample(feature_map(v, h, w), p), "from 0 to 1"),
    (
        "18-7",
        lambda v, h, w, p: grid_sample(feature_map(v, h, w), 2 * p - 1, align_corners=True),
        "from edge to edge",
    ),
    ("18-7", lambda v, h, w, p: grid_sample(v.reshape(2, 5, h, w), 2 * p - 1), "mixes channels and places"),
    ("18-7", lambda v, h, w, p: grid_sample(feature_map(v, w, h), 2 * p - 1), "row by row"),
    (
        "18-7",
        lambda v, h, w, p: grid_sample(feature_map(v, h, w), 2 * p - 1).permute(0, 2, 3, 1),
        "their shape is",
    ),
    ("18-7", lambda v, h, w, p: grid_sample(feature_map(v, h, w), 2 * p.flip(-1) - 1), "already"),
]


@pytest.mark.parametrize(("exercise", "answer", "sentence"), MISTAKES)
def test_mistakes_are_named(exercise, answer, sentence, capsys):
    assert_mistake_is_named(exercise, answer, sentence, capsys)


def test_a_forgotten_identity_is_named(capsys):
    def answer(field):
        across, down = field.diff(dim=3)[:, :, :-1], field.diff(dim=2)[..., :-1]
        return (across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0] < 0).double().mean()

    assert_mistake_is_named("18-5", answer, "add 1 to the two slopes", capsys)
