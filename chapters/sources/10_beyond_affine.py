# %% [markdown]
# # 10 Beyond affine
#
# > **Six numbers turn, stretch and slant. They cannot undo a photograph's perspective, nor a bend. This
# > chapter climbs the ladder from two numbers to two for each pixel: what each family can undo, what it
# > costs, and how it breaks. At the top stands a family that explains every picture, and it is the worst of
# > all at finding out what happened to it.**
#
# **You will learn**
#
# - what the families of section 3.2 of the paper keep and what they lose, from translation to displacement;
# - projective maps: the divide, four corners to a matrix, the pole where the picture turns over, and a bound
#   that keeps it away;
# - meshes of triangles: barycentric coordinates, bends at edges, folds, and the gradient of a vertex;
# - the paper's structured class $T_\theta = M_\theta B$, of which nearly all of them are cases;
# - which families may be composed and inverted, and why composing is sharper than sampling twice;
# - to choose a family, by an experiment in which the right one wins.
#
# **You need** chapters [04](04_gradients.ipynb) and [06](06_the_spatial_transformer.ipynb).
# **Runs in** about 30 seconds on two cores.

# %% tags=["setup"]
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import stn
import stn_kernels
from stn.exercises import check
from stn.plotting import show_grid, show_image, show_stages, use_style

use_style()
torch.set_printoptions(precision=4, sci_mode=False)
device = "cuda" if torch.cuda.is_available() else "cpu"
images, labels = stn.data.digits("test")
digit = images[3]  # U, of shape (C, H, W) = (1, 28, 28)
affine = stn.Affine()


def regular_grid(size):
    """G in homogeneous coordinates, (H', W', 3): x, y and 1 of each output pixel, in float64."""
    G = affine.grid(affine.identity()[None].double(), size)[0]
    return torch.cat([G, torch.ones_like(G[..., :1])], -1)


# %% [markdown]
# ## 10.1 A ladder
#
# Equation 1 is an example. Section 3.2 of the paper [1] goes on: the class of transformations may be smaller,
# like attention, or larger, "a plane projective transformation with 8 parameters, piecewise affine, or a thin
# plate spline"; any is allowed that is differentiable with respect to its parameters. Here they are, by what
# they cost; the ladder up to projective is that of projective geometry [3]. (What a map does to a picture is
# called a *warp*; GPUs have given the word another meaning, section 8.11.)
#
# | family | numbers | in the library | cannot undo |
# | --- | --- | --- | --- |
# | translation | 2 | `stn.Translation` | any change of size |
# | attention (Equation 2) | 3 | `stn.Attention` | a turn |
# | similarity | 4 | `stn.Similarity` | a slant, or a stretch one way |
# | affine (Equation 1) | 6 | `stn.Affine` | perspective |
# | projective | 8 | `stn.Projective`, `stn.FourCorners` | a bend |
# | piecewise affine, $K$ vertices | $2 K$ | `stn.PiecewiseAffine` | what happens inside a triangle |
# | displacement | $2 H' W'$ | `stn.Displacement` | (see section 10.10) |
#
# (A **similarity** turns, scales alike in both directions, and translates; you may know it from exercise 06-5.) Thin
# plate splines, also $2 K$, have a chapter of their own, the next.
#
# A step up buys freedom and gives up something that was certain. To see what, we take a random $\theta$ of
# each family and look at its grid: are rows as long as before? Does a row still run to the right? Are rows
# and columns at right angles? Are the first and last row parallel? Is the middle row straight?

# %%
generator = torch.Generator().manual_seed(83)
families = {
    "translation": stn.Translation(),
    "attention": stn.Attention(),
    "similarity": stn.Similarity(),
    "affine": affine,
    "projective": stn.Projective(),
    "piecewise affine": stn.PiecewiseAffine((4, 4)),
    "displacement": stn.Displacement((9, 9)),
}
shaken = {
    name: family.identity() + 0.2 * (2 * torch.rand(family.num_parameters, generator=generator) - 1)
    for name, family in families.items()
}


def cross(a, b):
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def kept(grid):
    """What a grid (9, 9, 2) has kept of the regular one."""
    first, last, column = grid[0, 8] - grid[0, 0], grid[8, 8] - grid[8, 0], grid[8, 0] - grid[0, 0]
    middle = grid[4] - grid[4, 0]
    zero = {
        "lengths": first.norm() - 16 / 9,
        "upright": first[1],
        "right angles": first @ column,
        "parallels": cross(first, last),
        "lines": cross(middle, middle[8]).abs().max(),
    }
    return {what: abs(number.item()) < 1e-5 for what, number in zero.items()}


for name, family in families.items():
    verdicts = kept(family.grid(shaken[name][None], (9, 9))[0])
    print(
        f"{name:16} {family.num_parameters:3d} numbers  keeps:", ", ".join(k for k in verdicts if verdicts[k])
    )

# %% alt="Seven small pictures of the same digit, each with the sampling grid of one family, shaken at random. Translation: the square grid, shifted. Attention: shifted and a little smaller. Similarity: also turned. Affine: a parallelogram. Projective: a quadrilateral whose lines converge. Piecewise affine: lines that bend at the edges of triangles. Displacement: a crumpled tangle."
fig, axes = plt.subplots(1, 7, figsize=(10.5, 1.9))
for ax, (name, family) in zip(axes, families.items(), strict=True):
    show_grid(digit, family.grid(shaken[name][None], (9, 9))[0], ax, name)
    ax.set(xlim=(-7, 34), ylim=(34, -7))
    ax.title.set_fontsize(8)
plt.show()

# %% [markdown]
# Each loses one certainty more, until none is left. Whoever knows what cannot have happened to a picture
# should choose the family that cannot do it: a localisation network then has less to learn, and less to get
# wrong.
#
# ## 10.2 The divide
#
# Look along a road: its borders are parallel, and they meet. No affine map does that. The trick that does is
# as old as projective geometry: give a point of the plane *three* coordinates, $(h_1, h_2, h_3)$, and let
# them mean the point $(h_1 / h_3, \; h_2 / h_3)$. These are **homogeneous coordinates**; the 1 in Equation
# 1's $(x, y, 1)$ is already such a third coordinate. Now use all of a $3 \times 3$ matrix:
#
# $$
# \begin{pmatrix} h_1 \\ h_2 \\ h_3 \end{pmatrix} = M \begin{pmatrix} x^t \\ y^t \\ 1 \end{pmatrix}, \qquad
# x^s = \frac{h_1}{h_3}, \qquad y^s = \frac{h_2}{h_3}
# $$
#
# With the last row $(0, 0, 1)$ nothing is divided, and it is Equation 1. One point by hand:

# %%
M = torch.tensor([[1.0, 0.2, 0.1], [0.0, 0.9, -0.1], [0.3, 0.1, 1.0]], dtype=torch.float64)
x, y = 0.5, -0.5
h1 = 1.0 * x + 0.2 * y + 0.1
h2 = 0.0 * x + 0.9 * y - 0.1
h3 = 0.3 * x + 0.1 * y + 1.0
print(f"h = ({h1:.2f}, {h2:.2f}, {h3:.2f}), the source is ({h1 / h3:.4f}, {h2 / h3:.4f})")

h = 5 * M @ torch.tensor([x, y, 1.0], dtype=torch.float64)
print(
    f"with 5 M: h = ({h[0]:.2f}, {h[1]:.2f}, {h[2]:.2f}), the source is ({h[0] / h[2]:.4f}, {h[1] / h[2]:.4f})"
)

# %% [markdown]
# A multiple of $M$ is the same map. So its nine entries are worth **eight** numbers, and one usually fixes
# $m_{33} = 1$. Now a whole grid, and the picture:

# %% alt="Input, grid and output for the digit under a projective map. The grid is a quadrilateral on the digit, which sticks out at the upper left and is narrow on the right; the output shows the five larger on the right than on the left."
h = regular_grid((28, 28)) @ M.T  # (H', W', 3)
by_hand = h[..., :2] / h[..., 2:]
projective = stn.Projective(bound=None)
theta = M.flatten()[None, :8]
print("stn.Projective's grid agrees:      ", torch.allclose(projective.grid(theta, (28, 28))[0], by_hand))

U = digit[None].double().to(device)
V = F.grid_sample(U, by_hand[None].to(device), align_corners=False)
fused = stn_kernels.projective_sample(U, M[None].to(device), (28, 28))
print(
    "its sample agrees with PyTorch's:  ", torch.allclose(projective.sample(U, theta.to(device), (28, 28)), V)
)
print("stn_kernels.projective_sample, too:", torch.allclose(fused, V))
show_stages(digit, by_hand, V[0].float().cpu())
plt.show()

# %% [markdown]
# Straight lines stay straight. Two things that an affine map keeps are gone, and both can be read off $M$:

# %%
ends = torch.tensor([[-1.0, 0.0, 1.0], [1.0, 0.0, 1.0]], dtype=torch.float64) @ M.T
sources = ends[:, :2] / ends[:, 2:]
middle = M[:2, 2] / M[2, 2]
share = (middle - sources[0]).norm() / (sources[1] - sources[0]).norm()
print(f"the middle of a segment goes to {share:.0%} of its way, not 50 %")

for row in (-1.0, 0.0, 1.0):
    h = M @ torch.tensor([1e9, row, 1.0], dtype=torch.float64)
    across, down = (h[:2] / h[2]).round(decimals=3) + 0
    print(f"along the row y = {row:4.1f}, far to the right, the source tends to ({across:.3f}, {down:.3f})")
across, down = M[:2, 0] / M[2, 0]
print(f"M's first column, divided by its last entry, is the point        ({across:.3f}, {down:.3f})")

# %% [markdown]
# All rows run towards one point, their **vanishing point**: what $M$ makes of $(1, 0, 0)$, of the *direction*
# to the right. Its last coordinate is $m_{31}$. If that is 0, the point lies infinitely far away, and rows
# stay parallel. So $m_{31}$ and $m_{32}$ say how strongly rows and columns converge.
#
# ## 10.3 Four corners to a matrix
#
# Eight numbers are also four points. Choose where the output's four corners are to look, and there is one
# projective map, or **homography**, that does it (if no three of the points are on a line). This is how a person says where a
# page lies in a photograph. For a corner $(x, y)$ that goes to $(u, v)$, multiply $u = h_1 / h_3$ by $h_3$:
#
# $$
# \begin{aligned}
# m_{11} x + m_{12} y + m_{13} - u \, m_{31} x - u \, m_{32} y &= u \\
# m_{21} x + m_{22} y + m_{23} - v \, m_{31} x - v \, m_{32} y &= v
# \end{aligned}
# $$
#
# Two *linear* equations in the eight unknowns; four corners give eight.

# %%
square = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
corners = torch.tensor([[-0.9, -0.7], [0.8, -1.0], [0.6, 0.9], [-0.5, 0.6]], dtype=torch.float64)


def matrix_from_corners(corners):
    """M (3, 3) that takes the square's corners to `corners` (4, 2), by solving the 8 x 8 system."""
    rows, right = [], []
    for (x, y), (u, v) in zip(square.tolist(), corners.tolist(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    system, given = (torch.tensor(values, dtype=corners.dtype) for values in (rows, right))
    m = torch.linalg.solve(system, given)
    return torch.cat([m, m.new_ones(1)]).reshape(3, 3)


solved = matrix_from_corners(corners)
print(solved)
arrived = stn.Projective(None).map_points(solved.flatten()[None, :8], square[None])[0]
print("the corners arrive:", torch.allclose(arrived, corners))

# %% [markdown]
# A system of 8 equations for each picture of a batch, and a gradient through the solver: it works, but there
# is a shorter way. Take the corners of the *unit* square, $(0, 0), (1, 0), (1, 1), (0, 1)$, in this order, to
# $p_0, p_1, p_2, p_3$, and write $M = \begin{pmatrix} a & b & c \\ g & h & 1 \end{pmatrix}$ with columns
# $a, b, c$ of two numbers. The four equations are
#
# $$
# c = p_0, \qquad a + c = (1 + g) \, p_1, \qquad b + c = (1 + h) \, p_3, \qquad a + b + c = (1 + g + h) \, p_2
# $$
#
# The first three give $a, b, c$ once $g$ and $h$ are known. Put into the fourth, they leave two equations:
#
# $$ g \, (p_1 - p_2) + h \, (p_3 - p_2) = p_0 - p_1 + p_2 - p_3 $$
#
# This is Heckbert's closed form [2]. The right side is zero exactly if the quadrilateral is a parallelogram;
# then $g = h = 0$, and the map is affine.


# %%
def heckbert(corners):
    """M (3, 3) from the unit square to `corners` (4, 2)."""
    p0, p1, p2, p3 = corners
    g, h = torch.linalg.solve(torch.stack([p1 - p2, p3 - p2], 1), p0 - p1 + p2 - p3)
    a, b = (1 + g) * p1 - p0, (1 + h) * p3 - p0
    return torch.stack(
        [torch.cat([column, last[None]]) for column, last in ((a, g), (b, h), (p0, g.new_ones(())))], 1
    )


to_unit_square = torch.tensor([[0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 1]], dtype=torch.float64)  # (x + 1) / 2
closed = heckbert(corners) @ to_unit_square
closed = closed / closed[2, 2]
print("closed form and 8 x 8 system agree:", torch.allclose(closed, solved, rtol=0, atol=1e-12))
print(
    "stn.homography agrees:             ", torch.allclose(stn.homography(corners), solved, rtol=0, atol=1e-12)
)

# %% [markdown]
# ## 10.4 The pole
#
# Where $h_3 = m_{31} x + m_{32} y + 1$ reaches 0, the source is infinitely far away. That happens on a line
# of the output, the **horizon**. And beyond it? Take $m_{31} = 1.6$ in an otherwise identical matrix and
# follow the row $y = 0$, where $x^s = x / (1 + 1.6 x)$ has its pole at $x = -0.625$:

# %%
row = (1.0, 0.5, 0.0, -0.4, -0.6, -0.62, -0.63, -0.7, -1.0)
print("x^t", "".join(f"{x:8.2f}" for x in row))
print("h_3", "".join(f"{1 + 1.6 * x:8.2f}" for x in row))
print("x^s", "".join(f"{x / (1 + 1.6 * x):8.2f}" for x in row))

# %% [markdown]
# The source runs off to the left, passes through infinity and comes back **from the right**. Beyond the
# horizon $h_3$ is negative: in a photograph these points lie behind the camera. The formula does not mind. It
# divides both coordinates by a negative number, which turns the picture by 180°. A floor of digits, with
# $m_{32} = 3$ (`antialias=True` takes means where the output shrinks, so that the far digits do not flicker;
# chapter 14 is about it):

# %% alt="Left: a board of six by six digits. Right: the output. In its lower part the board lies like a floor that runs away to the horizon, a third of the height from the top. Above the horizon, in what should be sky, two rows of the board appear once more, upside down."
board = images[:36].reshape(6, 6, 28, 28).transpose(1, 2).reshape(1, 1, 168, 168)
floor = torch.tensor([[1.2, 0.0, 0.0], [0.0, 1.2, 0.0], [0.0, 3.0, 1.0]])
seen = stn_kernels.projective_sample(board, floor[None], (168, 168), antialias=True)
fig, (left, right) = plt.subplots(1, 2, figsize=(6.6, 3.2))
show_image(board[0], left, "input")
show_image(seen[0], right, "output")
right.axhline((1 - 1 / 3) / 2 * 168 - 0.5, color="C1", linewidth=1.2)
right.text(168, (1 - 1 / 3) / 2 * 168, " $h_3 = 0$", color="C1", va="center")
plt.show()

h = regular_grid((168, 168)) @ floor.double().T
print(f"h_3 runs from {h[..., 2].min():.2f} to {h[..., 2].max():.2f}")
behind = h[..., 2] < 0
print(
    f"behind the viewer: {behind.float().mean():.0%} of the output, "
    f"and it is not black: {(seen[0, 0] * behind).max() > 0.5}"
)

# %% [markdown]
# Near the horizon neighbouring output pixels look at places that are far apart, and the gradient there, as
# the next section shows, is large without bound. A localisation network that is untrained, or meets an odd
# picture, should not be able to get there. On the square $[-1, 1]^2$ the smallest value of
# $m_{31} x + m_{32} y$ is $-(|m_{31}| + |m_{32}|)$, in one of the corners. So, with $m_{33} = 1$,
#
# $$ h_3 > 0 \text{ on all of the output} \quad \Longleftrightarrow \quad |m_{31}| + |m_{32}| < 1 $$
#
# `stn.Projective` holds $\theta$ to this, as in section 5.9 (there the bound was called $B$, a letter that
# will be needed): $m = b \tanh(\theta / b)$ with $b = 0.45$ for each of the two, so that their sum stays
# below `bound=0.9`. Around 0 the slope is 1, and small $\theta$ are what they seem. `stn.FourCorners` takes
# the corners as $\theta$ instead: each moves from its place by $b \tanh(\theta / b)$. With $b = \frac{1}{2}$
# each corner keeps to its own square of side 1, the quadrilateral stays convex, and the denominator positive.
# We try both with ten thousand wild $\theta$.


# %%
def lowest(family, theta):
    """The smallest h_3 in the output, (N,): it is linear, so a corner has it."""
    last_row = family.homogeneous(theta)[:, 2]
    ends = torch.cat([square, torch.ones(4, 1)], 1).to(last_row)
    return (last_row @ ends.T).amin(1)


wild = 2 * torch.randn(10_000, 8, generator=generator, dtype=torch.float64)
for family in (stn.Projective(None), stn.Projective(), stn.FourCorners(None), stn.FourCorners()):
    below = lowest(family, wild + family.identity()) <= 0
    print(f"{family!r:26} the horizon crosses the output in {below.float().mean():4.0%} of the cases")

for name, end in (("at a corner still convex", [0.5, 0.5]), ("beyond the diagonal", [-0.2, -0.2])):
    moved = square.clone()
    moved[2] = torch.tensor(end)
    least = lowest(stn.FourCorners(None), (moved - square).flatten()[None]).item()
    print(f"the last corner at {tuple(end)}, {name}: smallest h_3 is {least:.2f}")

# %% [markdown]
# A quadrilateral with a dent has its horizon in the output, always: a projective map keeps lines straight,
# and a square has no dent. The price of a bound is that some maps cannot be said any more, such as the floor
# above.
#
# ## 10.5 A gradient through the divide
#
# Chapter 04 left us $\delta_i = (\partial L / \partial x_i^s, \; \partial L / \partial y_i^s)$ for every
# output pixel. With $p = (x^t, y^t, 1)$, the quotient rule gives
#
# $$
# \frac{\partial x^s}{\partial M_{1 \cdot}} = \frac{p}{h_3}, \qquad
# \frac{\partial x^s}{\partial M_{3 \cdot}} = - \frac{h_1}{h_3^2} \, p = - \frac{x^s p}{h_3}
# $$
#
# and the same for $y^s$ with the second row. Summed over all pixels,
#
# $$
# \frac{\partial L}{\partial M} = \sum_i \frac{1}{h_{3, i}}
# \begin{pmatrix} \delta_{x, i} \\ \delta_{y, i} \\ - (\delta_{x, i} \, x_i^s + \delta_{y, i} \, y_i^s) \end{pmatrix} p_i^T
# $$
#
# The first two rows are those of Equation 1, weighted by $1 / h_3$. The third asks whether pixels want to go
# outwards or inwards.


# %%
def gradient_of_matrix(delta, M):
    """dL/dM (3, 3) from dL/dx, dL/dy (H', W', 2)."""
    p = regular_grid(delta.shape[:2])
    h = p @ M.T
    source = h[..., :2] / h[..., 2:]
    outward = (delta * source).sum(-1, keepdim=True)
    wishes = torch.cat([delta, -outward], -1) / h[..., 2:]
    return torch.einsum("hwi, hwj -> ij", wishes, p)


weights = torch.randn(1, 1, 28, 28, generator=generator, dtype=torch.float64)  # dL/dV of some loss
grid = by_hand[None].requires_grad_()
V = F.grid_sample(digit[None].double(), grid, align_corners=False)
(delta,) = torch.autograd.grad(V, grid, weights)
ours = gradient_of_matrix(delta[0], M)

asked = M[None].to(device).requires_grad_()
V = stn_kernels.projective_sample(digit[None].double().to(device), asked, (28, 28))
(by_autograd,) = torch.autograd.grad(V, asked, weights.to(device))
print("ours and the library's agree:      ", torch.allclose(by_autograd[0].cpu(), ours, rtol=0, atol=1e-9))
print(f"the sum of M times its gradient is 0: {abs((M * ours).sum()) < 1e-9}")

# %% [markdown]
# The last line must be so: a multiple of $M$ is the same map, so along $M$ itself the loss does not change.
# And $1 / h_3$ is the loudness of a pixel. Where $h_3$ is 0.05, a pixel shouts twenty times as loud in the
# first two rows as one with $h_3 = 1$, and in the third, where the source is far away too, louder still. This
# is the second reason for a bound.
#
# ## 10.6 A page at a slant
#
# What is it good for? A page of digits lies on a desk and is photographed from the side. The photograph looks
# *back* at the page, so it is made with the inverse of the matrix that straightens it.

# %%
page = 1 - images[60:84].reshape(4, 6, 28, 28).transpose(1, 2).reshape(1, 1, 112, 168)
on_the_desk = torch.tensor([[-0.42, -0.70], [0.66, -0.46], [0.88, 0.80], [-0.86, 0.42]])
straighten = stn.homography(on_the_desk)
photograph = stn_kernels.projective_sample(
    page,
    torch.linalg.inv(straighten)[None],
    (200, 240),
    padding_mode="constant",
    fill_value=0.45,
    antialias=True,
)


def corners_miss(matrix):
    """How far the page's corners are from where they lie in the photograph, (4,) in its pixels."""
    found = torch.cat([square.float(), torch.ones(4, 1)], 1) @ matrix.T
    return ((found[:, :2] / found[:, 2:] - on_the_desk) * torch.tensor([120.0, 100.0])).norm(dim=1)


# The best affine map in the sense of least squares: three numbers for u, three for v, four corners.
ends = torch.cat([square.float(), torch.ones(4, 1)], 1)
best_affine = torch.cat([torch.linalg.lstsq(ends, on_the_desk).solution.T, torch.tensor([[0.0, 0.0, 1.0]])])
straightened = {
    name: stn_kernels.projective_sample(photograph, matrix[None], (112, 168))
    for name, matrix in (("affine", best_affine), ("projective", straighten))
}
for name, matrix in (("affine", best_affine), ("projective", straighten)):
    error = (straightened[name] - page).square().mean() / (page - page.mean()).square().mean()
    print(
        f"{name:10} corners missed by up to {corners_miss(matrix).max():4.1f} pixels; "
        f"mean squared error {error:.2f} of the page's variance"
    )

# %% alt="Left: a white page with four rows of six digits on a grey desk, seen from the side as an irregular quadrilateral, with the projective grid drawn on it. Middle: straightened by the best affine map; the page is still narrower at the top than at the bottom, grey wedges of the desk show beside it, and digits are cut off at the lower edge. Right: straightened by the projective map; the page fills the frame exactly, its rows are level."
fig, axes = plt.subplots(1, 3, figsize=(10, 2.9))
show_grid(
    photograph[0],
    stn.Projective(None).grid(straighten.flatten()[None, :8], (112, 168))[0],
    axes[0],
    "photograph",
)
show_image(straightened["affine"][0], axes[1], "best affine map")
show_image(straightened["projective"][0], axes[2], "projective")
plt.show()

# %% [markdown]
# What error is left was lost on the way: the far edge of the page has fewer pixels in the photograph than on
# the page. Here we knew the corners. A spatial transformer with `stn.FourCorners` has them predicted, as a
# network can [5].
#
# ## 10.7 Composing, inverting, and sampling twice
#
# Two matrices in a row are a matrix (section 2.9), and most matrices have an inverse. So the matrix families
# can say *this warp, then that one* with one $\theta$, if the product is again of the family. Is it? We
# compose two random $\theta$ and compare with the product.

# %%
closed_families = {**{n: families[n] for n in ("translation", "attention", "similarity", "affine")}}
closed_families["projective, no bound"] = stn.Projective(None)
closed_families["projective, bound 0.9"] = stn.Projective()
for name, family in closed_families.items():
    first, second = (
        (family.identity() + 0.5 * torch.randn(2000, family.num_parameters, generator=generator)).double()
        for _ in range(2)
    )
    product = family.homogeneous(first) @ family.homogeneous(second)
    once = family.homogeneous(family.compose(first, then=second))
    scale = product[:, 2:, 2:]
    same = (
        ((once - product / scale).abs().amax((1, 2)) < 1e-6 * (product / scale).abs().amax((1, 2)))
        .double()
        .mean()
    )
    verdict = "always" if same == 1 else "not always: beyond the bound compose gives NaN"
    print(f"{name:22} the product is in the family: {verdict}")

# %% [markdown]
# `compose(theta, then)` is in the order of the picture: first it is warped by `theta`, the result by `then`.
# The *points* meet the matrices the other way round, so the product is `M_theta @ M_then`. The mistake is
# easy, and it shows only where the two do not commute:

# %%
similarity = stn.Similarity()


def turn(angle):
    """The similarity's theta, (1, 4), that turns by `angle` degrees."""
    return torch.tensor([[math.cos(math.radians(angle)), math.sin(math.radians(angle)), 0.0, 0.0]])


theta, then = torch.tensor([[1.0, 0.0, -0.25, 0.0]]), turn(30)
twice = similarity.sample(similarity.sample(digit[None], theta, (28, 28)), then, (28, 28))
once = similarity.sample(digit[None], similarity.compose(theta, then=then), (28, 28))
swapped = similarity.sample(digit[None], similarity.compose(then, then=theta), (28, 28))
print(f"composed once against sampled twice: mean difference {(once - twice).abs().mean():.3f}")
print(f"the two exchanged:                   mean difference {(swapped - twice).abs().mean():.3f}")

# %% [markdown]
# The first number is not zero, and the fault is not the composition's: every sampling blurs. There and back
# again, by $\theta$ and its inverse, should be nothing at all. And 24 turns by 15° are one full turn:

# %% alt="Four pictures of the digit. As it was; turned by 15 degrees and back, a little softer; turned 24 times by 15 degrees, a smear in which the digit can hardly be told; composed 24 times and sampled once, as sharp as it was."
U = digit[None].double()
theta = turn(15).double()
there_and_back = similarity.sample(similarity.sample(U, theta, (28, 28)), similarity.inverse(theta), (28, 28))
around, chain = U, similarity.identity()[None].double()
for _ in range(24):
    around = similarity.sample(around, theta, (28, 28))
    chain = similarity.compose(chain, then=theta)
composed = similarity.sample(U, chain, (28, 28))
results = {"there and back": there_and_back, "24 samplings": around, "24 composed, 1 sampling": composed}
fig, axes = plt.subplots(1, 4, figsize=(8.6, 2.4))
show_image(digit, axes[0], "input")
for ax, (name, image) in zip(axes[1:], results.items(), strict=True):
    show_image(image[0], ax, name)
    lost = (image - U).square().sum() / U.square().sum()
    print(f"{name:24} squared error {lost:4.0%} of the picture")
plt.show()

# %% [markdown]
# So a chain of transformers should hand on $\theta$, not pictures: compose, and sample the *original* each
# time [4]. `stn.InverseCompositional` does. Bent families mostly cannot: the composition of two meshes has
# the edges of both, and is no mesh of the same vertices; the inverse of a mesh is one with its vertices
# elsewhere (`stn.PiecewiseAffine.inverse_points`).
#
# ## 10.8 Triangles
#
# The next step up bends. Cover the output with triangles, let their corners, the **vertices**, move, and in
# each triangle take the affine map that its three vertices determine: six numbers, three points. By
# hand: write the point as a weighted mean of the three vertices. The weights $\lambda$, its **barycentric
# coordinates**, solve
#
# $$
# \begin{pmatrix} x_1 & x_2 & x_3 \\ y_1 & y_2 & y_3 \\ 1 & 1 & 1 \end{pmatrix} \lambda = \begin{pmatrix} x \\ y \\ 1 \end{pmatrix}
# $$
#
# and the source is the same mean of where the vertices went, $\sum_j \lambda_j c'_j$.

# %%
vertices = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
gone = torch.tensor([[-0.8, -1.0], [1.0, -0.6], [0.7, 0.9]], dtype=torch.float64)
p = torch.tensor([0.4, -0.2, 1.0], dtype=torch.float64)
C = torch.cat([vertices.T, torch.ones(1, 3)])
lam = torch.linalg.solve(C, p)
print(f"lambda = ({lam[0]:.2f}, {lam[1]:.2f}, {lam[2]:.2f}), their sum {lam.sum():.2f}")
source = lam @ gone
print(f"the source is ({source[0]:.3f}, {source[1]:.3f})")
A = gone.T @ torch.linalg.inv(C)  # (2, 3): the same as one affine map
print("the triangle's matrix gives the same:", torch.allclose(A @ p, source))

# %% [markdown]
# All three weights are at least 0 exactly if the point lies in the triangle. That finds the triangle of each
# pixel. A lattice of $4 \times 4$ vertices has $9$ cells, two triangles each:


# %%
mesh = stn.PiecewiseAffine((4, 4))


def barycentric(points):
    """The weights of all 16 vertices at points (..., 3), homogeneous: (..., 16), at most three not zero."""
    corners = torch.cat([mesh.vertices.double(), torch.ones(16, 1)], 1)[mesh.triangles].mT  # (18, 3, 3)
    lam = torch.einsum("tij, ...j -> ...ti", torch.linalg.inv(corners), points)  # in each triangle
    own = lam.amin(-1).argmax(-1)  # the one that the point lies in
    weights = points.new_zeros(*points.shape[:-1], 16)
    chosen = lam.gather(-2, own[..., None, None].expand(*own.shape, 1, 3))[..., 0, :]
    return weights.scatter(-1, mesh.triangles[own], chosen)


weights = barycentric(regular_grid((28, 28)))  # (28, 28, 16)
theta = 0.15 * torch.randn(1, 32, generator=generator, dtype=torch.float64)
moved = mesh.vertices.double() + theta.reshape(16, 2)
by_hand = weights @ moved
print(f"triangles {len(mesh.triangles)}; weights that are not 0, of {weights.numel()}: {(weights > 0).sum()}")
print("stn.PiecewiseAffine's grid agrees:", torch.allclose(mesh.grid(theta, (28, 28))[0], by_hand))
sampled = mesh.sample(digit[None].double().to(device), theta.to(device), (28, 28)).cpu()
print(
    "and so does its sample:           ",
    torch.allclose(sampled, F.grid_sample(digit[None].double(), by_hand[None], align_corners=False)),
)

# %% [markdown]
# On an edge the weight of the vertex opposite is 0, whichever of the two triangles is asked. So both give the
# same source, and the map is **continuous**. But nothing makes their slopes agree, and it is **bent**. Along
# the middle row of the output, with the triangle that each pixel lies in:

# %% alt="Left: the digit with the moved mesh drawn on it, eighteen irregular triangles. Middle: the output, a five whose strokes bend where they cross the triangles' edges. Right: the source x over the target x along the middle row: a connected line of straight pieces, with corners where it crosses an edge; below it the slope, constant in each piece."
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(9.6, 2.9), width_ratios=(1, 1, 1.5))
show_image(digit, left, "moved mesh")
at = ((moved + 1) * 28 - 1) / 2
left.triplot(at[:, 0], at[:, 1], mesh.triangles, color="C4", linewidth=1)
show_image(sampled[0], middle, "output")
lattice = ((mesh.vertices + 1) * 28 - 1) / 2
middle.triplot(lattice[:, 0], lattice[:, 1], mesh.triangles, color="C4", linewidth=0.6)
line = mesh.grid(theta, (41, 401))[0, 20, :, 0]
slope = mesh.jacobian(theta, (41, 401))[0, 20, :, 0, 0]
x = regular_grid((41, 401))[20, :, 0]
right.plot(x, line, label="$x^s$")
right.plot(x, slope, color="C1", label=r"$\partial x^s / \partial x^t$")
right.set(xlabel="$x^t$ along the middle row", xticks=(-1, -0.5, 0, 0.5, 1))
right.legend()
plt.show()

print(
    f"largest jump of the source between neighbours: {line.diff().abs().max():.3f}, "
    f"of its slope: {slope.diff().abs().max():.2f}"
)
print(f"slopes along the row: {slope.round(decimals=6).unique().numel()}, one for each triangle crossed")

# %% [markdown]
# **Folds.** A triangle that is turned over shows a piece of the picture mirrored, and its neighbours show the
# same piece again. It happens when a vertex crosses the edge opposite; the determinant of the triangle's map,
# its area in the source for an area in the target, then changes sign. Move one inner vertex to the right,
# towards and past its neighbour $\frac{2}{3}$ away:

# %%
for shift in (0.3, 0.6, 0.7, 0.9):
    pushed = torch.zeros(1, 32)
    pushed[0, 2 * 5] = shift  # vertex 5 is the first inner one
    determinants = mesh.determinant(pushed)
    print(
        f"moved by {shift}: smallest determinant {determinants.min():5.2f}, "
        f"triangles turned over: {(determinants < 0).sum()}"
    )

# %% [markdown]
# `mesh.determinant(theta)` is differentiable: a penalty on small values keeps a mesh from folding, if not for
# certain.
#
# **The gradient of a vertex** needs no new idea. A vertex moves the sources of the pixels in the triangles
# around it, its **star**, each by its weight:
#
# $$ \frac{\partial L}{\partial c'_k} = \sum_{i \, \in \, \text{star}(k)} \lambda_k(p_i) \, \delta_i $$

# %%
grid = by_hand[None].clone().requires_grad_()
V = F.grid_sample(digit[None].double(), grid, align_corners=False)
loss_slope = torch.randn(V.shape, generator=generator, dtype=torch.float64)  # dL/dV of some loss
(delta,) = torch.autograd.grad(V, grid, loss_slope)
ours = torch.einsum("hwk, hwi -> ki", weights, delta[0])  # (16, 2)

asked = theta.to(device).requires_grad_()
V = mesh.sample(digit[None].double().to(device), asked, (28, 28))
(by_autograd,) = torch.autograd.grad(V, asked, loss_slope.to(device))
print(
    "ours and the library's agree:", torch.allclose(by_autograd.cpu().reshape(16, 2), ours, rtol=0, atol=1e-9)
)
stars = [(mesh.triangles == k).any(1).sum().item() for k in (0, 1, 5)]
print(
    f"triangles in the star of a corner {stars[0]}, of a vertex on the border {stars[1]}, "
    f"of an inner one {stars[2]}"
)

# %% [markdown]
# A vertex is heard by its star alone. Where the picture is black around it, it gets no gradient at all and
# stays where it is. An affine map has no such deaf numbers: all six hear from every pixel.
#
# ## 10.9 T = M B
#
# Look at what was just computed: sources $=$ `moved` times `weights`. The paper has a name for this, at the
# end of section 3.2: *structured* transformations
#
# $$ T_\theta = M_\theta \, B $$
#
# Here $T_\theta$ is the grid $T_\theta(G)$ of chapter 02, as a matrix $2 \times H' W'$. $B$, of shape
# $D \times H' W'$, is a fixed representation of the output pixels: $D$ numbers for each. $M_\theta$,
# $2 \times D$, mixes them. Affine is the case $B = (x, y, 1)^T$ with $M_\theta = A_\theta$. A mesh is the
# case where $B$ holds the barycentric weights and $M_\theta$ the moved vertices. Projective is a case only
# *before* the divide, with $M_\theta$ $3 \times 3$. And the gradient needs to be derived once, for all:
#
# $$ \frac{\partial L}{\partial M_\theta} = \Delta \, B^T, \qquad \Delta = (\delta_1, \ldots, \delta_{H' W'}) $$

# %%
bases = {"affine": regular_grid((28, 28)), "mesh": weights}
mixes = {"affine": torch.tensor([[0.9, 0.2, 0.1], [-0.2, 0.8, 0.0]], dtype=torch.float64), "mesh": moved.T}
for name, basis in bases.items():
    B = basis.movedim(-1, 0)  # (D, H', W')
    M = mixes[name].clone().requires_grad_()
    grid = torch.einsum("id, dhw -> hwi", M, B)[None]
    grid.retain_grad()
    F.grid_sample(digit[None].double(), grid, align_corners=False).backward(loss_slope)
    delta_by_basis = grid.grad[0].flatten(0, 1).T @ B.flatten(1).T

    asked = mixes[name][None].to(device).requires_grad_()
    V = stn_kernels.basis_sample(digit[None].double().to(device), asked, B.contiguous().to(device))
    (by_autograd,) = torch.autograd.grad(V, asked, loss_slope.to(device))
    agree = torch.allclose(M.grad, delta_by_basis) and torch.allclose(
        by_autograd[0].cpu(), M.grad, rtol=0, atol=1e-9
    )
    print(
        f"{name:6}  M is 2 × {len(B):2d}, B has {(B != 0).double().mean():4.0%} entries that are not 0; "
        f"Delta B^T, autograd, basis_sample agree: {agree}"
    )

# %% [markdown]
# Now we can make families by choosing $B$. A frequent choice are **hat functions** on a lattice. In one
# dimension the hat of a lattice point is 1 there, falls in straight lines, and is 0 from its neighbours on;
# the bilinear kernel of chapter 03, stretched. In two, multiply one in $x$ by one in $y$.

# %% alt="Left: four hat functions over x from -1 to 1, triangles of height 1 that overlap, each peak above a lattice point; their sum is a level line at 1. Middle: the hat of one inner lattice point in two dimensions, a bright spot that fades to black. Right: the barycentric weight of the same vertex in the mesh: a hexagonal pyramid with sharp ridges."
hats = stn.hat_functions((4, 4), (28, 28)).double()  # (16, H', W')
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(8.8, 2.6), width_ratios=(1.6, 1, 1))
across = stn.hat_functions((2, 4), (2, 200)).unflatten(0, (2, 4)).sum(0)[:, 0]  # both rows together: x alone
left.plot(regular_grid((2, 200))[0, :, 0], across.T)
left.plot(regular_grid((2, 200))[0, :, 0], across.sum(0), color="#888888", linestyle=":")
left.set(
    xlabel="$x$", xticks=(-1, -1 / 3, 1 / 3, 1), xticklabels=("$-1$", "$-1/3$", "$1/3$", "$1$"), yticks=(0, 1)
)
show_image(hats[5], middle, "a hat")
show_image(weights[..., 5], right, "a vertex's weight")
plt.show()

print("at every pixel the 16 hats sum to 1:", torch.allclose(hats.sum(0), torch.ones(28, 28).double()))
print(
    f"not 0 at a pixel: at most {(hats > 0).sum(0).max()} hats, "
    f"the weights of at most {(weights > 0).sum(-1).max()} vertices"
)

# %% [markdown]
# `stn.Basis` takes any $B$. Its $\theta$ are the coefficients of the *displacement*: $B$ without the planes
# $x$ and $y$, so that $\theta = 0$ is the identity. With the hats, $M$ is simply by how much each lattice
# point moves.

# %%
bent = stn.Basis(hats)
D = 0.15 * torch.randn(2, 16, generator=generator, dtype=torch.float64)
G = regular_grid((28, 28))[..., :2]
by_hand = G + torch.einsum("id, dhw -> hwi", D, hats)
print(
    "stn.Basis' grid agrees:             ", torch.allclose(bent.grid(D.flatten()[None], (28, 28))[0], by_hand)
)

A = mixes["affine"]
at_lattice = torch.cat([mesh.vertices.double(), torch.ones(16, 1)], 1) @ A.T - mesh.vertices
as_affine = bent.grid(at_lattice.T.flatten()[None], (28, 28))[0]
print(
    "hats can do what affine can:        ",
    torch.allclose(as_affine, affine.grid(A.flatten()[None], (28, 28))[0]),
)

as_mesh = mesh.grid(D.T.flatten()[None], (28, 28))[0]
apart = ((as_mesh - by_hand) * 14).norm(dim=-1)
print(
    f"hats and mesh, moved alike, differ by {apart.mean():.2f} pixels on average; "
    f"lattice points move by {D.norm(dim=0).mean() * 14:.2f}"
)

# %% [markdown]
# $B$ is made for one size of output. Asked for another, `stn.Basis` resamples it, and since pixels are areas,
# at half the size each is the mean of four:

# %%
print(
    "B at half the size: means of 2 × 2 pixels:", torch.allclose(bent.planes((14, 14)), F.avg_pool2d(hats, 2))
)

# %% [markdown]
# Sum to 1, local, few of them not 0, exact for affine maps: hats have all that one can ask of a basis, but
# for one thing. They are made of straight pieces, so the warp is bent at every line of the lattice, as at the
# edges of a mesh. **Splines** are the smooth basis. They come next.
#
# > **A basis can be learned.** The paper remarks that with $T_\theta = M_\theta B$ one may learn $B$ too, and
# > reports no experiment. $B$ is shared by all pictures, so its gradient is a sum over the batch,
# > $\sum M_\theta^T \Delta$. `stn.Basis(basis, learned=True)` does it; start it at anything but zeros, for
# > where $B$ is zero so is the gradient of $\theta$.
#
# ## 10.10 Everything, and nothing
#
# At the top of the ladder every pixel has a displacement of its own; $B$ is the identity matrix. There is
# nothing left that such a field cannot do. It can put a picture's pixels in any order, and paint any picture
# that has no other values than the first. So that a field exists which turns picture 1 into picture 2 says
# nothing of what happened between them. A 5 into a 0, by descent on both pictures blurred, first much, then less, then not
# at all (section 4.10; `stn.blur` takes the mean of so many neighbours, the nearer the more):


# %%
def fit(family, pictures, wanted, steps=50):
    """theta (N, P) that takes each picture to the one that is wanted, by descent from coarse to fine."""
    theta = family.identity().to(pictures).repeat(len(pictures), 1).requires_grad_()
    for width in (4, 2, 0):
        source, target = (stn.blur(image, width) if width else image for image in (pictures, wanted))
        optimiser = torch.optim.Adam([theta], lr=0.02)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            optimiser.zero_grad()
            (family.sample(source, theta, target.shape[2:]) - target).square().sum().backward()
            optimiser.step()
            schedule.step()
    return theta.detach()


five, zero = (images[labels == number][1:2].to(device) for number in (5, 0))
left_over, become = {}, {}
for name, family in (("affine", affine), ("displacement", stn.Displacement((28, 28)))):
    become[name] = family.sample(five, fit(family, five, zero), (28, 28))
    left_over[name] = ((become[name] - zero).square().sum() / (five - zero).square().sum()).item()
print("affine: more than a quarter of the difference is left:", left_over["affine"] > 0.25)
print("displacement: less than a tenth is left:              ", left_over["displacement"] < 0.1)

# %% alt="Four pictures: the 5; what the affine map makes of it, still a 5, set upright; what the displacement field makes of it, almost exactly the 0; and the 0 that was wanted."
fig, axes = plt.subplots(1, 4, figsize=(8.4, 2.4))
for ax, (name, image) in zip(axes, {"picture": five, **become, "wanted": zero}.items(), strict=True):
    show_image(image[0].cpu(), ax, name)
plt.show()

field = stn.Displacement((28, 28))
theta = torch.zeros(1, 2 * 28 * 28, device=device) + 0.005  # off the kinks of chapter 04
theta.requires_grad_()
(field.sample(five, theta, (28, 28)) - zero).square().sum().backward()
deaf = (theta.grad == 0).float().mean()
print(f"of the {theta.numel()} numbers more than half have no gradient at the start: {(deaf > 0.5).item()}")

# %% [markdown]
# Nothing makes neighbours agree. And most of the numbers hear nothing: where the picture is flat its slope is
# 0, and nobody else speaks for that pixel. In practice a displacement field is never used alone. One adds a
# penalty on differences between neighbours ([6], and exercise 10-6), or predicts the field on a coarse
# lattice, which is hats again, or by a convolutional network, which is smooth by its making.
#
# ## 10.11 Which family?
#
# An experiment to end with. Ten digits are warped in three ways, by a random affine map, by a random
# projective map (corners moved by up to 0.35), and by a bend in two numbers for each digit: $x$ is pushed by
# $a \cos \pi y$ and $y$ by $b \cos \pi x$. Every family tries to undo each of them, by descent on the squared
# difference from the digit as it was. One family more takes part, *waves*, made for the third task: $M B$ with
# just these two cosines as $B$.
#
# A descent is near-sighted (section 4.10), so it goes from coarse to fine, all families alike.

# %%
SIDE, COUNT = 32, 10
size = (SIDE, SIDE)
x, y = regular_grid(size)[..., :2].float().unbind(-1)
waves = stn.Basis(torch.stack([torch.cos(math.pi * x), torch.cos(math.pi * y)])).to(device)
free, four_corners = stn.Projective(None), stn.FourCorners()
contestants = {
    "similarity": stn.Similarity(),
    "affine": affine,
    "projective": stn.Projective(),
    "waves": waves,
    "mesh": stn.PiecewiseAffine((4, 4)),
    "displacement": stn.Displacement(size),
}


def uniform(*shape, generator):
    return 2 * torch.rand(shape, generator=generator) - 1


def undo_bend(a, b):
    """The p for which the bend by a, b (N, 1, 1), T(p), is each pixel, by iteration: (N, H, W, 2)."""
    p = torch.stack([x, y], -1).expand(COUNT, -1, -1, -1)
    for _ in range(60):
        push = torch.stack([a * torch.cos(math.pi * p[..., 1]), b * torch.cos(math.pi * p[..., 0])], -1)
        p = torch.stack([x, y], -1) - push
    return p


def tasks(generator):
    """The digits, and for each task the warped digits and the grid that undoes the warp."""
    chosen = images[torch.randperm(len(images), generator=generator)[:COUNT]]
    digits = F.pad(chosen, (2, 2, 2, 2))
    spread = torch.tensor([0.25, 0.25, 0.1, 0.25, 0.25, 0.1])
    theta = affine.identity() + spread * uniform(COUNT, 6, generator=generator)
    corners = free.parameters(four_corners.matrix(0.35 * uniform(COUNT, 8, generator=generator)))
    a, b = uniform(2, COUNT, 1, 1, generator=generator)
    a, b = (0.1 * (z.sign() + z) for z in (a, b))  # from 0.1 to 0.2, either way
    bend = torch.stack([0 * a, a, b, 0 * b], 1).reshape(COUNT, 4)
    grids = {
        "affine": (affine.grid(affine.inverse(theta), size), affine.grid(theta, size)),
        "projective": (free.grid(free.inverse(corners), size), free.grid(corners, size)),
        "bend": (undo_bend(a, b), waves.cpu().grid(bend, size)),
    }
    waves.to(device)
    warped = {
        task: (F.grid_sample(digits, there, align_corners=False).to(device), back.to(device))
        for task, (there, back) in grids.items()
    }
    return digits.to(device), warped


def compete(generator):
    """For each task and family: the squared error left, and how far the map is off on the strokes, in pixels."""
    digits, warped = tasks(generator)
    strokes = digits[:, 0] > 0.5
    scores = {}
    for task, (pictures, back) in warped.items():
        before = (pictures - digits).square().sum()
        nothing = affine.grid(affine.identity()[None].to(back), size)
        scores[task, "nothing"] = 1.0, ((nothing - back).norm(dim=-1) * SIDE / 2)[strokes].mean().item()
        for name, family in contestants.items():
            theta = fit(family, pictures, digits)
            left = (family.sample(pictures, theta, size) - digits).square().sum() / before
            off = (family.grid(theta, size) - back).norm(dim=-1) * SIDE / 2
            scores[task, name] = left.item(), off[strokes].mean().item()
    return scores


scores = compete(torch.Generator().manual_seed(0))
left = {key: score[0] for key, score in scores.items()}
off = {key: score[1] for key, score in scores.items()}

RIGHT = {"affine": "affine", "projective": "projective", "bend": "waves"}
for task, name in RIGHT.items():
    print(f"{task:10} the right family, {name}, is off by less than 0.2 pixels:", off[task, name] < 0.2)
print("a similarity, for the affine warp, by more than 0.5:           ", off["affine", "similarity"] > 0.5)
print(
    "an affine map, for the projective warp, 1.5 times the right one:",
    off["projective", "affine"] > 1.5 * off["projective", "projective"],
)
print(
    "an affine or projective map, for the bend, by more than 0.8:   ",
    min(off["bend", "affine"], off["bend", "projective"]) > 0.8,
)
print(
    "for the bend, a mesh leaves less than half their error:        ",
    left["bend", "mesh"] < 0.5 * min(left["bend", "affine"], left["bend", "projective"]),
)
best = {task: min(contestants, key=lambda name: left[task, name]) for task in RIGHT}
print("least error in the picture, each time:", ", ".join(best.values()))
print(
    "and its map is off by at least 0.75 of what it was:            ",
    all(off[task, "displacement"] > 0.75 * off[task, "nothing"] for task in RIGHT),
)

# %% tags=["nbval-ignore-output"]
print(" " * 14 + "".join(f"{task:>22}" for task in RIGHT))
for name in ("nothing", *contestants):
    print(f"{name:14}" + "".join(f"{left[task, name]:14.3f} {off[task, name]:7.2f}" for task in RIGHT))

# %% [markdown]
# The exact figures: the share of the squared error that is left in the picture, and beside it how far the map
# is off on the strokes, in pixels. Over five such runs, with other digits and other warps (of the map, mean
# and standard deviation):
#
# | family | affine | projective | bend |
# | --- | --- | --- | --- |
# | nothing | 1.000; 1.69 ± 0.17 | 1.000; 2.98 ± 0.62 | 1.000; 2.46 ± 0.12 |
# | similarity | 0.267; 0.84 ± 0.19 | 0.126; 0.58 ± 0.05 | 0.282; 1.21 ± 0.08 |
# | affine | **0.068; 0.06 ± 0.01** | 0.061; 0.26 ± 0.04 | 0.233; 1.27 ± 0.12 |
# | projective | 0.067; 0.08 ± 0.01 | **0.045; 0.11 ± 0.02** | 0.198; 1.50 ± 0.24 |
# | waves | 0.522; 1.46 ± 0.31 | 0.356; 1.50 ± 0.46 | **0.042; 0.06 ± 0.01** |
# | mesh | 0.060; 0.26 ± 0.13 | 0.049; 0.40 ± 0.20 | 0.063; 0.76 ± 0.09 |
# | displacement | 0.003; 2.24 ± 0.11 | 0.007; 2.77 ± 0.30 | 0.001; 2.47 ± 0.14 |
#
# (What even the right family leaves in the picture, 4 to 7 %, is the blur of having sampled twice.)
#
# Read it twice. By the **maps**, the right family wins each time. One that is too small cannot follow. One
# that is larger, or made of other pieces, follows the picture; but along a stroke it may slide as it likes,
# for sliding does not show. By the **pictures**, displacement wins each time, with next to no error; and its
# map is about as far off as if nothing had been undone, or farther. It did not find what happened. It
# painted.
#
# Whoever trains a transformer sees only the loss, which is of the second kind. So the family is not a detail
# to be tuned on the loss. It says what you *know* of the world: that a page is flat, that a body bends
# smoothly. And even a bend needs but four numbers, if they are the right ones.
#
# ## 10.12 Traps
#
# **Right angles in images that are not square.** `stn.Similarity` keeps right angles in normalised
# coordinates, where the image is a square, always. In pixels, of an image twice as wide as high:

# %%
A = stn.Similarity().matrix(turn(30))[0, :, :2]
half = torch.tensor([28.0, 14.0])  # of 56 × 28 pixels
in_pixels = half[:, None] * A / half
right, down = in_pixels[:, 0], in_pixels[:, 1]
angle = torch.rad2deg(torch.acos(right @ down / (right.norm() * down.norm())))
print(f"rows and columns meet at {angle:.0f} degrees")

# %% [markdown]
# Exercise 10-5 turns such an image properly. The distorted pictures of this book are turned in pixels, whatever
# their shape. Here are two dots, 10 pixels apart, in pictures of $20 \times 34$. With the true pose we can say
# how far apart they should be afterwards and in which direction, and bring them back:


# %%
def places(pictures):
    """The centre of mass of each channel, (N, C, 2), in pixels from the picture's centre."""
    y, x = (torch.arange(length) - (length - 1) / 2 for length in pictures.shape[2:])
    mass = pictures.sum((2, 3))
    return torch.stack([(pictures.sum(2) * x).sum(-1), (pictures.sum(3) * y).sum(-1)], -1) / mass[..., None]


y, x = torch.meshgrid(torch.arange(20) - 9.5, torch.arange(34) - 16.5, indexing="ij")
dots = torch.stack([torch.exp(-((x - a) ** 2 + y**2) / 3) for a in (-5, 5)]).expand(200, 2, 20, 34)
for distort in (stn.data.rotated, stn.data.rotated_translated_scaled):
    distorted, pose = distort(dots, generator=generator)
    left, right = places(distorted).unbind(1)
    across, down = (right - left).unbind(1)
    turned = torch.rad2deg(torch.atan2(-down, across))  # y points down
    returned = stn_kernels.affine_sample(distorted, pose.inverse_matrix(), (20, 34))
    print(
        f"{distort.__name__}: {10 * pose.scale.min():.1f} to {10 * pose.scale.max():.1f} pixels apart, wrong by "
        f"{((right - left).norm(dim=1) - 10 * pose.scale).abs().max():.2f} at most, "
        f"by {(turned - pose.angle).abs().max():.0f} degrees, "
        f"and brought back by {(places(returned) - places(dots)).norm(dim=2).max():.2f} pixels"
    )

# %% [markdown]
# **The order of composing.** `compose(theta, then)` is in the order of the picture, the product of the
# matrices likewise from the left (section 10.7). With points in mind one writes it the other way round, and
# near the identity hardly sees it.
#
# **Folds and poles are silent.** A turned-over triangle and a point behind the viewer give ordinary numbers,
# and ordinary gradients. Look at `determinant`, and at the last row.
#
# **A bounded family is not closed.** The product of two projective maps may have a last row that the bound
# excludes. Multiply matrices (`homogeneous`, `sample_matrix`) where a chain is long.
#
# ## Summary
#
# - Each step up the ladder gives up a certainty: lengths, right angles, parallels, lines, and at last that
#   neighbours stay neighbours. Choose the smallest family that holds what can have happened.
# - A projective map divides. Four corners determine it, in closed form. Where its denominator vanishes the
#   picture turns over; $|m_{31}| + |m_{32}| < 1$ keeps that out of the output.
# - A mesh is affine in each triangle, continuous, bent at edges; it folds where a determinant is negative. A
#   vertex hears its star alone.
# - Affine maps, meshes and hats are all $T_\theta = M_\theta B$, with one gradient, $\Delta B^T$; so are the
#   splines of the next chapters.
# - Compose matrices rather than sample twice. And a small error in the picture does not prove that the map is
#   right.
#
# ## Exercises
#
# Replace each `...` and run the cell. A wrong answer is told what is wrong with it. Solutions are in
# [solutions/10_beyond_affine.ipynb](solutions/10_beyond_affine.ipynb).

# %% [markdown]
# ### Exercise 10-1: what it costs
#
# How many numbers must a localisation network regress for `stn.FourCorners`, for a mesh of $5 \times 6$
# vertices, for hats on a lattice of $3 \times 4$, and for a displacement of each of $28 \times 28$ pixels?
# Give a list.

# %% tags=["exercise"]
# >>> solution
costs = [8, 2 * 5 * 6, 2 * 3 * 4, 2 * 28 * 28]
# <<< solution
check("10-1", costs)

# %% [markdown]
# ### Exercise 10-2: where is the horizon?
#
# The last row of a projective map is $(0.4, -0.8, 1)$. Where in the output square $[-1, 1]^2$ is $h_3$
# smallest, and how small? Give a list $[x, y, h_3]$.

# %% tags=["exercise"]
# >>> solution
smallest = [-1, 1, 1 - 0.4 - 0.8]
# <<< solution
check("10-2", smallest)

# %% [markdown]
# ### Exercise 10-3: points through a homography
#
# Write a function that returns the sources $(K, 2)$ of target points $(K, 2)$ under a projective matrix `M`
# $(3, 3)$.


# %% tags=["exercise"]
def project(M, points):
    # >>> solution
    h = torch.cat([points, torch.ones_like(points[:, :1])], 1) @ M.T
    return h[:, :2] / h[:, 2:]
    # <<< solution


check("10-3", project)

# %% [markdown]
# ### Exercise 10-4: barycentric coordinates
#
# Write a function that returns the three barycentric coordinates of a `point` $(2,)$ in a `triangle`
# $(3, 2)$, whose rows are its vertices. The point may lie outside.


# %% tags=["exercise"]
def barycentric_of(point, triangle):
    # >>> solution
    C = torch.cat([triangle.T, torch.ones(1, 3)])
    return torch.linalg.solve(C, torch.cat([point, torch.ones(1)]))
    # <<< solution


check("10-4", barycentric_of)

# %% [markdown]
# ### Exercise 10-5: a turn that is one
#
# Write a function that returns the $\theta$, $(2, 3)$, with which an image of `height` times `width` pixels
# is turned about its centre without being distorted: measured *in pixels* from the centre, the source is
# $\begin{pmatrix} \cos & -\sin \\ \sin & \cos \end{pmatrix}$ of `angle`, in degrees, times the target. Output
# and input have the same size.


# %% tags=["exercise"]
def turn_in_pixels(angle, height, width):
    # >>> solution
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return torch.tensor([[cosine, -sine * height / width, 0], [sine * width / height, cosine, 0]])
    # <<< solution


check("10-5", turn_in_pixels)

# %% [markdown]
# ### Exercise 10-6: make neighbours agree
#
# Write the penalty that a displacement field lacks: `field` is $(N, 2, H, W)$; return the mean of the squared
# differences between neighbours across, plus the mean of those between neighbours down.


# %% tags=["exercise"]
def roughness(field):
    # >>> solution
    across = field[..., 1:] - field[..., :-1]
    down = field[..., 1:, :] - field[..., :-1, :]
    return across.square().mean() + down.square().mean()
    # <<< solution


check("10-6", roughness)

# %% [markdown]
# ### Exercise 10-7: a family of your own
#
# The simplest bend is quadratic. Write a function that returns, for a `size` $(H', W')$, the planes $x^2$,
# $x y$ and $y^2$ of the normalised coordinates of the output pixels (`align_corners=False`), in this order,
# as a tensor $(3, H', W')$. Then `stn.Basis(quadratic((28, 28)))` is a family of six numbers.


# %% tags=["exercise"]
def quadratic(size):
    # >>> solution
    height, width = size
    x = ((2 * torch.arange(width) + 1) / width - 1).expand(height, width)
    y = ((2 * torch.arange(height) + 1) / height - 1)[:, None].expand(height, width)
    return torch.stack([x**2, x * y, y**2])
    # <<< solution


check("10-7", quadratic)

# %% [markdown]
# ## In the library
#
# | built here | in the library |
# | --- | --- |
# | $M$, the divide, `matrix_from_corners`, `heckbert` | `stn.Projective`, `stn.FourCorners`, `stn.homography` |
# | `gradient_of_matrix` | the backward of `stn_kernels.projective_sample`, which stores no grid |
# | `barycentric`, the moved vertices | `stn.PiecewiseAffine`; `kernels/stn_kernels/mesh_maps.py` |
# | $M B$ | `stn_kernels.basis_sample`, `stn.Basis`, `stn.hat_functions` |
# | composing, inverting | `compose`, `inverse` of `stn.MatrixTransform`; chains in `stn.InverseCompositional` |
#
# ## References
#
# 1. M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu. *Spatial Transformer Networks*. NIPS 2015.
#    [arXiv:1506.02025](https://arxiv.org/abs/1506.02025). Section 3.2.
# 2. P. S. Heckbert. *Fundamentals of Texture Mapping and Image Warping*. Master's thesis, University of
#    California, Berkeley, 1989. [Report
#    UCB/CSD-89-516](https://www2.eecs.berkeley.edu/Pubs/TechRpts/1989/5504.html).
# 3. R. Hartley, A. Zisserman. *Multiple View Geometry in Computer Vision*. 2nd edition, Cambridge University
#    Press, 2004. [doi:10.1017/CBO9780511811685](https://doi.org/10.1017/CBO9780511811685). Chapter 2: the
#    ladder up to projective, and what each step keeps.
# 4. C.-H. Lin, S. Lucey. *Inverse Compositional Spatial Transformer Networks*. CVPR 2017.
#    [arXiv:1612.03897](https://arxiv.org/abs/1612.03897).
# 5. D. DeTone, T. Malisiewicz, A. Rabinovich. *Deep Image Homography Estimation*. 2016.
#    [arXiv:1606.03798](https://arxiv.org/abs/1606.03798). A network that predicts four corners.
# 6. G. Balakrishnan, A. Zhao, M. R. Sabuncu, J. Guttag, A. V. Dalca. *VoxelMorph: A Learning Framework for
#    Deformable Medical Image Registration*. IEEE Transactions on Medical Imaging 38(8), 2019.
#    [arXiv:1809.05231](https://arxiv.org/abs/1809.05231). Displacement fields, with the penalty that they
#    need.
#
# ## Next
#
# [Chapter 11, Thin plate splines](11_thin_plate_splines.ipynb): the smooth basis. Before:
# [chapter 09, The backward kernels](09_the_backward_kernels.ipynb).
