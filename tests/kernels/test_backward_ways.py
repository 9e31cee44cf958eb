"""The ways to the image's gradient agree, and the deterministic ones give the same bits on every run."""

import pytest
import torch

from sampling_cases import (
    AXES,
    INPUT_SIZE,
    MAPS,
    PADDING_MODES,
    SIZE,
    TOLERANCES,
    assert_right,
    converted,
    definition,
    deviation,
    draw_problem,
    has_dimension,
    leaves,
    library,
    pairwise,
)
from stn_kernels import backend
from stn_kernels.autograd import Choices

if not backend.HAS_TRITON:
    pytest.skip("the kernels need Triton", allow_module_level=True)

from stn_kernels import launch, launch_backward

FIXED_POINTS = [name for name, way in launch_backward.WAYS.items() if way.fixed_point]


# --- all ways agree ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "coordinate_map", "mode", "padding_mode", "axes", "dtype"),
    pairwise(
        *[launch_backward.WAYS, MAPS, ("nearest", "bilinear"), PADDING_MODES, (2, 3), TOLERANCES],
        valid=lambda way, m, mode, padding, axes, dtype: has_dimension(m, axes),
    ),
    ids=str,
)
def test_every_way_agrees_for_every_choice(
    kernels, force_way, way, coordinate_map, mode, padding_mode, axes, dtype
):
    """What cannot be gathered is scattered even where gathering is asked for."""
    force_way(way)
    assert_right(kernels, Choices(SIZE[axes], coordinate_map, mode, padding_mode), dtype, transforms=1)


# --- the same bits on every run ----------------------------------------------------------------------------


@pytest.fixture
def shuffle_programs(kernels, monkeypatch):
    """Has the interpreter run the programs of each launch in another order. A GPU does so by itself."""
    if kernels.type == "cuda":
        return lambda seed: None
    from triton.runtime.interpreter import interpreter_builder as builder

    place = builder.set_grid_idx

    def shuffle(seed):
        order = []

        def set_grid_idx(x, y, z):
            if x == 0:
                generator = torch.Generator().manual_seed(seed)
                order[:] = torch.randperm(builder.grid_dim[0], generator=generator).tolist()
            place(order[x], y, z)

        monkeypatch.setattr(builder, "set_grid_idx", set_grid_idx)

    return shuffle


RUNS = 10  # in five the scatter shows the order


@pytest.fixture
def run_again(kernels, monkeypatch, shuffle_programs):
    """Names of the gradients whose bits change when the programs, many and small, run in other orders."""
    for module in (launch, launch_backward):
        monkeypatch.setattr(module, "block_shape", lambda *_, **__: launch.Blocks(2, 4, 4))

    def run(choices, input_size=(4, 3), transforms=4):
        tensors, grad_output = draw_problem(choices, input_size, images=1, transforms=transforms)
        present = leaves(converted(tensors, kernels, torch.float32))
        output = library(choices)(**present)
        gradients = []
        for seed in range(RUNS):
            shuffle_programs(seed)
            gradients.append(
                torch.autograd.grad(output, list(present.values()), grad_output.to(output), retain_graph=True)
            )
        return {
            name
            for name, first, *others in zip(present, *gradients, strict=True)
            if not all(torch.equal(first, other) for other in others)
        }

    return run


@pytest.mark.parametrize("coordinate_map", MAPS)
def test_deterministic_gradients_are_the_same_bits_in_any_order(run_again, coordinate_map):
    """In fixed point: under "constant" affine maps are not gathered either."""
    padding_mode = "constant" if coordinate_map == "affine" else "zeros"
    choices = Choices((2, 4), coordinate_map, padding_mode=padding_mode, deterministic=True)
    assert run_again(choices) == set()


@AXES
def test_gathered_gradients_are_the_same_bits_in_any_order(run_again, axes):
    size, input_size = {2: ((2, 3), (4, 3)), 3: ((2, 1, 3), (2, 3, 2))}[axes]
    assert run_again(Choices(size, "affine", deterministic=True), input_size, transforms=2) == set()


def test_antialiased_gradients_are_the_same_bits_in_any_order(run_again):
    choices = Choices((2, 4), "affine", deterministic=True, antialias=True)
    assert run_again(choices, transforms=3) == set()


@pytest.mark.parametrize("coordinate_map", MAPS)
def test_in_the_scatter_the_order_shows_in_the_images_gradient_only(kernels, run_again, coordinate_map):
    if kernels.type == "cuda":
        pytest.skip("a GPU may well run its programs in the same order each time")
    assert run_again(Choices((2, 4), coordinate_map, "bilinear", "border", False, False)) == {"input"}


@pytest.mark.parametrize(
    ("dtype", "magnitudes"), [(torch.float32, (1e-30, 1e30)), (torch.float64, (1e-200, 1e200))]
)
@pytest.mark.parametrize("way", FIXED_POINTS)
def test_fixed_point_follows_the_gradients_magnitude(kernels, force_way, way, dtype, magnitudes):
    force_way(way)
    choices = Choices(SIZE[2], "affine")
    (image, theta, *_), grad_output = draw_problem(choices, INPUT_SIZE[2], transforms=2)
    (expected,) = torch.autograd.grad(definition(choices)(image.requires_grad_(), theta), image, grad_output)
    single = [t.detach().to(kernels, dtype) for t in (image, theta, grad_output)]
    for magnitude in magnitudes:
        output = library(choices)(single[0].requires_grad_(), single[1])
        (actual,) = torch.autograd.grad(output, single[0], magnitude * single[2])
        assert deviation(actual / magnitude, expected) <= TOLERANCES[dtype], magnitude


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_fixed_point_has_no_room_for_a_gradient_that_is_not_finite_and_says_so(kernels, force_way, value):
    """The whole channel of the image becomes NaN, and no other."""
    force_way("fixed point")
    choices = Choices(SIZE[2], "affine")
    image, theta, *_ = converted(draw_problem(choices, INPUT_SIZE[2])[0], kernels)
    output = library(choices)(image.requires_grad_(), theta)
    grad_output = torch.ones_like(output)
    grad_output[1, 2, 0, 0] = value
    (grad,) = torch.autograd.grad(output, image, grad_output)
    channels = grad.isnan().flatten(2)
    assert channels[1, 2].all()
    assert channels.sum() == channels[1, 2].sum()


# --- which way is chosen -----------------------------------------------------------------------------------


@pytest.fixture
def pytorchs_switch():
    """torch.use_deterministic_algorithms, turned back at the end."""
    before = torch.are_deterministic_algorithms_enabled()
    yield torch.use_deterministic_algorithms
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize(
    ("deterministic", "switch", "expected"),
    [(None, False, False), (None, True, True), (False, True, False), (True, False, True)],
)
@pytest.mark.parametrize(
    ("coordinate_map", "padding_mode", "gathers"),
    [("affine", "zeros", True), ("affine", "border", False), ("grid", "zeros", False)],
)
def test_the_argument_overrules_pytorchs_switch(
    kernels,
    monkeypatch,
    pytorchs_switch,
    coordinate_map,
    padding_mode,
    gathers,
    deterministic,
    switch,
    expected,
):
    pytorchs_switch(switch)
    launched = []

    def spy(name):
        build = getattr(launch_backward, name)

        def built(*arguments):
            launch = build(*arguments)
            launched.append((name, launch.constants["FIXED_POINT"]))
            return launch

        monkeypatch.setattr(launch_backward, name, built)

    spy("scatter_launch")
    spy("gather_launch")
    choices = Choices(SIZE[2], coordinate_map, "bilinear", padding_mode, False, deterministic)
    (image, parameters, *_), grad_output = draw_problem(choices, INPUT_SIZE[2])
    output = library(choices)(image.to(kernels).requires_grad_(), parameters.to(kernels))
    output.backward(grad_output.to(kernels))
    ways = {("scatter_launch", expected)} | ({("gather_launch", True)} if expected and gathers else set())
    assert set(launched) == ways
