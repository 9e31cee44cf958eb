# %% [markdown]
# # 18 In your own project
#
# > **The kernels leave the book: one import puts them into somebody else's model, one line warps by an optical flow, and
# > a few more register images without ever being shown how. Compiled, in half precision and exported they compute what
# > they did before; you will check each of these before you rely on it.**
#
# **You will learn**
#
# - to replace a sampler in a model that is not yours, and to prove that nothing changed;
# - to warp by displacements in pixels, and what the usual three mistakes with them look like;
# - to warp by an optical flow, and to leave out what it cannot know;
# - to register images: one pair by descent, then any pair by a network, with and without folds;
# - to choose padding and `align_corners`, to compile, to export, to keep coordinates precise, and to add a map of your own.
#
# **You need** chapters [02](02_coordinates_and_grids.ipynb), [03](03_sampling.ipynb) and [06](06_the_spatial_transformer.ipynb).
# **Runs in** about 20 seconds on two cores.

# %% tags=["setup"]
import logging
import warnings

import matplotlib.pyplot as plt
import onnxruntime
import torch
import torch.nn.functional as F
from torch import nn

import stn
from stn.exercises import check
from stn.plotting import show_grid, show_image, use_style
from stn_kernels import (
    affine_sample,
    backend,
    displacement_sample,
    grid_sample,
    reference,
    register_coordinate_map,
    sample,
)

use_style()
torch.set_printoptions(precision=4, sci_mode=False)
torch.set_num_threads(
    1
)  # the trainings are small, and their figures should not depend on the number of cores


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# %% [markdown]
# ## 18.1 What to import
#
# `stn_kernels` needs PyTorch, and on Linux Triton; no compiler, and nothing of this book. Its functions differ in what they
# are told of *where* to look:
#
# | you have | call |
# | --- | --- |
# | a grid, as for `F.grid_sample` | `grid_sample(image, grid)` |
# | a matrix for each image | `affine_sample(image, theta, size)`, `projective_sample` |
# | control points | `tps_sample(image, points, size, target_points=...)` |
# | a displacement for each pixel | `displacement_sample(image, field)` |
# | something else | `sample(..., coordinate_map=...)`, section 18.10 |
#
# The rest is the same for all: `mode`, `padding_mode`, `align_corners`, with PyTorch's names and defaults. On a GPU these
# run as kernels; on a CPU, as in this chapter, through PyTorch's own sampler, with the same values.
# `python -m stn` says which of them runs on a machine, and whether its results are right.
#
# ## 18.2 One import
#
# Here is somebody's model, as a file of its own. We have two of it: as it is, and with one import replaced.

# %%
THEIRS = """
import torch
from torch import nn
from torch.nn.functional import affine_grid, relu
from torch.nn.functional import grid_sample

class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(28 * 28, 32)
        self.head = nn.Linear(32, 6)
        self.head.bias.data = torch.tensor([1.0, 0, 0, 0, 1, 0])

    def theta(self, x):
        return self.head(relu(self.body(x.flatten(1)))).view(-1, 2, 3)

    def forward(self, x):
        return grid_sample(x, affine_grid(self.theta(x), x.shape, align_corners=False), align_corners=False)
"""
before, after = {}, {}
exec(THEIRS, before)
exec(THEIRS.replace("torch.nn.functional import grid_sample", "stn_kernels import grid_sample"), after)

torch.manual_seed(0)
theirs = before["Transformer"]()
ours = after["Transformer"]()
ours.load_state_dict(theirs.state_dict())
images, labels = stn.data.digits("train")
test_images, test_labels = stn.data.digits("test")


def compare(first, second, x):
    """The largest differences of two models' outputs, and of their parameters' gradients against the largest one."""
    for model in (first, second):
        model.zero_grad()
        model(x).square().sum().backward()
    output = (first(x) - second(x)).abs().max().item()
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    return output, max(((p.grad - q.grad).abs().max() / q.grad.abs().max()).item() for p, q in pairs)


output, gradient = compare(ours, theirs, test_images[:16])
print("the same values:   ", output < 1e-5)
print("the same gradients:", gradient < 1e-4)

# %% [markdown]
# That is the migration, and its proof: the same weights, the same input, values *and* gradients. Two remarks.
#
# - Change the import of the model, not `torch.nn.functional.grid_sample` itself: other code relies on it.
# - The model still makes a grid, two numbers for each output pixel, and stores it for the backward pass. Where the grid came
#   from a matrix, hand over the matrix (section 8.1 counts the bytes):


# %%
class Fused(before["Transformer"]):
    def forward(self, x):
        return affine_sample(x, self.theta(x), x.shape[2:])


fused = Fused()
fused.load_state_dict(theirs.state_dict())
output, gradient = compare(fused, theirs, test_images[:16])
print("without a grid, the same values:   ", output < 1e-5)
print("without a grid, the same gradients:", gradient < 1e-4)

# %% [markdown]
# ## 18.3 Displacements in pixels
#
# Optical flow and registration do not think in $[-1, 1]$. They say by how many *pixels* from its own place each output
# pixel looks, two numbers $(u, v)$ across and down:
#
# $$ V(n, m) = U\big(n + v(n, m),\ m + u(n, m)\big) $$
#
# First by hand, from the four neighbours, with zeros outside:


# %%
def warp_by_hand(image, field):
    """image (N, C, H, W), field (N, 2, H, W), x before y, in pixels -> (N, C, H, W)."""
    height, width = image.shape[2:]
    b = torch.arange(height).to(image)[:, None] + field[:, 1]
    a = torch.arange(width).to(image) + field[:, 0]
    left, top = a.floor(), b.floor()
    total = 0
    for dm in (0, 1):
        for dn in (0, 1):
            m, n = left + dm, top + dn
            weight = (1 - (a - m).abs()) * (1 - (b - n).abs())
            inside = (m >= 0) & (m < width) & (n >= 0) & (n < height)
            index = (n.clamp(0, height - 1) * width + m.clamp(0, width - 1)).long()
            values = image.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, image.shape[1], -1))
            total = total + values.view_as(image) * (weight * inside)[:, None]
    return total


def warp_in_pytorch(image, field):
    """The same with F.grid_sample: pixels, then normalised, then x and y last."""
    height, width = image.shape[2:]
    a = torch.arange(width).to(image) + field[:, 0]
    b = torch.arange(height).to(image)[:, None] + field[:, 1]
    grid = torch.stack([(2 * a + 1) / width - 1, (2 * b + 1) / height - 1], dim=-1)
    return F.grid_sample(image, grid, align_corners=False)


picture = torch.rand(2, 3, 20, 30, generator=seeded(0), dtype=torch.float64)
field = 3 * torch.randn(2, 2, 20, 30, generator=seeded(1), dtype=torch.float64)
problem = [picture.requires_grad_(), field.requires_grad_()]
results = []
for warp in (warp_by_hand, warp_in_pytorch, displacement_sample):
    V = warp(*problem)
    results.append((V, *torch.autograd.grad(V.square().sum(), problem)))
for name, result in zip(("PyTorch", "library"), results[1:], strict=True):
    agree = [torch.allclose(x, y, rtol=0, atol=1e-9) for x, y in zip(results[0], result, strict=True)]
    print(f"by hand and {name}: values {agree[0]}, gradient of the image {agree[1]}, of the field {agree[2]}")

# %% [markdown]
# Three lines of index arithmetic in front of `F.grid_sample` leave room for three mistakes, none of which raises an error.
# How far off does each look? Sample not a picture but two **rulers**, images that hold their own columns and rows: what
# comes out is where the sampler looked.

# %%
H, W = 120, 180
rulers = torch.stack(torch.meshgrid(torch.arange(W), torch.arange(H), indexing="xy"))[None].double()
smooth = F.interpolate(4 * torch.randn(1, 2, 4, 6, generator=seeded(2)).double(), (H, W), mode="bicubic")


def looked_at(a, b, align_corners=False, denominators=(W, H), offset=1):
    """Where F.grid_sample looks if it is told so, in pixels: (1, 2, H, W)."""
    x, y = ((2 * place + offset) / extent - 1 for place, extent in zip((a, b), denominators, strict=True))
    grid = torch.stack([x, y], dim=-1)
    return F.grid_sample(rulers, grid, padding_mode="border", align_corners=align_corners)


a, b = (rulers + smooth)[:, 0], (rulers + smooth)[:, 1]
right = looked_at(a, b)
mistakes = {
    "rows before columns": looked_at(*(rulers + smooth.flip(1)).unbind(1)),
    "the other direction": looked_at(*(rulers - smooth).unbind(1)),
    "W - 1, not aligned": looked_at(a, b, denominators=(W - 1, H - 1), offset=0),
}
inside = (slice(None), slice(None), slice(15, -15), slice(15, -15))
for name, wrong in mistakes.items():
    off = (wrong - right)[inside].norm(dim=1)
    print(f"{name:20} off by {off.mean():4.1f} pixels on average, {off.max():4.1f} at most")
by_library = displacement_sample(rulers, smooth, padding_mode="border")
print("the library looks where it should:", torch.allclose(by_library, right, atol=1e-9))

# %% [markdown]
# The first two are found by anyone who looks at a picture; the third, half a pixel near the border and nothing in the
# middle, is found by nobody. Rulers find it. They belong into the tests of every project that warps.
#
# In pixels there is no `align_corners` to get wrong, unless something is mirrored:

# %%
for padding_mode in ("zeros", "border", "reflection"):
    either = [
        displacement_sample(picture, 3 * field, padding_mode=padding_mode, align_corners=c)
        for c in (False, True)
    ]
    print(f"{padding_mode:10} the same with both values of align_corners: {torch.allclose(*either)}")

# %% [markdown]
# (The mirror stands at $\pm 1$, which is half a pixel further out with `False`.)
#
# ## 18.4 Warping by optical flow
#
# An **optical flow** says for each pixel of a first image where it is in a second one. Networks that estimate it, such as
# RAFT [1], warp the second image back by their estimate, to compare it with the first. That is
# `displacement_sample(second, flow)`. As a scene we take a formula, so that both images are known at every place: the second
# is the first, closer by 8 % and moved.


# %%
def scene(a, b):
    return 0.5 + 0.25 * torch.sin(a / 3) * torch.cos(b / 4) + 0.25 * torch.sin((a + 2 * b) / 7)


H, W = 48, 64
a, b = torch.meshgrid(torch.arange(float(W)), torch.arange(float(H)), indexing="xy")
middle = ((W - 1) / 2, (H - 1) / 2)
flow = torch.stack([0.08 * (a - middle[0]) + 4, 0.08 * (b - middle[1]) - 2])[None]
first = scene(a, b)[None, None]
second = scene(middle[0] + (a - 4 - middle[0]) / 1.08, middle[1] + (b + 2 - middle[1]) / 1.08)[None, None]

back = displacement_sample(second, flow)
known = displacement_sample(torch.ones_like(second), flow) > 0.999


def off(warped, where):
    return (warped - first).abs()[where].mean().item()


print(f"not warped:                   off by {off(second, known):.3f}")
print(f"warped, where it is known:    off by {off(back, known):.3f}")
print(f"warped, everywhere:           off by {off(back, torch.ones_like(known)):.3f}")
print(f"{(~known).float().mean():.0%} of the pixels have left the second image")
for padding_mode in ("border", "reflection"):
    there = displacement_sample(second, flow, padding_mode=padding_mode)
    print(f"these with {padding_mode:11}        off by {off(there, ~known):.3f}")
print(f"the flow with a minus:        off by {off(displacement_sample(second, -flow), known):.3f}")

# %% alt="Four panels. The first image, a soft pattern of light and dark patches; the second, the same from nearer and shifted to the upper right; the second warped back, like the first but for a black strip along the right side and the top; and a mask, white where the flow leads into the second image, black in that same strip."
fig, axes = plt.subplots(1, 4, figsize=(9, 2))
panels = {"first": first, "second": second, "warped back": back, "known": known.float()}
for ax, (name, panel) in zip(axes, panels.items(), strict=True):
    show_image(panel[0], ax, name)
plt.show()

# %% [markdown]
# What has left the picture cannot be warped back, and no padding invents it. So warp an image of ones, too: where the result is
# less than 1, the sampler saw padding. Multiply the loss by that mask. Things that are *hidden* in the second image need
# more: flow in both directions, and a look at where the two do not cancel.
#
# RAFT's other sampler looks up correlations in a window around each match. A window is an affine map, so there it is one
# `affine_sample` with a $\theta$ for each pixel; `kernels/examples/optical_flow.py` has it.
#
# ## 18.5 Registering one pair
#
# **Registration** looks for the field that makes one image, the moving one, look like another, the fixed one. Section 10.10
# showed that a free field can paint nearly anything. What is wanted is a field that bends *one anatomy into another*, and that means
# two things: neighbours move alike, and nothing folds. Both are measured by differences between neighbours. By hand, and
# from the library:

# %%
u = torch.randn(2, 2, 9, 11, generator=seeded(3))
across, down = u[..., 1:] - u[..., :-1], u[:, :, 1:] - u[:, :, :-1]
rough = (across.square().mean() + down.square().mean()) / 2
print("roughness agrees:", torch.allclose(rough, stn.displacement_fields.roughness(u)))

along_x, along_y = across[:, :, :-1], down[..., :-1]
determinant = (1 + along_x[:, 0]) * (1 + along_y[:, 1]) - along_y[:, 0] * along_x[:, 1]
agrees = torch.allclose(determinant, stn.displacement_fields.jacobian_determinant(u), atol=1e-5)
print("determinants agree:", agrees)
print(f"this random field folds at {(determinant < 0).float().mean():.0%} of its pixels")

# %% [markdown]
# The determinant says what becomes of a pixel's area; negative, it has been turned over. Two fives, by descent on both
# images blurred, less and less (section 4.10), with more and more weight $\lambda$ on the roughness:


# %%
def fives(images, labels):
    return images[labels == 5]


moving, fixed = fives(test_images, test_labels)[3:4], fives(test_images, test_labels)[7:8]


def left_over(moving, fixed, field):
    """What share of the squared difference is left."""
    return (F.mse_loss(displacement_sample(moving, field), fixed) / F.mse_loss(moving, fixed)).item()


def folds(field):
    return (stn.displacement_fields.jacobian_determinant(field) < 0).float().mean().item()


def register(moving, fixed, smoothness, as_field=lambda p: p, steps=60):
    p = torch.zeros(1, 2, 28, 28, requires_grad=True)
    optimiser = torch.optim.Adam([p], lr=0.1)
    for width in (4, 2, 0):
        source, target = (stn.blur(image, width) if width else image for image in (moving, fixed))
        for _ in range(steps):
            field = as_field(p)
            loss = F.mse_loss(displacement_sample(source, field), target)
            loss = loss + smoothness * stn.displacement_fields.roughness(field)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return as_field(p).detach()


found = {smoothness: register(moving, fixed, smoothness) for smoothness in (0, 0.01, 0.1)}
for smoothness, field in found.items():
    torn = folds(field)
    print(
        f"lambda = {smoothness:4}: at most 2 % of the difference left: {left_over(moving, fixed, field) <= 0.02}, "
        f"folds at more than 5 % of the pixels: {torn > 0.05}, at less than 0.5 %: {torn < 0.005}"
    )

# %% [markdown]
# A smooth field does as well as a torn one. But a penalty only makes folds dear. To make them *impossible*, one registers by a
# **velocity** $v$ in place of a displacement [2]: each point is carried along by $v$ for one unit of time. A very small
# step along $v$ does not fold; two steps are that map after itself, four are that one after itself, and so on. Seven such
# doublings, **scaling and squaring**, make 128 steps, and each is a `displacement_sample` of the field by itself:


# %%
def integrate_by_hand(velocity, steps=7):
    field = velocity / 2**steps
    for _ in range(steps):
        field = field + displacement_sample(field, field, padding_mode="border")
    return field


v = 4 * stn.blur(torch.randn(1, 2, 28, 28, generator=seeded(4)), 4)
along = integrate_by_hand(v)
print("as the library does it:", torch.equal(along, stn.displacement_fields.integrate(v)))
backwards = integrate_by_hand(-v)
home = along + displacement_sample(backwards, along, padding_mode="border")
print(
    f"there and back: off by {home[..., 4:-4, 4:-4].abs().mean():.2f} pixels; "
    f"there alone: {along[..., 4:-4, 4:-4].abs().mean():.2f}"
)

flows = register(moving, fixed, 0.1, stn.displacement_fields.integrate)
print("by a velocity, at most 2 % left:", left_over(moving, fixed, flows) <= 0.02)
print("folds at less than 0.5 % of the pixels:", folds(flows) < 0.005)

# %% alt="Two rows. Above: the moving five, the fixed five, and the moving five warped by three fields, all of which look like the fixed five. Below, under the three: their grids drawn on the moving five. Without smoothing the grid is a tangle; with it the lines bend evenly and stay apart; the one from a velocity is as even."
fig, axes = plt.subplots(2, 5, figsize=(9, 3.8))
show_image(moving[0], axes[0, 0], "moving")
show_image(fixed[0], axes[0, 1], "fixed")
for ax in axes[1, :2]:
    ax.set_axis_off()
places = torch.stack(torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="xy"))
shown = {r"$\lambda = 0$": found[0], r"$\lambda = 0.1$": found[0.1], "velocity": flows}
for column, (name, field) in zip(axes.T[2:], shown.items(), strict=True):
    show_image(displacement_sample(moving, field)[0], column[0], name)
    show_grid(moving[0], ((2 * (places + field[0]) + 1) / 28 - 1).permute(1, 2, 0), column[1])
plt.show()

# %% [markdown]
# ## 18.6 Registering any pair
#
# VoxelMorph [3] does not descend for each pair. A network looks at both images and returns the field; it is trained by the
# same loss, on as many pairs as there are, and never sees a field that is right. A spatial transformer, then, whose
# localisation network has two input images and two outputs for each pixel:


# %%
class Registration(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.first = nn.Conv2d(2, width, 3, stride=2, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.joined = nn.Conv2d(3 * width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 2, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)  # starts at the identity

    def forward(self, moving, fixed):
        half = F.leaky_relu(self.first(torch.cat([moving, fixed], 1)), 0.2)
        deep = F.leaky_relu(self.deep(F.leaky_relu(self.second(half), 0.2)), 0.2)
        joined = F.leaky_relu(self.joined(torch.cat([half, F.interpolate(deep, scale_factor=2)], 1)), 0.2)
        # In pixels: a field of twice the resolution counts twice as many.
        velocity = 2 * F.interpolate(self.last(joined), scale_factor=2, mode="bilinear")
        return stn.displacement_fields.integrate(velocity, steps=5)


torch.manual_seed(0)
network = Registration()
optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
train_fives, generator = fives(images, labels), seeded(0)
for _ in range(400):
    pair = train_fives[torch.randint(len(train_fives), (2, 32), generator=generator)]
    field = network(*pair)
    loss = F.mse_loss(displacement_sample(pair[0], field), pair[1])
    loss = loss + 0.005 * stn.displacement_fields.roughness(field)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

unseen = fives(test_images, test_labels)
half_of_them = len(unseen) // 2
pairs = unseen[:half_of_them], unseen[half_of_them : 2 * half_of_them]
with torch.no_grad():
    field = network(*pairs)
print(f"{half_of_them} pairs of fives that it never saw, one pass each")
print("less than 0.3 of the difference is left:", left_over(*pairs, field) < 0.3)
print("folds at less than 1 % of the pixels:   ", folds(field) < 0.01)

# %% alt="Three rows of six digits, all fives. Above, the moving ones; in the middle, these as the network warped them; below, the fixed ones. Those in the middle have the strokes of the upper row and, nearly, the shape of the lower."
fig, axes = plt.subplots(3, 6, figsize=(7.5, 4))
rows = {"moving": pairs[0], "warped": displacement_sample(pairs[0], field), "fixed": pairs[1]}
for row, (name, digits) in zip(axes, rows.items(), strict=True):
    for ax, digit in zip(row, digits, strict=False):
        show_image(digit, ax)
    row[0].set_ylabel(name)
plt.show()

# %% [markdown]
# One pass of a small network does most of what 180 steps of descent did for a pair. Volumes need a third number in each
# displacement, and `Conv3d`: `kernels/examples/registration.py` does both, and keeps VoxelMorph's order of
# channels, rows before columns.
#
# ## 18.7 Choosing padding and align_corners
#
# What a sampler says outside decides what a *field* or a $\theta$ learns there. Four pixels in a row, and a place that
# wanders out of them to the right; value and slope:

# %%
row = torch.tensor([[[[0.2, 0.9, 0.4, 0.6]]]]).double()
print(f"{'pixels beyond the last':24}" + "".join(f"{beyond:12.2f}" for beyond in (-0.25, 0.25, 0.75, 1.25)))
for padding_mode in ("zeros", "border", "reflection"):
    line = ""
    for beyond in (-0.25, 0.25, 0.75, 1.25):
        shift = torch.zeros(1, 2, 1, 4, dtype=torch.float64)
        shift[0, 0, 0, 3] = beyond
        shift.requires_grad_()
        V = displacement_sample(row, shift, padding_mode=padding_mode)[0, 0, 0, 3]
        (slope,) = torch.autograd.grad(V, shift)
        line += f"{V.item():6.2f}{slope[0, 0, 0, 3].item() + 0.0:6.2f}"
    print(f"{padding_mode:24}{line}")

# %% [markdown]
# - `zeros` has a cliff of one pixel, and a slope on it that is about the frame, not the picture. Right where outside *is* black,
#   and for masks.
# - `border` has no slope outside: a place that has wandered out is not called back by the loss. Right for photographs, for
#   text, and for fields that are sampled by themselves, as in section 18.5.
# - `reflection` has slopes outside, too, of the mirrored picture: they lead further out as readily as home. Right for augmentation.
#
# `align_corners` says what $\pm 1$ mean. Keep what the weights were trained with: a $\theta$ knows nothing of it. In new code
# `False`, PyTorch's default, has one advantage: a $\theta$ then means the same at every resolution. Zoom by 2 into the upper
# left quarter, at two resolutions:

# %%
zoom = torch.tensor([[[0.5, 0.0, -0.5], [0.0, 0.5, -0.5]]])
for align_corners in (False, True):
    edges = []
    for size in (32, 64):
        ruler = ((torch.arange(size) + 0.5) / size).expand(1, 1, size, size)  # from 0 to 1, edge to edge
        V = affine_sample(ruler, zoom, (size, size), align_corners=align_corners)[0, 0, 10]
        edges.append((V[10] - 10.5 * (V[11] - V[10])).item())  # back from the middle of pixel 10
    print(
        f"align_corners={align_corners!s:5}: the view begins at {edges[0] + 0.0:.4f} and {edges[1] + 0.0:.4f} of the width"
    )

# %% [markdown]
# ## 18.8 Compiled and exported
#
# The functions are registered operators, so `torch.compile` takes a model that holds them as one graph, without a break,
# forward and backward. `fullgraph=True` makes a break an error. The default backend turns what is left around them into C++,
# and needs a compiler; `aot_eager` captures and differentiates the very same graph and then runs it as it is. So this
# cell runs everywhere:


# %%
class Look(nn.Module):
    def forward(self, image, theta):
        size = (image.shape[2] // 2, image.shape[3] // 2)
        return affine_sample(image.sin(), theta, size).cos()


look = Look()
image = torch.rand(4, 3, 20, 24, generator=seeded(5))
theta = torch.eye(2, 3) + 0.1 * torch.randn(4, 2, 3, generator=seeded(6))
problem = [image.requires_grad_(), theta.requires_grad_()]
compiled = torch.compile(look, fullgraph=True, backend="aot_eager")
outputs = look(*problem), compiled(*problem)
print("compiled, the same values:   ", torch.allclose(*outputs, atol=1e-6))
gradients = [torch.autograd.grad(V.sum(), problem) for V in outputs]
print(
    "compiled, the same gradients:",
    all(torch.allclose(g, h, atol=1e-4) for g, h in zip(*gradients, strict=True)),
)

# %% [markdown]
# `torch.func` knows them as well. `vmap` maps a function of *one* example over a batch, such as the gradient of a loss: here
# that of each image's own $\theta$, once in a loop and once for all at a time.


# %%
def loss(theta, image):
    return look(image[None], theta[None]).square().sum()


slope = torch.func.grad(loss)
one_by_one = torch.stack([slope(t, i) for t, i in zip(theta.detach(), image.detach(), strict=True)])
at_once = torch.func.vmap(slope)(theta.detach(), image.detach())
print("vmap of a gradient, the same as a loop:", torch.allclose(at_once, one_by_one, atol=1e-3))

# %% [markdown]
# `torch.export` writes the model down for later, with any number of images. In its graph the warp is one node. ONNX, for
# runtimes that know nothing of PyTorch, has an operator of its own for sampling, and the map's arithmetic stands in front of
# it: standard operators only.

# %%
image, theta = image.detach(), theta.detach()
batch = torch.export.Dim("batch")
program = torch.export.export(look, (image, theta), dynamic_shapes={"image": {0: batch}, "theta": {0: batch}})
print([str(node.target) for node in program.graph.nodes if node.op == "call_function"])
several = image.repeat(2, 1, 1, 1), theta.repeat(2, 1, 1)
print(
    "exported, for twice as many images:",
    torch.allclose(program.module()(*several), look(*several), atol=1e-6),
)

logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of what is not installed
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the exporter uses parts of PyTorch that are deprecated
    model = torch.onnx.export(look, (image, theta), dynamo=True, verbose=False).model_proto
operators = {node.op_type for node in model.graph.node}
print("ONNX: standard operators only:", {node.domain for node in model.graph.node} == {""})
print("one of them samples:", "GridSample" in operators)
session = onnxruntime.InferenceSession(model.SerializeToString())
(run,) = session.run(None, {"image": image.numpy(), "theta": theta.numpy()})
print("and gives the same values:", torch.allclose(torch.from_numpy(run), look(image, theta), atol=1e-5))

# %% [markdown]
# ## 18.9 Half precision
#
# Under `torch.autocast` features come in bfloat16, which keeps 8 bits of a number. That will do for grey values. For
# *places* it does not: at a width of 512, between one half and 1, neighbouring coordinates are a whole pixel apart,
# and beyond 1 two pixels. So keep $\theta$ and grids in float32. The library takes them beside an image of half precision, and computes places and sums in
# float32:

# %%
wide = stn.blur(torch.rand(1, 1, 8, 512, generator=seeded(7)), 4)
turned = torch.tensor([[[0.98, 0.05, 0.01], [0.0, 1.0, 0.0]]])
exact = affine_sample(wide.double(), turned.double(), (8, 512))
with torch.autocast("cpu", dtype=torch.bfloat16):
    features = F.conv2d(wide, torch.ones(1, 1, 1, 1))
    kept = affine_sample(features, turned, (8, 512))
grid = F.affine_grid(turned, (1, 1, 8, 512), align_corners=False)
rounded = F.grid_sample(features.float(), grid.bfloat16().float(), align_corners=False)
print("autocast gave features, and the warp an output, in", *{str(features.dtype)[6:], str(kept.dtype)[6:]})
spread = exact.std()
print(f"places in float32:  off by {(kept - exact).abs().mean() / spread:.1%} of the picture's spread")
print(f"places in bfloat16: off by {(rounded - exact).abs().mean() / spread:.1%}")
print(f"its grid is off by up to {((grid - grid.bfloat16()) * 256).abs().max():.2f} pixels")

# %% [markdown]
# ## 18.10 A map of your own
#
# A lens that bulges is not in the table of section 18.1. `register_coordinate_map` takes a function from the parameters to
# *offsets from the image's centre, in pixels*; without a Triton twin it runs as plain PyTorch on every device, differentiable,
# with every mode and padding:


# %%
def barrel(parameters, shared, input_size, size, align_corners):
    """k (M, 1): each place is pushed outwards by k times its squared radius."""
    x, y = reference.normalised_pixels(size, parameters, align_corners)
    push = 1 + parameters[:, :, None] * (x * x + y * y)
    half_extents = parameters.new_tensor(reference.half_extents(input_size, align_corners))
    return torch.stack([x * push, y * push], dim=-1) * half_extents


register_coordinate_map("barrel", barrel)
k = torch.tensor([[0.1], [0.3]], dtype=torch.float64, requires_grad=True)
digit = test_images[:1].double()
V = sample(digit, k, (28, 28), coordinate_map="barrel")

x, y = F.affine_grid(torch.eye(2, 3)[None].double(), (1, 1, 28, 28), align_corners=False).unbind(-1)
push = 1 + k[:, :, None] * (x * x + y * y)
by_hand = F.grid_sample(
    digit.expand(2, -1, -1, -1), torch.stack([x * push, y * push], -1), align_corners=False
)
print("by hand and by the library:", torch.allclose(V, by_hand, atol=1e-9))
slopes = [torch.autograd.grad(output.square().sum(), k)[0] for output in (V, by_hand)]
print("and their gradients:       ", torch.allclose(*slopes, atol=1e-8))

backend.interpret_cpu_tensors = True  # as on a GPU: Triton's kernels have the first turn
taken_over = sample(digit, k, (28, 28), coordinate_map="barrel")
backend.interpret_cpu_tensors = False
print("among kernels, too:        ", torch.equal(taken_over, V))

# %% [markdown]
# With a pair of Triton functions the map runs inside the fused kernels: section 8.7, and a complete example in
# `kernels/README.md`.
#
# ## Summary
#
# - One import replaces the sampler, and a test of values and gradients with the same weights proves it. Where a grid came from a
#   matrix or a field, hand over that, and the grid is gone.
# - In pixels, x before y, from target to source: three conventions, three mistakes. Sample rulers and read off where you look.
# - What has left the picture is not known: warp ones, and mask the loss.
# - A field needs a penalty to be smooth and a velocity to have an inverse; a network learns to give either without being shown.
# - Compile with `fullgraph=True`, export, run in half precision; keep places in float32, and `align_corners` as it was.
#
# ## Exercises
#
# Replace each `...` and run the cell. A wrong answer is told what is wrong with it. Solutions are in
# [solutions/18_in_your_own_project.ipynb](solutions/18_in_your_own_project.ipynb).
#
# ### Exercise 18-1: a flow as a grid
#
# Somebody's code wants a grid, (N, H, W, 2), for `F.grid_sample` with `align_corners=True`. Make it of a `flow`, (N, 2, H, W), x
# before y, in pixels.


# %% tags=["exercise"]
def grid_of_flow(flow):
    # >>> solution
    height, width = flow.shape[2:]
    a = torch.arange(width).to(flow) + flow[:, 0]
    b = torch.arange(height).to(flow)[:, None] + flow[:, 1]
    return torch.stack([2 * a / (width - 1) - 1, 2 * b / (height - 1) - 1], dim=-1)
    # <<< solution


check("18-1", grid_of_flow)

# %% [markdown]
# ### Exercise 18-2: somebody else's channels
#
# A trained network returns fields (N, 3, D, H, W) for volumes, in voxels, its channels in the order of the axes: z, y, x. Return the
# volume (N, C, D, H, W), warped by it.


# %% tags=["exercise"]
def warp_volume(volume, field):
    # >>> solution
    return displacement_sample(volume, field.flip(1))
    # <<< solution


check("18-2", warp_volume)

# %% [markdown]
# ### Exercise 18-3: a field at half the resolution
#
# A network predicts a field (N, 2, h, w) in pixels of an image of half the size. Return the field (N, 2, 2 h, 2 w) for the
# image of full size, in *its* pixels, interpolated bilinearly (`F.interpolate`, `align_corners=False`).


# %% tags=["exercise"]
def full_resolution(field):
    # >>> solution
    return 2 * F.interpolate(field, scale_factor=2, mode="bilinear", align_corners=False)
    # <<< solution


check("18-3", full_resolution)

# %% [markdown]
# ### Exercise 18-4: a loss on what is known
#
# Return the mean absolute difference between `first` and `second` (N, 1, H, W), warped back by `flow`, over the pixels where
# the flow does not leave the second image: where all four neighbours that count are there.


# %% tags=["exercise"]
def known_difference(first, second, flow):
    # >>> solution
    known = displacement_sample(torch.ones_like(second), flow) > 0.999
    return (displacement_sample(second, flow) - first).abs()[known].mean()
    # <<< solution


check("18-4", known_difference)

# %% [markdown]
# ### Exercise 18-5: does it fold?
#
# Return the share of the pixels at which a field (N, 2, H, W), in pixels, folds. By differences to the next pixel, so that of
# each row and each column the last is left out.


# %% tags=["exercise"]
def share_of_folds(field):
    # >>> solution
    return (stn.displacement_fields.jacobian_determinant(field) < 0).double().mean().item()
    # <<< solution


check("18-5", share_of_folds)

# %% [markdown]
# ### Exercise 18-6: what eight bits cost
#
# bfloat16 keeps 8 bits of a number, the leading one included. By how many *pixels* may a coordinate between $\frac12$ and 1 be
# off, at most, when it is rounded to the nearest, in an image 1024 pixels wide (`align_corners=False`)?

# %% tags=["exercise"]
# >>> solution
pixels_off = 2**-9 * 1024 / 2
# <<< solution
check("18-6", pixels_off)

# %% [markdown]
# ### Exercise 18-7: deformable attention
#
# Deformable DETR [4] samples `value`, (N, H W, C), a feature map row by row, at `locations`, (N, Q, P, 2), x before y, from
# 0 to 1 over the map from edge to edge. Return the samples, (N, C, Q, P).


# %% tags=["exercise"]
def attended(value, height, width, locations):
    # >>> solution
    feature_map = value.transpose(1, 2).unflatten(2, (height, width))
    return grid_sample(feature_map, 2 * locations - 1, align_corners=False)
    # <<< solution


check("18-7", attended)

# %% [markdown]
# ## In the library
#
# | built here | in the library |
# | --- | --- |
# | `warp_by_hand` | `stn_kernels.displacement_sample` |
# | roughness, determinants, scaling and squaring | `stn.displacement_fields`, in 2-D and 3-D |
# | one import, VoxelMorph, RAFT, Deformable DETR, RARE [5] and ASTER [6], kornia | `kernels/examples`, each tested against the original |
# | maps and sampling kernels of one's own | `register_coordinate_map`, `register_sampling_kernel` |
#
# ## References
#
# 1. Z. Teed, J. Deng. *RAFT: Recurrent All-Pairs Field Transforms for Optical Flow*. ECCV 2020.
#    [arXiv:2003.12039](https://arxiv.org/abs/2003.12039).
# 2. V. Arsigny, O. Commowick, X. Pennec, N. Ayache. *A Log-Euclidean Framework for Statistics on Diffeomorphisms*. MICCAI 2006.
#    [doi:10.1007/11866565_113](https://doi.org/10.1007/11866565_113). Scaling and squaring.
# 3. G. Balakrishnan, A. Zhao, M. R. Sabuncu, J. Guttag, A. V. Dalca. *VoxelMorph: A Learning Framework for Deformable Medical
#    Image Registration*. IEEE Transactions on Medical Imaging 2019. [arXiv:1809.05231](https://arxiv.org/abs/1809.05231).
# 4. X. Zhu, W. Su, L. Lu, B. Li, X. Wang, J. Dai. *Deformable DETR: Deformable Transformers for End-to-End Object Detection*.
#    ICLR 2021. [arXiv:2010.04159](https://arxiv.org/abs/2010.04159).
# 5. B. Shi, X. Wang, P. Lyu, C. Yao, X. Bai. *Robust Scene Text Recognition with Automatic Rectification*. CVPR 2016.
#    [arXiv:1603.03915](https://arxiv.org/abs/1603.03915).
# 6. B. Shi, M. Yang, X. Wang, P. Lyu, C. Yao, X. Bai. *ASTER: An Attentional Scene Text Recognizer with Flexible Rectification*.
#    IEEE TPAMI 2019. [doi:10.1109/TPAMI.2018.2848939](https://doi.org/10.1109/TPAMI.2018.2848939).
#
# ## Next
#
# This is the last chapter. What comes after it is yours. Before: [chapter 17, The experiments](17_the_experiments.ipynb).
