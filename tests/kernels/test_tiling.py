"""However the work is cut into programs, blocks and vectors, the result is the same."""

import pytest
import torch

from sampling_cases import (
    LAYOUTS,
    MAPS,
    assert_close,
    definition,
    deviation,
    draw,
    draw_image,
    library,
    values_and_gradients,
)
from stn_kernels import backend
from stn_kernels.autograd import Choices

if not backend.HAS_TRITON:
    pytest.skip("the kernels need Triton", allow_module_level=True)

import triton

from stn_kernels import launch

INPUT_SIZE, SIZE = (7, 5), (6, 7)
# Three rows of tiles, which overhang the output; two by two, which do so on both sides; one larger than all.
BLOCKS = {
    "rows": launch.Blocks(2, 8, 4),
    "rows and columns": launch.Blocks(4, 4, 2),
    "one": launch.Blocks(16, 16, 16),
}


@pytest.fixture(params=BLOCKS)
def blocks(request, monkeypatch):
    """The shape of every block, whatever the tensors."""
    shape = BLOCKS[request.param]
    monkeypatch.setattr(launch, "block_shape", lambda *_, **__: shape)
    return shape


def draw_problem(coordinate_map, channels, layout="contiguous", batch=2):
    image = draw_image(batch, channels, INPUT_SIZE, layout)
    parameters = draw(coordinate_map, batch, INPUT_SIZE, SIZE)
    return image, parameters, torch.randn(batch, channels, *SIZE, dtype=torch.float64)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("coordinate_map", MAPS)
def test_every_block_shape_agrees_with_the_reference(kernels, blocks, coordinate_map, channels, layout):
    problem = draw_problem(coordinate_map, channels, layout, batch=1)
    choices = (coordinate_map, SIZE, "border", False)
    actual = values_and_gradients(library(*choices), *(t.to(kernels) for t in problem))
    assert_close(actual, values_and_gradients(definition(*choices), *problem))


@pytest.mark.parametrize(("enough", "programs"), [(1, 4), (8, 8), (10**6, 20)])
def test_channels_split_over_programs_agree_with_the_reference(kernels, monkeypatch, enough, programs):
    """Four tiles, each with five blocks of channels, for one program, for two (3 + 2), for one each."""
    monkeypatch.setattr(launch, "block_shape", lambda *_, **__: launch.Blocks(8, 4, 2))
    monkeypatch.setattr(launch, "ENOUGH_PROGRAMS", enough)
    image, theta, _ = (t.to(kernels) for t in draw_problem("affine", 9))
    output = image.new_full((2, 9, *SIZE), torch.nan)
    run = launch.forward_launch(output, image, theta, Choices(SIZE, "affine", "bilinear", "zeros", False))
    assert run.programs == programs
    run.run()
    assert deviation(output, definition("affine", SIZE)(image, theta)) <= 1e-10


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("channels", "unit"), [(1, 0), (3, 1), (6, 2), (12, 4), (24, 8)])
def test_channels_last_vectors_of_every_width_agree_with_the_reference(kernels, dtype, channels, unit):
    """`unit` channels make a vector as long as it has at most 16 bytes."""
    image, theta, grad_output = draw_problem("affine", channels, "channels_last", batch=1)
    image, grad_output = image.to(dtype), grad_output.to(dtype)
    assert launch.vector(image) == min(unit, 16 // image.element_size())
    if dtype != torch.float64:
        theta = theta.float()
    actual = values_and_gradients(
        library("affine", SIZE), image.to(kernels), theta.to(kernels), grad_output.to(kernels)
    )
    expected = values_and_gradients(
        definition("affine", SIZE), image.double(), theta.double(), grad_output.double()
    )
    # Tens of roundings of the coordinates, which half a unit in the last place of float16 covers.
    assert_close(actual, expected, {torch.float16: 2**-11, torch.float32: 1e-5, torch.float64: 1e-10}[dtype])


def test_thetas_gradient_is_the_sum_of_the_tiles_own(kernels, blocks):
    """Each row of partial sums is the gradient that its tile alone would have given."""
    image, theta, grad_output = (t.to(kernels) for t in draw_problem("affine", 3))
    choices = Choices(SIZE, "affine", "bilinear", "zeros", False)
    run, partial = launch.backward_launch(None, grad_output, image, theta, choices, need_parameters=True)
    run.run()
    rows, columns = (triton.cdiv(s, b) for s, b in zip(SIZE, (blocks.tile_y, blocks.tile_x), strict=True))
    assert partial.shape == (2, rows * columns, 2, 3)
    for tile in range(rows * columns):
        row, column = tile // columns * blocks.tile_y, tile % columns * blocks.tile_x
        own = torch.zeros_like(grad_output)
        within = (..., slice(row, row + blocks.tile_y), slice(column, column + blocks.tile_x))
        own[within] = grad_output[within]
        _, _, expected = values_and_gradients(definition("affine", SIZE), image, theta, own)
        assert deviation(partial[:, tile], expected) <= 1e-10


@pytest.mark.parametrize("coordinate_map", MAPS)
def test_repeated_runs_give_the_same_bits(kernels, coordinate_map):
    problem = [t.to(kernels, torch.float32) for t in draw_problem(coordinate_map, 3)]
    first, second = (values_and_gradients(library(coordinate_map, SIZE), *problem) for _ in range(2))
    # A GPU adds to the image's gradient, in the middle, in no fixed order.
    for i in (0, 2) if kernels.type == "cuda" else (0, 1, 2):
        assert torch.equal(first[i], second[i])


def test_pytorchs_switch_refuses_the_unordered_sum(monkeypatch):
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    with pytest.raises(RuntimeError, match="no fixed order"):
        launch.alert_not_deterministic()
    monkeypatch.setattr(torch, "is_deterministic_algorithms_warn_only_enabled", lambda: True)
    with pytest.warns(UserWarning, match="no fixed order"):
        launch.alert_not_deterministic()


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
    ],
    ids=["small", "many elements", "few elements far apart", "many elements on few"],
)
def test_index_width_follows_the_storage_reached(tensor, bits):
    assert launch.index_dtype(far_apart((1,)), tensor).primitive_bitwidth == bits


@pytest.mark.parametrize("large", ["input", "parameters", "output", "gradient of parameters"])
def test_every_tensor_of_a_launch_counts_for_the_index_width(large):
    """An expanded grid is small and its gradient is not, so any of the four may be the only large one."""
    batch, size = 2**11, (2**10, 2**10)
    image = far_apart((batch, 1, 4, 4), (2**21, 0, 4, 1) if large == "input" else None)
    grid_strides = (2**21, 2**11, 2, 1) if large == "parameters" else (0, 2**11, 2, 1)
    grid = far_apart((batch, *size, 2), grid_strides)
    output_strides = (2**20, 0, 2**10, 1) if large == "output" else (0, 0, 0, 0)
    output = far_apart((batch, 1, *size), output_strides)
    choices = Choices(size, "grid", "bilinear", "zeros", False)
    forward = launch.forward_launch(output, image, grid, choices)
    assert forward.constants["INDEX"].primitive_bitwidth == (32 if large.startswith("gradient") else 64)
    needed = large == "gradient of parameters"
    backward, _ = launch.backward_launch(None, output, image, grid, choices, need_parameters=needed)
    assert backward.constants["INDEX"].primitive_bitwidth == 64


def test_memory_that_no_kernel_wrote_would_show(kernels):
    assert launch.torch.empty(3, device=kernels).isnan().all()
    assert launch.torch.empty_like(torch.ones(3)).isnan().all()
