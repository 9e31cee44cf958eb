# %% [markdown]
# # 7 A first Triton kernel
#
# > **A fused sampler is fifty lines of Triton. In this chapter you write them, check them against Equation 5,
# > PyTorch and the library, count every byte they move, and break them in the four ways in which kernels
# > break. No GPU is needed.**
#
# **You will learn**
#
# - what a program, a block, a mask and a stride are;
# - what Triton's interpreter shows of a kernel, and what it cannot show;
# - to write the sampler's forward pass as one kernel that takes $\theta$ and stores no grid;
# - to count bytes line by line, and to turn them into a bound that no GPU can beat;
# - how functions passed as constants make one template out of many kernels;
# - which test catches which bug, and which tests catch none.
#
# **You need** [chapter 03](03_sampling.ipynb) and Triton, which on Linux is installed with the book. Elsewhere the
# cells that begin with `# needs Triton` say what they would show, and all others run.
# **Runs in** about 15 seconds on two cores.

# %% tags=["setup"]
import os

import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
if device == "cpu":
    # Before the first kernel is made: Triton reads this variable where a function is decorated.
    os.environ["TRITON_INTERPRET"] = "1"

import math
from functools import partial

import matplotlib.pyplot as plt
import torch.nn.functional as F

import stn
import stn_kernels
from stn.exercises import check
from stn.plotting import show_image, use_style
from stn.without_triton import replay_kernel_cells

replay_kernel_cells("07_a_first_triton_kernel.ipynb")
use_style()
torch.set_printoptions(precision=4, sci_mode=False)
images, labels = (tensor.to(device) for tensor in stn.data.digits("test"))

# %% tags=["setup"]
# needs Triton
import triton
import triton.language as tl

# %% [markdown]
# Chapter 03 called the library's kernels and did not look inside. Now we write one.
#
# ## 7.1 Programs and blocks
#
# A GPU is fast because it does many things at once. A **kernel** is a function that it runs many times at once (no
# relation of the sampling kernel $k$); each run is a **program**, and learns only from its number which part of
# the work is its own. In CUDA, NVIDIA's own language, you write what a single thread does. In Triton [1] you write
# what a program does with a whole **block** of numbers, as if with a small array, and the compiler deals it out to
# threads.
#
# The smallest useful example multiplies a vector by a number:


# %%
# needs Triton
@triton.jit
def scale_kernel(output_ptr, input_ptr, factor, count, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # the elements that are this program's
    exists = index < count
    value = tl.load(input_ptr + index, mask=exists)
    tl.store(output_ptr + index, factor * value, mask=exists)


def scale(input, factor, BLOCK=4):
    output = torch.empty_like(input)
    programs = triton.cdiv(input.numel(), BLOCK)  # the quotient, rounded up
    scale_kernel[(programs,)](output, input, factor, input.numel(), BLOCK=BLOCK)
    return output


vector = torch.arange(10.0, device=device)
print(scale(vector, 3.0).cpu())
print("as PyTorch does:", torch.equal(scale(vector, 3.0), 3.0 * vector))

# %% [markdown]
# Word by word:
#
# - `@triton.jit` makes a kernel of a function. A call with `[(programs,)]` before its arguments **launches**
#   the kernel: runs it `programs` times, with `tl.program_id(0)` = 0, 1, 2, ... In which order, and which of
#   them at the same time, is not defined.
# - A tensor arrives as a **pointer** to its first element. Its shape, its strides (section 7.5) and its length do
#   not arrive. What the kernel should know of them it must be told: here `count`.
# - `tl.arange(0, BLOCK)` is a block: 0, 1, 2, 3. A pointer plus a block of offsets is a block of pointers,
#   and `tl.load` fetches them all.
# - Three programs of four elements make twelve, and there are ten. The **mask** says which exist. Elsewhere
#   nothing is loaded and nothing stored.
# - `BLOCK` is a `tl.constexpr`: a constant when the kernel is compiled. Another value means another compiled
#   kernel. Sizes of blocks must be constants, and powers of two:


# %%
# needs Triton
try:
    scale(vector, 3.0, BLOCK=10)
except Exception as error:
    print("BLOCK = 10 is refused, since it is no power of 2:", "power of 2" in str(error))
print("the next power of 2:", triton.next_power_of_2(10))

# %% [markdown]
# So a block seldom fits. Its size is rounded up, and a mask cuts off the rest.
#
# ## 7.2 What the interpreter shows
#
# Without a GPU there is nothing to compile for, and the setup cell has asked for Triton's **interpreter**. It
# runs the programs on the CPU, one after another, with NumPy in place of blocks. Triton decides that where a
# function is decorated, so the variable must be set before: before our `@triton.jit`, and before
# `import stn_kernels`, whose kernels are therefore interpreted too in this chapter.
#
# That makes a kernel something you can look into. `print` shows blocks; `breakpoint()` stops in the middle of
# a program.


# %%
# needs Triton
@triton.jit
def look_kernel(count, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    print("owns ", index)
    print("exist", index < count)


look_kernel[(3,)](10, BLOCK=4)

# %% [markdown]
# ## 7.3 Without the mask
#
# Leave the mask out, and see what happens to memory that is not ours. To be able to look we take the output
# out of the middle of a larger tensor: a **guard** of sevens on both sides.


# %%
# needs Triton
@triton.jit
def scale_without_mask_kernel(output_ptr, input_ptr, factor, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(output_ptr + index, factor * tl.load(input_ptr + index))


memory = torch.full((16,), 7.0, device=device)
output = memory[3:13]
scale_without_mask_kernel[(3,)](output, torch.arange(16.0, device=device), 3.0, BLOCK=4)
print("output:", output.cpu())
print("memory:", memory.cpu())
print(
    "output right:", torch.equal(output, 3.0 * vector), "  guard untouched:", bool((memory[13:] == 7).all())
)

# %% [markdown]
# The output is right. No error was raised. Two numbers behind the output were overwritten, and whose they
# were we would have learned later, somewhere else. **A test that compares outputs cannot see this bug**; a
# guard can.
#
# ## 7.4 What the interpreter cannot show
#
# Here is a wrong kernel. Each program sums its block, and adds the sum to a total: load, add, store.


# %%
# needs Triton
@triton.jit
def sum_kernel(total_ptr, input_ptr, BLOCK: tl.constexpr):
    value = tl.load(input_ptr + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))
    tl.store(total_ptr, tl.load(total_ptr) + tl.sum(value))


total = torch.zeros(1, device=device)
sum_kernel[(4,)](total, torch.arange(16.0, device=device), BLOCK=4)
print(f"0 + 1 + ... + 15 = {total.item():.0f}")

# %% [markdown]
# And the interpreter says 120, which is right. On a GPU programs run at the same time. Two of them load the
# same total, both add, both store, and one of the sums is lost: a **race**. The interpreter runs one program
# after the other, so in it nobody ever races. (The cure, `tl.atomic_add`, and better ones, belong to the
# backward pass, where output pixels share input pixels. In the forward pass each program stores what is its
# own, and races with no one.)
#
# | the interpreter shows | it cannot show |
# | --- | --- |
# | values: wrong formulas, masks, strides, offsets | races, and any order of programs but one |
# | integer overflow, as 32-bit numbers wrap around | how much of a GPU's fastest memory, its registers, a kernel takes |
# | every block, with `print` and `breakpoint()` | speed; its times say nothing about a GPU's |
#
# Two more differences. It computes **bfloat16**, float32's upper 16 bits, wrongly, without a word, unless the
# kernel converts to float32 as soon as it has loaded. And as it steps in Python through every line of every
# program, it is slow: give it small tensors and large blocks, so that there are few programs.
#
# ## 7.5 Strides
#
# Memory is a line. How a picture of rows and columns lies in it is said by its **strides**: how many elements
# further the next row begins, and how many further the next column. Element $(n, m)$ is at
# `n * strides[0] + m * strides[1]`. Views change the strides and move nothing:

# %%
picture = torch.arange(12.0, device=device).reshape(3, 4)
views = {
    "as made": picture,
    "transposed": picture.T,
    "columns 1 and 2": picture[:, 1:3],
    "row 0, three times": picture[:1].expand(3, 4),
}
for name, view in views.items():
    print(f"{name:19} shape {tuple(view.shape)}  strides {view.stride()}  contiguous: {view.is_contiguous()}")

# %% [markdown]
# A *contiguous* tensor has the strides that its shape suggests. Most views are not contiguous, and
# `scale_kernel` never asked. It starts at the view's first element and takes what comes:

# %%
# needs Triton
crop = picture[:, 1:3]
print("the crop, doubled:    ", (2 * crop).flatten().cpu())
print("scale_kernel's answer:", scale(crop, 2.0).flatten().cpu())

# %% [markdown]
# Numbers from the wrong places, and again no error. Either one calls `contiguous()` first, which copies the
# whole tensor, or one hands the strides to the kernel, which costs a multiplication. Our sampler takes the
# strides. (It multiplies in 32 bits: from $2^{31}$ elements on, an offset would wrap around. The library
# looks at how far a tensor reaches, and counts in 64 bits where it must.)
#
# ## 7.6 The sampler: which pixels, and where they look
#
# Now the layer. The work is one value for each output pixel and channel. A program gets a block of output
# pixels of one image, and two numbers to find out which: `tl.program_id(0)` counts blocks, and
# `tl.program_id(1)` counts images. Pixels are numbered row after row, so pixel $p$ is in row `p // W'` and
# column `p % W'`.
#
# Where do they look? A program can work that out itself: Equation 1 needs six numbers, and the places live in
# registers until they have been used. That is all that *fusing* the grid into the sampler means.


# %% tags=["needed-by-exercises"]
# needs Triton
@triton.jit
def half_extent(size, ALIGN_CORNERS: tl.constexpr):
    """Pixels from the centre of a picture to the coordinate 1."""
    return (size - 1) * 0.5 if ALIGN_CORNERS else size * 0.5


@triton.jit
def affine(theta_ptr, item, row, column, size, out_size, ALIGN_CORNERS: tl.constexpr):
    """Equation 1 for a block of output pixels: the places (a, b), in pixels, where they look."""
    x = (column - (out_size[1] - 1) * 0.5) / half_extent(out_size[1], ALIGN_CORNERS)
    y = (row - (out_size[0] - 1) * 0.5) / half_extent(out_size[0], ALIGN_CORNERS)
    first = theta_ptr + 6 * item
    second = first + 3
    x_source = tl.load(first) * x + tl.load(first + 1) * y + tl.load(first + 2)
    y_source = tl.load(second) * x + tl.load(second + 1) * y + tl.load(second + 2)
    a = x_source * half_extent(size[1], ALIGN_CORNERS) + (size[1] - 1) * 0.5
    b = y_source * half_extent(size[0], ALIGN_CORNERS) + (size[0] - 1) * 0.5
    return a, b


# %% [markdown]
# One `@triton.jit` function can call another; the compiler puts its body in place of the call. Line by line
# this is chapters 02 and 03: normalise the output pixel, Equation 1, denormalise. Before anything is built on
# it, a kernel that does nothing else, against the grid of chapter 02:


# %%
# needs Triton
@triton.jit
def place_kernel(places_ptr, theta_ptr, size, out_size, ALIGN_CORNERS: tl.constexpr, BLOCK: tl.constexpr):
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = pixel < out_size[0] * out_size[1]
    row, column = pixel // out_size[1], pixel % out_size[1]
    a, b = affine(theta_ptr, 0, row, column, size, out_size, ALIGN_CORNERS)
    tl.store(places_ptr + 2 * pixel, a, mask=exists)
    tl.store(places_ptr + 2 * pixel + 1, b, mask=exists)


theta = torch.tensor([[[0.94, -0.34, 0.1], [0.34, 0.94, 0.0]]], device=device)
for align_corners in (True, False):
    places = torch.full((28, 28, 2), math.nan, device=device)
    place_kernel[(7,)](places, theta, (28, 28), (28, 28), align_corners, BLOCK=128)
    grid = stn_kernels.reference.affine_grid(theta, (28, 28), align_corners)[0]
    by_hand = (grid + 1) / 2 * 27 if align_corners else ((grid + 1) * 28 - 1) / 2
    agrees = torch.allclose(places, by_hand, rtol=0, atol=1e-5)
    print(f"align_corners={align_corners!s:5}  all places agree to a hundred-thousandth of a pixel: {agrees}")

# %% [markdown]
# `places` was filled with NaN before, so that a pixel which no program had written would not have agreed. 784
# pixels in blocks of 128 need 7 programs, the last of which has work for 16 of its 128 **lanes**, as the places in
# a block are called. Here is what one of them does:

# %% alt="Left: the output, a digit 5 turned by 20 degrees, with the 128 pixels of program 3 marked: the end of one row, the four whole rows below it, and the beginning of another. Right: the input, an upright 5, and the places where these pixels look: the same band of dots, slanted by 20 degrees."
# needs Triton
BLOCK, program = 128, 3
pixel = torch.arange(program * BLOCK, (program + 1) * BLOCK)
looked_at = places.reshape(-1, 2)[pixel.to(device)].cpu()
turned = stn_kernels.affine_sample(images[3:4], theta, (28, 28))
fig, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.3))
show_image(turned[0], left, f"output: the pixels of program {program}")
left.plot(pixel % 28, pixel // 28, "s", color="C1", markersize=3)
show_image(images[3], right, "input: the places where they look")
right.plot(*looked_at.T, "o", color="C1", markersize=2.5)
for ax in (left, right):
    ax.set(xlim=(-1.5, 28.5), ylim=(28.5, -1.5))
plt.show()
print(f"rows of the output: {pixel[0] // 28} to {pixel[-1] // 28}")
print(f"rows of the input:  {looked_at[:, 1].min():.1f} to {looked_at[:, 1].max():.1f}")

# %% [markdown]
# ## 7.7 The sampler: taps and channels
#
# Each place has four neighbours, its **taps**, and a weight for each; and all channels share places and
# weights. So the channels are a loop, and the coordinates stand before it.


# %%
# needs Triton
@triton.jit
def sample_kernel(
    output_ptr,  # (N, C, H', W'), contiguous
    input_ptr,  # (N, C, H, W)
    theta_ptr,  # (N, 2, 3), contiguous
    strides,  # the input's: n, c, y, x
    channels,
    size,  # H, W
    out_size,  # H', W'
    ALIGN_CORNERS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK], as is every block below
    item = tl.program_id(1)
    pixels = out_size[0] * out_size[1]
    exists = pixel < pixels
    row, column = pixel // out_size[1], pixel % out_size[1]
    a, b = affine(theta_ptr, item, row, column, size, out_size, ALIGN_CORNERS)
    left, top = tl.floor(a).to(tl.int32), tl.floor(b).to(tl.int32)

    for c in range(channels):
        plane_ptr = input_ptr + item * strides[0] + c * strides[1]
        total = tl.zeros([BLOCK], tl.float32)
        for j in tl.static_range(2):
            for i in tl.static_range(2):
                n, m = top + j, left + i
                weight = (1.0 - tl.abs(a - m)) * (1.0 - tl.abs(b - n))
                inside = (n >= 0) & (n < size[0]) & (m >= 0) & (m < size[1])
                tap_ptr = plane_ptr + n * strides[2] + m * strides[3]
                total += weight * tl.load(tap_ptr, mask=exists & inside, other=0.0)
        tl.store(output_ptr + (item * channels + c) * pixels + pixel, total, mask=exists)


def sample(input, theta, size, align_corners=False, BLOCK=1024):
    """Equations 1 and 5 in one kernel: input (N, C, H, W), theta (N, 2, 3), float32 -> (N, C, H', W')."""
    N, C, H, W = input.shape
    output = input.new_empty(N, C, *size)
    programs = (triton.cdiv(size[0] * size[1], BLOCK), N)
    sample_kernel[programs](
        output, input, theta.contiguous(), input.stride(), C, (H, W), size, align_corners, BLOCK=BLOCK
    )
    return output


# %% [markdown]
# Four remarks.
#
# - There are two masks. `exists` is about the output: the last block sticks out. `inside` is about the input:
#   a tap outside the picture is not loaded and counts as 0, which is zeros padding.
# - The weight is Equation 5's without its $\max(0, \cdot)$: a tap is never farther away than 1.
# - `tl.static_range` is unrolled by the compiler: four taps become four pieces of straight code. The loop
#   over channels stays a loop. Weights and masks do not depend on $c$; a compiler moves such work in front of
#   the loop, so we write it where it reads best.
# - Neighbouring lanes store to neighbouring addresses, and mostly load from such. A GPU moves memory in
#   stretches of at least 32 bytes, and a stretch of which one number is wanted is a stretch wasted.
#
# ## 7.8 Check
#
# First the pixel of section 3.4, whose value was 5.64: an output of $1 \times 1$, whose $\theta$ looks at
# one point only.

# %%
# needs Triton
U = torch.tensor([[1.0, 9.0, 5.0, 2.0], [8.0, 3.0, 7.0, 6.0], [4.0, 9.0, 0.0, 5.0]], device=device)
one_point = torch.tensor([[[0.0, 0.0, -0.1], [0.0, 0.0, -4 / 15]]], device=device)
print(f"V = {sample(U[None, None], one_point, (1, 1)).item():.2f}")

# %% [markdown]
# Then everything at once: against Equation 5 as it stands, all $H W$ terms as one sum of products; against
# PyTorch's two functions; and against the library's one. Four images of three channels, sizes that fit no
# block, and places far outside.


# %%
# needs Triton
def equation_5(input, theta, size, align_corners=False):
    """The whole double sum, over all pixels of the input."""
    weights = []
    grid = stn_kernels.reference.affine_grid(theta, size, align_corners)
    for x, length in ((grid[..., 0], input.shape[3]), (grid[..., 1], input.shape[2])):
        a = (x + 1) / 2 * (length - 1) if align_corners else ((x + 1) * length - 1) / 2
        distances = a[..., None] - torch.arange(length, device=device)
        weights.append((1 - distances.abs()).clamp(min=0))  # (N, H', W', W) and (N, H', W', H)
    return torch.einsum("ncyx, nijx, nijy -> ncij", input, *weights)


def two_functions(input, theta, size, align_corners=False):
    grid = F.affine_grid(theta, (len(input), 1, *size), align_corners=align_corners)
    return F.grid_sample(input, grid, align_corners=align_corners)


def same(ours, theirs):
    return torch.allclose(ours, theirs, rtol=0, atol=2e-5)


generator = torch.Generator().manual_seed(0)
input = torch.rand(4, 3, 23, 30, generator=generator).to(device)
thetas = (torch.eye(2, 3) + 0.5 * torch.randn(4, 2, 3, generator=generator)).to(device)
for align_corners in (False, True):
    ours = sample(input, thetas, (19, 27), align_corners, BLOCK=256)
    for other in (equation_5, two_functions, stn_kernels.affine_sample):
        theirs = other(input, thetas, (19, 27), align_corners=align_corners)
        print(f"align_corners={align_corners!s:5}  agrees with {other.__name__:14} {same(ours, theirs)}")

# %% [markdown]
# To within two hundred-thousandths: a place computed in float32 is off by some millionths of a pixel, and in
# a picture of noise a value is off by as much.
#
# ## 7.9 Bytes, line by line
#
# Is the kernel any good? The interpreter cannot say, but counting can. A GPU's memory moves so many bytes a
# second. Whatever else it does, a kernel that has to move $B$ bytes takes
#
# $$ \text{time} \; \geq \; \frac{B}{\text{bandwidth}}. $$
#
# So we count, for one output pixel of float32 with $C$ channels, and an output about as fine as the part of
# the input that it shows:
#
# | line | bytes from or to memory |
# | --- | --- |
# | `tl.load` of $\theta$ | 24 for a program of 1024 pixels: next to nothing |
# | the places `a`, `b` | 0: they never leave the registers |
# | `tl.load` of the taps | $4 C$. It asks for $16 C$, but each input pixel is a tap of four places, and a cache, which keeps what was fetched lately, answers three of four |
# | `tl.store` of the output | $4 C$ |
# | **in one kernel** | $\mathbf{8 C}$ |
# | a grid, written by one kernel | 8 |
# | the same grid, read by the next | 8 |
# | **in two kernels** | $\mathbf{8 C + 16}$ |
#
# (PyTorch's `affine_grid` moves more: it also writes and reads $(x, y, 1)$ for every output pixel.)

# %%
print("  C   two kernels   fused   ratio")
for C in (1, 3, 16, 64):
    print(f" {C:2}   {8 * C + 16:9} B {8 * C:5} B   {(8 * C + 16) / (8 * C):5.2f}")

# %% [markdown]
# With one channel the grid is two thirds of everything, and fusing wins up to a factor of 3. With 64
# channels it wins 3 %. There, what counts is how well the loads of the channels are arranged.
#
# But is it memory that limits a sampler, and not arithmetic? The source has 18 floating-point operations a pixel
# for places and floors, 28 for the weights of four taps, and 8 for each channel. Divided by the bytes that is the
# **arithmetic intensity** [3]. What a GPU can do while it moves a byte follows from its data sheet, operations a
# second divided by bytes a second; for float32 that is roughly between ten and a hundred.


# %%
def lower_bound(N, C, size, bandwidth, grid_bytes=0):
    """Seconds that no float32 sampler can beat, for a memory that moves `bandwidth` bytes a second."""
    return N * size[0] * size[1] * (8 * C + grid_bytes) / bandwidth


for C in (1, 3, 16, 64):
    print(f"C = {C:2}: {(46 + 8 * C) / (8 * C):4.2f} operations per byte")
fused, unfused = (1e6 * lower_bound(64, 1, (512, 512), 1e12, grid_bytes) for grid_bytes in (0, 16))
print("\n64 pictures of one channel, 512 × 512, and a memory that moves 1000 GB a second:")
print(f"at least {fused:.0f} microseconds fused, {unfused:.0f} with a grid")

# %% [markdown]
# All below ten: a sampler waits for memory. The bound is no measurement. It says what nobody can beat; and
# that a sampler far from it moves more bytes than it must, or moves them badly.
#
# ## 7.10 What "a cache answers" means
#
# The weakest line of the table is the taps. Let us count how many different input pixels an output really
# needs: all in all, and program by program, if no program could use what another has fetched.


# %%
def tap_pixels(theta, size):
    """The input pixels that are taps of each output pixel, numbered row by row, -1 outside: (4, H', W')."""
    grid = stn_kernels.reference.affine_grid(theta[None], size)[0]
    a, b = (((grid[..., k] + 1) * size[1 - k] - 1) / 2 for k in (0, 1))
    m = a.floor() + torch.tensor([0, 1, 0, 1])[:, None, None]
    n = b.floor() + torch.tensor([0, 0, 1, 1])[:, None, None]
    exists = (n >= 0) & (n < size[0]) & (m >= 0) & (m < size[1])
    return torch.where(exists, n * size[1] + m, -1)


def count_different(pixels):
    return len(pixels[pixels >= 0].unique())


def similarity(angle, zoom=1.0):
    """The theta that turns a picture by `angle` degrees and enlarges it by `zoom`."""
    cosine, sine = math.cos(math.radians(angle)) / zoom, math.sin(math.radians(angle)) / zoom
    return torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]])


print("256 × 256       input pixels needed, per output pixel that sees the picture")
print("                all in all   by rows of 1024 pixels   by tiles of 32 × 32")
for name, warp in {
    "turned by 10°": similarity(10),
    "turned by 45°": similarity(45),
    "4 × enlarged": similarity(10, 4),
    "4 × shrunk": similarity(10, 1 / 4),
}.items():
    taps = tap_pixels(warp, (256, 256))
    seeing = (taps >= 0).any(0).sum()
    rows = taps.reshape(4, 64, 1024).transpose(0, 1)
    tiles = taps.reshape(4, 8, 32, 8, 32).permute(1, 3, 0, 2, 4).flatten(0, 1)
    by_program = [sum(map(count_different, programs)) / seeing for programs in (rows, tiles)]
    print(f"{name:14} {count_different(taps) / seeing:11.2f} {by_program[0]:24.2f} {by_program[1]:21.2f}")

# %% [markdown]
# A turned picture costs one input pixel for each output pixel, as the table assumes, provided that what one
# program has fetched is still in the cache for the next. An enlarged one costs a fraction. Shrunk by four, no
# two output pixels share a tap: nothing is answered by a cache, and $4 C$ becomes $16 C$, not counting that
# memory comes in stretches. (Chapter 03 had another reason not to shrink much.)
#
# The last two columns are about the *shape* of a block. 1024 pixels are four whole rows here: a long thin
# band with much border. A square tile has less, and asks for less of what its neighbours have asked for. The
# library's programs own tiles.
#
# ## 7.11 One template
#
# Nearest instead of bilinear, border instead of zeros, another transform: must each have its kernel? Three of
# each would be twenty-seven. But they differ in three places only, and each of these is a function. In Triton
# **a `@triton.jit` function can be passed as a constant**; each combination is compiled as if it had been
# written out.


# %% tags=["needed-by-exercises"]
# needs Triton
@triton.jit
def template_kernel(
    output_ptr,
    input_ptr,
    parameters_ptr,
    strides,
    channels,
    size,
    out_size,
    MAP: tl.constexpr,  # where does an output pixel look?
    FIRST: tl.constexpr,  # which tap along an axis is the first,
    TAPS: tl.constexpr,  # how many are there,
    KERNEL: tl.constexpr,  # and what does each weigh? k(t) of Equation 3
    PADDING: tl.constexpr,  # which pixel stands for a tap, and does it exist?
    ALIGN_CORNERS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    item = tl.program_id(1)
    pixels = out_size[0] * out_size[1]
    exists = pixel < pixels
    row, column = pixel // out_size[1], pixel % out_size[1]
    a, b = MAP(parameters_ptr, item, row, column, size, out_size, ALIGN_CORNERS)
    left, top = FIRST(a), FIRST(b)

    for c in range(channels):
        plane_ptr = input_ptr + item * strides[0] + c * strides[1]
        total = tl.zeros([BLOCK], tl.float32)
        for j in tl.static_range(TAPS):
            n, row_exists = PADDING(top + j, size[0])
            for i in tl.static_range(TAPS):
                m, column_exists = PADDING(left + i, size[1])
                weight = KERNEL(a - (left + i)) * KERNEL(b - (top + j))
                tap_ptr = plane_ptr + n * strides[2] + m * strides[3]
                mask = exists & row_exists & column_exists
                total += weight * tl.load(tap_ptr, mask=mask, other=0.0)
        tl.store(output_ptr + (item * channels + c) * pixels + pixel, total, mask=exists)


# %% [markdown]
# The functions that make it our bilinear sampler, and a launcher that takes them unless told otherwise:


# %% tags=["needed-by-exercises"]
# needs Triton
@triton.jit
def first_of_two(a):
    return tl.floor(a).to(tl.int32)


@triton.jit
def tent(t):
    return 1.0 - tl.abs(t)


@triton.jit
def zeros(index, length):
    return index, (index >= 0) & (index < length)


BILINEAR = {"FIRST": first_of_two, "TAPS": 2, "KERNEL": tent}


def sample_with(
    input, parameters, size, sampling=BILINEAR, MAP=affine, PADDING=zeros, align_corners=False, BLOCK=1024
):
    """Equation 3 for any sampling kernel, map and padding."""
    N, C, H, W = input.shape
    output = input.new_full((N, C, *size), math.nan)  # a pixel that nobody writes shall be seen
    programs = (triton.cdiv(size[0] * size[1], BLOCK), N)
    template_kernel[programs](
        output,
        input,
        parameters.contiguous(),
        input.stride(),
        C,
        (H, W),
        size,
        MAP=MAP,
        PADDING=PADDING,
        ALIGN_CORNERS=align_corners,
        BLOCK=BLOCK,
        **sampling,
    )
    return output


# %% [markdown]
# For the integer kernel of Equation 4, and for border padding, this is all that is new:


# %%
# needs Triton
@triton.jit
def the_nearest(a):
    return tl.floor(a + 0.5).to(tl.int32)


@triton.jit
def box(t):
    return tl.where(tl.abs(t) <= 0.5, 1.0, 0.0)


@triton.jit
def border(index, length):
    clamped = tl.minimum(tl.maximum(index, 0), length - 1)
    return clamped, clamped == clamped  # a border pixel stands for the tap, and it always exists


NEAREST = {"FIRST": the_nearest, "TAPS": 1, "KERNEL": box}

grids = F.affine_grid(thetas, (4, 1, 19, 27), align_corners=False)
for mode, sampling in (("bilinear", BILINEAR), ("nearest", NEAREST)):
    for padding_mode, padding in (("zeros", zeros), ("border", border)):
        ours = sample_with(input, thetas, (19, 27), sampling, PADDING=padding)
        theirs = F.grid_sample(input, grids, mode=mode, padding_mode=padding_mode, align_corners=False)
        print(f"{mode:8} {padding_mode:6} agrees with PyTorch: {same(ours, theirs)}")

# %% [markdown]
# On this idea the library stands: one template, whose holes are filled with coordinate maps, sampling kernels
# and paddings. A new transform is one short function. The price is that each combination is compiled when it
# is first asked for; so what changes from call to call, sizes and strides, is no constant.
#
# ## 7.12 Four bugs, and what catches them
#
# In a template one can make mistakes one at a time. Here are the four commonest of samplers:


# %%
# needs Triton
@triton.jit
def no_mask(index, length):
    """Every tap is loaded, wherever it lies."""
    return index, index == index


@triton.jit
def cast(a):
    """A cast to an integer rounds towards zero: -0.3 becomes 0 instead of -1."""
    return a.to(tl.int32)


@triton.jit
def affine_by_width(theta_ptr, item, row, column, size, out_size, ALIGN_CORNERS: tl.constexpr):
    """W where align_corners=True needs W - 1, when normalising and when denormalising."""
    return affine(theta_ptr, item, row, column, size, out_size, False)


def sample_as_if_contiguous(input, *arguments, **options):
    """The strides that the shape suggests, instead of the tensor's own."""
    strides = torch.empty(input.shape).stride()
    return sample_with(input.as_strided(input.shape, strides), *arguments, **options)


samplers = {
    "no bug": sample_with,
    "no mask on taps": partial(sample_with, PADDING=no_mask),
    "cast, not floor": partial(sample_with, sampling=BILINEAR | {"FIRST": cast}),
    "W, not W - 1": partial(sample_with, MAP=affine_by_width),
    "strides assumed": sample_as_if_contiguous,
}

# %% [markdown]
# The first deserves a picture. Three digits lie in memory, one behind the other. We look at the middle one
# from farther away, with the mask and without:

# %% alt="Left: a digit seen from farther away, with zeros padding: small, in a black surround. Right: the same without the mask. To its left and right stand copies of it, one row lower or higher, and above and below it the digits that lie before and behind it in memory."
# needs Triton
middle = images[12:15][1:2]
farther = similarity(0, 1 / 2.5)[None].to(device)
views = {name: samplers[name](middle, farther, (70, 70)) for name in ("no bug", "no mask on taps")}
fig, axes = plt.subplots(1, 2, figsize=(6.4, 3.3))
for ax, (name, view) in zip(axes, views.items(), strict=True):
    show_image(view[0], ax, name)
plt.show()
ratio = views["no mask on taps"].sum() / views["no bug"].sum()
print(f"ink without the mask, as a multiple of the right ink: {ratio:.1f}")

# %% [markdown]
# Beyond the end of a row the next row begins; above the first row lies another picture. This time the memory
# was ours. Around the first and the last image of a tensor it is anybody's.
#
# Now all four against the tests that one would write: the identity, a turn, a shift, another size, and a view
# that is not contiguous, each against PyTorch with `align_corners=True`. The pictures are the middle three of
# five, so that the first bug stays in our memory.

# %%
# needs Triton
identity, turn = torch.eye(2, 3), similarity(37)
shift = torch.tensor([[1.0, 0.0, 0.3], [0.0, 1.0, -0.2]])
whole, part = slice(0, 28), slice(2, 26)
tests = {
    "identity": (whole, identity, (28, 28)),
    "turn": (whole, turn, (28, 28)),
    "shift": (whole, shift, (28, 28)),
    "resize": (whole, identity, (17, 35)),
    "view": (part, turn, (24, 24)),
}


def try_out(pictures):
    """Print which sampler agrees with PyTorch in which test."""
    print(" " * 16, "".join(f"{name:10}" for name in tests))
    for name, sampler in samplers.items():
        verdicts = []
        for window, theta, size in tests.values():
            batch, thetas = pictures[1:4, :, window, window], theta.expand(3, 2, 3).to(device)
            ours, right = (f(batch, thetas, size, align_corners=True) for f in (sampler, two_functions))
            verdicts.append("agrees" if same(ours, right) else "WRONG")
        print(f"{name:16}", "".join(f"{verdict:10}" for verdict in verdicts))


try_out(images[12:17])

# %% [markdown]
# Look down the first column. The identity, which everybody tries first, finds nothing. And the cast is found
# by no test at all! It goes wrong only for coordinates between $-2$ and $0$, and there gives one of the first
# two pixels of a row or column a negative weight. Those of these digits are black, and a wrong weight times 0
# is 0. So, the same with noise in place of digits:

# %%
# needs Triton
noise = torch.rand(5, 1, 28, 28, generator=generator).to(device)
try_out(noise)

# %% [markdown]
# The lessons of the table:
#
# - **Test with noise**, not with pictures: pictures are smooth, and black where the bugs are. (The cast would
#   pass even so, had we kept the $\max(0, \cdot)$ of Equation 5: its wrong tap would weigh 0.)
# - **The identity is a weak test.** It has no fractions, and $W$ for $W - 1$ cancels between normalising and
#   denormalising. On a square picture it cancels in a turn, too. It takes a shift, or another size.
# - **No test replaces another.** The view finds one bug that nothing else finds.
#
# And one more: make what must not be touched *poisonous*. If the pictures before and behind are NaN, a tap
# that should not have been loaded spoils the output even where its weight is 0.

# %%
# needs Triton
poisoned = noise.clone()
poisoned[[0, 4]] = math.nan
try_out(poisoned)

# %% [markdown]
# Now the identity finds the missing mask: its last row loads taps from beyond, at weight 0. The library's
# tests poison fresh memory in the same way, as `sample_with` does, so that a pixel which nobody wrote is
# seen.
#
# ## 7.13 Remarks
#
# **NaN.** A kernel that takes a minimum or maximum treats NaN one way in the interpreter and another on a
# GPU: NumPy's maximum of NaN and 0 is NaN, a GPU's, unless asked otherwise, is 0. With Equation 5's $\max(0,
# \cdot)$ a NaN place would thus give NaN on the one and 0 on the other. Our `tent` has none, and gives NaN on
# both. Where minima are needed, the library asks `x != x` first, which is true of NaN alone.
#
# **Choosing the block.** How large a block is best depends on the GPU. `@triton.autotune` tries several at
# the first call and keeps the fastest; it needs a GPU to time them on. The library goes by rules instead: a
# first call that stalls, or that chooses differently from run to run, is a nuisance.
#
# **Compilers.** `torch.compile` fuses too: given `affine_grid` and `grid_sample`, it can put coordinates and
# taps into one kernel. What it does not choose for us is how the backward pass adds up, where many output
# pixels share an input pixel.
#
# ## Summary
#
# - A kernel is run by many programs. Each finds its block by its number; masks cut off what does not exist;
#   shape and strides must be told.
# - The interpreter runs the programs in turn. It finds wrong values, and neither races nor slowness.
# - A fused sampler computes places where it needs them: $8 C$ bytes for a float32 pixel, where a grid in
#   memory adds 16. Bytes divided by bandwidth is a bound that no implementation beats.
# - Functions passed as constants make a template: map, sampling kernel and padding are chosen one by one.
# - Test with noise, a shift, another size, views, guards and NaN. The identity on a digit finds next to
#   nothing.
#
# ## Exercises
#
# Replace each `...` and run the cell. A wrong answer is told what is wrong with it. Where there are two `...`, one
# belongs to the kernel and one to the function that launches it. Solutions are in
# [solutions/07_a_first_triton_kernel.ipynb](solutions/07_a_first_triton_kernel.ipynb).

# %% [markdown]
# ### Exercise 07-1: programs and lanes
#
# `sample` is called for 5 images of 3 channels and an output of $42 \times 42$, with `BLOCK=512`. How many
# programs are launched, and how many lanes of all of them together have no pixel? Give a list of two numbers.

# %% tags=["exercise"]
# >>> solution
programs_and_idle_lanes = [5 * 4, 5 * (4 * 512 - 42 * 42)]
# <<< solution
check("07-1", programs_and_idle_lanes)

# %% [markdown]
# ### Exercise 07-2: half the bytes
#
# The pictures are float16 now, in and out, with three channels; the grid stays float32, since places need it.
# How many bytes move for an output pixel in two kernels, and how many fused? Give a list of two numbers.

# %% tags=["exercise"]
# >>> solution
bytes_unfused_and_fused = [2 * 3 * 2 + 16, 2 * 3 * 2]
# <<< solution
check("07-2", bytes_unfused_and_fused)

# %% [markdown]
# ### Exercise 07-3: a copy with strides
#
# Write a kernel, and the function that launches it, which copies a picture (H, W) of any strides into a new
# contiguous tensor. One program for a block of pixels, as above.


# %% tags=["exercise"]
# needs Triton
@triton.jit
def copy_kernel(output_ptr, input_ptr, stride_y, stride_x, height, width, BLOCK: tl.constexpr):
    # >>> solution
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = pixel < height * width
    row, column = pixel // width, pixel % width
    value = tl.load(input_ptr + row * stride_y + column * stride_x, mask=exists)
    tl.store(output_ptr + pixel, value, mask=exists)
    # <<< solution


def copy(picture):
    # >>> solution
    height, width = picture.shape
    output = picture.new_empty(height, width)
    programs = (triton.cdiv(height * width, 64),)
    copy_kernel[programs](output, picture, *picture.stride(), height, width, BLOCK=64)
    return output
    # <<< solution


check("07-3", copy)

# %% [markdown]
# ### Exercise 07-4: an exact identity
#
# Section 3.10: in float32 the identity returns its input only up to rounding, unless coordinates are counted
# from the centre and $W / W'$ is multiplied first. Write such a map in place of `affine`, for
# `align_corners=False`: with it the identity shall return *exactly* its input, at every size, and every other
# $\theta$ what it did. (On a GPU, write `tl.div_rn(p, q)` for a division that is rounded correctly.)


# %% tags=["exercise"]
# needs Triton
@triton.jit
def exact_affine(theta_ptr, item, row, column, size, out_size, ALIGN_CORNERS: tl.constexpr):
    # >>> solution
    height, width = size[0] * 1.0, size[1] * 1.0
    out_height, out_width = out_size[0] * 1.0, out_size[1] * 1.0
    across = column - (out_width - 1) * 0.5
    down = row - (out_height - 1) * 0.5
    first = theta_ptr + 6 * item
    second = first + 3
    xx, xy = tl.div_rn(width, out_width), tl.div_rn(width, out_height)
    yx, yy = tl.div_rn(height, out_width), tl.div_rn(height, out_height)
    from_centre_a = tl.load(first) * xx * across + tl.load(first + 1) * xy * down
    from_centre_b = tl.load(second) * yx * across + tl.load(second + 1) * yy * down
    a = from_centre_a + tl.load(first + 2) * width * 0.5 + (width - 1) * 0.5
    b = from_centre_b + tl.load(second + 2) * height * 0.5 + (height - 1) * 0.5
    return a, b
    # <<< solution


def exact_sample(input, theta, size):
    # >>> solution
    return sample_with(input, theta, size, MAP=exact_affine)
    # <<< solution


check("07-4", exact_sample)

# %% [markdown]
# ### Exercise 07-5: a cubic kernel
#
# Give the template Keys' cubic kernel [2], which PyTorch calls `mode="bicubic"`: with $A = -\frac{3}{4}$,
#
# $$
# k(t) = \begin{cases}
# (A + 2) |t|^3 - (A + 3) |t|^2 + 1 & |t| \leq 1 \\
# A |t|^3 - 5 A |t|^2 + 8 A |t| - 4 A & 1 < |t| < 2
# \end{cases}
# $$
#
# and zeros padding. Which tap is the first, and how many are there?


# %% tags=["exercise"]
# needs Triton
@triton.jit
def first_of_four(a):
    # >>> solution
    return tl.floor(a).to(tl.int32) - 1
    # <<< solution


@triton.jit
def cubic(t):
    # >>> solution
    t = tl.abs(t)
    near = (1.25 * t - 2.25) * t * t + 1.0
    far = ((-0.75 * t + 3.75) * t - 6.0) * t + 3.0
    return tl.where(t <= 1.0, near, far)
    # <<< solution


def bicubic_sample(input, theta, size):
    # >>> solution
    sampling = {"FIRST": first_of_four, "TAPS": 4, "KERNEL": cubic}
    return sample_with(input, theta, size, sampling)
    # <<< solution


check("07-5", bicubic_sample)

# %% [markdown]
# ### Exercise 07-6: another transform
#
# Build a projective sampler on the template. $\theta$ is (N, 3, 3); an output pixel at $(x, y)$ looks at
# $(u / w, v / w)$, all normalised, where $(u, v, w)^\top = \theta \, (x, y, 1)^\top$. `align_corners=False`.


# %% tags=["exercise"]
# needs Triton
@triton.jit
def projective(theta_ptr, item, row, column, size, out_size, ALIGN_CORNERS: tl.constexpr):
    # >>> solution
    x = (column - (out_size[1] - 1) * 0.5) / half_extent(out_size[1], ALIGN_CORNERS)
    y = (row - (out_size[0] - 1) * 0.5) / half_extent(out_size[0], ALIGN_CORNERS)
    first = theta_ptr + 9 * item
    second, third = first + 3, first + 6
    u = tl.load(first) * x + tl.load(first + 1) * y + tl.load(first + 2)
    v = tl.load(second) * x + tl.load(second + 1) * y + tl.load(second + 2)
    w = tl.load(third) * x + tl.load(third + 1) * y + tl.load(third + 2)
    a = u / w * half_extent(size[1], ALIGN_CORNERS) + (size[1] - 1) * 0.5
    b = v / w * half_extent(size[0], ALIGN_CORNERS) + (size[0] - 1) * 0.5
    return a, b
    # <<< solution


def projective_sample(input, theta, size):
    # >>> solution
    return sample_with(input, theta, size, MAP=projective)
    # <<< solution


check("07-6", projective_sample)

# %% [markdown]
# ## In the library
#
# | built here | in the library |
# | --- | --- |
# | `template_kernel` | `sample_forward_kernel` in `kernels/stn_kernels/forward.py`, whose programs own tiles |
# | `affine`, exact as in 07-4 | `kernels/stn_kernels/coordinate_maps.py` |
# | `tent`; `zeros`, `border` | `kernels/stn_kernels/sampling_kernels.py`; `kernels/stn_kernels/padding.py` |
# | `sample_with` | `stn_kernels.affine_sample`; launching in `kernels/stn_kernels/launch.py` |
#
# ## References
#
# 1. P. Tillet, H. T. Kung, D. Cox. *Triton: An Intermediate Language and Compiler for Tiled Neural Network
#    Computations*. MAPL 2019. [doi:10.1145/3315508.3329973](https://doi.org/10.1145/3315508.3329973).
#    The language: [triton-lang.org](https://triton-lang.org/main/python-api/triton.language.html);
#    its interpreter: [Debugging Triton](https://triton-lang.org/main/programming-guide/chapter-3/debugging.html).
# 2. R. G. Keys. *Cubic Convolution Interpolation for Digital Image Processing*. IEEE Transactions on
#    Acoustics, Speech, and Signal Processing 29(6), 1981.
#    [doi:10.1109/TASSP.1981.1163711](https://doi.org/10.1109/TASSP.1981.1163711).
# 3. S. Williams, A. Waterman, D. Patterson. *Roofline: An Insightful Visual Performance Model for Multicore
#    Architectures*. Communications of the ACM 52(4), 2009.
#    [doi:10.1145/1498765.1498785](https://doi.org/10.1145/1498765.1498785). Arithmetic intensity, and bounds.
#
# ## Next
#
# [Chapter 08, Fusing grid and sampler](08_fusing_grid_and_sampler.ipynb): the same kernel with tiles, for any map,
# and what it saves, byte by byte. Before: [chapter 06, The spatial transformer](06_the_spatial_transformer.ipynb).
