# %% [markdown]
# # 8 Fusing grid and sampler
#
# > **A fused kernel saves exactly what the grid costs. In this chapter you count what that is, forward and
# > backward, hold the count against what PyTorch allocates, write the kernel for any transform and layout,
# > and find out where fusing saves a factor of seven, and where three per cent.**
#
# **You will learn**
#
# - what a grid costs in bytes moved, bytes allocated, and bytes kept for the backward pass;
# - to write a kernel whose programs own tiles, and which works out places and weights once for all channels;
# - why the same kernel serves every transform, and which transforms it has nothing to save on;
# - to count what of an image is really read, in pixels and in the 32-byte sectors that memory delivers;
# - what a turn by 90° does to what a GPU has to load, and what another layout of the channels does about it.
#
# **You need** chapters [04](04_gradients.ipynb) and [07](07_a_first_triton_kernel.ipynb), and Triton, which on
# Linux is installed with the book. Elsewhere the cells that begin with `# needs Triton` say what they would show.
# **Runs in** about 20 seconds on two cores.

# %% tags=["setup"]
import os

# PyTorch's profiler would otherwise report in the output of a cell that it has started.
os.environ.update(KINETO_LOG_LEVEL="99", TORCH_CPP_LOG_LEVEL="ERROR")

import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
if device == "cpu":
    # Before the first kernel is made: Triton reads this variable where a function is decorated.
    os.environ["TRITON_INTERPRET"] = "1"

import math

import matplotlib.pyplot as plt
import torch.nn.functional as F
from matplotlib.patches import Rectangle

import stn_kernels
from stn import measured
from stn.exercises import check
from stn.plotting import use_style
from stn.without_triton import replay_kernel_cells

replay_kernel_cells("08_fusing_grid_and_sampler.ipynb")
use_style()
generator = torch.Generator().manual_seed(0)

# %% tags=["setup"]
# needs Triton
import triton
import triton.language as tl

from stn_kernels.coordinate_maps import ratio
from stn_kernels.template import centre, half_extent

# %% [markdown]
# ## 8.1 What a grid costs, by hand
#
# The paper [1] has a grid generator and a sampler, and PyTorch a function for each:
#
# ```python
# grid = F.affine_grid(theta, size)     # writes two numbers for every output pixel
# output = F.grid_sample(input, grid)   # reads them
# ```
#
# Chapter 07 counted the bytes of the forward pass, as bytes bound the time [3]. Training has a backward pass too
# (chapter 04): it receives the gradient of the output, reads the image, since a slope is a difference of
# neighbours, and returns a gradient of the image and one of $\theta$. On the way to $\theta$ the two functions,
# PyTorch's **composition**, have, for every output pixel, a gradient of the grid. For an output pixel of $C$ float32 channels, and an image
# with as many pixels:
#
# | | forward | backward |
# | --- | --- | --- |
# | image, read | $4C$ | $4C$ |
# | output, written; its gradient, read | $4C$ | $4C$ |
# | gradient of the image, written | | $4C$ |
# | **fused** | $\mathbf{8C}$ | $\mathbf{12C}$ |
# | grid: written, read; read again | $8 + 8$ | $8$ |
# | gradient of the grid: written, read | | $8 + 8$ |
# | **with a grid** | $\mathbf{8C + 16}$ | $\mathbf{12C + 24}$ |
#
# (Adding up the image's gradient costs more, and as much with a grid as without. That is the next chapter.)


# %%
def bytes_moved(C, element=4, axes=2, grid_element=4):
    """Bytes for an output pixel: (fused, with a grid), forward and backward."""
    grid = axes * grid_element
    forward, backward = 2 * C * element, 3 * C * element
    return (forward, forward + 2 * grid), (backward, backward + 3 * grid)


print("  C         forward  ratio        backward  ratio")
for C in (1, 3, 16, 64):
    (fused_forward, forward), (fused_backward, backward) = bytes_moved(C)
    print(
        f" {C:2}   {fused_forward:4} and {forward:4}   {forward / fused_forward:.2f}"
        f"    {fused_backward:4} and {backward:4}   {backward / fused_backward:.2f}"
    )

# %% [markdown]
# Both ratios are $1 + 2 / C$: three for one channel, 3 % for 64. In this count **fusing is for images, label maps
# and scans, and hardly for feature maps**. What matters for those comes in sections 8.11 and 8.12.
#
# ## 8.2 What PyTorch allocates
#
# A table made by hand should be held against something. What is moved we cannot see without a GPU, but what
# is allocated we can: PyTorch's profiler records every piece of memory. `stn.measured.allocations` calls a
# function and returns what it returned, and the pieces. Two images of one channel, so an output of 4 bytes a
# pixel:


# %%
SIZE = (64, 96)
images = torch.rand(2, 1, *SIZE, generator=generator).to(device).requires_grad_()
thetas = (torch.eye(2, 3) + 0.2 * torch.randn(2, 2, 3, generator=generator)).to(device).requires_grad_()


def two_functions(input, theta, size, align_corners=False):
    grid = F.affine_grid(theta, (len(theta), 1, *size), align_corners=align_corners)
    return F.grid_sample(input, grid, align_corners=align_corners)


def pieces(sizes, pixels=2 * SIZE[0] * SIZE[1]):
    """The sizes in bytes for an output pixel, without what is far less than one."""
    return [round(size / pixels, 2) for size in sizes if size > 0.1 * pixels]


output, taken = measured.allocations(lambda: two_functions(images, thetas, SIZE))
print("allocated forward, bytes for an output pixel")
print("two functions:", pieces(taken))

# %%
# needs Triton
fused_output, taken_fused = measured.allocations(lambda: stn_kernels.affine_sample(images, thetas, SIZE))
print("the library:  ", pieces(taken_fused))

# %% [markdown]
# The output has 4 bytes and the grid 8. The 12 were a remark in section 7.9: `affine_grid` first writes
# $(x, y, 1)$ for every output pixel, and then a second kernel reads them back and multiplies by $\theta$.
# With these the grid costs $12 + 12 + 8 + 8 = 40$ bytes instead of 16, and the ratio for $C = 1$ is 6 instead
# of 3. In this chapter we go on counting 16, which nothing that writes a grid can go below.
#
# The library allocates its output and nothing else.
#
# ## 8.3 The backward pass, and what is kept for it

# %%
# needs Triton
upstream = torch.ones_like(output)


def gradients_of(output):
    return torch.autograd.grad(output, (images, thetas), upstream)


by_torch, taken = measured.allocations(lambda: gradients_of(output))
by_library, taken_fused = measured.allocations(lambda: gradients_of(fused_output))
print("allocated backward, bytes for an output pixel")
print("two functions:", pieces(taken))
print("the library:  ", pieces(taken_fused))
for name, one, other in zip(("image", "theta"), by_torch, by_library, strict=True):
    error = (one - other).abs().max() / one.abs().max()
    print(f"gradients of {name} agree to a ten-thousandth of the largest: {(error < 1e-4).item()}")

# %% [markdown]
# Both allocate 4 bytes for the gradient of the image; the composition also 8 for the gradient of the grid, and
# 12 for $(x, y, 1)$ once more. In the library each program adds up what its pixels say about $\theta$, and
# writes six sums. (From four channels on it also allocates a buffer as large as the image, in which several
# channels are added at once. Why, says the next chapter.)
#
# There is a third cost, which no table of bytes moved shows. Between forward and backward, autograd *keeps*
# what the backward pass will read. `saved_tensors_hooks` shows every tensor that it keeps:


# %%
# needs Triton
def kept(function):
    """The shapes of what autograd keeps, and its bytes."""
    found = {}

    def keep(tensor):
        found[tuple(tensor.shape)] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        function()
    return found


print("two functions:", kept(lambda: two_functions(images, thetas, SIZE)))
print("the library:  ", kept(lambda: stn_kernels.affine_sample(images, thetas, SIZE)))

# %% [markdown]
# The image is the layer's input and is there anyway. The grid, 98,304 bytes here, stays in memory through all
# later layers and back; the library keeps $\theta$, 48 bytes, and computes the places a second time. That is
# cheap: section 7.9 counted 18 operations a pixel.
#
# ## 8.4 The kernel: maps and tiles
#
# Now the kernel, in pieces that can be exchanged. It differs from chapter 07's in four ways: programs own
# tiles, coordinates are exact, weights are computed before the loop over channels, and float64 and half
# precision work.
#
# First a **map**, from output pixels to places, both in pixels from the centre of their picture, $a$ and $b$
# too. With $(x, y)$ an output pixel, counted from its image's centre (section 3.10's $r^t$, across and down), and the half
# extents, $e_a, e_b$ of the input and $e_x, e_y$ of the output, chapter 02's $\frac{W}{2}$ or $\frac{W - 1}{2}$, Equation 1
# reads
#
# $$
# a = \theta_{11} \frac{e_a}{e_x} \, x + \theta_{12} \frac{e_a}{e_y} \, y + \theta_{13} \, e_a, \qquad
# b = \theta_{21} \frac{e_b}{e_x} \, x + \theta_{22} \frac{e_b}{e_y} \, y + \theta_{23} \, e_b.
# $$
#
# `ratio` is a division that is rounded correctly on every device; `centre` and `half_extent` are one line
# each. All three are the library's. `COMPUTE` is the type to compute in: float64 for float64 images, else float32.


# %% tags=["needed-by-exercises"]
# needs Triton
@triton.jit
def affine(theta_ptr, m, target, extents, COMPUTE: tl.constexpr):
    """Equation 1 for transform m: where a block of output pixels looks, in pixels from the image's centre."""
    x, y, _, _ = target  # where the output pixels are, in pixels from the output's centre
    e_a, e_b = extents[0]
    e_x, e_y = extents[1]
    first = theta_ptr + 6 * m
    second = first + 3
    a = tl.load(first).to(COMPUTE) * ratio(e_a, e_x, COMPUTE) * x
    a += tl.load(first + 1).to(COMPUTE) * ratio(e_a, e_y, COMPUTE) * y
    a += tl.load(first + 2).to(COMPUTE) * e_a
    b = tl.load(second).to(COMPUTE) * ratio(e_b, e_x, COMPUTE) * x
    b += tl.load(second + 1).to(COMPUTE) * ratio(e_b, e_y, COMPUTE) * y
    b += tl.load(second + 2).to(COMPUTE) * e_b
    return a, b


# %% [markdown]
# Next, which pixels a program owns: a **tile** of `TILE_Y` rows and `TILE_X` columns, numbered row after row.
# Then their places, from the corner again. A lane that sticks out of the output is sent to pixel 0, so that a
# map need not care.


# %% tags=["needed-by-exercises"]
# needs Triton
@triton.jit
def owned_pixels(out_size, TILE_Y: tl.constexpr, TILE_X: tl.constexpr):
    """Rows and columns of this program's output pixels, and which of them exist."""
    lane = tl.arange(0, TILE_Y * TILE_X)
    tiles_x = tl.cdiv(out_size[1], TILE_X)
    row = tl.program_id(0) // tiles_x * TILE_Y + lane // TILE_X
    column = tl.program_id(0) % tiles_x * TILE_X + lane % TILE_X
    exists = (row < out_size[0]) & (column < out_size[1])
    return tl.where(exists, row, 0), tl.where(exists, column, 0), exists


@triton.jit
def extents_of(size, ALIGN_CORNERS: tl.constexpr, COMPUTE: tl.constexpr):
    """Pixels from the centre to the coordinate 1, across and down."""
    return half_extent(size[1], ALIGN_CORNERS, COMPUTE), half_extent(size[0], ALIGN_CORNERS, COMPUTE)


@triton.jit
def places(
    parameters_ptr,
    m,
    row,
    column,
    size,
    out_size,
    MAP: tl.constexpr,
    ALIGN_CORNERS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Where output pixels look: (a, b) of chapter 03, in pixels."""
    x = column.to(COMPUTE) - centre(out_size[1], COMPUTE)
    y = row.to(COMPUTE) - centre(out_size[0], COMPUTE)
    target = x, y, row * out_size[1] + column, out_size[0] * out_size[1]
    extents = extents_of(size, ALIGN_CORNERS, COMPUTE), extents_of(out_size, ALIGN_CORNERS, COMPUTE)
    a, b = MAP(parameters_ptr, m, target, extents, COMPUTE)
    return a + centre(size[1], COMPUTE), b + centre(size[0], COMPUTE)


# %% [markdown]
# Then the taps. Everything about them that does not depend on the channel is computed here, once: the offset
# of the upper left tap, four weights, four masks. A place from which no pixel is a neighbour is set to 0
# *before* it becomes an integer: a float beyond $2^{31}$ has none, and what a cast makes of it depends on the
# machine.


# %% tags=["needed-by-exercises"]
# needs Triton
@triton.jit
def four_taps(a, b, exists, strides, size):
    """Offset of the upper left tap; weights and masks of all four, row by row."""
    near = exists & (a > -1) & (a < size[1]) & (b > -1) & (b < size[0])
    a, b = tl.where(near, a, 0.0), tl.where(near, b, 0.0)
    left, top = tl.floor(a).to(tl.int32), tl.floor(b).to(tl.int32)
    alpha, beta = a - left, b - top
    on_left, on_right = near & (left >= 0), near & (left + 1 < size[1])
    on_top, on_bottom = top >= 0, top + 1 < size[0]
    weights = (1 - beta) * (1 - alpha), (1 - beta) * alpha, beta * (1 - alpha), beta * alpha
    masks = on_top & on_left, on_top & on_right, on_bottom & on_left, on_bottom & on_right
    return top * strides[2] + left * strides[3], weights, masks


@triton.jit
def weighted_sum(plane_ptr, taps, strides, COMPUTE: tl.constexpr):
    """Equation 5 for one channel."""
    offset, weights, masks = taps
    upper, lower = plane_ptr + offset, plane_ptr + offset + strides[2]
    total = weights[0] * tl.load(upper, mask=masks[0], other=0.0).to(COMPUTE)
    total += weights[1] * tl.load(upper + strides[3], mask=masks[1], other=0.0).to(COMPUTE)
    total += weights[2] * tl.load(lower, mask=masks[2], other=0.0).to(COMPUTE)
    total += weights[3] * tl.load(lower + strides[3], mask=masks[3], other=0.0).to(COMPUTE)
    return total


# %% [markdown]
# With these the kernel is short. Everything above its loop stays in registers until the last channel is done.
# `transforms` is how many transforms an image has: transform `m` reads image `m // transforms`, in place.


# %% tags=["needed-by-exercises"]
# needs Triton
@triton.jit
def fused_kernel(
    output_ptr,  # (M, C, H', W'), contiguous; M = N T transforms
    input_ptr,  # (N, C, H, W)
    parameters_ptr,  # M times the map's parameters, contiguous
    strides,  # the input's: n, c, y, x
    channels,
    size,  # H, W
    out_size,  # H', W'
    transforms,  # T
    MAP: tl.constexpr,
    ALIGN_CORNERS: tl.constexpr,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    m = tl.program_id(1)
    row, column, exists = owned_pixels(out_size, TILE_Y, TILE_X)  # [TILE_Y * TILE_X], as all blocks are
    a, b = places(parameters_ptr, m, row, column, size, out_size, MAP, ALIGN_CORNERS, COMPUTE)
    undefined = (a != a) | (b != b)  # NaN, and nothing else, differs from itself
    taps = four_taps(a, b, exists, strides, size)

    image_ptr = input_ptr + m // transforms * strides[0]
    for c in range(channels):
        total = weighted_sum(image_ptr + c * strides[1], taps, strides, COMPUTE)
        total = tl.where(undefined, float("nan"), total)
        offset = ((m * channels + c) * out_size[0] + row) * out_size[1] + column
        tl.store(output_ptr + offset, total.to(output_ptr.dtype.element_ty), mask=exists)


TILE = (4, 32) if device == "cuda" else (64, 64)  # interpreted: few programs, large blocks


def fused(input, parameters, size, MAP=affine, align_corners=False, tile=TILE):
    """Input (N, C, H, W) and parameters (N T, ...) -> (N T, C, H', W')."""
    (N, C, H, W), M = input.shape, len(parameters)
    output = input.new_full((M, C, *size), math.nan)  # a pixel that nobody writes shall be seen
    tiles = triton.cdiv(size[0], tile[0]) * triton.cdiv(size[1], tile[1])
    COMPUTE = tl.float64 if input.dtype == torch.float64 else tl.float32
    fused_kernel[(tiles, M)](
        output,
        input,
        parameters.contiguous(),
        input.stride(),
        C,
        (H, W),
        size,
        M // N,
        MAP,
        align_corners,
        *tile,
        COMPUTE,
    )
    return output


# %% [markdown]
# ## 8.5 Check
#
# As chapter 07 taught: noise, odd sizes, turns and shears, tiles that do not fit, an image that is a view.
# And places far outside. Half precision is compared with float64 as well, since PyTorch's own half-precision
# composition is not good enough to be a judge (section 8.8).

# %%
# needs Triton
noise = torch.rand(4, 3, 41, 50, generator=generator, dtype=torch.float64).to(device)[:, :, 9:32, 7:37]
warps = torch.eye(2, 3, dtype=torch.float64) + 0.5 * torch.randn(4, 2, 3, generator=generator).double()
warps[3, :, 2] = torch.tensor([1e6, -3.0])
warps = warps.to(device)
tolerances = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 1e-3}

for dtype, tolerance in tolerances.items():
    for align_corners in (False, True):
        theta = warps if dtype == torch.float64 else warps.float()
        ours = fused(noise.to(dtype), theta, (19, 27), align_corners=align_corners, tile=(16, 16)).double()
        library = stn_kernels.affine_sample(noise.to(dtype), theta, (19, 27), align_corners=align_corners)
        judge = two_functions(noise, warps, (19, 27), align_corners)
        verdicts = [(ours - other).abs().max().item() < tolerance for other in (judge, library.double())]
        name = str(dtype).removeprefix("torch.")
        print(f"{name}  align_corners={align_corners!s:5}  PyTorch: {verdicts[0]}   library: {verdicts[1]}")

# %% [markdown]
# Beyond what PyTorch's sampler should be asked: places of $10^{20}$, infinity, and NaN. Infinity is outside,
# NaN gives NaN, and neither reads memory that is not the image's.

# %%
# needs Triton
strange = torch.eye(2, 3).repeat(4, 1, 1)
strange[:, 0, 2] = torch.tensor([1e20, math.inf, -math.inf, math.nan])
strange = strange.to(device)
ours = fused(noise.float(), strange, (5, 7))
library = stn_kernels.affine_sample(noise.float(), strange, (5, 7))
for name, mine, theirs in zip(("1e20", "inf", "-inf", "NaN"), ours, library, strict=True):
    values = "NaN" if mine.isnan().all() else "0" if not mine.any() else "several"
    same = torch.equal(mine.nan_to_num(7), theirs.nan_to_num(7))
    print(f"shifted by {name:5} all values {values:4}  as in the library: {same}")

# %% [markdown]
# ## 8.6 What fusing buys besides: the identity, exactly
#
# A grid holds normalised coordinates, which are rounded: section 3.10 found the identity exact only where the
# width is a power of two. The fused kernel never normalises. For equal sizes $e_a / e_x$ is exactly 1, and
# $x + \frac{W - 1}{2}$ is an integer again: the identity returns its input bit for bit, whatever the size.

# %%
# needs Triton
identity = torch.eye(2, 3, device=device)[None]
samplers = {
    "the kernel above": fused,
    "the library": stn_kernels.affine_sample,
    "two functions": two_functions,
}
exact = {name: [] for name in samplers}
for length in range(1, 31):
    for shape in ((3, length), (length, 3)):
        picture = torch.rand(1, 1, *shape, generator=generator).to(device)
        for name, sampler in samplers.items():
            exact[name].append(torch.equal(sampler(picture, identity, shape), picture))
print(len(exact["two functions"]), "sizes; the identity returns its input bit for bit at all of them:")
for name, verdicts in exact.items():
    print(f"{name:17} {all(verdicts)}")

# %% [markdown]
# ## 8.7 One kernel, other maps
#
# `MAP` is a constant of the kernel, and nothing else knows about $\theta$. So the composition "any transform,
# then the sampler" is one kernel in which one function is exchanged. Here are two more. A projective
# transform has nine numbers and a division. A displacement field has two numbers for *each pixel*, how far
# from its own place it looks:


# %%
# needs Triton
@triton.jit
def projective(theta_ptr, m, target, extents, COMPUTE: tl.constexpr):
    """(u / w, v / w), where (u, v, w) is theta (x, y, 1) in normalised coordinates."""
    e_a, e_b = extents[0]
    x, y = target[0] / extents[1][0], target[1] / extents[1][1]
    first = theta_ptr + 9 * m
    second, third = first + 3, first + 6
    u = tl.load(first) * x + tl.load(first + 1) * y + tl.load(first + 2)
    v = tl.load(second) * x + tl.load(second + 1) * y + tl.load(second + 2)
    w = tl.load(third) * x + tl.load(third + 1) * y + tl.load(third + 2)
    return u / w * e_a, v / w * e_b


@triton.jit
def displacement(field_ptr, m, target, extents, COMPUTE: tl.constexpr):
    """The identity, plus a field (2, H', W') in pixels."""
    x, y, pixel, pixels = target  # each pixel's number, and how many there are
    across_ptr = field_ptr + 2 * m * pixels + pixel
    a = ratio(extents[0][0], extents[1][0], COMPUTE) * x + tl.load(across_ptr).to(COMPUTE)
    b = ratio(extents[0][1], extents[1][1], COMPUTE) * y + tl.load(across_ptr + pixels).to(COMPUTE)
    return a, b


pictures = noise.float()
tilts = torch.eye(3).repeat(4, 1, 1) + 0.2 * torch.randn(4, 3, 3, generator=generator)
tilts[:, 2] = torch.tensor([0.2, -0.3, 1.0])
tilts = tilts.to(device)
field = 3 * torch.randn(4, 2, 19, 27, generator=generator).to(device)
tilted = stn_kernels.projective_sample(pictures, tilts, (19, 27))
displaced = stn_kernels.displacement_sample(pictures, field)
for name, ours, theirs in (
    ("projective", fused(pictures, tilts, (19, 27), projective), tilted),
    ("displacement", fused(pictures, field, (19, 27), displacement), displaced),
):
    print(f"{name:12} agrees with the library: {torch.allclose(ours, theirs, rtol=0, atol=2e-5)}")

# %% [markdown]
# The library is built in this way, `affine_sample`, `projective_sample`, `displacement_sample` and the others
# around one kernel. But do they all save the same? Fusing avoids what is written only to be read again. It does
# not avoid reading the input, and a displacement field *is* an input. For $C = 1$:

# %%
rows = {
    "affine, projective": (0, 16),
    "displacement": (8, 8 + 16),  # the field is read; unfused, the grid is written and read besides
    "a given grid": (8, 8),  # grid_sample
}
print("                     fused   unfused   ratio, C = 1")
for name, (alone, composed) in rows.items():
    print(f"{name:20} {8 + alone:4} B {8 + composed:7} B {(8 + composed) / (8 + alone):9.2f}")

# %% [markdown]
# With a grid that is given there is nothing to fuse. The library's `grid_sample` forward moves as many bytes
# as anybody's.
#
# ## 8.8 Precision and dimension
#
# Smaller pixels make the grid weigh more, and so does a third coordinate:

# %%
choices = {
    "2-D float32": {},
    "2-D float16, grid too": {"element": 2, "grid_element": 2},
    "2-D float16, float32 grid": {"element": 2},
    "3-D float32": {"axes": 3},
    "3-D float16, float32 grid": {"axes": 3, "element": 2},
}
print("bytes with a grid / bytes fused      C = 1      3     16     64")
for name, choice in choices.items():
    ratios = [bytes_moved(C, **choice)[0] for C in (1, 3, 16, 64)]
    print(f"{name:34}", "".join(f"{unfused / alone:7.2f}" for alone, unfused in ratios))

# %% [markdown]
# The second line looks harmless, and is the only one that PyTorch offers for half precision: its sampler
# wants image and grid of one type. But float16 has 11 bits. On a picture 256 pixels wide, coordinates near 1
# are a sixteenth of a pixel apart or more:

# %%
# needs Triton
wide = torch.rand(1, 1, 256, 256, generator=generator).to(device)
turn = torch.tensor([[[0.8, -0.6, 0.0], [0.6, 0.8, 0.0]]], device=device)
right = two_functions(wide.double(), turn.double(), (256, 256))
half_grid = F.affine_grid(turn, (1, 1, 256, 256), align_corners=False).half()
by_half_grid = F.grid_sample(wide.half().float(), half_grid.float(), align_corners=False)
by_fused = fused(wide.half(), turn, (256, 256))
for name, result in (("float16 grid", by_half_grid), ("no grid", by_fused)):
    print(f"float16 image, {name:12}  mean error {(result.double() - right).abs().mean():.4f}")

# %% [markdown]
# (Here only the grid was rounded to float16, and the rest computed in float32, to see what that alone does.)
# The fused kernel computes coordinates in float32 whatever the image's type. They are in registers, where
# precision costs no bytes.
#
# ## 8.9 Many transforms of one image
#
# A detector cuts $T$ windows out of each image. `grid_sample` wants as many images as grids, so what
# everybody writes first is `repeat_interleave`. Eight windows of $24 \times 24$ from images of
# $96 \times 96$:

# %%
# needs Triton
T, WINDOW = 8, (24, 24)
scenes = torch.rand(2, 3, 96, 96, generator=generator).to(device)
windows = torch.zeros(2, T, 2, 3)
windows[..., 0, 0] = windows[..., 1, 1] = 1 / 4
windows[..., 2] = 1.5 * torch.rand(2, T, 2, generator=generator) - 0.75
windows = windows.to(device)


def repeated():
    return two_functions(scenes.repeat_interleave(T, 0), windows.flatten(0, 1), WINDOW)


def one_tall_grid():
    """All grids of an image below one another, as if they were one."""
    grid = F.affine_grid(windows.flatten(0, 1), (2 * T, 1, *WINDOW), align_corners=False)
    tall = F.grid_sample(scenes, grid.reshape(2, T * WINDOW[0], WINDOW[1], 2), align_corners=False)
    return tall.reshape(2, 3, T, *WINDOW).transpose(1, 2).flatten(0, 1)


def in_one_kernel():
    return stn_kernels.affine_sample(scenes, windows, WINDOW).flatten(0, 1)


ours = fused(scenes, windows.flatten(0, 1), WINDOW)
for function in (repeated, one_tall_grid, in_one_kernel):
    result, taken = measured.allocations(function)
    agrees = torch.allclose(result, ours, rtol=0, atol=2e-5)
    print(f"{function.__name__:14} {pieces(taken, 2 * T * 24 * 24)} bytes a pixel, the same values: {agrees}")

# %% [markdown]
# The result has 12 bytes a pixel. By way of `repeat_interleave` it takes 224, nearly all of it copies of images
# of which a sixteenth is looked at. The tall grid needs no such copy and is a good trick to know; its output
# comes in another order, and the copy that mends this is one of the 12s in its list. The fused kernel reads
# image `m // T` where it lies: one division.
#
# ## 8.10 What is read of the image
#
# So far the image cost $4C$ bytes a pixel, "an image with as many pixels". What it really costs depends on
# $\theta$. Let us count exactly, with an output of $256 \times 256$ that looks at a part of a large image.
# The **step** is how many input pixels lie between two output pixels: 1 keeps the scale, 4 shrinks,
# $\frac{1}{4}$ enlarges.
#
# Memory is not read by the number, either. An NVIDIA GPU moves **sectors** of 32 bytes, eight float32 side by
# side; whoever wants one number gets all eight. So we count the different pixels that are taps, and the
# different sectors that hold them. (All places are shifted by 0.3 pixels, so that none lies *on* a pixel and
# rounding decides nothing.)

# %%
SIDE, OUT, SECTOR = 4096, 256, 8  # the image's side, the output's, and float32 to a sector


def taps(degrees, step=1.0):
    """Row n and column m of the four taps of each output pixel, (4, OUT, OUT) each."""
    x = torch.arange(OUT, dtype=torch.float64) - (OUT - 1) / 2
    y = x[:, None]
    cosine, sine = step * math.cos(math.radians(degrees)), step * math.sin(math.radians(degrees))
    a = cosine * x - sine * y + (SIDE - 1) / 2 + 0.3
    b = sine * x + cosine * y + (SIDE - 1) / 2 + 0.3
    m = a.floor().long() + torch.tensor([0, 1, 0, 1])[:, None, None]
    n = b.floor().long() + torch.tensor([0, 0, 1, 1])[:, None, None]
    return n, m


def image_bytes(degrees, step):
    """Bytes for an output pixel: of the different taps, and of the different sectors that hold them."""
    n, m = taps(degrees, step)
    pixel = n * SIDE + m
    return 4 * len(pixel.unique()) / OUT**2, 32 * len((pixel // SECTOR).unique()) / OUT**2


steps = [2 ** (k / 2) for k in range(-6, 7)]
counted = {degrees: [image_bytes(degrees, step) for step in steps] for degrees in (0, 45)}
print("          bytes for an output pixel, C = 1")
print("          upright: taps  sectors    at 45°: taps  sectors   saved by fusing, upright")
for index in range(0, 13, 2):
    (upright, upright_sectors), (turned, turned_sectors) = (counted[d][index] for d in (0, 45))
    print(
        f"step {steps[index]:5} {upright:9.2f} {upright_sectors:8.2f} {turned:15.2f} {turned_sectors:8.2f}"
        f" {(20 + upright_sectors) / (4 + upright_sectors):14.2f} ×"
    )

# %% alt="Two plots over the step from one eighth to eight, logarithmic. Left: bytes read of the image for each output pixel. All curves rise as the step squared, through 4 at step 1. The taps' bytes level off at 16 from step 2 on; the sectors' bytes go on rising, to 64 upright and more at 45 degrees. The output's 4 bytes and the grid's 16 are horizontal lines. Right: the saving by fusing falls from 5 over 3 at step 1 to about 1.2 at step 8."
fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.3))
for degrees, color in ((0, "C0"), (45, "C1")):
    of_taps, of_sectors = zip(*counted[degrees], strict=True)
    name = f"{degrees}°" if degrees else "upright"
    left.plot(steps, of_taps, "--", color=color, label=f"taps, {name}")
    left.plot(steps, of_sectors, color=color, label=f"sectors, {name}")
    right.plot(steps, [(20 + read) / (4 + read) for read in of_sectors], color=color, label=name)
for height, name in ((4, "output"), (16, "grid")):
    left.axhline(height, color="#888888", linewidth=0.8)
    left.annotate(name, (0.125, height), xytext=(0, 2), textcoords="offset points", color="#444444")
left.set(title="read of the image, bytes for an output pixel", ylim=(0.05, 200), yscale="log")
left.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
right.set(title="bytes with a grid / bytes fused, $C = 1$", ylim=(0, 5.5))
for ax in (left, right):
    ax.set_xscale("log", base=2)
    ax.set_xlabel("step, input pixels")
    ax.set_xticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    ax.legend(fontsize=8)
plt.show()

# %% [markdown]
# - **Enlarging** reads next to nothing. Output and grid are all that moves, and fusing saves a factor of 5.
# - At **step 2** upright, every pixel of the image is a tap exactly once.
# - **Shrinking** reads more than it writes: 16 bytes of taps from step 2 on, four different pixels for each
#   output pixel. In sectors it is worse. At step 8 each output pixel wants two numbers out of each of two
#   sectors, 64 bytes, and the grid's 16 are a small part of it: fusing saves a fifth.
#
# So the saving is no constant of the kernel. It goes from 5 to 1.2 with the transform alone.
#
# ## 8.11 What a warp asks for
#
# The last section let every sector be read once. That takes caches: a neighbour's tap must still be there. How
# much is asked of them? On a GPU 32 lanes, a **warp** (it warps nothing), load together, and a load asks for all
# the sectors that its 32 numbers lie in [2]. Here is one load, for the upper left taps of 32 output pixels,
# turned by 45°: once for 32 pixels in a row, once for a patch of $4 \times 8$.


# %% alt="Two pictures of a part of the image at 45 degrees, sectors drawn as boxes of eight pixels by one. Left: the taps of 32 pixels in a row form a long diagonal line, which crosses a new sector at nearly every pixel. Right: the taps of a patch of 4 by 8 pixels form a compact slanted rectangle that needs fewer than half as many sectors."
def show_warp(ax, shape, degrees):
    """Draw the upper left taps of a warp of this shape and their sectors; return how many those are."""
    n, m = (index[0, 128 : 128 + shape[0], 128 : 128 + shape[1]].flatten() for index in taps(degrees))
    m, n = m - SIDE // 2, n - SIDE // 2
    sectors = {(row, column // SECTOR) for row, column in zip(n.tolist(), m.tolist(), strict=True)}
    for row, column in sectors:
        corner = SECTOR * column - 0.5, row - 0.5
        ax.add_patch(Rectangle(corner, SECTOR, 1, facecolor="#BBDFF5", edgecolor="white", linewidth=1))
    ax.plot(m, n, "o", color="C1", markersize=3)
    ax.set(xlim=(-8.5, 23.5), ylim=(23, -1.5), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(f"{shape[0]} × {shape[1]} pixels: {len(sectors)} sectors")
    return len(sectors)


fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.2))
in_row, in_patch = show_warp(axes[0], (1, 32), 45), show_warp(axes[1], (4, 8), 45)
plt.show()
print(f"sectors that one load asks for, at 45°: {in_row} for a row, {in_patch} for a patch")

# %% [markdown]
# The 32 numbers fill four sectors. Over all warps of the output, and all four taps:


# %%
def tiled(index, tile):
    """Cut the output into tiles: (..., OUT, OUT) -> (..., tiles, pixels of a tile)."""
    *front, height, width = index.shape
    cut = index.reshape(*front, height // tile[0], tile[0], width // tile[1], tile[1])
    return cut.transpose(-3, -2).flatten(-2).flatten(-3, -2)


def different(index):
    """How many different numbers there are along the last dimension."""
    ordered = index.sort(-1).values
    return 1 + (ordered[..., 1:] != ordered[..., :-1]).sum(-1)


sectors = {}
for degrees in (0, 10, 45, 90):
    n, m = taps(degrees)
    sectors[degrees] = (n * SIDE + m) // SECTOR
print("sectors for one load of a warp, on average")
print("              0°    10°    45°    90°")
for shape in ((1, 32), (2, 16), (4, 8)):
    averages = [different(tiled(sector, shape)).double().mean() for sector in sectors.values()]
    print(f"{shape[0]} × {shape[1]:2}   ", "".join(f"{average:7.2f}" for average in averages))

# %% [markdown]
# Upright a row is best: four sectors, and a fifth for the taps to the right. (The patch begins on a sector,
# too, but each of its four rows of 8 has a second sector for the taps to the right.) Turned by 90° every lane
# of a row has a sector of its own, of which it uses an eighth. The patch asks for no more than 11 at any of
# these angles.
#
# What the cache nearest to a program, the *first-level* one, is asked for is not what memory delivers. A program's loads, four taps of all its
# warps, mostly ask for the same sectors again; if the cache keeps them while the program runs, each is
# fetched once. How many are they, for programs of 128 pixels of one shape or another?

# %%
print("bytes of different sectors for a program of 128 pixels, per output pixel")
print("              0°    10°    45°    90°")
for shape in ((1, 128), (4, 32), (8, 16), (16, 8)):
    averages = [
        different(tiled(sector, shape).transpose(0, 1).flatten(1)).double().mean() * 32 / 128
        for sector in sectors.values()
    ]
    print(f"{shape[0]:2} × {shape[1]:3}  ", "".join(f"{average:7.2f}" for average in averages))
at_all = [32 * len(sector.unique()) / OUT**2 for sector in sectors.values()]
print("all programs", "".join(f"{average:7.2f}" for average in at_all))

# %% [markdown]
# That is what tiles are for. A program that owns half a row of the output fetches up to nine times as much as
# it must; one that owns a tile, at most three times. What programs have in common is left to the second-level
# cache, which serves them all, and if that is large enough, memory delivers the last line.
#
# Two remarks on `TILE`. Which 32 pixels share a warp the compiler decides, but for 128 pixels a program and
# the usual four warps it takes them in the order in which we numbered them. So `tile=(4, 32)` gives warps
# that are rows, and `tile=(16, 8)`, the same kernel, patches of $4 \times 8$. And more pixels for a program
# are not simply better: then the compiler gives each lane two or four neighbours, so as to store them in one
# go, and a load meets only every second or fourth pixel of a longer stretch.

# %%
# needs Triton
by_shape = [fused(pictures, warps.float(), (19, 27), tile=tile) for tile in ((4, 32), (16, 8), (64, 64))]
print("the same values, whatever the tile:", all(torch.equal(by_shape[0], other) for other in by_shape[1:]))

# %% [markdown]
# By default the library takes tiles of $8 \times 32$ for images that lie in memory channel by channel, with rows as
# warps: the best choice upright. Whether patches are faster at 45°, and whether it matters, is a question for a GPU,
# and not yet measured.
#
# ## 8.12 Channels-last
#
# All this is about one channel at a time. With $C$ channels the same pattern is loaded $C$ times, once in
# each plane. But the channels of a pixel share their place: laid out side by side, **channels-last**, they
# could be loaded together. A lane can load 16 bytes, four float32, in one instruction. With 32 channels,
# eight lanes load a pixel, and a warp four pixels. How many loads does it take for 32 pixels and one tap, and
# how many sectors?


# %%
def channels_first(n, m, C):
    """Loads, and sectors on average, for one tap of 32 pixels and all channels: a warp is a row."""
    sector = (n * SIDE + m) // SECTOR  # in the first plane; every other one is a whole number of sectors on
    return C, C * different(tiled(sector, (1, 32))).double().mean()


def channels_last(n, m, C):
    """The same where a lane loads four channels of one pixel, and C / 4 lanes share it."""
    first = (n * SIDE + m) * C
    vectors = first[..., None] + torch.arange(0, C, 4)  # where each begins
    pixels = 128 // C  # of a load
    warps = vectors.reshape(4, OUT, OUT // pixels, 32)
    return C // 4, C // 4 * different(warps // SECTOR).double().mean()


print("               loads   sectors: at 0°     45°     90°   full ones would do")
for C in (4, 32):
    for layout in (channels_first, channels_last):
        counts = [layout(*taps(degrees), C) for degrees in (0, 45, 90)]
        asked = "".join(f"{sectors:8.1f}" for _, sectors in counts)
        name = layout.__name__.removeprefix("channels_")
        print(f"C = {C:2} {name:6} {counts[0][0]:5}        {asked} {32 * C // SECTOR:12}")

# %% [markdown]
# For 32 channels, channels-last needs a quarter of the loads, and asks for no byte that it does not use,
# however the image is turned. (At 45° it asks for fewer than the 128 sectors that 32 pixels fill: neighbours
# sometimes have the same upper left tap.) A pixel of 8 float32 channels is a sector. With fewer it shares one
# with its neighbour, and with $C = 3$ its 12 bytes do not even make a 16-byte load.
#
# This is what "hardly for feature maps" left open in section 8.1: where channels are many, the saving is in
# the layout and not in the grid. For a GPU's convolutions channels-last is the better layout as well, so a
# feature map often comes that way. A sampler should take it as it comes, and return the same:

# %%
# needs Triton
feature_map = torch.rand(2, 32, 24, 24, generator=generator).to(device, memory_format=torch.channels_last)
turns = turn.expand(2, 2, 3)
for name, sampler in (("the library", stn_kernels.affine_sample), ("PyTorch", two_functions)):
    result = sampler(feature_map, turns, (24, 24))
    kept_layout = result.is_contiguous(memory_format=torch.channels_last)
    print(f"{name:12} channels-last in, channels-last out: {kept_layout}")
agrees = torch.allclose(fused(feature_map, turns, (24, 24)), result, rtol=0, atol=2e-5)
print("the kernel above reads it by its strides, one channel at a time:", agrees)

# %% [markdown]
# Our kernel gives the right values, and the worst loads possible: 32 lanes that read one channel of 32 pixels
# lie 128 bytes apart. The library compiles another block for this layout, pixels × channels, in place of the
# loop.
#
# ## 8.13 Counted, and measured
#
# Counting says what must be moved. It does not say that memory is what a kernel waits for, that the caches
# hold what they should, or that enough programs are under way. That takes a GPU and a benchmark: the time of
# a kernel beside the time of a *copy* of as many bytes as it must move, and beside the times of others. The
# results are files in `kernels/benchmarks/results`; `stn.measured.results()` reads them.

# %%
counted_ratios = {C: bytes_moved(C)[0][1] / bytes_moved(C)[0][0] for C in (1, 3, 16, 64)}
print("counted, with a grid / fused:", {C: round(value, 2) for C, value in counted_ratios.items()})

# %% tags=["nbval-ignore-output"] alt="Left: bars of the counted ratio of bytes, with a grid over fused: 3 for one channel, 1.67 for three, 1.12 for 16, 1.03 for 64. Middle and right: what the benchmark measured on a GPU, the fraction of a copy's bandwidth that the fused kernels reach and the times of other implementations relative to theirs; or, where there are no results, the words not measured yet."
newest = measured.results()[-1:]
fig, (bars, fraction, times) = plt.subplots(1, 3, figsize=(9, 3.2), width_ratios=[1, 1.2, 1.2])
bars.bar([str(C) for C in counted_ratios], list(counted_ratios.values()), color="C0")
bars.axhline(1, color="#bbbbbb", linewidth=0.8)
bars.set(title="with a grid / fused: bytes", xlabel="channels")
found = measured.show(newest[0] if newest else None, fraction, times, operation="affine", dtype="float32")
plt.show()
print(f"{len(found)} settings measured" if found else "not measured yet: there are no results of a GPU here")

# %% [markdown]
# Where the two right panels say "not measured yet", nothing in this chapter is a claim about time. The counts
# hold on any machine. What they leave open, only a measurement can close.
#
# ## Summary
#
# - A grid costs $16$ bytes a pixel forward, 24 backward, and 8 that are kept between. Against $8C$ and $12C$
#   that is a factor of $1 + 2 / C$. PyTorch's `affine_grid` costs more still.
# - The fused kernel computes places and weights once a pixel, in registers, and loops over channels. It
#   allocates its output and nothing else. Counted from the centre, its identity is exact.
# - The map is a constant function of the kernel. Fusing saves what would be written and read again; a field
#   or a grid that is an input must be read.
# - The image costs what the transform touches: little when enlarging, 64 bytes and more in sectors when
#   shrinking by 8. The saving for $C = 1$ goes from 5 to 1.2.
# - Tiles keep a program's sectors together. Turned, a row of 32 pixels asks for up to eight times what it
#   uses. Channels-last, from 8 channels on, uses all that it asks for.
#
# ## Exercises
#
# Replace each `...` and run the cell. A wrong answer is told what is wrong with it. Solutions are in
# [solutions/08_fusing_grid_and_sampler.ipynb](solutions/08_fusing_grid_and_sampler.ipynb).

# %% [markdown]
# ### Exercise 08-1: a scan
#
# A CT scan is a volume of one channel, float16. It is sampled under an affine transform, trained through, and
# the composition's grid is float32. How many bytes are moved for an output voxel (a volume's pixel), forward and backward
# together, as section 8.1 counts: fused, and with a grid? Give a list of two numbers.

# %% tags=["exercise"]
# >>> solution
fused_and_with_a_grid = [2 * 2 + 3 * 2, 2 * 2 + 3 * 2 + 5 * 3 * 4]
# <<< solution
check("08-1", fused_and_with_a_grid)

# %% [markdown]
# ### Exercise 08-2: the sectors of a pixel
#
# An image of `channels` float32 channels and `size` (H, W) begins on a sector. Write a function that returns
# how many different sectors the pixel in row `n` and column `m` lies in with all its channels, for the layout
# that `channels_last` says.


# %% tags=["exercise"]
def sectors_of_pixel(n, m, channels, size, channels_last):
    # >>> solution
    height, width = size
    if channels_last:
        numbers = [(n * width + m) * channels + c for c in range(channels)]
    else:
        numbers = [(c * height + n) * width + m for c in range(channels)]
    return len({number // 8 for number in numbers})
    # <<< solution


check("08-2", sectors_of_pixel)

# %% [markdown]
# ### Exercise 08-3: attention
#
# Equation 2 of the paper has three parameters, $(s, t_x, t_y)$: an output pixel at $(x, y)$ looks at
# $(s x + t_x, s y + t_y)$, all normalised. Write the map, for parameters (M, 3), one row for each transform, and the sampler. With
# $(1, 0, 0)$ and equal sizes it shall return its input exactly.


# %% tags=["exercise"]
# needs Triton
@triton.jit
def attention(parameters_ptr, m, target, extents, COMPUTE: tl.constexpr):
    # >>> solution
    x, y, _, _ = target
    e_a, e_b = extents[0]
    e_x, e_y = extents[1]
    first = parameters_ptr + 3 * m
    s = tl.load(first).to(COMPUTE)
    a = s * ratio(e_a, e_x, COMPUTE) * x + tl.load(first + 1).to(COMPUTE) * e_a
    b = s * ratio(e_b, e_y, COMPUTE) * y + tl.load(first + 2).to(COMPUTE) * e_b
    return a, b
    # <<< solution


def attention_sample(input, parameters, size):
    # >>> solution
    return fused(input, parameters, size, MAP=attention)
    # <<< solution


check("08-3", attention_sample)

# %% [markdown]
# ### Exercise 08-4: a lens
#
# A wide-angle lens draws the rim of a scene too near to the centre, or too far from it. The map that undoes it has
# one number, $k$: an output pixel at $(x, y)$ looks at $(1 + k \, (x^2 + y^2)) \, (x, y)$, all normalised. Write the
# map, for parameters (M, 1), and the sampler.


# %% tags=["exercise"]
# needs Triton
@triton.jit
def lens(parameters_ptr, m, target, extents, COMPUTE: tl.constexpr):
    # >>> solution
    x, y = target[0] / extents[1][0], target[1] / extents[1][1]
    stretch = 1 + tl.load(parameters_ptr + m).to(COMPUTE) * (x * x + y * y)
    return stretch * x * extents[0][0], stretch * y * extents[0][1]
    # <<< solution


def lens_sample(input, parameters, size):
    # >>> solution
    return fused(input, parameters, size, lens)
    # <<< solution


check("08-4", lens_sample)

# %% [markdown]
# ### Exercise 08-5: fuse the loss, too
#
# Registration compares the sampled image $V$ with the one that is wanted, $V^*$, of the same shape:
# $\sum (V - V^*)^2$ over channels and pixels, one number for each image. $V$ is written only to be read again;
# so do not write it. Let each program store the sum over its tile, and add up the few sums with PyTorch. `input`
# (N, C, H, W), `theta` (N, 2, 3) and `target`, $V^*$ (N, C, H', W'), are float32, `target` contiguous; return
# (N,). The check looks at what is allocated.


# %% tags=["exercise"]
# needs Triton
@triton.jit
def mismatch_kernel(
    sums_ptr,  # (N, tiles)
    target_ptr,  # (N, C, H', W')
    input_ptr,
    theta_ptr,
    strides,  # the input's
    channels,
    size,
    out_size,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
):
    # >>> solution
    item = tl.program_id(1)
    row, column, exists = owned_pixels(out_size, TILE_Y, TILE_X)
    a, b = places(theta_ptr, item, row, column, size, out_size, affine, False, tl.float32)
    taps = four_taps(a, b, exists, strides, size)
    squares = tl.zeros([TILE_Y * TILE_X], tl.float32)
    for c in range(channels):
        plane_ptr = input_ptr + item * strides[0] + c * strides[1]
        sampled = weighted_sum(plane_ptr, taps, strides, tl.float32)
        offset = ((item * channels + c) * out_size[0] + row) * out_size[1] + column
        difference = sampled - tl.load(target_ptr + offset, mask=exists, other=0.0)
        squares += difference * difference
    tl.store(sums_ptr + item * tl.num_programs(0) + tl.program_id(0), tl.sum(squares))
    # <<< solution


def mismatch(input, theta, target):
    # >>> solution
    (N, C, H, W), size = input.shape, target.shape[2:]
    tiles = triton.cdiv(size[0], TILE[0]) * triton.cdiv(size[1], TILE[1])
    sums = input.new_empty(N, tiles)
    mismatch_kernel[(tiles, N)](
        sums, target, input, theta.contiguous(), input.stride(), C, (H, W), tuple(size), *TILE
    )
    return sums.sum(1)
    # <<< solution


check("08-5", mismatch)

# %% [markdown]
# ## In the library
#
# | built here | in the library |
# | --- | --- |
# | `fused_kernel` | `sample_forward_kernel` in `kernels/stn_kernels/forward.py` |
# | `affine`, `projective`; `displacement` | `kernels/stn_kernels/coordinate_maps.py`; `kernels/stn_kernels/pixel_maps.py` |
# | `owned_pixels`, `places`, `four_taps` | `kernels/stn_kernels/template.py` |
# | `TILE`, one block for each layout | `block_shape` in `kernels/stn_kernels/launch.py` |
# | `allocations` | `stn.measured`, and `tests/kernels/test_memory.py`, which holds every operation to its bytes |
#
# ## References
#
# 1. M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu. *Spatial Transformer Networks*. NIPS 2015.
#    [arXiv:1506.02025](https://arxiv.org/abs/1506.02025). Grid generator and sampler, two parts of one layer.
# 2. NVIDIA. *CUDA C++ Best Practices Guide*, "Coalesced Access to Global Memory".
#    [docs.nvidia.com](https://docs.nvidia.com/cuda/cuda-c-best-practices-guide/). Warps, and the 32-byte
#    transactions that section 8.11 counts.
# 3. S. Williams, A. Waterman, D. Patterson. *Roofline: An Insightful Visual Performance Model for Multicore
#    Architectures*. Communications of the ACM 52(4), 2009.
#    [doi:10.1145/1498765.1498785](https://doi.org/10.1145/1498765.1498785). Why bytes are counted.
#
# ## Next
#
# [Chapter 09, The backward kernels](09_the_backward_kernels.ipynb): the same tiles, but output pixels that share
# input pixels; so atomics, their order, and ways to do without them. Before:
# [chapter 07, A first Triton kernel](07_a_first_triton_kernel.ipynb).
