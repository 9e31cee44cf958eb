# %% [markdown]
# # 3 Sampling
#
# > **A sampling grid says where to look; a sampler says what is there. After this chapter nothing between the
# > two is hidden: you will have computed Equations 3 to 5 pixel by pixel, and agreed with PyTorch and with the
# > library's fused kernels.**
#
# **You will learn**
#
# - what Equation 3 says, and what its $x - m$ and $y - n$ are;
# - the integer and the bilinear sampling kernel, and why only one of them can be learned through;
# - to write a sampler: as the formula stands, over the kernel's support, and in vectorised PyTorch;
# - what lies outside the picture, and how padding can deceive a network;
# - what holds exactly, what holds up to rounding, and what goes wrong when a picture shrinks.
#
# **You need** [chapter 02](02_coordinates_and_grids.ipynb). **Runs in** about 15 seconds on two cores.

# %% tags=["setup"]
import math
import os

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

device = "cuda" if torch.cuda.is_available() else "cpu"
if device == "cpu":
    # Triton then interprets the library's kernels: slow, but the same code that runs on a GPU.
    os.environ["TRITON_INTERPRET"] = "1"

import stn
import stn_kernels
from stn.exercises import check
from stn.plotting import show_image, use_style

use_style()
torch.set_printoptions(precision=4, sci_mode=False)
images, labels = stn.data.digits("test")
digit = images[3]  # U, of shape (C, H, W) = (1, 28, 28)
affine = stn.Affine()

# %% [markdown]
# Chapter 02 ended with a grid of places $(x_i^s, y_i^s)$ in the input, one for each output pixel $i$. They
# lie anywhere; values exist only at pixels. In between, something must be made up, in a way that gradients
# can follow.
#
# ## 3.1 Equation 3
#
# The paper's answer [1] is a weighted sum over *all* pixels of the input:
#
# $$
# V_i^c = \sum_n^H \sum_m^W U_{nm}^c \; k(x_i^s - m; \Phi_x) \; k(y_i^s - n; \Phi_y)
# \qquad \forall i \in [1 \ldots H'W'] \;\; \forall c \in [1 \ldots C]
# \tag{3}
# $$
#
# - $U_{nm}^c$ is the input in channel $c$, row $n$, column $m$; $V_i^c$ is output pixel $i$ in that channel.
# - $k$ is the **sampling kernel**: a weight that depends on a distance. It is applied twice, once across and
#   once down, and the two weights are multiplied.
# - $\Phi_x$ and $\Phi_y$ are parameters that a kernel may have. Those of this chapter have none.
#
# The weights do not depend on $c$: every channel is sampled at the same places in the same way.
#
# ## 3.2 What are $x - m$ and $y - n$ in Equation 3?
#
# Readers of the paper ask this, and with good reason. Equation 1 gave $x_i^s$ in normalised coordinates,
# between $-1$ and $1$. The index $m$ counts columns, from 0 to 27 for our digits. What would it mean to subtract
# one from the other?
#
# > **Answer.** $x_i^s - m$ is the distance across, **in pixels**, from the sampling point to the centre of the
# > pixels in column $m$; $y_i^s - n$ is the distance down, in pixels, to the centre of those in row $n$.
# > Together they are the way from neighbour $(n, m)$ to the point. Between Equations 1 and 3 the paper changes
# > from normalised coordinates to pixels without saying so: the point must be **denormalised** first.
#
# To keep the two apart, this book writes $(a_i, b_i)$ for the sampling point in pixels, and Equation 3 becomes
#
# $$ V_i^c = \sum_n \sum_m U_{nm}^c \; k(a_i - m) \; k(b_i - n) $$
#
# with rows and columns counted from 0, as arrays do. Denormalising undoes the two rulers of section 2.2:


# %%
def to_pixels(x, size, align_corners=False):
    """A normalised coordinate in pixels: 0 is the centre of the first pixel, size - 1 that of the last."""
    return (x + 1) / 2 * (size - 1) if align_corners else ((x + 1) * size - 1) / 2


for align_corners in (False, True):
    centres = affine.grid(affine.identity()[None], (1, 4), align_corners)[0, 0, :, 0]
    print(f"align_corners={align_corners!s:5}  x", centres, " a", to_pixels(centres, 4, align_corners))

# %% [markdown]
# ## 3.3 Two kernels
#
# The **integer** sampling kernel copies the nearest pixel:
#
# $$
# V_i^c = \sum_n^H \sum_m^W U_{nm}^c \; \delta(\lfloor x_i^s + 0.5 \rfloor - m) \; \delta(\lfloor y_i^s + 0.5 \rfloor - n)
# \tag{4}
# $$
#
# where $\delta(0) = 1$ and $\delta$ of anything else is 0. As $m$ is an integer,
# $\lfloor a + 0.5 \rfloor - m = \lfloor (a - m) + 0.5 \rfloor$, so this too is a function of the distance
# $t = a - m$ alone. The **bilinear** sampling kernel falls off linearly and reaches zero at distance 1:
#
# $$
# V_i^c = \sum_n^H \sum_m^W U_{nm}^c \; \max(0, 1 - |x_i^s - m|) \; \max(0, 1 - |y_i^s - n|)
# \tag{5}
# $$


# %%
def integer(t):
    return (torch.floor(t + 0.5) == 0).to(t.dtype)


def bilinear(t):
    return torch.clamp(1 - t.abs(), min=0)


row = torch.tensor([1.0, 4.0, 2.0, 3.0])  # four pixels, at a = 0, 1, 2, 3


def sample_row(a, kernel):
    """Equation 3 in one dimension: the row's value at each place of a tensor `a`."""
    return (row * kernel(a[:, None] - torch.arange(4))).sum(1)


a = torch.tensor([1.40, 1.49, 1.51, 1.60])
print("a       ", a)
print("integer ", sample_row(a, integer))
print("bilinear", sample_row(a, bilinear))

# %% alt="Left: the two kernels as functions of the distance t; the integer kernel is a box of height 1 from -0.5 to 0.5, the bilinear one a tent from -1 to 1. Right: a row of four pixel values 1, 4, 2, 3, and what lies between: a staircase for the integer kernel, straight lines from value to value for the bilinear one."
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2.7), width_ratios=(2, 3))
t, a = torch.linspace(-1.6, 1.6, 641), torch.linspace(0, 3, 601)
for kernel, color in ((integer, "C1"), (bilinear, "C0")):
    left.plot(t, kernel(t), color=color, label=kernel.__name__)
    right.plot(a, sample_row(a, kernel), color=color)
right.plot(range(4), row, "o", color="#222222", zorder=3)
left.set(xlabel="distance $t = a - m$", ylabel="weight $k(t)$", xticks=[-1, 0, 1], yticks=[0, 1])
right.set(xlabel="place $a$ in pixels", ylabel="value", xticks=range(4), yticks=range(5))
left.legend(loc="upper left", bbox_to_anchor=(0.66, 1.05), handlelength=1)
plt.show()

# %% [markdown]
# From 1.49 to 1.51 the integer kernel jumps from 4 to 2, and everywhere else it does not move at all. Move
# the point a little, and the output does not change: the derivative is zero, so nothing can be learned
# through it. The bilinear kernel changes with every move. It has kinks at the pixels, where there is a slope
# to the left and another to the right; what the gradient is there, [chapter 04](04_gradients.ipynb) asks.
#
# A detail with consequences: a tie. Equation 4 rounds a half *up*. PyTorch's `mode="nearest"` rounds it to
# the *even* neighbour.

# %%
ties = torch.tensor([0.5, 1.5, 2.5, 3.5])
numbers = torch.arange(8.0)  # each pixel holds its own column
grid = torch.stack([(2 * ties + 1) / 8 - 1, torch.zeros(4)], -1)
by_torch = F.grid_sample(numbers[None, None, None], grid[None, None], mode="nearest", align_corners=False)
print("a                  ", ties)
print("Equation 4         ", torch.floor(ties + 0.5))
print("PyTorch's 'nearest'", by_torch[0, 0, 0])

# %% [markdown]
# ## 3.4 One output pixel, by hand
#
# A picture of three rows and four columns, and an output pixel that looks at $x = -0.1$, $y = -4/15$. In
# pixels that is $a = 1.3$, $b = 0.6$. Only four pixels are nearer than 1 both ways: the bilinear kernel gives
# all others weight 0.

# %%
U = torch.tensor([[1.0, 9.0, 5.0, 2.0], [8.0, 3.0, 7.0, 6.0], [4.0, 9.0, 0.0, 5.0]])
a, b = to_pixels(-0.1, 4), to_pixels(-4 / 15, 3)
print(f"a = {a:.1f}, b = {b:.1f}")

total = 0.0
for n in (0, 1):
    for m in (1, 2):
        weight = max(0, 1 - abs(a - m)) * max(0, 1 - abs(b - n))
        total += weight * U[n, m].item()
        print(
            f"(n, m) = ({n}, {m}):  a - m = {a - m:4.1f},  b - n = {b - n:4.1f},  weight {weight:.2f} × value {U[n, m]:.0f}"
        )
print(f"V = {total:.2f}")

# %% alt="Three drawings of the picture and the sampling point at a = 1.3, b = 0.6. Left: the whole picture, three rows of four values, with the four neighbours 9, 5, 3 and 7 highlighted. Middle: the neighbours and the distances to the point: 0.3 and -0.7 from the columns m = 1 and m = 2, 0.6 and -0.4 from the rows n = 0 and n = 1. Right: a square of one pixel's size around the point, cut by the borders between pixels into areas of 0.28, 0.12, 0.42 and 0.18: the four weights."
fig, axes = plt.subplots(1, 3, figsize=(9, 3.1), width_ratios=(4, 3, 3))
for ax in axes:
    for n in range(3):
        for m in range(4):
            near = n in (0, 1) and m in (1, 2)
            paper, ink = ("#ffffff", "#222222") if near else ("#eeeeee", "#999999")
            ax.add_patch(plt.Rectangle((m - 0.5, n - 0.5), 1, 1, facecolor=paper, edgecolor="#999999"))
            # In the zoomed panels the value stands in the outer corner of its pixel, clear of the drawing.
            place = (m, n) if ax is axes[0] else (1.5 + 1.78 * (m - 1.5), 0.5 + 1.72 * (n - 0.5))
            ax.text(*place, f"{U[n, m]:.0f}", ha="center", va="center", color=ink, clip_on=True)
    ax.plot(a, b, "o", color="#222222", markersize=6, zorder=4)
    ax.set(aspect="equal", xticks=range(4), yticks=range(3), xlabel="$a$, column $m$")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
whole_picture, distances, weights = axes
whole_picture.set(xlim=(-0.52, 3.52), ylim=(2.52, -0.52), ylabel="$b$, row $n$", title="picture and point")
distances.set(xlim=(0.47, 2.53), ylim=(1.53, -0.53), title="distances in pixels")
weights.set(xlim=(0.47, 2.53), ylim=(1.53, -0.53), title="weights: shared areas")

distances.plot([1, 1, 2, 2], [0, 1, 0, 1], "o", color="#999999", markersize=4)
distances.plot([a, a], [b, 1.25], ":", [a, 2.18], [b, b], ":", color="#222222", linewidth=1)
arrow = {"arrowstyle": "->", "linewidth": 1.6}
for start, end, color in ((1, a, "C0"), (2, a, "C1")):
    distances.annotate("", (end, 1.25), (start, 1.25), arrowprops=arrow | {"color": color})
    distances.plot([start, start], [1, 1.25], ":", color=color, linewidth=1)
    distances.text((start + end) / 2, 1.36, f"{end - start:.1f}", ha="center", va="center", color=color)
for start, end, color in ((0, b, "C0"), (1, b, "C1")):
    distances.annotate("", (2.18, end), (2.18, start), arrowprops=arrow | {"color": color})
    distances.plot([2, 2.18], [start, start], ":", color=color, linewidth=1)
    distances.text(2.23, (start + end) / 2, f"{end - start:.1f}", ha="left", va="center", color=color)

for start_a, end_a in ((a - 0.5, 1.5), (1.5, a + 0.5)):
    for start_b, end_b in ((b - 0.5, 0.5), (0.5, b + 0.5)):
        size = (end_a - start_a, end_b - start_b)
        color = ("C5", 0.35 + size[0] * size[1])
        weights.add_patch(plt.Rectangle((start_a, start_b), *size, facecolor=color, edgecolor="white"))
        middle_a = (start_a + end_a) / 2
        middle_b = (start_b + end_b) / 2 + (0.14 if end_b > 0.6 else 0)  # clear of the point
        weights.text(middle_a, middle_b, f"{size[0] * size[1]:.2f}", ha="center", va="center")
plt.show()

# %% [markdown]
# The right panel is a second way to see the same weights. Put a square of one pixel's size around the point:
# the weight of each pixel is the area that the square shares with it. The areas add up to 1, so a bilinear
# value never leaves the range of the four it is made of.
#
# ## 3.5 The whole sum, and the support
#
# Equation 5 asks for all $H W$ terms at every output pixel. We take it at its word, for a digit turned by 20°,
# and beside it visit only the *support*, the four pixels where the kernel is not zero. Plain Python, so that
# we can count.

# %%
theta = torch.tensor([[0.94, -0.34, 0.1], [0.34, 0.94, 0.0]])
grid = affine.grid(theta.reshape(1, 6), (28, 28))
places = [(to_pixels(x, 28), to_pixels(y, 28)) for x, y in grid[0].reshape(-1, 2).tolist()]
pixels = digit[0].tolist()


def whole_sum(a, b):
    """Equation 5 as it stands: its value and the number of terms."""
    value = 0.0
    for n in range(28):
        for m in range(28):
            value += pixels[n][m] * max(0, 1 - abs(a - m)) * max(0, 1 - abs(b - n))
    return value, 28 * 28


def over_support(a, b):
    """The same over the pixels around (a, b): value and number of terms."""
    value, terms = 0.0, 0
    for n in (math.floor(b), math.floor(b) + 1):
        for m in (math.floor(a), math.floor(a) + 1):
            if 0 <= n < 28 and 0 <= m < 28:
                value += pixels[n][m] * max(0, 1 - abs(a - m)) * max(0, 1 - abs(b - n))
                terms += 1
    return value, terms


whole = [whole_sum(a, b) for a, b in places]
support = [over_support(a, b) for a, b in places]
print("same values:", [value for value, _ in whole] == [value for value, _ in support])
print(
    f"terms: {sum(terms for _, terms in whole):,} in the whole sum, {sum(terms for _, terms in support):,} over the support"
)

# %% [markdown]
# The cost of the whole sum grows with the input's size, that of the support does not. The paper says so in
# one sentence at the end of section 3.3, and every sampler does it.
#
# And what if we had *not* denormalised, and put Equation 1's coordinates straight into Equation 5?

# %%
literal = [over_support(x, y) for x, y in grid[0].reshape(-1, 2).tolist()]
print(f"ink with denormalised coordinates:       {sum(value for value, _ in support):7.2f}")
print(f"ink with normalised ones, taken literally: {sum(value for value, _ in literal):5.2f}")

# %% [markdown]
# Nothing. All points crowd within a pixel and a half of the top left corner, where the digit is black.
#
# ## 3.6 In PyTorch, and with the library
#
# The loop over output pixels becomes array arithmetic; the loop over the four neighbours stays. Pixels that do
# not exist get weight zero, as the sum in Equation 5 leaves them out.


# %%
def bilinear_sample(input, grid, align_corners=False):
    """Equation 5 for a batch: input (N, C, H, W), grid (N, H', W', 2) -> (N, C, H', W')."""
    N, _, H, W = input.shape
    a = to_pixels(grid[..., 0], W, align_corners)
    b = to_pixels(grid[..., 1], H, align_corners)
    item = torch.arange(N, device=input.device)[:, None, None]
    output = 0
    for n in (b.floor(), b.floor() + 1):
        for m in (a.floor(), a.floor() + 1):
            weight = bilinear(a - m) * bilinear(b - n)
            exists = (n >= 0) & (n < H) & (m >= 0) & (m < W)
            row, column = n.clamp(0, H - 1).long(), m.clamp(0, W - 1).long()
            value = input[item, :, row, column].movedim(-1, 1)  # (N, C, H', W')
            output = output + value * (weight * exists)[:, None]
    return output


turned = bilinear_sample(digit[None], grid)[0, 0]
torch.testing.assert_close(turned.flatten(), torch.tensor([value for value, _ in whole]))
print("vectorised agrees with the whole sum of Equation 5")

# %% [markdown]
# Now against others: PyTorch's `grid_sample`; the library's, which takes the same arguments; and the library's
# `affine_sample`, which takes $\theta$ instead of a grid. Eight digits, eight random transforms, an output of
# another size, in double precision. (The library's kernels are written in Triton, a language for GPUs. Without a
# GPU, Triton interprets them; the setup cell asked it to.)

# %%
input = images[:8].to(device, torch.float64)
noise = torch.randn(8, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
thetas = (torch.eye(2, 3) + 0.5 * noise).to(device)

for align_corners in (False, True):
    grids = affine.grid(thetas.flatten(1), (20, 24), align_corners)
    ours = bilinear_sample(input, grids, align_corners)
    options = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": align_corners}
    others = {
        "torch.nn.functional.grid_sample": F.grid_sample(input, grids, **options),
        "stn_kernels.grid_sample": stn_kernels.grid_sample(input, grids, **options),
        "stn_kernels.affine_sample": stn_kernels.affine_sample(input, thetas, (20, 24), **options),
    }
    for name, output in others.items():
        torch.testing.assert_close(output, ours, rtol=0, atol=1e-12)
        print(f"align_corners={align_corners!s:5}  {name} agrees with ours to 12 decimals")

# %% [markdown]
# Why have `affine_sample` at all, if a grid and `grid_sample` give the same? Count what must be stored.

# %%
output = others["stn_kernels.affine_sample"]
print(f"numbers in the output: {output.numel():5}")
print(f"numbers in the grids:  {grids.numel():5}")
print(f"numbers in theta:      {thetas.numel():5}")

# %% [markdown]
# For pictures of one channel the grid is twice as large as the output, and it is written once and read once to
# say what six numbers say. `affine_sample` computes each place where it needs it and stores none. That is called
# *fusing*; [chapter 07](07_a_first_triton_kernel.ipynb) writes a kernel that does it. (Two things are called
# kernels, and custom leaves no choice: the sampling kernel $k$ is a weight; a GPU's kernel, fused or not, is a
# program.) Section 3.10 shows that it also buys exactness.
#
# ## 3.7 What lies outside
#
# A grid may look beyond the picture. Equation 5 sums over existing pixels only, so there everything has
# weight zero: it answers 0. That is `padding_mode="zeros"`, one of three
# that PyTorch and the library have:

# %%
places = torch.arange(-2, 6)
pixel_row = row[None, None, None].to(device)  # (N, C, H, W) = (1, 1, 1, 4)
row_grid = torch.stack([(2 * places + 1) / 4 - 1, torch.zeros(8)], -1)[None, None].to(device)
print("a         ", "".join(f"{place:6}" for place in places.tolist()))
for padding_mode in ("zeros", "border", "reflection"):
    values = stn_kernels.grid_sample(pixel_row, row_grid, padding_mode=padding_mode)[0, 0, 0]
    print(f"{padding_mode:10}", "".join(f"{value:6.1f}" for value in values.tolist()))

# %% [markdown]
# `border` goes on with the border pixels' values. `reflection` puts a mirror at $-1$ and at $1$: with
# `align_corners=False` at the edges, so that the border pixel is seen twice, with `True` at the centres. On a
# picture, a digit trimmed so that its strokes meet the frame, seen from twice as far:

# %% alt="Four panels. The input: a digit five that touches its frame on all sides. Zeros: the same, small, in a black surround. Border: its border pixels smeared outwards in straight streaks. Reflection: the digit surrounded by its mirror images."
trimmed = digit[None, :, 4:24, 7:24].to(device)
far = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]], device=device)
fig, axes = plt.subplots(1, 4, figsize=(9, 2.8))
show_image(trimmed[0], axes[0], "input")
for ax, padding_mode in zip(axes[1:], ("zeros", "border", "reflection"), strict=True):
    zoomed_out = stn_kernels.affine_sample(trimmed, far, (60, 51), padding_mode=padding_mode)
    show_image(zoomed_out[0], ax, padding_mode)
    print(
        f"{padding_mode:10} share of the output that is not black: {(zoomed_out > 0.01).float().mean():.2f}"
    )
plt.show()

# %% [markdown]
# With zeros the edge is soft. Half a pixel inside the frame, at the centre of a border pixel, the full value
# holds; from there it falls to zero within one pixel. At $x = -1$ itself, half of it is left. So even a grid
# that never leaves $[-1, 1]$ sees the padding. Enlarge a white picture:

# %%
white = torch.ones(1, 1, 4, 4, device=device)
identity = torch.eye(2, 3, device=device)[None]
enlarged = stn_kernels.affine_sample(white, identity, (8, 8))
print("the first row of the enlarged picture:", enlarged[0, 0, 0].cpu())
print("a row in the middle:                  ", enlarged[0, 0, 4].cpu())
enlarged = stn_kernels.affine_sample(white, identity, (8, 8), padding_mode="border")
print("the first row, border padding:        ", enlarged[0, 0, 0].cpu())

# %% [markdown]
# ## 3.8 The trap: a frame around normalised pictures
#
# Most training code normalises its input: subtract the mean of the data set, divide by its standard
# deviation. For MNIST these are 0.1307 and 0.3081. Black, 0, becomes $-0.42$. Then a transformer looks beyond
# the frame, and finds 0.

# %% alt="Three digits seen from farther away. On the raw digit, zeros padding is invisible: black on black. On the normalised digit the padding is a visibly lighter frame around the black square of the picture. With border padding the frame is gone."
mean, deviation = 0.1307, 0.3081
raw = digit[None].to(device)
normalised = (raw - mean) / deviation
farther = torch.tensor([[[1.5, 0.0, 0.0], [0.0, 1.5, 0.0]]], device=device)
views = {
    "raw, zeros": stn_kernels.affine_sample(raw, farther, (28, 28)),
    "normalised, zeros": stn_kernels.affine_sample(normalised, farther, (28, 28)),
    "normalised, border": stn_kernels.affine_sample(normalised, farther, (28, 28), padding_mode="border"),
}
fig, axes = plt.subplots(1, 3, figsize=(7.5, 2.8))
for ax, (name, view) in zip(axes, views.items(), strict=True):
    show_image(view[0], ax, name)
    print(f"{name:19} outside {view[0, 0, 0, 0]:5.2f}   background inside {view[0, 0, 14, 6]:5.2f}")
plt.show()

# %% [markdown]
# The padding is lighter than the background: a frame that no digit has, that moves with $\theta$, and that
# the network can see. What it does with it is anybody's guess. The transformer of a well-known tutorial,
# trained on normalised digits, is reported to learn to zoom *out* [3]. The cures are easy once you know:
# `padding_mode="border"`; or make the background 0 before sampling (exercise 03-5); or normalise after the
# transformer.
#
# ## 3.9 `align_corners` must match
#
# The grid is made with one ruler and read with another: nothing raises an error. Four pixels, the identity,
# and where each output pixel really looks:

# %%
theta_1 = affine.identity()[None]
for made_with in (False, True):
    x = affine.grid(theta_1, (1, 4), made_with)[0, 0, :, 0]
    for read_with in (False, True):
        print(f"grid made with {made_with!s:5}, read with {read_with!s:5}: a =", to_pixels(x, 4, read_with))

# %% [markdown]
# A mismatch is a zoom by $W / (W - 1)$ or its inverse, about the centre: right in the middle, half a pixel off
# at the border. On larger pictures the zoom gets smaller but the half pixel stays. That is too little to see,
# and enough to spoil a comparison.

# %%
for made_with, read_with in ((False, False), (True, True), (True, False), (False, True)):
    there = F.grid_sample(
        digit[None], affine.grid(theta_1, (28, 28), made_with), mode="bilinear", align_corners=read_with
    )
    error = (there - digit).abs().max()
    print(f"grid made with {made_with!s:5}, read with {read_with!s:5}: identity off by at most {error:.3f}")

# %% [markdown]
# ## 3.10 Is the identity exact?
#
# On paper, the identity sends pixel $j$ to itself: $a = \frac{(x_j + 1) W - 1}{2}$ with
# $x_j = \frac{2j + 1}{W} - 1$ gives $a = j$. A computer divides by $W$ and multiplies by it again, and rounds
# each time. For which widths does float32 return to $j$?


# %%
def identity_in_float32(size):
    x = (2 * torch.arange(size, dtype=torch.float32) + 1) / size - 1
    return to_pixels(x, size)


exact = [size for size in range(2, 101) if torch.equal(identity_in_float32(size), torch.arange(size).float())]
worst = max((identity_in_float32(size) - torch.arange(size)).abs().max() for size in range(2, 101))
print("exact at widths", exact)
print(f"elsewhere off by at most {1e6 * worst:.1f} millionths of a pixel")

# %% [markdown]
# Only where the width is a power of two. Elsewhere some points land up to four millionths of a pixel beside
# their pixel and mix in as much of a neighbour. That is harmless in a picture. But it does mean that "the
# identity returns its input" holds only up to rounding, and that chance decides which neighbour is touched.
#
# It can be avoided. Measure from the picture's centre, $a = \frac{W - 1}{2} + r$, and let Equation 1 act on
# $r$ directly: $r^s = \theta_{11} \frac{W}{W'} r^t + \ldots$ Target offsets $r^t$ are whole or half numbers,
# which are exact, and between pictures of one size $W / W'$ is exactly 1. The library computes so. It takes
# $\theta$ for that: a grid stores $x$, which is rounded already.

# %%
exact_by_torch, exact_by_library, close = [], [], []
eye = torch.eye(2, 3)[None]
for size in range(2, 34):
    picture = torch.rand(1, 1, 3, size, generator=torch.Generator().manual_seed(size))
    grid = F.affine_grid(eye, (1, 1, 3, size), align_corners=False)
    by_torch = F.grid_sample(picture, grid, align_corners=False)
    by_library = stn_kernels.reference.sample(picture, eye, (3, size), "affine")
    close.append(torch.allclose(by_torch, picture, rtol=0, atol=1e-5))
    exact_by_torch.append(torch.equal(by_torch, picture))
    exact_by_library.append(torch.equal(by_library, picture))
print("widths 2 to 33, PyTorch's affine_grid and grid_sample: within 0.00001 at all:", all(close))
print("                                                       exact at all:", all(exact_by_torch))
print("                the library's definition, given theta: exact at all:", all(exact_by_library))

# %% [markdown]
# `stn_kernels.reference` is the library's definition in plain PyTorch; its kernels are tested to be exact here
# too. On the CPU without the interpreter the library uses PyTorch's own sampler, and what holds is PyTorch's
# "up to rounding".
#
# ## 3.11 Not a number
#
# When training diverges, $\theta$ becomes NaN, and so do all places. What is the value at no place? PyTorch's
# answer differs between devices and padding modes. The library has one rule: **a NaN coordinate gives a NaN
# output**, at that pixel and no other, and no gradient to the input. You see at once that something broke.
# Infinity is a place: it lies outside.

# %%
grid = affine.grid(theta_1, (28, 28)).to(device)
grid[0, 3, 5, 0] = math.nan
grid[0, 12, 16, 0] = math.inf
output = stn_kernels.grid_sample(digit[None].to(device), grid)[0, 0]
print("NaN outputs:", output.isnan().sum().item(), "of", output.numel())
print(f"at the infinite place: {output[12, 16]:.1f}, where the identity gives {digit[0, 12, 16]:.1f}")

# %% [markdown]
# ## 3.12 Shrinking skips pixels
#
# One thing the bilinear kernel does badly. It looks at four pixels, whatever the distance between sampling
# points. When the output is four times smaller each way, the points are four pixels apart and most of the
# input is never looked at. Sixty-four digits, shrunk from 28 × 28 to 7 × 7 pixels each:

# %% alt="Left: sixty-four digits in eight rows. Middle: the same shrunk four times by bilinear sampling, strokes ragged, some broken or gone. Right: shrunk by averaging blocks of four by four pixels, strokes grey but whole."
canvas = torch.cat([torch.cat(list(images[8 * n : 8 * n + 8]), 2) for n in range(8)], 1)
sampled = stn_kernels.affine_sample(canvas[None].to(device), identity, (56, 56)).cpu()
averaged = F.avg_pool2d(canvas[None], 4)
fig, axes = plt.subplots(1, 3, figsize=(9, 3.2))
show_image(canvas, axes[0], "224 × 224 pixels")
show_image(sampled[0], axes[1], "sampled at 56 × 56 places")
show_image(averaged[0], axes[2], "means of 4 × 4 pixels")
plt.show()

looked_at = torch.zeros(224, dtype=torch.bool)
places = to_pixels(affine.grid(theta_1, (1, 56))[0, 0, :, 0], 224)
looked_at[places.floor().long()] = looked_at[places.floor().long() + 1] = True
print(f"share of the input that the output depends on: {looked_at.float().mean() ** 2:.2f}")

# %% [markdown]
# Three quarters of the pixels count for nothing. A thin stroke survives or not by where it happens to lie, so
# the same digit, moved by a pixel, changes its look. That is **aliasing**. Measure it: the ink of the shrunken
# canvas should not change when the canvas moves by one pixel.


# %%
def ink(picture):
    """Mean value of each 7 × 7 digit."""
    return F.avg_pool2d(picture, 7).flatten()


moved = canvas[None].roll(1, dims=3)
moved_and_sampled = stn_kernels.affine_sample(moved.to(device), identity, (56, 56)).cpu()
for name, before, after in (
    ("sampled", sampled, moved_and_sampled),
    ("averaged", averaged, F.avg_pool2d(moved, 4)),
):
    change = (ink(after) / ink(before) - 1).abs()
    print(f"{name:8}: moving the canvas by one pixel changes a digit's ink by up to {change.max():.1%}")

# %% [markdown]
# The paper warns of this in one sentence, and on its digits samples at twice the size and averages. [Chapter
# 14](14_aliasing_and_gradients_that_see_further.ipynb) does better. Until then: do not let a transformer shrink
# much.
#
# ## Summary
#
# - $x - m$ and $y - n$ in Equation 3 are distances in pixels from the sampling point to neighbour $(n, m)$,
#   after denormalising.
# - The bilinear kernel weighs the four pixels around a point by $(1 - |a - m|)(1 - |b - n|)$. The integer
#   kernel copies the nearest, and nothing can be learned through it.
# - The whole double sum, the sum over the support, vectorised PyTorch, PyTorch's `grid_sample` and the fused
#   kernels compute the same numbers.
# - Zeros padding is felt half a pixel inside the frame already, and draws a frame around pictures whose
#   background is not 0. `align_corners` must be the same for grid and sampler.
# - The identity is exact up to rounding, or exactly, if coordinates are counted from the centre. Shrinking
#   skips pixels.
#
# ## Exercises
#
# Replace each `...` and run the cell. A wrong answer is told what is wrong with it. Solutions are in
# [solutions/03_sampling.ipynb](solutions/03_sampling.ipynb).

# %% [markdown]
# ### Exercise 03-1: four weights
#
# A point lies at $a = 2.25$, $b = 5.5$. What are the bilinear weights of its four neighbours? Give a list: top
# left, top right, bottom left, bottom right.

# %% tags=["exercise"]
# >>> solution
four_weights = [0.75 * 0.5, 0.25 * 0.5, 0.75 * 0.5, 0.25 * 0.5]
# <<< solution
check("03-1", four_weights)

# %% [markdown]
# ### Exercise 03-2: at the very edge
#
# The row $[8, 4, 2, 6]$ is sampled bilinearly at $x = -1$, with `padding_mode="zeros"` and
# `align_corners=False` (and $y = 0$). What is the value?

# %% tags=["exercise"]
# >>> solution
at_the_edge = 8 / 2  # a = -1/2: half of the weight falls on the pixel that does not exist
# <<< solution
check("03-2", at_the_edge)

# %% [markdown]
# ### Exercise 03-3: the integer kernel
#
# Write Equation 4 for one place: `image` is a tensor (H, W), `a` and `b` are numbers, in pixels. Outside the
# picture the value is 0. Mind the ties: the paper rounds a half up.


# %% tags=["exercise"]
def integer_sample(image, a, b):
    # >>> solution
    height, width = image.shape
    n, m = math.floor(b + 0.5), math.floor(a + 0.5)
    return float(image[n, m]) if 0 <= n < height and 0 <= m < width else 0.0
    # <<< solution


check("03-3", integer_sample)

# %% [markdown]
# ### Exercise 03-4: border padding
#
# Write a bilinear sampler for one place whose value, outside the picture, is that of the nearest point inside,
# as `padding_mode="border"`. Inputs as above. Try it at the last column itself: a well-known bug [4] returned
# 0 there.


# %% tags=["exercise"]
def border_sample(image, a, b):
    # >>> solution
    height, width = image.shape
    a, b = min(max(a, 0), width - 1), min(max(b, 0), height - 1)  # move the point, not the neighbours
    value = 0.0
    for n in (math.floor(b), math.floor(b) + 1):
        for m in (math.floor(a), math.floor(a) + 1):
            if n < height and m < width:
                value += (1 - abs(a - m)) * (1 - abs(b - n)) * float(image[n, m])
    return value
    # <<< solution


check("03-4", border_sample)

# %% [markdown]
# ### Exercise 03-5: no frame
#
# Write a function that samples with `stn_kernels.affine_sample` and zeros padding, but as if the picture
# continued outside with the value `background`. `input` is (N, C, H, W), `theta` (N, 2, 3), `size` (H', W').


# %% tags=["exercise"]
def sample_on_background(input, theta, size, background):
    # >>> solution
    return stn_kernels.affine_sample(input - background, theta, size) + background
    # <<< solution


check("03-5", sample_on_background)

# %% [markdown]
# ### Exercise 03-6: any kernel
#
# Build Equation 3 for one place and any `kernel`, a function of a number $t$ that is 0 for $|t| \geq$ `radius`,
# a whole number. Visit only the support; leave out pixels that do not exist. The check tries the bilinear kernel
# (radius 1) and a cubic one [2] (radius 2), with which you will have written PyTorch's `mode="bicubic"`.


# %% tags=["exercise"]
def sample_with(image, a, b, kernel, radius):
    # >>> solution
    height, width = image.shape
    value = 0.0
    for n in range(max(math.floor(b) - radius + 1, 0), min(math.floor(b) + radius + 1, height)):
        for m in range(max(math.floor(a) - radius + 1, 0), min(math.floor(a) + radius + 1, width)):
            value += float(image[n, m]) * kernel(a - m) * kernel(b - n)
    return value
    # <<< solution


check("03-6", sample_with)

# %% [markdown]
# ## In the library
#
# | built here | in the library |
# | --- | --- |
# | `bilinear_sample` | `stn_kernels.grid_sample`; its plain definition `stn_kernels.reference.sample` |
# | grid and sampler in one | `stn_kernels.affine_sample`; `sample` of every transform in `stn/transforms.py` |
# | the kernel $k(t)$, the padding | `kernels/stn_kernels/sampling_kernels.py`, `kernels/stn_kernels/padding.py` |
#
# ## References
#
# 1. M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu. *Spatial Transformer Networks*. NIPS 2015.
#    [arXiv:1506.02025](https://arxiv.org/abs/1506.02025). Section 3.3; aliasing at the end of section 3.4.
# 2. R. G. Keys. *Cubic Convolution Interpolation for Digital Image Processing*. IEEE Transactions on
#    Acoustics, Speech, and Signal Processing 29(6), 1981.
#    [doi:10.1109/TASSP.1981.1163711](https://doi.org/10.1109/TASSP.1981.1163711).
# 3. The frame around normalised digits: [pytorch/tutorials#1117](https://github.com/pytorch/tutorials/issues/1117).
# 4. A sampler that cuts off the last row and column:
#    [tensorflow/models#2016](https://github.com/tensorflow/models/issues/2016).
#
# ## Next
#
# [Chapter 04, Gradients](04_gradients.ipynb): the way back, from a loss to the image, the places and $\theta$.
# Before: [chapter 02, Coordinates and grids](02_coordinates_and_grids.ipynb).
