"""Antialiased sampling, the mean over a pixel's footprint: in reference, kernels and on the CPU path."""

import math

import pytest
import torch
from torch.nn import functional

from sampling_cases import (
    AXES,
    MAPS,
    PADDING_MODES,
    assert_close,
    assert_same,
    converted,
    definition,
    deviation,
    draw_problem,
    has_dimension,
    library,
    pairwise,
    rounding_decides,
    values_and_gradients,
)
from stn_kernels import affine_sample, antialiasing, backend, displacement_sample, grid_sample, reference
from stn_kernels.autograd import Choices

INPUT_SIZE = {2: (5, 7), 3: (3, 3, 4)}
SIZE = {2: (3, 4), 3: (2, 2, 3)}


def antialiased(size, coordinate_map, *others, **keywords):
    return Choices(size, coordinate_map, *others, antialias=True, **keywords)


def footprints(tensors, choices, input_size):
    _, parameters, shared, _ = tensors
    arguments = (choices.coordinate_map, input_size, choices.size, choices.align_corners)
    return reference.footprints(parameters, shared, *arguments)


def near_step(footprints):
    """Whether some column is nearly so long that one more sample is taken: rounding may decide otherwise."""
    lengths = footprints.columns.square().sum(-2).sqrt() - antialiasing.TOLERANCE
    return bool(((lengths - lengths.round()).abs() < 1e-3)[footprints.counts > 1].any())


def draw(choices, images=2, transforms=1, channels=2, layout="contiguous", input_size=None):
    """A problem whose largest footprints take few samples, interpreted one after another: maps are
    drawn more and more gentle until that is so."""
    axes = len(choices.size)
    input_size = input_size or INPUT_SIZE[axes]
    for attempt in range(200):
        tensors, grad_output = draw_problem(choices, input_size, images, transforms, channels, layout)
        image, parameters, shared, fill = tensors
        gentle = torch.full((), 0.97**attempt).double().expand_as(parameters).clone()
        if choices.coordinate_map == "projective":
            gentle[:, -1] = 1
        tensors = (image, (gentle * parameters).float().double(), shared, fill)
        drawn = footprints(tensors, choices, input_size)
        most = drawn.counts.prod(-1).max()
        if 1 < most <= (6 if axes == 2 else 8) and not near_step(drawn):
            return tensors, grad_output
    raise AssertionError("no gentle map was drawn")


# --- what it is for ----------------------------------------------------------------------------------------


def shrinking(image, shrink, angle=0.3, shift=0.0137):
    """theta (1, 2, 3) by which neighbouring pixels of the output lie `shrink` pixels of the image apart, and
    the output's size."""
    height, width = image.shape[2:]
    size = (max(round(height / shrink), 1), max(round(width / shrink), 1))
    cos, sin = shrink * math.cos(angle), shrink * math.sin(angle)
    rows = [
        [cos * size[1] / width, -sin * size[0] / width, shift],
        [sin * size[1] / height, cos * size[0] / height, -shift],
    ]
    return torch.tensor([rows], dtype=image.dtype, device=image.device), size


def footprint_mean(image, theta, size, padding_mode, samples=20):
    """By brute force: bilinear samples at 400 points of each output pixel."""
    fine = [samples * s for s in size]
    grid = functional.affine_grid(theta, [1, 1, *fine], align_corners=False)
    values = functional.grid_sample(image, grid, "bilinear", padding_mode, align_corners=False)
    return functional.avg_pool2d(values, samples)


def picture(kind):
    generator = torch.Generator().manual_seed(0)
    if kind == "noise":
        return torch.randn(1, 1, 61, 53, generator=generator)
    rows, columns = torch.arange(61)[:, None], torch.arange(53)[None, :]
    strokes = torch.zeros(61, 53)
    for y, x, radius in [(20, 20, 13.0), (41, 20, 12.0), (30, 38, 9.0), (30, 38, 4.5)]:
        distance = ((rows - y) ** 2 + (columns - x) ** 2).sqrt()
        strokes = torch.maximum(strokes, (1.5 - (distance - radius).abs()).clamp(0, 1))
    return strokes[None, None]


@pytest.mark.parametrize(("kind", "padding_mode"), [("noise", "zeros"), ("strokes", "border")])
@pytest.mark.parametrize("shrink", [2, 3, 4, 8])
def test_the_error_is_a_fraction_of_plain_samplings(device, shrink, kind, padding_mode):
    """A fifth, where a third would do: measured 0.004 to 0.07 for 3 and more, 0.13 to 0.21 for 2."""
    image = picture(kind).to(device)
    theta, size = shrinking(image, shrink)
    expected = footprint_mean(image, theta, size, padding_mode)
    errors = [
        affine_sample(image, theta, size, padding_mode=padding_mode, antialias=a) - expected
        for a in (False, True)
    ]
    plain, ours = (float(error.square().mean().sqrt()) for error in errors)
    assert ours <= plain / (3 if shrink == 2 else 5)


def test_a_single_pixel_is_the_mean_of_the_image(device):
    """Along each axis one sample for each pixel, at its centre."""
    image = torch.randn(1, 3, 3, 16, device=device)
    theta = torch.eye(2, 3, device=device)[None]
    output = affine_sample(image, theta, (1, 1), antialias=True)
    torch.testing.assert_close(output, image.mean((2, 3), keepdim=True))


@AXES
def test_shrinking_by_a_whole_number_takes_so_many_samples(axes):
    for factor in (2, 3, 5):
        size = (7, 11, 13)[:axes]
        theta = torch.eye(axes, axes + 1)[None]
        input_size = tuple(factor * s for s in size)
        found = reference.footprints(theta, None, "affine", input_size, size, False)
        assert (found.counts == factor).all()


def test_there_is_a_limit(cpu_path):
    theta = torch.eye(2, 3)[None]
    found = reference.footprints(theta, None, "affine", (2000, 34), (2, 2), False)
    assert found.counts.flatten(0, 2).unique(dim=0).tolist() == [[16, 16]]
    found = reference.footprints(theta, None, "affine", (2000, 30), (2, 2), False)
    assert found.counts.flatten(0, 2).unique(dim=0).tolist() == [[15, 16]]


# --- where nothing changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("coordinate_map", ["affine", "projective", "grid", "displacement"])
def test_magnified_pixels_are_sampled_plainly(device, coordinate_map, mode):
    """The same bits, turned or not, and the same gradients."""
    choices = antialiased((7, 9), coordinate_map, mode, "border")
    (image, parameters, *_), grad_output = draw_problem(choices, (4, 5), images=2, channels=2)
    turn = torch.tensor([[0.8, -0.6, 0.1], [0.6, 0.8, 0.0], [0.05, 0.02, 1.2]]).double()
    if coordinate_map in ("affine", "projective"):
        parameters = turn[: 3 if coordinate_map == "projective" else 2].expand(2, -1, 3).contiguous()
    elif coordinate_map == "grid":
        parameters = functional.affine_grid(turn[:2].expand(2, 2, 3), [2, 1, 7, 9], align_corners=False)
    else:
        parameters = 0.02 * parameters
    tensors = converted((image, parameters, None, None), device)
    results = [
        values_and_gradients(library(c), tensors, grad_output.to(device))
        for c in (choices, choices._replace(antialias=False))
    ]
    assert torch.equal(results[0]["output"], results[1]["output"])
    assert_close(*results, 1e-13)


def test_pixels_do_not_depend_on_others(device):
    """One transform magnifies, others shrink: the same bits as alone."""
    image = torch.randn(1, 2, 20, 20, device=device)
    theta = torch.tensor([[0.3, 0, 0], [0, 0.3, 0.1]], device=device)
    thetas = torch.stack([theta, 3 * theta, 5 * theta])[None]
    together = affine_sample(image, thetas, (5, 6), antialias=True)
    for i in range(3):
        assert torch.equal(together[:, i], affine_sample(image, thetas[:, i], (5, 6), antialias=True))


# --- the reference is what the kernels compute -------------------------------------------------------------


@pytest.mark.parametrize(
    ("coordinate_map", "axes", "mode", "padding_mode", "align_corners", "layout", "transforms"),
    pairwise(
        *[MAPS, (2, 3), ("bilinear", "bicubic"), PADDING_MODES, (False, True)],
        *[("contiguous", "channels_last"), (1, 2)],
        valid=lambda m, axes, mode, *_: has_dimension(m, axes) and (axes == 2 or mode != "bicubic"),
    ),
)
def test_values_and_gradients_equal_the_reference(
    kernels, coordinate_map, axes, mode, padding_mode, align_corners, layout, transforms
):
    choices = antialiased(SIZE[axes], coordinate_map, mode, padding_mode, align_corners)
    tensors, grad_output = draw(choices, images=1, transforms=transforms, layout=layout)
    actual = values_and_gradients(library(choices), converted(tensors, kernels), grad_output.to(kernels))
    assert_close(actual, values_and_gradients(definition(choices), tensors, grad_output))


@pytest.mark.parametrize("coordinate_map", ["affine", "projective", "grid", "displacement", "basis", "tps"])
def test_the_cpu_path_equals_the_reference(cpu_path, coordinate_map):
    for padding_mode in ("zeros", "reflection"):
        choices = antialiased(SIZE[2], coordinate_map, "bilinear", padding_mode)
        tensors, grad_output = draw(choices, transforms=2)
        actual = values_and_gradients(library(choices), tensors, grad_output)
        assert_close(actual, values_and_gradients(definition(choices), tensors, grad_output))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 2e-3)])
@pytest.mark.parametrize("coordinate_map", ["affine", "grid"])
def test_lower_precision_rounds_only(device, coordinate_map, dtype, tolerance):
    """float16 keeps the image's eleven bits; parameters stay float32."""
    choices = antialiased(SIZE[2], coordinate_map)
    (image, parameters, *_), grad_output = draw(choices)
    expected = values_and_gradients(definition(choices), (image, parameters, None, None), grad_output)
    tensors = (image.to(device, dtype), parameters.to(device, torch.float32), None, None)
    actual = values_and_gradients(library(choices), tensors, grad_output.to(device, dtype))
    assert_close(actual, expected, tolerance)


def test_any_strides(kernels):
    choices = antialiased(SIZE[2], "affine")
    (image, theta, *_), grad_output = draw(choices)
    strided = image.to(kernels).transpose(2, 3).contiguous().transpose(2, 3)
    strided = strided.repeat_interleave(2, 1)[:, ::2]
    actual = values_and_gradients(
        library(choices), (strided, theta.to(kernels), None, None), grad_output.to(kernels)
    )
    assert_close(actual, values_and_gradients(definition(choices), (image, theta, None, None), grad_output))


def test_many_tiles_and_channels_agree(kernels, monkeypatch):
    """Neighbours across the tiles' borders, and footprints computed once for several blocks of channels."""
    from stn_kernels import launch, launch_backward, launch_collect

    for module in (launch, launch_backward, launch_collect):
        monkeypatch.setattr(module, "block_shape", lambda *_, **__: launch.Blocks(2, 2, 2))
    for coordinate_map in ("affine", "grid", "basis"):
        choices = antialiased((3, 5), coordinate_map)
        tensors, grad_output = draw(choices, images=1, channels=3)
        actual = values_and_gradients(library(choices), converted(tensors, kernels), grad_output.to(kernels))
        assert_close(actual, values_and_gradients(definition(choices), tensors, grad_output))


def test_a_grid_of_an_affine_map_has_its_footprints(device):
    """Differences between pixels are exact where the map is affine."""
    image = torch.randn(1, 1, 21, 19, device=device, dtype=torch.float64)
    theta, size = shrinking(image, 3.4)
    grid = reference.affine_grid(theta, size)
    expected = affine_sample(image, theta, size, antialias=True)
    assert deviation(grid_sample(image, grid, antialias=True), expected) <= 1e-12
    identity = reference.affine_grid(torch.eye(2, 3, dtype=theta.dtype, device=device)[None], size)
    displaced = displacement_sample(
        image, (grid - identity).movedim(-1, 1), unit="normalized", antialias=True
    )
    assert deviation(displaced, expected) <= 1e-12


# --- derivatives -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coordinate_map", ["affine", "projective", "tps", "grid"])
def test_gradients_are_those_of_the_mean(device, coordinate_map):
    choices = antialiased((2, 2), coordinate_map, padding_mode="constant")
    tensors, _ = draw(choices, images=1, channels=1, input_size=(5, 5))
    present = [t.to(device).requires_grad_() for t in tensors if t is not None]
    places = [t is not None for t in tensors]

    def function(*some):
        rest = iter(some)
        return library(choices)(*(next(rest) if there else None for there in places))

    assert torch.autograd.gradcheck(function, present, fast_mode=True, nondet_tol=1e-12)


@pytest.mark.parametrize("coordinate_map", ["affine", "grid"])
def test_second_derivatives_and_forward_mode(cpu_operators, coordinate_map):
    choices = antialiased((2, 2), coordinate_map)
    (image, parameters, *_), _ = draw(choices, images=1, channels=1, input_size=(5, 5))

    def function(image, parameters):
        return library(choices)(image, parameters)

    leaves = [image.requires_grad_(), parameters.requires_grad_()]
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)
    tangents = [torch.randn_like(t) for t in leaves]
    primals = tuple(t.detach() for t in leaves)
    _, actual = torch.func.jvp(function, primals, tuple(tangents))
    step = 1e-6
    ahead, behind = (
        function(*(p + s * t for p, t in zip(primals, tangents, strict=True))) for s in (step, -step)
    )
    assert deviation(actual, (ahead - behind) / (2 * step)) <= 1e-7


@pytest.fixture
def few_samples(monkeypatch):
    """As many as `draw` allows, where all are taken because none can be seen: 256 would take minutes."""
    monkeypatch.setattr(antialiasing, "MOST_SAMPLES", 6)


def test_a_map_that_hides_its_values_takes_all_samples(cpu_operators, few_samples):
    """vmap over second derivatives: the reference cannot look how many samples suffice."""
    choices = antialiased((1, 2), "affine")
    draws = [draw(choices, images=1, channels=1, input_size=(4, 4))[0][:2] for _ in range(2)]

    def loss(theta, image):
        return library(choices)(image, theta).square().sum()

    images, thetas = (torch.stack(same) for same in zip(*draws, strict=True))
    actual = torch.func.vmap(torch.func.grad(lambda t, i: torch.func.grad(loss)(t, i).square().sum()))(
        thetas, images
    )
    for i in range(2):
        expected = torch.func.grad(lambda t, i=i: torch.func.grad(loss)(t, images[i]).square().sum())(
            thetas[i]
        )
        assert deviation(actual[i], expected) <= 1e-10


# --- determinism -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coordinate_map", ["affine", "grid"])
def test_deterministic_gradients_are_right_and_in_fixed_point(kernels, monkeypatch, coordinate_map):
    """What `test_backward_ways` shows to be the same bits in any order; nothing antialiased is gathered."""
    from stn_kernels import launch_backward

    launched = []
    build = launch_backward.scatter_launch

    def spy(*arguments):
        launch = build(*arguments)
        launched.append((launch.constants["NEED_INPUT"], launch.constants["FIXED_POINT"]))
        return launch

    monkeypatch.setattr(launch_backward, "scatter_launch", spy)
    monkeypatch.setattr(launch_backward, "gather_launch", None)  # not called
    choices = antialiased(SIZE[2], coordinate_map, deterministic=True)
    tensors, grad_output = draw(choices, transforms=2, images=1)
    actual = values_and_gradients(library(choices), converted(tensors, kernels), grad_output.to(kernels))
    assert launched == [(True, True)]
    assert_close(actual, values_and_gradients(definition(choices), tensors, grad_output))


# --- undefined and far -------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_a_point_without_bounds_concerns_its_own_pixel(device, padding_mode, value):
    """Its neighbours, which have no footprint then, are sampled at their points."""
    choices = antialiased((3, 4), "grid", "bilinear", padding_mode)
    tensors, grad_output = draw(choices)
    tensors[1][0, 1, 2, 1] = value
    actual = values_and_gradients(library(choices), converted(tensors, device), grad_output.to(device))
    expected = values_and_gradients(definition(choices), tensors, grad_output)
    assert_same(actual, expected, rounding_decides(device, padding_mode, value))
    assert actual["output"][1].isfinite().all()
    if value != 1e30:  # which is far, and so makes its neighbours' footprints long
        undefined = torch.zeros(2, 3, 4, dtype=torch.bool)
        undefined[0, 1, 2] = math.isnan(value) or padding_mode == "reflection"
        assert torch.equal(actual["output"].isnan().any(1).cpu(), undefined)
        assert torch.equal(actual["gradient of parameters"].isnan().any(-1).cpu(), undefined)
        assert actual["gradient of input"].isfinite().all()


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -1e30])
def test_transforms_without_bounds_follow_the_reference(device, padding_mode, value):
    choices = antialiased((2, 3), "affine", "bilinear", padding_mode)
    tensors, grad_output = draw(choices, images=1, transforms=2, input_size=(4, 5))
    tensors[1][1, 0, 2] = value
    actual = values_and_gradients(library(choices), converted(tensors, device), grad_output.to(device))
    expected = values_and_gradients(definition(choices), tensors, grad_output)
    assert_same(actual, expected, rounding_decides(device, padding_mode, value))
    if not math.isfinite(value):
        plain = library(choices._replace(antialias=False))(*converted(tensors, device))
        torch.testing.assert_close(actual["output"][1], plain[1], equal_nan=True)


# --- in PyTorch --------------------------------------------------------------------------------------------

SMALL = antialiased((2, 3), "affine")


@pytest.fixture(params=["kernels", "cpu_path"])
def plain_device(request):
    return request.getfixturevalue(request.param)


def draw_affine(device, images=1, transforms=1):
    (image, theta, *_), grad_output = draw(SMALL, images, transforms, input_size=(5, 6))
    return image.to(device), theta.to(device), grad_output.to(device)


def warp(image, theta):
    return affine_sample(image, theta, SMALL.size, antialias=True)


@pytest.mark.parametrize("coordinate_map", ["affine", "grid"])
def test_operators_pass_opcheck(plain_device, few_samples, coordinate_map):
    choices = antialiased((2, 3), coordinate_map)
    tensors, grad_output = draw(choices, images=1, input_size=(5, 6))
    tensors = [None if t is None else t.to(plain_device).requires_grad_() for t in tensors]
    grad_output = grad_output.to(plain_device).requires_grad_()
    operators, needs = torch.ops.stn_kernels, [t is not None for t in tensors]
    torch.library.opcheck(operators.sample.default, (*tensors, *choices))
    # Without tracing its own backward: the reference's second derivatives of every sample take minutes.
    quick = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = (grad_output, *tensors, *choices, *needs)
    torch.library.opcheck(operators.sample_backward.default, arguments, test_utils=quick)


@pytest.mark.filterwarnings("error:Dynamo")
def test_compiled_whole(plain_device):
    torch.compiler.reset()
    image, theta, grad_output = draw_affine(plain_device)
    results = []
    for function in (warp, torch.compile(warp, fullgraph=True, backend="aot_eager")):
        leaves = [image.detach().requires_grad_(), theta.detach().requires_grad_()]
        output = function(*leaves)
        results.append((output.detach(), *torch.autograd.grad(output, leaves, grad_output)))
    for actual, expected in zip(*results, strict=True):
        assert deviation(actual, expected) <= 1e-14


def test_exported(plain_device):
    class Warp(torch.nn.Module):
        def forward(self, image, theta):
            return warp(image, theta)

    image, theta, _ = draw_affine(plain_device)
    program = torch.export.export(Warp(), (image, theta))
    assert deviation(program.module()(image, theta), warp(image, theta)) <= 1e-14


def test_vmap_equals_a_loop(plain_device):
    draws = [draw_affine(plain_device) for _ in range(2)]
    images, thetas = torch.stack([d[0] for d in draws]), torch.stack([d[1] for d in draws])

    def gradient(image, theta):
        return torch.func.grad(lambda t: warp(image, t).square().sum())(theta)

    for function in (warp, gradient):
        actual = torch.func.vmap(function)(images, thetas)
        expected = torch.stack([function(i, t) for i, t, _ in draws])
        assert deviation(actual, expected) <= 1e-13


@pytest.mark.parametrize("value", [1, "true", None])
def test_the_error_names_the_argument(value):
    image, theta = torch.zeros(1, 1, 2, 2), torch.eye(2, 3)[None]
    with pytest.raises(TypeError, match="antialias should be True or False, not"):
        affine_sample(image, theta, (2, 2), antialias=value)


@pytest.mark.skipif(not backend.HAS_TRITON, reason="the kernels need Triton")
def test_nothing_is_compiled_for_footprints_when_off():
    """Off, the launch's constants leave out all of it, and the map is evaluated once a pixel."""
    from stn_kernels import launch

    image, theta = torch.zeros(1, 1, 8, 8), torch.eye(2, 3)[None]
    for choices in (Choices((2, 2), "affine"), SMALL._replace(size=(2, 2))):
        planned = launch.forward_launch(torch.zeros(1, 1, 2, 2), (image, theta, None, None), choices)
        assert planned.constants["ANTIALIAS"] == choices.antialias
        assert planned.constants["BETWEEN_PIXELS"] == choices.antialias
