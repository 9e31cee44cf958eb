"""Bad input is refused by an error that names the argument, what it should be and what came."""

import re

import numpy as np
import pytest
import torch

from stn_kernels import (
    affine_sample,
    basis_sample,
    displacement_sample,
    grid_sample,
    projective_sample,
    sample,
    tps_sample,
)

zeros = torch.zeros
INPUT, VOLUME, SIZE = zeros(2, 3, 4, 5), zeros(2, 3, 4, 5, 6), (6, 7)
THETA, HOMOGRAPHY, GRID = zeros(2, 2, 3), zeros(2, 3, 3), zeros(2, 6, 7, 2)
COEFFICIENTS, BASIS, DISPLACEMENT = zeros(2, 2, 4), zeros(4, 6, 7), zeros(2, 2, 6, 7)
TARGET = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [0.0, 1.0], [0.5, 0.0]])
SOURCE = TARGET.expand(2, 4, 2)
# Each operation with good arguments: (function, positional arguments, keywords).
GOOD = {
    "grid": (grid_sample, (INPUT, GRID), {}),
    "affine": (affine_sample, (INPUT, THETA, SIZE), {}),
    "projective": (projective_sample, (INPUT, HOMOGRAPHY, SIZE), {}),
    "tps": (tps_sample, (INPUT, SOURCE, SIZE), {"target_points": TARGET}),
    "basis": (basis_sample, (INPUT, COEFFICIENTS, BASIS), {}),
    "displacement": (displacement_sample, (INPUT, DISPLACEMENT), {}),
    "sample": (sample, (INPUT, THETA, SIZE), {"coordinate_map": "affine"}),
}
# The second argument of each.
PARAMETERS = {
    "grid": "grid",
    "affine": "theta",
    "projective": "theta",
    "tps": "source_points",
    "basis": "coefficients",
    "displacement": "displacement",
    "sample": "parameters",
}
OPERATIONS = pytest.mark.parametrize("operation", GOOD)


def check(error, name, expected, came, operation, *replaced, **keywords):
    """Calls an operation with its first arguments replaced, and keywords added."""
    function, arguments, others = GOOD[operation]
    pattern = rf"(?s)^{name} should .*{re.escape(expected)}.*not .*{re.escape(came)}"
    with pytest.raises(error, match=pattern):
        function(*replaced, *arguments[len(replaced) :], **{**others, **keywords})


@OPERATIONS
def test_good_arguments_pass(operation):
    function, arguments, keywords = GOOD[operation]
    assert function(*arguments, **keywords).shape == (2, 3, 6, 7)


@OPERATIONS
@pytest.mark.parametrize(
    ("error", "value", "expected", "came"),
    [
        (TypeError, [[1.0]], "a tensor", "list"),
        (TypeError, None, "a tensor", "NoneType"),
        (TypeError, zeros(2, 3, 4, 5, dtype=torch.uint8), "float32", "torch.uint8"),
        (TypeError, zeros(2, 3, 4, 5, dtype=torch.complex64), "float32", "torch.complex64"),
        (TypeError, zeros(2, 3, 4, 5).to(torch.float8_e4m3fn), "float32", "torch.float8_e4m3fn"),
        (ValueError, zeros(3, 4, 5), "(N, C, H, W)", "(3, 4, 5)"),
        (ValueError, zeros(2, 3, 4, 5, 6, 7), "(N, C, D, H, W)", "(2, 3, 4, 5, 6, 7)"),
        (ValueError, zeros(2, 3, 0, 5), "at least one pixel", "(2, 3, 0, 5)"),
        (ValueError, zeros(2, 3, 4, 0), "at least one pixel", "(2, 3, 4, 0)"),
    ],
)
def test_input(operation, error, value, expected, came):
    check(error, "input", expected, came, operation, value)


@OPERATIONS
@pytest.mark.parametrize(
    ("error", "change", "expected", "came"),
    [
        (TypeError, lambda t: t.tolist(), "a tensor", "list"),
        (TypeError, lambda t: t.long(), "a floating dtype", "torch.int64"),
        (TypeError, lambda t: t.double(), "input's dtype torch.float32", "torch.float64"),
        (TypeError, lambda t: t.half(), "input's dtype torch.float32", "torch.float16"),
        (ValueError, lambda t: t.to("meta"), "input's device cpu", "meta"),
    ],
    ids=["list", "integers", "finer", "coarser", "device"],
)
def test_parameters_of_another_kind(operation, error, change, expected, came):
    check(error, PARAMETERS[operation], expected, came, operation, INPUT, change(GOOD[operation][1][1]))


@pytest.mark.parametrize(
    ("operation", "value", "expected"),
    [
        ("grid", zeros(2, 6, 7), "(N, H', W', 2) or (N, T, H', W', 2)"),
        ("grid", zeros(2, 2, 6, 7), "(N, H', W', 2)"),
        ("grid", zeros(2, 5, 6, 7, 3), "(N, T, H', W', 2)"),
        ("grid", zeros(2, 1, 5, 6, 7, 2), "(N, T, H', W', 2)"),
        ("affine", zeros(2, 3), "(N, 2, 3) or (N, T, 2, 3)"),
        ("affine", zeros(2, 6), "(N, 2, 3)"),
        ("affine", zeros(2, 3, 3), "(N, 2, 3)"),
        ("affine", zeros(2, 3, 4), "(N, 2, 3)"),
        ("affine", zeros(2, 1, 1, 2, 3), "(N, T, 2, 3)"),
        ("projective", zeros(2, 2, 3), "(N, 3, 3) or (N, T, 3, 3)"),
        ("tps", zeros(2, 5, 2), "(N, 4, 2) or (N, T, 4, 2)"),
        ("tps", zeros(2, 4, 3), "(N, 4, 2)"),
        ("basis", zeros(2, 2, 5), "(N, 2, 4) or (N, T, 2, 4)"),
        ("basis", zeros(2, 3, 4), "(N, 2, 4)"),
        ("displacement", zeros(2, 6, 7), "(N, 2, H', W') or (N, T, 2, H', W')"),
        ("displacement", zeros(2, 3, 6, 7), "(N, 2, 6, 7)"),
        ("sample", zeros(2, 2, 2), "(M, 2, 3)"),
    ],
)
def test_shape_of_parameters(operation, value, expected):
    check(ValueError, PARAMETERS[operation], expected, str(tuple(value.shape)), operation, INPUT, value)


@pytest.mark.parametrize(
    ("operation", "value", "expected"),
    [
        ("grid", GRID, "(N, D', H', W', 3) or (N, T, D', H', W', 3)"),
        ("affine", THETA, "(N, 3, 4) or (N, T, 3, 4)"),
        ("projective", HOMOGRAPHY, "(N, 4, 4)"),
        ("displacement", DISPLACEMENT, "(N, 3, D', H', W')"),
        ("sample", THETA, "(M, 3, 4)"),
    ],
)
def test_parameters_of_images_for_a_volume(operation, value, expected):
    size = () if operation in ("grid", "displacement") else ((2, 6, 7),)
    came = str(tuple(value.shape))
    check(ValueError, PARAMETERS[operation], expected, came, operation, VOLUME, value, *size)


@pytest.mark.parametrize("operation", [o for o in GOOD if o != "sample"])
def test_batch_of_parameters(operation):
    for batch in (1, 3):
        parameters = GOOD[operation][1][1][:1].repeat_interleave(batch, 0)
        check(ValueError, PARAMETERS[operation], "batch size 2", str(batch), operation, INPUT, parameters)


def test_empty_grids_and_displacements():
    check(ValueError, "grid's size", "positive", "(0, 7)", "grid", INPUT, zeros(2, 0, 7, 2))
    check(ValueError, "displacement's size", "positive", "(6, 0)", "displacement", INPUT, zeros(2, 2, 6, 0))
    check(ValueError, "basis's size", "positive", "(0, 7)", "basis", INPUT, COEFFICIENTS, zeros(4, 0, 7))


@pytest.mark.parametrize("operation", ["affine", "projective", "tps", "sample"])
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
def test_size(operation, error, value, expected, came):
    check(error, "size", expected, came, operation, *GOOD[operation][1][:2], value)


def test_size_of_a_volume():
    theta, expected = zeros(2, 3, 4), "three integers (depth, height, width)"
    check(ValueError, "size", expected, "(6, 7)", "affine", VOLUME, theta, (6, 7))


def test_size_of_numpy_integers(device):
    """Sizes that no other test has, or a launch planned with Python's integers would be found again."""
    output = affine_sample(INPUT.to(device), THETA.to(device), np.array([17, 19]))
    assert output.shape[2:] == (17, 19)


@OPERATIONS
@pytest.mark.parametrize(
    ("error", "name", "value", "expected"),
    [
        (ValueError, "mode", "bicubique", "'bilinear'"),
        (TypeError, "mode", 0, "'bilinear'"),
        (ValueError, "padding_mode", "wrap", "'zeros', 'border', 'reflection', 'constant'"),
        (TypeError, "padding_mode", None, "'zeros', 'border', 'reflection', 'constant'"),
        (TypeError, "align_corners", 1, "True or False"),
        (TypeError, "align_corners", "no", "True or False"),
        (TypeError, "deterministic", 1, "True, False or None"),
    ],
)
def test_choices(operation, error, name, value, expected):
    check(error, name, expected, repr(value), operation, **{name: value})


@OPERATIONS
@pytest.mark.parametrize(
    ("error", "value", "padding_mode", "expected", "came"),
    [
        (TypeError, "0", "constant", "a number or a tensor of shape (C,)", "'0'"),
        (TypeError, True, "constant", "a number or a tensor of shape (C,)", "True"),
        (TypeError, [0.0, 0.0, 0.0], "constant", "a number or a tensor of shape (C,)", "[0.0, 0.0, 0.0]"),
        (ValueError, zeros(2), "constant", "shape () or (3,)", "(2,)"),
        (ValueError, zeros(1), "constant", "shape () or (3,)", "(1,)"),
        (ValueError, zeros(3, 1), "constant", "shape () or (3,)", "(3, 1)"),
        (ValueError, zeros(3, device="meta"), "constant", "input's device cpu", "meta"),
    ],
)
def test_fill_value(operation, error, value, padding_mode, expected, came):
    check(error, "fill_value", expected, came, operation, fill_value=value, padding_mode=padding_mode)


@OPERATIONS
@pytest.mark.parametrize("value", [1.0, zeros(3)], ids=["number", "tensor"])
def test_fill_value_without_its_padding(operation, value):
    function, arguments, keywords = GOOD[operation]
    for padding_mode in ("zeros", "border", "reflection"):
        with pytest.raises(ValueError, match=f"^fill_value .*'constant'.*{padding_mode!r}"):
            function(*arguments, **keywords, padding_mode=padding_mode, fill_value=value)


@pytest.mark.parametrize(
    ("error", "value", "expected", "came"),
    [
        (TypeError, TARGET.tolist(), "a tensor of shape (K, 2)", "list"),
        (TypeError, TARGET.double(), "input's dtype torch.float32", "torch.float64"),
        (ValueError, TARGET[None], "(K, 2)", "(1, 4, 2)"),
        (ValueError, TARGET[:2], "three or more", "2"),
        (ValueError, TARGET.to("meta"), "input's device cpu", "meta"),
    ],
)
def test_target_points(error, value, expected, came):
    check(error, "target_points", expected, came, "tps", target_points=value)


@pytest.mark.parametrize(
    "points",
    [[[0, 0], [0.5, 0.5], [1, 1], [-1, -1]], [[0, 0], [0, 0], [1, 0], [0, 1]]],
    ids=["on a line", "two equal"],
)
def test_target_points_through_which_no_spline_goes(points):
    points = torch.tensor(points, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"^target_points should be distinct and not all on a line"):
        tps_sample(INPUT, SOURCE, SIZE, target_points=points)


def test_splines_of_volumes():
    check(ValueError, "input", "(N, C, H, W)", "(2, 3, 4, 5, 6)", "tps", VOLUME)


@pytest.mark.parametrize(
    ("error", "value", "expected"),
    [
        (TypeError, "1", "a number"),
        (TypeError, True, "a number"),
        (ValueError, -0.1, "not negative"),
        (ValueError, float("nan"), "finite"),
        (ValueError, float("inf"), "finite"),
    ],
)
def test_regularization(error, value, expected):
    check(error, "regularization", expected, repr(value), "tps", regularization=value)


@pytest.mark.parametrize(
    ("error", "value", "expected", "came"),
    [
        (TypeError, None, "a tensor of shape (B, H', W')", "NoneType"),
        (TypeError, BASIS.double(), "input's dtype torch.float32", "torch.float64"),
        (ValueError, BASIS[0], "(B, H', W')", "(6, 7)"),
        (ValueError, BASIS.to("meta"), "input's device cpu", "meta"),
    ],
)
def test_basis(error, value, expected, came):
    check(error, "basis", expected, came, "basis", INPUT, COEFFICIENTS, value)


def test_unit_of_a_displacement():
    check(ValueError, "unit", "'pixel', 'normalized'", "'pixels'", "displacement", unit="pixels")
    check(TypeError, "unit", "'pixel', 'normalized'", "None", "displacement", unit=None)


def test_what_sample_knows_of_maps():
    check(ValueError, "coordinate_map", "'affine'", "'rigid'", "sample", coordinate_map="rigid")
    check(TypeError, "coordinate_map", "'affine'", "None", "sample", coordinate_map=None)
    check(
        ValueError, "parameters", "a multiple of input's batch size 2", "3", "sample", INPUT, zeros(3, 2, 3)
    )
    with pytest.raises(ValueError, match=r"^shared should be None: 'affine' shares nothing"):
        sample(INPUT, THETA, SIZE, coordinate_map="affine", shared=BASIS)
    for shared in (None, [1.0]):
        with pytest.raises(TypeError, match=r"^shared should be a tensor"):
            sample(INPUT, COEFFICIENTS, SIZE, coordinate_map="basis", shared=shared)
    with pytest.raises(ValueError, match=r"^shared should have shape \(B, 6, 7\), not \(4, 2\)"):
        sample(INPUT, COEFFICIENTS, SIZE, coordinate_map="basis", shared=TARGET)
    with pytest.raises(ValueError, match=r"^coordinate_map should not be 'tps' .*2-D only"):
        sample(VOLUME, zeros(2, 2, 7), (2, 6, 7), coordinate_map="tps", shared=TARGET)


def test_align_corners_may_be_none_as_in_pytorch():
    image, grid = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 7, 2)
    assert torch.equal(grid_sample(image, grid, align_corners=None), grid_sample(image, grid))


@pytest.mark.parametrize(("capability", "is_served"), [((6, 1), False), ((7, 0), True), ((12, 0), True)])
def test_a_gpu_that_triton_does_not_compile_for_is_named(kernels, monkeypatch, capability, is_served):
    from stn_kernels import launch

    monkeypatch.setattr(launch, "INTERPRETED", False)
    monkeypatch.setattr(launch, "AMD", False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    table_of = launch.table_of.__wrapped__  # without what it keeps
    if is_served:
        assert table_of(0) == launch.Table()
    else:
        with pytest.raises(RuntimeError, match=r"^A GPU has compute capability 6\.1, .* 7\.0 and later: "):
            table_of(0)
