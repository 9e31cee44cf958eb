"""Bad input is refused by an error that names the argument, what it should be and what came."""

import re

import numpy as np
import pytest
import torch

from stn_kernels import affine_sample, grid_sample

INPUT, THETA, GRID, SIZE = torch.zeros(2, 3, 4, 5), torch.zeros(2, 2, 3), torch.zeros(2, 6, 7, 2), (6, 7)
DTYPE = "input's dtype torch.float32"
MESSAGE = r"{name} should .*{expected}.*not .*{came}"


def check(error, call, name, expected, came):
    pattern = MESSAGE.format(name=name, expected=re.escape(expected), came=re.escape(came))
    with pytest.raises(error, match=f"(?s)^{pattern}"):
        call()


@pytest.mark.parametrize(
    ("error", "value", "expected", "came"),
    [
        (TypeError, [[1.0]], "a tensor", "list"),
        (TypeError, None, "a tensor", "NoneType"),
        (TypeError, torch.zeros(2, 3, 4, 5, dtype=torch.uint8), "float32", "torch.uint8"),
        (TypeError, torch.zeros(2, 3, 4, 5, dtype=torch.complex64), "float32", "torch.complex64"),
        (TypeError, torch.zeros(2, 3, 4, 5).to(torch.float8_e4m3fn), "float32", "torch.float8_e4m3fn"),
        (ValueError, torch.zeros(3, 4, 5), "(N, C, H, W)", "(3, 4, 5)"),
        (ValueError, torch.zeros(2, 3, 4, 5, 6), "(N, C, H, W)", "(2, 3, 4, 5, 6)"),
        (ValueError, torch.zeros(2, 3, 0, 5), "at least one pixel", "(2, 3, 0, 5)"),
        (ValueError, torch.zeros(2, 3, 4, 0), "at least one pixel", "(2, 3, 4, 0)"),
    ],
)
def test_input(error, value, expected, came):
    check(error, lambda: affine_sample(value, THETA, SIZE), "input", expected, came)
    check(error, lambda: grid_sample(value, GRID), "input", expected, came)


@pytest.mark.parametrize(
    ("error", "value", "expected", "came"),
    [
        (TypeError, [[1.0]], "a tensor", "list"),
        (TypeError, torch.zeros(2, 2, 3, dtype=torch.int64), "a floating dtype", "torch.int64"),
        (
            TypeError,
            torch.zeros(2, 2, 3, dtype=torch.float64),
            "input's dtype torch.float32",
            "torch.float64",
        ),
        (
            TypeError,
            torch.zeros(2, 2, 3, dtype=torch.float16),
            "input's dtype torch.float32",
            "torch.float16",
        ),
        (ValueError, torch.zeros(2, 3), "(N, 2, 3)", "(2, 3)"),
        (ValueError, torch.zeros(2, 6), "(N, 2, 3)", "(2, 6)"),
        (ValueError, torch.zeros(2, 3, 3), "(N, 2, 3)", "(2, 3, 3)"),
        (ValueError, torch.zeros(2, 2, 2), "(N, 2, 3)", "(2, 2, 2)"),
        (ValueError, torch.zeros(1, 2, 3), "input's batch size 2", "1"),
        (ValueError, torch.zeros(2, 2, 3, device="meta"), "input's device cpu", "meta"),
    ],
)
def test_theta(error, value, expected, came):
    check(error, lambda: affine_sample(INPUT, value, SIZE), "theta", expected, came)


@pytest.mark.parametrize(
    ("error", "value", "expected", "came"),
    [
        (TypeError, ((0.0, 0.0),), "a tensor", "tuple"),
        (TypeError, torch.zeros(2, 6, 7, 2, dtype=torch.int32), "a floating dtype", "torch.int32"),
        (
            TypeError,
            torch.zeros(2, 6, 7, 2, dtype=torch.float64),
            "input's dtype torch.float32",
            "torch.float64",
        ),
        (ValueError, torch.zeros(2, 6, 7), "(N, H', W', 2)", "(2, 6, 7)"),
        (ValueError, torch.zeros(2, 2, 6, 7), "(N, H', W', 2)", "(2, 2, 6, 7)"),
        (ValueError, torch.zeros(2, 5, 6, 7, 3), "(N, H', W', 2)", "(2, 5, 6, 7, 3)"),
        (ValueError, torch.zeros(3, 6, 7, 2), "input's batch size 2", "3"),
        (ValueError, torch.zeros(2, 6, 7, 2, device="meta"), "input's device cpu", "meta"),
    ],
)
def test_grid(error, value, expected, came):
    check(error, lambda: grid_sample(INPUT, value), "grid", expected, came)


def test_empty_grid():
    grid = torch.zeros(2, 0, 7, 2)
    check(ValueError, lambda: grid_sample(INPUT, grid), "grid's H' and W'", "positive", "(0, 7)")


@pytest.mark.parametrize(
    ("error", "value", "expected", "came"),
    [
        (ValueError, 6, "two integers (height, width)", "6"),
        (ValueError, (6,), "two integers (height, width)", "(6,)"),
        (ValueError, (2, 3, 6, 7), "two integers (height, width)", "(2, 3, 6, 7)"),
        (TypeError, (6.0, 7), "two integers (height, width)", "(6.0, 7)"),
        (TypeError, (True, 7), "two integers (height, width)", "(True, 7)"),
        (TypeError, "67", "two integers (height, width)", "'67'"),
        (ValueError, (0, 7), "positive", "(0, 7)"),
        (ValueError, (6, -7), "positive", "(6, -7)"),
    ],
)
def test_size(error, value, expected, came):
    check(error, lambda: affine_sample(INPUT, THETA, value), "size", expected, came)


def test_size_of_numpy_integers():
    assert affine_sample(INPUT, THETA, np.array([6, 7])).shape[2:] == (6, 7)


@pytest.mark.parametrize(
    ("error", "name", "value", "expected"),
    [
        (ValueError, "mode", "bicubique", "'bilinear'"),
        (TypeError, "mode", 0, "'bilinear'"),
        (ValueError, "padding_mode", "wrap", "'zeros', 'border', 'reflection'"),
        (TypeError, "padding_mode", None, "'zeros', 'border', 'reflection'"),
        (TypeError, "align_corners", 1, "True or False"),
        (TypeError, "align_corners", "no", "True or False"),
    ],
)
def test_choices(error, name, value, expected):
    check(error, lambda: affine_sample(INPUT, THETA, SIZE, **{name: value}), name, expected, repr(value))
    check(error, lambda: grid_sample(INPUT, GRID, **{name: value}), name, expected, repr(value))


def test_align_corners_may_be_none_as_in_pytorch():
    image, grid = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 7, 2)
    assert torch.equal(grid_sample(image, grid, align_corners=None), grid_sample(image, grid))
