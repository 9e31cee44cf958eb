# %% [markdown]
# # 9 The backward kernels
#
# > **Forward, each output pixel is written once, by whoever owns it. Backward, many of them add to the same
# > input pixel, at the same time and in no order. In this chapter you write both ways out: to throw with
# > atomics, and to collect through the inverse map. And you learn to say of every sum whether its bits depend
# > on luck, and what it costs that they do not.**
#
# **You will learn**
#
# - that the backward pass multiplies by the sampler's matrix, transposed, and that there are two ways to do
#   so;
# - to write a scatter with `tl.atomic_add`, what goes before it, and in which precision it has to add;
# - to count how many adds meet on one pixel, and what the layout of the channels changes;
# - why the order of a sum shows in its bits, and how integers make it vanish;
# - to reduce the gradient of $\theta$ without atomics and without a grid;
# - to write a gather: each input pixel finds its readers through $M^{-1}$, and what to do where there is
#   none.
#
# **You need** chapters [04](04_gradients.ipynb) and [07](07_a_first_triton_kernel.ipynb), and Triton, which
# on Linux is installed with the book. Elsewhere the cells that begin with `# needs Triton` say what they would show.
# **Runs in** about 25 seconds on two cores.

# %% tags=["setup"]
import os

import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
if device == "cpu":
    # Before the first kernel is made: Triton reads this variable where a function is decorated.
    os.environ["TRITON_INTERPRET"] = "1"

import math

import matplotlib.pyplot as plt
import torch.nn.functional as F
from matplotlib.patches import Polygon, Rectangle

import stn_kernels
from stn.exercises import check
from stn.plotting import show_image, use_style
from stn.without_triton import replay_kernel_cells
from stn_kernels import backend

replay_kernel_cells("09_the_backward_kernels.ipynb")
use_style()
torch.set_printoptions(precision=4, sci_mode=False)
generator = torch.Generator().manual_seed(0)

# %% tags=["setup"]
# needs Triton
import triton
import triton.language as tl

from stn_kernels import launch_backward

# %% [markdown]
# Chapter 04 has the formulas: the image's gradient is a splat, that of $\theta$ one sum over all pixels. Its
# code was PyTorch's, whose `index_put_` quietly did the hard part. Now the hard part.
#
# ## 9.1 A matrix, by rows and by columns
#
# Section 4.1's row of four pixels, read at three places. The output is linear in the row, so the sampler is a
# matrix $S$, whose entries are Equation 5's weights:

# %%
row = torch.tensor([1.0, 4.0, 2.0, 3.0])
looks_at = torch.tensor([0.25, 1.5, 1.75])
S = (1 - (looks_at[:, None] - torch.arange(4)).abs()).clamp(min=0)
g = torch.tensor([1.0, 2.0, 3.0])  # dL/dV
print("S =", S)
print("V = S U       =", S @ row)
print("dL/dU = S^T g =", S.T @ g)

# %% [markdown]
# Row $i$ of $S$ says what output pixel $i$ reads, and $g_i = \partial L / \partial V_i$ is the gradient that
# arrives there. Column $q$ says who reads input pixel $q$, and how much of it: the second pixel is read by all
# three, $0.25 \cdot 1 + 0.5 \cdot 2 + 0.25 \cdot 3 = 2$. The last is read by nobody and its gradient is 0.
#
# For images it is the same, with more numbers. Two helpers first. A kernel wants $\theta$ in pixels, and
# counted from the centres of both images, since then the identity is exact (section 3.10):
# $\big( a - \frac{W - 1}{2}, \; b - \frac{H - 1}{2} \big)^T = M p + t$, with a $2 \times 2$ matrix $M$ and a shift $t$ in
# pixels, for an output pixel at $p$, a vector, from its image's centre.


# %%
def pixel_factors(size, out_size, like):
    """What turns theta, normalised, into [M | t], in pixels; (2, 3). align_corners=False."""
    source = like.new_tensor([[size[1]], [size[0]]])
    return source / like.new_tensor([out_size[1], out_size[0], 2])


def pixel_map(theta, size, out_size):
    """[M | t] (..., 2, 3): from output to input pixels, both counted from the centre."""
    return theta * pixel_factors(size, out_size, theta)


def from_the_centre(length):
    return torch.arange(length, dtype=torch.float64) - (length - 1) / 2


def places(theta, size, out_size):
    """Where the output pixels of one theta (2, 3) look: a and b in pixels, each (H', W'), in float64."""
    M = pixel_map(theta.double().cpu(), size, out_size)
    x, y = from_the_centre(out_size[1]), from_the_centre(out_size[0])[:, None]
    return (M[k, 0] * x + M[k, 1] * y + M[k, 2] + (size[1 - k] - 1) / 2 for k in (0, 1))


def sampling_matrix(theta, size, out_size):
    """S of one theta, (H' W', H W)."""
    a, b = places(theta, size, out_size)
    across = (1 - (a[..., None] - torch.arange(size[1])).abs()).clamp(min=0)  # (H', W', W)
    down = (1 - (b[..., None] - torch.arange(size[0])).abs()).clamp(min=0)  # (H', W', H)
    return torch.einsum("ijy, ijx -> ijyx", down, across).flatten(2).flatten(0, 1)


def similarity(angle, zoom=1.0):
    """The theta that turns a picture by `angle` degrees and enlarges it by `zoom`."""
    cosine, sine = math.cos(math.radians(angle)) / zoom, math.sin(math.radians(angle)) / zoom
    return torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]], dtype=torch.float64)


# %% [markdown]
# An image of $9 \times 9$ pixels, turned by 20° and enlarged twofold, has an $S$ of $81 \times 81$:

# %% alt="Left: the 81 by 81 matrix, black but for short slanted strokes of grey, in a band from the upper left to the lower right; one row is marked in blue and one column in orange. Middle: the marked row as a 9 by 9 image, in which four pixels that touch are lit. Right: the marked column as a 9 by 9 image, in which a tilted square of pixels is lit, brightest in its middle."
theta = similarity(20, 2)
S = sampling_matrix(theta, (9, 9), (9, 9))
reader, read = 3 * 9 + 5, 4 * 9 + 4
fig, axes = plt.subplots(1, 3, figsize=(8.4, 3.0))
show_image(S, axes[0], "$S$")
axes[0].axhspan(reader - 1, reader + 1, color="C4", alpha=0.6)
axes[0].axvspan(read - 1, read + 1, color="C5", alpha=0.6)
show_image(S[reader].reshape(9, 9), axes[1], "a row: what one output pixel reads")
show_image(S[:, read].reshape(9, 9), axes[2], "a column: who reads one input pixel")
plt.show()

by_rows, by_columns = (S > 0).sum(1), (S > 0).sum(0)
print(f"of {S.numel()} entries {(S > 0).sum()} are not 0")
print(f"in a row {by_rows.min()} to {by_rows.max()}, in a column {by_columns.min()} to {by_columns.max()}")

U = torch.rand(9, 9, generator=generator, dtype=torch.float64).requires_grad_()
g = torch.randn(9, 9, generator=generator, dtype=torch.float64)
V = F.grid_sample(
    U[None, None], F.affine_grid(theta[None], (1, 1, 9, 9), align_corners=False), align_corners=False
)
(by_autograd,) = torch.autograd.grad(V, U, g[None, None])
print("S U is PyTorch's sample:     ", torch.allclose((S @ U.flatten()).reshape(9, 9), V[0, 0]))
print("S^T g is autograd's gradient:", torch.allclose((S.T @ g.flatten()).reshape(9, 9), by_autograd))

# %% [markdown]
# Nobody stores $S$. But it has two kernels in it:
#
# - **Scatter** goes through $S$ by rows. An output pixel knows its row: Equation 1 says where it looks, and
#   four taps follow. It *throws* $g_i$ times each weight onto a pixel that others throw at, too.
# - **Gather** goes by columns. An input pixel owns its sum, *collects* $g_i$ from its readers and writes once. But
#   no formula that we have says who they are, and there are none of them, or seventeen.
#
# The first part of this chapter throws, the second part collects. (Compilers have learned to turn the one into the
# other [4].)
#
# ## 9.2 Scatter
#
# Every line but one is known from chapter 07. What is new is passed as a constant, so that we can compare
# ways of adding: `ADD`. And one thing is here for study only: the kernel takes the number of its block from a
# table, `order_ptr`. On a GPU programs run in any order. In the interpreter they run in turn; with the table
# we shall run them in another.


# %%
# needs Triton
@triton.jit
def own_pixels(block, size, BLOCK: tl.constexpr):
    """The pixels of a block: numbers, which of them exist, and x and y from the centre of the image."""
    pixel = block * BLOCK + tl.arange(0, BLOCK)
    x = pixel % size[1] - (size[1] - 1) * 0.5
    y = pixel // size[1] - (size[0] - 1) * 0.5
    return pixel, pixel < size[0] * size[1], x, y


@triton.jit
def place(map_ptr, x, y, size):
    """Equation 1 in pixels: where output pixels at (x, y) from the centre look."""
    a = tl.load(map_ptr) * x + tl.load(map_ptr + 1) * y + tl.load(map_ptr + 2)
    b = tl.load(map_ptr + 3) * x + tl.load(map_ptr + 4) * y + tl.load(map_ptr + 5)
    return a + (size[1] - 1) * 0.5, b + (size[0] - 1) * 0.5


@triton.jit
def scatter_kernel(
    image_ptr,  # (N, C, H, W), contiguous
    values_ptr,  # dL/dV (N, C, H', W'), contiguous
    map_ptr,  # [M | t] (N, 2, 3), contiguous
    order_ptr,  # the numbers of the blocks, in the order in which programs shall take them
    channels,
    size,  # H, W
    out_size,  # H', W'
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    block = tl.load(order_ptr + tl.program_id(0))
    item = tl.program_id(1)
    pixel, exists, x, y = own_pixels(block, out_size, BLOCK)
    a, b = place(map_ptr + 6 * item, x, y, size)
    left, top = tl.floor(a).to(tl.int32), tl.floor(b).to(tl.int32)

    for c in range(channels):
        plane = item * channels + c
        value = tl.load(values_ptr + plane * out_size[0] * out_size[1] + pixel, mask=exists, other=0.0)
        for j in tl.static_range(2):
            for i in tl.static_range(2):
                n, m = top + j, left + i
                weight = (1.0 - tl.abs(a - m)) * (1.0 - tl.abs(b - n))
                inside = (n >= 0) & (n < size[0]) & (m >= 0) & (m < size[1])
                ADD(image_ptr + (plane * size[0] + n) * size[1] + m, weight * value, exists & inside)


# %% [markdown]
# Two ways to add, the wrong one of section 7.4 and the right one:


# %%
# needs Triton
@triton.jit
def load_add_store(pointers, shares, mask):
    tl.store(pointers, tl.load(pointers, mask=mask) + shares, mask=mask)


@triton.jit
def atomic(pointers, shares, mask):
    tl.atomic_add(pointers, shares.to(pointers.dtype.element_ty), mask=mask, sem="relaxed")


def scatter(values, theta, size, ADD=atomic, dtype=None, start=0, order=None, BLOCK=1024):
    """dL/dU (N, C, H, W) from dL/dV (N, C, H', W'), in a buffer of `dtype` that is `start` everywhere."""
    N, C, *out_size = values.shape
    image = torch.full((N, C, *size), start, dtype=dtype or values.dtype, device=values.device)
    blocks = triton.cdiv(out_size[0] * out_size[1], BLOCK)
    if order is None:
        order = torch.arange(blocks, device=values.device)
    M = pixel_map(theta, size, out_size).contiguous()
    scatter_kernel[(blocks, N)](
        image, values.contiguous(), M, order, C, size, tuple(out_size), ADD=ADD, BLOCK=BLOCK
    )
    return image


enlarged = similarity(20, 2)[None].float().to(device)
ones = torch.ones(1, 1, 28, 28, device=device)
thrown = sampling_matrix(enlarged[0], (28, 28), (28, 28)).sum()
for ADD in (load_add_store, atomic):
    arrived = scatter(ones, enlarged, (28, 28), ADD).sum()
    print(f"{ADD.__name__:14} thrown {thrown:.0f}, arrived {arrived:.0f}")

# %% [markdown]
# With load, add and store three quarters are lost, even in the interpreter, which runs one program after the
# other: a program works on a *block* of pixels, and where several of its lanes point to one address the last
# store wins. On a GPU the programs lose to each other as well.
#
# An **atomic** addition reads, adds and writes as one step that nothing can come between. It says nothing
# about *when*; `sem="relaxed"` says that we do not want it to, beyond the one address that is added to. The
# sum is read only by a later kernel, and by then all programs have ended. The default, `"acq_rel"`, would
# order all other loads and stores around each addition.
#
# Against autograd now: odd sizes, several images and channels, transforms of which some look outside.

# %%
# needs Triton
size, out_size = (13, 18), (11, 15)
thetas = torch.eye(2, 3) + 0.5 * torch.randn(4, 2, 3, generator=generator, dtype=torch.float64)
image = torch.rand(4, 3, *size, generator=generator, dtype=torch.float64)
values = torch.randn(4, 3, *out_size, generator=generator, dtype=torch.float64)  # dL/dV


def by_autograd(values, image, theta):
    """The gradients of image and theta through PyTorch's two functions, on the CPU."""
    values, image, theta = (tensor.detach().cpu() for tensor in (values, image, theta))
    leaves = image.requires_grad_(), theta.requires_grad_()
    grid = F.affine_grid(theta, (len(theta), 1, *values.shape[2:]), align_corners=False)
    return torch.autograd.grad(F.grid_sample(image, grid, align_corners=False), leaves, values)


def on_device(*tensors, dtype=torch.float64):
    return [tensor.to(device, dtype) for tensor in tensors]


of_image, of_theta = by_autograd(values, image, thetas)
for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
    ours = scatter(*on_device(values, thetas, dtype=dtype), size, BLOCK=64).cpu()
    agrees = torch.allclose(ours.double(), of_image, rtol=0, atol=tolerance)
    print(f"{str(dtype)[6:]}: agrees with autograd to {tolerance:.0e}: {agrees}")

# %% [markdown]
# ### Zeroes come first
#
# An add needs something to add to. The forward kernel could take memory as it came, since every output pixel
# is written. Here a pixel is touched by many or by nobody, and all depends on what it held before:

# %%
# needs Triton
right = scatter(ones, enlarged, (28, 28))
wrong = scatter(ones, enlarged, (28, 28), start=7)
print("from sevens, every pixel is off by 7:", torch.allclose(wrong, right + 7))
print(f"pixels that nobody adds to: {(right == 0).float().mean():.0%}")

# %% [markdown]
# So a scatter is two kernels, one that writes zeroes and one that adds to them. Forgetting the first is a bug
# that hides: fresh memory is often zero. (It is also why a kernel that adds must not be tuned by running it
# several times on the same buffer.)
#
# ### Half precision
#
# A network in float16 hands down gradients in float16, and wants one back. May the buffer be float16 too? An
# image of $4 \times 4$ is enlarged, by an output that is larger, and each output pixel throws a 1. Then an
# input pixel that is not at the border gets exactly the square of the enlargement.

# %%
# needs Triton
identity = torch.eye(2, 3, device=device)[None]
print("enlarged   right   float16 buffer   float32 buffer, rounded once")
for zoom in (2, 8, 16, 32, 64):
    ones = torch.ones(1, 1, 4 * zoom, 4 * zoom, dtype=torch.float16, device=device)
    sums = [
        scatter(ones, identity, (4, 4), dtype=dtype, BLOCK=4096) for dtype in (torch.float16, torch.float32)
    ]
    half, single = (total[0, 0, 1, 1].half().item() for total in sums)
    print(f"{zoom:6} × {zoom * zoom:8} {half:16.0f} {single:16.0f}")

# %% [markdown]
# float16 has 11 bits: the larger a sum, the coarser its steps. From 1024 on its numbers are whole, so a share
# below one half is rounded away; from 2048 on they are even, and not even a 1 arrives. The sum stands still
# while the adds go on. 4096 itself would be no problem for float16: what fails is not the result but the way
# there. (bfloat16 has 8 bits, and stands still from 256 on.) So one adds in float32, and rounds **once**, at the
# end. The price is a buffer of twice the bytes, and a last kernel that reads it and writes the result.
#
# In the library the computing precision is float32 for every smaller type, and float64 for float64.
#
# ## 9.3 How many meet on one pixel
#
# Adds to different addresses run side by side. Adds to *one* address have to wait for each other, as each
# must find the sum that the one before it left. This is **contention**, and no cache helps. How much there is
# depends on the transform, and can be counted exactly.


# %%
def taps(theta, size, out_size):
    """The input pixels that each output pixel adds to, numbered, -1 outside: (4, H' W'); and the weights."""
    a, b = places(theta, size, out_size)
    indices, weights = [], []
    for n in (b.floor(), b.floor() + 1):
        for m in (a.floor(), a.floor() + 1):
            exists = (n >= 0) & (n < size[0]) & (m >= 0) & (m < size[1])
            indices.append(torch.where(exists, n * size[1] + m, -1).long().flatten())
            weights.append(((1 - (a - m).abs()) * (1 - (b - n).abs()) * exists).flatten())
    return torch.stack(indices), torch.stack(weights)


def different(lanes):
    """How many different pixels, on average, the 32 lanes (..., 32) of one instruction add to."""
    ordered = lanes.sort(-1).values
    first = torch.cat([torch.ones_like(ordered[..., :1]), ordered.diff(dim=-1)], -1) != 0
    first &= ordered >= 0
    counts = first.sum(-1)
    return counts[counts > 0].double().mean()


warps = {
    "identity": similarity(0),
    "turned by 45°": similarity(45),
    "8 × enlarged": similarity(10, 8),
    "4 × shrunk": similarity(10, 1 / 4),
    "all at one point": torch.tensor([[0.0, 0, 0.3], [0, 0, 0.3]]),
}
size = (256, 256)
print("256 × 256          adds per       of them     pixels        adds on the   different pixels")
print("                   output pixel   weigh 0     that get any  busiest one   among 32 lanes")
for name, warp in warps.items():
    index, weight = taps(warp, size, size)
    thrown = index >= 0
    counts = index[thrown].bincount(minlength=256 * 256)
    print(
        f"{name:17} {thrown.sum() / 256**2:10.2f} {(weight[thrown] == 0).double().mean():14.0%} "
        f"{(counts > 0).double().mean():13.1%} {counts.max():15} {different(index.reshape(4, -1, 32)):14.1f}"
    )

# %% [markdown]
# - The **identity** throws four shares at every pixel, of which three weigh nothing, and are added all the
#   same: a kernel cannot know the weights beforehand.
# - **Turned**, a pixel that gets any gets four adds on average and five at most. This is hardly contention.
# - **Enlarged**, everything comes down on one pixel in fifty-five, more than 200 adds on each; and the 32
#   lanes that issue one instruction together, neighbours in a row, want only five different pixels.
# - **Shrunk**, nobody meets anybody, and only one output pixel in sixteen sees the image at all.
# - **All at one point**: 65,536 adds on each of four pixels. A transformer that has collapsed is the slowest of
#   all, and it makes no difference how many programs the GPU could run at once.
#
# As a picture, adds that weigh something, on $48 \times 48$ pixels:

# %% alt="Three images of 48 by 48 pixels, of how many adds reach each input pixel. Turned by 45 degrees: a tartan of light greys, with the four corners black. Enlarged eightfold: a small bright square in the very middle, turned a little, black around it. Shrunk fourfold: small bright squares, each two by two pixels, scattered evenly on black."
fig, axes = plt.subplots(1, 3, figsize=(8.4, 3.1))
for ax, name in zip(axes, ("turned by 45°", "8 × enlarged", "4 × shrunk"), strict=True):
    index, weight = taps(warps[name], (48, 48), (48, 48))
    counts = index[weight > 0].bincount(minlength=48 * 48).reshape(48, 48)
    show_image(counts / counts.max(), ax, f"{name}: up to {counts.max()}")
    print(
        f"{name:14} from {counts.min()} to {counts.max()} adds a pixel, {counts.sum() / 48**2:.2f} on average"
    )
plt.show()

# %% [markdown]
# ## 9.4 Layouts: four adds in one
#
# Where do the channels lie? In a *channels-first* image (N, C, H, W) the next number in memory is the next
# pixel to the right. Lanes that are neighbours add to one channel of neighbouring pixels, of whatever
# pixels the transform says: a share each, an address each.
#
# In a *channels-last* image the next number is the next channel of the same pixel, and all channels of a
# pixel go to the same tap with the same weight. A kernel for it works on a block of pixels *and* channels:


# %%
# needs Triton
@triton.jit
def scatter_channels_last_kernel(
    image_ptr,  # (N, H, W, C) in memory, zeroed
    values_ptr,  # (N, H', W', C) in memory
    map_ptr,  # [M | t] (N, 2, 3), contiguous
    channels,
    size,
    out_size,
    CHANNELS: tl.constexpr,  # the next power of two
    BLOCK: tl.constexpr,
):
    item = tl.program_id(1)
    pixel, exists, x, y = own_pixels(tl.program_id(0), out_size, BLOCK)  # [BLOCK]
    c = tl.arange(0, CHANNELS)[None, :]
    from_ptr = values_ptr + (item * out_size[0] * out_size[1] + pixel)[:, None] * channels + c
    value = tl.load(from_ptr, mask=exists[:, None] & (c < channels), other=0.0)  # [BLOCK, CHANNELS]

    a, b = place(map_ptr + 6 * item, x, y, size)
    left, top = tl.floor(a).to(tl.int32), tl.floor(b).to(tl.int32)
    for j in tl.static_range(2):
        for i in tl.static_range(2):
            n, m = top + j, left + i
            weight = (1.0 - tl.abs(a - m)) * (1.0 - tl.abs(b - n))
            inside = exists & (n >= 0) & (n < size[0]) & (m >= 0) & (m < size[1])
            to_ptr = image_ptr + ((item * size[0] + n) * size[1] + m)[:, None] * channels + c
            mask = inside[:, None] & (c < channels)
            tl.atomic_add(to_ptr, weight[:, None] * value, mask=mask, sem="relaxed")


size = (13, 18)
single, M = on_device(values, pixel_map(thetas, size, out_size), dtype=torch.float32)
channels_last = torch.zeros(4, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
scatter_channels_last_kernel[(triton.cdiv(11 * 15, 64), 4)](
    channels_last,
    single.contiguous(memory_format=torch.channels_last),
    M.contiguous(),
    3,
    size,
    out_size,
    CHANNELS=4,
    BLOCK=64,
)
print("strides of the result, (N, C, H, W):", channels_last.stride())
print("agrees with autograd:", torch.allclose(channels_last.cpu().double(), of_image, rtol=0, atol=1e-4))

# %% [markdown]
# What is it good for? Neighbouring lanes now add to *neighbouring addresses*, always, whatever the transform; and
# a GPU has wide instructions for neighbours. NVIDIA's from the Hopper generation on (sm_90 to compilers; sm_80,
# below, is an older one) can add a vector of four float32, 16 bytes, in one instruction [1]. Instructions that a
# thread issues for one output pixel of $C = 64$ channels:

# %%
C, tap_count = 64, 4
ways = {
    "channels-first, float32": (1, 4),
    "channels-last, float32, before Hopper": (1, 4),
    "channels-last, float32, from Hopper on": (4, 4),
    "channels-last, 64-bit integers": (1, 8),
}
print("                                         adds in one   instructions   bytes of the buffer")
for name, (in_one, width) in ways.items():
    print(f"{name:40} {in_one:11} {tap_count * C // in_one:14} {width * C:21}")

# %% [markdown]
# A table of what *should* happen convinces nobody; but a compiler needs no GPU to show what does. For 64
# channels and sm_90, Triton makes of this kernel's adds 8 instructions `REDG.E.ADD.F32x4` a thread, where a
# single add each would take 32; for sm_80, 32 `RED.E.ADD.F32`. In a clone of the repository `make codegen`
# lists the same for the library's kernels, with 64-bit integers, which are added one by one on both. The
# tests hold it to that.
#
# Three remarks.
#
# - A vector has to be full and aligned. Of an integer argument a compiled kernel knows only whether 16
#   divides it, so with 12 channels ours falls back to single adds. The library hands over channels and
#   strides in units of vectors, and keeps them.
# - With fewer than four channels there is no vector to fill.
# - The narrower the type, the worse is channels-first. Into a float16 buffer, our first kernel's adds become
#   `ATOMG.E.CAS`: a loop that compares and swaps the 32 bits around each number until nobody has come
#   between. Another reason for the buffer in float32.
#
# From four channels on the library therefore scatters into a float32 buffer that is channels-last, and turns
# it round while it rounds, if the image is channels-first.
#
# How much time *that* saves is a question for a stopwatch on a GPU; those of section 9.9 do not answer it.
#
# ## 9.5 Order
#
# An atomic addition is done at some time, and nobody says when. With numbers on paper it would not matter:

# %%
large, small = torch.tensor(1e8), torch.tensor(3.0)
print(f"(1e8 + 3) - 1e8 = {((large + small) - large).item():.0f}")
print(f"(1e8 - 1e8) + 3 = {((large - large) + small).item():.0f}")

# %% [markdown]
# Every float32 addition is rounded, and what is rounded depends on what was added before. Floating-point
# addition commutes, but it is **not associative** [2]. Let us run the programs of our scatter in ten orders
# and see how many different gradients come out. Different means: in a single bit.

# %%
# needs Triton
size, out_size = (12, 12), (36, 36)
warp = similarity(25, 0.9)[None].float().to(device)
values = torch.randn(1, 1, *out_size, generator=generator).to(device)
blocks = triton.cdiv(36 * 36, 128)
orders = [torch.randperm(blocks, generator=generator).to(device) for _ in range(10)]


def different_results(results):
    return len({result.cpu().numpy().tobytes() for result in results})


exact = scatter(values.double(), warp.double(), size)
floats = [scatter(values, warp, size, order=order, BLOCK=128) for order in orders]
same_order = [scatter(values, warp, size, order=orders[0], BLOCK=128) for _ in range(3)]
largest = exact.abs().max()
spread = torch.stack(floats).double()
print(f"{blocks} programs in the same order, 3 times: {different_results(same_order)} result")
print(f"in 10 orders:                        {different_results(floats)} results")
print(
    f"they differ by up to {(spread.amax(0) - spread.amin(0)).max() / largest:.0e} of the largest gradient,"
)
print(f"and are off the exact one by up to   {(spread - exact).abs().max() / largest:.0e}")

# %% [markdown]
# Ten orders, ten answers, and each as good as the other: how far apart they can be has bounds [3]. As *errors*
# they are no cause for concern. But training feeds them back: a last bit in the first step is another network
# after the hundredth. You cannot tell then whether a change in your code or the order of the programs changed a
# result, you cannot bisect, and a test can only say "about". PyTorch's own backward of `grid_sample` on a GPU adds
# atomically as well, and under `torch.use_deterministic_algorithms(True)` raises an error rather than return bits
# that may differ [5].
#
# ## 9.6 Fixed point
#
# Integers are associative. So choose a unit, far below the smallest gradient that matters, write each share
# as a whole number of units, and add integers. Rounding happens *before* the sum, share by share, where no
# order can reach it:
#
# $$ \text{sum} = \frac{1}{s} \sum_i \operatorname{int}(s \, g_i \, w_i) $$
#
# How large may the scale $s$ be? A 64-bit integer holds numbers below $2^{63}$. With $P$ output pixels, none
# of which adds more than $\max_i |g_i|$ to a pixel, since no weight is above 1,
#
# $$ s = 2^k, \qquad 2^k \max_i |g_i| \, P \leq 2^{62} $$
#
# can never overflow, whatever the transform; one bit is left for the rounding of weights. And why a power of
# two? Because then multiplying and dividing change the exponent only, and round nothing:

# %%
x = torch.randn(100000, generator=torch.Generator().manual_seed(0))
for name, factor in (("2^40", 2.0**40), ("10^12", 1e12)):
    print(f"times {name}, divided by {name}: {(x * factor / factor != x).float().mean():.0%} have changed")


# %%
# needs Triton
def fixed_point_scale(values, spare=0):
    """A power of two for each image and channel, (N, C, 1, 1), whose sums stay below 2^62."""
    points = values[0, 0].numel()
    bits = 62 - math.ceil(math.log2(points)) + spare
    exponent = bits - torch.frexp(values.abs().amax((2, 3), keepdim=True)).exponent  # largest < 2^exponent
    return torch.ldexp(torch.ones_like(values[:, :, :1, :1]), exponent)


def scatter_fixed_point(values, theta, size, order=None, spare=0, BLOCK=128):
    """As `scatter`, with the same bits in any order."""
    scale = fixed_point_scale(values, spare)
    units = scatter(values * scale, theta, size, dtype=torch.int64, order=order, BLOCK=BLOCK)
    return units / scale


integers = [scatter_fixed_point(values, warp, size, order) for order in orders]
print(f"in 10 orders: {different_results(integers)} result")
fixed = integers[0].double()
print(
    f"the floating-point sums are off it by up to {(spread - fixed).abs().max() / largest:.0e} of the largest,"
)
print(f"and it is off the exact gradient by up to   {(fixed - exact).abs().max() / largest:.0e}")

# %% [markdown]
# The same kernel, and `atomic` casts to what the buffer holds. One result; and as a sum it is the better one,
# since it is rounded once, at the very end, where each of the ten was rounded at every step. (The second line
# is larger: most of the error was made before the sum, when places and weights were computed in float32.)
#
# 64 bits are many. $\lceil \log_2 P \rceil$ of them are for the number of pixels, and the largest gradient
# has the rest:

# %%
print("     output   bits for the largest gradient   so many times smaller ones still have float32's 24")
for side in (28, 224, 1024, 4096):
    bits = 62 - math.ceil(math.log2(side * side))
    print(f"{side:5} × {side:<5} {bits:20} {'2^' + str(bits - 24):>30}")

# %% [markdown]
# Is the bound needed? A bad case is easy to build: 1024 output pixels, all of which look at the same pixel's
# centre, each with a gradient of 1.

# %%
# needs Triton
ones = torch.ones(1, 1, 32, 32, device=device)
at_the_centre = torch.zeros(1, 2, 3, device=device)
for spare in (0, 1, 2):
    total = scatter_fixed_point(ones, at_the_centre, (5, 5), spare=spare, BLOCK=1024)[0, 0, 2, 2]
    print(f"bits more than the rule gives: {spare}; the sum of 1024 ones: {total:.0f}")

# %% [markdown]
# With one bit more it still comes out right: that is the bit which is kept for rounding, and with gradients
# just below 2 in place of 1 there would be nothing left. With two more the sum is negative, and nobody says a
# word. That is how integers overflow.
#
# What does it cost? A pass over $g$ to find the largest; a buffer of 8 bytes where float32 has 4; and adds of
# single 64-bit numbers, as the table of section 9.4 has it: on Hopper four times as many instructions. And
# what has no magnitude has no unit: where a channel's gradient holds an infinity or NaN, the library returns
# NaN for that whole channel, rather than a number that hides it. (The library's bound is more careful by the
# number of taps: under border padding several of them may be one pixel, and other kernels have negative
# weights.)
#
# ## 9.7 Theta: a reduction
#
# Six numbers, and every output pixel adds to all of them. By section 4.7, now in pixels,
#
# $$ \frac{\partial L}{\partial [M \,|\, t]} = \sum_i \delta_i \, (p_x, \; p_y, \; 1), \qquad
# \delta_i = \left( \frac{\partial L}{\partial a_i}, \frac{\partial L}{\partial b_i} \right)^T $$
#
# Three ways, two of them bad:
#
# - **Atomics.** The contention of section 9.3 at its worst: all programs on six addresses, and another sum
#   each time.
# - **Store all $\delta_i$** and let PyTorch multiply. A grid's gradient is 8 bytes for each pixel, written,
#   then read; fusing has just got rid of the grid.
# - **Partial sums.** A program adds up its own pixels in registers and writes its six numbers, once, into a
#   row that is its own. A second, small sum adds the rows.


# %%
# needs Triton
@triton.jit
def map_gradient_kernel(
    rows_ptr,  # (N, blocks, 6): of each program a row of sums
    values_ptr,  # dL/dV (N, C, H', W'), contiguous
    image_ptr,  # U (N, C, H, W), contiguous
    map_ptr,
    order_ptr,
    channels,
    size,
    out_size,
    BLOCK: tl.constexpr,
):
    block = tl.load(order_ptr + tl.program_id(0))
    item = tl.program_id(1)
    pixel, exists, x, y = own_pixels(block, out_size, BLOCK)
    a, b = place(map_ptr + 6 * item, x, y, size)
    left, top = tl.floor(a).to(tl.int32), tl.floor(b).to(tl.int32)

    slope_a, slope_b = tl.zeros_like(a), tl.zeros_like(b)  # dL/da and dL/db
    for c in range(channels):
        plane = item * channels + c
        value = tl.load(values_ptr + plane * out_size[0] * out_size[1] + pixel, mask=exists, other=0.0)
        for j in tl.static_range(2):
            for i in tl.static_range(2):
                n, m = top + j, left + i
                inside = (n >= 0) & (n < size[0]) & (m >= 0) & (m < size[1])
                tap_ptr = image_ptr + (plane * size[0] + n) * size[1] + m
                pull = value * tl.load(tap_ptr, mask=exists & inside, other=0.0)
                slope_a += pull * (1.0 - tl.abs(b - n)) * (2 * i - 1)  # k' is -1 on the left, 1 on the right
                slope_b += pull * (1.0 - tl.abs(a - m)) * (2 * j - 1)

    row_ptr = rows_ptr + (item * tl.num_programs(0) + block) * 6
    tl.store(row_ptr, tl.sum(slope_a * x))
    tl.store(row_ptr + 1, tl.sum(slope_a * y))
    tl.store(row_ptr + 2, tl.sum(slope_a))
    tl.store(row_ptr + 3, tl.sum(slope_b * x))
    tl.store(row_ptr + 4, tl.sum(slope_b * y))
    tl.store(row_ptr + 5, tl.sum(slope_b))


def gradient_of_theta(values, image, theta, order=None, BLOCK=128):
    """dL/dtheta (N, 2, 3); no atomics, and no grid."""
    N, C, *out_size = values.shape
    size = tuple(image.shape[2:])
    blocks = triton.cdiv(out_size[0] * out_size[1], BLOCK)
    if order is None:
        order = torch.arange(blocks, device=values.device)
    rows = values.new_full((N, blocks, 6), math.nan)  # a row that nobody writes shall be seen
    M = pixel_map(theta, size, out_size).contiguous()
    map_gradient_kernel[(blocks, N)](
        rows, values.contiguous(), image.contiguous(), M, order, C, size, tuple(out_size), BLOCK=BLOCK
    )
    return rows.sum(1).view(N, 2, 3) * pixel_factors(size, out_size, theta)


values_of_four = torch.randn(4, 2, 7, 9, generator=generator, dtype=torch.float64)
images = torch.rand(4, 2, 10, 8, generator=generator, dtype=torch.float64)
of_image, of_theta = by_autograd(values_of_four, images, thetas)
ours = gradient_of_theta(*on_device(values_of_four, images, thetas)).cpu()
print("agrees with autograd to 1e-10:", torch.allclose(ours, of_theta, rtol=0, atol=1e-10))

picture = torch.rand(1, 1, *size, generator=generator).to(device)
in_orders = [gradient_of_theta(values, picture, warp, order) for order in orders]
print(f"{blocks} programs in 10 orders: {different_results(in_orders)} result")

# %% [markdown]
# Floating-point sums, and yet the order of the programs does not show. Each program adds its own pixels in
# the way it was compiled to; it writes to its own row; and the rows are added in the order of their *places*.
# A sum depends on the order of additions, so fix that order and let the programs run as they like.
#
# The rows are small beside the grid that is not stored. For $R$ numbers of a transform, and programs that own
# $P$ pixels, it is $4 R$ bytes against $8 P$ (in 3-D $12 P$):

# %%
P = 128
families = {
    "affine": (6, 8),
    "projective": (9, 8),
    "affine, 3-D": (12, 12),
    "spline through 100 points": (2 * 103, 8),
}
print("                              R   rows, of a grid")
for name, (R, grid_bytes) in families.items():
    print(f"{name:27} {R:4} {4 * R / (grid_bytes * P):12.1%}")

# %% [markdown]
# A thin plate spline (chapter 11) has two numbers for each of its points and six more; through many points these
# are more numbers than a program has pixels. There a program should own more pixels: a *run* of several tiles,
# whose sums stay in registers from one to the next. The library makes runs as long as it takes for the rows to
# stay below a tenth of a grid. (Where the output is so small that one run is all of it, there is one row.)
#
# ## 9.8 Gather: who reads me?
#
# Back to the image's gradient, now by columns. Output pixel $p$ reads input pixel $q$ if it looks at a place
# less than one pixel away from it, in both directions. With both counted from the centre,
#
# $$ M p + t - q = e, \qquad |e_x| < 1, \; |e_y| < 1 $$
#
# and for a map that can be inverted
#
# $$ p = M^{-1}(q - t) + M^{-1} e $$
#
# The readers of $q$ lie in the image of a square under $M^{-1}$: a parallelogram around $M^{-1}(q - t)$.
# Around it stands a box, whose sides we can write down, since $M^{-1} e$ is largest in $x$ when each term is:
#
# $$ \left| \left(M^{-1} e\right)_x \right| < |M^{-1}_{xx}| + |M^{-1}_{xy}|, \qquad
# \left| \left(M^{-1} e\right)_y \right| < |M^{-1}_{yx}| + |M^{-1}_{yy}| $$
#
# **An open box around $M^{-1}(q - t)$, with the row sums of $|M^{-1}|$ as half-widths.** (A kernel that
# reaches $r$ pixels instead of one has $r$ times as much.) Whoever is in the box is a *candidate*; whether it
# reads $q$ its weight will tell.


# %%
def box(theta, size, out_size, scale=1.0, closed=False):
    """The candidates of every input pixel: first and last column, first and last row, each (H, W)."""
    M, t = pixel_map(theta.double(), size, out_size).split([2, 1], dim=1)
    inverse = torch.linalg.inv(M)
    half = inverse.abs().sum(1) * scale
    y, x = torch.meshgrid(from_the_centre(size[0]), from_the_centre(size[1]), indexing="ij")
    middle = (torch.stack([x, y], -1) - t[:, 0]) @ inverse.T  # (H, W, 2)
    sides = []
    for k in (0, 1):
        length = out_size[1 - k]
        low, high = (middle[..., k] + (length - 1) / 2 + side * half[k] for side in (-1, 1))
        first, last = (low.ceil(), high.floor()) if closed else (low.floor() + 1, high.ceil() - 1)
        sides += [first.clamp(0, length).long(), last.clamp(-1, length - 1).long()]
    return sides


def candidates(sides):
    left, right, top, bottom = sides
    return (right - left + 1).clamp(min=0) * (bottom - top + 1).clamp(min=0)


# %% alt="A lattice of output pixels as small grey dots. Towards the lower left a rectangle, the box, and in it a tilted square that touches all four of its sides, the parallelogram. Output pixels in the tilted square are filled and blue, larger towards its middle; those in the box but outside the tilted square are open orange circles; a yellow dot marks the middle of both."
size = out_size = (15, 15)
theta = similarity(30, 2.5) + torch.tensor([[0, 0, 0.05], [0, 0, 0.02]], dtype=torch.float64)
n, m = 8, 6
M, t = pixel_map(theta, size, out_size).split([2, 1], dim=1)
inverse = torch.linalg.inv(M)
middle = inverse @ (torch.tensor([[m - 7.0], [n - 7.0]], dtype=torch.float64) - t) + 7
corners = middle + inverse @ torch.tensor([[-1.0, 1, 1, -1], [-1, -1, 1, 1]], dtype=torch.float64)
half = inverse.abs().sum(1)
left, right, top, bottom = (side[n, m].item() for side in box(theta, size, out_size))
weight = sampling_matrix(theta, size, out_size)[:, n * 15 + m].reshape(15, 15)

fig, ax = plt.subplots(figsize=(4.4, 4.2))
ax.add_patch(Polygon(corners.T.numpy(), fill=False, edgecolor="C0", linewidth=1.4))
ax.add_patch(Rectangle((middle[:, 0] - half).tolist(), *(2 * half).tolist(), fill=False, edgecolor="C1"))
for y in range(15):
    for x in range(15):
        if weight[y, x] > 0:
            ax.plot(x, y, "o", color="C0", markersize=3 + 7 * weight[y, x].item())
        elif left <= x <= right and top <= y <= bottom:
            ax.plot(x, y, "o", color="C1", markerfacecolor="none", markersize=6)
        else:
            ax.plot(x, y, ".", color="#bbbbbb", markersize=3)
ax.plot(*middle, "o", color="C5", markersize=4)
ax.set(title=f"the readers of input pixel ({n}, {m})", aspect="equal", xlim=(-1, 15), ylim=(15, -1))
plt.show()
print(
    f"columns {left} to {right}, rows {top} to {bottom}: {(right - left + 1) * (bottom - top + 1)} candidates"
)
print(f"of which {(weight > 0).sum()} read it")

# %% [markdown]
# A claim like "it misses nobody" is cheap to test by brute force: 300 transforms at random, every entry of
# every $S$. And, so that we know that the test *can* fail, with a box that is a little too small.


# %%
def missed(theta, size, out_size, **options):
    """Entries of S that are not 0, how many of them lie outside the boxes, and all candidates."""
    S = sampling_matrix(theta, size, out_size).reshape(*out_size, *size)
    left, right, top, bottom = box(theta, size, out_size, **options)
    row, column = torch.arange(out_size[0])[:, None, None, None], torch.arange(out_size[1])[:, None, None]
    in_box = (left <= column) & (column <= right) & (top <= row) & (row <= bottom)
    return torch.stack([(S > 0).sum(), ((S > 0) & ~in_box).sum(), in_box.sum()])


seeded = torch.Generator().manual_seed(0)
at_random = torch.eye(2, 3) + 0.6 * torch.randn(300, 2, 3, generator=seeded, dtype=torch.float64)
for scale in (1.0, 0.95):
    entries, outside, inside = sum(missed(theta, (9, 10), (8, 11), scale=scale) for theta in at_random)
    print(f"half-widths × {scale:4}: of {entries} entries {outside} missed, {inside} candidates")

entries, outside, inside = missed(similarity(0), (9, 9), (9, 9))
print(f"identity, open box:   {inside / 81:.1f} candidates per pixel, missed {outside}")
entries, outside, inside = missed(similarity(0), (9, 9), (9, 9), closed=True)
print(f"identity, closed box: {inside / 81:.1f} candidates per pixel, missed {outside}")

# %% [markdown]
# None missed, and a good third of the candidates read. Mind the word *open*. Under the identity the readers of
# $q$ lie strictly between $q - 1$ and $q + 1$, and that is one pixel. With the ends let in it would be three
# each way, nine in all (7.7 on average here, where the border cuts off some), eight of which weigh 0. In floating
# point the ends are exact only because we count from the centres.
#
# ### The kernel
#
# A program owns a block of *input* pixels. It inverts the $2 \times 2$ matrix, finds the boxes, and goes
# through them, row by row and column by column. For simplicity it knows one channel: each plane is a program
# of its own.


# %%
# needs Triton
@triton.jit
def tent(t):
    return tl.maximum(0.0, 1.0 - tl.abs(t))


@triton.jit
def between(middle, half, length):
    """First and last whole number in the open interval middle ± half and in [0, length)."""
    first = tl.floor(middle - half).to(tl.int32) + 1
    last = tl.ceil(middle + half).to(tl.int32) - 1
    return tl.maximum(first, 0), tl.minimum(last, length - 1)


@triton.jit
def gather_kernel(
    image_ptr,  # dL/dU (N, C, H, W), contiguous
    values_ptr,  # dL/dV (N, C, H', W'), contiguous
    map_ptr,
    order_ptr,
    channels,
    size,
    out_size,
    BLOCK: tl.constexpr,
):
    block = tl.load(order_ptr + tl.program_id(0))
    plane = tl.program_id(1)
    map_ptr += 6 * (plane // channels)
    pixel, exists, x, y = own_pixels(block, size, BLOCK)  # of the input
    n, m = pixel // size[1], pixel % size[1]

    xx, xy = tl.load(map_ptr), tl.load(map_ptr + 1)
    yx, yy = tl.load(map_ptr + 3), tl.load(map_ptr + 4)
    x, y = x - tl.load(map_ptr + 2), y - tl.load(map_ptr + 5)  # q - t
    determinant = xx * yy - xy * yx
    size_of = tl.abs(determinant)
    middle_x = (yy * x - xy * y) / determinant + (out_size[1] - 1) * 0.5
    middle_y = (xx * y - yx * x) / determinant + (out_size[0] - 1) * 0.5
    left, right = between(middle_x, (tl.abs(yy) + tl.abs(xy)) / size_of, out_size[1])
    top, bottom = between(middle_y, (tl.abs(yx) + tl.abs(xx)) / size_of, out_size[0])
    rows = tl.max(tl.where(exists, bottom - top + 1, 0))  # of the largest box in this block
    columns = tl.max(tl.where(exists, right - left + 1, 0))

    total = tl.zeros_like(middle_x)
    for j in range(rows):
        for i in range(columns):
            row, column = top + j, left + i
            p_x, p_y = column - (out_size[1] - 1) * 0.5, row - (out_size[0] - 1) * 0.5
            a, b = place(map_ptr, p_x, p_y, size)
            weight = tent(a - m) * tent(b - n)
            reads = exists & (row <= bottom) & (column <= right) & (weight > 0.0)
            value_ptr = values_ptr + (plane * out_size[0] + row) * out_size[1] + column
            total += weight * tl.load(value_ptr, mask=reads, other=0.0)
    tl.store(image_ptr + plane * size[0] * size[1] + pixel, total, mask=exists)


def gather(values, theta, size, order=None, BLOCK=256):
    """dL/dU (N, C, H, W) from dL/dV (N, C, H', W'): no zeroes, no atomics, the gradients' own dtype."""
    N, C, *out_size = values.shape
    image = values.new_full((N, C, *size), math.nan)  # a pixel that nobody writes shall be seen
    blocks = triton.cdiv(size[0] * size[1], BLOCK)
    if order is None:
        order = torch.arange(blocks, device=values.device)
    M = pixel_map(theta, size, out_size).contiguous()
    gather_kernel[(blocks, N * C)](
        image, values.contiguous(), M, order, C, size, tuple(out_size), BLOCK=BLOCK
    )
    return image


thrown, collected = (f(*on_device(values_of_four, thetas), (10, 8)).cpu() for f in (scatter, gather))
print("float64 agrees with autograd to 1e-10:   ", torch.allclose(collected, of_image, rtol=0, atol=1e-10))
print("float64 agrees with the scatter to 1e-10:", torch.allclose(collected, thrown, rtol=0, atol=1e-10))

turned = similarity(25)[None].float().to(device)
values = torch.randn(1, 1, 12, 12, generator=generator).to(device)
few = [torch.tensor(order, device=device) for order in ([0, 1, 2], [2, 0, 1])]
collected = [gather(values, turned, (12, 12), order, BLOCK=64) for order in few]
print(f"3 programs in 2 orders: {different_results(collected)} result")
in_half, in_single = (gather(g, turned, (12, 12)) for g in (values.half(), values.half().float()))
print("float16 is what float32 gives, rounded once:", torch.equal(in_half, in_single.half()))

# %% [markdown]
# Look at what is gone. No zeroes: the memory held NaN, and every pixel is written, whether anybody reads it
# or not. No atomics, so no contention. No order: each sum is made by one lane, in its own loop. No second
# buffer: the sum is float32 in a register, and it is stored in the gradients' own type, rounded once.
#
# (In float32 the box itself is rounded, and a reader at its very edge may fall outside. It does no harm
# here: a tent has fallen to 0 there. A sampling kernel that ends in a step, as *nearest* does, could lose a
# whole gradient so; the library widens its boxes by as much as they may have been rounded.)
#
# ### What it costs
#
# A candidate costs a place, a weight and perhaps a load, and none of it is an atomic. How many are there? And
# since the lanes of a program take their steps together, all wait for the one with the largest box: what a
# program takes are *trips*, rows times columns of the largest box in its block. They are counted for tiles of
# $8 \times 8$ input pixels, which are better blocks than our pieces of rows; the scatter's adds as in section 9.3.

# %%
size = (256, 256)
print("256 × 256       candidates per input pixel   of them   trips of a tile      adds of the scatter")
print("                on average   at most         read it   average   at most    per output pixel")
for name, theta in list(warps.items())[:-1]:  # all at one point: that has no inverse
    left, right, top, bottom = sides = box(theta, size, size)
    number = candidates(sides)
    index, weight = taps(theta, size, size)
    across, down = (
        F.max_pool2d((last - first + 1).clamp(min=0).double()[None], 8)
        for first, last in ((left, right), (top, bottom))
    )
    trips = across * down
    print(
        f"{name:14} {number.double().mean():9.2f} {number.max():11} {(weight > 0).sum() / number.sum():16.0%} "
        f"{trips.mean():9.1f} {trips.max():9.0f} {(index >= 0).sum() / 256**2:12.2f}"
    )

# %% [markdown]
# Under the identity one visit stands against four adds. Turned by 45° the parallelogram is a square on its
# corner, half of its box, and 6.6 visits stand against 3.3 adds. Enlarged, it is 5.4 against 4.0 on average,
# and the average deceives: most tiles have nothing to do, and the few in the middle take 361 trips, one after
# the other. Shrunk, two boxes in three are empty, and what is written there is a zero.
#
# The library's kernel does not visit the whole box. Row by row of it, the two inequalities leave an interval
# of $x$ (exercise 09-4), which is the parallelogram itself. And it takes many channels for one visit.
#
# ### Where there is no inverse
#
# If $M$ is nearly singular, the sides of the box grow without bound, and so they do if it enlarges much. For
# a shear that goes ever flatter:

# %%
print("   M                        half-widths         box of a pixel, uncut")
for flat in (1.0, 0.1, 0.01, 0.0001):
    M = torch.tensor([[1.0, 1.0], [1.0, 1.0 + flat]], dtype=torch.float64)
    half = torch.linalg.inv(M).abs().sum(1)
    print(f"[1, 1; 1, {1 + flat:.4f}] {half[0]:15.1f} {half[1]:9.1f} {(2 * half + 1).prod():22.0f}")
for zoom in (8, 15, 16):
    print(f"enlarged {zoom:2} times {zoom:16.1f} {zoom:9.1f} {(2 * zoom + 1) ** 2:22.0f}")

# %% [markdown]
# And if $M$ is singular, all output pixels look at one line and there is no inverse at all. A scatter has no
# trouble with either. So the library gathers what has a good inverse, and scatters where a box would hold more
# than 1024 pixels or little is left of the determinant's two products when one is taken from the other.
#
# Who decides? Not Python: $\theta$ is on the GPU, and to ask for it means to wait until everything before it
# is done. The *programs* decide, from the six numbers that they load anyway. Both kernels are launched.
# Those of the scatter end at once where a transform is gathered, and those of the gather add what the other
# has left in the buffer. Nobody waits; the price is a buffer that is made and zeroed for the rare case.
#
# ## 9.9 The library's four ways
#
# `choose_way` takes the scatter, unless it is asked for the same bits every time. Then it gathers affine maps
# under zeros padding, and what cannot be gathered is added in fixed point:

# %%
size, out_size = (4, 5), (5, 4)
special = torch.stack([similarity(30, 1.2), similarity(0, 0.5), similarity(10, 20), torch.ones(2, 3) / 3])
special[:, :, 2] += 0.01  # off the kinks (section 4.4)
image = torch.rand(4, 2, *size, generator=generator, dtype=torch.float64)
values = torch.randn(4, 2, *out_size, generator=generator, dtype=torch.float64)

# %%
# needs Triton
of_image, of_theta = by_autograd(values, image, special)


def by_the_library(values, image, theta, **options):
    leaves = [tensor.to(device).requires_grad_() for tensor in (image, theta)]
    output = stn_kernels.affine_sample(*leaves, tuple(values.shape[2:]), **options)
    return torch.autograd.grad(output, leaves, values.to(device))


for way in ("scatter", "fixed point", "gather", "gather, fixed point"):
    launch_backward.forced_way = way
    gradients = by_the_library(values, image, special)
    agrees = [
        torch.allclose(ours.cpu(), theirs, rtol=0, atol=1e-10)
        for ours, theirs in zip(gradients, (of_image, of_theta), strict=True)
    ]
    print(f"{way:20} agrees with autograd to 1e-10: image {agrees[0]}, theta {agrees[1]}")
launch_backward.forced_way = None

again = by_the_library(values, image, special, deterministic=True)
print("deterministic=True gives the bits of the last:", all(map(torch.equal, gradients, again)))

# %% [markdown]
# A turn, a shrinking, an enlargement by 20 and a singular matrix: the last two are left to the scatter,
# beside the others, in the same call. `forced_way` is there for tests and measurements. In a program you
# write `deterministic=True`, or `torch.use_deterministic_algorithms(True)` once, for all of PyTorch.
#
# Twice the same bits prove little in the interpreter, which always takes the same order. A better proof needs
# no kernel of our own. One image, sampled by four transforms: its gradient is a sum over all four, and if we
# hand them over in another order, programs run in another order.

# %%
# needs Triton
one_image = torch.rand(1, 1, 4, 4, generator=generator)
four = torch.stack([similarity(90 * k) for k in range(4)]).float()
four[:, :, 2] = torch.tensor([[0.1, 0.0], [0.2, 0.1], [0.0, 0.3], [0.1, 0.2]])
values = torch.randn(4, 1, 4, 4, generator=generator)
orders = torch.tensor([[0, 1, 2, 3], [3, 1, 0, 2]])
for way in ("scatter", "fixed point", "gather"):
    launch_backward.forced_way = way
    results = [by_the_library(values[order], one_image, four[order])[0] for order in orders]
    print(f"{way:12} four transforms in 2 orders, different gradients: {different_results(results)}")
launch_backward.forced_way = None

# %% [markdown]
# Fixed point does not care. The gather does, and is deterministic nevertheless: it adds transform after
# transform in the order in which they are *given*. That is another promise. The same question gets the same
# answer, and the same transforms in another order are another question. The library's tests make
# the stronger check for all ways: they run the programs of each launch in shuffled orders.
#
# | way | zeroes first | atomics | bits | for |
# | --- | --- | --- | --- | --- |
# | scatter | 4 bytes | float32 | differ from run to run | every map |
# | fixed point | 8 bytes | 64-bit integers | the same | every map |
# | gather | 4 bytes | in the fallback | the same, but for the fallback | affine maps, zeros padding |
# | gather, fixed point | 8 bytes | in the fallback | the same | affine maps, zeros padding |
#
# Which is fastest? On one NVIDIA H100 the scatter with float32 adds was, in all fifteen cases that were measured: fixed
# point took 1.2 to 6 times as long, and the gather, in the twelve cases with a single affine map, 1.5 to 12 times
# (the library's `kernels/benchmarks/results`). On that GPU, in other words, atomics are quick, and one pays for the
# same bits.
#
# ### In space, and for every map
#
# A volume's box has a third side, and its rows a third inequality. Nothing else is new, but much can be mixed
# up: which length belongs to which axis, whose row of the inverse is meant. So: lengths that are all
# different, maps that mix all axes, and the gather against the scatter. *Nearest*, whose kernel ends in a step,
# would lose a whole gradient if a box were too narrow.

# %%
# needs Triton
solid = torch.eye(3, 4) + 0.4 * torch.randn(3, 3, 4, generator=generator)
volumes = torch.rand(3, 1, 4, 2, 3, generator=generator, dtype=torch.float64)
values = torch.randn(3, 1, 2, 5, 4, generator=generator, dtype=torch.float64)
for mode in ("bilinear", "nearest"):
    of_volumes = []
    for way in ("scatter", "gather"):
        launch_backward.forced_way = way
        of_volumes.append(by_the_library(values, volumes, solid.double(), mode=mode)[0])
    launch_backward.forced_way = None
    print(f"{mode:8} the gather of volumes is the scatter: {torch.allclose(*of_volumes, rtol=0, atol=1e-10)}")

# %% [markdown]
# Only affine maps are gathered; all are scattered. In the library each map is one small function of a kernel, as
# in section 8.7, and has a second one for its gradient, as in section 9.7. Here are all of them, with noise for
# parameters, against plain PyTorch on the CPU: the output and every gradient. Those that are new here, bases, splines
# (`tps`) and meshes, are the subject of chapters 10 to 12; for now, each is a map with parameters. (Splines and meshes are maps of the
# plane. With `antialias=True`, chapter 14, a pixel is the mean of several samples, and its gradient theirs.)


# %%
# needs Triton
def noise(*shape):
    return 0.3 * torch.randn(*shape, generator=generator, dtype=torch.float64)


def every_map(axes, size):
    """Of each map the parameters of two transforms, and what all transforms share."""
    eye = torch.eye(axes + 1, dtype=torch.float64)
    yield "affine", eye[:-1] + noise(2, axes, axes + 1), None
    yield "projective", eye + 0.3 * noise(2, axes + 1, axes + 1), None
    yield "grid", noise(2, *size, axes), None
    yield "displacement", noise(2, axes, *size), None
    yield "normalised_displacement", noise(2, axes, *size), None
    yield "basis", noise(2, axes, 3), noise(3, *size)
    yield "residual_basis", noise(2, axes, 3), noise(3, *size)
    if axes == 2:
        yield "tps", noise(2, 2, 5 + 3), noise(5, 2)
        corners = torch.tensor([[[-1, 1, 1], [-1, -1, 1], [1, 1, 1]], [[-1, 1, -1], [-1, 1, 1], [1, 1, 1]]])
        yield "mesh", noise(2, 2, 2, 3), torch.linalg.inv(corners.double())


def agree(values, image, name, parameters, shared, **options):
    """Whether the kernels' output and gradients are those of plain PyTorch."""
    results = []
    for place, interpreted in ((device, True), ("cpu", False)):
        backend.interpret_cpu_tensors = interpreted
        leaves = [tensor.to(place, copy=True).requires_grad_() for tensor in (image, parameters)]
        constant = None
        if shared is not None:
            constant = shared.to(place, copy=True)
            if name != "mesh":  # whose triangles are given
                leaves.append(constant.requires_grad_())
        size = tuple(values.shape[2:])
        output = stn_kernels.sample(*leaves[:2], size, coordinate_map=name, shared=constant, **options)
        gradients = torch.autograd.grad(output, leaves, values.to(place))
        results.append([tensor.cpu() for tensor in (output, *gradients)])
    backend.interpret_cpu_tensors = device == "cpu"
    return all(torch.allclose(*pair, rtol=0, atol=1e-10) for pair in zip(*results, strict=True))


print("                          plane  antialiased  space")
verdicts = {}
for axes, from_size, to_size in ((2, (5, 4), (3, 4)), (3, (3, 5, 4), (2, 3, 2))):
    picture, values = noise(2, 2, *from_size), noise(2, 2, *to_size)
    for name, *map_ in every_map(axes, to_size):
        for antialias in (False, True)[: 4 - axes]:
            verdict = agree(values, picture, name, *map_, antialias=antialias)
            verdicts.setdefault(name, []).append(str(verdict))
for name, row in verdicts.items():
    print(f"{name:25} {row[0]:6} {row[1]:12} {' '.join(row[2:])}".rstrip())

# %% [markdown]
# Two more need patience in the interpreter, so they get tiny pictures: the bicubic kernel with its sixteen taps, and
# the mean of samples in space.

# %%
# needs Triton
eye = torch.eye(4, dtype=torch.float64)
cases = {
    "bicubic": ((4, 5), (2, 3), eye[:2, 1:] + noise(2, 2, 3), {"mode": "bicubic"}),
    "antialiased in space": ((3, 4, 5), (1, 2, 1), eye[:3] + noise(2, 3, 4), {"antialias": True}),
}
for what, (from_size, to_size, theta, options) in cases.items():
    picture, values = noise(2, 2, *from_size), noise(2, 2, *to_size)
    print(f"{what:20} {agree(values, picture, 'affine', theta, None, **options)}")

# %% [markdown]
# ## 9.10 The second order
#
# The backward pass is a function as well, and can be differentiated. In $g$ it is linear, with the
# matrix $S^T$, so *its* gradient is $S$: the backward of a scatter is the sampler. In $\theta$ it needs
# derivatives of weights again, in which only the mixed one, $\partial^2 / \partial a \, \partial b$, is not
# zero. Such second derivatives are wanted rarely, for gradient penalties and Hessians. The library takes them
# from its reference in plain PyTorch, and has no fused kernels for them.

# %%
h = torch.randn(4, 2, *size, generator=generator, dtype=torch.float64).to(device)
values = torch.randn(4, 2, *out_size, generator=generator, dtype=torch.float64).to(device).requires_grad_()
leaf, theta = image.to(device).requires_grad_(), special.to(device)
output = stn_kernels.affine_sample(leaf, theta, out_size)
(once,) = torch.autograd.grad(output, leaf, values, create_graph=True)  # S^T g
(twice,) = torch.autograd.grad(once, values, h)
print("the gradient of S^T g is S:", torch.allclose(twice, stn_kernels.affine_sample(h, theta, out_size)))

# %% [markdown]
# ## Summary
#
# - The backward pass multiplies by $S^T$: by rows it is a scatter, which everybody can write and in which
#   everybody collides; by columns a gather, in which nobody does, but which has to find its readers.
# - A scatter needs zeroes, atomics, and a buffer in float32: in float16 sums stand still.
# - Contention is counted, not guessed: enlarging is its worst case among useful transforms. Channels-last
#   turns four adds into one instruction where the hardware has it.
# - Floating-point sums depend on the order; integers do not: 64 bits, a power of two as scale, and a bound that
#   the worst case shows to be needed. The gradient of $\theta$ needs neither atomics nor integers: partial sums,
#   each written once, are added in a fixed order.
# - The readers of a pixel lie in an open box around $M^{-1}(q - t)$ with the row sums of $|M^{-1}|$ as
#   half-widths. Where the inverse is no good, the scatter takes over.
#
# ## Exercises
#
# Replace each `...` and run the cell. A wrong answer is told what is wrong with it. Where there are two `...`, one
# belongs to the kernel and one to the function that launches it. Solutions are in
# [solutions/09_the_backward_kernels.ipynb](solutions/09_the_backward_kernels.ipynb).

# %% [markdown]
# ### Exercise 09-1: whose bits?
#
# The programs of a launch run in another order than before. Which of these gradients may have other bits then?
# Give the list of their names.
#
# - `"float32"`: shares in float32, added by `tl.atomic_add`;
# - `"float16"`: shares in float16, added by `tl.atomic_add` into a buffer in float32;
# - `"integers"`: shares as whole numbers of units, added by `tl.atomic_add` into 64-bit integers;
# - `"rows"`: each program writes its float32 sum to a row of its own, and PyTorch adds the rows afterwards;
# - `"gather"`: each input pixel adds up its readers, in float32, in a loop of its own.

# %% tags=["exercise"]
# >>> solution
depend_on_the_order = ["float32", "float16"]
# <<< solution
check("09-1", depend_on_the_order)

# %% [markdown]
# ### Exercise 09-2: 32 bits
#
# A 64-bit buffer is twice as large as a float32 one. Would 32-bit integers do? By the rule of section 9.6 the
# sums may reach $2^{30}$ then. How many bits are left for the largest gradient with an output of $28 \times
# 28$, and how many with $224 \times 224$? Give a list of two numbers, and compare them with float32's 24.

# %% tags=["exercise"]
# >>> solution
bits_of_32 = [30 - math.ceil(math.log2(28 * 28)), 30 - math.ceil(math.log2(224 * 224))]
# <<< solution
check("09-2", bits_of_32)

# %% [markdown]
# ### Exercise 09-3: how long a run
#
# A spline through 60 points has $R = 126$ numbers, float32. Programs work on tiles of 128 output pixels, and
# rows of sums should take at most a tenth of what a grid of float32 would. How many tiles must a run have,
# and how many bytes do all rows take for an output of $512 \times 512$? Give a list of two numbers.

# %% tags=["exercise"]
# >>> solution
tiles = math.ceil(4 * 126 / (0.1 * 8 * 128))
runs = math.ceil(512 * 512 / 128 / tiles)
tiles_and_bytes = [tiles, runs * 126 * 4]
# <<< solution
check("09-3", tiles_and_bytes)

# %% [markdown]
# ### Exercise 09-4: the row of a parallelogram
#
# The box has corners that nobody reads from. Write a function that finds, in *one row* of the output, the
# readers of an input pixel: `M` is a tensor (2, 2), `d` $= q - t$ a tensor (2,), and `y` the row, all counted
# from the centre, in float64. Return the open interval `(low, high)` of real $x$ for which $|M p - d| < 1$ in
# both components, with $p = (x, y)$. Where there is none, return `low >= high`. No entry of `M` is 0.


# %% tags=["exercise"]
def row_interval(M, d, y):
    # >>> solution
    rest = d - M[:, 1] * y  # |M[:, 0] x - rest| < 1
    ends = torch.stack([(rest - 1) / M[:, 0], (rest + 1) / M[:, 0]])
    low, high = ends.amin(0).max(), ends.amax(0).min()
    return low.item(), high.item()
    # <<< solution


check("09-4", row_interval)

# %% [markdown]
# ### Exercise 09-5: collect
#
# `repeat` enlarges a picture (H, W) by a whole number $k$: each pixel becomes a block of $k \times k$. Its
# backward could scatter, but need not. Write the gather, kernel and launch: `values` is $\partial L /
# \partial V$, (k H, k W), contiguous and float32; return $\partial L / \partial U$, (H, W). `torch.empty`, no
# zeroes, no atomics.


# %% tags=["exercise"]
# needs Triton
@triton.jit
def collect_kernel(image_ptr, values_ptr, height, width, k, BLOCK: tl.constexpr):
    # >>> solution
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = pixel < height * width
    first = values_ptr + (pixel // width) * k * (k * width) + (pixel % width) * k
    total = tl.zeros([BLOCK], tl.float32)
    for j in range(k):
        for i in range(k):
            total += tl.load(first + j * k * width + i, mask=exists, other=0.0)
    tl.store(image_ptr + pixel, total, mask=exists)
    # <<< solution


def collect(values, k):
    # >>> solution
    height, width = values.shape[0] // k, values.shape[1] // k
    image = values.new_empty(height, width)
    collect_kernel[(triton.cdiv(height * width, 64),)](image, values, height, width, k, BLOCK=64)
    return image
    # <<< solution


check("09-5", collect)

# %% [markdown]
# ## In the library
#
# | built here | in the library |
# | --- | --- |
# | `scatter_kernel`, `map_gradient_kernel` | one kernel, `sample_scatter_kernel` in `kernels/stn_kernels/backward.py`, for every map |
# | `scatter`, `fixed_point_scale`, rows and their sum | `kernels/stn_kernels/launch_backward.py` |
# | `gather_kernel`, `box` | `kernels/stn_kernels/gather.py`, in 2-D and 3-D, for every sampling kernel |
# | results over permuted orders; brute force | `tests/kernels/test_backward_ways.py`, `test_gather.py` |
#
# ## References
#
# 1. NVIDIA. *Parallel Thread Execution ISA*: `red`, with vectors `.v4.f32` from sm_90 on.
#   [docs.nvidia.com/cuda/parallel-thread-execution](https://docs.nvidia.com/cuda/parallel-thread-execution/).
# 2. D. Goldberg. *What Every Computer Scientist Should Know About Floating-Point Arithmetic*. ACM Computing
#    Surveys 23(1), 1991. [doi:10.1145/103162.103163](https://doi.org/10.1145/103162.103163).
# 3. N. J. Higham. *The Accuracy of Floating Point Summation*. SIAM Journal on Scientific Computing 14(4),
#   1993. [doi:10.1137/0914050](https://doi.org/10.1137/0914050). How far orders can be apart.
# 4. T.-M. Li, M. Gharbi, A. Adams, F. Durand, J. Ragan-Kelley. *Differentiable Programming for Image
#   Processing and Deep Learning in Halide*. ACM Transactions on Graphics 37(4), 2018.
#   [doi:10.1145/3197517.3201383](https://doi.org/10.1145/3197517.3201383). A compiler that turns scatters
#   into gathers.
# 5. PyTorch. [*Reproducibility*](https://docs.pytorch.org/docs/stable/notes/randomness.html). What is
#    deterministic, what is not, and what raises.
#
# ## Next
#
# [Chapter 10, Beyond affine](10_beyond_affine.ipynb): maps that do more than turn and shear, up to those that have
# no inverse that could be written down, and so scatter. Before:
# [chapter 08, Fusing grid and sampler](08_fusing_grid_and_sampler.ipynb).
