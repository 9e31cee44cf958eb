"""However the work is cut into programs, blocks and vectors, the result is the same."""

import gc
import weakref

import pytest
import torch

import stn_kernels
from sampling_cases import (
    AXES,
    LAYOUTS,
    MAPS,
    assert_close,
    converted,
    definition,
    deviation,
    draw_problem,
    has_dimension,
    library,
    pairwise,
    values_and_gradients,
)
from stn_kernels import backend
from stn_kernels.autograd import Choices

if not backend.HAS_TRITON:
    pytest.skip("the kernels need Triton", allow_module_level=True)

from stn_kernels import launch, launch_backward
from stn_kernels.layouts import index_dtype, vector

INPUT_SIZE = {2: (5, 6), 3: (3, 4, 3)}
SIZE = {2: (6, 7), 3: (2, 3, 7)}
# Of (6, 7) and of (2 x 3, 7): rows of tiles that overhang the output; two by two, which do so on both sides;
# one larger than all.
BLOCKS = {
    "rows": launch.Blocks(2, 8, 4),
    "rows and columns": launch.Blocks(4, 4, 2),
    "one": launch.Blocks(16, 16, 16),
}


@pytest.fixture
def force_blocks(monkeypatch):
    def force(blocks):
        for module in (launch, launch_backward):
            monkeypatch.setattr(module, "block_shape", lambda *_, **__: blocks)

    return force


@pytest.mark.parametrize(
    ("coordinate_map", "axes", "blocks", "channels", "layout", "padding_mode", "deterministic"),
    pairwise(
        *[MAPS, (2, 3), BLOCKS, (1, 6), LAYOUTS, ("zeros", "constant"), (False, True)],
        valid=lambda m, axes, *_: has_dimension(m, axes),
    ),
)
def test_every_block_shape_agrees_with_the_reference(
    kernels, force_blocks, coordinate_map, axes, blocks, channels, layout, padding_mode, deterministic
):
    force_blocks(BLOCKS[blocks])
    choices = Choices(SIZE[axes], coordinate_map, "bilinear", padding_mode, False, deterministic)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[axes], images=1, channels=channels, layout=layout)
    actual = values_and_gradients(library(choices), converted(tensors, kernels), grad_output.to(kernels))
    assert_close(actual, values_and_gradients(definition(choices), tensors, grad_output))


@pytest.mark.parametrize(("enough", "programs"), [(1, 4), (8, 8), (10**6, 20)])
def test_channels_split_over_programs_agree_with_the_reference(
    kernels, force_blocks, monkeypatch, enough, programs
):
    """Four tiles, each with five blocks of channels, for one program, for two (3 + 2), for one each."""
    force_blocks(launch.Blocks(8, 4, 2))
    monkeypatch.setattr(launch, "table", lambda: launch.Table(enough_programs=enough))
    choices = Choices(SIZE[2], "affine")
    tensors, _ = draw_problem(choices, INPUT_SIZE[2], channels=9)
    tensors = converted(tensors, kernels)
    output = tensors[0].new_full((2, 9, *SIZE[2]), torch.nan)
    run = launch.forward_launch(output, tensors, choices)
    assert run.programs == programs
    run.run()
    assert deviation(output, definition(choices)(*tensors)) <= 1e-10


@pytest.mark.parametrize(
    ("axes", "dtype", "channels"),
    pairwise((2, 3), (torch.float16, torch.float32, torch.float64), (1, 3, 6, 12, 24)),
)
def test_channels_last_vectors_of_every_width_agree_with_the_reference(kernels, axes, dtype, channels):
    """`unit` channels make a vector as long as it has at most 16 bytes."""
    unit = {1: 0, 3: 1, 6: 2, 12: 4, 24: 8}[channels]
    choices = Choices(SIZE[axes], "affine")
    tensors, grad_output = draw_problem(
        choices, INPUT_SIZE[axes], images=1, channels=channels, layout="channels_last"
    )
    image, theta = tensors[0].to(dtype), tensors[1].to(torch.promote_types(dtype, torch.float32))
    grad_output = grad_output.to(dtype)
    assert vector(image) == min(unit, 16 // image.element_size())
    actual = values_and_gradients(
        library(choices), (*converted((image, theta), kernels), None, None), grad_output.to(kernels)
    )
    doubled = (*converted((image, theta), torch.float64), None, None)
    expected = values_and_gradients(definition(choices), doubled, grad_output.double())
    # Tens of roundings of the coordinates, which half a unit in the last place of float16 covers.
    assert_close(actual, expected, {torch.float16: 2**-11, torch.float32: 1e-5, torch.float64: 1e-10}[dtype])


@pytest.mark.parametrize(
    ("coordinate_map", "row"), [("affine", 6), ("projective", 9), ("basis", 8), ("tps", 16 + 10)]
)
def test_sums_over_runs_of_tiles_agree_with_the_reference(
    kernels, force_blocks, monkeypatch, coordinate_map, row
):
    """Of two transforms' four tiles each: in one run, in two (3 + 1), one by one."""
    force_blocks(launch.Blocks(4, 4, 4))
    choices = Choices(SIZE[2], coordinate_map)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[2])
    tensors, grad_output = converted(tensors, kernels), grad_output.to(kernels)
    expected = values_and_gradients(definition(choices), tensors, grad_output)
    runs, scatter_launch = set(), launch_backward.scatter_launch

    def counted(*arguments):
        run = scatter_launch(*arguments)
        runs.add(run.programs)
        return run

    monkeypatch.setattr(launch_backward, "scatter_launch", counted)
    for tiles in (4, 3, 1):
        # A row of sums may take this share of what its tiles, of 16 pixels each, would take of a grid.
        monkeypatch.setattr(launch_backward, "PARTIAL_SUMS", row / (tiles * 2 * 16))
        assert_close(values_and_gradients(library(choices), tensors, grad_output), expected)
    assert {2, 4, 8} <= runs


@pytest.mark.parametrize("coordinate_map", MAPS)
def test_repeated_runs_give_the_same_bits(kernels, coordinate_map):
    choices = Choices(SIZE[2], coordinate_map)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[2], transforms=2)
    tensors, grad_output = converted(tensors, kernels, torch.float32), grad_output.to(kernels, torch.float32)
    first, second = (values_and_gradients(library(choices), tensors, grad_output) for _ in range(2))
    if kernels.type == "cuda":  # it adds to the image's gradient in no fixed order
        del first["gradient of input"]
    for name, result in first.items():
        assert torch.equal(result, second[name]), name


@AXES
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
def test_nothing_outside_of_output_and_gradient_is_written(kernels, axes, mode, padding_mode):
    """Both are views into larger tensors, of which the rest stays as it was."""
    choices = Choices(SIZE[axes], "grid", mode, padding_mode)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[axes], images=1)
    tensors, grad_output = converted(tensors, kernels), grad_output.to(kernels)
    expected = values_and_gradients(definition(choices), tensors, grad_output)
    within = (..., *[slice(2, -2)] * axes)

    def around(tensor):
        return torch.nn.functional.pad(torch.zeros_like(tensor), [2] * (2 * axes), value=7.0)

    output, grad_input = around(expected["output"]), around(tensors[0])
    launch.forward_launch(output[within], tensors, choices).run()
    sums = launch_backward.Sums(grad_input=grad_input[within])
    launch_backward.scatter_launch(grad_output, tensors, choices, sums).run()
    for written, name in ((output, "output"), (grad_input, "gradient of input")):
        assert deviation(written[within], expected[name]) <= 1e-10
        written[within] = 7.0
        assert (written == 7.0).all()


# --- 64-bit indices: on tensors without memory -------------------------------------------------------------


def far_apart(shape, strides=None):
    """A tensor of any reach, that holds no data."""
    tensor = torch.empty(shape, device="meta")
    return tensor if strides is None else tensor.as_strided(shape, strides)


@pytest.mark.parametrize(
    ("tensor", "bits"),
    [
        (far_apart((2, 3, 2**10, 2**10)), 32),
        (far_apart((1, 1, 2**15, 2**16)), 64),
        (far_apart((1, 1, 2, 2), (2**31, 2**31, 2**31, 1)), 64),
        (far_apart((2**12, 1, 2**10, 2**10), (0, 0, 2**10, 1)), 32),
        (far_apart((1, 1, 2**10, 2**10, 2**11)), 64),
    ],
    ids=["small", "many elements", "few elements far apart", "many elements on few", "a volume"],
)
def test_index_width_follows_the_storage_reached(tensor, bits):
    assert index_dtype(far_apart((1,)), tensor).primitive_bitwidth == bits


BATCH, SIDE = 2**11, (2**10, 2**10)
GRID = (BATCH, *SIDE, 2)


def launches_of_large(which):
    """Forward, scatter and gather launches with tensors on little storage but one."""

    def expanded(name, shape):
        return far_apart(shape, None if name == which else (0,) * len(shape))

    coordinate_map = {"theta": "affine", "gathered": "affine", "basis": "basis"}.get(which, "grid")
    image = expanded("input", (BATCH, 1, *SIDE))
    parameters, shared = expanded("grid", GRID), None
    if coordinate_map == "affine":
        parameters = far_apart((BATCH, 2, 3), (2**21 if which == "theta" else 0, 3, 1))
    if coordinate_map == "basis":
        parameters, shared = far_apart((BATCH, 2, 2**11), (0, 2**11, 1)), expanded("basis", (2**11, *SIDE))
    choices = Choices(SIDE, coordinate_map)
    tensors = (image, parameters, shared, None)
    forward = launch.forward_launch(expanded("output", (BATCH, 1, *SIDE)), tensors, choices)
    sums = launch_backward.Sums(
        grad_input=expanded("gradient of input", (BATCH, 1, *SIDE)),
        grad_parameters=expanded("gradient of grid", GRID) if coordinate_map == "grid" else None,
    )
    grad_output = expanded("gradient of output", (BATCH, 1, *SIDE))
    scatter = launch_backward.scatter_launch(grad_output, tensors, choices, sums)
    gather = launch_backward.gather_launch(
        expanded("gathered", (BATCH, 1, *SIDE)), grad_output, tensors, choices, sums.grad_input, None
    )
    return {"forward": forward, "scatter": scatter, "gather": gather}


@pytest.mark.parametrize(
    ("which", "directions"),
    [
        (None, set()),
        ("output", {"forward"}),
        ("input", {"forward", "scatter"}),
        ("grid", {"forward", "scatter", "gather"}),
        ("theta", {"forward", "scatter", "gather"}),
        ("basis", {"forward", "scatter"}),
        ("gradient of input", {"scatter", "gather"}),
        ("gradient of grid", {"scatter"}),
        ("gradient of output", {"scatter", "gather"}),
        ("gathered", {"gather"}),
    ],
)
def test_every_tensor_of_a_launch_counts_for_the_index_width(which, directions):
    """An expanded grid is small and its gradient is not, so any may be the only large one."""
    found = launches_of_large(which)
    assert {n for n, run in found.items() if run.constants["INDEX"].primitive_bitwidth == 64} == directions


def test_memory_that_no_kernel_wrote_would_show(kernels):
    for module in (launch, launch_backward):
        assert module.torch.empty(3, device=kernels).isnan().all()
        assert module.torch.empty_like(torch.ones(3)).isnan().all()
        assert (module.torch.empty(3, dtype=torch.int64) > 2**62).all()


# --- launches planned before -------------------------------------------------------------------------------


def same_arguments(actual, expected):
    """Of launches: equal, and tensors the very same."""
    if isinstance(expected, torch.Tensor):
        return actual is expected
    if isinstance(expected, tuple):
        return len(actual) == len(expected) and all(map(same_arguments, actual, expected))
    return actual == expected


@pytest.mark.parametrize("padding_mode", ["zeros", "constant"])
@pytest.mark.parametrize("coordinate_map", MAPS)
def test_a_launch_planned_before_is_the_one_that_would_be_planned(kernels, coordinate_map, padding_mode):
    choices = Choices(SIZE[2], coordinate_map, padding_mode=padding_mode)
    for _ in range(2):
        tensors, _ = draw_problem(choices, INPUT_SIZE[2], channels=3)
        tensors = converted(tensors, kernels)
        output = tensors[0].new_empty((tensors[1].shape[0], 3, *SIZE[2]))
        planned = launch.planned(launch.forward_launch, output, tensors, choices)
        expected = launch.forward_launch(output, tensors, choices)
        assert same_arguments(planned.arguments, expected.arguments)
        assert (planned.kernel, planned.programs) == (expected.kernel, expected.programs)
        assert planned.constants == expected.constants
    assert len(launch.PLANS) == 1


def test_plans_tell_geometries_apart_and_keep_no_tensor(kernels, monkeypatch):
    monkeypatch.setattr(launch, "MOST_PLANS", 3)
    kept = []
    for shape in [(1, 2, 4, 5), (1, 2, 5, 4), (1, 2, 4, 5), (2, 2, 4, 5), (1, 3, 4, 5)]:
        image = torch.zeros(shape, device=kernels)
        for layout in (torch.contiguous_format, torch.channels_last):
            given = image.contiguous(memory_format=layout)
            theta = torch.eye(2, 3, device=kernels).repeat(shape[0], 1, 1)
            output = stn_kernels.affine_sample(given, theta, (4, 5))
            assert output.shape == (*shape[:2], 4, 5)
            kept.append(weakref.ref(theta))
            assert len(launch.PLANS) <= 3
    del image, given, theta, output
    gc.collect()
    assert not any(reference() is not None for reference in kept)
