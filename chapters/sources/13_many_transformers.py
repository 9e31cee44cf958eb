# %% [markdown]
# # 13 Many transformers
#
# > **One transformer looks once, at one place. Two side by side read two digits that may stand anywhere, told
# > only their sum. One that looks twice corrects itself. One before an expensive network spares it most of
# > the picture. And one in the middle of a network cannot do what it seems to do: this chapter says why.**
#
# **You will learn**
#
# - to let one localisation network steer several transforms, and why they must not start at the same place;
# - which part of the gain comes from looking, and which from reading two windows alike;
# - to chain transforms by multiplying matrices, instead of resampling what was resampled;
# - why warping feature maps back does not undo what happened to the input, and what does;
# - to count what attention saves, in multiply-adds.
#
# **You need** chapters [05](05_localisation.ipynb) and [06](06_the_spatial_transformer.ipynb). **Runs in**
# about 80 seconds on two cores, most of it training.

# %% tags=["setup"]
import math
import os
import statistics
import time

# PyTorch's profiler would otherwise report in the output of a cell that it has started.
os.environ.update(KINETO_LOG_LEVEL="99", TORCH_CPP_LOG_LEVEL="ERROR")

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

import stn
from stn.data import rotated_translated_scaled, side_by_side, translated_cluttered
from stn.exercises import check
from stn.measured import allocations
from stn.networks import convolutional_network, fully_connected_network
from stn.plotting import show_image, show_stages, use_style
from stn.training import count_parameters, error_rate, random_batches, train

use_style()
torch.set_printoptions(precision=4, sci_mode=False)
device = "cuda" if torch.cuda.is_available() else "cpu"
images, labels = (tensor.to(device) for tensor in stn.data.digits("train"))
test_images, test_labels = (tensor.to(device) for tensor in stn.data.digits("test"))

# %% [markdown]
# ## 13.1 Two digits, one sum
#
# Two digits stand on a canvas of $40 \times 60$ pixels, side by side, each at its own height, with a gap of any
# width. The label is their **sum**, 0 to 18. Nobody says which digits they are, or where. Appendix A.1 of the paper
# [1] has a task like it, with each digit in a channel of its own; here they share one.


# %%
def pairs(digits, labels, seed):
    """Each digit beside another one, (N, 2, 28, 28), and what both are, (N, 2)."""
    other = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed)).to(digits.device)
    return torch.cat([digits, digits[other]], 1), torch.stack([labels, labels[other]], 1)


couples, couple_labels = pairs(images, labels, seed=0)
test_couples, test_couple_labels = pairs(test_images, test_labels, seed=1)
canvases, pose = side_by_side(test_couples, generator=torch.Generator().manual_seed(1))
test_sums = test_couple_labels.sum(1)
places = pose.translation.unflatten(0, (-1, 2)) / torch.tensor([30, 20], device=device)  # in [-1, 1]

most_common = test_sums.bincount().argmax()
print(f"canvases {tuple(canvases.shape)}, true places {tuple(places.shape)}")
print(f"who always says {most_common} is wrong in {(test_sums != most_common).float().mean():.1%}")

# %% alt="Twelve canvases, wider than high, with two digits each: close together or far apart, high or low."
fig, axes = plt.subplots(2, 6, figsize=(9, 2.5))
for ax, canvas, total in zip(axes.flat, canvases, test_sums.tolist(), strict=False):
    show_image(canvas, ax, f"sum {total}")
plt.show()

# %% [markdown]
# ## 13.2 Several transforms of one image
#
# A window that moves is enough: a *translation*,
# $A_\theta = \begin{bmatrix} s & 0 & t_x \\ 0 & s & t_y \end{bmatrix}$ with $s$ fixed to $1/2$,
# `stn.Translation(0.5)`. The paper's crops of birds are these (appendix A.6). With an output of
# $20 \times 30$ pixels the window shows half of the canvas's width and height, pixel by pixel.
#
# We want $T = 2$ of them, so $\theta$ is now $(N, T, 2)$. Samplers take one transform for each image, so by
# hand we repeat the images:

# %%
T, SIZE = 2, (20, 30)
window = stn.Translation(0.5)
apart = torch.tensor([[-0.5, 0.0], [0.5, 0.0]], device=device)


def windows_by_hand(U, theta):
    """U (N, C, H, W) in the windows theta (N, T, 2): (N, T, C, 20, 30)."""
    copies = U.repeat_interleave(theta.shape[1], dim=0)
    A = window.matrix(theta).flatten(0, 1)
    grid = F.affine_grid(A, (len(copies), U.shape[1], *SIZE), align_corners=False)
    return F.grid_sample(copies, grid, align_corners=False).unflatten(0, theta.shape[:2])


theta = apart.expand(len(canvases), T, 2).contiguous()
by_hand, by_library = windows_by_hand(canvases, theta), window.sample(canvases, theta, SIZE)
halves = torch.stack([canvases[:, :, 10:30, :30], canvases[:, :, 10:30, 30:]], 1)
print(f"theta {tuple(theta.shape)}, output {tuple(by_library.shape)}")
print("by hand and by the library: ", torch.allclose(by_hand, by_library, rtol=0, atol=1e-5))
print("the left and the right half:", torch.allclose(by_library, halves, rtol=0, atol=1e-5))

maps = canvases[:200].repeat(1, 8, 1, 1)  # eight channels, as feature maps have
seen, taken = allocations(lambda: window.sample(maps, theta[:200], SIZE))
_, taken_by_hand = allocations(lambda: windows_by_hand(maps, theta[:200]))
for name, pieces in (("by hand", taken_by_hand), ("library", taken)):
    print(f"largest piece of memory, {name}: {max(pieces) / maps.nbytes:.1f} times the input")
print(f"the output alone:                 {seen.nbytes / maps.nbytes:.1f}")

# %% [markdown]
# The library takes $(N, T, P)$, with $P$ numbers for each transform, as it is and reads each image where it lies: nothing it allocates is larger
# than the output. By hand the copies come first, $T$ times the input.
#
# One localisation network serves all. Its head regresses $T \cdot P$ numbers; the body, which is nearly all
# of it, is shared. `stn.Localisation` makes as many heads as `start` has rows:

# %%
localisation = stn.FullyConnectedLocalisation((1, 40, 60), window, hidden=(64, 64), start=apart)
print("theta", tuple(localisation(canvases.cpu()[:5]).shape), " head", tuple(localisation.head.weight.shape))
one = stn.FullyConnectedLocalisation((1, 40, 60), window, hidden=(64, 64))
extra = count_parameters(localisation) - count_parameters(one)
print(f"the second transform costs {extra} parameters of {count_parameters(localisation):,}")

# %% [markdown]
# ## 13.3 They must not start alike
#
# Behind the windows stands one small classifier, the *reader*, that sees each of them on its own and returns
# the scores of ten digits. The probability of a sum is that of all pairs that make it:
#
# $$ P(s) = \sum_{a + b = s} p_1(a) \, p_2(b). $$


# %%
which_sum = F.one_hot((torch.arange(10)[:, None] + torch.arange(10)).flatten(), 19).float().to(device)


class Adder(nn.Module):
    """Windows (N, 2, C, H', W') of the canvases, each read by the same reader, and log P of the sums (N, 19)."""

    def __init__(self, look, reader):
        super().__init__()
        self.look, self.reader = look, reader

    def read(self, canvases):
        """Scores (N, 2, 10)."""
        seen = self.look(canvases)
        return self.reader(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])

    def forward(self, canvases):
        p = self.read(canvases).softmax(2)
        both = p[:, 0, :, None] * p[:, 1, None, :]
        return (both.flatten(1) @ which_sum).clamp(min=1e-30).log()


def two_transformers(start, bound=0.5):
    localisation = stn.FullyConnectedLocalisation(
        (1, 40, 60), window, hidden=(64, 64), start=start, bound=bound
    )
    look = stn.SpatialTransformer(localisation, window, SIZE)
    return Adder(look, fully_connected_network((1, *SIZE), units=64))


def learn_sums(build, steps):
    torch.manual_seed(0)
    model = build().to(device)
    batches = random_batches(
        couples,
        couple_labels.sum(1),
        128,
        distortion=side_by_side,
        generator=torch.Generator().manual_seed(0),
    )
    train(model, batches, steps, learning_rate=3e-3)
    return model


@torch.no_grad()
def thetas(model):
    return model.look(canvases, return_theta=True)[1]


# %% [markdown]
# A cross entropy takes log probabilities as it takes scores, so `train` can stay as it is.
#
# Chapter 06 started at the identity; for a window that is the middle of the canvas. Let both start there, and
# train for 60 steps.

# %%
alike = learn_sums(lambda: two_transformers(torch.zeros(2, 2)), steps=60)
theta = thetas(alike)
print("the windows have left their start, by more than 0.02:", theta.abs().mean().item() > 0.02)
print(
    "the two differ by less than 0.0001:                  ",
    (theta[:, 0] - theta[:, 1]).abs().max().item() < 1e-4,
)

# %% [markdown]
# Both move, and both move alike. They must: the two rows of the head start equal, the windows are equal, and the
# loss does not change if the two are swapped, so **equal transforms get equal gradients**, at this step and at every
# later one. They are one transformer, computed twice. (Left for 500 steps, in a separate run, they still agree to
# the last bit, and 88.8 % of the sums are wrong, as for someone who always says 9.) It is the reason why the weights of hidden
# layers start at random. The head's start at zero for a good reason (section 6.3), so it is the *bias* that has to
# differ: one window on the left half, one on the right, as in section 13.2. The paper lets the windows of its birds
# tile the image.
#
# And they should stay apart. A `bound` keeps each number of $\theta$ within a distance of its start (section
# 5.9): at 0.5 the left window's centre stays on the left half, the right window's on the right one, and
# neither gets lost beside the canvas.
#
# ## 13.4 Side by side
#
# What to compare with? A network of the same size without windows is the obvious choice, and too easy a one:
# ours also knows that there are *two* digits, that both are *read alike*, and how digits *add*. So we grant
# the opponent all this. Its windows are the same two halves, and they stay where they are; what the
# localisation network would cost goes into its reader.


# %%
class Halves(nn.Module):
    """The two windows, at their start for ever."""

    def forward(self, U):
        return window.sample(U, apart.expand(len(U), T, 2), SIZE)


def fixed_windows():
    return Adder(Halves(), fully_connected_network((1, *SIZE), units=240))


model = learn_sums(lambda: two_transformers(apart), steps=500)
opponent = learn_sums(fixed_windows, steps=500)
counts = [count_parameters(network) for network in (model, opponent)]
print(f"parameters: windows that move {counts[0]:,}, fixed windows {counts[1]:,}")
errors = {name: error_rate(m, canvases, test_sums) for name, m in (("move", model), ("fixed", opponent))}
print("fixed windows: more than a third of the sums are wrong: ", errors["fixed"] > 1 / 3)
print("windows that move: fewer than a quarter are:            ", errors["move"] < 1 / 4)
print("at most half of the errors:                             ", errors["move"] < 0.5 * errors["fixed"])

# %% [markdown]
# Five seeds, the first of them ours; errors of the sums in per cent, mean and standard deviation. The learning rate,
# $3 \cdot 10^{-3}$, is the best of $1$, $3$ and $10 \cdot 10^{-3}$ for each of the opponents.
#
# | | parameters | mean | spread |
# | --- | --- | --- | --- |
# | two windows that move | 201,358 | 15.7 | 1.8 |
# | the same windows, fixed | 204,490 | 44.9 | 1.7 |
# | no windows, two hidden layers of 80 units | 200,180 | 86.0 | 0.6 |
#
# Without windows, 500 steps get hardly beyond guessing: such a network has to learn each digit anew at each
# place. To cut the canvas in two and to read both halves alike is more than half of the way. The rest is that
# the windows *follow the digits*, so that the reader meets them all in the same place.
#
# One transformer cannot do it: `stn.Attention`, and a classifier for two digits behind, stays at 86 % errors (three
# seeds). In a network that looks once, **$T$ is the largest number of things it can look at**, as the paper notes.
#
# Does each window follow its own digit? Here is the correlation of where it looks with where the digits are:


# %%
def correlation(x, y):
    return torch.corrcoef(torch.stack([x, y]))[0, 1].item()


theta = thetas(model)
own = [correlation(theta[:, t, 0], places[:, t, 0]) for t in range(T)]
other = [correlation(theta[:, t, 0], places[:, 1 - t, 0]) for t in range(T)]
between = correlation(places[:, 0, 0], places[:, 1, 0])
print("x of each window with its own digit, above 0.9: ", min(own) > 0.9)
print("with the other digit, below 0.65:               ", max(other) < 0.65)
print(f"x of the two digits among themselves:            {between:.2f}")
with torch.no_grad():
    right = (model.read(canvases).argmax(2) == test_couple_labels).float().mean(0)
print("digits read, left and right, more than 85 %:    ", right.min().item() > 0.85)

# %% alt="Six columns. Above, a canvas with two digits, and a frame around each, blue on the left one and orange on the right one. Below, what the blue window shows and what the orange one shows: one whole digit each, sometimes with a piece of the neighbour at the side."
fig, axes = plt.subplots(3, 6, figsize=(9, 3.8))
with torch.no_grad():
    shown = model.look(canvases[:6])
corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]], device=device)
for column, canvas, places_looked, seen in zip(axes.T, canvases, theta, shown, strict=False):
    show_image(canvas, column[0])
    frames = window.map_points(places_looked, corners.expand(T, -1, -1)).cpu()
    for t in range(T):
        column[0].plot(
            frames[t, :, 0] * 30 + 29.5,
            frames[t, :, 1] * 20 + 19.5,
            color=f"C{t}",
            linewidth=2,
            clip_on=False,
        )
        show_image(seen[t], column[1 + t])
    column[0].set(xlim=(-2.5, 61.5), ylim=(41.5, -2.5))
for ax, name in zip(axes[:, 0], ("canvas", "left window", "right window"), strict=True):
    ax.set_ylabel(name)
plt.show()

# %% [markdown]
# Each follows its own. (The 0.5 with the other digit is what the two digits have in common anyway: if one
# stands far to the right, so does its right neighbour.) Nobody gave them these roles; the start did.
#
# And each digit is *read*, although no label ever named one. The sums suffice: if the left ones are read as
# $f(a)$, the right ones as $g(b)$, and $f(a) + g(b) = a + b$ for all pairs, then $f(a) = a + c$ and
# $g(b) = b - c$; and as both have to lie between 0 and 9, $c$ is 0.
#
# ## 13.5 One after another
#
# A second look can correct the first. The obvious way is two transformers in a row, the second sampling the
# output of the first. What does that cost? Turn a digit by 20°, and back again, eight times:

# %%
similarity = stn.Similarity()
digit = test_images[3:4].double()
turn = torch.tensor([[math.cos(math.radians(20)), math.sin(math.radians(20)), 0.0, 0.0]]).to(digit)
back = similarity.inverse(turn)


def difference(a, b):
    """Relative: the norm of a - b, divided by that of b."""
    return ((a - b).norm() / b.norm()).item()


trips = [digit]
for _ in range(8):
    turned = similarity.sample(trips[-1], turn, (28, 28))
    trips.append(similarity.sample(turned, back, (28, 28)))
for count in (1, 2, 4, 8):
    print(f"round trips {count}: relative difference {difference(trips[count], digit):.2f}")

both = similarity.compose(turn, back)
composed = similarity.sample(digit, both, (28, 28))
print("composed, less than 1e-12:", difference(composed, digit) < 1e-12)

shift = stn.Translation()
away = torch.tensor([[1.0, 0.0]]).to(digit)  # 14 of 28 pixels
fetched = shift.sample(shift.sample(digit, away, (28, 28)), -away, (28, 28))
print(f"14 pixels away and back, of the ink is left: {fetched.sum() / digit.sum():.0%}")

# %% alt="Five pictures of a 5: as it was, after one round trip a little blurred, after two and eight more and more so, and composed, as sharp as it was."
fig, axes = plt.subplots(1, 5, figsize=(8, 1.9))
pictures = {"digit": digit, "1 round trip": trips[1], "2": trips[2], "8": trips[8], "composed": composed}
for ax, (name, picture) in zip(axes, pictures.items(), strict=True):
    show_image(picture[0], ax, name)
plt.show()

# %% [markdown]
# Every sampling is an average of four pixels, and averages do not come apart again. What was pushed over the
# border is gone altogether. But matrices multiply. If the first look shows $V_1(x) = U(A_1 x)$ and the second
# warps *that*, then
#
# $$ V_2(x) = V_1(A_2 x) = U(A_1 A_2 x). $$
#
# **Compose the transforms, and sample the input itself.** The last look's matrix stands on the right, nearest
# to the output's pixels: maps run from the target to the source. By hand, with one localisation network that
# is asked at each look:


# %%
def looks_by_hand(localisation, U, size, looks):
    matrix = torch.eye(3).to(U).expand(len(U), 3, 3)
    for _ in range(looks):
        seen = similarity.sample_matrix(U, matrix, U.shape[2:])
        matrix = matrix @ similarity.homogeneous(localisation(seen))
    return similarity.sample_matrix(U, matrix, size)


rts, rts_pose = rotated_translated_scaled(test_images, generator=torch.Generator().manual_seed(1))


def transformer_of(looks):
    localisation = stn.FullyConnectedLocalisation((1, 42, 42), similarity, hidden=(64, 64))
    return stn.InverseCompositional(localisation, similarity, (20, 20), steps=looks)


torch.manual_seed(0)
chain = transformer_of(looks=3).to(device)
nn.init.normal_(chain.localisation[0].head.weight, std=0.05)  # let it do something
with torch.no_grad():
    by_library, matrix = chain(rts, return_matrix=True)
    by_hand = looks_by_hand(chain.localisation[0], rts, (20, 20), looks=3)
print("by hand and by the library:", torch.allclose(by_hand, by_library, rtol=0, atol=1e-4))
print("the three looks warp:      ", (matrix - torch.eye(3).to(matrix)).abs().mean().item() > 0.05)

# %% [markdown]
# Does it lower the error? Between two looks that compose and two that resample we found no clear difference, in one
# longer run of each. But to compose costs nothing, and it loses nothing, however many looks follow. The name, inverse
# compositional, is that of a classic way to align images; Lin and Lucey [2] made it a network.
#
# Is a second look worth it? On RTS, chapter 06's digits, rotated, scaled and put anywhere on $42 \times 42$
# pixels: one look against two. Both have the very same parameters; two looks ask the same localisation
# network twice. A step takes them longer, of course.


# %%
def learn_rts(looks):
    torch.manual_seed(0)
    network = nn.Sequential(transformer_of(looks), fully_connected_network((1, 20, 20), units=64)).to(device)
    generator = torch.Generator().manual_seed(0)
    batches = random_batches(images, labels, 128, distortion=rotated_translated_scaled, generator=generator)
    train(network, batches, 400, learning_rate=3e-3)
    return network


once, twice = learn_rts(looks=1), learn_rts(looks=2)
print("parameters, equal:", count_parameters(once) == count_parameters(twice), f"{count_parameters(twice):,}")
errors = [error_rate(network, rts, test_labels) for network in (once, twice)]
print("one look, more than 14 % misread:    ", errors[0] > 0.14)
print("two looks, at most 0.75 times as many:", errors[1] < 0.75 * errors[0])

# %% [markdown]
# Five seeds, 400 steps: one look 18.2 % (spread 1.2), two looks 10.4 % (0.6), although the localisation network has
# not grown: it learned to correct what it left undone itself. But it is a matter of time. With 700 steps one look
# comes to 10.9 % (0.5), too. So two looks learn in fewer steps; that one look never gets there was not shown.
#
# What does each look do? The pose, read off the matrix after one look and after two:


# %%
@torch.no_grad()
def after(network, looks):
    """The composed matrix (N, 3, 3) after so many looks of a trained network."""
    chain = network[0]
    partial = stn.InverseCompositional(chain.localisation[0], similarity, (42, 42), steps=looks)
    return partial(rts, return_matrix=True)


def off(matrix):
    """Root mean square of how far the output's centre is from the digit's, in pixels, about the mean: where in the
    output a network wants its digits is its own affair."""
    distance = matrix[:, :2, 2] * 21 - rts_pose.translation
    return (distance - distance.mean(0)).square().sum(1).mean().sqrt().item()


def r_squared_of_angle(matrix):
    angle = torch.rad2deg(torch.atan2(matrix[:, 0, 1] - matrix[:, 1, 0], matrix[:, 0, 0] + matrix[:, 1, 1]))
    return correlation(angle, rts_pose.angle) ** 2


first_view, first = after(twice, looks=1)
second_view, second = after(twice, looks=2)
_, only = after(once, looks=1)
print("the first of two looks leaves more than the second, by a third:", off(first) > 1.33 * off(second))
print("two looks come nearer than one that was trained alone:          ", off(second) < 0.95 * off(only))
print(
    "and know more of the angle:                                     ",
    r_squared_of_angle(second) > r_squared_of_angle(only) + 0.03,
)

# %% alt="Three rows of pictures for eight digits: the canvas, what the second look sees, which is the canvas warped by the first, and the output: the digit larger and more upright from row to row."
picked = torch.tensor([131, 1036, 55, 670, 608, 686, 1870, 1342])
fig, axes = plt.subplots(3, 8, figsize=(9, 3.6))
with torch.no_grad():
    rows = {"canvas": rts, "the second\nlook sees": first_view, "after it": second_view}
for row, (name, batch) in zip(axes, rows.items(), strict=True):
    for ax, picture in zip(row, batch[picked], strict=True):
        show_image(picture, ax)
    row[0].set_ylabel(name)
plt.show()

# %% [markdown]
# The first of two looks is a rough one. Over five seeds it leaves 1.92 pixels, where one look that was trained alone
# leaves 1.34; and the second, which sees the digit nearly in its place and enlarged, comes to 1.10. Of the angle
# ($R^2$) one look knows 0.27, the first of two as much, the second 0.43. Nobody divided the work like that: the same
# network looks both times, and sees pictures so different that it can do different things.
#
# ## 13.6 In depth
#
# The paper also puts transformers *between* the layers of a network, where they warp feature maps: its
# readers of house numbers have one before each of the first four convolutions. It seems the same thing, one
# floor up. Where the features are those of a turned digit, turn them back, and have those of the upright one.
# Let us see.
#
# The layer: a convolution, a ReLU, a maximum over $2 \times 2$. The turn: 90°, which puts pixels on pixels,
# so that no interpolation blurs what we look at.


# %%
def features(U, filters):
    return F.max_pool2d(F.relu(F.conv2d(U, filters)), 2)


def quarter(maps, turns=1):
    return torch.rot90(maps, turns, (2, 3))


digits = test_images[:200].double()
by_theta = similarity.sample(digits, digits.new_tensor([[0.0, 1.0, 0.0, 0.0]]).expand(200, 4), (28, 28))
print("a quarter turn is a similarity:   ", torch.allclose(by_theta, quarter(digits), rtol=0, atol=1e-12))

torch.manual_seed(0)
filters = torch.randn(8, 1, 5, 5).to(digits)
warped_back = quarter(features(quarter(digits), filters), -1)
print(f"features, warped back: relative difference {difference(warped_back, features(digits, filters)):.2f}")

# %% [markdown]
# Not near at all. What *are* the features that we warped back, then? A turned filter on an upright digit sees
# what an upright filter sees on a digit turned the other way. So they are the features that **turned
# filters** would give:

# %%
turned_filters = features(digits, quarter(filters, -1))
print(f"features of turned filters:     {difference(warped_back, turned_filters):.2f}")
symmetric = sum(quarter(filters, turns) for turns in range(4)) / 4
same = quarter(features(quarter(digits), symmetric), -1)
print(f"filters that a turn leaves alone: {difference(same, features(digits, symmetric)):.2f}")

sobel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]).to(digits)[None, None]
bank = torch.cat([quarter(sobel, turns) for turns in range(4)])
upright = features(digits, bank)
turned_back = quarter(features(quarter(digits), bank), -1)
print(f"four edge filters:              {difference(turned_back, upright):.2f}")
print(f"and their channels rolled:      {difference(turned_back.roll(-1, 1), upright):.2f}")

# %% alt="Two rows of five pictures. Above, a 5 and its four edge maps, which light up where a stroke ends to the right, above, to the left, below. Below, the same 5 turned by 90 degrees, and its four edge maps, turned back: the same four pictures, each one channel further on."
fig, axes = plt.subplots(2, 5, figsize=(8, 3.4))
pictures = ((digits[3], upright[3]), (quarter(digits)[3], turned_back[3]))
for row, (picture, maps), name in zip(
    axes, pictures, ("upright", "turned, its\nmaps turned back"), strict=True
):
    show_image(picture, row[0])
    row[0].set_ylabel(name)
    for k in range(4):
        show_image(maps[k] / upright[3].max(), row[1 + k])
for k in range(4):
    axes[0, 1 + k].set_title(f"channel {k}")
plt.show()

# %% [markdown]
# An edge on the right is an edge on top after the turn. The filter that answers is another one, so it is
# another *channel* that lights up. **A warp moves values from place to place, never from channel to
# channel.** To undo the turn the channels would have to be permuted too, and that works only for a bank that
# holds each of its filters at all four angles. Finnveden, Jansson and Lindeberg [3] prove it in general: a
# purely spatial transformation does not align the feature maps of a transformed image with those of the
# original, unless the features are special.
#
# Translation is the exception: a filter slides over all places and stays the same. Is it?

# %%
wide = F.pad(digits, (8, 8, 8, 8))
still = features(wide, filters)
for right in (1, 2, 3, 4):
    moved = features(F.pad(wide, (right, -right)), filters)
    theta = digits.new_tensor([[right / 2 * 2 / still.shape[3], 0.0]]).expand(
        200, 2
    )  # half a place for each pixel
    fetched = shift.sample(moved, theta, still.shape[2:])
    print(f"shift by {right}, features warped back by {right / 2}: {difference(fetched, still):.2f}")

# %% [markdown]
# The pool has a stride of 2. Shifts by whole strides come back exactly; after others each maximum is taken over
# other pixels, and no interpolation finds the old ones: the pool aliases, which chapter 14 explains for samplers.
#
# What *does* undo the turn? To warp the **input**. Whatever layers follow, if they are given the upright
# digit they return its features. Where depth helps is in finding $\theta$: features tell more than pixels.
# So: let the localisation network see deep features, and let its $\theta$ warp the input. A deep localisation
# network of its own, [3] finds, is hard to train; one that *shares its layers with the classifier* stays
# stable as it grows deeper. The network looks, turns the image, and looks again with the same eyes. (Exercise
# 13-7 builds it.) A transformer in depth can still choose where to look, which is what house numbers ask for.
# It just does not make the features invariant.
#
# ## 13.7 What attention saves
#
# The paper's birds are given in $448 \times 448$ pixels, and each transformer hands on $224 \times 224$: the
# networks behind never see the rest. Ours in small is the paper's set **TC**: a digit anywhere on
# $60 \times 60$ pixels, among six pieces of other digits.

# %%
cluttered, tc_pose = translated_cluttered(test_images, generator=torch.Generator().manual_seed(1))


def multiply_adds(network, shape):
    """Of one image (C, H, W) through all convolutions and linear layers of a network."""
    counts = []

    def count(layer, inputs, output):
        each = layer.weight[0].numel()  # products for one number of the output
        counts.append(output.numel() * each)

    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        network(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return sum(counts)


small_window = stn.Translation(0.4)  # 24 of 60 pixels
whole = convolutional_network((1, 60, 60), filters=32)
find = stn.ConvolutionalLocalisation((1, 60, 60), small_window)
crop = convolutional_network((1, 24, 24), filters=32)
sampler = 24 * 24 * 4
costs = {
    "the paper's CNN, 32 filters, on 60 x 60": multiply_adds(whole, (1, 60, 60)),
    "localisation network": multiply_adds(find, (1, 60, 60)),
    "sampler, four products a pixel": sampler,
    "the same CNN on 24 x 24": multiply_adds(crop, (1, 24, 24)),
}
for name, cost in costs.items():
    print(f"{name:40} {cost / 1e6:6.2f} M")
everything, *parts = costs.values()
print(f"attention first: {sum(parts) / 1e6:.2f} M, {everything / sum(parts):.0f} times less")

# %% [markdown]
# Fewer products are not fewer seconds: small layers use a processor less well. So measure, a training step of
# the one and of the other in turn, and take the middle ratio. From the machine that made this page:


# %% tags=["nbval-ignore-output"]
def step_time(network, U, targets):
    start = time.perf_counter()
    network.zero_grad()
    F.cross_entropy(network(U), targets).backward()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


attentive = nn.Sequential(stn.SpatialTransformer(find, small_window, (24, 24)), crop).to(device)
whole = whole.to(device)
batch = cluttered[:32], test_labels[:32]
rounds = [(step_time(whole, *batch), step_time(attentive, *batch)) for _ in range(7)][1:]
print(f"middle of {len(rounds)} ratios: {statistics.median(a / b for a, b in rounds):.1f} times faster")

# %% [markdown]
# And what does it cost in errors, to see a sixth of the picture? Nothing, if it is the right sixth; and here
# the rest is clutter. Fully connected networks of the same size, as in section 6.5, with the window and
# without:


# %%
def learn_cluttered(network):
    network = network.to(device)
    generator = torch.Generator().manual_seed(0)
    batches = random_batches(images, labels, 128, distortion=translated_cluttered, generator=generator)
    train(network, batches, 400, learning_rate=3e-3)
    return network


torch.manual_seed(0)
localisation = stn.FullyConnectedLocalisation((1, 60, 60), small_window, hidden=(64, 64))
look = stn.SpatialTransformer(localisation, small_window, (24, 24))
attentive = learn_cluttered(nn.Sequential(look, fully_connected_network((1, 24, 24), units=64)))
torch.manual_seed(0)
plain = learn_cluttered(fully_connected_network((1, 60, 60), units=75))
counts = [count_parameters(network) for network in (attentive, plain)]
errors = [error_rate(network, cluttered, test_labels) for network in (attentive, plain)]
print(f"parameters: with the window {counts[0]:,}, without {counts[1]:,}")
print("without, more than half are misread: ", errors[1] > 0.5)
print("with it, at most 0.75 times as many: ", errors[0] < 0.75 * errors[1])

# %% alt="Eight columns of three pictures. Above, canvases with a digit and six fragments of others. In the middle, the grid that the transformer put on each, a square of two fifths of the width, around or near the digit. Below, what it hands on: a digit and little else."
with torch.no_grad():
    V, theta = attentive[0](cluttered[:8], return_theta=True)
    _, all_thetas = attentive[0](cluttered, return_theta=True)
show_stages(cluttered[:8], small_window.grid(theta, (24, 24)), V)
plt.show()

miss = (all_thetas * 30 - tc_pose.translation).norm(dim=1).median().item()
print("half of the digits are missed by less than 5 pixels:", miss < 5)

# %% [markdown]
# Over five seeds 39.9 % are misread with the window (spread 2.5), 64.3 % without (1.2); the learning rate, too, is
# the best of $1$, $3$ and $6 \cdot 10^{-3}$ for the network without. Half of our windows are off by less than 5
# pixels, and where one misses, the digit is cut: 24 pixels leave a digit of 20 hardly any room. A wider window
# forgives more and saves less. After 400 steps neither network has learned all it could.
#
# ## Summary
#
# - A localisation network steers $T$ transforms with one body and $T$ heads; the sampler reads the one image
#   $T$ times and copies nothing.
# - Transforms that start alike stay alike. Start them apart, and bound them if they should stay apart.
# - A second look corrects the first. Multiply the matrices, the last on the right, and sample the input
#   itself: what is resampled is blurred, and cut at the border.
# - A warp of feature maps moves values between places, not between channels. It undoes shifts by whole
#   strides; turns and scales only for features that do not care. Warp the input, and let deep features say
#   how.
# - Attention before an expensive network saves the products that fall on what is not looked at: here twelve
#   of thirteen.
#
# ## Exercises
#
# Replace each `...` and run the cell. A wrong answer is told what is wrong with it. Solutions are in
# [solutions/13_many_transformers.ipynb](solutions/13_many_transformers.ipynb).

# %% [markdown]
# ### Exercise 13-1: what three more cost
#
# A localisation network ends in a layer of 50 units, and its head steers one `stn.Attention`. How many
# parameters are *added* if it shall steer four?

# %% tags=["exercise"]
# >>> solution
added = 3 * (50 * 3 + 3)
# <<< solution
check("13-1", added)

# %% [markdown]
# ### Exercise 13-2: a start for six
#
# Six windows, `stn.Translation(1 / 3)`, shall look at the image in two rows of three, before training: each a
# third of the width and a third of the height, the windows of a row side by side without a gap, the two rows
# at the upper and at the lower edge. Give the `start`, a list of six $(t_x, t_y)$, row by row from the upper
# left.

# %% tags=["exercise"]
# >>> solution
start = [[x, y] for y in (-2 / 3, 2 / 3) for x in (-2 / 3, 0.0, 2 / 3)]
# <<< solution
check("13-2", start)

# %% [markdown]
# ### Exercise 13-3: three numbers
#
# Now *three* digits are on each canvas. `p` is $(N, 3, 10)$, the probabilities of the digits at each place.
# Write a function that returns those of their sum, $(N, 28)$.


# %% tags=["exercise"]
def sum_of_three(p):
    # >>> solution
    total = torch.ones_like(p[:, 0, :1])  # of no digit, the sum is 0
    for place in range(3):
        longer = [F.pad(total * p[:, place, d, None], (d, 9 - d)) for d in range(10)]
        total = sum(longer)
    return total
    # <<< solution


check("13-3", sum_of_three)

# %% [markdown]
# ### Exercise 13-4: the order of two looks
#
# A first look has the matrix $A_1$, a second one, which sees what the first shows, $A_2$; both $(N, 2, 3)$.
# Write a function that returns the $A$, $(N, 2, 3)$, with which the input itself shows what the second look
# shows.


# %% tags=["exercise"]
def composed_matrix(A_1, A_2):
    # >>> solution
    block = A_1[:, :, :2] @ A_2[:, :, :2]
    shift = A_1[:, :, :2] @ A_2[:, :, 2:] + A_1[:, :, 2:]
    return torch.cat([block, shift], dim=2)
    # <<< solution


check("13-4", composed_matrix)

# %% [markdown]
# ### Exercise 13-5: whole strides
#
# A network: convolution, pool by 2, convolution, pool by 2, convolution with stride 2. By which shifts of the
# input, to the right, is its output moved by whole places, and otherwise (apart from borders) unchanged? Give
# the smallest such shift, in pixels.

# %% tags=["exercise"]
# >>> solution
smallest = 2 * 2 * 2
# <<< solution
check("13-5", smallest)

# %% [markdown]
# ### Exercise 13-6: a bank that turns
#
# `bank` holds filters $(4 K, 1, h, h)$: $K$ groups of four, each one filter and its quarter turns, as
# `sobel`'s above: filter $4 k + j$ is filter $4 k$, turned $j$ times by `torch.rot90(..., dims=(2, 3))`.
# `maps`, $(N, 4 K, H', W')$, are the features of images that have been turned once by
# `torch.rot90(U, 1, (2, 3))`. Write a function that makes of them the features of the images as they were.


# %% tags=["exercise"]
def unturned(maps):
    # >>> solution
    groups = torch.rot90(maps, -1, (2, 3)).unflatten(1, (-1, 4))
    return groups.roll(-1, 2).flatten(1, 2)
    # <<< solution


check("13-6", unturned)

# %% [markdown]
# ### Exercise 13-7: look again with the same eyes
#
# Write the forward pass of the transformer of section 13.6. `layers` make features of the input `U`; `head`
# regresses $\theta$ from them, flattened to $(N, F)$; `transform`, any of the library's, warps the *input* by
# $\theta$, to its own size; and what is returned are the features of *that*, by the same layers.


# %% tags=["exercise"]
def look_again(U, layers, head, transform):
    # >>> solution
    theta = head(layers(U).flatten(1))
    return layers(transform.sample(U, theta, U.shape[2:]))
    # <<< solution


check("13-7", look_again)

# %% [markdown]
# ## In the library
#
# | built here | in the library |
# | --- | --- |
# | several heads, apart and bounded | `stn.Localisation`, with `start` of $(T, P)$ and `bound` |
# | $T$ windows of one image | every transform's `sample`, of `theta` $(N, T, P)$; `stn.SpatialTransformer` |
# | the window that moves | `stn.Translation` |
# | `looks_by_hand` | `stn.InverseCompositional`; two given transforms: `compose` of a family |
# | scenes | `stn.data.side_by_side`, `stn.data.translated_cluttered` |
#
# ## References
#
# 1. M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu. *Spatial Transformer Networks*. NIPS 2015.
#    [arXiv:1506.02025](https://arxiv.org/abs/1506.02025). Section 3.4; 4.2 and A.5 in depth, 4.3 and A.6 side
#    by side, A.1 for sums of digits, A.4 for TC.
# 2. C.-H. Lin, S. Lucey. *Inverse Compositional Spatial Transformer Networks*. CVPR 2017.
#    [arXiv:1612.03897](https://arxiv.org/abs/1612.03897).
# 3. L. Finnveden, Y. Jansson, T. Lindeberg. *Understanding when spatial transformer networks do not support
#    invariance, and what to do about it*. ICPR 2020. [arXiv:2004.11678](https://arxiv.org/abs/2004.11678).
#
# ## Next
#
# A window that shows a large image in few pixels skips most of it, and one that starts far from its digit gets no
# gradient from it. [Chapter 14, Aliasing, and gradients that see
# further](14_aliasing_and_gradients_that_see_further.ipynb), is about both. Before:
# [chapter 12, The TPS transformer](12_the_tps_transformer.ipynb).
