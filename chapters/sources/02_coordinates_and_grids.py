# %% [markdown]
# # 2 Coordinates and grids
#
# > **A spatial transformer moves no pixels. For every pixel of its output it computes a place in the input to
# > look at. This chapter makes that computation exact: six numbers in, a grid of places out.**
#
# **You will learn**
#
# - why the map runs backward, from output to input;
# - to place a pixel in normalised coordinates, under both conventions of `align_corners`;
# - to build the sampling grid of Equation 1 by hand, as one matrix product, and with the library;
# - to read a $\theta$: what it does to the picture, and why that is often the opposite of what one expects;
# - to chain two transforms in the right order.
#
# **You need** [chapter 01](01_why_spatial_transformers.ipynb), matrix products and a little PyTorch.
# **Runs in** about 10 seconds on two cores.

# %% tags=["setup"]
import math
from fractions import Fraction

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import stn
from stn.exercises import check
from stn.plotting import show_grid, show_image, show_stages, use_style
from stn_kernels import affine_sample

use_style()
torch.set_printoptions(precision=4, sci_mode=False)
images, labels = stn.data.digits("test")
digit = images[3]  # U, of shape (C, H, W) = (1, 28, 28)

# %% [markdown]
# Chapter 01 drew the three parts of a spatial transformer: a localisation network predicts $\theta$, a grid
# generator turns $\theta$ into places, a sampler reads the input there. We begin in the middle, with the grid
# generator. Section 2.11 says why.
#
# ## 2.1 Forward mapping leaves holes
#
# An image, or any feature map, is an array $U$ of shape $(C, H, W)$: channels, rows, columns. Row $n$ counts
# downwards and column $m$ to the right, both from 0. The output is $V$, of shape $(C, H', W')$. A place
# between pixels needs real numbers: we write $(a, b)$, measured in pixels, $a$ across and $b$ down, so that
# the centre of pixel $(n, m)$ lies at $a = m$, $b = n$.
#
# Suppose we want to turn a digit by 30°. The first idea is to carry every pixel to where it belongs. This
# function says where that is.

# %%
CENTRE = 13.5  # of 28 pixels, whose centres are at 0, 1, ..., 27


def move(a, b, angle, zoom):
    """Turn (a, b) about the picture's centre, counter-clockwise as displayed, and enlarge by `zoom`."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    across, down = a - CENTRE, b - CENTRE
    return CENTRE + zoom * (cosine * across + sine * down), CENTRE + zoom * (-sine * across + cosine * down)


a, b = move(27, 13.5, angle=90, zoom=1)
print(f"A quarter turn takes the middle of the right edge to a = {a:.1f}, b = {b:.1f}: the top edge.")

# %% [markdown]
# Counter-clockwise *as displayed*: rows count downwards, so the signs of the two sines are not those of a
# textbook whose $y$ axis points up. We now paint forward: each input pixel goes to the output pixel nearest
# to where it is carried. We count how often each output pixel is painted.


# %%
def paint_forward(image, angle, zoom):
    painted = torch.zeros_like(image)
    hits = torch.zeros_like(image, dtype=torch.int)
    for n in range(28):
        for m in range(28):
            a, b = move(m, n, angle, zoom)
            column, row = round(a), round(b)
            if 0 <= row < 28 and 0 <= column < 28:
                painted[row, column] = image[n, m]
                hits[row, column] += 1
    return painted, hits


painted, hits = paint_forward(digit[0], angle=30, zoom=1)
print(f"painted once:            {(hits == 1).sum()} pixels")
print(f"painted more than once:  {(hits > 1).sum()} pixels")
print(f"never painted:           {(hits == 0).sum()} pixels")

# %% [markdown]
# Some of the unpainted pixels are excused: the corners of the output, to which the turned square does not
# reach. To tell them from true holes we ask the opposite question of each output pixel: *which place of the
# input belongs here?* The answer is `move` run backward, with the opposite angle and the inverse zoom. And
# once we know the place, we may as well fetch the value.


# %%
def look_back(image, angle, zoom):
    fetched = torch.zeros_like(image)
    inside = torch.zeros_like(image, dtype=torch.bool)
    for row in range(28):
        for column in range(28):
            a, b = move(column, row, -angle, 1 / zoom)
            m, n = round(a), round(b)
            if 0 <= n < 28 and 0 <= m < 28:
                fetched[row, column] = image[n, m]
                inside[row, column] = True
    return fetched, inside


for zoom in (0.75, 1.0, 1.5):
    painted, hits = paint_forward(digit[0], 30, zoom)
    fetched, inside = look_back(digit[0], 30, zoom)
    holes, clashes = (inside & (hits == 0)).sum(), (hits > 1).sum()
    print(
        f"turned by 30°, enlarged by {zoom:4.2f}: {holes:3d} holes, {clashes:3d} pixels painted more than once"
    )

# %% [markdown]
# That enlarging leaves holes is no surprise: there are not enough input pixels to go round. But a pure turn,
# which changes no area, leaves holes too: a turned lattice does not fall on the lattice, so some output
# pixels are painted twice and others never. Shrinking closes the holes and adds clashes, where the order of
# the loops decides which value survives.

# %% alt="Three pictures of a digit five. Left: upright. Middle: turned by painting forward, freckled with orange holes in a regular pattern. Right: the same turn by looking back, without holes."
painted, hits = paint_forward(digit[0], 30, 1)
fetched, inside = look_back(digit[0], 30, 1)
holes = inside & (hits == 0)
marked = painted.repeat(3, 1, 1)
marked[:, holes] = torch.tensor([0.90, 0.62, 0.0])[:, None]

fig, axes = plt.subplots(1, 3, figsize=(7.5, 2.8))
show_image(digit, axes[0], "input $U$")
show_image(marked, axes[1], f"painted forward: {holes.sum()} holes")
show_image(fetched, axes[2], "looked up backward: none")
plt.show()

# %% [markdown]
# Looking back answers for every output pixel, exactly once, whatever the transform. So this is how a spatial
# transformer works, and how graphics hardware has always drawn textures [2]. Two words go with it:
#
# - **target** coordinates $(x^t, y^t)$: a place in the output $V$, where a value is wanted;
# - **source** coordinates $(x^s, y^s)$: the place in the input $U$ where it is looked up.
#
# The transform $T_\theta$ maps target to source. Keep the direction in mind; section 2.7 shows
# what happens to those who forget it.
#
# ## 2.2 Normalised coordinates
#
# A localisation network should not have to know how many pixels the input has. So source and target are both
# measured in *normalised* coordinates: the width of the picture runs from $x = -1$ to $x = 1$, its height
# from $y = -1$ to $y = 1$, and $(0, 0)$ is the centre. $x$ points right and $y$ points **down**.
#
# > **Pitfall: (x, y) against (row, column).** A place is written $x$ first, across before down. An array is
# > indexed row first, down before across: `U[n, m]` lies at $x \leftrightarrow m$, $y \leftrightarrow n$.
# > A grid's last dimension holds $(x, y)$; its first two dimensions are (row, column). Both orders are firm
# > habits, and a square picture never complains when you mix them up.
#
# One question is left open: what exactly is at $-1$, the *edge* of the first pixel or its *centre*? Both answers
# are in use. PyTorch calls the choice `align_corners` [3]:
#
# - `align_corners=False`: $-1$ and $1$ are the outer **edges** of the border pixels. A pixel of a row of $W$
#   is $2/W$ wide, and its centre is half a pixel from its left edge: $x_m = \frac{2m + 1}{W} - 1$.
# - `align_corners=True`: $-1$ and $1$ are the **centres** of the border pixels, which are $W - 1$ pixels
#   apart: $x_m = \frac{2m}{W - 1} - 1$.


# %%
def centres(size, align_corners=False):
    """Normalised coordinates of the centres of `size` pixels in a row."""
    index = torch.arange(size)
    return 2 * index / (size - 1) - 1 if align_corners else (2 * index + 1) / size - 1


def as_fractions(values):
    return [str(Fraction(float(value)).limit_denominator(100)) for value in values]


for align_corners in (False, True):
    print(f"align_corners={align_corners!s:5}:  {'  '.join(as_fractions(centres(4, align_corners)))}")

# %% [markdown]
# Four pixels, two rulers:

# %% alt="A row of four pixels. The ruler above, align_corners=False, runs from -1 at the left edge of the first pixel to 1 at the right edge of the last; the centres read -3/4, -1/4, 1/4, 3/4. The ruler below, align_corners=True, runs from -1 at the centre of the first pixel to 1 at the centre of the last; the centres read -1, -1/3, 1/3, 1."
fig, ax = plt.subplots(figsize=(7.5, 2.5))
for m in range(4):
    ax.add_patch(plt.Rectangle((m - 0.5, 0), 1, 1, facecolor="#eeeeee", edgecolor="#888888"))
    ax.plot(m, 0.5, "o", color="#444444", markersize=4)
    ax.text(m - 0.26, 0.15, f"$m={m}$", ha="center", va="center", color="#666666")
for align_corners, height, side, color in ((False, 1.25, 1, "C0"), (True, -0.25, -1, "C1")):
    extent = 1.5 if align_corners else 2.0  # pixels from the centre, at 1.5, to the coordinate 1
    ax.plot([1.5 - extent, 1.5 + extent], [height, height], color=color)
    marks = dict.fromkeys(centres(4, align_corners).tolist(), "o") | {-1.0: "|", 1.0: "|"}
    for x, marker in marks.items():
        place = 1.5 + extent * x
        ax.plot([place, place], [0.5, height], color=color, linewidth=0.8, linestyle=":")
        ax.plot(
            place, height, marker, color=color, markersize=13 if marker == "|" else 5, markeredgewidth=1.8
        )
        ax.text(place, height + 0.3 * side, as_fractions([x])[0], ha="center", va="center", color=color)
    ax.text(-0.75, height, f"align_corners={align_corners}", ha="right", va="center", color=color)
ax.set(xlim=(-2.3, 3.6), ylim=(-0.75, 1.7))
ax.axis("off")
plt.show()

# %% [markdown]
# Which of the two is better? With `align_corners=True` the distance from $-1$ to $1$ is $W - 1$ pixels, and
# that is not the same *share* of the picture at every size. A shift by $0.25$, say, should mean an eighth of
# the width, always.

# %%
for width in (7, 28, 112):
    edges, middles = 0.25 * width / 2, 0.25 * (width - 1) / 2
    print(
        f"width {width:3d}: 0.25 is {edges:6.3f} pixels, {edges / width:6.2%} of the width;  "
        f"with align_corners=True {middles:6.3f}, {middles / width:6.2%}"
    )

# %% [markdown]
# With `align_corners=False` the same $\theta$ means the same thing at every resolution. That is why PyTorch
# made it the default in 2019 (release 1.3), and why it is the default of everything in this book. The paper
# does not say which it used; software of its time took `True`. An old result can differ from a new one for
# this reason alone.
#
# ## 2.3 The regular grid G
#
# The target points are the centres of all output pixels. The paper calls them the *regular grid*
# $G = \{G_i\}$ with $G_i = (x_i^t, y_i^t)$, where $i$ runs over the $H' W'$ pixels of the output. We keep it
# as an array of shape $(H', W', 2)$, with $x$ before $y$ in the last dimension.


# %%
def regular_grid(height, width, align_corners=False):
    """G: the normalised centres of all pixels, (height, width, 2), x before y."""
    grid = torch.empty(height, width, 2)
    grid[..., 0] = centres(width, align_corners)  # x is the same in every row ...
    grid[..., 1] = centres(height, align_corners)[:, None]  # ... and y in every column
    return grid


G = regular_grid(2, 4)
print("x of each pixel:\n", G[..., 0])
print("y of each pixel:\n", G[..., 1])

# %% [markdown]
# ## 2.4 Equation 1, by hand
#
# An affine transform takes six parameters and sends target point $i$ to the source point
#
# $$
# \begin{pmatrix} x_i^s \\ y_i^s \end{pmatrix}
# = T_\theta(G_i)
# = A_\theta \begin{pmatrix} x_i^t \\ y_i^t \\ 1 \end{pmatrix}
# = \begin{bmatrix} \theta_{11} & \theta_{12} & \theta_{13} \\ \theta_{21} & \theta_{22} & \theta_{23} \end{bmatrix}
# \begin{pmatrix} x_i^t \\ y_i^t \\ 1 \end{pmatrix}
# \tag{1}
# $$
#
# The 1 below $x_i^t$ and $y_i^t$ makes them *homogeneous* coordinates: it lets the third column of $A_\theta$
# be added, so that one matrix holds turn, scale, shear (a slide of the rows, or columns, over each other) *and*
# translation. All source points together, $T_\theta(G)$, are the **sampling grid**.
#
# > **"As in (10)".** Section 3 of the paper speaks of the affine transformation "in (10)", four times. It
# > means Equation 1. The appendix has an affine transformation too, in three dimensions; probably the labels
# > of the two equations clashed.
#
# One point first. Our $\theta$ turns, shrinks and shifts; the target is the top left pixel of a
# $2 \times 4$ output.

# %%
theta = torch.tensor([[0.65, -0.30, 0.10], [0.30, 0.65, -0.05]])  # A_theta, (2, 3)
x_t, y_t = G[0, 0].tolist()
x_s = 0.65 * x_t - 0.30 * y_t + 0.10
y_s = 0.30 * x_t + 0.65 * y_t - 0.05
print(f"target ({x_t:.4f}, {y_t:.4f})  ->  source ({x_s:.4f}, {y_s:.4f})")

# %% [markdown]
# Now all of them, with the loops written out.


# %%
def affine_grid_by_hand(theta, height, width):
    """T_theta(G) for one theta (2, 3), point by point: (height, width, 2)."""
    G = regular_grid(height, width)
    sampling_grid = torch.empty_like(G)
    for n in range(height):
        for m in range(width):
            x, y = G[n, m]
            sampling_grid[n, m, 0] = theta[0, 0] * x + theta[0, 1] * y + theta[0, 2]
            sampling_grid[n, m, 1] = theta[1, 0] * x + theta[1, 1] * y + theta[1, 2]
    return sampling_grid


by_hand = affine_grid_by_hand(theta, 28, 28)
print("shape", tuple(by_hand.shape), "and the top left pixel looks at", by_hand[0, 0])

# %% [markdown]
# The loops do the same thing to every point, which is what a matrix product is for. Put the homogeneous
# coordinates of all points side by side, as the columns of a $3 \times H'W'$ matrix; one product with
# $A_\theta$ gives all source points. Over a batch of $N$ transforms it is still one product.


# %%
def affine_grid_by_product(theta, height, width):
    """T_theta(G) for a batch of thetas (N, 2, 3): (N, height, width, 2)."""
    points = regular_grid(height, width).reshape(-1, 2).T
    homogeneous = torch.cat([points, torch.ones(1, height * width)])  # (3, H' W')
    source = theta @ homogeneous  # (N, 2, H' W')
    return source.mT.reshape(-1, height, width, 2)


by_product = affine_grid_by_product(theta[None], 28, 28)
torch.testing.assert_close(by_product[0], by_hand)
print("matrix product agrees with the loops")

# %% [markdown]
# PyTorch has this as `torch.nn.functional.affine_grid`. The library has it as the `grid` of a *transform*, an
# object that knows what the numbers of its $\theta$ mean. For `stn.Affine` they are the six numbers of
# Equation 1, row by row, which is what a localisation network puts out.

# %%
by_torch = F.affine_grid(theta[None], size=(1, 1, 28, 28), align_corners=False)
by_library = stn.Affine().grid(theta.reshape(1, 6), size=(28, 28))

for name, grid in (("torch.nn.functional.affine_grid", by_torch), ("stn.Affine().grid", by_library)):
    torch.testing.assert_close(grid, by_product)
    print(f"{name} agrees with the matrix product")

# %% [markdown]
# ## 2.5 The identity grid beside another
#
# Figure 3 of the paper shows a sampling grid twice: the regular one, $T_I(G) = G$, where $I$ is the
# identity $x^s = x^t$, $y^s = y^t$; and one that an affine $\theta$ has transformed. We draw it from a real digit.
# The grid's lines join the source points; its border is orange, and the dot marks where the *top left* output pixel
# looks.
#
# To get the output $V$ we must sample the input at the grid's points, and these lie between pixels. The
# library's `affine_sample` does that. Take it on trust for now: chapter 03 builds it from nothing.

# %% alt="Four panels. (a) A digit five under a straight grid that covers all of it, and the same digit as output. (b) The digit under a smaller grid, turned clockwise, and as output a larger five, turned counter-clockwise."
identity = torch.eye(2, 3)
fig, axes = plt.subplots(1, 4, figsize=(9, 2.5))
for (left, right), A, name in (
    (axes[:2], identity, "(a) $T_I(G) = G$"),
    (axes[2:], theta, r"(b) $T_\theta(G)$"),
):
    show_grid(digit, affine_grid_by_product(A[None], 28, 28)[0], left, name)
    left.set(xlim=(-1.5, 28.5), ylim=(28.5, -1.5))
    show_image(affine_sample(digit[None], A[None], (28, 28))[0], right, "$V$")
plt.show()

unbent = affine_grid_by_product(identity[None], 28, 28)[0]
transformed = affine_grid_by_product(theta[None], 28, 28)[0]
print("the identity's grid equals G:", torch.equal(unbent, regular_grid(28, 28)))
print(f"G spans x from {unbent[..., 0].min():.2f} to {unbent[..., 0].max():.2f},", end=" ")
print(f"the transformed grid from {transformed[..., 0].min():.2f} to {transformed[..., 0].max():.2f}")

# %% [markdown]
# Look at (b) again. The grid is *smaller* than the picture, and the digit comes out *larger*. The grid is turned
# *clockwise*, and the digit comes out turned *counter-clockwise*.
#
# ## 2.6 Reading a theta
#
# Each column of $A_\theta$ answers one question about where the output looks:
#
# | column | question | on the input |
# | --- | --- | --- |
# | $(\theta_{13}, \theta_{23})$ | where does the centre of the output look? | $\theta_{13} W / 2$ pixels right of, $\theta_{23} H / 2$ below the centre |
# | $(\theta_{11}, \theta_{21})$ | one step right in the output: which way, how far in the input? | the grid's horizontal lines |
# | $(\theta_{12}, \theta_{22})$ | one step down in the output: which way, how far? | the grid's vertical lines |
#
# One more number says a lot: the determinant of the left $2 \times 2$ block,
# $\det = \theta_{11}\theta_{22} - \theta_{12}\theta_{21}$. The grid covers $|\det|$ times the area of the
# picture, and if $\det < 0$ it is flipped.
#
# Five small transforms, one for each kind:

# %%
c, s = math.cos(math.radians(30)), math.sin(math.radians(30))
kinds = {
    "translate": torch.tensor([[1, 0, 0.25], [0, 1, 0]]),
    "scale": torch.tensor([[0.75, 0, 0], [0, 0.75, 0]]),
    "turn": torch.tensor([[c, -s, 0], [s, c, 0]]),
    "shear": torch.tensor([[1, 0.4, 0], [0, 1, 0]]),
    "flip": torch.tensor([[-1.0, 0, 0], [0, 1, 0]]),
}
outputs = {name: affine_sample(digit[None], A[None], (28, 28))[0] for name, A in kinds.items()}


def centroid(image):
    """The centre of the ink, (a, b) in pixels."""
    weight = image[0] / image.sum()
    return (weight.sum(0) * torch.arange(28)).sum(), (weight.sum(1) * torch.arange(28)).sum()


# %% alt="Five columns. Top row: the digit with a grid that is shifted right, shrunk, turned clockwise, sheared, and mirrored. Bottom row: the outputs, a digit that is shifted left, enlarged, turned counter-clockwise, sheared the other way, and mirrored."
fig, axes = plt.subplots(2, 5, figsize=(9, 3.8))
for (top, bottom), (name, A) in zip(axes.T, kinds.items(), strict=True):
    show_grid(digit, affine_grid_by_product(A[None], 28, 28)[0], top, name)
    top.set(xlim=(-7, 34), ylim=(34, -7))  # the same frame for all five
    show_image(outputs[name], bottom)
plt.show()

# %% [markdown]
# ## 2.7 The grid goes right, the picture goes left
#
# What do these transforms do to the picture? We measure: how far the centre of the ink moved, and how much more ink
# there is. Ink counts area, so it should grow by a factor of $1 / |\det|$.

# %%
a_before, b_before = centroid(digit)
print("             det   1/|det|   ink    ink moved right by")
for name, A in kinds.items():
    det = torch.linalg.det(A[:, :2])
    a_after, b_after = centroid(outputs[name])
    ink = outputs[name].sum() / digit.sum()
    print(f"{name:10}  {det:5.2f}    {1 / det.abs():5.2f}   {ink:5.2f}   {a_after - a_before:8.2f} pixels")

# %% [markdown]
# (The small moves in the other lines are this digit's own: its ink is not quite centred.) Read the first two
# lines slowly.
#
# - *translate*: $\theta_{13} = 0.25$ moves the grid $0.25 \cdot 28 / 2 = 3.5$ pixels to the **right**. The
#   output looks farther right, so what it shows has moved 3.5 pixels to the **left**.
# - *scale*: $0.75$ **shrinks** the grid. The output looks at a smaller part, and shows it over its whole
#   width, so the picture is **magnified**, by $1 / 0.75 = 1.33$ each way.
#
# It is the same as with a camera. Pan to the right, and the scene moves to the left; narrow the field of
# view, and things look larger. $A_\theta$ steers the camera. The picture undergoes the *inverse* of
# $A_\theta$. If a transformer's output ever looks turned or moved the wrong way, this is the first suspect.
#
# ## 2.8 Equation 2: attention
#
# Six numbers are not always wanted. To look at a part of the picture without turning or shearing it, three
# are enough: a scale $s$ and a translation,
#
# $$
# A_\theta = \begin{bmatrix} s & 0 & t_x \\ 0 & s & t_y \end{bmatrix}
# \tag{2}
# $$
#
# The paper [1] uses this for *attention*. With $0 < s < 1$ the grid covers a part of the picture, and the output is
# a crop of it, at whatever size is asked for. Four digits on a canvas of $56 \times 56$ pixels; we attend to the
# top right one.

# %% alt="Left: four digits, 5, 4, 2 and 7, in a two by two arrangement. Middle: the same with a sampling grid over the top right quarter. Right: the output, the 4 alone."
canvas = torch.cat([torch.cat([images[3], images[13]], 2), torch.cat([images[48], images[47]], 2)], 1)
attention = stn.Attention()
theta_top_right = torch.tensor([[0.5, 0.5, -0.5]])  # s, t_x, t_y
crop = attention.sample(canvas[None], theta_top_right, (28, 28))[0]
show_stages(canvas, attention.grid(theta_top_right, (28, 28))[0], crop)
plt.show()

print("A =\n", attention.matrix(theta_top_right)[0])
print(f"largest difference between crop and digit:                {(crop - images[13]).abs().max():.4f}")
corners = attention.sample(canvas[None], theta_top_right, (28, 28), align_corners=True)[0]
print(f"the same theta, read with align_corners=True throughout:  {(corners - images[13]).abs().max():.4f}")

# %% [markdown]
# With `align_corners=False`, half of the coordinates is half of the picture, and the crop *is* the digit. With
# `True`, the 28 places from $0$ to $1$ span 27.5 pixels instead of 27, and all but the outermost fall between
# pixels.
#
# > **What the paper says about cropping**, and what it does not. It says that a transform can crop if it is a
# > *contraction*, if $|\det| < 1$, because the grid then covers less area than the picture. Less area it is:
# > the grid is a parallelogram, and its area is exactly $|\det|$ of the picture's. But a small area can still
# > be a long strip that sticks out, or lie outside altogether.

# %%
square = torch.tensor([[-1, -1, 1, 1], [-1, 1, 1, -1], [1, 1, 1, 1]]).float()  # the corners of the output
for name, A in {
    "attention": attention.matrix(theta_top_right)[0],
    "strip": torch.tensor([[1.6, 0.0, 0.0], [0.0, 0.2, 0.0]]),
    "astray": torch.tensor([[0.5, 0.0, 2.0], [0.0, 0.5, 0.0]]),
}.items():
    x, y = A @ square
    area = 0.5 * (x * (y.roll(-1) - y.roll(1))).sum().abs()  # the shoelace formula
    det = torch.linalg.det(A[:, :2])
    inside = bool((A @ square).abs().max() <= 1)
    print(
        f"{name:10} |det| = {det.abs():.2f}, share of the area = {area / 4:.2f}, inside the picture: {inside}"
    )

# %% [markdown]
# ## 2.9 Two transforms in a row
#
# Shift the picture, then turn it. With images, that is two calls, `affine_sample` of `affine_sample`. Can one
# $\theta$ do both? A point $p$ of the final output is sent by *turn* to a point of the picture in between, and
# that one by *shift* to a point $q$ of the input. So the point meets the matrices in the opposite order of the
# picture:
#
# $$ q = A_{\text{shift}} \, A_{\text{turn}} \, p $$
#
# **What happens first to the picture stands leftmost.** To multiply $2 \times 3$ matrices, complete each with
# the row $(0, 0, 1)$.


# %%
def compose(first, second):
    """One theta (2, 3) that does to the picture what `first` does, and then what `second` does."""
    last_row = torch.tensor([[0.0, 0.0, 1.0]])
    return (torch.cat([first, last_row]) @ torch.cat([second, last_row]))[:2]


shift = torch.tensor([[1, 0, -0.25], [0, 1, 0]])
turn = kinds["turn"]
shifted = affine_sample(digit[None], shift[None], (28, 28))
twice = affine_sample(shifted, turn[None], (28, 28))
once = affine_sample(digit[None], compose(shift, turn)[None], (28, 28))
wrong = affine_sample(digit[None], compose(turn, shift)[None], (28, 28))
print(f"two samplings against one, shift @ turn:  mean difference {(twice - once).abs().mean():.3f}")
print(f"two samplings against one, turn @ shift:  mean difference {(twice - wrong).abs().mean():.3f}")

# %% [markdown]
# The small difference in the first line is no error of the matrix: every sampling blurs a little, and one of
# the two was sampled twice. Blur lowers the sum of squares. Composing the matrices and sampling once is
# sharper, and cheaper.

# %% alt="Three outputs. Left: the digit shifted right and then turned about the centre, sampled twice. Middle: the same from one theta, slightly crisper. Right: the wrong order, turned and then shifted, which puts the digit in another place."
fig, axes = plt.subplots(1, 3, figsize=(7.5, 2.8))
show_image(twice[0], axes[0], "shift, then turn: two samplings")
show_image(once[0], axes[1], "shift @ turn: one")
show_image(wrong[0], axes[2], "turn @ shift: the wrong order")
plt.show()

for name, image in (("input", digit), ("sampled once", once), ("sampled twice", twice)):
    print(f"{name:13}  sum of squared values {image.square().sum():.1f}")

# %% [markdown]
# ## 2.10 Pitfalls
#
# We have met three: the direction of the map, the order of $(x, y)$, and `align_corners`. Here is the fourth,
# which square pictures hide. Normalised coordinates stretch: on a picture of $28 \times 56$ pixels, $x = 1$
# is 28 pixels from the centre and $y = 1$ only 14. A rotation matrix *in these coordinates* does not turn
# the picture. It shears it. Measure the angle between the grid's two directions in pixels:

# %% alt="Three wide pictures of the digits 5 and 4 side by side. Left: the input. Middle: naive rotation, the digits slanted and distorted. Right: fair rotation, the digits turned without distortion, parts of them cut off by the frame."
strip = torch.cat([images[3], images[13]], 2)
half = torch.tensor([56 / 2, 28 / 2])  # pixels per unit of x, of y
c, s = math.cos(math.radians(20)), math.sin(math.radians(20))
naive = torch.tensor([[c, -s, 0], [s, c, 0]])
# From normalised target coordinates to pixels (* half), turn, and back to normalised ones (/ half).
fair = torch.cat([naive[:, :2] * half / half[:, None], naive[:, 2:]], 1)

for name, A in (("naive", naive), ("fair", fair)):
    step_right, step_down = (A[:, :2] * half[:, None] / half).T  # in pixels, for one pixel in the output
    cosine = F.cosine_similarity(step_right, step_down, dim=0)
    print(
        f"{name:5}: angle between rows and columns {math.degrees(math.acos(cosine)):5.1f}°, "
        f"one pixel right moves {step_right.norm():.2f} pixels, one pixel down {step_down.norm():.2f}"
    )

fig, axes = plt.subplots(1, 3, figsize=(9, 1.9))
show_image(strip, axes[0], "input, 28 × 56")
for ax, name, A in ((axes[1], "naive", naive), (axes[2], "fair", fair)):
    show_image(affine_sample(strip[None], A[None], (28, 56))[0], ax, f"{name}: 20°")
plt.show()

# %% [markdown]
# The cure is to turn in pixels: from normalised target coordinates to pixels, turn, and back to normalised
# source coordinates, all multiplied into one $\theta$. The same holds for Equation 2, whose one scale the paper
# calls isotropic, the same in all directions: $s$ keeps the *picture's* aspect ratio. A square output of a wide picture comes out squeezed.
#
# | symptom | look here |
# | --- | --- |
# | the picture moves or turns the wrong way | the map runs from target to source: use the inverse |
# | transposed, or nonsense on non-square pictures | $(x, y)$ mixed up with (row, column) |
# | off by up to half a pixel, worst at the border | `align_corners` not the same everywhere |
# | "rotation" distorts | a rotation in normalised coordinates of a picture that is not square |
# | nothing but black | $\theta$ in pixels instead of normalised: a shift by 3 is one and a half pictures |
#
# ## 2.11 Why grids come before localisation
#
# The data flows from the localisation network to the grid generator. This book goes the other way. You cannot judge
# what a network should predict before you know what $\theta$ does: that a shrinking grid magnifies, that the output
# of the identity is the input, that a $\theta$ a little too large looks at nothing. Every one of these decides how
# the network must be built and where its training must start. Chapters 05 and 06 use them all.
#
# ## Summary
#
# - Looking up backward, from target to source, gives every output pixel exactly one answer; painting forward
#   leaves holes.
# - Coordinates run from $-1$ to $1$, $x$ across before $y$ down; `align_corners` says whether $\pm 1$ are
#   edges (`False`, the default) or centres of the border pixels.
# - Equation 1 is one matrix product: $T_\theta(G) = A_\theta G$ in homogeneous coordinates; Equation
#   2 keeps three of its six numbers.
# - $A_\theta$ moves the grid and the picture undergoes the inverse: a grid that shrinks magnifies, one that
#   goes right moves the picture left.
# - Transforms compose by matrix product, the picture's first transform leftmost, and sampling once beats
#   sampling twice.
#
# ## Exercises
#
# Replace each `...` and run the cell. A wrong answer is told what is wrong with it. Solutions are in
# [solutions/02_coordinates_and_grids.ipynb](solutions/02_coordinates_and_grids.ipynb).

# %% [markdown]
# ### Exercise 02-1: five centres
#
# With `align_corners=False`, what are the normalised coordinates of the centres of the pixels of a row of 5?
# Give a list of five numbers, from left to right; work them out on paper.

# %% tags=["exercise"]
# >>> solution
five_centres = [-4 / 5, -2 / 5, 0, 2 / 5, 4 / 5]
# <<< solution
check("02-1", five_centres)

# %% [markdown]
# ### Exercise 02-2: which way, how far?
#
# A $40 \times 40$ picture is sampled with the $\theta$ of the identity, except that $\theta_{13} = 0.3$; the
# output is $40 \times 40$ too, `align_corners=False`. How many pixels does the *picture* move to the right?
# If it moves left, the answer is negative.

# %% tags=["exercise"]
# >>> solution
pixels_to_the_right = -0.3 * 40 / 2
# <<< solution
check("02-2", pixels_to_the_right)

# %% [markdown]
# ### Exercise 02-3: cut out a window
#
# Write a function that returns the attention parameters $(s, t_x, t_y)$ of Equation 2 as three numbers, such
# that sampling a square picture of `size` pixels with them gives the window of `side` $\times$ `side` pixels
# whose *top left pixel* is in row `row` and column `column`. The output has `side` $\times$ `side` pixels,
# `align_corners=False`.


# %% tags=["exercise"]
def window(row, column, side, size):
    # >>> solution
    s = side / size
    t_x = (2 * column + side) / size - 1  # the window's centre is at column + side / 2 from the left edge
    t_y = (2 * row + side) / size - 1
    return s, t_x, t_y
    # <<< solution


check("02-3", window)

# %% [markdown]
# ### Exercise 02-4: a quarter turn
#
# Give the $\theta$, a $2 \times 3$ list or tensor, that turns the *picture* by 90° counter-clockwise as
# displayed, exactly as `torch.rot90` does.

# %% tags=["exercise"]
# >>> solution
quarter_turn = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]
# <<< solution
check("02-4", quarter_turn)

# %% [markdown]
# ### Exercise 02-5: undo it
#
# Write a function that takes a batch of thetas (N, 2, 3) and returns the thetas (N, 2, 3) that undo them:
# sampling with one and then with the other leaves every point where it was.


# %% tags=["exercise"]
def inverse(theta):
    # >>> solution
    block = torch.linalg.inv(theta[:, :, :2])
    return torch.cat([block, -block @ theta[:, :, 2:]], dim=2)
    # <<< solution


check("02-5", inverse)

# %% [markdown]
# ### Exercise 02-6: turn about a pixel
#
# Build a function that returns the $\theta$ (2, 3) which turns a square picture of `size` pixels by `angle`
# degrees, counter-clockwise as displayed, about the centre of the pixel in row `row` and column `column`,
# which stays where it is. `align_corners=False`; input and output have the same size. (Move that pixel to the
# centre of the picture, turn, and move it back.)


# %% tags=["exercise"]
def turn_about(row, column, angle, size):
    # >>> solution
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    block = torch.tensor([[cosine, -sine], [sine, cosine]])
    fixed = torch.tensor([(2 * column + 1) / size - 1, (2 * row + 1) / size - 1])
    return torch.cat([block, (fixed - block @ fixed)[:, None]], 1)
    # <<< solution


check("02-6", turn_about)

# %% [markdown]
# ## In the library
#
# | built here | in the library |
# | --- | --- |
# | `affine_grid_by_product` | `stn_kernels.reference.affine_grid`, and `grid` of every transform |
# | $\theta$ as six numbers, as three | `stn.Affine`, `stn.Attention` in `stn/transforms.py` |
# | grid and sampling in one step | `stn_kernels.affine_sample`, which never stores the grid; `sample` of every transform |
# | pictures of grids | `stn.plotting.show_grid`, `stn.plotting.show_stages` |
#
# ## References
#
# 1. M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu. *Spatial Transformer Networks*. NIPS 2015.
#    [arXiv:1506.02025](https://arxiv.org/abs/1506.02025). Sections 3.1 and 3.2.
# 2. P. S. Heckbert. *Survey of Texture Mapping*. IEEE Computer Graphics and Applications 6(11), 1986.
#    [doi:10.1109/MCG.1986.276672](https://doi.org/10.1109/MCG.1986.276672).
# 3. PyTorch documentation of
#    [`affine_grid`](https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.affine_grid.html); why
#    `align_corners` changed: [pytorch/pytorch#20785](https://github.com/pytorch/pytorch/issues/20785).
#
# ## Next
#
# [Chapter 03, Sampling](03_sampling.ipynb): the grid's points lie between pixels. What is the value there?
# Before: [chapter 01, Why spatial transformers](01_why_spatial_transformers.ipynb).
