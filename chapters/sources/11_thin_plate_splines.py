# %% [markdown]
# # 11 Thin plate splines
#
# > **Push a thin metal plate at a few points, and it bends as little as it can. What it does then can be
# > written down, and is found by solving one small linear system. Two such plates, one for $x$ and one for
# > $y$, are a warp: the smoothest that takes given points to given points. After this chapter you can derive
# > it, solve for it by hand, warp a photograph with it, and say where it folds.**
#
# **You will learn**
#
# - where $r^2 \log r$ comes from, and which three sums over the weights must be zero;
# - to set up and to solve the system, and that the library's `fit` finds the same;
# - what bending costs, and how far to miss the points in exchange for less of it;
# - to make of two plates a map of the plane, from target to source, and to sample an image through it;
# - what goes wrong: folds, inverses, points on a line, coordinates in pixels.
#
# **You need** chapters [02](02_coordinates_and_grids.ipynb) and [03](03_sampling.ipynb), partial derivatives,
# and integration by parts for sections 11.2 and 11.5. **Runs in** about 20 seconds on two cores.

# %% tags=["setup"]
import math
import os

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.cbook import get_sample_data

device = "cuda" if torch.cuda.is_available() else "cpu"
if device == "cpu":
    # Triton then interprets the library's kernels: slow, but the same code that runs on a GPU.
    os.environ["TRITON_INTERPRET"] = "1"

import stn
import stn_kernels
from stn.exercises import check
from stn.plotting import show_image, use_style
from stn.spline_plotting import show_plate, show_warp
from stn.thin_plate_spline import fit, fit_map, uniform_grid
from stn.widgets import Choice, Points, explore

use_style()
torch.set_printoptions(precision=4, sci_mode=False)
torch.set_default_dtype(torch.float64)  # section 11.12 says why; images and kernels are in float32

# %% [markdown]
# Matrices turn, scale, shear, shift and tilt, and leave a straight line straight. But text runs along curves,
# paper bends, and a face turns. Meshes and hat functions bend, with a kink at every edge (chapter 10). Now
# points shall go where we say, as many as we like, and all between them shall follow *smoothly*.
#
# We begin with half of it, one coordinate instead of two.
#
# ## 11.1 Five nails
#
# At five points of the plane a height is given. Think of nails of different lengths in a board.

# %%
points = torch.tensor([[-0.8, -0.6], [0.7, -0.8], [0.1, 0.1], [-0.5, 0.7], [0.8, 0.6]])
heights = torch.tensor([0.0, 0.3, 0.9, 0.1, -0.2])

P = torch.cat([points, torch.ones(5, 1)], 1)  # rows (x, y, 1)
plane = torch.linalg.lstsq(P, heights[:, None]).solution
print(f"the plane that fits best misses the nails by up to {(P @ plane - heights[:, None]).abs().max():.2f}")

# %% [markdown]
# A plane has three numbers and cannot meet five nails. A surface that bends can, in infinitely many ways.
# Which one is *the* surface? A thin metal plate, pressed onto the nails and held there, makes the choice by
# itself: of all shapes that meet the nails it takes the one that needs the least energy. For a plate that is
# bent only a little the energy is, up to a factor that depends on the metal, the **bending energy**
#
# $$ J(f) = \iint f_{xx}^2 + 2 f_{xy}^2 + f_{yy}^2 \; dx \, dy $$
#
# over the whole plane. Height costs nothing, nor does slope; only curvature does. (The plate was first used
# like this for the wings of aircraft [2].) In one dimension the same idea gives the cubic spline, which is
# named after the draughtsman's flexible lath.
#
# ## 11.2 One push
#
# What does the shape of least energy look like? Suppose $f$ is it. Change it a little, to $f + \epsilon g$
# with any $g$ that is zero at the nails: $J$ must not change to first order in $\epsilon$. Integrating by
# parts, twice,
#
# $$ \frac{dJ}{d\epsilon} = 2 \iint f_{xx} g_{xx} + 2 f_{xy} g_{xy} + f_{yy} g_{yy}
# = 2 \iint g \, \Delta \Delta f = 0, \qquad \Delta = \frac{\partial^2}{\partial x^2} + \frac{\partial^2}{\partial y^2}. $$
#
# Between the nails $g$ is arbitrary. So there **$\Delta\Delta f = 0$**, the *biharmonic* equation. At a nail,
# $g$ is zero, and $\Delta\Delta f$ may be anything: that is where the plate is pushed.
#
# So we look for the answer to one push, at the origin: a round function $\varphi(r)$ that is biharmonic
# everywhere else. For functions of $r$, $\Delta\varphi = \varphi'' + \varphi' / r$, and there are only four
# to choose from: $1$ and $r^2$, which are smooth at the origin and have no push in them; $\log r$, which has
# no height there; and
#
# $$ \varphi(r) = r^2 \log r \qquad \text{with} \qquad \Delta \varphi = 4 \log r + 4, \qquad \Delta\Delta\varphi = 4 \, \Delta \log r = 0. $$
#
# Let autograd check that, four derivatives deep. And how strong is the push? The flow of
# $\nabla \Delta \varphi$ out of a circle says what is inside:
# $2 \pi r \cdot \frac{d}{dr}(4 \log r + 4) = 8 \pi$, whatever the radius. All of it sits in the centre, for
# which one writes $\Delta\Delta\varphi = 8 \pi \, \delta$. (In this chapter $\Delta$ is the Laplacian and
# $\delta$ a unit of push in a single point; in chapters 04 and 10 both were gradients.)


# %% tags=["needed-by-exercises"]
def phi(r):
    return torch.xlogy(r.square(), r)  # r² log r, and 0 at r = 0


# %%
def laplacian(f):
    return lambda p: torch.func.hessian(f)(p).trace()


def push(p):
    return phi((p @ p).sqrt())


for r in (0.5, 1.0, 2.0):
    p = r * torch.tensor([0.6, 0.8])
    outwards = torch.func.grad(laplacian(push))(p) @ p / r
    print(
        f"r = {r}:  Δφ = {laplacian(push)(p):.4f},  4 log r + 4 = {4 * math.log(r) + 4:.4f},  "
        f"ΔΔφ = {laplacian(laplacian(push))(p):.4f},  out of the circle {2 * math.pi * r * outwards:.4f}"
    )
print(f"8π = {8 * math.pi:.4f}")

# %% alt="The function r squared log r over r from 0 to 1.6: it starts at 0, dips to its lowest value, -0.18, at r = 0.61, crosses 0 at r = 1 and rises ever more steeply."
r = torch.linspace(0, 1.6, 1601)
fig, ax = plt.subplots(figsize=(5, 2.6))
ax.axhline(0, color="#bbbbbb", linewidth=0.8)
ax.plot(r, phi(r))
ax.set(xlabel="distance $r$ from the push", ylabel=r"$\varphi(r) = r^2 \log r$", xticks=[0, 0.5, 1, 1.5])
plt.show()
print(f"lowest at r = {r[phi(r).argmin()]:.2f}, where it is {phi(r).min():.2f}")

# %% [markdown]
# It is a push upwards: the plate stands higher where it is pushed than around. (The curvature at the very
# point is infinite, but only as $\log r$ is, and the energy of that is finite.) But then, at $r = 1$, it
# turns up and rises without end. No plate would do that. Of course not: a free plate that is pushed at one
# point does not bend, it flies off.
#
# ## 11.3 Pushes in balance
#
# So we add up one push for each nail, with weights, and a plane, which costs nothing:
#
# $$ f(p) = \sum_k w_k \, \varphi(|p - p_k|) + a_x x + a_y y + a_0 $$
#
# How does the sum behave far away? With $r = |p|$ large,
#
# $$ \sum_k w_k \, \varphi(|p - p_k|) = \Big(\sum_k w_k\Big) r^2 \log r \; - \; (2 \log r + 1) \; p \cdot \Big(\sum_k w_k p_k\Big) \; + \; O(\log r). $$
#
# Two terms grow faster than they should, and both can be cancelled:
#
# $$ \sum_k w_k = 0, \qquad \sum_k w_k p_k = 0. $$
#
# These are the **side conditions**. The first says that the pushes up and the pushes down balance; the
# second, that they do not turn the plate over. Three numbers are zero, and what is left grows like $\log r$.
# Nine random pushes, with none, one and both of the conditions, in ever larger distance:

# %%
generator = torch.Generator().manual_seed(1)
places = 2 * torch.rand(9, 2, generator=generator) - 1
free = torch.randn(9, generator=generator)
centred = free - free.mean()
ones = torch.cat([places, torch.ones(9, 1)], 1)
balanced = free - ones @ torch.linalg.lstsq(ones, free[:, None]).solution[:, 0]

direction = torch.tensor([0.6, 0.8])
print("at a distance of             10              100            1,000           10,000")
for name, w in (("no condition", free), ("Σ w = 0", centred), ("and Σ w p = 0", balanced)):
    bent = [w @ phi((distance * direction - places).norm(dim=1)) for distance in (10, 100, 1000, 10000)]
    print(f"{name:14}", "".join(f"{value:17,.2f}" for value in bent))

# %% [markdown]
# Ten times as far, the first is more than a hundred times as high, the second more than ten times, and the
# third has gained one half. This is what makes thin plate splines behave **outside** their points: they go on
# as a plane, and leave it only as fast as a logarithm. If the weights are not solved for but predicted, by a
# network say, nothing keeps the conditions unless you do. One that drops a single weight, and computes it so
# that $\sum w = 0$, is in the second row.
#
# ## 11.4 The linear system
#
# $K$ weights and 3 numbers of the plane are unknown. $K$ equations say that the plate meets the nails, 3 are
# the side conditions. Everything is linear:
#
# $$
# \begin{bmatrix} \mathbf{K} & \mathbf{P} \\ \mathbf{P}^T & 0 \end{bmatrix}
# \begin{bmatrix} w \\ a \end{bmatrix} = \begin{bmatrix} z \\ 0 \end{bmatrix},
# \qquad \mathbf{K}_{jk} = \varphi(|p_j - p_k|), \qquad \mathbf{P} = \begin{bmatrix} x & y & 1 \end{bmatrix}.
# $$


# %%
def solve_by_hand(points, values, smoothing=0.0, kernel=phi):
    """w, (K, D), and the rows a_x, a_y, a_0, (3, D), for points (K, 2) and values (K, D)."""
    count = len(points)
    K = kernel((points[:, None] - points).norm(dim=-1)) + smoothing * torch.eye(count)
    P = torch.cat([points, torch.ones(count, 1)], 1)
    system = torch.cat([torch.cat([K, P], 1), torch.cat([P.T, torch.zeros(3, 3)], 1)])
    solution = torch.linalg.solve(system, torch.cat([values, torch.zeros(3, values.shape[1])]))
    return solution.split([count, 3])


def evaluate(locations, points, w, a, kernel=phi):
    """f at locations (M, 2)."""
    bent = kernel((locations[:, None] - points).norm(dim=-1)) @ w
    return bent + torch.cat([locations, torch.ones(len(locations), 1)], 1) @ a


# %%
z = heights[:, None]
w, a = solve_by_hand(points, z)
print("w                   ", w[:, 0])
print("a_x, a_y, a_0       ", a[:, 0])
print("height at the nails  " + "  ".join(f"{f:.2f}" for f in evaluate(points, points, w, a)[:, 0]))
print(f"Σ w = {w.sum():.4f},  Σ w x = {w[:, 0] @ points[:, 0]:.4f},  Σ w y = {w[:, 0] @ points[:, 1]:.4f}")

# %% [markdown]
# The highest nail, number 2, pushes up, and all others pull down. The weights *are* the forces that hold the
# plate. The library's `fit` returns a `Spline`, which holds points, weights and plane and can be called:

# %%
plate = fit(points, z)
anywhere = 3 * torch.rand(1000, 2, generator=generator) - 1.5
print("same weights:      ", torch.allclose(plate.weights, w, rtol=0, atol=1e-10))
print("same plane:        ", torch.allclose(plate.affine, a, rtol=0, atol=1e-10))
same = torch.allclose(plate(anywhere), evaluate(anywhere, points, w, a), rtol=0, atol=1e-10)
print("same at 1000 places:", same)

# %% alt="Left: a smooth surface, drawn in perspective, that rises over five nails to a round hill above the tallest and falls to the lower four. Right: the same from above as contour lines: closed ovals around nail 2, and nearly straight, evenly spaced lines towards the corners."
fig = plt.figure(figsize=(8, 3.4))
left = fig.add_subplot(1, 2, 1, projection="3d")
show_plate(plate, z, left)
right = fig.add_subplot(1, 2, 2)
lattice = uniform_grid((81, 81), align_corners=True)
surface = plate(lattice.flatten(0, 1)).view(81, 81)
levels = [0.1 * n for n in range(-6, 10)]
contours = right.contour(*lattice.permute(2, 0, 1), surface, levels=levels, colors="C0", linewidths=1)
right.clabel(contours, levels=levels[8::2], fontsize=7)
for k, (x, y) in enumerate(points.tolist()):
    right.plot(x, y, "o", color="C1")
    right.text(x + 0.05, y + 0.05, str(k))
right.set(aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1], xlabel="$x$", ylabel="$y$")
plt.show()
print(f"the highest place lies {(surface.max() - heights.max()):.3f} above the highest nail")

# %% [markdown]
# The plate may overshoot: its highest place is not a nail. Bending least does not mean staying within bounds.
#
# ## 11.5 What it costs to bend
#
# The integral of section 11.1 is over the whole plane, and yet it comes out of $K$ numbers. The integration
# by parts of section 11.2, once more, with $g = f$ itself:
#
# $$ J = \iint f \, \Delta\Delta f = \sum_k 8 \pi \, w_k f(p_k) = 8 \pi \, w^T (\mathbf{K} w + \mathbf{P} a) = 8 \pi \, w^T \mathbf{K} w $$
#
# because $\mathbf{P}^T w = 0$. It is force times distance, summed over the nails. That nothing is left over
# at infinity is due to the side conditions. We do the integral, too, over squares that grow: with midpoints
# of $x = \sinh t$, which lie dense around the nails and reach far out.


# %%
def bending_within(reach, points, w, steps=800):
    """The integral over the square from -reach to reach, each way."""
    ends = torch.linspace(-math.asinh(reach), math.asinh(reach), steps + 1)
    t, width = (ends[1:] + ends[:-1]) / 2, ends[1] - ends[0]
    area = t.cosh()[:, None] * t.cosh() * width**2
    x, y = torch.meshgrid(t.sinh(), t.sinh(), indexing="xy")
    f_xx = f_xy = f_yy = 0
    for (px, py), weight in zip(points, w, strict=True):
        dx, dy = x - px, y - py
        squared = dx**2 + dy**2
        f_xx = f_xx + weight * (squared.log() + 1 + 2 * dx * dx / squared)
        f_xy = f_xy + weight * 2 * dx * dy / squared
        f_yy = f_yy + weight * (squared.log() + 1 + 2 * dy * dy / squared)
    return ((f_xx**2 + 2 * f_xy**2 + f_yy**2) * area).sum()


K = phi((points[:, None] - points).norm(dim=-1))
print(f"8π wᵀ K w               {8 * math.pi * (w.T @ K @ w).item():.2f}")
print(f"8π wᵀ z                 {8 * math.pi * (w.T @ z).item():.2f}")
print(f"plate.bending_energy()  {plate.bending_energy().item():.2f}")
lopsided = torch.tensor([1.0, 0.0, -1.0, 0.0, 0.0])  # Σ w = 0, but not Σ w p
for reach in (10, 100, 1000):
    balanced, unbalanced = (bending_within(reach, points, pushes) for pushes in (w[:, 0], lopsided))
    print(f"integral within {reach:4}    {balanced:.0f}, without the second condition {unbalanced:.0f}")

# %% [markdown]
# The plate's integral settles; that of two opposite pushes, whose sum is zero but which turn, grows with each
# tenfold distance by as much again, without end. So finite energy and the side conditions are the same thing.
#
# And is it the *least* energy? Put a sixth nail under the plate, anywhere, and push it up or down:

# %% alt="A parabola: the bending energy over the height of a sixth nail, lowest where the nail just touches the plate."
place = torch.tensor([[0.4, -0.3]])
touching = plate(place)
lifts = torch.linspace(-0.5, 0.5, 21)
six = torch.cat([points, place])
energies = torch.stack([fit(six, torch.cat([z, touching + lift])).bending_energy()[0] for lift in lifts])
fig, ax = plt.subplots(figsize=(5, 2.6))
ax.axhline(plate.bending_energy(), color="#bbbbbb", linewidth=0.8)
ax.plot(lifts, energies)
ax.set(xlabel="the sixth nail's height above the plate", ylabel="bending energy $J$")
plt.show()
extra = (energies - plate.bending_energy()) / lifts**2
print(f"where it just touches, J = {energies[10]:.2f} as before")
print(
    f"elsewhere it is more, by {extra[0]:.1f} times the square of the lift:", (extra[11:].std() < 1e-6).item()
)

# %% [markdown]
# Every other height costs more. And every other surface through the five nails passes above or below the
# plate somewhere. There it has a sixth nail, and so more energy than the plate. (Duchon [3] has the proof.)
#
# The formula also says when there is a solution. If all heights are 0, then $J = 8 \pi \, w^T z = 0$: the
# surface has no curvature and is a plane. A plane has no pushes in it, so $w = 0$ if the points are distinct;
# and a plane that is 0 at three points not on a line is 0, so $a = 0$. Only zero solves the system with zero
# on the right, and the matrix can be inverted: **for any three or more points that are distinct and not all
# on a line.**
#
# ## 11.6 Springs instead of nails
#
# Measured heights have errors, and a plate that meets each of them bends around the noise. So let it miss
# them a little, if that saves bending [4]:
#
# $$ \text{minimise} \quad \sum_k \big(f(p_k) - z_k\big)^2 + \frac{\lambda}{8 \pi} \, J(f) $$
#
# Change $f$ by $\epsilon g$ as before, where $g$ need not be zero at the nails any more: the first term
# changes by $2 \epsilon \sum_k (f(p_k) - z_k) \, g(p_k)$, the second by
# $2 \epsilon \, \lambda \sum_k w_k \, g(p_k)$. Together they vanish for every $g$ if
#
# $$ z_k - f(p_k) = \lambda \, w_k. $$
#
# That is Hooke's law. Each nail has become a spring: it is stretched in proportion to the force. In the
# system one thing changes: $\mathbf{K}$ becomes $\mathbf{K} + \lambda \mathbf{I}$.

# %%
print("      λ   furthest miss   bending energy   stretched by λ w")
for smoothing in (0, 0.01, 0.1, 1, 10, 1e6):
    smooth = fit(points, z, smoothing)
    miss = z - smooth(points)
    by_hand = solve_by_hand(points, z, smoothing)[0]
    hooke = torch.allclose(miss, smoothing * by_hand, rtol=0, atol=1e-9)
    print(f"{smoothing:7g}   {miss.abs().max():13.3f}   {smooth.bending_energy().item():14.3f}   {hooke}")
same = torch.allclose(fit(points, z, 1e6).affine, plane, rtol=0, atol=1e-5)
print("at the end, the plane of section 11.1:", same)

# %% alt="Four plates over the same five nails. With λ = 0 the surface meets all nails; with 0.1 it stays just below the tallest; with 1 it is a low hill; with a million it is flat, and cuts through between the nails' heads."
fig, axes = plt.subplots(1, 4, figsize=(10, 2.7), subplot_kw={"projection": "3d"})
for ax, smoothing, name in zip(axes, (0, 0.1, 1, 1e6), ("0", "0.1", "1", "1,000,000"), strict=True):
    show_plate(fit(points, z, smoothing), z, ax, f"λ = {name}")
plt.show()

# %% [markdown]
# Two things about $\lambda$ are easily overlooked. **The constant in the kernel.** Some write $r^2 \log r$,
# some $r^2 \log r^2$, which is twice as much. As long as the plate meets its nails the choice does not
# matter: the weights halve. With springs it does, since $\lambda$ multiplies the weights.


# %%
def twice_phi(r):
    return torch.xlogy(r.square(), r.square())


for ours, theirs in ((0, 0), (0.1, 0.1), (0.1, 0.2)):
    one = evaluate(anywhere, points, *solve_by_hand(points, z, ours))
    other = solve_by_hand(points, z, theirs, kernel=twice_phi)
    other = evaluate(anywhere, points, *other, kernel=twice_phi)
    print(
        f"r² log r with λ = {ours},  r² log r² with λ = {theirs}:  differ by up to {(one - other).abs().max():.4f}"
    )

# %% [markdown]
# **The unit.** $J$ has second derivatives, squared, times an area: with lengths $s$ times as large it is
# $s^2$ times as small. A $\lambda$ for coordinates in $[-1, 1]$ is not one for pixels (exercise 11-4). The library
# calls $\lambda$ `regularization`.
#
# ## 11.7 From one surface to two: a map
#
# Now the other half. We want a map of the plane, so two numbers at each place: let $x^s$ be the height of one
# plate and $y^s$ that of another. And we want it backward, as everywhere in this book: for each place of the
# **target**, where to look in the **source**. So the nails stand in the target, at the **target points**
# $c_k$, and their lengths are the coordinates of the **source points** $c'_k$ (both together are a **control point**):
#
# $$ T(c_k) = c'_k, \qquad T(p) = \begin{bmatrix} x^s(p) \\ y^s(p) \end{bmatrix}
# = \sum_k \begin{bmatrix} w_k^x \\ w_k^y \end{bmatrix} \varphi(|p - c_k|) + A_\theta \begin{bmatrix} x \\ y \\ 1 \end{bmatrix}. $$
#
# Both plates stand on the same nails. The matrix is the same, and there are two right-hand sides instead of
# one. What was a plane is now Equation 1. The paper [5] names this family beside the affine one.

# %%
target = 0.75 * uniform_grid((4, 4), align_corners=True).flatten(0, 1)  # 16 points, row by row
turn = math.radians(35)
rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
source = target.clone()
inner = [5, 6, 9, 10]
source[inner] = target[inner] @ rotation.T  # (x, y) -> rotation (x, y); y points down

w, a = solve_by_hand(target, source)
warp = fit_map(target_points=target, source_points=source)
by_hand = evaluate(anywhere, target, w, a)
print("w and a hold", w.numel() + a.numel(), "numbers, the source points", source.numel())
print("target points go to source points:", torch.allclose(warp(target), source, rtol=0, atol=1e-12))
print("by hand the same map:             ", torch.allclose(warp(anywhere), by_hand, rtol=0, atol=1e-10))
print("bending energy of x and y:        ", warp.bending_energy())

# %% [markdown]
# A map of $K$ points has $2 (K + 3)$ numbers, and 6 side conditions between them: $2 K$ that can be chosen,
# which is just what the source points are. A network that is to predict such a warp predicts the $c'_k$.
#
# Of these $2 K$ numbers, 6 are an affine map. It costs nothing, and the spline prefers it: whenever an affine
# map takes the target points to the source points, the spline *is* that map.

# %%
theta = torch.tensor([[0.9, -0.4, 0.1], [0.3, 1.1, -0.2]])
straight = fit_map(target_points=target, source_points=target @ theta[:, :2].T + theta[:, 2])
print(
    f"largest weight {straight.weights.abs().max():.4f}, bending energy {straight.bending_energy().sum():.4f}"
)
print("its affine part is theta:", torch.allclose(straight.affine.T, theta, rtol=0, atol=1e-12))
grid = stn.Affine().grid(theta.reshape(1, 6), (28, 28))[0]
print("its grid is chapter 02's:", torch.allclose(straight.grid((28, 28)), grid, rtol=0, atol=1e-12))

# %% [markdown]
# ## 11.8 A photograph
#
# The picture is the United States Navy's portrait of Rear Admiral Grace Hopper, who wrote one of the first
# compilers. It is in the public domain, and comes with matplotlib. We cut it to a square, and halve it by
# averaging, not by skipping (section 3.12). The warp is the one above: twelve points stay, the four inner
# ones turn by 35°.

# %% alt="Left: the photograph of a woman in naval uniform, upright, with sixteen numbered points and the grid on it; the four inner points are turned clockwise, the grid's lines twist around her face. Right: the output: her head leans to the other side, counter-clockwise, with shoulders and surroundings nearly in place."
with get_sample_data("grace_hopper.jpg") as file:
    photograph = torch.from_numpy(plt.imread(file).copy()).permute(2, 0, 1).float() / 255  # (3, 600, 512)
photograph = F.avg_pool2d(photograph[:, :512], 2).to(device)
show_warp(photograph, warp)
plt.show()
print("photograph", tuple(photograph.shape), "  folds:", warp.folds().item())

# %% [markdown]
# The points turn clockwise, and the head turns *counter-clockwise*: it is the grid that moves, and the output
# shows what the grid has found. Whoever drags points and expects the picture to follow has to exchange source
# and target (section 11.11).
#
# The grid's corners are outside of all points. The plates go on there nearly flat, and the picture is hardly
# disturbed; but its border is not held either, as the slivers of black at the edge show.
#
# There are two ways from the warp to the output. One makes the grid, then samples: $2 H' W'$ numbers lie in
# memory, as in chapter 02. The other is the fused `tps_sample`, which is given the points, solves the system,
# and evaluates the spline at each pixel inside the kernel. They agree, and with PyTorch:

# %%
image = photograph[None]
grid = warp.to(torch.float32).to(device).grid((256, 256))[None]
outputs = {
    "stn_kernels.tps_sample": stn_kernels.tps_sample(
        image, source[None].to(image), (256, 256), target_points=target.to(image)
    ),
    "warp.grid, stn_kernels.grid_sample": stn_kernels.grid_sample(image, grid),
}
by_torch = F.grid_sample(image, grid, align_corners=False)
for name, output in outputs.items():
    # Coordinates are rounded to float32: about 1e-5 of a pixel's width, times the contrast between neighbours.
    print(f"{name:35} agrees with PyTorch:", torch.allclose(output, by_torch, rtol=0, atol=2e-4))

# %% [markdown]
# ## 11.9 Move the points yourself
#
# In JupyterLab, run the cell below, choose a point, and move it. Elsewhere you see one position of it. The
# points are source points, as on the left of the picture above; what the grid finds is on the right. Where
# the output is shaded the warp has turned over. Things to try:
#
# - Move point 4 a little, and see how far the others' surroundings follow. Which way does the face go?
# - Move it until something is shaded. How far is that?
# - Raise $\lambda$ and watch the line from where the point should be to where it is, and the energy.
# - Move points 0, 1 and 2 up by as much. Why does that bend, if all points moved up would not?

# %% alt="Left: the photograph with a lattice of nine numbered points and the sampling grid; point 4, in the middle, is moved to the upper right, and the grid bulges with it. Right: the output, in which the face has moved to the lower left."
nine = 0.75 * uniform_grid((3, 3), align_corners=True).flatten(0, 1)


def moved(points, smoothing):
    """The picture for these source points, and what there is to say about it."""
    source = torch.tensor(points)
    warp = fit_map(target_points=nine, source_points=source, regularization=smoothing)
    note = f"bending energy {warp.bending_energy().sum():.2f}, folds: {warp.folds().item()}"
    return show_warp(photograph, warp, source), note


start = nine.tolist()
start[4] = [0.25, -0.2]
explore(
    moved,
    points=Points(start, -1.2, 1.2, step=0.05, label="point"),
    smoothing=Choice([0, 0.01, 0.1, 1, 10, 1e6], start=0, label="λ"),
)

# %% [markdown]
# ## 11.10 Folds
#
# Nothing in the bending energy forbids two places of the target to look at the same place of the source.
# Where the warp runs backwards, the picture is turned over, and between there and the rest it is folded. The
# determinant of the **Jacobian**, the matrix of the map's four derivatives, tells: it is the area in the source for a unit of area in the target, and
# negative where the warp has turned over.

# %% alt="Three warped checkerboards, where the middle one of sixteen points, at the upper left, is sampled further and further to the right. The first is bent, the second stretched so far that some squares are slivers; in the third a round region beside the point is shaded: there the warp runs backwards."
squares = (torch.arange(256) // 16) % 2
board = (squares[:, None] ^ squares)[None] * 0.5 + 0.4
fig, axes = plt.subplots(1, 3, figsize=(9, 3))
fine = uniform_grid((256, 256))
for ax, offset in zip(axes, (0.2, 0.4, 0.6), strict=True):
    pushed = target.clone()
    pushed[5, 0] += offset
    warp_of_one = fit_map(target_points=target, source_points=pushed)
    determinant = warp_of_one.determinant(fine.flatten(0, 1)).view(256, 256)
    output = F.grid_sample(board[None], warp_of_one.grid((256, 256))[None], align_corners=False)[0]
    show_image(output, ax, f"one point moved by {offset}")
    ax.contourf(determinant, levels=[-1e9, 0], colors="C1", alpha=0.6)
    print(
        f"moved by {offset}: determinant from {determinant.min():5.2f} to {determinant.max():.2f}, "
        f"folds: {warp_of_one.folds().item()}"
    )
plt.show()

# %% [markdown]
# `folds` looks at the sign of the determinant on a lattice, 64 by 64 places if not told otherwise: a fold
# smaller than that lattice's cells can slip through. How likely is a fold? Move all of the 16 points at
# random, with standard deviation $\sigma$ each way; they are 0.5 apart.

# %%
generator = torch.Generator().manual_seed(0)
for sigma in (0.04, 0.08, 0.12, 0.16, 0.2):
    offsets = sigma * torch.randn(200, 16, 2, generator=generator)
    random_warps = fit_map(target_points=target, source_points=target + offsets)
    print(f"σ = {sigma:.2f}: {random_warps.folds().double().mean():6.1%} of 200 warps fold")

# %% [markdown]
# Below a sixth of the points' distance hardly any warp folds; at a third of it most do. There is no safe
# amount, since two neighbours may move against each other. Who needs a warp without folds measures the
# determinant, and adds a penalty, or takes a family that cannot fold [6].
#
# ## 11.11 The inverse
#
# A warp without folds has an inverse. It is tempting to get it by exchanging the points. But the spline from
# source points to target points is the *other* plate that bends least, and not the inverse of this one: at
# the points both agree, between them not.

# %%
swapped = fit_map(target_points=source, source_points=target)
inside = 1.5 * torch.rand(1000, 2, generator=generator) - 0.75
for name, way_back in (("points exchanged", swapped), ("warp.inverse", warp.inverse)):
    at_points = (way_back(warp(target)) - target).norm(dim=1).max()
    between = (way_back(warp(inside)) - inside).norm(dim=1).max()
    print(f"there and back, {name:16}:  off by up to {at_points:.3f} at the points, {between:.3f} between")

# %% [markdown]
# A formula for the inverse there is not. `inverse` searches: from the nearest of a lattice of starting
# points, by Newton's method with the Jacobian. It returns NaN where it finds nothing, and where the warp
# folds, one of several answers. Exercise 11-8 does it more simply, for gentle warps. For moving a picture
# along with dragged points the exchanged spline is all that is needed: it too bends least and goes through
# the points.
#
# ## 11.12 Nails too close, nails on a line
#
# Section 11.5 found two ways for the system to have no solution. On a line, the plate can tilt about it; at
# one place, two nails cannot have different lengths. The library says so:

# %%
on_a_line = torch.linspace(-1, 1, 5)[:, None] * direction
twice = torch.cat([points[:4], points[1:2]])
for bad in (on_a_line, twice):
    try:
        fit(bad, z)
    except ValueError as error:
        print("ValueError:", error)
print(
    f"with springs, at the doubled nail: {fit(twice, z, 0.01)(twice[1:2]).item():.2f}, between 0.3 and -0.2"
)

# %% [markdown]
# Nearly coincident and nearly collinear points are worse: there is an answer, and its digits are lost one by
# one. The condition number says how many. One more nail, ever closer to another one; the 16 points, squeezed
# onto a line:


# %%
def condition(points):
    """How much larger a relative error may become from right-hand side to solution."""
    K = phi((points[:, None] - points).norm(dim=-1))
    P = torch.cat([points, torch.ones(len(points), 1)], 1)
    system = torch.cat([torch.cat([K, P], 1), torch.cat([P.T, torch.zeros(3, 3)], 1)])
    return torch.linalg.cond(system).item()


print("the 16 points: the condition number is about", f"{condition(target):.0f}")
print("   apart by   lost digits: a nail close by   all near a line")
for small in (1e-1, 1e-2, 1e-3, 1e-4):
    close_by = torch.cat([target, target[5:6] + torch.tensor([small, 0.0])])
    near_a_line = target * torch.tensor([1.0, small])
    print(
        f"{small:11g}   {math.log10(condition(close_by)):28.0f}   {math.log10(condition(near_a_line)):15.0f}"
    )
pixels = 256 * (target + 1)
print(f"the 16 points in pixels of a 512 × 512 image: {math.log10(condition(pixels)):.0f} digits")

# %% [markdown]
# Float64 has 16 digits, float32 has 7. The library solves in float64 whatever it is given, warns when more
# than 10 digits are lost, and refuses when all are.
#
# The last line is a trap of its own. For the same points, counted in pixels, up to 14 digits may be lost,
# though nothing about them is wrong. It is the mixture of units: $\varphi$ of pixels reaches the millions,
# and stands in one matrix beside the 1 of $\mathbf{P}$. The spline itself does not depend
# on the unit, thanks to the side conditions once more. So the library shifts and scales the points to the
# unit disc, solves there, and goes back: `stn/spline_system.py` has the three lines of algebra.

# %%
in_pixels = fit(pixels, source)
exact = torch.allclose(in_pixels(256 * (inside + 1)), warp(inside), rtol=0, atol=1e-12)
print("fitted in pixels and in [-1, 1], the library gives the same to 12 digits:", exact)

# %% [markdown]
# What the spline does depend on is the *shape* of the coordinates. In normalised ones an image of 32 by 128
# pixels is a square, and the plate bends as much in a short step down as in a long one across. That is
# usually fine, and always to be remembered when two programs disagree.
#
# ## Summary
#
# - A thin plate takes the shape of least bending energy. It is a sum of $r^2 \log r$, the response to one
#   push, and a plane; weights and plane come out of one linear system.
# - The side conditions $\sum w = 0$ and $\sum w p = 0$ balance the pushes. Because of them the energy is
#   finite and equals $8 \pi \, w^T \mathbf{K} w$, and outside its points the spline departs from its plane
#   only like $\log r$.
# - $\lambda$ turns nails into springs: from interpolation, with 0, to the plane that fits best. Its size
#   depends on the kernel's constant and on the unit.
# - Two plates on the same nails are a map from target to source with $2 K$ free numbers: the source points.
#   Affine maps cost nothing.
# - It may fold, its inverse is not a spline, and it needs points that are apart and not on a line, in
#   coordinates of about unit size.
#
# ## Exercises
#
# Replace each `...` and run the cell. A wrong answer is told what is wrong with it. Solutions are in
# [solutions/11_thin_plate_splines.ipynb](solutions/11_thin_plate_splines.ipynb).

# %% [markdown]
# ### Exercise 11-1: counting
#
# A map with 25 control points. How many equations has its linear system; how many numbers are in $w$ and $a$
# of both coordinates together; and how many of these can be chosen freely? Give a list of three.

# %% tags=["exercise"]
# >>> solution
counts = [25 + 3, 2 * (25 + 3), 2 * 25]
# <<< solution
check("11-1", counts)

# %% [markdown]
# ### Exercise 11-2: for free
#
# Which of these have no bending energy? Give the list of their names.
#
# - `"mirror"`: all source points are the target points, left and right exchanged;
# - `"zoom"`: they are twice as far from the centre;
# - `"corner"`: of the four corners of a square, three stay and one moves;
# - `"triangle"`: there are only three points, and each moves somewhere else;
# - `"perspective"`: a $3 \times 3$ lattice, moved to where a camera would see it that looks at it from the
#   side.

# %% tags=["exercise"]
# >>> solution
free_of_charge = [
    "mirror",
    "zoom",
    "triangle",
]  # an affine map goes through any three points, but not through four
# <<< solution
check("11-2", free_of_charge)

# %% [markdown]
# ### Exercise 11-3: four corners
#
# The nails are at $(-1, -1)$, $(1, -1)$, $(-1, 1)$ and $(1, 1)$, in this order, and the first weight is 0.5.
# What are all four weights? No system needs to be solved.

# %% tags=["exercise"]
# >>> solution
corner_weights = [0.5, -0.5, -0.5, 0.5]  # three conditions leave one number of four: the saddle's
# <<< solution
check("11-3", corner_weights)

# %% [markdown]
# ### Exercise 11-4: another lambda
#
# In our kernel and in $[-1, 1]$ you have found $\lambda = 0.1$ to be good. Which $\lambda$ gives the same
# surface (a) in a program whose kernel is $r^2 \log r^2$, with the same coordinates; (b) with our kernel, but
# coordinates 100 times as large? Give a list of two.

# %% tags=["exercise"]
# >>> solution
lambdas = [0.1 * 2, 0.1 * 100**2]
# <<< solution
check("11-4", lambdas)

# %% [markdown]
# ### Exercise 11-5: safe at zero
#
# A control point that is learned gets its gradient through $\varphi$. The `phi` of this chapter has the right
# value at $r = 0$, but try its derivative there. Write a function that takes offsets $p - p_k$, a tensor
# (..., 2), and returns $\varphi$, (...), so that autograd's gradient is right everywhere:
# $\nabla \varphi = (2 \log r + 1) (p - p_k)$, and 0 at 0.


# %% tags=["exercise"]
def safe_phi(offsets):
    # >>> solution
    squared = offsets.square().sum(-1)  # no square root: its slope at 0 is infinite
    apart = squared > 0
    safe = torch.where(
        apart, squared, 1.0
    )  # before the logarithm: 0 times infinity would be NaN on the way back
    return 0.5 * safe * safe.log()  # 0 where r = 0, as log 1 = 0
    # <<< solution


check("11-5", safe_phi)

# %% [markdown]
# ### Exercise 11-6: springs of different strength
#
# Some heights are known better than others. Write a function that minimises
# $\sum_k \frac{1}{\lambda_k} (f(p_k) - z_k)^2 + \frac{1}{8 \pi} J(f)$, with one $\lambda_k$ for each nail,
# and returns $w$, (K,), and $a = (a_x, a_y, a_0)$, (3,). `points` is (K, 2), `heights` and `smoothing`, the
# $\lambda_k$, are (K,). Go back to Hooke's law.


# %% tags=["exercise"]
def springs(points, heights, smoothing):
    # >>> solution
    count = len(points)
    K = phi((points[:, None] - points).norm(dim=-1)) + torch.diag(smoothing)  # z_k - f(p_k) = λ_k w_k
    P = torch.cat([points, torch.ones(count, 1)], 1)
    system = torch.cat([torch.cat([K, P], 1), torch.cat([P.T, torch.zeros(3, 3)], 1)])
    return torch.linalg.solve(system, torch.cat([heights, torch.zeros(3)])).split([count, 3])
    # <<< solution


check("11-6", springs)

# %% [markdown]
# ### Exercise 11-7: count the folds
#
# A grid may come from anywhere, without a Jacobian. Four neighbours in it are the corners of a cell: how many
# of the cells of a `grid` $(H', W', 2)$ have a negative area? The signed area of a cell is half of the cross
# product of its diagonals, from the top left to the bottom right and from the top right to the bottom left;
# count such that the identity has none.


# %% tags=["exercise"]
def turned_over(grid):
    # >>> solution
    one = grid[1:, 1:] - grid[:-1, :-1]  # top left to bottom right
    other = grid[1:, :-1] - grid[:-1, 1:]  # top right to bottom left
    area = (one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]) / 2
    return int((area < 0).sum())
    # <<< solution


check("11-7", turned_over)

# %% [markdown]
# ### Exercise 11-8: an inverse
#
# For a warp near the identity there is a way back that needs no Jacobian. We look for $p$ with $T(p) = q$.
# Start at $p = q$; see by how much $T(p)$ misses $q$; and move $p$ by as much. Again, until it has settled.
# Write it for `places`, (M, 2); to one millionth.


# %% tags=["exercise"]
def way_back(warp, places):
    # >>> solution
    found = places
    for _ in range(100):
        found = found + (places - warp(found))
    return found
    # <<< solution


check("11-8", way_back)

# %% [markdown] tags=["solution"]
# It settles where the warp's Jacobian differs from the identity by less than 1: each step then leaves less of
# the error than there was. Newton's method divides by the Jacobian instead, which serves stronger warps and
# takes fewer steps.

# %% [markdown]
# ## In the library
#
# | built here | in the library |
# | --- | --- |
# | `solve_by_hand`, `evaluate` | `stn.thin_plate_spline.fit`, which returns a `Spline`; the system is in `stn/spline_system.py` |
# | `safe_phi` | `stn_kernels.reference.radial`, of $r^2$ |
# | the map, its grid, folds and inverse | `stn.thin_plate_spline.fit_map`, which returns a `SplineMap` |
# | a warp without a grid in memory | `stn_kernels.tps_sample` |
# | the pictures | `stn.spline_plotting.show_plate` and `show_warp`, `stn.widgets.explore` |
#
# Whoever comes from the toolbox py-thin-plate-spline [7] finds each of its functions, what it is called here
# and what is different, in a table in the docstring of `stn.thin_plate_spline`. The differences that matter
# most: three side conditions instead of one in the reduced form, coordinates in $[0, 1]$ there
# (`interval=(0, 1)`, `align_corners=True`), and an identity that is the identity.
#
# ## References
#
# 1. F. L. Bookstein. *Principal Warps: Thin-Plate Splines and the Decomposition of Deformations*. IEEE
#    Transactions on Pattern Analysis and Machine Intelligence 11(6), 1989.
#    [doi:10.1109/34.24792](https://doi.org/10.1109/34.24792). From one surface to a map.
# 2. R. L. Harder, R. N. Desmarais. *Interpolation Using Surface Splines*. Journal of Aircraft 9(2), 1972.
#    [doi:10.2514/3.44330](https://doi.org/10.2514/3.44330). The plate, for wings.
# 3. J. Duchon. *Splines minimizing rotation-invariant semi-norms in Sobolev spaces*. Lecture Notes in
#    Mathematics 571, 1977. [doi:10.1007/BFb0086566](https://doi.org/10.1007/BFb0086566). The proof that it
#    bends least.
# 4. G. Wahba. *Spline Models for Observational Data*. SIAM, 1990.
#    [doi:10.1137/1.9781611970128](https://doi.org/10.1137/1.9781611970128). Smoothing, and how to choose
#    $\lambda$.
# 5. M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu. *Spatial Transformer Networks*. NIPS 2015.
#    [arXiv:1506.02025](https://arxiv.org/abs/1506.02025). Section 3.2.
# 6. N. S. Detlefsen, O. Freifeld, S. Hauberg. *Deep Diffeomorphic Transformer Networks*. CVPR 2018. Code:
#    [SkafteNicki/ddtn](https://github.com/SkafteNicki/ddtn). Warps that cannot fold.
# 7. The toolbox: [cheind/py-thin-plate-spline](https://github.com/cheind/py-thin-plate-spline).
#
# ## Next
#
# A network can move the source points itself, and learn to straighten what bends:
# [chapter 12, The TPS transformer](12_the_tps_transformer.ipynb). Before:
# [chapter 10, Beyond affine](10_beyond_affine.ipynb); the transformer itself is
# [chapter 06](06_the_spatial_transformer.ipynb).
