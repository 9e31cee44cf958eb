# %% [markdown]
# # 14 Aliasing, and gradients that see further
#
# > **A bilinear sample looks at four pixels. Forward, that is too few where a picture shrinks: most of it is
# > never looked at, and what is left can lie. Backward, it is too few where $\theta$ is far from where it
# > should be: the gradient knows nothing of what is more than a pixel away. Both have a remedy, and in this
# > chapter you build both, prove what can be proved, and measure the rest.**
#
# **You will learn**
#
# - what aliasing is, on a picture that shows it at its worst, and which pixels a sampler never reads;
# - what an output pixel stands for: its footprint, and how to take the mean over it;
# - how four remedies compare with the truth, what they cost, and what they do to the gradient of $\theta$;
# - to send gradients through blurred copies of an image while its values stay sharp, and why the blur should
#   be a tent;
# - how much farther a transformer then finds its way, and what that costs in precision.
#
# **You need** chapters [04](04_gradients.ipynb) and [06](06_the_spatial_transformer.ipynb); section 10.2 for one
# example, a projective map; and for section 14.7 alone that the Fourier transform of a convolution is a product.
# **Runs in** about 50 seconds on two cores.

# %% tags=["setup"]
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import stn
from stn.exercises import check
from stn.plotting import show_image, use_style
from stn_kernels import affine_sample

use_style()
torch.set_printoptions(precision=4, sci_mode=False)
device = "cuda" if torch.cuda.is_available() else "cpu"
images, labels = (tensor.to(device) for tensor in stn.data.digits("test"))
affine = stn.Affine()

# %% [markdown]
# ## 14.1 A picture that shows it
#
# At the end of its section 3.4 the paper [1] warns: a sampling kernel of small, fixed support, like the bilinear one,
# can cause *aliasing* when a transformer shrinks its input. Section 3.12 met it in digits. Digits are mild. To see
# the effect bare, take a row of pixels that swings ever faster:
#
# $$ U_a = \cos\left(\pi a^2 / 192\right), \qquad a = -96 \ldots 96. $$
#
# The argument grows by $2 \pi a / 192$ from one pixel to the next: at $a$ there are $a / 192$ periods a pixel.
# At $a = 96$ it is one half, bright, dark, bright, dark, the finest that pixels can hold. Now keep every fourth
# pixel.

# %%
a = torch.arange(-96, 97, dtype=torch.float64)
row = torch.cos(math.pi * a**2 / 192)
kept = {int(place): value.item() for place, value in zip(a, row, strict=True) if place % 4 == 0}
for start in (0, 48):
    values = "  ".join(f"{kept[start + step]:6.3f}" for step in range(0, 21, 4))
    print(f"kept at a = {start:2}, {start + 4:2}, ... {start + 20}:  {values}")

# %% [markdown]
# The numbers kept around $a = 48$ are those kept around $a = 0$. Around 0 the row is nearly constant; around 48
# it has a quarter of a period a pixel, so a whole one from each kept pixel to the next, and a whole period looks
# like none. That is **aliasing**: fine structure poses as coarse. It is not noise that a later layer could
# average away, for the two are *the same numbers*. Four pixels apart one can hold an eighth of a period a pixel,
# here up to $|a| = 24$. All that is finer should be gone; a grey surface would be the honest answer.
#
# With distance from a centre in the place of $a$ the row becomes a **zone plate**:

# %% alt="Three panels. Left: the zone plate, rings around the centre that get finer outwards. Middle: sampled at 48 by 48 places, around the true centre there are eight false centres with rings of their own. Right: means of 4 by 4 pixels: one set of rings that fades into grey, with faint shadows of false centres."
t = torch.arange(192.0, device=device) - 95.5
zone_plate = (0.5 + 0.5 * torch.cos(math.pi * (t**2 + t[:, None] ** 2) / 192))[None, None]
identity = torch.eye(2, 3, device=device)[None]
sampled, averaged = affine_sample(zone_plate, identity, (48, 48)), F.avg_pool2d(zone_plate, 4)

fig, axes = plt.subplots(1, 3, figsize=(9, 3.2))
show_image(zone_plate[0], axes[0], "192 × 192 pixels")
axes[0].images[0].set_interpolation("hanning")  # or the display, of some other size, would alias itself
show_image(sampled[0], axes[1], "sampled at 48 × 48 places")
show_image(averaged[0], axes[2], "means of 4 × 4 pixels")
plt.show()

too_fine = ((t.abs() > 24) | (t[:, None].abs() > 24))[2::4, 2::4]
for name, picture in (("sampled", sampled), ("means", averaged)):
    print(f"{name:8} contrast where there is nothing to be shown: {picture[0, 0][too_fine].std():.2f}")

# %% [markdown]
# The middle panel has centres that the input does not have. The right one is nearly grey where it should be.
# Nearly: faint shadows remain, for equal weights are no sharp filter.
#
# ## 14.2 What is never read
#
# In chapter 04 the gradient of the image was a splat: each output pixel paints its weights where it read. So
# the gradient of the *sum* of all outputs is a map of what was read, and how often.


# %%
def read_map(shrink, size=120):
    """How much each pixel of an image counts when it is sampled at `shrink` times fewer places each way."""
    image = torch.zeros(1, 1, size, size, device=device, requires_grad=True)
    (weights,) = torch.autograd.grad(affine_sample(image, identity, (size // shrink,) * 2).sum(), image)
    return weights[0, 0]


for shrink in (1, 2, 3, 4, 5, 8):
    print(f"shrunk {shrink} times: {(read_map(shrink) > 1e-3).float().mean():6.1%} of the pixels are read")

# %% [markdown]
# Down to one half every pixel is read, and each counts the same: shrinking by 2, in the middle between pixels,
# *is* the mean of 2 × 2. From there it goes down as $4 / s^2$, and for odd $s$ as $1 / s^2$: the places then lie
# on pixels, and of the four neighbours three have weight 0. What is not read has no influence on the output. And
# as section 4.6 has it, no gradient either.
#
# ## 14.3 The footprint of a pixel
#
# What should an output pixel say? A camera's pixel collects the light that falls on its *area*. So: the pixel's
# unit square, sent into the image by $T_\theta$, is the part that it stands for, its **footprint**. Where $T$ is
# straight enough the footprint of the output pixel $p$ is a parallelogram,
#
# $$ T(p) + J d, \qquad d \in \left[-\tfrac12, \tfrac12\right]^2, $$
#
# spanned by the columns of the Jacobian $J$: how far one moves in the image, in pixels, when one moves one pixel
# to the right, and one pixel down, in the output. Differences across the pixel give it for any map:


# %%
def footprints(transform, theta, size, input_size):
    """T(p) and J of all output pixels, in pixels of a square input: (H', W', 2) and, columns last, (H', W', 2, 2)."""
    height, width = size
    x = (2 * torch.arange(width, device=device) + 1) / width - 1
    y = (2 * torch.arange(height, device=device) + 1) / height - 1
    target = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(1, -1, 2)
    half_pixels = torch.tensor([[1 / width, 0.0], [0.0, 1 / height]], device=device)
    columns = [
        transform.map_points(theta, target + half) - transform.map_points(theta, target - half)
        for half in half_pixels
    ]
    places = transform.map_points(theta, target)
    J = torch.stack(columns, -1) * input_size / 2
    return (((places + 1) * input_size - 1) / 2).view(height, width, 2), J.view(height, width, 2, 2)


# An affine map that shrinks 4 times across, twice down, and turns; and a floor that is seen in perspective.
turned = torch.tensor([[0.767, -0.227, 0.0, 0.324, 0.537, 0.0]], device=device)
tilted = torch.tensor([[0.45, 0.0, 0.0, 0.0, 1.0, 0.5, 0.0, 0.5]], device=device)
projective = stn.Projective(bound=None)
views = {"affine": (affine, turned, (7, 5), 24), "projective": (projective, tilted, (12, 6), 24)}
for name, view in views.items():
    _, J = footprints(*view)
    for where, row_of_J in (("top", J[0]), ("bottom", J[-1])):
        across, down = row_of_J[2].norm(dim=0)
        print(
            f"{name:10}  {where:6}  |J_x| = {across:.2f}, |J_y| = {down:.2f} pixels, "
            f"area {row_of_J[2].det().abs():5.2f}"
        )

# %% [markdown]
# An affine map has one $J$ for all pixels, a projective one has a different one at each. And a footprint need
# not be square: one factor for "how much it shrinks" is not enough.
#
# Now the mean. The library takes $n_x \times n_y$ bilinear samples, spread evenly over the parallelogram, with
# $n_j = \lceil |J_j| \rceil$: along each side so many that neighbouring samples are at most a pixel apart, and
# nothing can slip through between them. Where the map magnifies, $n_x = n_y = 1$ and we are back at plain
# sampling.

# %%
MOST = 16  # samples along each side: the library's limit, too


def sample_footprints(image, places, J):
    """The mean over n_x × n_y samples of each footprint: image (1, C, S, S) -> (1, C, H', W')."""
    size = image.shape[-1]
    counts = (J.norm(dim=-2) - 1 / 64).ceil().clamp(1, MOST)  # (H', W', 2); exactly 4, but for rounding, is 4
    total = 0
    for i in range(int(counts[..., 0].max())):
        for j in range(int(counts[..., 1].max())):
            index = torch.tensor([i, j], device=device)
            exists = (index < counts).all(-1)
            d = (index + 0.5) / counts - 0.5
            where = places + (J * d[..., None, :]).sum(-1)
            grid = (2 * where + 1) / size - 1
            total = total + exists * F.grid_sample(image, grid[None], align_corners=False)
    return total / counts.prod(-1)


noise = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0)).to(device)
for name, (transform, theta, size, input_size) in views.items():
    places, J = footprints(transform, theta, size, input_size)
    by_hand = sample_footprints(noise, places, J)
    by_library = transform.sample(noise, theta, size, antialias=True)
    plain = transform.sample(noise, theta, size)
    print(
        f"{name:10}  antialias=True agrees with ours: {torch.allclose(by_hand, by_library, atol=1e-5)}, "
        f"and differs from plain sampling by up to {(by_library - plain).abs().max():.2f}"
    )

# %% alt="Two drawings over an image of 24 by 24 pixels. Left, an affine map: seven by five equal parallelograms, turned, twice as long as wide, that tile a part of the image; in each a regular pattern of four by two dots, the samples. Right, a floor in perspective: at the top tall footprints with up to 24 samples, that overlap a little; at the bottom small ones with two samples."
fig, axes = plt.subplots(1, 2, figsize=(8, 4))
corners = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]], device=device)
for ax, (name, view) in zip(axes, views.items(), strict=True):
    places, J = (tensor.flatten(0, 1) for tensor in footprints(*view))
    for place, columns in zip(places, J, strict=True):
        outline = (place + corners @ columns.T).cpu()
        ax.plot(*outline.T, color="C0", linewidth=1)
        n_x, n_y = (columns.norm(dim=0) - 1 / 64).ceil().clamp(1, MOST).int().tolist()
        d = torch.cartesian_prod((torch.arange(n_x) + 0.5) / n_x, (torch.arange(n_y) + 0.5) / n_y) - 0.5
        ax.plot(*(place + d.to(device) @ columns.T).cpu().T, ".", color="C1", markersize=3)
    ax.set(title=name, aspect="equal", xticks=range(0, 24, 4), yticks=range(0, 24, 4))
    ax.set(xlim=(-0.5, 23.5), ylim=(23.5, -0.5), xlabel="column", ylabel="row")
plt.show()

# %% [markdown]
# Each parallelogram is the footprint of one output pixel, the dots are its samples. The affine footprints tile
# what is in view, so every pixel there counts. On the floor the far footprints are tall and hold many samples.
# They overlap: the true ones are trapezoids, of which parallelograms are the first order.
#
# ## 14.4 Four ways, and the truth
#
# A mean over the footprint has a limit: ever more samples. With 16 × 16 samples a pixel we are close enough to
# it to call it the truth, by brute force. (It is the truth by *our* definition, the camera's. One can ask for
# other weights than equal ones.) Against it:
#
# - **plain** bilinear sampling;
# - **antialias**, the mean over the footprint;
# - **twice as large**: what the paper's networks do, sample at twice the size, then pool the mean of 2 × 2;
# - **blur first** with a tent, weights that fall off in straight lines over as many pixels either way as the map shrinks by,
#   then sample as usual.
#
# The zone plate and a canvas of digits, turned by 0.3 radians and moved by fractions of a pixel, so that no remedy has
# the luck of falling on pixels:


# %%
canvas = torch.cat([torch.cat(list(images[7 * n : 7 * n + 7]), 2) for n in range(7)], 1)
canvas = canvas[None, :, 2:194, 2:194]


def turned_by(shrink, size, angle=0.3, right=0.37, down=-0.21):
    """theta of a similarity from 192 × 192 pixels to `size` × `size` that shrinks by `shrink`."""
    scale = shrink * size / 192
    p, q = scale * math.cos(angle), scale * math.sin(angle)
    return torch.tensor([[[p, -q, right / 96], [q, p, down / 96]]], device=device)


def pooled(image, theta, size, times):
    """Sampled at `times` the size each way, then the mean of `times` × `times`."""
    return F.avg_pool2d(affine_sample(image, theta, (size * times,) * 2), times)


def four_ways(image, shrink):
    """The truth, and what the four make of it."""
    size = int(192 / shrink * 0.7)  # inside the picture, turned as it is
    theta = turned_by(shrink, size)
    blurred = stn.blur(image, shrink, "border")
    return pooled(image, theta, size, 16), {
        "plain": affine_sample(image, theta, (size, size)),
        "antialias": affine_sample(image, theta, (size, size), antialias=True),
        "twice as large": pooled(image, theta, size, 2),
        "blur first": affine_sample(blurred, theta, (size, size)),
    }


errors = {}
for name, image in (("zone plate", zone_plate), ("digits", canvas)):
    print(f"{name:12}     plain   antialias   twice as large   blur first     (root mean square error)")
    for shrink in (2, 3, 4, 8):
        truth, ways = four_ways(image, shrink)
        errors[name, shrink] = [(way - truth).square().mean().sqrt().item() for way in ways.values()]
        plain, antialias, twice, blurred = errors[name, shrink]
        print(
            f"shrunk by {shrink}:     {plain:.3f}       {antialias:.3f}            {twice:.3f}        {blurred:.3f}"
        )

# %% alt="Five panels of the zone plate, shrunk four times and turned. Truth: one set of rings that fades into grey. Plain: false centres all over. Antialias: like the truth. Twice as large: like the truth but for faint false centres. Blur first: no false centres, but the true rings fade too early."
truth, ways = four_ways(zone_plate, 4)
fig, axes = plt.subplots(1, 5, figsize=(10.5, 2.4))
for ax, (name, picture) in zip(axes, {"truth": truth, **ways}.items(), strict=True):
    show_image(picture[0], ax, name)
plt.show()

shares = [antialias / plain for plain, antialias, _, _ in errors.values()]
print(f"antialias leaves {min(shares):.0%} to {max(shares):.0%} of plain sampling's error")

# %% [markdown]
# Plain sampling gets worse and worse. **Twice as large** is right as far as it goes: shrinking by 2 it is the
# same as antialiasing. But it moves the problem by a factor of two and no further. Shrunk 8 times, its samples
# are still 4 pixels apart. **Blur first** aliases little, and errs in another way: a tent as wide as this takes
# away some of what could have been shown. **Antialias** gets *better* the more it shrinks, since it takes the
# more samples. Its error has a simple source: on each axis it is a sum in the place of an integral.
#
# What does it cost?
#
# | | bilinear samples for each output pixel | must know beforehand |
# | --- | --- | --- |
# | plain | 1 | nothing |
# | antialias | $n_x n_y$, when shrinking by $s$ about $s^2$ | nothing |
# | twice as large | 4 | that it shrinks by 2 at most |
# | blur first | 1, and the blur of the whole image | how much it shrinks, and that it is the same everywhere |
#
# $s^2$ samples seem many. But the output has $s^2$ times fewer pixels than what it shows of the input: it comes down
# to about one sample for each *input* pixel in view, whatever $s$ is. And where the map shrinks in one place and
# magnifies in another, each pixel pays for itself. Graphics knows two other ways. Mip mapping [2] blurs and halves
# the image beforehand, again and again, and reads where the blur fits: one sample, but from a footprint that is
# always square, and an image that is new with every batch would be prepared for a single use. The elliptical weighted
# average [3] sums over the footprint as we do, with weights that fall off towards its rim.

# %% alt="Four views of a checkered floor towards the horizon. Plain: near the horizon the checks break up into false patterns. Blur first: soft everywhere, near by most of all. Antialias and truth look the same: sharp near by, and evenly grey far away."
floor = torch.tensor([[0.54, 0.0, 0.0, 0.0, 1.0, 0.8, 0.0, 0.8]], device=device)  # up to near its horizon
checks = ((torch.arange(192) // 12) % 2).float().to(device)
checks = (checks != checks[:, None]).float()[None, None]
size, times = (96, 128), 16
options = {"padding_mode": "reflection"}  # the floor goes on, in mirror images
fine = projective.sample(checks, floor, (size[0] * times, size[1] * times), **options)
truth = F.avg_pool2d(fine, times)
views_of_floor = {
    "plain": projective.sample(checks, floor, size, **options),
    "blur first": projective.sample(stn.blur(checks, 4, "border"), floor, size, **options),
    "antialias": projective.sample(checks, floor, size, antialias=True, **options),
    "truth": truth,
}
fig, axes = plt.subplots(1, 4, figsize=(10.5, 2.2))
for ax, (name, view) in zip(axes, views_of_floor.items(), strict=True):
    show_image(view[0], ax, name)
plt.show()
for name in ("plain", "blur first", "antialias"):
    far_off, near = (views_of_floor[name] - truth).square().mean((0, 1, 3)).sqrt().view(2, 48).mean(1)
    print(f"{name:10}  error in the upper half {far_off:.3f}, in the lower half {near:.3f}")

# %% [markdown]
# (In the lower half the map magnifies, and plain and antialiased are one.) On the floor no single blur fits. The
# footprint does, pixel by pixel, up to 16 samples along each of its sides. That is the library's limit: a map that
# shrinks by more than 16 aliases again, if less.
#
# ## 14.5 The gradient of theta, when it shrinks
#
# Aliasing harms what is seen, and it harms learning. Shrunk 4 times, only an eighth of the slopes between
# pixels take part in $\partial L / \partial \theta$, those that the places happen to meet. Let the wanted output be the truth at a known $\theta$, a window of the
# image seen at a quarter of its size. We start up to 4 pixels off to the side, that is one output pixel, from 60
# random places, and ask of each: does the descent direction point home?

# %%
attention = stn.Attention()
generator = torch.Generator().manual_seed(0)
home = torch.tensor([[0.75, 0.0, 0.0]], device=device)
off = (2 * torch.rand(60, 3, generator=generator) - 1) * torch.tensor([0.0, 4 / 96, 4 / 96])
off = off.to(device)


def gradients_off_home(image, antialias):
    """The gradient of theta at each of the starts, (60, 3)."""
    wanted = F.avg_pool2d(attention.sample(image, home, (36 * 16, 36 * 16)), 16)
    theta = (home + off).requires_grad_()
    output = attention.sample(image, theta[None], (36, 36), antialias=antialias)[0]
    loss = (output - wanted).square().mean((1, 2, 3)).sum()
    return torch.autograd.grad(loss, theta)[0]


homeward = {}
for name, image in (("zone plate", zone_plate), ("digits", canvas)):
    for antialias in (False, True):
        gradient = gradients_off_home(image, antialias)[:, 1:]
        homeward[name, antialias] = (gradient * off[:, 1:]).sum(1).gt(0).float().mean().item()
    print(
        f"{name:10}  gradients that point home: {homeward[name, False]:4.0%} plain, "
        f"{homeward[name, True]:4.0%} antialiased"
    )

# %% [markdown]
# ("Home" means here: the angle between descent direction and way home is less than a right one; by mere chance
# it would be half of them.) On the zone plate plain gradients are no better than chance, and on digits, mild as
# they are, nearly a third point the wrong way. With the mean over footprints nearly all point home: a mean of
# slopes over the footprint is the slope of the mean. The library differentiates exactly that, including the change
# of the footprint itself when $\theta$ changes its shape, with the number of samples held fixed.
#
# The loss has fewer false valleys, too. Measured, over $s$ from 0.65 to 0.85 in 81 steps, off by 0.4 pixels: 18 local
# minima on the zone plate, plain, and 3 antialiased; on the digits 4 and 1.
#
# In a transformer: `stn.SpatialTransformer(..., antialias=True)`.
#
# ## 14.6 How far a gradient does not see
#
# Now the other way. Section 4.10 shifted a disc and found that outside its own width no gradient leads back;
# in section 6.2 a digit 11 pixels away was never found. The remedy of section 4.10 was to blur *both* images, descend, and
# do it again with less blur. It needs the wanted image, to blur it, and a schedule; and a network behind the
# transformer would see blurred images all the while.
#
# Exercise 04-6 had another idea: leave the value sharp, and replace only the slope. Here it is for images. With
# $\tilde U_s$ a copy of the image, blurred with a width of $s$ pixels:
#
# $$ V_i = U(x_i, y_i), \qquad \frac{\partial V_i}{\partial \theta} \;\text{“=”}\;
# \sum_s s^2 \, \frac{\partial}{\partial \theta} \tilde U_s(x_i, y_i). $$
#
# Value and slope no longer belong to the same function. What comes of that? First build it, then look.


# %%
def sample_by_hand(transform, input, theta, size, scales):
    """The values of a plain sample, with theta's gradient through blurred copies."""
    output = transform.sample(input, theta.detach(), size)
    seen = 0
    for scale in scales:
        seen = seen + scale**2 * transform.sample(stn.blur(input, scale), theta, size)
    return output + (seen - seen.detach())  # plus 0, but with a slope


digits = F.pad(images[:12], (26, 26, 26, 26))  # on 80 × 80 pixels
translation = stn.Translation()
theta = torch.tensor([[0.2, -0.1]], device=device).repeat(12, 1).requires_grad_()
found = {}
for name, sampler in (("by hand", sample_by_hand), ("library", stn.sample_coarse_to_fine)):
    output = sampler(translation, digits, theta, (80, 80), (8, 24))
    (gradient,) = torch.autograd.grad((output - digits).square().sum(), theta)
    found[name] = output.detach(), gradient
plain = translation.sample(digits, theta, (80, 80)).detach()
print("the library's values are those of plain sampling:", torch.equal(found["library"][0], plain))
print(
    "the library's gradient is ours:                  ",
    torch.allclose(*[g for _, g in found.values()], rtol=1e-4),
)

# %% [markdown]
# `stn.blur` averages with a **tent** along each axis, the weights $1, 2, \ldots, s, \ldots, 2, 1$ over $s^2$. We
# shall see why a tent. What do the copies say, for a digit that is looked at from the side?

# %% alt="Above, the loss over the shift: a narrow valley in a plain. Below, four slopes over the shift, each divided by its maximum. The image's own leads back from a few pixels and is a mere zigzag around zero farther off. Those of the copies of half-widths 4, 8 and 24 lead back from ever farther, with ever less zigzag, and that of 24 from everywhere in the picture; near 0 it is the flattest."
shifts = torch.arange(-28, 28, 0.5, device=device) + 0.25  # off the kinks
line = torch.stack([shifts, torch.zeros_like(shifts)], 1) / 40  # pixels in normalised coordinates
digit = digits[3:4].expand(len(shifts), -1, -1, -1)

fig, (above, below) = plt.subplots(2, 1, figsize=(6.5, 4.2), sharex=True)
steepness = {}
for scales, color in (((), "C0"), ((4,), "C2"), ((8,), "C5"), ((24,), "C1")):
    theta = line.clone().requires_grad_()
    loss = (
        (stn.sample_coarse_to_fine(translation, digit, theta, (80, 80), scales) - digit)
        .square()
        .sum((1, 2, 3))
    )
    (gradient,) = torch.autograd.grad(loss.sum(), theta)
    slope = gradient[:, 0] / 40  # by pixel
    name = f"copy, s = {scales[0]}" if scales else "the image"
    below.plot(shifts.cpu(), (slope / slope.abs().max()).cpu(), color=color, label=name, linewidth=1.2)
    if scales:
        steepness[scales[0]] = slope[shifts.abs() < 2].abs().max().item() / scales[0] ** 2
    astray = shifts[slope * shifts <= 0].abs()
    first = f"{astray.min():.2f} pixels off" if len(astray) else "none up to 28 pixels"
    print(f"{name:12}  the first slope that does not point home: {first}")
above.plot(shifts.cpu(), (loss / loss.max()).detach().cpu(), color="#222222")  # the same for all four
above.set(ylabel="loss, of its maximum", yticks=[0, 1])
below.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
below.set(xlabel="shift in pixels", ylabel="slope, of its maximum", yticks=[-1, 0, 1])
below.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
plt.show()

# %% [markdown]
# The loss is the same for all four, the valley above. What differs is which way to go. The image's own slopes
# lead home from four pixels, and farther off they are but the ripple between pixels of section 4.10. The wider
# the copy, the farther it leads. Near 0 the order is reversed: there the wide copy is flat and says little.
#
# So we take several, one for each distance, and add them up. As they are they would not add up to much:

# %%
for scale, slope in steepness.items():
    bare, weighted = slope / steepness[4], slope * scale**2 / (steepness[4] * 4**2)
    print(f"copy {scale:2}: steepest slope within 2 pixels of home {bare:5.3f},  times s²: {weighted:4.2f}")

# %% [markdown]
# (Both are relative to copy 4.) A blur flattens slopes, at home by about $s^2$. Without the factor the finest
# copy would be heard alone. It makes them about equally strong at home, and farther off the wide ones
# have the word. It is a choice and not a law: in the trial of section 14.8, from 24 pixels off, all digits came home
# with $s$, $s^2$ or $s^3$ for a factor; with none, 75 to 94 % of them, over three sets of directions.
#
# ## 14.7 Why it comes home
#
# Is there anything that such a descent goes down *on*? For translations there is, and it explains why it arrives. Let
# $V^*$ be the wanted output, here the image itself, on black, $V^* = U$, and the output $U$ shifted by $t$. The
# gradient of $\frac12 \sum_p (V_p - V^*_p)^2$ through the copy $\tilde U = K * U$, blurred by the kernel $K$, is
#
# $$ g(t) = \sum_p \big(U(p + t) - U(p)\big) \, \nabla \tilde U(p + t). $$
#
# The first part does not depend on $t$: shift the sum. It is $\sum U \, \nabla (K * U)$, and for a symmetric $K$
# that is its own negative, so 0. (For whole shifts; in between the sampler adds its ripple.) What is left is
#
# $$ g(t) = -\nabla_t \, C(t), \qquad C(t) = \sum_p U(p) \, (K * U)(p + t), $$
#
# the **autocorrelation of $U$, blurred by $K$**. So there is a function: the descent climbs $C$. Its height at any
# place is a sum over frequencies $f$ of the image, with $\hat U$ and $\hat K$ the Fourier transforms, or *spectra*,
# of image and kernel,
#
# $$ C(t) = \sum_f |\hat U_f|^2 \; \hat K_f \; \cos(2 \pi f \cdot t). $$
#
# If no $\hat K_f$ is negative, all these cosines are at their top together at $t = 0$. Then **home is the
# highest place of all**, for every image there is. If some $\hat K_f$ is negative, those waves have their
# *valley* there, and for an image of little else home repels.
#
# A tent of half-width $s$ is a box of width $s$, blurred by a box of width $s$. So its spectrum is a square,
# that of the box squared, and never negative. A box's own is $\mathrm{sinc}\, t = \sin(\pi t) / (\pi t)$, with
# $t = f s$, and every other one of its lobes is negative. Moreover, a tent being box on box, each image can take one of the two: $C$ is the
# correlation of two images *both* blurred by a box, and
#
# > for translations in front of black, a copy's gradient is, but for the factor $s^2$, that of the squared difference
# > between output and wanted output **when both are blurred by a box of width $s$**; and the wanted output was
# > never touched.
#
# (That holds for any wanted output.) Measured:

# %%
scale = 15
image = F.pad(images[3:4].double(), (36, 36, 36, 36))  # on 100 × 100 pixels
boxed = F.avg_pool2d(image, scale, stride=1, padding=scale // 2)
worst = 0.0
for right, down in ((3.3, 5.2), (12.25, -7.4), (-20.6, 0.1)):  # off the kinks
    theta = (torch.tensor([[right, down]], dtype=torch.float64, device=device) / 50).requires_grad_()
    far = stn.sample_coarse_to_fine(translation, image, theta, (100, 100), (scale,))
    (through_copy,) = torch.autograd.grad((far - image).square().sum(), theta)
    both = translation.sample(boxed, theta, (100, 100))
    (both_blurred,) = torch.autograd.grad((both - boxed).square().sum(), theta)
    worst = max(worst, (through_copy / scale**2 / both_blurred - 1).abs().max().item())
print("at three shifts, equal to 10 digits:", worst < 1e-10)

# %% [markdown]
# So what looked like a trick, the slope of one function at the value of another, is coarse-to-fine alignment as in
# section 4.10 [5], on blurred images, that needs only one of the two. And the sum over several $s$ is a sum of such
# losses: coarse *and* fine, at once, without a schedule.
#
# Does it matter, tent or box? Here is an image made to hurt: stripes, 8 pixels a period, where the spectrum of
# a box of width 13 is negative.


# %%
t = torch.arange(96.0, device=device) - 47.5
inside = t.abs() < 24
stripes = ((0.5 + 0.5 * torch.cos(2 * math.pi * t / 8)) * inside * inside[:, None])[None, None]
copies = {"box": F.avg_pool2d(stripes, 13, stride=1, padding=6), "tent": stn.blur(stripes, 13)}
for name, copy in copies.items():
    theta = torch.tensor([[0.5 / 48, 0.0]], device=device).requires_grad_()
    optimiser = torch.optim.Adam([theta], lr=0.002)
    for step in range(200):
        output = translation.sample(stripes, theta.detach(), (96, 96))
        seen = translation.sample(copy, theta, (96, 96))
        loss = (output + seen - seen.detach() - stripes).square().sum()
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            homeward = (theta.grad * theta)[0, 0].item() > 0
        optimiser.step()
    end = abs(theta[0, 0].item()) * 48
    print(
        f"{name:4}  from half a pixel off the gradient points home: {homeward!s:5}   "
        f"after 200 steps within 0.1 pixels: {end < 0.1}"
    )

# %% [markdown]
# The box sends it away. (A Gaussian's spectrum has no negative part either. A tent ends after $s$ pixels.)
#
# All this holds for translations in front of black. For other families $T_\theta$ the slopes are those
# of a blurred image under the same map, and need not be the gradient of any function. What is always true:
# where the output *is* the wanted one, the gradient is 0.
#
# ## 14.8 How much farther
#
# Sixteen digits on 80 × 80 pixels, each pushed off in a random direction by so many pixels. From there Adam
# descends, 100 steps, along the gradients of the one or the other kind. Which share ends within half a pixel of
# home?


# %% tags=["needed-by-exercises"]
def descend(transform, input, wanted, start, scales, steps=100, rate=0.02):
    """Where theta ends, (N, num_parameters): Adam, its rate falling to 0 along a cosine."""
    theta = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([theta], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        output = stn.sample_coarse_to_fine(transform, input, theta, wanted.shape[2:], scales)
        optimiser.zero_grad()
        (output - wanted).square().sum().backward()
        optimiser.step()
        schedule.step()
    return theta.detach()


def pushed_off(count, shift, seed=0):
    """Translations by `shift` pixels of 80, each in a direction of its own: (count, 2)."""
    angle = 2 * math.pi * torch.rand(count, generator=torch.Generator().manual_seed(seed))
    return (shift / 40 * torch.stack([angle.cos(), angle.sin()], 1)).to(device)


# %%
digits = F.pad(images[:16], (26, 26, 26, 26))
arrived = {}
for scales, shifts in (
    ((), (1, 2, 3, 4, 6, 8, 12)),
    ((16,), (4, 8, 12, 16, 20, 24, 28)),
    ((8, 24), (4, 8, 16, 24, 28, 32)),
):
    for shift in shifts:
        end = descend(translation, digits, digits, pushed_off(16, shift), scales)
        arrived[scales, shift] = ((end * 40).norm(dim=1) < 0.5).float().mean().item()
print("plain:          from 2 pixels at least 90 %:", arrived[(), 2] >= 0.9)
print("                from 8 pixels at least 90 %:", arrived[(), 8] >= 0.9)
print("copies 8 and 24: from 8 pixels at least 90 %:", arrived[(8, 24), 8] >= 0.9)
print("                from 24 pixels at least 90 %:", arrived[(8, 24), 24] >= 0.9)

# %% alt="The share of digits that arrive, over how far they were pushed off. Plain: falls from all at 2 pixels to about half at 6 and next to none at 12. With the copy of half-width 16: all up to 16 pixels, then falling. With 8 and 24: all up to 24 pixels, then falling." tags=["nbval-ignore-output"]
fig, ax = plt.subplots(figsize=(6.2, 2.8))
for scales, color, name in (
    ((), "C0", "plain"),
    ((16,), "C2", "copy 16"),
    ((8, 24), "C1", "copies 8 and 24"),
):
    points = [(shift, share) for (which, shift), share in arrived.items() if which == scales]
    ax.plot(*zip(*points, strict=True), "o-", color=color, markersize=4, label=name)
    print(f"{name:15}", "  ".join(f"{shift} px: {share:.0%}" for shift, share in points))
ax.axhline(0.9, color="#bbbbbb", linewidth=0.8, zorder=0)
ax.set(xlabel="pushed off by pixels", ylabel="share that arrives", yticks=[0, 0.5, 0.9, 1])
ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
plt.show()

# %% [markdown]
# Plain sampling brings 90 % home from 2 or 3 pixels, not from 8. With two copies they come home from 24, at least
# **three times as far**, in fact eight. It is not the luck of these digits: with five sets of 16 digits,
# each with directions of its own, 90 % (standard deviation 10 %) came home from 3 pixels and 29 % (7 %) from 8 by
# plain slopes; with copies 8 and 24 all 80 from 8, 16 and 24 pixels, and 95 % (5 %) from 28.
#
# Which widths? The largest about as far as $\theta$ may be off. Much wider costs precision, as we shall see;
# one or two narrower ones make the last part of the way steep.
#
# Translations are the family for which we have a proof. What about others? Digits that are turned, and
# digits that are seen from too far away, each with one number to be found:


# %%
class Turn(stn.Affine):
    """Rotation by theta, in radians."""

    num_parameters = 1

    def matrix(self, theta):
        c, s, zero = theta.cos(), theta.sin(), torch.zeros_like(theta)
        return torch.cat([c, -s, zero, s, c, zero], -1).unflatten(-1, (2, 3))


class Zoom(stn.Affine):
    """A window e^theta as large."""

    num_parameters = 1

    def matrix(self, theta):
        scale, zero = theta.exp(), torch.zeros_like(theta)
        return torch.cat([scale, zero, zero, zero, scale, zero], -1).unflatten(-1, (2, 3))


turned_back, zoomed_back = {}, {}
sign = torch.tensor([[1.0], [-1.0]], device=device).repeat(8, 1)
roomy = digits[:, :, 12:68, 12:68]
for scales in ((), (4, 12)):
    for degrees in (60, 90):
        end = descend(Turn(), images[:16], images[:16], math.radians(degrees) * sign, scales, rate=0.03)
        turned_back[scales, degrees] = (end.abs() < math.radians(2)).float().mean().item()
    start = torch.full((16, 1), math.log(3), device=device)
    end = descend(Zoom(), roomy, roomy, start, scales, rate=0.03)
    zoomed_back[scales] = (end.abs() < 0.03).float().mean().item()
print(
    "turned by 60°, more than 90 % found:     plain",
    turned_back[(), 60] > 0.9,
    "  copies",
    turned_back[(4, 12), 60] > 0.9,
)
print(
    "turned by 90°, more than a quarter:      plain",
    turned_back[(), 90] > 0.25,
    "  copies",
    turned_back[(4, 12), 90] > 0.25,
)
print(
    "3 times too small, more than 90 % found: plain",
    zoomed_back[()] > 0.9,
    "  copies",
    zoomed_back[(4, 12)] > 0.9,
)

# %% [markdown]
# Over the same five sets: turned by 60°, 74 % (12 %) come back by plain slopes and 99 % (3 %) with copies; seen at a
# third of their size, 35 % (15 %) and 99 % (3 %). From 90° none and 11 % (7 %): the others end at another angle. The
# copies widen the region from which one comes home, and do not make it the whole world.
#
# ## 14.9 The price
#
# Up to here the wanted output could be met exactly. In practice it never can: the wanted image is noisy, or is
# another image of the same thing. Then at home the gradient is not 0, and $\theta$ ends where the error's pull
# and the image's balance. A wide copy is flat at the bottom of its valley: the image pulls softly there, and the
# same error pushes $\theta$ farther. Noise on the wanted digits, of standard deviation 0.1:

# %%
generator = torch.Generator().manual_seed(3)
noisy = digits + 0.1 * torch.randn(digits.shape, generator=generator).to(device)
near = descend(translation, digits, noisy, pushed_off(16, 1.5), ())
far = descend(translation, digits, noisy, pushed_off(16, 16), (8, 24))
refined = descend(translation, digits, noisy, far, (), steps=50, rate=0.005)
precision = {
    "plain, from 1.5 pixels": near,
    "copies 8 and 24, from 16": far,
    "the same, then 50 plain steps": refined,
}
precision = {name: (end * 40).norm(dim=1).median().item() for name, end in precision.items()}
for name, median in precision.items():
    print(f"{name:30}  half of them within 0.05 pixels: {median < 0.05}")

# %% [markdown]
# Measured, as the median of 16 digits, mean over the five sets: plain 0.019 pixels (standard deviation 0.006),
# with copies 0.15 (0.03), and after 50 plain steps 0.019 (0.007) again. With three times the noise 0.06, 0.45 and
# 0.06. So the copies are for the way, and the image's own slopes for the arrival: **switch the copies off at
# the end.** A `stn.SpatialTransformer` is given them as `gradient_scales=(8, 24)`, and
# `transformer.gradient_scales = ()` takes them away.
#
# Two more things to know. The gradient of $\theta$ is now larger, by $s^2$ over what the blur takes away. Adam does
# not care, but plain gradient descent needs a smaller rate, and so does $\theta$ beside other parameters when
# gradients are clipped together. And a copy costs a blur and one more sample, forward and backward; nothing
# where $\theta$ needs no gradient.
#
# ## 14.10 What it does not solve
#
# - **Other images' valleys.** A blur widens every valley, also the wrong ones. 180° of a 0 or an 8 is hardly off.
# - **Sums that cancel.** What is seen of a far stroke is its mean brightness. An image whose brightness is the
#   same everywhere, such as fine texture, has nothing left to be seen once it is blurred.
# - **Training.** There the gradients of hundreds of images are averaged, what one of them cannot see another
#   can (section 5.3), and the loss is a classifier's. Digits of 14 pixels anywhere on 60 × 60, a transformer that
#   translates, 600 steps, five seeds: 66.7 % errors (standard deviation 1.7 %) plain, 65.3 % (3.2 %) with
#   `gradient_scales=(4, 16)`. **No clear gain was found.** What is measured above is *alignment*, one image at a time.
#
# A relative is **linearised multi-sampling** (Jiang et al. [4]): around each sampling point it draws a few auxiliary
# points at random, fits a plane to the values there, by least squares, and takes the plane's slope for the
# point's. The value stays the sampler's, as here. It too is a blur of the slope, by a few random points instead of
# all pixels around, and sees as far as the points are spread. (Its authors report a gain in training, too. Ours
# is one task, and small.)
#
# ## Summary
#
# - A sampler that shrinks an image reads $4 / s^2$ of its pixels or fewer. What is too fine for the output comes
#   back as something coarse that is not there, and no later layer can tell.
# - An output pixel stands for a footprint, to first order the parallelogram of $J$'s columns. The mean of
#   $n_x n_y$ samples over it, about one for each input pixel in view, leaves a fifth of plain sampling's error at
#   most, and less the more the map shrinks. The gradient of $\theta$ gains as much.
# - `stn.sample_coarse_to_fine` keeps the values and takes slopes from blurred copies of the image. For
#   translations that is the gradient between two blurred images of which only one had to be blurred, and as the
#   spectrum of a tent is nowhere negative, home is the highest place for every image.
# - Digits come home from at least three times as far, in fact from about as far as the widest blur.
# - What holds $\theta$ off home, noise or anything else that cannot be matched, holds it off farther. The last
#   steps belong to the image's own slopes. In training a classifier we found no clear gain.
#
# ## Exercises
#
# Replace each `...` and run the cell. A wrong answer is told what is wrong with it. Solutions are in
# [solutions/14_aliasing_and_gradients_that_see_further.ipynb](solutions/14_aliasing_and_gradients_that_see_further.ipynb).

# %% [markdown]
# ### Exercise 14-1: never read
#
# An image is shrunk by 2, by 3, by 6 and by 7, by plain bilinear sampling as in section 14.2. Which share of its
# pixels is read? Give a list of four numbers.

# %% tags=["exercise"]
# >>> solution
shares_read = [1, 1 / 9, 4 / 36, 1 / 49]
# <<< solution
check("14-1", shares_read)

# %% [markdown]
# ### Exercise 14-2: what shows
#
# One row of pixels has 0.3 periods a pixel, another has 0.2: $\cos(2 \pi \cdot 0.3 \, a)$ and
# $\cos(2 \pi \cdot 0.2 \, a)$. Every fourth pixel is kept. How many periods, between 0 and 0.5, does each show
# from one kept pixel to the next? Give a list of two numbers.

# %% tags=["exercise"]
# >>> solution
periods = [4 * 0.3 - 1, 1 - 4 * 0.2]
# <<< solution
check("14-2", periods)

# %% [markdown]
# ### Exercise 14-3: a footprint
#
# At an output pixel the Jacobian, in pixels, is $J = \begin{bmatrix} 3 & -2 \\ 0.5 & 1.2 \end{bmatrix}$. How
# many samples does the library take across and down, and how large is the footprint? Give a list: $n_x$, $n_y$, the
# area in pixels.

# %% tags=["exercise"]
# >>> solution
footprint = [math.ceil(math.hypot(3, 0.5)), math.ceil(math.hypot(-2, 1.2)), 3 * 1.2 - (-2) * 0.5]
# <<< solution
check("14-3", footprint)

# %% [markdown]
# The next exercise needs a bilinear sampler for one place:


# %% tags=["needed-by-exercises"]
def value(image, a, b):
    """The bilinear value of image (H, W) at column a, row b; outside lie zeros."""
    height, width = image.shape
    total = 0.0
    for n in (math.floor(b), math.floor(b) + 1):
        for m in (math.floor(a), math.floor(a) + 1):
            if 0 <= n < height and 0 <= m < width:
                total += (1 - abs(a - m)) * (1 - abs(b - n)) * float(image[n, m])
    return total


print("two rows, 0 1 and 2 5, right in the middle:", value(torch.tensor([[0.0, 1.0], [2.0, 5.0]]), 0.5, 0.5))

# %% [markdown]
# ### Exercise 14-4: one pixel, antialiased
#
# Write the mean over one footprint. `image` is a tensor (H, W); `place` is $T(p)$, a tensor of two numbers,
# column and row; `J` is (2, 2), all in pixels. Take $n_x \times n_y$ samples as in section 14.3, $n_j$ being column
# $j$'s length, rounded up.


# %% tags=["exercise"]
def footprint_mean(image, place, J):
    # >>> solution
    n_x, n_y = (max(1, math.ceil(length)) for length in J.norm(dim=0).tolist())
    total = 0.0
    for i in range(n_x):
        for j in range(n_y):
            d = torch.tensor([(i + 0.5) / n_x - 0.5, (j + 0.5) / n_y - 0.5])
            total += value(image, *(place + J @ d).tolist())
    return total / (n_x * n_y)
    # <<< solution


check("14-4", footprint_mean)

# %% [markdown]
# ### Exercise 14-5: the paper's remedy
#
# Sample at `times` the size each way, then take the mean of `times` × `times`: for any `transform`, which has a
# `sample` method like `stn.Affine`. `input` is (N, C, H, W), `size` is the wanted (H', W'). (Why does it go
# wrong with `align_corners=True`?)


# %% tags=["exercise"]
def sample_and_pool(transform, input, theta, size, times):
    # >>> solution
    height, width = size
    return F.avg_pool2d(transform.sample(input, theta, (height * times, width * times)), times)
    # <<< solution


check("14-5", sample_and_pool)

# %% [markdown]
# ### Exercise 14-6: home for all
#
# Slopes come from a copy that is blurred with one of these kernels, along each axis:
#
# - `"one pixel"`: 0, 1, 0, no blur at all;
# - `"box"`: 1, 1, 1 over 3;
# - `"flat"`: 1, 1.5, 1 over 3.5;
# - `"tent"`: 1, 2, 1 over 4;
# - `"pointed"`: 1, 3, 1 over 5;
# - `"binomial"`: 1, 4, 6, 4, 1 over 16.
#
# Which have a spectrum that is nowhere negative, so that home is the highest place for every image? Give a list
# of names. (The spectrum of $b, a, b$ at $f$ periods a pixel is $a + 2 b \cos 2 \pi f$.)

# %% tags=["exercise"]
# >>> solution
home_for_all = ["one pixel", "tent", "pointed", "binomial"]
# <<< solution
check("14-6", home_for_all)

# %% [markdown]
# ### Exercise 14-7: a plane through points
#
# The heart of linearised multi-sampling: `offsets` (K, 2) are the ways from a place to K auxiliary points, and
# `values` (K,) what is there. Return the slope, a tensor of two numbers, of the plane that fits the values best
# by least squares.


# %% tags=["exercise"]
def plane_slope(offsets, values):
    # >>> solution
    with_height = torch.cat([offsets, torch.ones_like(offsets[:, :1])], 1)
    return torch.linalg.lstsq(with_height, values[:, None]).solution[:2, 0]
    # <<< solution


check("14-7", plane_slope)

# %% [markdown]
# ### Exercise 14-8: far and precise
#
# `wanted` is noisy, and `start` is 16 pixels off. Bring `theta` home, to within a tenth of a pixel, with `descend` of
# section 14.8: `descend(transform, input, wanted, start, scales, steps=100, rate=0.02)`. Return theta.


# %% tags=["exercise"]
def align(transform, input, wanted, start):
    # >>> solution
    near = descend(transform, input, wanted, start, scales=(8, 24))
    return descend(transform, input, wanted, near, scales=(), steps=50, rate=0.005)
    # <<< solution


check("14-8", align)

# %% [markdown]
# ## In the library
#
# | built here | in the library |
# | --- | --- |
# | `footprints`, `sample_footprints` | `antialias=True` of every sampler and transform; defined in `kernels/stn_kernels/antialiasing.py` |
# | `sample_by_hand` | `stn.sample_coarse_to_fine`, in `stn/coarse_to_fine.py` |
# | the tent | `stn.blur` |
# | both, in a transformer | `stn.SpatialTransformer(..., antialias=True, gradient_scales=(8, 24))` |
#
# On a GPU antialiasing is part of the fused kernel: footprints are computed where they are needed, and neither
# they nor the finer samples are stored.
#
# ## References
#
# 1. M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu. *Spatial Transformer Networks*. NIPS 2015.
#    [arXiv:1506.02025](https://arxiv.org/abs/1506.02025). Aliasing at the end of section 3.4; pooling after the
#    sampler in appendix A.4.
# 2. L. Williams. *Pyramidal Parametrics*. SIGGRAPH 1983.
#    [doi:10.1145/800059.801126](https://doi.org/10.1145/800059.801126). Mip mapping.
# 3. P. S. Heckbert. *Fundamentals of Texture Mapping and Image Warping*. Master's thesis, University of California,
#    Berkeley, 1989. [Report UCB/CSD-89-516](https://www2.eecs.berkeley.edu/Pubs/TechRpts/1989/5504.html). Footprints,
#    and the elliptical weighted average.
# 4. W. Jiang, W. Sun, A. Tagliasacchi, E. Trulls, K. M. Yi. *Linearized Multi-Sampling for Differentiable Image
#    Transformation*. ICCV 2019. [arXiv:1901.07124](https://arxiv.org/abs/1901.07124).
# 5. B. D. Lucas, T. Kanade. *An Iterative Image Registration Technique with an Application to Stereo Vision*.
#    IJCAI 1981. [dl.acm.org/doi/10.5555/1623264.1623280](https://dl.acm.org/doi/10.5555/1623264.1623280). Coarse
#    to fine, where it began.
#
# ## Next
#
# [Chapter 15, Three dimensions](15_three_dimensions.ipynb): volumes, trilinear sampling, and a network that solves its
# task in another way than expected. Before: [chapter 13, Many transformers](13_many_transformers.ipynb).
