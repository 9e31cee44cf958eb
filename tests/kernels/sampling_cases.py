"""Random sampling problems that keep clear of kinks, ways to solve them, and a measure of agreement."""

import pytest
import torch
from torch.nn import functional

from stn_kernels import affine_sample, grid_sample, reference

PADDING_MODES = ("zeros", "border", "reflection")
EDGES_AND_CORNERS = pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
MAPS = ("affine", "grid")
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

# Bilinear weights bend at pixel centres and reflection turns at the outer edges: together, multiples of half
# a pixel. Rounding may put a point nearer than this many pixels on the other side, where the slope differs.
MARGIN = 1e-3


def pixel_offsets(parameters, coordinate_map, input_size, size, align_corners):
    """Where output pixels are sampled, relative to the image's centre, in float64: (N, H', W', 2)."""
    to_offsets = reference.COORDINATE_MAPS[coordinate_map]
    return to_offsets(parameters.double(), input_size, size, align_corners)


def clear_of_kinks(offsets, input_size, align_corners):
    """Which points (N, H', W') lie at least MARGIN from every kink."""
    halves = 2 * offsets + torch.tensor([s - 1 for s in reversed(input_size)])
    clear = (halves - halves.round()).abs() >= 2 * MARGIN
    for axis, length in enumerate(reversed(input_size)):
        if reference.half_extent(length, align_corners) == 0:
            clear[..., axis] = True  # a single pixel under align_corners: its coordinate has no slope at all
    return clear.all(-1)


def draw_theta(batch, input_size, size, align_corners=False, largest=1.5):
    """Thetas (batch, 2, 3), far from the identity: turned, sheared, mirrored. float64, exact in float32."""
    drawn = torch.empty(0, 2, 3, dtype=torch.float64)
    while len(drawn) < batch:
        theta = torch.empty(batch, 2, 3).uniform_(-largest, largest).double()
        offsets = pixel_offsets(theta, "affine", input_size, size, align_corners)
        drawn = torch.cat([drawn, theta[clear_of_kinks(offsets, input_size, align_corners).all(-1).all(-1)]])
    return drawn[:batch]


def draw_grid(batch, input_size, size, align_corners=False):
    """Grids (batch, H', W', 2) of independent points in [-3, 3]. float64, exact in float32."""
    grid = torch.empty(batch, *size, 2).uniform_(-3, 3).double()
    while True:
        offsets = pixel_offsets(grid, "grid", input_size, size, align_corners)
        near = ~clear_of_kinks(offsets, input_size, align_corners)
        if not near.any():
            return grid
        grid[near] = torch.empty(int(near.sum()), 2).uniform_(-3, 3).double()


def draw(coordinate_map, batch, input_size, size, align_corners=False):
    draw_parameters = {"affine": draw_theta, "grid": draw_grid}[coordinate_map]
    return draw_parameters(batch, input_size, size, align_corners)


def draw_image(batch, channels, input_size, layout="contiguous"):
    """float64, exact in float32."""
    image = torch.randn(batch, channels, *input_size).double()
    return image.to(memory_format=LAYOUTS[layout])


def size_id(size):
    """A readable name for a size or a pair of sizes in a test's name."""
    return "to".join(map(size_id, size)) if isinstance(size[0], tuple) else "x".join(map(str, size))


# --- three solvers of one problem: (input, parameters) -> output -------------------------------------------


def library(coordinate_map, size, padding_mode="zeros", align_corners=False):
    """The public function."""
    choices = {"padding_mode": padding_mode, "align_corners": align_corners}
    if coordinate_map == "affine":
        return lambda input, theta: affine_sample(input, theta, size, **choices)
    return lambda input, grid: grid_sample(input, grid, **choices)


def definition(coordinate_map, size, padding_mode="zeros", align_corners=False):
    """The reference."""
    return lambda input, parameters: reference.sample(
        input, parameters, size, coordinate_map, "bilinear", padding_mode, align_corners
    )


def pytorch(coordinate_map, size, padding_mode="zeros", align_corners=False):
    """PyTorch's own two steps."""

    def solve(input, parameters):
        if coordinate_map == "affine":
            parameters = functional.affine_grid(parameters, [*input.shape[:2], *size], align_corners)
        return functional.grid_sample(input, parameters, "bilinear", padding_mode, align_corners)

    return solve


def values_and_gradients(solve, input, parameters, grad_output):
    """Output, gradient of the input and gradient of the parameters."""
    tensors = [t.detach().requires_grad_() for t in (input, parameters)]
    output = solve(*tensors)
    return output.detach(), *torch.autograd.grad(output, tensors, grad_output)


# --- comparison --------------------------------------------------------------------------------------------

NAMES = ("output", "gradient of input", "gradient of parameters")


def deviation(actual, expected):
    """The largest difference, as a share of the expected tensor's largest value. NaN if either holds one."""
    assert actual.shape == expected.shape
    actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
    if not expected.numel():
        return 0.0
    largest = expected.abs().max()
    return float((actual - expected).abs().max() / torch.where(largest > 0, largest, 1.0))


def assert_close(actual, expected, tolerance=1e-10):
    """Compares what `values_and_gradients` returns. The default leaves room for 1e5 roundings of float64, and
    none for a wrong weight or neighbour."""
    deviations = {n: deviation(a, e) for n, a, e in zip(NAMES, actual, expected, strict=True)}
    assert all(d <= tolerance for d in deviations.values()), deviations
