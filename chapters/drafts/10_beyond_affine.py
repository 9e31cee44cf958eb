# %% [markdown]
# # 10 Beyond affine
#
# > **Six numbers turn, stretch and slant. They cannot undo the slant of a photograph, nor a bend. This chapter
# > climbs the ladder from two numbers to two for each pixel: what each family can undo, what it costs, and how it
# > breaks. At the top stands a family that explains every picture, and it is the worst of all at finding out what
# > happened to it.**
#
# **You will learn**
#
# - what the families of section 3.2 of the paper keep and what they lose, from translation to displacement;
# - projective maps: the divide, four corners to a matrix, the pole where the picture turns over, and a bound that
#   keeps it away;
# - meshes of triangles: barycentric coordinates, bends at edges, folds, and the gradient of a vertex;
# - the paper's structured class $T_\theta = M_\theta B$, of which nearly all of them are cases;
# - which families may be composed and inverted, and why composing is sharper than sampling twice;
# - to choose a family, by an experiment in which the right one wins.
#
# **You need** chapters [04](04_gradients.ipynb) and [06](06_the_spatial_transformer.ipynb).
# **Runs in** about 20 seconds on two cores.

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
# Equation 1 is an example. Section 3.2 of the paper goes on: the class of transformations may be smaller, like
# attention, or larger, "a plane projective transformation with 8 parameters, piecewise affine, or a thin plate
# spline"; any is allowed that is differentiable with respect to its parameters. Here they are, by what they cost.
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
# Thin plate splines, also $2 K$, have a chapter of their own, the next.
#
# A step up buys freedom and gives up something that was certain. To see what, we take a random $\theta$ of each
# family and look at its grid: are rows as long as before? Does a row still run to the right? Are rows and columns
# at right angles? Are the first and last row parallel? Is the middle row straight?

# %%
generator = torch.Generator().manual_seed(0)
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
    name: family.identity() + 0.15 * (2 * torch.rand(family.num_parameters, generator=generator) - 1)
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
    ax.set(xlim=(-5, 32), ylim=(32, -5))
    ax.title.set_fontsize(8)
plt.show()

# %% [markdown]
# Each loses one certainty more, until none is left. Whoever knows what cannot have happened to a picture should
# choose the family that cannot do it: a localisation network then has less to learn, and less to get wrong.
#
# ## 10.2 The divide
#
# Look along a road: its borders are parallel, and they meet. No affine map does that. The trick that does is as
# old as projective geometry: give a point of the plane *three* coordinates, $(h_1, h_2, h_3)$, and let them mean
# the point $(h_1 / h_3, \; h_2 / h_3)$. These are **homogeneous coordinates**; the 1 in Equation 1's
# $(x, y, 1)$ is the first of them. Now use all of a $3 \times 3$ matrix:
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
print(f"with 5 M: h = ({h[0]:.2f}, {h[1]:.2f}, {h[2]:.2f}), the source is ({h[0] / h[2]:.4f}, {h[1] / h[2]:.4f})")

# %% [markdown]
# A multiple of $M$ is the same map. So its nine entries are worth **eight** numbers, and one usually fixes
# $m_{33} = 1$. Now a whole grid, and the picture:

# %% alt="Input, grid and output for the digit under a projective map. The grid is a quadrilateral on the digit, its columns closer together on the right, where they converge; the output shows the five larger on the right than on the left."
h = regular_grid((28, 28)) @ M.T  # (H', W', 3)
by_hand = h[..., :2] / h[..., 2:]
projective = stn.Projective(bound=None)
theta = M.flatten()[None, :8]
print("stn.Projective's grid agrees:      ", torch.allclose(projective.grid(theta, (28, 28))[0], by_hand))

U = digit[None].double().to(device)
V = F.grid_sample(U, by_hand[None].to(device), align_corners=False)
fused = stn_kernels.projective_sample(U, M[None].to(device), (28, 28))
print("its sample agrees with PyTorch's:  ", torch.allclose(projective.sample(U, theta.to(device), (28, 28)), V))
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

far = torch.tensor([1e6, 0.7, 1.0], dtype=torch.float64)
for y in (-1.0, 0.0, 1.0):
    far[1] = y
    h = M @ far
    print(f"along the row y = {y:4.1f}, far to the right, the source tends to ({h[0] / h[2]:.3f}, {h[1] / h[2]:.3f})")
print(f"M's first column, divided:                                       ({M[0, 0] / M[2, 0]:.3f}, {M[1, 0] / M[2, 0]:.3f})")

# %% [markdown]
# All rows run towards one point, their **vanishing point**: what $M$ makes of $(1, 0, 0)$, of the *direction* to
# the right. Its last coordinate is $m_{31}$. If that is 0, the point lies infinitely far away, and rows stay parallel.
# So $m_{31}$ and $m_{32}$ say how strongly rows and columns converge.
#
# ## 10.3 Four corners to a matrix
#
# Eight numbers are also four points. Choose where the output's four corners are to look, and there is one
# projective map that does it (if no three of the points are on a line). This is how a person says where a page lies in a
# photograph. For a corner $(x, y)$ that goes to $(u, v)$, multiply $u = h_1 / h_3$ by $h_3$:
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
    m = torch.linalg.solve(torch.tensor(rows).to(corners), torch.tensor(right).to(corners))
    return torch.cat([m, m.new_ones(1)]).reshape(3, 3)


solved = matrix_from_corners(corners)
print(solved)
arrived = stn.Projective(None).map_points(solved.flatten()[None, :8], square[None])[0]
print("the corners arrive:", torch.allclose(arrived, corners))

# %% [markdown]
# A system of 8 equations for each picture of a batch, and a gradient through the solver: it works, but there is a
# shorter way. Take the corners of the *unit* square, $(0, 0), (1, 0), (1, 1), (0, 1)$, in this order, to
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
    return torch.stack([torch.cat([column, last[None]]) for column, last in ((a, g), (b, h), (p0, g.new_ones(())))], 1)


to_unit_square = torch.tensor([[0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 1]], dtype=torch.float64)  # (x + 1) / 2
closed = heckbert(corners) @ to_unit_square
closed = closed / closed[2, 2]
print("closed form and 8 x 8 system agree:", torch.allclose(closed, solved, rtol=0, atol=1e-12))
print("stn.homography agrees:             ", torch.allclose(stn.homography(corners), solved, rtol=0, atol=1e-12))

# %% [markdown]
# ## 10.4 The pole
#
# Where $h_3 = m_{31} x + m_{32} y + 1$ reaches 0, the source is infinitely far away. That happens on a line of the
# output, the **horizon**. And beyond it? Take $m_{31} = 1.6$ in an otherwise identical matrix and follow the row
# $y = 0$, where $x^s = x / (1 + 1.6 x)$ has its pole at $x = -0.625$:

# %%
print("x^t     ", "".join(f"{x:9.2f}" for x in (1.0, 0.5, 0.0, -0.4, -0.6, -0.62, -0.63, -0.7, -1.0)))
print("h_3     ", "".join(f"{1 + 1.6 * x:9.2f}" for x in (1.0, 0.5, 0.0, -0.4, -0.6, -0.62, -0.63, -0.7, -1.0)))
print("x^s     ", "".join(f"{x / (1 + 1.6 * x):9.2f}" for x in (1.0, 0.5, 0.0, -0.4, -0.6, -0.62, -0.63, -0.7, -1.0)))

# %% [markdown]
# The source runs off to the left, passes through infinity and comes back **from the right**. Beyond the horizon
# $h_3$ is negative: in a photograph these points lie behind the camera. The formula does not mind. It divides
# both coordinates by a negative number, which turns the picture by 180°. A floor of digits, with $m_{32} = 3$:

# %% alt="Left: a board of six by six digits, with the sampled region drawn as a grid. Right: the output. In its lower part the board lies like a floor that runs away to the horizon, a third of the height from the top. Above the horizon, in what should be sky, two rows of the board appear once more, upside down."
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
print(f"behind the viewer: {behind.float().mean():.0%} of the output, and it is not black: {(seen[0, 0] * behind).max() > 0.5}")

# %% [markdown]
# Near the horizon neighbouring output pixels look at places that are far apart, and the gradient there, as the
# next section shows, is large without bound. A localisation network that is untrained, or meets an odd picture,
# should not be able to get there. On the square $[-1, 1]^2$ the smallest value of $m_{31} x + m_{32} y$ is
# $-(|m_{31}| + |m_{32}|)$, in one of the corners. So, with $m_{33} = 1$,
#
# $$ h_3 > 0 \text{ on all of the output} \quad \Longleftrightarrow \quad |m_{31}| + |m_{32}| < 1 $$
#
# `stn.Projective` holds $\theta$ to this: $m = b \tanh(\theta / b)$ with $b = 0.45$ for each of the two, so that
# their sum stays below `bound=0.9`. Around 0 the slope is 1, and small $\theta$ are what they seem.
# `stn.FourCorners` takes the corners as $\theta$ instead: each moves from its place by
# $b \tanh(\theta / b)$. With $b = \frac{1}{2}$ each corner keeps to its own square of side 1, the quadrilateral stays
# convex, and the denominator positive. We try both with ten thousand wild $\theta$.


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
# A quadrilateral with a dent has its horizon in the output, always: a projective map keeps lines straight, and a
# square has no dent. The price of a bound is that some maps cannot be said any more, such as the floor above.
#
# ## 10.5 A gradient through the divide
#
# Chapter 04 left us $\delta_i = (\partial L / \partial x_i^s, \; \partial L / \partial y_i^s)$ for every output
# pixel. With $p = (x^t, y^t, 1)$, the quotient rule gives
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
# The first two rows are those of Equation 1, weighed by $1 / h_3$. The third asks whether pixels want to go
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
# The last line must be so: a multiple of $M$ is the same map, so along $M$ itself the loss does not change. And
# $1 / h_3$ is the loudness of a pixel. Where $h_3$ is 0.05, a pixel shouts twenty times as loud in the first two
# rows as one with $h_3 = 1$, and in the third, where the source is far away too, louder still. This is the second reason
# for a bound.
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
    page, torch.linalg.inv(straighten)[None], (200, 240), padding_mode="constant", fill_value=0.45, antialias=True
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
    left = (straightened[name] - page).square().mean() / (page - page.mean()).square().mean()
    print(f"{name:10} corners missed by {corners_miss(matrix).max():4.1f} pixels; mean squared error {left:.2f} of the page's variance")

# %% alt="Left: a white page with four rows of six digits on a grey desk, seen from the side as an irregular quadrilateral, with the projective grid drawn on it. Middle: straightened by the best affine map; the page is still slanted, its edges run off, grey wedges of the desk show. Right: straightened by the projective map; the page fills the frame exactly, its rows are level."
fig, axes = plt.subplots(1, 3, figsize=(10, 2.9))
show_grid(photograph[0], stn.Projective(None).grid(straighten.flatten()[None, :8], (112, 168))[0], axes[0], "photograph")
show_image(straightened["affine"][0], axes[1], "best affine map")
show_image(straightened["projective"][0], axes[2], "projective")
plt.show()

# %% [markdown]
# What error is left was lost on the way: the far edge of the page has fewer pixels in the photograph than on the page.
# Here we knew the corners. A spatial transformer with `stn.FourCorners` has them predicted.
#
