# %% [markdown]
# # 16 Co-localisation
#
# > **A hundred pictures show the same kind of thing, each somewhere else. Nobody says what it is or where. A
# > spatial transformer can find it: it cuts a window out of each picture and is rewarded when the windows look
# > alike. But nothing looks more alike than nothing. In this chapter you walk into that trap, see why gradients
# > lead there, and build the two devices that lead out.**
#
# **You will learn**
#
# - the paper's loss for finding a thing without labels, and to compute it by hand;
# - why windows on black are a better answer to it, as printed, than the right one;
# - why, with a loss that prefers the right answer, training still ends on black;
# - to take a direction out of a gradient, and to let a window narrow while a network follows;
# - to measure a window by its intersection over union, and what a hundred pictures per digit then give.
#
# **You need** chapters [04](04_gradients.ipynb), [05](05_localisation.ipynb) and
# [14](14_aliasing_and_gradients_that_see_further.ipynb). **Runs in** about 60 seconds on two cores.

# %% tags=["setup"]
import matplotlib.pyplot as plt
import torch

import stn
from stn.colocalisation import Colocaliser, encode, hinge_loss, intersection_over_union, random_windows
from stn.exercises import check
from stn.experiments.colocalisation import encoder, scattered
from stn.plotting import show_image, use_style

use_style()
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
digits, labels = stn.data.digits("train")
attention = stn.Attention()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# %% [markdown]
# ## 16.1 The task
#
# Appendix A.2 of the paper [1]: a hundred images of 84 × 84 pixels, each with one and the same digit, which lies
# anywhere. Which digit, the transformer is not told.

# %% alt="Six of the hundred images: a handwritten three on black, each time another one and somewhere else."
seen, places = scattered(digits, labels, 3, 0, seeded(3))
seen, places = seen.to(device), places.to(device)

fig, axes = plt.subplots(1, 6, figsize=(9, 1.8))
for ax, picture in zip(axes, seen, strict=False):
    show_image(picture, ax)
plt.show()

print(f"images: {tuple(seen.shape)}")
print(f"the digit's 28 x 28 pixels are {28**2 / 84**2:.0%} of an image")
print(f"from the middle it lies {places.norm(dim=1).mean():.0f} pixels away, on average")

# %% [markdown]
# `places` is the truth, x and y of each digit's centre in pixels from the middle of its image. It is kept for the
# end, to judge; nothing below learns from it.
#
# The transformer is the one of attention, Equation 2: $\theta = (s, t_x, t_y)$, a window $s$ times as wide as the
# image. With $s = 1/3$ it is as large as the digit. What should $\theta$ be rewarded for? For windows that **look
# alike**.
#
# ## 16.2 What looks alike
#
# Pixels are a poor measure: two threes by two hands share few of them. The paper takes the activations $e(\cdot)$ of
# a network that was trained to tell digits apart, on other pictures, with labels: an *encoder*. So labels do come in,
# but not ours: the encoder has never seen these images, and it is frozen. Here it has the paper's two convolutions, 16
# filters each, and was shown digits a little larger, smaller or off the middle.

# %%
look = encoder(digits, labels, 400, seeded(0)).to(device)
test_digits, test_labels = (tensor.to(device) for tensor in stn.data.digits("test"))
error = (look(test_digits).argmax(1) != test_labels).double().mean()
print(f"the encoder errs on less than a tenth of the test digits: {bool(error < 0.1)}")

# %% [markdown]
# Three kinds of windows go with us through the chapter: on the digit, where the truth says; anywhere; and on
# nothing, the blackest of forty tries. How much ink do they see?

# %%
on_digit = torch.cat([torch.full((100, 1), 1 / 3, device=device), places / 42], 1)
anywhere = random_windows(100, 1 / 3, 2 / 3, generator=seeded(1)).to(device)
tries = random_windows(4000, 1 / 3, 2 / 3, generator=seeded(2)).to(device).view(40, 100, 3)
ink = torch.stack([attention.sample(seen, some, (28, 28)).sum((1, 2, 3)) for some in tries])
on_nothing = tries[ink.argmin(0), torch.arange(100, device=device)]
windows = {"on the digit": on_digit, "anywhere": anywhere, "on nothing": on_nothing}
crops = {name: attention.sample(seen, theta, (28, 28)) for name, theta in windows.items()}
for name, some in crops.items():
    print(f"{name:12}  mean brightness {some.mean():.3f}")

# %% alt="Three rows of six windows. First row: threes, upright in the middle. Second row: pieces of threes and black. Third row: black."
fig, axes = plt.subplots(3, 6, figsize=(7, 3.6))
for row, (name, some) in zip(axes, crops.items(), strict=True):
    for ax, crop in zip(row, some, strict=False):
        show_image(crop, ax)
    row[0].set_title(name, loc="left")
plt.show()

# %% [markdown]
# ## 16.3 The paper's loss
#
# Two windows $n$ and $m$ should look alike, $|e_n - e_m|^2$ small. That alone is met by any two equal windows, so
# there is a second term, against a window of the same image at random, $r_n$: they should look *more* alike than
# that, by a margin $\alpha$ [2]:
#
# $$ L = \sum_n \sum_{m \ne n} \max\left(0,\; |e_n - e_m|^2 - |e_n - r_n|^2 + \alpha\right). $$
#
# The paper sets $\alpha = 1$. By hand, for a few windows, as a mean instead of a sum:


# %%
def loss_by_hand(e, r, alpha):
    terms = []
    for n in range(len(e)):
        for m in range(len(e)):
            if m != n:
                alike = sum((e[n, k] - e[m, k]) ** 2 for k in range(e.shape[1]))
                other = sum((e[n, k] - r[n, k]) ** 2 for k in range(e.shape[1]))
                terms.append(max(0.0, alike - other + alpha))
    return sum(terms) / len(terms)


few, random_few = torch.randn(2, 4, 3, generator=seeded(0), dtype=torch.float64)
print(f"by hand: {loss_by_hand(few, random_few, 1.0):.4f}")

# %% [markdown]
# In PyTorch all pairs at once: a matrix of squared distances, a column of those to the windows at random, and
# the diagonal, where $m = n$, left out. In the library it is `hinge_loss`.


# %%
def loss_in_pytorch(e, r, alpha):
    alike = torch.cdist(e, e).square()
    terms = (alike - (e - r).square().sum(1, keepdim=True) + alpha).clamp(min=0)
    off_diagonal = ~torch.eye(len(e), dtype=torch.bool, device=e.device)
    return terms[off_diagonal].mean()


three_losses = [f(few, random_few, 1.0) for f in (loss_by_hand, loss_in_pytorch, hinge_loss)]
print("by hand, in PyTorch, the library:", *(f"{value:.4f}" for value in three_losses))
print("all agree:", all(abs(value - three_losses[0]) < 1e-12 for value in three_losses))

# %% [markdown]
# ## 16.4 The trap
#
# What does this loss think of our three kinds of windows? The paper's $e$ is the activations of all three layers,
# one behind the other, as they are.

# %%
ALL = (2, 5, 7)  # the layers: both convolutions' activations, pooled, and the scores
at_random = attention.sample(
    seen, random_windows(100, 1 / 3, 2 / 3, generator=seeded(4)).to(device), (28, 28)
)


def judged(layers, unit):
    """The loss of each kind of windows."""
    r = encode(look, at_random, layers, unit=unit)
    return {name: hinge_loss(encode(look, some, layers, unit=unit), r).item() for name, some in crops.items()}


printed = judged(ALL, unit=False)
for name, value in printed.items():
    print(f"{name:12}  loss {value:.3g}")
print("the least loss have the windows", min(printed, key=printed.get))

# %% [markdown]
# The right windows have a loss tens of times that of windows on black. Activations are not bounded: those of a
# digit have a squared norm in the thousands, and two threes by two hands differ by tens. A margin of 1 does not show
# there. Black windows do not differ at all, so each of their terms is at most $\alpha$, whatever is at random.
#
# So scale matters. Let each layer have **unit norm** [2]: a squared distance is then at most 4 per layer, most often
# at most 2, and $\alpha = 1$ means something. And leave out the scores: which of ten digits it is says little about
# where it is. That is what `encode` does unless told otherwise.

# %%
unit = judged((2, 5), unit=True)
for name, value in unit.items():
    print(f"{name:12}  loss {value:.2f}")
print("the least loss have the windows", min(unit, key=unit.get))

# %% [markdown]
# Now the order is right, and by far. Why then is black not worse than *anywhere*? Its windows are equal to each
# other. They pay $\alpha$ where the window at random is black too, and nothing where it shows ink. That is a hole
# in the landscape, not as deep as the right one, but wide.
#
# ## 16.5 The landscape
#
# Deep is not enough: gradient descent has to get there. Start from the right windows and spoil them in two ways.
# First, move all of them together, to the right. Second, move each by a random amount of its own.

# %% alt="The loss against pixels. Moved together: near 0 up to 16 pixels, then a rise and a plateau. Each on its own: a steady rise, beyond 12 pixels higher than the dashed line of windows on nothing."
r = encode(look, at_random)
pixels = torch.tensor([0.0, 1, 2, 3, 4, 6, 8, 12, 16, 20, 26, 32])
ways = torch.randn(100, 2, generator=seeded(5)).to(device) / 2**0.5
right = torch.tensor([1.0, 0.0], device=device)
together, each = [], []
for far in pixels.tolist():
    for ways_of, losses in ((right, together), (ways, each)):
        theta = on_digit.clone()
        theta[:, 1:] += far / 42 * ways_of
        losses.append(hinge_loss(encode(look, attention.sample(seen, theta, (28, 28))), r).item())

fig, ax = plt.subplots(figsize=(6, 3))
ax.plot(pixels, together, "o-", label="all together")
ax.plot(pixels, each, "s-", label="each on its own")
ax.axhline(unit["on nothing"], color="0.5", linestyle="--", label="on nothing")
ax.set(xlabel="pixels from the digit (root mean square)", ylabel="loss", ylim=0)
ax.legend()
plt.show()

for far in (0, 4, 8, 16, 20):
    index = pixels.tolist().index(far)
    print(f"{far:2} pixels off: all together {together[index]:.2f}, each on its own {each[index]:.2f}")

# %% [markdown]
# Moved together, windows may go far at no cost: the digit lies somewhere else in all of them, yet at one and the
# same place, and that is all the loss asks. Between 16 and 20 pixels the digit leaves the window, and past it lies
# the plateau of nothing. Moved each on its own, the loss rises from the first pixels, and far from home it is *higher*
# than on nothing.
#
# A search starts far from home, on the right end of the upper curve. From there two ways lead down. One needs each
# window to follow its own digit: a hundred different things to learn. The other asks for one and the same thing of
# all: let all windows go to a corner, where there is little to see. A network has that in a single bias.
#
# ## 16.6 Into the trap
#
# `Colocaliser` has the paper's kind of localisation network: a convolution of 8 filters 9 × 9 with stride 4, pooling,
# two fully connected layers. We train it on 32 images at a time. `first` and `last` are the scale of the window at
# the start and at the end, `slack` is how far the network may change it (`None`: nothing in $\theta$ is bounded), and
# `scales` are chapter 14's blurs; what else the cell calls, `anchored`, `centre` and `narrow`, does nothing until
# sections 16.7 and 16.8.


# %%
def search(model, steps, look_at=lambda step: None, **features):
    """Train; `look_at` is called before the first step and after every one."""
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    generator = seeded(0)
    look_at(0)
    for step in range(steps):
        for group in optimiser.param_groups:  # rises for 150 steps, falls at the end
            group["lr"] = 2e-3 * min(1, (step + 1) / 150, 1.3 * (1 - step / steps))
        model.narrow(step / steps)
        chosen = torch.randperm(len(seen), generator=generator)[:32].to(device)
        loss = model.loss(look, seen[chosen], generator=generator, **features)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if model.anchored and step >= 150 and step % 50 == 49:
            model.centre(seen)
        look_at(step + 1)
    return model.eval()


@torch.no_grad()
def brightness(model):
    return model.cut(seen, model(seen)).mean().item()


shape = (1, 84, 84)
torch.manual_seed(0)
as_printed = Colocaliser(shape, last=0.4, first=0.4, slack=None, anchored=False, scales=()).to(device)
before = brightness(as_printed)
search(as_printed, 200, layers=ALL, unit=False)
print(f"as printed, windows darker than a tenth of what they were: {brightness(as_printed) < 0.1 * before}")

# %% [markdown]
# That was to be expected: the loss as printed prefers black. Now the loss that does not: unit norms, and a scale
# bounded to 0.34 ± 0.03, so that the window cannot just shrink until it sees nothing. And with slopes that see
# further, from a copy of the images blurred by 4 pixels, as in [chapter 14](14_aliasing_and_gradients_that_see_further.ipynb).

# %%
torch.manual_seed(0)
with_units = Colocaliser(shape, last=0.34, first=0.34, anchored=False).to(device)
before = brightness(with_units)
search(with_units, 250)
print(f"unit norms, windows darker than a tenth of what they were: {brightness(with_units) < 0.1 * before}")

# %% [markdown]
# The same end. The right answer is more than twenty times better, and is not found: it is no longer the loss that is
# wrong, but the way.
#
# ## 16.7 A direction taken out
#
# What did section 16.5 say? Moving all windows together never helps the right answer, for the loss does not
# mind where in the windows the digit lies; it only opens the way to nothing. So let us not ask the loss for it. In
#
# $$ t_n' = t_n - \bar t + \mathrm{detach}(\bar t), \qquad \bar t = \frac{1}{N} \sum_n t_n, $$
#
# the value is $t_n' = t_n$. But the gradient comes back without its mean: what remains is how each window should
# move *relative to the others*.

# %%
t = torch.tensor([[0.1, 0.2], [0.3, -0.2], [-0.5, 0.4]], requires_grad=True)
anchored_t = t - t.mean(0) + t.mean(0).detach()
pull = torch.tensor([[1.0, 0.0], [3.0, 1.0], [2.0, -4.0]])  # some gradient of the places
(gradient,) = torch.autograd.grad(anchored_t, t, pull)
print("the same values:", torch.allclose(anchored_t, t))
print("gradient of x:", [round(value, 3) for value in gradient[:, 0].tolist()], "from", pull[:, 0].tolist())
print("gradient of y:", [round(value, 3) for value in gradient[:, 1].tolist()], "from", pull[:, 1].tolist())
print("their means are 0:", bool((gradient.mean(0).abs() < 1e-6).all()))

# %% [markdown]
# Something else must then say where in the window the thing should lie, and that is our choice to make. Once the
# windows agree, their mean is a picture of the thing. `centre` moves all windows by one and the same amount, so that
# the mean picture has its centre of mass in the middle; we do so every 50 steps. The digits of MNIST are
# centred by just that, so it is the truth's choice as well.
#
# ## 16.8 A window that narrows
#
# The second device asks where a search should start. A window as large as a digit shows, at the start, mostly
# pieces of digits or nothing. A window of $s = 1.5$ shows the whole image and a black margin: the thing is in every
# window, small, and wherever the windows go on the image it stays there. Bring it to one place there, then let $s$
# fall slowly to 0.34, and what has to be corrected at each size is little. It is coarse to fine, as in chapter 14, but
# of the window instead of the image.

# %% alt="Five rows of eight windows each, from step 0 to 1000. In the first the threes are tiny and scattered; in the second tiny and all at one place; then they grow, upright in the middle, until they fill the window."
film, found_at = {}, {}


@torch.no_grad()
def record(step):
    if step in (0, 250, 500, 750, 1000):
        theta = narrowing(seen)
        film[step] = narrowing.cut(seen[:8], theta[:8])
        found_at[step] = intersection_over_union(theta, places, (84, 84), 28)


torch.manual_seed(0)
narrowing = Colocaliser(shape, last=0.34).to(device)
search(narrowing, 1000, record)

fig, axes = plt.subplots(len(film), 8, figsize=(8, 5.4))
for row, (step, some) in zip(axes, film.items(), strict=True):
    for ax, crop in zip(row, some, strict=True):
        show_image(crop, ax)
    row[0].set_title(f"step {step}", loc="left")
plt.show()

overlap = found_at[1000]
off = (narrowing(seen).detach()[:, 1:] * 42 - places).norm(dim=1)
print(f"at least 95 of the 100 overlap the truth by more than a half: {int((overlap > 0.5).sum()) >= 95}")
print(f"on average the windows are less than 2 pixels off: {bool(off.mean() < 2)}")

# %% [markdown]
# No label, no box, a hundred pictures; and every window ends on its three.
#
# **Intersection over union** is how boxes are judged: the area that the window and the true box share, by the area
# that they cover together. 1 is perfect, and the custom is to count more than one half as found [3]. It is stricter
# than it sounds:

# %%
truth = torch.zeros(1, 2)
for s in (1 / 3, 0.34, 0.4, 0.5):
    value = intersection_over_union(torch.tensor([[s, 0.0, 0.0]]), truth, (84, 84), 28)
    print(f"scale {s:.2f}, centred:           {value.item():.2f}")
for shift in (4, 8):
    theta = torch.tensor([[1 / 3, shift / 42, shift / 42]])
    print(
        f"scale 0.33, {shift} pixels off in x and y: {intersection_over_union(theta, truth, (84, 84), 28).item():.2f}"
    )

# %% [markdown]
# A window of half the image, perfectly centred, is a miss. Bounding the scale near the thing's own size is therefore
# part of the answer, and it has to be known, roughly, from somewhere.
#
# ## 16.9 All ten digits
#
# One digit proves little. `python -m stn.experiments colocalisation` runs all ten, alone on black (T) and among
# sixteen 6 × 6 pieces of other digits (TC). Of its five methods the first four add one thing each: as printed; unit
# norms and a bounded scale; anchored; narrowed. The fifth, *loose*, is narrowed and not anchored. The settings were
# chosen while looking at the digits 0, 1, 3, 4 and 7 on black, and at 3 and 7 among clutter, and then left alone.
# These are the results that come with the book, beside the paper's:

# %%
from stn.experiments import EXPERIMENTS, read

results = read("colocalisation")
print(EXPERIMENTS["colocalisation"].table(results))

# %% [markdown]
# The columns *printed* and *unit* are section 16.6 ten times over. Anchoring alone finds next to nothing on black;
# among clutter, where no window is quite empty, it finds a part. *Loose*, which narrows and does not anchor, follows
# some digits, and leaves most of them too far off the middle, or runs to a corner all the same. Both devices together
# find every digit on black, as the paper reports for its own training; and among clutter nearly all, most digits more
# often than the paper. How the paper got there with the loss as printed we do not know: the scale of its features,
# its learning rate and where its windows start are not given.

# %%
from stn.experiments import summarise

found = summarise(results, "found", ("method", "set", "digit"))
for one in ("T", "TC"):
    values = [value.mean for (method, name, _), value in found.items() if (method, name) == ("narrowed", one)]
    print(
        f"{one}: {len(values)} digits, {min(values):.0f} to {max(values):.0f} % found, mean {sum(values) / len(values):.1f} %"
    )
below = [
    digit
    for (method, name, digit), value in found.items()
    if (method, name) == ("narrowed", "TC") and value.mean < 90
]
print("among clutter below 90 %: digits", below)

# %% [markdown]
# The one that is hardest among clutter is the digit 1. A stroke is what pieces of other digits look like.
#
# ## Summary
#
# - Windows are right when their features are closer to each other than to those of windows at random, by a
#   margin. The margin means something only against features of a known scale: give each layer unit norm.
# - Windows on nothing are all alike. With features as they are they have the least loss; with unit norms they are a
#   second-best that a network reaches with one bias.
# - The loss does not mind where in the windows the thing lies. That freedom is the way into the trap: take the
#   mean out of the gradient of the places, and fix the middle by the mean picture's centre of mass.
# - A window that starts larger than the image shows the thing from the first step. Narrowing it slowly keeps it.
# - Neither device is enough alone; together they find every digit of every class on black, without a label
#   of these pictures.
#
# ## Exercises
#
# Replace each `...` and run the cell. A wrong answer is told what is wrong with it. Solutions are in
# [solutions/16_co_localisation.ipynb](solutions/16_co_localisation.ipynb).

# %% [markdown]
# ### Exercise 16-1: one term
#
# $e_1 = (0.6, 0.8)$, $e_2 = (0.8, 0.6)$, and the window at random of image 1 has $r_1 = (1, 0)$. With $\alpha = 1$, what is the
# term of $n = 1$, $m = 2$?

# %% tags=["exercise"]
# >>> solution
term = 0.2**2 + 0.2**2 - (0.4**2 + 0.8**2) + 1
# <<< solution
check("16-1", term)

# %% [markdown]
# ### Exercise 16-2: what nothing pays
#
# All windows are black. Of the windows at random a share of 0.3 is black as well; all others are farther from
# black than $\alpha = 0.5$ (squared). What is the loss, as a mean over all pairs?

# %% tags=["exercise"]
# >>> solution
blank_loss = 0.3 * 0.5
# <<< solution
check("16-2", blank_loss)

# %% [markdown]
# ### Exercise 16-3: intersection over union
#
# Of two squares: `a` and `b` are each (x, y, side), centre and side, in pixels. Plain numbers.


# %% tags=["exercise"]
def overlap_of_squares(a, b):
    # >>> solution
    shared = 1.0
    for axis in (0, 1):
        low = max(a[axis] - a[2] / 2, b[axis] - b[2] / 2)
        high = min(a[axis] + a[2] / 2, b[axis] + b[2] / 2)
        shared *= max(0.0, high - low)
    return shared / (a[2] ** 2 + b[2] ** 2 - shared)
    # <<< solution


check("16-3", overlap_of_squares)

# %% [markdown]
# ### Exercise 16-4: features on one scale
#
# `activations` is a list of tensors (N, ...), one for each layer. Return the features (N, F): each layer's flattened
# and scaled to norm 1 for each image, one behind the other.


# %% tags=["exercise"]
def unit_features(activations):
    # >>> solution
    flat = [layer.flatten(1) for layer in activations]
    return torch.cat([layer / layer.norm(dim=1, keepdim=True) for layer in flat], 1)
    # <<< solution


check("16-4", unit_features)

# %% [markdown]
# ### Exercise 16-5: the loss at once
#
# Without a loop: `e` and `r` are (N, F). Return the mean over all $n \ne m$.


# %% tags=["exercise"]
def loss_of_features(e, r, alpha):
    # >>> solution
    alike = (e[:, None] - e[None]).square().sum(2)
    terms = (alike - (e - r).square().sum(1, keepdim=True) + alpha).clamp(min=0)
    return (terms.sum() - terms.diagonal().sum()) / (len(e) * (len(e) - 1))
    # <<< solution


check("16-5", loss_of_features)

# %% [markdown]
# ### Exercise 16-6: not together
#
# `theta` (N, 3) is $(s, t_x, t_y)$ of each image. Return the same values, such that no gradient moves the places of
# all windows alike, while that of the scales is what it was.


# %% tags=["exercise"]
def without_common_motion(theta):
    # >>> solution
    common = theta.mean(0) * torch.tensor([0.0, 1.0, 1.0], dtype=theta.dtype)
    return theta - common + common.detach()
    # <<< solution


check("16-6", without_common_motion)

# %% [markdown]
# ### Exercise 16-7: onto the middle
#
# `picture` (H, W) is the mean of what all windows show, black around the thing. The windows have scale `s`. By how
# much should $(t_x, t_y)$ of all of them change, so that the picture's centre of mass comes into the middle? Return a tensor
# of two numbers. (The pixel in column $m$ of $W$ lies at $x = (2 m + 1) / W - 1$ in the window.)


# %% tags=["exercise"]
def shift_to_middle(picture, s):
    # >>> solution
    height, width = picture.shape
    x = (2 * torch.arange(width) + 1) / width - 1
    y = (2 * torch.arange(height) + 1) / height - 1
    return s * torch.stack([(picture.sum(0) * x).sum(), (picture.sum(1) * y).sum()]) / picture.sum()
    # <<< solution


check("16-7", shift_to_middle)

# %% [markdown]
# ## In the library
#
# | built here | in the library |
# | --- | --- |
# | `loss_by_hand`, `loss_in_pytorch` | `stn.colocalisation.hinge_loss` |
# | unit norms | `stn.colocalisation.encode` |
# | anchored places, the narrowing window, `centre` | `stn.colocalisation.Colocaliser` |
# | `search`, for all digits | `python -m stn.experiments colocalisation`, in `stn/experiments/colocalisation.py` |
#
# ## References
#
# 1. M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu. *Spatial Transformer Networks*. NIPS 2015.
#    [arXiv:1506.02025](https://arxiv.org/abs/1506.02025). Appendix A.2, Table 5.
# 2. F. Schroff, D. Kalenichenko, J. Philbin. *FaceNet: A Unified Embedding for Face Recognition and Clustering*. CVPR
#    2015. [arXiv:1503.03832](https://arxiv.org/abs/1503.03832). The same hinge, and why features of unit norm.
# 3. M. Everingham, L. Van Gool, C. K. I. Williams, J. Winn, A. Zisserman. *The Pascal Visual Object Classes (VOC)
#    Challenge*. International Journal of Computer Vision, 2010.
#    [doi:10.1007/s11263-009-0275-4](https://doi.org/10.1007/s11263-009-0275-4). More than one half is found.
#
# ## Next
#
# How far a given machine and schedule get with the paper's other tasks, and how sure one can be of it, is the subject of
# [chapter 17, The experiments](17_the_experiments.ipynb). Before: [chapter 15, Three dimensions](15_three_dimensions.ipynb).
