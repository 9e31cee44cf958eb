# %% [markdown]
# # 4 Gradients
#
# > **A spatial transformer learns where to look from gradients that pass through the looking itself. After this
# > chapter you can compute all of them by hand, to the image, to the places and to $\theta$; you know the points
# > at which the paper's formula is wrong; and you have measured how far a gradient can see.**
#
# **You will learn**
#
# - what Equations 6 and 7 say, and the misprint in the first;
# - what the slope is at a pixel itself, where there are two, and why code gets it wrong so easily;
# - to write the sampler's backward pass: a splat for the image, a sum over pixels for $\theta$;
# - to test a gradient with `gradcheck`, and what a failure means;
# - why a sharp picture makes a transformer near-sighted, and how blur helps.
#
# **You need** [chapter 03](03_sampling.ipynb) and the chain rule. **Runs in** about 20 seconds on two cores.

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
from stn.without_triton import replay_kernel_cells

replay_kernel_cells("04_gradients.ipynb")
use_style()
torch.set_printoptions(precision=4, sci_mode=False)
images, labels = stn.data.digits("test")
digit = images[3]  # U, of shape (C, H, W) = (1, 28, 28)
affine = stn.Affine()


def to_pixels(x, size, align_corners=False):
    """A normalised coordinate in pixels, as in section 3.2."""
    return (x + 1) / 2 * (size - 1) if align_corners else ((x + 1) * size - 1) / 2


# %% [markdown]
# Somewhere behind the sampler a loss $L$ is computed from the output $V$, and backpropagation arrives with
# $\partial L / \partial V_i^c$, a number for each output pixel $i$ and channel $c$. The sampler must turn it
# into gradients of what *it* was given: the image $U$ and the places $(x_i^s, y_i^s)$. The grid generator turns
# the latter into a gradient of $\theta$. Three steps, three sections: 4.2, 4.3, 4.7. In between we look at what
# can go wrong.
#
# ## 4.1 A slope, by hand
#
# The row of chapter 03, read at $a = 1.4$, between the second pixel and the third. As there, $a$ is a place in
# pixels.

# %%
row = [1.0, 4.0, 2.0, 3.0]  # four pixels, at a = 0, 1, 2, 3
raised = [1.0, 4.1, 2.0, 3.0]


def value(a, row=row):
    m = math.floor(a)
    return (m + 1 - a) * row[m] + (a - m) * row[m + 1]


print(f"V(1.4) = 0.6 × 4 + 0.4 × 2 = {value(1.4):.2f}")
print(f"move the place by 0.1:       V changes by {value(1.5) - value(1.4):5.2f}")
print(f"raise the left pixel by 0.1: V changes by {value(1.4, raised) - value(1.4):5.2f}")

# %% [markdown]
# Between two pixels, $V$ is a straight line from one to the other. So
#
# - $\dfrac{\partial V}{\partial a}$ is the **difference of the two pixels**, $2 - 4 = -2$, wherever $a$ lies
#   between them;
# - $\dfrac{\partial V}{\partial U_m}$ is the **weight of pixel $m$**, here $0.6$ and $0.4$.
#
# The slope does not know where between the two pixels we are, and it knows nothing of any other pixel. All that
# follows is these two sentences, in more dimensions. And one point was left out: what if $a$ *is* a pixel?

# %% alt="Two plots over the place a from 0 to 3. Above, the value: straight lines through the pixel values 1, 4, 2, 3. Below, its slope: constant at 3, then -2, then 1, jumping at the pixels 1 and 2; a filled dot marks the slope to the right of each pixel, an open dot the one to the left."
fig, (above, below) = plt.subplots(2, 1, figsize=(5.5, 3.6), sharex=True)
above.plot(range(4), row, color="C0")
above.plot(range(4), row, "o", color="#222222")
above.set(ylabel="$V(a)$", yticks=range(5))
steps = [row[m + 1] - row[m] for m in range(3)]
below.axhline(0, color="#bbbbbb", linewidth=0.8)
for m, step in enumerate(steps):
    below.plot([m, m + 1], [step, step], color="C1")
    below.plot(m, step, "o", color="C1", zorder=3)
    below.plot(m + 1, step, "o", color="C1", markerfacecolor="white", zorder=3)
below.set(xlabel="place $a$ in pixels", ylabel=r"$\partial V / \partial a$", xticks=range(4), yticks=steps)
plt.show()

measured = [(value(m + 0.5 + 1e-6) - value(m + 0.5 - 1e-6)) / 2e-6 for m in range(3)]
print("slopes between the pixels:", [f"{slope:.2f}" for slope in measured])

# %% [markdown]
# ## 4.2 Equation 6, and its misprint
#
# The paper prints the derivative with respect to the image as
#
# $$
# \frac{\partial V_i^c}{\partial U_{nm}^c}
# = \sum_n^H \sum_m^W \max(0, 1 - |x_i^s - m|) \; \max(0, 1 - |y_i^s - n|)
# \tag{6, as printed}
# $$
#
# On the left, $n$ and $m$ name one pixel. On the right they are summed over, so the result cannot depend on
# which pixel was meant. Try both versions on the picture and the point of section 3.4, against a nudge.

# %%
U = torch.tensor([[1.0, 9.0, 5.0, 2.0], [8.0, 3.0, 7.0, 6.0], [4.0, 9.0, 0.0, 5.0]], dtype=torch.float64)
a, b = 1.3, 0.6


def tent(t):
    return max(0.0, 1 - abs(t))


def sample(U, a, b):
    """Equation 5 at one place."""
    return sum(U[n, m].item() * tent(a - m) * tent(b - n) for n in range(3) for m in range(4))


as_printed = sum(tent(a - m) * tent(b - n) for n in range(3) for m in range(4))
for n, m in ((0, 1), (0, 2), (1, 1), (1, 2), (2, 3)):
    raised = U.clone()
    raised[n, m] += 1e-3
    measured = (sample(raised, a, b) - sample(U, a, b)) / 1e-3
    print(
        f"pixel ({n}, {m}):  measured {measured:.2f}   the product alone {tent(a - m) * tent(b - n):.2f}   "
        f"the printed sum {as_printed:.2f}"
    )

# %% [markdown]
# > **The sums in Equation 6 are a misprint.** $V$ is linear in $U$, and the derivative of a linear function is
# > the coefficient: the single product
# > $\max(0, 1 - |x_i^s - m|)\,\max(0, 1 - |y_i^s - n|)$ of the pixel in question. The printed sum is the sum of
# > all weights, which is 1 wherever the point lies inside.
#
# ## 4.3 Equation 7
#
# The derivative with respect to the place does have sums, rightly, since a move changes all weights at once:
#
# $$
# \frac{\partial V_i^c}{\partial x_i^s}
# = \sum_n^H \sum_m^W U_{nm}^c \max(0, 1 - |y_i^s - n|)
# \begin{cases} 0 & \text{if } |m - x_i^s| \ge 1 \\ 1 & \text{if } m \ge x_i^s \\ -1 & \text{if } m < x_i^s \end{cases}
# \tag{7}
# $$
#
# A pixel to the right gains weight when the point moves right, and one to the left loses as much. As in
# Equation 5, the paper's $x_i^s$ is here in pixels, our $a$. For $y$, exchange the roles.


# %%
def equation_7(U, a, b):
    """dV/da, the three cases taken at their word."""
    total = 0.0
    for n in range(3):
        for m in range(4):
            case = 0 if abs(m - a) >= 1 else 1 if m >= a else -1
            total += U[n, m].item() * tent(b - n) * case
    return total


by_nudge = (sample(U, a + 1e-6, b) - sample(U, a - 1e-6, b)) / 2e-6
by_rows = 0.4 * (U[0, 2] - U[0, 1]) + 0.6 * (U[1, 2] - U[1, 1])
x = torch.tensor([[2 * a + 1, 2 * b + 1]], dtype=torch.float64) / torch.tensor([4, 3]) - 1
grid = x[None, None].requires_grad_()
F.grid_sample(U[None, None], grid, align_corners=False).backward()

print(f"Equation 7:                           {equation_7(U, a, b):.4f}")
print(f"by a nudge:                           {by_nudge:.4f}")
print(f"differences across, weighted down:    {by_rows:.4f}")
print(f"autograd through PyTorch's sampler:   {grid.grad[0, 0, 0, 0]:.4f}")

# %% [markdown]
# Three agree. The third line is how to compute it: with $\alpha$ and $\beta$ the fractions of $a$ and $b$, and
# $U_{00}, U_{01}, U_{10}, U_{11}$ the four neighbours, row first,
#
# $$
# \frac{\partial V}{\partial a} = (1 - \beta)(U_{01} - U_{00}) + \beta(U_{11} - U_{10}), \qquad
# \frac{\partial V}{\partial b} = (1 - \alpha)(U_{10} - U_{00}) + \alpha(U_{11} - U_{01})
# $$
#
# PyTorch's number is twice as large. It is the derivative with respect to the *normalised* $x$, and from
# $a = \frac{(x + 1) W - 1}{2}$ follows $\frac{\partial a}{\partial x} = \frac{W}{2} = 2$. This is the factor that
# Equation 7 leaves out, because the paper [1] changes from one unit to the other without saying so (section 3.2).
# With `align_corners=True` it is $\frac{W - 1}{2}$.

# %%
for align_corners, factor in ((False, 4 / 2), (True, (4 - 1) / 2)):
    extent = torch.tensor([3.0, 2.0]) if align_corners else torch.tensor([4.0, 3.0])
    place = 2 * torch.tensor([a, b], dtype=torch.float64) / extent + (-1 if align_corners else 1 / extent - 1)
    grid = place[None, None, None].requires_grad_()
    F.grid_sample(U[None, None], grid, align_corners=align_corners).backward()
    by_torch = grid.grad[0, 0, 0, 0]
    print(f"align_corners={align_corners!s:5}  dV/dx = {by_torch:.4f} = {factor} × {by_torch / factor:.4f}")

# %% [markdown]
# The integer kernel of Equation 4 needs no formula. Its value does not change with the place, except where it
# jumps. Autograd says so too:

# %%
grid = x[None, None].requires_grad_()
F.grid_sample(U[None, None], grid, mode="nearest", align_corners=False).backward()
print("gradient of the place, mode='nearest':", grid.grad[0, 0, 0])

# %% [markdown]
# Zero everywhere: no $\theta$ was ever learned through it.
#
# ## 4.4 The trap: a place that is a pixel
#
# At $a = 1$ the row has two slopes, $3$ to the left and $-2$ to the right. What is *the* derivative? There is
# none. The paper says that sub-gradients must be used. The word comes from convex functions, and $V$ is
# not one; but its idea carries over [2]: **any number between the two one-sided slopes** counts as a derivative.
# What does Equation 7 give?

# %%
flat_row = torch.tensor(row, dtype=torch.float64).repeat(3, 1)
for name, picture in (("the row", flat_row), ("a white picture", torch.ones(3, 4))):
    left, right = (picture[0, 1] - picture[0, 0]).item(), (picture[0, 2] - picture[0, 1]).item()
    literal = equation_7(picture, 1.0, 1.0)
    print(f"{name:16} left {left:4.1f}   right {right:4.1f}   Equation 7 {literal:4.1f}", end="   ")
    print("allowed:", min(left, right) <= literal <= max(left, right))

# %% [markdown]
# A slope of 1 on a picture that is white all over! At $a = j$ both neighbours are at distance 1 and are excluded
# by the first case. Pixel $j$ itself falls under $m \ge x$ and counts $+1$. What is left is
# $\sum_n U_{nj} \max(0, 1 - |y - n|)$: **at a pixel, Equation 7 returns the value in place of the slope.**
#
# The cases exclude both ends of the kernel's support; one of the two must be let in, and pixel $j$ must be
# counted on the other side. Slope to the right:
#
# $$
# \begin{cases} 1 & \text{if } 0 < m - x \le 1 \\ -1 & \text{if } -1 < m - x \le 0 \\ 0 & \text{otherwise} \end{cases}
# \tag{7, repaired}
# $$
#
# And autograd? It differentiates what is written, by the rules for what is written. Here are ways to write
# $k(t) = \max(0, 1 - |t|)$. Their values are the same everywhere.


# %%
def half_open(t):
    return torch.where((t >= -1) & (t < 0), 1 + t, torch.where((t >= 0) & (t < 1), 1 - t, 0.0))


pixels, columns = torch.tensor(row), torch.arange(4)
near = torch.tensor([0, 1, 1, 0])
ways = {
    "torch.relu(1 - t.abs())": lambda t: torch.relu(1 - t.abs()),
    "torch.clamp(1 - t.abs(), min=0)": lambda t: torch.clamp(1 - t.abs(), min=0),
    "    the same, pixels 1 and 2 alone": lambda t: ways["torch.clamp(1 - t.abs(), min=0)"](t) * near,
    "torch.maximum(1 - t.abs(), zero)": lambda t: torch.maximum(1 - t.abs(), torch.zeros(())),
    "1 + t from -1 to 0, 1 - t from 0 to 1": half_open,
}
print("                                        V(1.4)  slope     V(1)  slope")
for name, kernel in ways.items():
    answers = []
    for place in (1.4, 1.0):
        a = torch.tensor(place, requires_grad=True)
        V = (pixels * kernel(a - columns)).sum()
        (slope,) = torch.autograd.grad(V, a)
        answers.append(f"{V:6.1f} {slope:6.1f}")
    print(f"{name:38}", "  ".join(answers))

# %% [markdown]
# One function, five derivatives. At $a = 1.4$ they agree; at $a = 1$ it depends on what PyTorch says of $|t|$
# at 0 (slope 0) and of the clip at its bound (`relu`: 0, `clamp`: 1, `maximum`: a half).
#
# - `relu`: no slope at all, which is wrong wherever the two slopes have the same sign.
# - `clamp`: the two excluded neighbours are both let in, $U_2 - U_0 = 1$, which spans *two* pixels and is twice
#   the mean slope. It may lie outside the allowed range.
# - `clamp` over the two pixels $\lfloor a \rfloor$ and $\lfloor a \rfloor + 1$, as chapter 03's sampler was
#   written: only one neighbour is let in, and the slope is the *value* of pixel 2. Reading that sampler, who would
#   have seen it?
# - `maximum`: $(U_2 - U_0) / 2$, the mean of both sides. Correct, and by pure luck.
# - half-open pieces: the slope to the right.
#
# PyTorch's sampler and the library's take the slope to the **right**:

# %%
x = torch.tensor([[(2 * 1 + 1) / 4 - 1, 0.0]])  # a = 1
for name, sampler in (("torch.nn.functional", F.grid_sample), ("stn_kernels", stn_kernels.grid_sample)):
    grid = x[None, None].to(device).requires_grad_()
    sampler(pixels[None, None, None].to(device), grid, align_corners=False).backward()
    print(f"{name + '.grid_sample':33} dV/da = {grid.grad[0, 0, 0, 0] / (4 / 2):.1f}")

# %% [markdown]
# Why to the right? With $m_0 = \lfloor a \rfloor$ the two pixels are $m_0$ and $m_0 + 1$, and their difference is
# the slope to the right of $m_0$ without any case. The slope to the left or the mean would need a third pixel.
# It is a true one-sided slope, so it is never outside the range. And a gradient that equals PyTorch's everywhere
# lets a user exchange one for the other. (In two dimensions four patches meet at a pixel, each with a gradient
# of its own; `floor` chooses the patch to the lower right.)
#
# ## 4.5 The identity puts every place on a pixel
#
# A single point has little chance to meet a pixel. But training starts at the identity, and when input and
# output have the same size, the identity sends **every** place to a pixel, under both conventions of
# `align_corners`. Section 3.10 found that rounding blurs this. Where do the places lie?

# %%
index = torch.arange(28)
for align_corners in (False, True):
    x = affine.grid(affine.identity()[None], (28, 28), align_corners)[0, 0, :, 0]
    a = to_pixels(x, 28, align_corners)
    print(
        f"align_corners={align_corners!s:5}  of 28 columns {(a == index).sum()} on the pixel, "
        f"{(a < index).sum()} a little left of it, {(a > index).sum()} a little right"
    )

# %% [markdown]
# For places that are a little left, `floor` finds the pixel before, and the slope is that to the left. Rounding
# decides. Does it matter? We let the digit be sampled by the identity and want it 3 pixels to the right. With $V^*$
# the picture that is wanted, $L = \frac{1}{2} \sum_i (V_i - V^*_i)^2$, so $\partial L / \partial V_i = V_i - V^*_i$.
# The gradient of $\theta_{13}$ adds up all slopes,
# $\frac{W}{2} \sum_i \frac{\partial L}{\partial V_i} \frac{\partial V_i}{\partial a_i}$.

# %%
wanted = digit.roll(3, dims=2)
U, g = digit[0], (digit - wanted)[0]
padded = F.pad(U, (1, 1))
left, right = U - padded[:, :-2], padded[:, 2:] - U
x = affine.grid(affine.identity()[None], (28, 28))[0, 0, :, 0]
by_chance = torch.where(to_pixels(x, 28) < index, left, right)
for name, slopes in (
    ("to the left everywhere", left),
    ("to the right everywhere", right),
    ("as rounding decides", by_chance),
    ("Equation 7, literally", U),
):
    print(f"slopes {name:24} dL/dtheta_13 = {14 * (g * slopes).sum():7.1f}")

# %%
# needs Triton
theta = torch.eye(2, 3, device=device)[None].requires_grad_()
output = stn_kernels.affine_sample(digit[None].to(device), theta, (28, 28))
(output - wanted[None].to(device)).square().sum().div(2).backward()
print(f"stn_kernels.affine_sample               dL/dtheta_13 = {theta.grad[0, 0, 2]:7.1f}")

# %% [markdown]
# The slopes differ in *sign*, and both are true. The loss itself has a kink at the identity: all places leave
# their pixels at once, whichever way they go. Between pixels the output is blurred, and a blurred digit is nearer,
# in squares, to almost any other picture; so at first the loss falls both ways. Section 4.10 draws this. The grid
# has to go *left* to show the digit farther right, so the slope to the right even sends it the wrong way, for a
# step. And the literal Equation 7 gives a number that belongs to neither side.
#
# What the library promises is that no chance is involved: from $\theta$, its kernels compute the places exactly
# (section 3.10), so at the identity the gradient is the one to the right, every time. What *you* can do is to stay
# off the pixels: the identity from 42 to 28 pixels, as in chapter 06, puts every place a quarter of a pixel away from
# the nearest.
#
# ## 4.6 The whole backward pass
#
# Now for all pixels, channels and pictures of a batch. Chapter 03's sampler visited four neighbours in a loop;
# the backward pass visits the same four. With $k$ the bilinear kernel and $k'$ its derivative, to the right of
# each kink,
#
# $$
# \frac{\partial L}{\partial U_{nm}^c} = \sum_i \frac{\partial L}{\partial V_i^c} \, k(a_i - m) \, k(b_i - n), \qquad
# \frac{\partial L}{\partial a_i} = \sum_c \frac{\partial L}{\partial V_i^c} \sum_n \sum_m U_{nm}^c \, k'(a_i - m) \, k(b_i - n)
# $$
#
# Mind the sums. A pixel is read by many output pixels, so its gradient is a sum over $i$. A place is used by
# all channels, so its gradient is a sum over $c$.


# %%
def weight(t):
    return torch.clamp(1 - t.abs(), min=0)


def weight_slope(t):
    """k'(t), to the right of each kink."""
    return ((t >= -1) & (t < 0)).to(t.dtype) - ((t >= 0) & (t < 1)).to(t.dtype)


def neighbours(grid, height, width):
    """The four pixels around each place: row, column, whether it exists, and a - m, b - n."""
    a, b = to_pixels(grid[..., 0], width), to_pixels(grid[..., 1], height)
    for n in (b.floor(), b.floor() + 1):
        for m in (a.floor(), a.floor() + 1):
            exists = (n >= 0) & (n < height) & (m >= 0) & (m < width)
            yield n.clamp(0, height - 1).long(), m.clamp(0, width - 1).long(), exists, a - m, b - n


def splat(values, grid, size):
    """dL/dU (N, C, H, W) from dL/dV (N, C, H', W'): every value is added to the pixels it was read from."""
    image = values.new_zeros(*values.shape[:2], *size)
    item = torch.arange(len(values))[:, None, None].expand(grid.shape[:3])
    for row, column, exists, t, u in neighbours(grid, *size):
        shares = values.movedim(1, -1) * (weight(t) * weight(u) * exists)[..., None]  # (N, H', W', C)
        image.movedim(1, -1).index_put_((item, row, column), shares, accumulate=True)
    return image


def gradient_of_places(values, input, grid):
    """dL/dx, dL/dy (N, H', W', 2) from dL/dV (N, C, H', W')."""
    height, width = input.shape[2:]
    item = torch.arange(len(input))[:, None, None]
    slopes = torch.zeros_like(grid)
    for row, column, exists, t, u in neighbours(grid, height, width):
        pull = (values.movedim(1, -1) * input[item, :, row, column]).sum(-1) * exists  # summed over channels
        slopes[..., 0] += pull * weight_slope(t) * weight(u)
        slopes[..., 1] += pull * weight(t) * weight_slope(u)
    return slopes * torch.tensor([width / 2, height / 2])


generator = torch.Generator().manual_seed(0)
input = torch.rand(4, 3, 7, 6, generator=generator, dtype=torch.float64)
thetas = torch.eye(2, 3) + 0.4 * torch.randn(4, 2, 3, generator=generator, dtype=torch.float64)
grids = affine.grid(thetas.flatten(1), (5, 8))
values = torch.randn(4, 3, 5, 8, generator=generator, dtype=torch.float64)  # dL/dV

by_hand = splat(values, grids, (7, 6)), gradient_of_places(values, input, grids)
for name, sampler in (("torch.nn.functional", F.grid_sample), ("stn_kernels", stn_kernels.grid_sample)):
    arguments = [tensor.detach().to(device).requires_grad_() for tensor in (input, grids)]
    output = sampler(*arguments, align_corners=False)
    gradients = torch.autograd.grad(output, arguments, values.to(device))
    for what, ours, theirs in zip(("image", "places"), by_hand, gradients, strict=True):
        torch.testing.assert_close(theirs.cpu(), ours, rtol=0, atol=1e-12)
        print(f"{name + '.grid_sample':33} gradient of the {what:6} agrees with ours to 12 decimals")
painted = stn_kernels.splat(values.to(device), grids.to(device), (7, 6))
torch.testing.assert_close(painted.cpu(), by_hand[0], rtol=0, atol=1e-12)
print(f"{'stn_kernels.splat':33} agrees with ours to 12 decimals")

# %% [markdown]
# `accumulate=True` matters: several output pixels read the same input pixel, and without it only the last of them
# would count. On a GPU thousands of additions happen at once, and each must be *atomic*, done in one piece, or sums
# get lost; [chapter 09](09_the_backward_kernels.ipynb) is about that. It is what makes this half of a sampler hard to
# do fast.
#
# **The gradient of the image is a picture, painted forward.** Each output pixel throws its value back to the four
# pixels it was read from, in shares that add up to 1. Section 2.1 painted forward too, one pixel for one, and left
# holes; this is the right way to do it, called a *splat*, for which the library has a function. Two checks follow.
# Whatever is thrown arrives: inside the picture, the sum over the image is the sum over the output. And splatting is
# the transpose of sampling: $\langle g, \text{sample}(U) \rangle = \langle \text{splat}(g), U \rangle$ for any $g$
# and $U$; the cell tries $g = 1$.

# %% alt="Three splats of ones on 28 by 28 pixels. Left, from a grid turned by 20 degrees: a turned square of nearly even grey with a faint weave, cut off by the frame, black in the four corners that it leaves free. Middle, from a grid of half the size: a bright square in the middle, black around it. Right, from only 9 by 9 places: isolated specks on black."
cosine, sine = math.cos(math.radians(20)), math.sin(math.radians(20))
looks = {
    "turned by 20°": ([cosine, -sine, 0, sine, cosine, 0], 28),
    "half the size": ([0.5, 0, 0, 0, 0.5, 0], 28),
    "9 × 9 places": ([1.0, 0, 0, 0, 1, 0], 9),
}
fig, axes = plt.subplots(1, 3, figsize=(7.5, 2.8))
for ax, (name, (six_numbers, side)) in zip(axes, looks.items(), strict=True):
    grid = affine.grid(torch.tensor([six_numbers]), (side, side))
    ones = torch.ones(1, 1, side, side)
    painted = splat(ones, grid, (28, 28))
    show_image(painted[0], ax, name)
    sampled = F.grid_sample(digit[None], grid, align_corners=False)
    print(
        f"{name:14} thrown {ones.sum():4.0f}, arrived {painted.sum():6.2f}; "
        f"pixels without a gradient: {(painted == 0).float().mean():.0%}; "
        f"transposed: {torch.allclose(sampled.sum(), (painted * digit).sum(), rtol=1e-5)}"
    )
plt.show()

# %% [markdown]
# What is missing on the left fell outside the picture. On the right: whoever samples at few places sends a
# gradient to few pixels. The layers *below* a transformer that shrinks learn from the specks alone. That is the
# aliasing of section 3.12, seen from behind.
#
# The library's splat is differentiable, too, and the transpose of a transpose is what one began with: the gradient of
# what it throws is the *sampler*. And it can count: asked for it, it throws ones beside the values. Whoever wants the mean
# of what has arrived divides by their sum, and sees by the zeros where the holes are.

# %%
thrown = values.to(device).requires_grad_()
painted, count = stn_kernels.splat(thrown, grids.to(device), (7, 6), return_count=True)
(gradient,) = torch.autograd.grad(painted, thrown, input.to(device))
sampled = F.grid_sample(input, grids, align_corners=False)
print("the gradient of a splat is the sampler:", torch.allclose(gradient.cpu(), sampled, rtol=0, atol=1e-12))
ones = splat(torch.ones(4, 1, 5, 8, dtype=torch.float64), grids, (7, 6))
print("its count is the splat of ones:        ", torch.allclose(count.cpu(), ones, rtol=0, atol=1e-12))

# %% [markdown]
# ## 4.7 The chain to theta
#
# Equation 1 is linear, so the last step is short. With
# $\delta_i = (\partial L / \partial x_i^s, \; \partial L / \partial y_i^s)^T$, which has nothing to do with Equation
# 4's $\delta$, and $(x_i^s, y_i^s)^T = A_\theta \, (x_i^t, y_i^t, 1)^T$,
#
# $$ \frac{\partial L}{\partial A_\theta} = \sum_i \delta_i \, (x_i^t, \; y_i^t, \; 1) $$
#
# a $2 \times 3$ matrix, summed over all output pixels. Its last column asks: which way would all places like to
# go, together? Its first two weigh the same wishes by where in the output they come from.


# %%
def gradient_of_theta(delta):
    """dL/dA (N, 2, 3) from dL/dx, dL/dy (N, H', W', 2)."""
    target = affine.grid(affine.identity()[None].to(delta), delta.shape[1:3])[0]  # the regular grid G
    homogeneous = torch.cat([target, torch.ones_like(target[..., :1])], -1)  # (H', W', 3)
    return torch.einsum("nhwi,hwj->nij", delta, homogeneous)


ours = gradient_of_theta(gradient_of_places(values, input, grids))


def by_grid(input, theta):
    return F.grid_sample(input, F.affine_grid(theta, (4, 3, 5, 8), align_corners=False), align_corners=False)


def fused(input, theta):
    return stn_kernels.affine_sample(input, theta, (5, 8))


for name, sampler in (("affine_grid, grid_sample in PyTorch", by_grid), ("stn_kernels.affine_sample", fused)):
    theta = thetas.detach().to(device).requires_grad_()
    (by_autograd,) = torch.autograd.grad(sampler(input.to(device), theta), theta, values.to(device))
    torch.testing.assert_close(by_autograd.cpu(), ours, rtol=0, atol=1e-10)
    print(f"{name:36} gradient of theta agrees with ours to 10 decimals")

# %% [markdown]
# `affine_sample` stores neither the grid nor the $\delta_i$: its kernel adds up the $2 \times 3$ matrix as it goes
# from pixel to pixel. And as six numbers hear from every pixel of the output, the gradient of $\theta$ is large;
# section 5.8 comes back to that.
#
# ## 4.8 gradcheck
#
# How do you test a gradient when there is nothing to compare with? Nudge every input by $\pm\varepsilon$ and
# compare with the slope of the output. PyTorch's `gradcheck` does it for all inputs and outputs, with
# $\varepsilon = 10^{-6}$. It wants float64: in float32 the nudge drowns in rounding. Four places, off the pixels
# and then with one of them at $a = 2$:

# %%
U = torch.rand(1, 1, 4, 4, generator=generator, dtype=torch.float64).to(device).requires_grad_()
off_pixels = torch.tensor([[0.3, 0.6], [1.7, 2.2], [2.4, 0.8], [-0.6, 1.5]], dtype=torch.float64)
on_a_pixel = off_pixels.clone()
on_a_pixel[1, 0] = 2.0


def passes(places, **options):
    grid = ((2 * places + 1) / 4 - 1)[None, None].to(device).requires_grad_()
    return torch.autograd.gradcheck(
        lambda U, grid: stn_kernels.grid_sample(U, grid, align_corners=False), (U, grid), **options
    )


print("gradcheck off the pixels:", passes(off_pixels))
print("gradcheck on a pixel:    ", passes(on_a_pixel, raise_exception=False))

# %% [markdown]
# Nothing is wrong with the kernel. Half of the nudge goes left of the kink and half right, so `gradcheck` measures
# the mean of both slopes, which no sampler with one-sided slopes returns. When `gradcheck` fails on your sampler,
# look first at where your points are. Keep them farther than $\varepsilon$ from every kink, in the code that
# makes the test's points rather than by a looser tolerance.

# %%
with torch.no_grad():
    u = U[0, 0].cpu()
    along = 0.8 * u[2] + 0.2 * u[3]  # b = 2.2
    print(f"at a = 2: slope to the left {along[2] - along[1]:.3f}, to the right {along[3] - along[2]:.3f}")
    ends = torch.tensor([[2 - 1e-6, 2.2], [2 + 1e-6, 2.2]], dtype=torch.float64)
    grid = ((2 * ends + 1) / 4 - 1)[None, None].to(device)
    before, after = stn_kernels.grid_sample(U, grid, align_corners=False)[0, 0, 0].cpu()
    print(
        f"measured from both sides:   {(after - before) / 2e-6:.3f}, their mean {(along[3] - along[1]) / 2:.3f}"
    )

# %% [markdown]
# ## 4.9 Outside the picture
#
# Padding decides what lies outside, so it decides the slopes there too. The row once more, $\partial V / \partial a$
# at places between, on and beyond its pixels:

# %%
places = torch.tensor([-1.5, -1.0, -0.5, -0.25, 0.0, 0.5, 2.5, 3.0, 3.25, 3.5, 4.0, 4.5])
row_grid = torch.stack([(2 * places + 1) / 4 - 1, torch.zeros_like(places)], -1)[None, None]
print("a         ", "".join(f"{place:6.2f}" for place in places.tolist()))
for padding_mode in ("zeros", "border", "reflection"):
    grid = row_grid.clone().to(device).requires_grad_()
    output = stn_kernels.grid_sample(pixels[None, None, None].to(device), grid, padding_mode=padding_mode)
    (gradient,) = torch.autograd.grad(output.sum(), grid)
    print(f"{padding_mode:10}", "".join(f"{slope:6.1f}" for slope in (gradient[0, 0, :, 0] / 2 + 0).tolist()))

# %% [markdown]
# - **zeros**: within one pixel outside the last centre, the value falls to 0, so the slope is the border pixel's
#   *value*: a bright border pulls hard. Farther out all is 0.
# - **border**: outside, the value does not change, so the slope is 0. It is 0 *at* the border pixels' centres
#   too: on them PyTorch and the library count the clamped side [3]. So at the identity the outermost rows and
#   columns do not pull.
# - **reflection**: a mirror reverses the slope. In the band between mirror and last centre it is 0.
#
# A grid that has left the picture is **dead** under zeros padding: every output is 0, so is every gradient, and
# no step will bring it back. Under border padding the output is not black, but the places have no gradient
# either. A place that is not a number has no slope: the library gives its coordinate a NaN and the image nothing,
# so a broken $\theta$ shows in the gradient of $\theta$ and does not spoil the layers below.

# %%
for shift in (1.0, 1.9, 2.2):
    for padding_mode in ("zeros", "border"):
        theta = torch.tensor([[[1.0, 0.0, shift], [0.0, 1.0, 0.0]]], device=device, requires_grad=True)
        output = stn_kernels.affine_sample(digit[None].to(device), theta, (28, 28), padding_mode=padding_mode)
        (gradient,) = torch.autograd.grad(output.square().sum(), theta)
        print(f"theta_13 = {shift}, {padding_mode:6}: any gradient at all: {gradient.any().item()}")

# %% [markdown]
# (At 1.9 the picture's last column is still in view, and it is black: a black margin does not hold a grid.)
#
# ## 4.10 How far a gradient sees
#
# A slope is the difference of two neighbours. So a place knows what one pixel away would be better, and nothing of
# what is farther. Is it enough? Two equal discs, 10 pixels wide, on black: one is the input, the other is wanted,
# some pixels to the side. (In this section PyTorch samples; thousands of samplings through interpreted kernels would
# take minutes.) The loss over the shift of the grid, for the sharp discs and for blurred ones:

# %%
SIDE = 48


def blur(pictures, sigma):
    """Convolved with a Gaussian of `sigma` pixels; 0 leaves them sharp."""
    reach = math.ceil(3 * sigma)
    t = torch.arange(-reach, reach + 1.0)
    gaussian = torch.softmax(-(t**2) / (2 * max(sigma, 1e-3) ** 2), 0)
    across = F.conv2d(pictures, gaussian[None, None, None], padding=(0, reach))
    return F.conv2d(across, gaussian[None, None, :, None], padding=(reach, 0))


def mismatch(picture, wanted, shift):
    """Half the squared difference after shifting the grid, in pixels, right before down: (K, 2) -> (K,)."""
    theta = torch.cat([torch.eye(2).expand(len(shift), 2, 2), (shift * 2 / SIDE)[:, :, None]], 2)
    grid = F.affine_grid(theta, (len(shift), 1, SIDE, SIDE), align_corners=False)
    output = F.grid_sample(picture.expand(len(shift), -1, -1, -1), grid, align_corners=False)
    return (output - wanted).square().sum((1, 2, 3)) / 2


offset = torch.arange(SIDE) - (SIDE - 1) / 2
disc = (offset**2 + offset[:, None] ** 2 < 4.75**2).float()[None, None]

# %% alt="The loss over the shift from -18 to 18 pixels, three curves. Sharp discs: a narrow valley around 0 whose walls are scalloped, and from 10 pixels on a plain with a small ripple. Blurred by 3 pixels: a wider valley, nearly flat from 15 pixels on. Blurred by 6: a wide smooth valley that slopes everywhere."
shifts = torch.arange(-18, 18.01, 0.125)
shift = torch.stack([shifts, torch.zeros_like(shifts)], 1)
fig, ax = plt.subplots(figsize=(6.5, 2.9))
for sigma, color in ((0, "C0"), (3, "C2"), (6, "C1")):
    loss = mismatch(blur(disc, sigma), blur(disc, sigma), shift)
    ax.plot(shifts, loss / loss.max(), color=color, label=f"$\\sigma$ = {sigma}" if sigma else "sharp")
    start = shift[(shifts.abs() > 10) & (shifts % 0.5 == 0.25)].requires_grad_()
    (gradient,) = torch.autograd.grad(mismatch(blur(disc, sigma), blur(disc, sigma), start).sum(), start)
    homeward = (gradient[:, 0] * start[:, 0] > 0).float().mean()
    print(
        f"blurred by {sigma}: more than 10 pixels away, {homeward:.0%} of the gradients point the right way"
    )
ax.set(xlabel="shift in pixels", ylabel="loss, of its maximum", yticks=[0, 0.5, 1])
ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
plt.show()

# %% [markdown]
# The sharp loss is a narrow valley in a plain. Where the discs do not overlap there is no hint of which way to
# go. And the plain is not even flat: it ripples, with a dip between every two pixels. Between pixels the
# sampled disc is a little blurred, so its sum of squares is smaller, and with it the loss; at whole pixels there
# is a kink. This is what section 4.5 met at the identity. What will a descent do that starts out there?


# %%
def descend(picture, wanted, start, sigmas, steps):
    """Follow the gradient of the shift, `steps` steps at each blur in turn: (K, 2) -> (K, 2)."""
    shift = start.clone().requires_grad_()
    for sigma in sigmas:
        levels = blur(picture, sigma), blur(wanted, sigma)
        optimiser = torch.optim.Adam([shift], lr=0.3)
        for _ in range(steps):
            optimiser.zero_grad()
            mismatch(*levels, shift).sum().backward()
            optimiser.step()
    return shift.detach()


start = torch.tensor([[6.25, 0.0], [11.75, 0.0], [14.25, 0.0]])
end = descend(disc, disc, start, sigmas=(0,), steps=150)
for before, after in zip(start[:, 0], end[:, 0], strict=True):
    print(f"starts {before:5.2f} pixels off, ends {after.abs():5.2f} pixels off")

# %% [markdown]
# Where the discs overlap it arrives. Where they do not, it settles between two pixels, content to blur: a local
# minimum made by the sampler, not by the pictures.
#
# The curves above show the cure. Blur both pictures first; the valley becomes as wide as the blur, and the ripple
# vanishes. But the bottom of a wide valley is flat and says little of the last pixel. So go **from coarse to
# fine**: descend on the blurred pictures, then from there on less blurred ones, and at last on the sharp ones. A
# digit now, from 169 starts all around, with the same number of steps each time:

# %% alt="Three maps of starts, 13 by 13, up to 12 pixels off in each direction. Sharp: only a small cluster of dots in the middle arrived, all others are crosses. Blurred by 2, then sharp: most arrived, but not those in two opposite corners. From 8 over 4 and 2 to sharp: all dots, every start arrived."
canvas = F.pad(digit[None], (10, 10, 10, 10))
lattice = torch.arange(-12, 13, 2.0)
start = (
    torch.stack(torch.meshgrid(lattice, lattice, indexing="xy"), -1).reshape(-1, 2) + 0.25
)  # off the kinks
arrived = {}
fig, axes = plt.subplots(1, 3, figsize=(8.4, 3.1))
for ax, (name, sigmas) in zip(
    axes,
    {"sharp": (0,), "blurred by 2, sharp": (2, 0), "blurred by 8, 4, 2, sharp": (8, 4, 2, 0)}.items(),
    strict=True,
):
    end = descend(canvas, canvas, start, sigmas, steps=120 // len(sigmas))
    arrived[name] = end.norm(dim=1) < 0.25
    ax.plot(*start[arrived[name]].T, "o", color="C0", markersize=5)
    ax.plot(*start[~arrived[name]].T, "x", color="C1", markersize=4, markeredgewidth=1)
    ax.set(title=name, aspect="equal", xticks=[-12, 0, 12], yticks=[-12, 0, 12], xlabel="start, pixels right")
    ax.invert_yaxis()
axes[0].set_ylabel("pixels down")
plt.show()

shares = {name: there.float().mean() for name, there in arrived.items()}
print("sharp: fewer than one start in ten arrives:  ", bool(shares["sharp"] < 0.1))
print("blurred by 2, then sharp: more than half:    ", bool(shares["blurred by 2, sharp"] > 0.5))
print("coarse to fine: all arrive:                  ", bool(shares["blurred by 8, 4, 2, sharp"] == 1))

# %% [markdown]
# The digit's strokes are two to three pixels wide, and from hardly farther is the sharp digit found. This is as old
# as image alignment by gradients [4], and a transformer inherits it. In training nobody has the picture that is
# wanted, to blur it. Other things help there: the average over many images (section 5.3), a start that is near
# enough. One can also leave the value sharp and replace only the slope: exercise 04-6 does it for a row, reference
# [5] for pictures.
#
# ## Summary
#
# - Between pixels, the slope of a bilinear sample is a difference of neighbours, weighted; the gradient of a
#   pixel is its weight. The sums in Equation 6 are a misprint. Normalised coordinates bring a factor $W / 2$.
# - At a pixel there are two slopes, and between equal sizes the identity puts every place on one. Equation 7 read
#   literally returns neither slope but the value; autograd follows the way a kernel is written, not the function it
#   computes; PyTorch and the library take the slope to the right.
# - The gradient of the image is a splat, the transpose of sampling; that of $\theta$ is one sum over all output
#   pixels, $\sum_i \delta_i (x_i^t, y_i^t, 1)$.
# - `gradcheck` in float64, away from kinks. Outside the picture gradients end: zeros and border padding both can
#   die.
# - A gradient sees one pixel far. Blur makes it see farther, coarse to fine makes it precise.
#
# ## Exercises
#
# Replace each `...` and run the cell. A wrong answer is told what is wrong with it. Solutions are in
# [solutions/04_gradients.ipynb](solutions/04_gradients.ipynb).

# %% [markdown]
# ### Exercise 04-1: two units
#
# The row $[2, 6, 3, 5]$ is sampled bilinearly at $a = 0.75$ pixels. Give $\partial V / \partial a$ and
# $\partial V / \partial x$, as a list, for `align_corners=False`.

# %% tags=["exercise"]
# >>> solution
two_units = [6 - 2, (6 - 2) * 4 / 2]
# <<< solution
check("04-1", two_units)

# %% [markdown]
# ### Exercise 04-2: on a pixel
#
# The same row at $a = 2$. Give a list of four numbers: the slope to the left, the slope to the right, what
# Equation 7 gives read literally, and what `gradcheck` measures by nudging both ways.

# %% tags=["exercise"]
# >>> solution
on_the_pixel = [3 - 6, 5 - 3, 3, ((3 - 6) + (5 - 3)) / 2]
# <<< solution
check("04-2", on_the_pixel)

# %% [markdown]
# ### Exercise 04-3: both slopes
#
# Write a function that returns $(\partial V / \partial a, \partial V / \partial b)$ for one place: `image` is a
# tensor (H, W), `a` and `b` are numbers, in pixels. Pixels that do not exist count 0. At a kink give the slope to
# the right, in $b$ the slope downwards.


# %% tags=["exercise"]
def slopes(image, a, b):
    # >>> solution
    height, width = image.shape
    left, top = math.floor(a), math.floor(b)

    def pixel(n, m):
        return float(image[n, m]) if 0 <= n < height and 0 <= m < width else 0.0

    (U00, U01), (U10, U11) = ([pixel(n, left), pixel(n, left + 1)] for n in (top, top + 1))
    alpha, beta = a - left, b - top
    across = (1 - beta) * (U01 - U00) + beta * (U11 - U10)
    down = (1 - alpha) * (U10 - U00) + alpha * (U11 - U01)
    return across, down
    # <<< solution


check("04-3", slopes)

# %% [markdown]
# ### Exercise 04-4: paint forward, without holes
#
# Write the splat for one picture: `values`, `a` and `b` are tensors (K,), K points with their values; return a
# tensor (`height`, `width`) to which each point has added its value, in bilinear shares. What falls on pixels
# that do not exist is lost.


# %% tags=["exercise"]
def paint(values, a, b, height, width):
    # >>> solution
    image = values.new_zeros(height, width)
    for n in (b.floor(), b.floor() + 1):
        for m in (a.floor(), a.floor() + 1):
            exists = (n >= 0) & (n < height) & (m >= 0) & (m < width)
            shares = values * (1 - (a - m).abs()) * (1 - (b - n).abs())
            index = n[exists].long(), m[exists].long()
            image.index_put_(index, shares[exists], accumulate=True)
    return image
    # <<< solution


check("04-4", paint)

# %% [markdown]
# ### Exercise 04-5: the chain to attention
#
# For Equation 2 $\theta$ is $(s, t_x, t_y)$. Write a function that turns `delta` (N, H', W', 2), the gradient
# of the places in normalised coordinates, and `G` (H', W', 2), the regular grid, into the gradient of
# $(s, t_x, t_y)$, of shape (N, 3).


# %% tags=["exercise"]
def attention_gradient(delta, G):
    # >>> solution
    of_scale = (delta * G).sum((1, 2, 3))
    of_translation = delta.sum((1, 2))
    return torch.cat([of_scale[:, None], of_translation], 1)
    # <<< solution


check("04-5", attention_gradient)

# %% [markdown]
# The last exercise needs a sampler of a row:


# %% tags=["needed-by-exercises"]
def value_at(row, a):
    """The row's bilinear value at places a (K,) in pixels; 0 far outside."""
    t = a[:, None] - torch.arange(len(row))
    return (row * torch.clamp(1 - t.abs(), min=0)).sum(1)


print(
    "the row 0, 0, 1, 0 at 1.5 and at 7:",
    value_at(torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.tensor([1.5, 7.0])),
)

# %% [markdown]
# ### Exercise 04-6: glasses
#
# Build a sampler of a row that *returns* the sharp value and *reports* a slope that sees `reach` pixels far:
# $\frac{V(a + r) - V(a - r)}{2 r}$, in place of its own. The function gets `row` (W,), places `a` (K,) that require a
# gradient, and `reach`; `value_at` is above. (A number $z$ with the gradient $s$ and the value $v$ is
# `v.detach() + s.detach() * (a - a.detach())`. Why?)


# %% tags=["exercise"]
def with_glasses(row, a, reach):
    # >>> solution
    far_slope = (value_at(row, a + reach) - value_at(row, a - reach)) / (2 * reach)
    return value_at(row, a).detach() + far_slope.detach() * (a - a.detach())
    # <<< solution


check("04-6", with_glasses)

# %% [markdown]
# ## In the library
#
# | built here | in the library |
# | --- | --- |
# | $k'(t)$, to the right of each kink | `kernels/stn_kernels/sampling_kernels.py`, beside $k(t)$ |
# | `splat` | `stn_kernels.splat`, and the image's gradient in `kernels/stn_kernels/backward.py` |
# | `gradient_of_places` | the grid's gradient in the same file |
# | `gradient_of_theta` | the backward of `stn_kernels.affine_sample`, which stores no grid and no $\delta$ |
# | `gradcheck`, points off the kinks | `tests/kernels/test_gradcheck.py` |
#
# ## References
#
# 1. M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu. *Spatial Transformer Networks*. NIPS 2015.
#    [arXiv:1506.02025](https://arxiv.org/abs/1506.02025). Section 3.3.
# 2. F. H. Clarke. *Optimization and Nonsmooth Analysis*. Wiley, 1983; SIAM, 1990,
#    [doi:10.1137/1.9781611971309](https://doi.org/10.1137/1.9781611971309). The generalised gradient of a function
#    that is not convex: the convex hull of the limits of gradients around a point.
# 3. The slope on the border itself: [pytorch/pytorch#23925](https://github.com/pytorch/pytorch/issues/23925).
# 4. B. D. Lucas, T. Kanade. *An Iterative Image Registration Technique with an Application to Stereo Vision*.
#    IJCAI 1981. [dl.acm.org/doi/10.5555/1623264.1623280](https://dl.acm.org/doi/10.5555/1623264.1623280).
# 5. W. Jiang, W. Sun, A. Tagliasacchi, E. Trulls, K. M. Yi. *Linearized Multi-Sampling for Differentiable Image
#    Transformation*. ICCV 2019. [arXiv:1901.07124](https://arxiv.org/abs/1901.07124).
#
# ## Next
#
# [Chapter 05, Localisation](05_localisation.ipynb): a network follows these gradients.
# Before: [chapter 03, Sampling](03_sampling.ipynb).
