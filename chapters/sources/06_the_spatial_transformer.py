# %% [markdown]
# # 6 The spatial transformer
#
# > **Three parts become one layer, in ten lines. Trained on digits that lie anywhere, at any size and angle,
# > and told nothing but which digit each is, it learns to find them, to enlarge them and to straighten them;
# > and the network behind it makes less than half the errors.**
#
# **You will learn**
#
# - how a gradient reaches $\theta$, and how far it can see;
# - what a localisation network is, and why its last layer starts at zero weights and the identity's bias;
# - to assemble a spatial transformer from its parts, and to use the library's;
# - to train it, fairly compared with a network of the same size that has none;
# - to read a digit's place, size and angle off $\theta$, and to see what it learned and what not.
#
# **You need** chapters [02](02_coordinates_and_grids.ipynb) and [03](03_sampling.ipynb); sections 6.2 and 6.3 say in
# short what chapters [04](04_gradients.ipynb) and [05](05_localisation.ipynb) say at length. **Runs in** about 60
# seconds on two cores, most of it training.

# %% tags=["setup"]
import math
import time

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

import stn
from stn.data import Pose, rotated_translated_scaled
from stn.exercises import check
from stn.networks import fully_connected_network
from stn.plotting import show_grid, show_image, show_stages, use_style
from stn.training import count_parameters, error_rate, random_batches, train
from stn_kernels import affine_sample

use_style()
torch.set_printoptions(precision=4, sci_mode=False)
device = "cuda" if torch.cuda.is_available() else "cpu"
affine = stn.Affine()
images, labels = (tensor.to(device) for tensor in stn.data.digits("train"))
test_images, test_labels = (tensor.to(device) for tensor in stn.data.digits("test"))

# %% [markdown]
# ## 6.1 The task: RTS
#
# The paper's set **RTS** [1] distorts each digit three ways at once: it is *rotated* by up to 45° either way,
# *scaled* by 0.7 to 1.2, and *translated*, put anywhere on a canvas of $42 \times 42$ pixels. In training every
# batch is distorted anew; our 2,000 test digits are distorted once. They come with their true pose. The networks of
# this chapter never see it; we use it at the end, to look into what they did.

# %% alt="Sixteen canvases, each with one digit: large and small, leaning left and right, in the corners and in the middle."
canvases, true_pose = rotated_translated_scaled(test_images, generator=torch.Generator().manual_seed(1))

fig, axes = plt.subplots(2, 8, figsize=(8, 2.1))
for ax, canvas in zip(axes.flat, canvases, strict=False):
    show_image(canvas, ax)
plt.show()

covered = ((28 * true_pose.scale) ** 2 / 42**2).mean()
print(f"canvases {tuple(canvases.shape)}; a digit's own frame covers {covered:.0%} of its canvas on average")

# %% [markdown]
# ## 6.2 A gradient for theta
#
# Chapter 03 built a sampler that is differentiable: move a sampling point a little, and the value changes a
# little. The grid is a matrix product, differentiable too. So whatever is computed from the output $V$, its
# gradient goes through sampler and grid to $\theta$. [Chapter 04](04_gradients.ipynb) derives it; autograd has
# it already.
#
# As a loss we take something we can see: how far $V$ is from the same digit as it was before it was distorted.


# %%
def placed(images, angle=0.0, scale=1.0, right=0.0, down=0.0):
    """The images on canvases, in a pose of our choice, and that pose."""
    ones = images.new_ones(len(images))
    translation = torch.stack([right * ones, down * ones], dim=1)
    pose = Pose(angle * ones, scale * ones, translation, (28, 28), (42, 42))
    return affine_sample(images, pose.matrix(), (42, 42)), pose


def distance(theta, canvas, digit):
    """Mean squared difference between what theta (6,) shows of the canvas and the digit."""
    return F.mse_loss(affine.sample(canvas, theta[None], (28, 28)), digit)


# %%
digit = test_images[3:4].double()
canvas, pose = placed(digit, angle=25, right=3, down=-2)
theta = affine.identity().to(digit).requires_grad_()
distance(theta, canvas, digit).backward()
print("by autograd:    ", theta.grad)

step = 1e-5
with torch.no_grad():
    nudges = step * torch.eye(6).to(digit)
    differences = [distance(theta + n, canvas, digit) - distance(theta - n, canvas, digit) for n in nudges]
by_differences = torch.stack(differences) / (2 * step)
print("by differences: ", by_differences)
print("they agree:     ", torch.allclose(theta.grad, by_differences, atol=1e-7))

# %% [markdown]
# Six numbers that say how each parameter should change. Then let us follow them: from the identity, downhill,
# 200 steps. And a second time with the same digit farther away.


# %%
def descend(canvas, digit, steps=200):
    theta = affine.identity().to(digit).requires_grad_()
    optimiser = torch.optim.Adam([theta], lr=0.02)
    losses = []
    for _ in range(steps):
        loss = distance(theta, canvas, digit)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return theta.detach(), losses[-1] / losses[0]


found, remaining = {}, {}
poses = {"near": {"angle": 25, "right": 3, "down": -2}, "far": {"angle": 10, "right": 9, "down": 7}}
for name, where in poses.items():
    canvas, pose = placed(digit, **where)
    found[name], remaining[name] = descend(canvas, digit)
    error = (found[name] - pose.inverse_matrix().flatten()).abs().max()
    print(f"{name:4}: theta found to within 0.01 of the true one: {(error < 0.01).item()}")
print("near: less than a tenth of the loss is left:", remaining["near"] < 0.1)
print("far:  more than half of it is left:         ", remaining["far"] > 0.5)

# %% alt="Two rows of four panels: input, grid, output, and the digit that is wanted. Above, the digit near the middle: the grid has turned and closed around it, and the output shows the five as wanted. Below, the digit in the lower right corner: the grid is still large, sheared and beside it; in the output the five is too small and off-centre."
fig, axes = plt.subplots(2, 4, figsize=(7.6, 4))
for row, (name, where) in zip(axes, poses.items(), strict=True):
    canvas, _ = placed(digit, **where)
    show_image(canvas[0], row[0], f"{name}: input")
    show_grid(canvas[0], affine.grid(found[name][None], (28, 28))[0], row[1], "grid after 200 steps")
    row[1].set(xlim=(-4, 45), ylim=(45, -4))
    show_image(affine.sample(canvas, found[name][None], (28, 28))[0], row[2], "output")
    show_image(digit[0], row[3], "wanted")
plt.show()

# %% [markdown]
# The near digit is found, exactly, by nothing but gradients. The far one is not: the descent got stuck. A bilinear
# sample only sees its four neighbours. So the gradient knows which way to go where the strokes of output and wanted
# digit already touch, and next to nothing of strokes farther away. **The gradient of $\theta$ is near-sighted** [2].
# In between, chance decides: with 20°, 4 pixels right and 3 up, the descent arrives, and does not if 0.002 is added to
# $\theta_{11}$ at the start; with 0.001 or 0.003 it does.
#
# This is one reason why we do not search $\theta$ anew for each image, by 200 steps each. The other is that we
# never have the picture that is wanted. Instead a network predicts $\theta$ in one go, and learns from all
# images what one image's gradient cannot tell.
#
# ## 6.3 The localisation network
#
# Any network will do that takes $U$ and returns as many numbers as the transform has parameters. The paper's
# has a few layers as in any classifier, the *body*; and one last linear layer, the *head*, that regresses
# $\theta$. [Chapter 05](05_localisation.ipynb) is about both. Ours has two hidden layers of 128 units. The head
# needs a decision right now: where should it start?


# %%
def body():
    layers = [nn.Flatten(), nn.Linear(42 * 42, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()]
    return nn.Sequential(*layers).to(device)


def head_as_usual():
    return nn.Linear(128, 6).to(device)


def head_at_identity():
    head = nn.Linear(128, 6).to(device)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(affine.identity())
    return head


torch.manual_seed(0)
for name, head in (("as usual", head_as_usual()), ("at the identity", head_at_identity())):
    with torch.no_grad():
        theta = head(body()(canvases))
        V = affine.sample(canvases, theta, (42, 42))
    area = affine.matrix(theta)[:, :, :2].det().abs().mean().item()
    print(f"{name:15}  the grid covers more than 2 % of the canvas: {area > 0.02!s:5}", end=" ")
    print(" output equals input to 1e-5:", torch.allclose(V, canvases, rtol=0, atol=1e-5))

# %% [markdown]
# With PyTorch's usual initialisation the first $\theta$ is a small random matrix. Its grid is a speck near the
# middle, and the output the few pixels that lie there, whatever the digit. So the head starts with **zero weights
# and the identity's bias**: whatever the body says, $\theta$ is the identity, and the output is the input (up to
# rounding, section 3.10). The network behind the transformer can begin to learn at once, and every change of
# $\theta$ has to earn its place.
#
# Zero weights have a consequence that surprises: they stop the gradient, too.

# %%
torch.manual_seed(0)
first, head = body(), head_at_identity()
classifier = fully_connected_network((1, 28, 28), units=64).to(device)
chain = [*first.parameters(), *head.parameters(), *classifier.parameters()]
optimiser = torch.optim.Adam(chain, lr=3e-3)
for step in (1, 2):
    V = affine.sample(canvases[:128], head(first(canvases[:128])), (28, 28))
    optimiser.zero_grad()
    F.cross_entropy(classifier(V), test_labels[:128]).backward()
    optimiser.step()
    reached = [any(p.grad.any() for p in part.parameters()) for part in (head, first)]
    print(f"step {step}: the gradient reaches the head: {reached[0]}, the body: {reached[1]}")

# %% [markdown]
# The gradient of the body is multiplied by the head's weights, which are zero. The head's own gradient is not.
# So the first step moves the head, and from the second step on the body learns too. No harm done; but who
# tests a transformer by looking for gradients at the first step should know.
#
# ## 6.4 Assembled by hand
#
# Now the whole of the paper's Figure 2 (section 1.7): localisation network, grid generator, sampler.


# %%
class TransformerByHand(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.body, self.head, self.size = body(), head_at_identity(), size

    def forward(self, U):
        theta = self.head(self.body(U)).reshape(-1, 2, 3)
        grid = F.affine_grid(theta, (len(U), 1, *self.size), align_corners=False)
        return F.grid_sample(U, grid, align_corners=False)


torch.manual_seed(0)
by_hand = TransformerByHand((42, 42))
unchanged = torch.allclose(by_hand(canvases), canvases, rtol=0, atol=1e-5)
print("untrained, it returns its input to 1e-5:", unchanged)

# %% [markdown]
# The library's `stn.SpatialTransformer` is put together from the same parts, which can be exchanged: a
# localisation network, a transform (chapter 02) that says what $\theta$ means, and the size of the output. It
# samples with the fused `affine_sample`. To compare the two we give both the same weights, and such that they
# do something.

# %%
localisation = stn.FullyConnectedLocalisation((1, 42, 42), affine, hidden=(128, 128))
transformer = stn.SpatialTransformer(localisation, affine, (42, 42)).to(device)
nn.init.normal_(by_hand.head.weight, std=0.1)
localisation.load_state_dict(by_hand.state_dict())

outputs = by_hand(canvases), transformer(canvases)
print("outputs agree:  ", torch.allclose(*outputs, rtol=0, atol=1e-4))
for output in outputs:
    (output - canvases).square().sum().backward()
gradients = [model.body[1].weight.grad for model in (by_hand, localisation)]
scale = gradients[0].abs().max()
print("gradients agree:", torch.allclose(gradients[0] / scale, gradients[1] / scale, rtol=0, atol=1e-3))
print("and the transformer changed its input:", not torch.allclose(outputs[0], canvases, atol=0.1))

# %% [markdown]
# ## 6.5 With and without
#
# Does it help? The comparison has to be fair. Both contestants are fully connected, as in the paper's FCN and
# ST-FCN. The one with the transformer spends most of its parameters on the localisation network, so it gets
# a small classifier behind; the one without gets wider layers, until both have about the same number of
# parameters.


# %%
def with_transformer():
    localisation = stn.FullyConnectedLocalisation((1, 42, 42), affine, hidden=(128, 128))
    transformer = stn.SpatialTransformer(localisation, affine, (28, 28))
    return nn.Sequential(transformer, fully_connected_network((1, 28, 28), units=64))


def without_transformer():
    return fully_connected_network((1, 42, 42), units=153)


counts = [count_parameters(build()) for build in (with_transformer, without_transformer)]
print(f"parameters with the transformer {counts[0]:,}, without {counts[1]:,}")
print("within 10 % of each other:", max(counts) < 1.1 * min(counts))

# %% [markdown]
# The transformer's output has $28 \times 28$ pixels, so it must decide what of the canvas is worth showing. At
# the start, with the identity, it shows all of it, smaller.
#
# Both train for 3,000 steps of 128 digits, distorted on the fly with our own sampler, by Adam with the same learning
# rate, $3 \cdot 10^{-3}$. It was chosen for the network *without*: of $1$, $2$, $3$ and $5 \cdot 10^{-3}$ it gave
# that one the lowest error (on the test digits, even: a choice in its favour). While they train, we take down the
# error on the test set every 250 steps, with the time it took to get there; and, of the transformer, the $\theta$ of
# all test digits.

# %%
STEPS, EARLY = 3000, (30, 100)
history, film = {"with": [], "without": []}, {}


def compete(name, build, watch=lambda step, model: None):
    torch.manual_seed(0)
    model = build().to(device)
    generator = torch.Generator().manual_seed(0)
    batches = random_batches(images, labels, 128, distortion=rotated_translated_scaled, generator=generator)
    start = time.perf_counter()

    def record(step):
        watch(step, model)
        if step in EARLY or step % 250 == 0:
            error = error_rate(model, canvases, test_labels)
            history[name].append((step, time.perf_counter() - start, error))

    record(0)
    train(model, batches, STEPS, learning_rate=3e-3, callback=record)
    return model


@torch.no_grad()
def take_down_theta(step, model):
    if step in EARLY or step % 250 == 0:
        film[step] = model[0](canvases, return_theta=True)[1]


model = compete("with", with_transformer, take_down_theta)
transformer, classifier = model
print("fewer than one digit in ten is misread:", history["with"][-1][2] < 0.10)

# %%
plain = compete("without", without_transformer)
errors = {name: rows[-1][2] for name, rows in history.items()}
print("without the transformer, more than one in ten:", errors["without"] > 0.10)
print("with it, at most half of the errors:          ", errors["with"] <= 0.5 * errors["without"])

# %% [markdown]
# One run proves little. Here are five, the first with our seed (the last digit depends on the machine), the others
# with other initial weights and other batches; the errors in per cent:
#
# | seed | with | without | without / with |
# | --- | --- | --- | --- |
# | 0 | 4.80 | 15.20 | 3.2 |
# | 1 | 4.45 | 15.55 | 3.5 |
# | 2 | 4.35 | 16.10 | 3.7 |
# | 3 | 4.75 | 16.35 | 3.4 |
# | 4 | 4.55 | 16.10 | 3.5 |
#
# **Equal steps are not equal time.** A step with the transformer takes longer: there is a localisation network
# to pass, and a sampler. What had the transformer reached when the network without was done? Times and exact
# figures, from the machine that made this page:

# %% tags=["nbval-ignore-output"]
for name, rows in history.items():
    step, seconds, error = rows[-1]
    print(f"{name:8} {step} steps in {seconds:4.1f} s, error {error:.1%}")
budget = history["without"][-1][1]
step, seconds, error = [row for row in history["with"] if row[1] <= budget][-1]
print(f"equal time: after {seconds:.1f} s the transformer had done {step} steps, error {error:.1%}")

# %% [markdown]
# At equal time the transformer is cut short, before its learning rate has come down, and is far ahead all the same:
# in the five runs above its error was then about 5 %. How long would the other need to catch up? With four times the
# steps, 12,000, it came to 9.75 %, in a separate run, still twice as much.
#
# ## 6.6 Watching it learn
#
# We took down every $\theta$ on the way, so we can look back. First, how well does $\theta$ know the pose?
# The ideal $\theta$ puts the output's centre on the digit's centre, and its columns turn and shrink the grid
# with the digit. That suggests how to read a $\theta$: the place off the last column, the scale off the determinant
# (section 2.6), and the angle off $\theta_{12} - \theta_{21}$ and $\theta_{11} + \theta_{22}$, whose ratio is a turn's
# tangent; here in pixels and degrees:


# %%
def read(theta):
    """Place right of the centre in pixels, scale, and angle in degrees, as theta (N, 6) has them."""
    A = affine.matrix(theta)
    right = A[:, 0, 2] * 42 / 2
    scale = A[:, :, :2].det().abs().sqrt() * 42 / 28
    angle = torch.rad2deg(torch.atan2(A[:, 0, 1] - A[:, 1, 0], A[:, 0, 0] + A[:, 1, 1]))
    return {"place": right, "scale": scale, "angle": angle}


truth = {"place": true_pose.translation[:, 0], "scale": true_pose.scale, "angle": true_pose.angle}
ideal = read(true_pose.inverse_matrix().flatten(1))
exact = [torch.allclose(ideal[key], truth[key], atol=1e-3) for key in truth]
print("read off the ideal theta, the pose is exact:", all(exact))

# %% [markdown]
# How well two columns of numbers go together is measured by $R^2$, the square of their correlation: 1 if one
# is a straight line's function of the other, 0 if neither says anything about the other.


# %%
def r_squared(x, y):
    return torch.corrcoef(torch.stack([x, y]))[0, 1].square().item()


steps = [step for step in film if step > 0]
knows = {key: [r_squared(read(film[step])[key], truth[key]) for step in steps] for key in truth}
print("place, above 0.9:            ", knows["place"][-1] > 0.9)
print("scale, above 0.5:            ", knows["scale"][-1] > 0.5)
print("angle, between 0.3 and 0.55: ", 0.3 < knows["angle"][-1] < 0.55)
print(f"after {steps[0]} steps the place, above 0.5:", knows["place"][0] > 0.5)
print(f"after {steps[0]} steps the angle, below 0.1:", knows["angle"][0] < 0.1)

# %% alt="Left: error against steps, on a logarithmic scale of steps. Without the transformer it falls from 78 % at 30 steps to 15 % at 3,000; with it, to 5 %. Right: R squared of place, scale and angle against steps. The place is known first: 0.7 after 30 steps, 0.98 in the end. Scale and angle follow, to 0.6 and 0.4."
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
for name, rows in history.items():
    taken, _, error = zip(*rows[1:], strict=True)
    left.plot(taken, [100 * value for value in error])
    left.text(1.1 * STEPS, 100 * error[-1], name, color=left.lines[-1].get_color(), va="center")
for key, values in knows.items():
    right.plot(steps, values)
    right.text(1.1 * STEPS, values[-1], key, color=right.lines[-1].get_color(), va="center")
left.set(ylabel="misread in %", ylim=(0, 100))
right.set(ylabel="$R^2$ of what θ says", ylim=(0, 1.02))
for ax in (left, right):
    ax.set(xscale="log", xlabel="steps", xlim=(28, 7000))
    ax.set_xticks((30, 100, 300, 1000, 3000), labels=("30", "100", "300", "1000", "3000"), minor=False)
    ax.minorticks_off()
    ax.spines.bottom.set_bounds(28, STEPS)
plt.show()

# %% [markdown]
# The place is known almost at once; scale and angle follow, and never get as far. The order makes sense: while
# a digit may be anywhere, the classifier can make little of it, so to find it pays most. The same in
# pictures: six test digits, and where the transformer looked, as the steps went by.

# %% alt="Six columns, one for each of six test digits; six rows, for 0, 30, 100, 250, 1000 and 3000 steps. In the first row every grid covers the whole canvas. Row by row the grids move to the digits, close around them, and begin to lean with them."
chosen = torch.tensor([131, 1036, 55, 608, 686, 1342])
shown = (0, 30, 100, 250, 1000, 3000)
fig, axes = plt.subplots(len(shown), len(chosen), figsize=(7.6, 7.7))
for row, step in zip(axes, shown, strict=True):
    grids = affine.grid(film[step][chosen], (28, 28))
    for ax, canvas, grid in zip(row, canvases[chosen], grids, strict=True):
        show_grid(canvas, grid, ax)
        ax.set(xlim=(-4.5, 45.5), ylim=(45.5, -4.5))
    row[0].set_ylabel(f"{step} steps")
plt.show()

areas = [affine.matrix(film[step])[:, :, :2].det().mean().item() for step in shown]
print(f"at the start the grids cover {areas[0]:.0%} of the canvas")
print("at the end less than half of it: ", areas[-1] < 0.5)

# %% [markdown]
# ## 6.7 What it hands on
#
# The trained transformer on eight test digits, picked for being far from upright: what comes in, where it looks,
# what it hands on.

# %% save="figures/first_light.png" alt="Eight columns of three pictures. Above, digits on black canvases, at all sizes, angles and places. In the middle, the same with the sampling grid that the transformer put on each: a small, turned quadrilateral around the digit. Below, what it hands on: the digits, large, centred and nearly upright."
picked = torch.tensor([131, 1036, 55, 670, 608, 686, 1870, 1342])
with torch.no_grad():
    V, theta = transformer(canvases[picked], return_theta=True)
show_stages(canvases[picked], affine.grid(theta, (28, 28)), V)
plt.show()

# %% [markdown]
# Is that so for all, or only for eight picked ones? Average. The mean of all canvases that show a 5 is a
# smear; the more alike the digits are that the transformer hands on, the sharper is their mean. The number to
# it: which share of all squared pixel values do the ten means explain? For comparison the oracle of chapter 01
# undoes the true pose, with a sampler that blurs as much as the transformer's.


# %%
def class_means(images):
    return torch.stack([images[test_labels == number].mean(0) for number in range(10)])


def explained(images, number=None):
    """The share of the squared pixels that the ten means explain; of one class alone if asked."""
    of_class = slice(None) if number is None else test_labels == number
    means = class_means(images)[test_labels][of_class]
    return (means.square().sum() / images[of_class].square().sum()).item()


with torch.no_grad():
    handed_on = transformer(canvases)
undone = affine_sample(canvases, true_pose.inverse_matrix(), (28, 28))
print("canvases, less than a third:                    ", explained(canvases) < 1 / 3)
print("handed on, more than half:                      ", explained(handed_on) > 0.5)
difference = abs(explained(handed_on) - explained(undone))
print("true pose undone, the same to within 0.05:      ", difference < 0.05)
print("of digit 1, more than with the true pose undone:", explained(handed_on, 1) > explained(undone, 1))

# %% alt="Three rows of ten averages, one for each digit. Above, of the canvases: grey smears, hardly to be told apart. In the middle, of what the transformer hands on: nine readable digits, the 1 a clean upright bar; only the 4 is a blur. Below, of the digits with the true pose undone: readable, the 1 a fan of strokes that cross."
fig, axes = plt.subplots(3, 10, figsize=(9, 2.9))
batches = {"input": canvases, "output": handed_on, "true pose\nundone": undone}
for row, (name, batch) in zip(axes, batches.items(), strict=True):
    for ax, mean in zip(row, class_means(batch), strict=True):
        show_image(mean / mean.max(), ax)
    row[0].set_ylabel(name)
plt.show()

# %% [markdown]
# What the transformer hands on is, by this measure, as much alike as if the true poses had been undone. Look at
# the 1: with the true pose undone its mean is a fan, since everyone writes 1s at another slant. The mean of the
# outputs is a bar. The transformer undid not our distortion but what disturbs the classifier, and the writers'
# own slant is part of that. Where it does less shows, too: the mean 4 is a blur.
#
# ## 6.8 The angle, read off theta
#
# Place and scale are known well. The angle has an $R^2$ of about 0.4 only, although the digits came out nearly
# upright. How do the two go together? Turn single digits through all angles, in the middle of the canvas, and
# follow the angle that $\theta$ reads.

# %%
angles = torch.linspace(-45, 45, 19, device=device)
readings = []
with torch.no_grad():
    for angle in angles.tolist():
        turned, _ = placed(test_images, angle=angle)
        readings.append(read(transformer(turned, return_theta=True)[1])["angle"])
readings = torch.stack(readings, dim=1)  # a row for each digit, a column for each angle

away = angles - angles.mean()
read_away = readings - readings.mean(1, keepdim=True)
slopes = (read_away * away).sum(1) / away.square().sum()
own_line = (slopes[:, None] * away).square().sum(1) / read_away.square().sum(1)  # R squared, digit by digit
by_class = [slopes[test_labels == number].mean().item() for number in range(10)]

print("along a digit's own line, median R squared above 0.8:", own_line.median().item() > 0.8)
print("mean slope between a third and two thirds:           ", 1 / 3 < slopes.mean().item() < 2 / 3)
print("digit 1 has the steepest lines, above 0.6:           ", by_class[1] == max(by_class) > 0.6)
print("digits 0 and 4 have flat ones, below 0.4:            ", max(by_class[0], by_class[4]) < 0.4)

# %% alt="Left: the angle read off theta against the true angle for all test digits, a cloud along a line less steep than the diagonal. Right: single digits turned from -45 to 45 degrees, a line each: steep for the 1s, flatter for the 3s, nearly flat for the 4s."
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.9), sharey=True)
left.plot(truth["angle"].cpu(), read(film[STEPS])["angle"].cpu(), ".", markersize=3, alpha=0.4)
left.set_title("2,000 test digits of RTS")
for number, color in ((1, "C0"), (3, "C1"), (4, "C2")):
    lines = readings[test_labels == number][:10].cpu()
    right.plot(angles.cpu(), lines.T, color=color, linewidth=0.9, alpha=0.7)
    right.text(47, lines[:, -1].mean(), f"{number}s", color=color, va="center")
right.set_title("single digits, turned")
for ax in (left, right):
    ax.plot([-45, 45], [-45, 45], color="#888888", linestyle=":")
    ax.set(xlabel="true angle in degrees", xticks=(-45, 0, 45), yticks=(-45, 0, 45), ylim=(-75, 60))
left.set_ylabel("angle read off θ in degrees")
plt.show()

# %% [markdown]
# A digit that is turned is followed, along a line that is nearly straight. But the lines differ, in three ways.
#
# - **They are less steep than the diagonal.** The transformer undoes about half of an angle. Nobody asked for
#   more: the loss rewards what the classifier needs, and *upright enough* is enough. And whoever is unsure of
#   an angle does best to undo a part of it.
# - **Each digit has its own steepness.** A 1 is little else than its angle. A 0 has hardly any. And a 4, it
#   seems, can be told at any angle up to 45°.
# - **Each digit starts elsewhere.** Handwriting slants, and true angles count from the slant that the writer
#   gave. "Upright" is what helps the classifier, not what the writer did.
#
# Taken together they make the cloud on the left. For comparison: the same localisation network, trained on the *true
# angles* instead, in a separate run, reaches an $R^2$ of 0.65. So labels for the pose would buy more exact angles. But
# that was not the question.
#
# The exact figures:

# %% tags=["nbval-ignore-output"]
for key, values in knows.items():
    print(f"R squared of the {key}: {values[-1]:.2f}")
print(f"R squared along a digit's own line, median: {own_line.median():.2f}, mean slope {slopes.mean():.2f}")
print("slopes of 0 to 9:", "  ".join(f"{slope:.2f}" for slope in by_class))
for name, batch in (("canvases", canvases), ("handed on", handed_on), ("true pose undone", undone)):
    print(
        f"share that class means explain, {name}: {explained(batch):.2f}, of the 1s {explained(batch, 1):.2f}"
    )

# %% [markdown]
# ## 6.9 Traps
#
# **Zooming out to black.** A grid that lies beside the canvas samples zeros, and where everything is zero, so
# is every difference between neighbours:

# %%
theta = torch.tensor([[1.0, 0.0, 2.2, 0.0, 1.0, 0.0]], device=device, requires_grad=True)
beside = affine.sample(canvases[:1], theta, (28, 28))
beside.square().sum().backward()
print(f"brightest output pixel {beside.max():.1f}, largest gradient of theta {theta.grad.abs().max():.1f}")

# %% [markdown]
# Such a transformer is dead for this input: black out, no gradient back. One large step can bring it there. It
# shows as outputs that grow small and then black while the loss returns to $\ln 10 \approx 2.3$, that of a
# guesser. Against it: the identity at the start, inputs whose background is 0 (section 3.8), a smaller learning
# rate, fewer parameters to go astray (`stn.Attention`), a penalty on grids that leave the canvas (exercise
# 06-6).
#
# **The bright frame.** Section 3.8 saw it: where images are normalised, the background is
# $-\text{mean} / \text{deviation}$ and zeros padding is lighter, so that a grid that reaches over the canvas shows
# a frame. (Beside the three paddings of section 3.7 the library has a fourth, `"constant"`: outside, it answers
# `fill_value`.) What does it do to $\theta$? A digit and an *empty* canvas, seen from a little farther away, and the
# gradient of the output's mean brightness in the scale of `stn.Attention`:

# %%
mean, deviation = 0.1307, 0.3081  # MNIST's
background = -mean / deviation
placed_digit, _ = placed(test_images[3:4])
attention = stn.Attention()
paddings = {
    "zeros": {},
    "border": {"padding_mode": "border"},
    "constant": {"padding_mode": "constant", "fill_value": background},
}
for name, options in paddings.items():
    pulls = []
    for picture in (placed_digit, torch.zeros_like(placed_digit)):
        theta = torch.tensor([[1.1, 0.0, 0.0]], device=device, requires_grad=True)
        seen = attention.sample((picture - mean) / deviation, theta, (28, 28), **options)
        pulls.append(torch.autograd.grad(seen.mean(), theta)[0][0, 0].item())
    print(f"{name:8} corner {seen[0, 0, 0, 0].item():5.2f}   ", end="")
    print(f"gradient of the scale: digit {pulls[0]:5.2f}, empty canvas {pulls[1]:4.2f}")

after = (attention.sample(placed_digit, theta, (28, 28)) - mean) / deviation
constant = attention.sample((placed_digit - mean) / deviation, theta, (28, 28), **paddings["constant"])
print("normalised after the transformer, the same as constant:", torch.allclose(after, constant, atol=1e-4))

# %% [markdown]
# Who goes farther away sees a smaller digit and less light: the gradient should be negative. With zeros it is
# positive, seven times as large, and an empty canvas, on which there is nothing to see, pulls just as hard. The
# frame is the largest thing in the picture, and a classifier that finds any use for brightness draws the grid
# outwards. A well-known tutorial's transformer, trained on normalised digits, has been reported to zoom *out* since
# 2020 [4]. Each of the three cures takes the frame away: `padding_mode="border"`; `padding_mode="constant"` with the
# background as `fill_value` (in a `stn.SpatialTransformer`: `canvas=background`); or to normalise after the
# transformer.
#
# **The learning rate of the localisation network.** $\theta$ is sensitive: 0.1 more in one entry moves the border of
# the grid by two pixels, and the gradients of hundreds of pixels add up in it. On large photographs the paper lowers
# that rate: tenfold for house numbers, ten-thousandfold for birds. On our digits, in separate runs, a third of it
# changed next to nothing; at a tenth the error was about the same, but the angle's $R^2$ fell from 0.4 to 0.2. It is
# the first thing to vary, in both directions. `stn.parameter_groups` gives any optimiser the two rates (section 5.8
# says why they should differ):

# %%
others, of_localisation = stn.parameter_groups(model, learning_rate=3e-3, localisation_factor=0.1)
for name, group in (("localisation network", of_localisation), ("all others", others)):
    print(f"{name:20} {sum(p.numel() for p in group['params']):7,} parameters at {group['lr']:g}")

# %% [markdown]
# **A low error does not prove a good $\theta$.** With a localisation network of three layers of 32 units, again in a
# separate run, the error falls to 5.0 %, nearly as low, and the angle's $R^2$ is 0.01: that one only learns to find
# and to enlarge. Look at the grids.
#
# ## Summary
#
# - Gradients reach $\theta$ through sampler and grid, but see only as far as the bilinear kernel: a pixel.
# - A localisation network predicts $\theta$; its head starts at zero weights and the identity's bias, so that
#   the untrained transformer returns its input.
# - Localisation network, grid generator, sampler: `stn.SpatialTransformer` is these three, in one layer that
#   stands before any network.
# - At equal parameters, equal steps and the other's best learning rate, the network with the transformer makes
#   less than half the errors; also at equal time.
# - From class labels alone it learns the place first, then scale and angle, as far as they pay.
#
# ## Exercises
#
# Replace each `...` and run the cell. A wrong answer is told what is wrong with it. Solutions are in
# [solutions/06_the_spatial_transformer.ipynb](solutions/06_the_spatial_transformer.ipynb).

# %% [markdown]
# ### Exercise 06-1: the first step
#
# A localisation network has the parameters `"body.1.weight"`, `"body.1.bias"`, `"body.3.weight"`,
# `"body.3.bias"`, `"head.weight"`, `"head.bias"`, and starts as in section 6.3. Which of them change in the
# first step of training? Give the list of their names.

# %% tags=["exercise"]
# >>> solution
changed = ["head.weight", "head.bias"]
# <<< solution
check("06-1", changed)

# %% [markdown]
# ### Exercise 06-2: where attention starts
#
# The head of a localisation network for `stn.Attention`, Equation 2: give the bias that it starts with, a list.

# %% tags=["exercise"]
# >>> solution
bias = [1.0, 0.0, 0.0]
# <<< solution
check("06-2", bias)

# %% [markdown]
# ### Exercise 06-3: what it costs
#
# How many parameters has the fully connected localisation network of the paper's size, three hidden layers of
# 32 units, for canvases of $42 \times 42$ pixels, one channel and an affine transform? All weights and biases,
# the head's too.

# %% tags=["exercise"]
# >>> solution
parameters = (42 * 42 * 32 + 32) + 2 * (32 * 32 + 32) + (32 * 6 + 6)
# <<< solution
check("06-3", parameters)

# %% [markdown]
# ### Exercise 06-4: the ideal theta
#
# A digit of $28 \times 28$ pixels was turned by `angle` degrees, counter-clockwise as displayed, enlarged by
# `scale`, and moved by `right` and `down` pixels from the centre of a $42 \times 42$ canvas. Write a function
# that returns the $\theta$, (2, 3), that undoes all this: sampled with it at $28 \times 28$, the canvas shows
# the digit as it was. (The output's centre looks at the digit's centre. One pixel right in the output is `scale`
# pixels in the canvas, in the direction in which the digit's rows now run.)


# %% tags=["exercise"]
def ideal_theta(angle, scale, right, down):
    # >>> solution
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    size = scale * 28 / 42  # the digit's frame, as a share of the canvas
    return torch.tensor(
        [[size * cosine, size * sine, right * 2 / 42], [-size * sine, size * cosine, down * 2 / 42]]
    )
    # <<< solution


check("06-4", ideal_theta)

# %% [markdown]
# ### Exercise 06-5: a family of your own
#
# Six parameters can also shear and flip, which no digit of RTS needs. A *similarity* has four,
# $\theta = (p, q, t_x, t_y)$ with $A_\theta = \begin{bmatrix} p & -q & t_x \\ q & p & t_y \end{bmatrix}$: it turns,
# scales and translates. Complete the class, so that it can stand in a `stn.SpatialTransformer`: `matrix(theta)`
# takes $\theta$, $(N, 4)$, to $A_\theta$, $(N, 2, 3)$.


# %% tags=["exercise"]
class Similarity(stn.Affine):
    num_parameters = 4

    def identity(self):
        return torch.tensor([1.0, 0.0, 0.0, 0.0])

    def matrix(self, theta):
        # >>> solution
        p, q, t_x, t_y = theta.unbind(1)
        return torch.stack([p, -q, t_x, q, p, t_y], dim=1).reshape(-1, 2, 3)
        # <<< solution


check("06-5", Similarity().matrix)

# %% [markdown]
# ### Exercise 06-6: a fence
#
# Write a penalty that keeps grids on the canvas: for each coordinate of a `grid` $(N, H', W', 2)$ the square of
# how far it lies beyond $-1$ or $1$, and 0 if it lies between; averaged over all coordinates.


# %% tags=["exercise"]
def outside(grid):
    # >>> solution
    return F.relu(grid.abs() - 1).square().mean()
    # <<< solution


check("06-6", outside)

# %% [markdown]
# ## In the library
#
# | built here | in the library |
# | --- | --- |
# | body and head | `stn.FullyConnectedLocalisation`, `stn.ConvolutionalLocalisation`, and `stn.Localisation` for a body of your own |
# | `TransformerByHand` | `stn.SpatialTransformer` |
# | the set RTS and its poses | `stn.data.rotated_translated_scaled`, `stn.data.Pose` |
# | input, grid and output in three rows | `stn.plotting.show_stages` |
#
# ## References
#
# 1. M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu. *Spatial Transformer Networks*. NIPS 2015.
#    [arXiv:1506.02025](https://arxiv.org/abs/1506.02025). Sections 3.4 and 4.1, appendices A.4 to A.6.
# 2. W. Jiang, W. Sun, A. Tagliasacchi, E. Trulls, K. M. Yi. *Linearized Multi-Sampling for Differentiable Image
#    Transformation*. ICCV 2019. [arXiv:1901.07124](https://arxiv.org/abs/1901.07124). On near-sighted
#    gradients, and glasses for them.
# 3. C.-H. Lin, S. Lucey. *Inverse Compositional Spatial Transformer Networks*. CVPR 2017.
#    [arXiv:1612.03897](https://arxiv.org/abs/1612.03897). Looking twice: to undo what is left of a pose.
# 4. The bright frame: [pytorch/tutorials#1117](https://github.com/pytorch/tutorials/issues/1117).
#
# ## Next
#
# [Chapter 07, A first Triton kernel](07_a_first_triton_kernel.ipynb) opens the sampler and writes it for a GPU. The
# exercises of this chapter are another place to go on from: put the similarity of 06-5 into the transformer of
# section 6.5, or two transformers in a row [3]. Before: [chapter 05, Localisation](05_localisation.ipynb).
