# %% [markdown]
# # 1 Why spatial transformers
#
# > **A network that reads upright digits well is lost when they are turned. This chapter measures what the usual
# > cures cost, shows that undoing the turn would cost almost nothing, and names the three parts of a layer that
# > learns to undo it by itself.**
#
# **You will learn**
#
# - how the error of a small network grows with the angle of a digit it has only seen upright;
# - what it costs to train on every angle instead, in errors, in steps and in parameters;
# - how far pooling helps: a pixel, and hardly two;
# - what would be won if somebody told us how each digit was turned;
# - the parts of a spatial transformer, by name, and where in this book each is built.
#
# **You need** Python, the basics of PyTorch (tensors, autograd, `nn.Module`), and to have seen a classifier
# trained once. **Runs in** about 30 seconds on two cores.

# %% tags=["setup"]
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import FancyBboxPatch
from torch import nn

import stn
from stn.exercises import check
from stn.networks import convolutional_network, fully_connected_network
from stn.plotting import show_grid, show_image, use_style
from stn.training import count_parameters, error_rate, random_batches, train
from stn_kernels import affine_sample

use_style()
device = "cuda" if torch.cuda.is_available() else "cpu"
images, labels = (tensor.to(device) for tensor in stn.data.digits("train"))
test_images, test_labels = (tensor.to(device) for tensor in stn.data.digits("test"))

# %% [markdown]
# ## 1.1 A network that has only seen upright digits
#
# The book brings its own data: 10,000 digits for training and 2,000 for testing, drawn from MNIST [2]. They are
# $28 \times 28$ pixels, white on black, and somebody took care that each stands upright in the middle.

# %% alt="Ten handwritten digits in a row, from 0 to 9, white on black, upright and centred."
fig, axes = plt.subplots(1, 10, figsize=(9, 1.1))
for number, ax in enumerate(axes):
    show_image(test_images[test_labels == number][0], ax)
plt.show()

print(f"training images {tuple(images.shape)}, test images {tuple(test_images.shape)}")
print(f"values from {images.min():.0f}, black, to {images.max():.0f}, white")

# %% [markdown]
# Our network is small on purpose: two hidden layers of 64 units, all fully connected. It is the FCN (fully
# connected network) of Jaderberg et al. [1] in miniature, and it trains in seconds. Theirs is the paper that
# introduced spatial transformers; this book follows it from end to end and calls it *the paper*. So that its
# successors can be compared with it, every network of this chapter starts from the same seed, and is trained for
# the same number of steps unless we say otherwise.

# %%
STEPS = 1000  # batches of 64


def small():
    return fully_connected_network((1, 28, 28), units=64)


def trained(build, steps=STEPS, distortion=None):
    """The network that `build` makes, trained on the digits, distorted anew in every batch if asked."""
    torch.manual_seed(0)
    model = build().to(device)
    generator = torch.Generator().manual_seed(0)
    batches = random_batches(images, labels, 64, distortion=distortion, generator=generator)
    train(model, batches, steps, learning_rate=2e-3)
    return model


def error(model, images):
    return error_rate(model, images, test_labels)


print(f"parameters: {count_parameters(small()):,}")

# %%
upright_network = trained(small)
upright_error = error(upright_network, test_images)
print("fewer than one digit in ten is misread:", upright_error < 0.10)

# %% [markdown]
# About one digit in twenty is misread, after a few seconds of training. That is no record, and we do not need
# one. (Why no exact figure? Training amplifies the last rounded bit, and processors round differently. So this
# book checks *verdicts* that hold with a margin, and shows exact figures as an illustration.)
#
# ## 1.2 The same digits, turned
#
# Now turn the test digits. The function below does it with two tools that we take on trust until chapters 02 and
# 03 have taken them apart: a *pose*, which says how a digit was turned, scaled and shifted, and a sampler.


# %%
def turned(images, angle):
    """The images turned by `angle` degrees, counter-clockwise as displayed, and their pose."""
    ones = torch.ones(len(images), device=images.device)
    pose = stn.data.Pose(angle * ones, ones, ones.new_zeros(len(images), 2), (28, 28), (28, 28))
    return affine_sample(images, pose.matrix(), (28, 28)), pose


back_again = turned(turned(test_images, 90)[0], -90)[0]
print("a quarter turn and back changes nothing:", torch.allclose(back_again, test_images, atol=1e-3))

# %% alt="The same digit five, turned by -90 to 90 degrees in steps of 30. Below each, what the network reads: 5 at -30 and 0 degrees, other digits elsewhere."
angles = range(-90, 91, 30)
fig, axes = plt.subplots(1, len(angles), figsize=(9, 1.75))
readings = {}
for angle, ax in zip(angles, axes, strict=True):
    image = turned(test_images[3:4], angle)[0]
    readings[angle] = upright_network(image).argmax().item()
    show_image(image[0], ax, f"{angle}°".replace("-", "−"))
    ax.set_xlabel(f"reads {readings[angle]}", color="C0" if readings[angle] == 5 else "C1")
plt.show()

print("upright, the network reads a 5:", readings[0] == 5)
print("and at every angle:", all(reading == 5 for reading in readings.values()))

# %% [markdown]
# One digit proves little. Here is the error over all 2,000, at 25 angles.

# %% alt="The error of the network against the angle of the digits. It is 5 % at 0 degrees, about 38 % at 30 degrees either way, 80 % at 60 degrees, and meets the line of guessing, 90 %, at 90 degrees. The curve is a valley, nearly symmetrical."
angles = torch.linspace(-90, 90, 25)
turned_tests = [turned(test_images, angle)[0] for angle in angles.tolist()]


def error_by_angle(model):
    return torch.tensor([error(model, images) for images in turned_tests])


upright_curve = error_by_angle(upright_network)
fig, ax = plt.subplots(figsize=(6, 3))
ax.plot(angles, 100 * upright_curve, "o-", markersize=4)
ax.axhline(90, color="#888888", linestyle=":")
ax.text(-90, 91.5, "guessing", color="#666666")
ax.set(xlabel="angle of the digits in degrees", ylabel="misread in %")
ax.set(xticks=range(-90, 91, 30), ylim=(0, 100))
plt.show()

at = dict(zip(angles.tolist(), upright_curve.tolist(), strict=True))
print("at 15 degrees, more than twice the errors:     ", min(at[-15], at[15]) > 2 * upright_error)
print("at 45 degrees, more than half are misread:     ", min(at[-45], at[45]) > 0.5)
print("at 90 degrees, more than four in five:         ", min(at[-90], at[90]) > 0.8)

# %% [markdown]
# A turn by 15°, which no human reader would mind, more than doubles the errors. At 90° the network is little
# better than a guesser, who is wrong nine times in ten.
#
# The paper has a name for digits turned at random: the set **R**, with angles uniform between −90° and 90°.
# From here on it is our test.

# %%
turned_images, true_pose = stn.data.rotated(test_images, generator=torch.Generator().manual_seed(1))
turned_error = error(upright_network, turned_images)
angle = true_pose.angle
print(f"angles from {angle.min():.0f}° to {angle.max():.0f}°, mean {angle.mean():.1f}°")
print("at least five times the errors on upright digits:", turned_error > 5 * upright_error)

# %% [markdown]
# A function whose answer stays the same when its input is turned is called *invariant* to rotation. We want a
# reader of digits to be invariant to pose. This one is not, and nothing in its making asked it to be.
#
# ## 1.3 What invariance costs
#
# The usual cure is to ask for it: train on turned digits, with new angles in every batch. This is *data
# augmentation*. The network stays the same, and so does the number of steps.

# %%
augmented_network = trained(small, distortion=stn.data.rotated)
augmented_error = error(augmented_network, turned_images)
its_upright_error = error(augmented_network, test_images)
print("on turned digits, less than half the errors of before:", augmented_error < 0.5 * turned_error)
print("on upright digits, more than twice as many:           ", its_upright_error > 2 * upright_error)

# %% [markdown]
# It works, and it has a price. On turned digits the errors fall from more than half to less than one in five. On
# *upright* digits they rise from about one in twenty to about one in six. The network spends its parameters and
# its training on covering all angles, and has less of both left for telling a 4 from a 9.
#
# More of both buys some of it back. Four times the steps, or four times the units:

# %%
longer_network = trained(small, steps=4 * STEPS, distortion=stn.data.rotated)
wider_network = trained(lambda: fully_connected_network((1, 28, 28), units=256), distortion=stn.data.rotated)

for name, model in (("four times the steps", longer_network), ("four times the units", wider_network)):
    its_error = error(model, turned_images)
    print(f"{name}, {count_parameters(model):,} parameters:")
    print("   fewer errors than without:                             ", its_error < 0.75 * augmented_error)
    print("   still more than the upright network on upright digits:", its_error > 1.15 * upright_error)

# %% [markdown]
# Both help. But neither reaches, on turned digits, what the small network reached on upright ones in its
# thousand steps. And all this is for one number, an angle within half a circle. Let the digits also come in
# several sizes, at any place, seen at a slant: the poses multiply, and each has to be learned for each of the
# ten digits anew.
#
# ## 1.4 How far pooling helps
#
# Convolutional networks are said to be invariant to shifts. What is true of that? A convolution *moves with*
# its input: shift the picture by a pixel, and the features shift by a pixel. Invariance comes from pooling:
# a maximum over $2 \times 2$ pixels does not care which of the four holds it. Take one bright pixel in a row
# of eight, and move it.

# %%
pool = nn.MaxPool1d(2)
for place in (2, 3, 4):
    row = torch.zeros(1, 8)
    row[0, place] = 1
    once, twice = (tensor[0].int().tolist() for tensor in (pool(row), pool(pool(row))))
    print(f"bright pixel at {place}:  pooled once {once},  twice {twice}")

# %% [markdown]
# From 2 to 3 the pooled row stays the same. From 3 to 4, one pixel as well, it does not. So a pool by 2 tolerates
# a shift of one pixel at most, and of those only every other [3].
#
# In a trained network: the paper's CNN (convolutional network), with two pools and fewer filters, and beside it
# the same network with the pools taken out. They keep their stride, so that the layers fit, but each looks at one
# pixel instead of four. Both learn upright, centred digits, in half as many steps, and meet digits shifted by 1,
# 2 and 4 pixels.


# %% alt="Errors of two convolutional networks against the shift of the digits. With pooling: 8 % at no shift, 12 % at 1 pixel, 28 % at 2, 59 % at 4. Without, always higher: 11, 16, 37 and nearly 80 %."
def pooling():
    return convolutional_network((1, 28, 28), filters=8)


def not_pooling():
    model = pooling()
    for layer in model:
        if isinstance(layer, nn.MaxPool2d):
            layer.kernel_size = 1  # one pixel in each 2 x 2, instead of their maximum
    return model


shifts = (0, 1, 2, 4)
shifted_tests = [test_images.roll(shift, dims=3) for shift in shifts]  # the margins are black
fig, ax = plt.subplots(figsize=(5.4, 2.8))
errors = {}
for build, name in ((pooling, "with pooling"), (not_pooling, "without pooling")):
    model = trained(build, steps=STEPS // 2)
    errors[name] = [error(model, images) for images in shifted_tests]
    (line,) = ax.plot(shifts, [100 * value for value in errors[name]], "o-")
    ax.text(4.1, 100 * errors[name][-1], name, color=line.get_color(), va="center")
ax.set(xlabel="shift to the right in pixels", ylabel="misread in %")
ax.set(xticks=shifts, xlim=(-0.1, 5.6), ylim=(0, 90))
plt.show()

pooled, unpooled = errors["with pooling"], errors["without pooling"]
print("pooled, a shift of 1 pixel less than doubles the errors:", pooled[1] < 2 * pooled[0])
print("a shift of 2 more than doubles them:                    ", pooled[2] > 2 * pooled[0])
print("and at 4 more than a third are misread:                 ", pooled[3] > 1 / 3)
print("at every shift, pooling is better than none:            ", all(map(float.__lt__, pooled, unpooled)))

# %% [markdown]
# Pooling does what it promises, and it promises little: it softens a shift of one pixel, and is overrun by two.
# Deeper networks pool more often, and each pool doubles the pixels that a feature covers; but every pool also
# forgets *where* things are, which is what tells a 6 from a 9. Nor was pooling made for turns and sizes. What a
# network needs is not to forget the pose, but to know it.
#
# ## 1.5 Undo the pose first
#
# So let us turn the question round. The network reads upright digits well. Then make the digits upright
# *before* it reads them. We have drawn the angles ourselves, so for once we can play oracle: `true_pose`
# knows how each digit was turned, and `inverse_matrix()` how to turn it back.

# %% alt="Two rows of eight digits. Above, as they come, each turned by another angle. Below, turned back by the oracle: all upright."
upright_again = affine_sample(turned_images, true_pose.inverse_matrix(), (28, 28))
fig, axes = plt.subplots(2, 8, figsize=(8, 2.1))
for column in range(8):
    show_image(turned_images[column], axes[0, column])
    show_image(upright_again[column], axes[1, column])
axes[0, 0].set_ylabel("turned")
axes[1, 0].set_ylabel("undone")
plt.show()

oracle_error = error(upright_network, upright_again)
others = [error(model, turned_images) for model in (augmented_network, longer_network, wider_network)]
print("as on upright digits, to within one percentage point:  ", abs(oracle_error - upright_error) < 0.01)
print("fewer errors than all that were trained on turned ones:", oracle_error < min(others))

# %% [markdown]
# The network of section 1.1, without one more step of training, without one more parameter, reads turned digits
# as if they had never been turned. (An oracle gets a little help that no network can have: it knows a 6 on its
# side from a 9 on its side.) Four ways of reading, at every angle:

# %% alt="Error against angle for four ways of reading, on a logarithmic scale. Trained upright: a steep valley from 90 % down to 6 % at 0 degrees. Trained on all angles: nearly flat at 16 %, rising at both ends. With four times the steps: the same shape at 8 %. With the pose undone by the oracle: flat at 6 %."
curves = {
    "trained upright": upright_curve,
    "trained on all angles": error_by_angle(augmented_network),
    "... with four times the steps": error_by_angle(longer_network),
}
undone = [turned(images, -angle)[0] for images, angle in zip(turned_tests, angles.tolist(), strict=True)]
curves["upright, pose undone"] = torch.tensor([error(upright_network, images) for images in undone])
fig, ax = plt.subplots(figsize=(8, 3.4))
for name, curve in curves.items():
    (line,) = ax.plot(angles, 100 * curve)
    ax.text(93, 100 * curve[-1], name, color=line.get_color(), va="center")
ax.set(xlabel="angle of the digits in degrees", ylabel="misread in %")
ax.set(xticks=range(-90, 91, 30), xlim=(-92, 160))
ax.set(yscale="log", yticks=(5, 10, 20, 50, 90), yticklabels=(5, 10, 20, 50, 90), ylim=(4, 100))
ax.minorticks_off()
ax.spines.bottom.set_bounds(-92, 92)
plt.show()

flat = curves["upright, pose undone"]
spread = (flat.max() - flat.min()).item()
print("pose undone, the same at every angle to within two points:", spread < 0.02)

# %% [markdown]
# The two networks that were trained on all angles get worse towards the ends. There the training poses lie on
# one side only, so a digit at 90° has fewer neighbours to learn from than one at 0°.
#
# The exact figures, on the machine that made this page:

# %% tags=["nbval-ignore-output"]
rows = (
    ("trained upright", upright_network, STEPS, turned_images),
    ("trained on all angles", augmented_network, STEPS, turned_images),
    ("... with four times the steps", longer_network, 4 * STEPS, turned_images),
    ("... with four times the units", wider_network, STEPS, turned_images),
    ("upright, pose undone", upright_network, STEPS, upright_again),
)
print("                               parameters   steps   upright   turned")
for name, model, steps, tested in rows:
    on_upright, on_turned = error(model, test_images), error(model, tested)
    print(f"{name:30} {count_parameters(model):10,}   {steps:5}   {on_upright:7.1%}  {on_turned:7.1%}")

# %% [markdown]
# ## 1.6 Who tells us the pose?
#
# Outside of this chapter there is no oracle. A first idea: try all poses. Turn each digit back by each of 13
# angles, let the network read all 13, and believe the reading of which it is surest.

# %%
candidates = torch.linspace(-90, 90, 13).tolist()
with torch.no_grad():
    scores = [upright_network(turned(turned_images, -angle)[0]) for angle in candidates]
surest = torch.stack(scores).softmax(2).amax(0)  # for each digit and class, over all candidates
readings = surest.argmax(1)
search_error = (readings != test_labels).float().mean().item()
print("readings per digit:", len(candidates))
print("better than not searching, less than half the errors:", search_error < 0.5 * turned_error)
print("worse than the oracle, more than twice the errors:   ", search_error > 2 * oracle_error)

# %% [markdown]
# It makes more than twice the oracle's errors at thirteen times the work: a network that has never seen a
# turned digit is often quite sure of a wrong reading. And the work multiplies: with sizes and places to try
# as well, thirteen readings become hundreds (exercise 01-2).
#
# But to see how a digit is turned, one need not try; one look is enough. So let a **network** look, and
# predict the pose. Who teaches it? Our data have labels for digits, and none for poses. This is where the
# paper's idea comes in:
#
# > Put the pose network, the turning and the reading network in one chain, and make the turning
# > *differentiable*. Then the error of the reading flows back, through the turning, into the pose network.
# > Whatever pose makes the digit easier to read is rewarded. Nobody ever says what upright is.
#
# ## 1.7 The three parts
#
# Here is the chain, Figure 2 of the paper, drawn with a real digit. What the localisation network would have to
# predict we take, one last time, from the oracle.

# %%
U, pose = turned(test_images[3:4], 50)
theta = pose.inverse_matrix()
grid = stn.Affine().grid(theta.flatten(1), (28, 28))
V = affine_sample(U, theta, (28, 28))

print(f"U      {tuple(U.shape)}   the input: one image of one channel, 28 rows, 28 columns")
print(f"theta  {tuple(theta.shape)}      six numbers that say where to look:")
for row in theta[0].tolist():
    print("       ", "  ".join(f"{value:5.2f}" for value in row))
print(f"grid   {tuple(grid.shape)}   for each output pixel, a place in the input: x and y")
print(f"V      {tuple(V.shape)}   the output")

# %% alt="Figure 2 of the paper. Below, the input U, a digit five turned by 50 degrees. Inside a dashed frame, the spatial transformer: an arrow leads from U up to the localisation network, which gives theta, six numbers, to the grid generator, which gives the sampling grid, drawn over the input as a turned square. Grid and U meet in the sampler, which gives the output V: the five, upright."
INK, QUIET = "#444444", "#666666"
fig, ax = plt.subplots(figsize=(9, 4.1))
ax.set(xlim=(0, 18), ylim=(0, 8.2), aspect="equal")
ax.axis("off")


def rounded(x, y, width, height, radius, **style):
    boxstyle = f"round,pad=0,rounding_size={radius}"
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=boxstyle, **style))


def box(x, y, width, height, name, chapter):
    rounded(x, y, width, height, 0.25, facecolor="#e8f1f8", edgecolor="C0", linewidth=1.4)
    ax.text(x + width / 2, y + height / 2 + 0.25, name, ha="center", va="center")
    ax.text(x + width / 2, y + 0.38, chapter, ha="center", va="center", color=QUIET, fontsize=8)


def arrow(start, end):
    style = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=style)


def picture(x, y, side, draw, *arguments):
    draw(*arguments, ax.inset_axes((x, y, side, side), transform=ax.transData))


rounded(3.5, 0.15, 11.0, 7.9, 0.4, facecolor="none", edgecolor="#888888", linestyle="--")
ax.text(3.9, 7.55, "spatial transformer", color=QUIET, va="center")

picture(0.2, 0.7, 2.6, show_image, U[0])
ax.text(1.5, 0.3, "input $U$", ha="center", va="center")
box(4.0, 4.5, 3.2, 1.9, "localisation\nnetwork", "chapter 05")
box(8.6, 4.5, 2.4, 1.9, "grid\ngenerator", "chapter 02")
picture(11.6, 4.0, 2.7, show_grid, U[0], grid[0])
ax.text(12.95, 7.05, r"grid $T_\theta(G)$", ha="center", va="center")
box(11.75, 1.1, 2.4, 1.8, "sampler", "chapter 03")
picture(15.2, 0.7, 2.6, show_image, V[0])
ax.text(16.5, 0.3, "output $V$", ha="center", va="center")

arrow((2.9, 2.0), (11.7, 2.0))
arrow((4.9, 2.0), (4.9, 4.45))
arrow((7.2, 5.45), (8.55, 5.45))
ax.text(7.87, 5.85, r"$\theta$", ha="center", va="center", fontsize=12)
arrow((11.0, 5.45), (11.55, 5.45))
arrow((12.95, 3.95), (12.95, 2.95))
arrow((14.15, 2.0), (15.1, 2.0))
plt.show()

# %% [markdown]
# | part | takes | gives | built in |
# | --- | --- | --- | --- |
# | **localisation network** | the input $U$ | $\theta$, the parameters of a transform | [chapter 05](05_localisation.ipynb) |
# | **grid generator** | $\theta$ | the sampling grid $T_\theta(G)$: for each output pixel, where in $U$ to look | [chapter 02](02_coordinates_and_grids.ipynb) |
# | **sampler** | $U$ and the grid | the output $V$ | [chapter 03](03_sampling.ipynb) |
# | the way back: gradients through sampler and grid | | | [chapter 04](04_gradients.ipynb) |
# | **spatial transformer**, the whole | $U$ | $V$ | [chapter 06](06_the_spatial_transformer.ipynb) |
#
# Three things in the picture are worth a second look.
#
# - The input is used twice: once to decide where to look, and once to look.
# - The grid lies on the *input*. It is not the digit that is turned: a turned grid is read out row by row, and
#   the digit comes out upright. Chapter 02 begins with this.
# - $V$ is an image like $U$. The layer can stand before any network, or between any two layers of one; it
#   needs no labels of its own, and it decides anew for each input.
#
# ## 1.8 What the paper found
#
# The paper [1] trained networks of about the same number of parameters on distorted digits, for 150,000 steps of
# 256 digits. From its Table 1, the share of test digits misread, in per cent:
#
# | | R: turned | RTS: turned, scaled, shifted |
# | --- | --- | --- |
# | FCN: fully connected | 2.1 | 5.2 |
# | CNN: convolutional, with pooling | 1.2 | 0.8 |
# | ST-FCN: FCN behind a spatial transformer | 1.2 | 0.8 |
# | ST-CNN: CNN behind a spatial transformer | 0.7 | 0.5 |
#
# These are the paper's figures, with its affine transformer, whose $\theta$ is section 1.7's six numbers, not ours. Read down a column: a fully connected
# network behind a transformer does as well as a convolutional one without. And read the CNN's line again, for
# fairness: trained long enough on all poses, a network without any transformer gets far. A transformer is no
# magic; it is a better use of the same parameters. Chapter 06 trains an ST-FCN on RTS in a minute and checks
# what is left of the difference on that scale.
#
# The paper went on to house numbers photographed in the street and to species of birds, where a transformer
# finds the bird's head without having been told what a head is.
#
# ## 1.9 How this book works
#
# Each chapter is a notebook: run it from top to bottom, then change things. Every part is built three times: by
# hand, in plain PyTorch, and with the library, which does it in one *fused kernel*, a GPU program of its own that
# chapters 07 to 09 take apart; and a cell checks that all agree. Each notebook is also a test: with every change
# to the library, all chapters are executed and what they print is compared with what you see here. A figure is a
# picture of a number that was checked beside it. Some numbers take more runs than a notebook has time for, such
# as a mean over five seeds; there the text says how many runs they come from. No cell repeats them, but for many
# `chapters/repeats.py` does.
#
# Chapters end with exercises, from recall to building. A cell that ends in `check(...)` reads your answer,
# and if it is wrong says what is wrong with it.
#
# ## Summary
#
# - A network trained on upright digits misreads most digits that are turned by 45° or more.
# - Training on all angles helps, and costs: errors on upright digits, steps, parameters.
# - Pooling gives tolerance of a pixel, hardly of two, and was not made for turns and sizes.
# - With the pose undone first, the upright network reads turned digits as well as upright ones.
# - A spatial transformer learns to undo it: a localisation network predicts $\theta$, a grid generator turns
#   $\theta$ into places, a sampler reads the input there; all of it differentiable, none of it told the pose.
#
# ## Exercises
#
# Replace each `...` and run the cell. A wrong answer is told what is wrong with it. Solutions are in
# [solutions/01_why_spatial_transformers.ipynb](solutions/01_why_spatial_transformers.ipynb).

# %% [markdown]
# ### Exercise 01-1: the three parts
#
# Name the three parts of a spatial transformer in the order in which the data meet them: a list of three
# strings.

# %% tags=["exercise"]
# >>> solution
parts = ["localisation network", "grid generator", "sampler"]
# <<< solution
check("01-1", parts)

# %% [markdown]
# ### Exercise 01-2: how many poses?
#
# The search of section 1.6 shall try angles from −90° to 90° in steps of 15°, both ends included; three
# sizes; and shifts by −4, −2, 0, 2 and 4 pixels, across and down independently. How many readings does one
# digit take?

# %% tags=["exercise"]
# >>> solution
readings_per_digit = 13 * 3 * 5 * 5
# <<< solution
check("01-2", readings_per_digit)

# %% [markdown]
# ### Exercise 01-3: read the table
#
# On RTS, which share of the FCN's errors does the transformer take away? A number between 0 and 1.

# %% tags=["exercise"]
# >>> solution
share_removed = (5.2 - 0.8) / 5.2
# <<< solution
check("01-3", share_removed)

# %% [markdown]
# ### Exercise 01-4: what pools tolerate at best
#
# In a long row one pixel is bright, the very first. The row goes through `pools` pools by 2, one after the other.
# Write a function that returns how many pixels to the right the bright one can move, at most, before what
# comes out changes.


# %% tags=["exercise"]
def tolerated(pools):
    # >>> solution
    return 2**pools - 1
    # <<< solution


check("01-4", tolerated)

# %% [markdown]
# ### Exercise 01-5: from the curve to the error on R
#
# Section 1.2 measured the error at some angles. Predict from these the error on R, where angles are uniform
# between the first and the last: a function of two tensors, `angles` (ascending, at any distances) and
# `errors`. Between two measured angles the error runs along a straight line.


# %% tags=["exercise"]
def error_on_R(angles, errors):
    # >>> solution
    return torch.trapezoid(errors, angles) / (angles[-1] - angles[0])
    # <<< solution


check("01-5", error_on_R)

# %% [markdown]
# ### Exercise 01-6: an oracle that errs
#
# How exact must a pose be? Write a function that undoes a pose whose angle it takes to be larger than it is
# by `off` degrees: turned images (N, C, 28, 28) and their true `pose` in, (N, C, 28, 28) out. For `off=0` it is
# the oracle of section 1.5. (`replace(pose, angle=...)` copies a pose with another angle.)


# %% tags=["exercise"]
def nearly_upright(images, pose, off):
    # >>> solution
    believed = replace(pose, angle=pose.angle + off)
    return affine_sample(images, believed.inverse_matrix(), (28, 28))
    # <<< solution


check("01-6", nearly_upright)

# %% [markdown]
# ## In the library
#
# | used here | in the library |
# | --- | --- |
# | digits, the set R, poses | `stn.data.digits`, `stn.data.rotated`, `stn.data.Pose` |
# | the paper's FCN and CNN | `stn.networks.fully_connected_network`, `stn.networks.convolutional_network` |
# | training and error rate | `stn.training.train`, `stn.training.error_rate` |
# | grid generator and sampler in one | `stn_kernels.affine_sample` |
#
# ## References
#
# 1. M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu. *Spatial Transformer Networks*. NIPS 2015.
#    [arXiv:1506.02025](https://arxiv.org/abs/1506.02025). Sections 1 to 3, Table 1 and appendix A.4.
# 2. Y. LeCun, L. Bottou, Y. Bengio, P. Haffner. *Gradient-Based Learning Applied to Document Recognition*.
#    Proceedings of the IEEE 86(11), 1998. [doi:10.1109/5.726791](https://doi.org/10.1109/5.726791).
# 3. R. Zhang. *Making Convolutional Networks Shift-Invariant Again*. ICML 2019.
#    [arXiv:1904.11486](https://arxiv.org/abs/1904.11486). Why even shifts are not for free.
#
# ## Next
#
# [Chapter 02, Coordinates and grids](02_coordinates_and_grids.ipynb): what six numbers have to do with where
# to look.
