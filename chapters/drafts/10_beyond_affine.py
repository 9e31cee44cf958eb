# ## 10.7 Composing, inverting, and sampling twice
#
# Two matrices in a row are a matrix (section 2.9), and most matrices have an inverse. So the matrix families can say
# *this warp, then that one* with one $\theta$, if the product is again of the family. Is it? We compose two random
# $\theta$ and compare with the product.

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
    same = ((once - product / scale).abs().amax((1, 2)) < 1e-6 * (product / scale).abs().amax((1, 2))).double().mean()
    verdict = "always" if same == 1 else "sometimes: beyond the bound compose gives NaN"
    print(f"{name:22} the product is in the family: {verdict}")

# %% [markdown]
# `compose(theta, then)` is in the order of the picture: first it is warped by `theta`, the result by `then`. The
# *points* meet the matrices the other way round, so the product is `M_theta @ M_then`. The mistake is easy, and it
# shows only where the two do not commute:

# %%
similarity = stn.Similarity()


def turn(angle):
    radians = math.radians(angle)
    return torch.tensor([[math.cos(radians), -math.sin(radians), 0.0, 0.0]])[:, [0, 2, 2, 2]] + torch.tensor(
        [[0.0, math.sin(radians), 0.0, 0.0]]
    )


theta, then = torch.tensor([[1.0, 0.0, -0.25, 0.0]]), turn(30)
twice = similarity.sample(similarity.sample(digit[None], theta, (28, 28)), then, (28, 28))
once = similarity.sample(digit[None], similarity.compose(theta, then=then), (28, 28))
swapped = similarity.sample(digit[None], similarity.compose(then, then=theta), (28, 28))
print(f"composed once against sampled twice: mean difference {(once - twice).abs().mean():.3f}")
print(f"the two exchanged:                   mean difference {(swapped - twice).abs().mean():.3f}")

# %% [markdown]
# The first number is not zero, and the fault is not the composition's: every sampling blurs. There and back again,
# by $\theta$ and its inverse, should be nothing at all. And 24 turns by 15° are one full turn:

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
# So a chain of transformers should hand on $\theta$, not pictures: compose, and sample the *original* each time
# [4]. `stn.InverseCompositional` does. Bent families mostly cannot: the composition of two meshes has the edges of both,
# and is no mesh of the same vertices; the inverse of a mesh is one with its vertices elsewhere
# (`stn.PiecewiseAffine.inverse_points`).
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
# All three weights are at least 0 exactly if the point lies in the triangle. That finds the triangle of each pixel.
# A lattice of $4 \times 4$ vertices has $9$ cells, two triangles each:


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
print("and so does its sample:           ", torch.allclose(sampled, F.grid_sample(digit[None].double(), by_hand[None], align_corners=False)))

# %% [markdown]
# On an edge the weight of the vertex opposite is 0, whichever of the two triangles is asked. So both give the
# same source, and the map is **continuous**. But nothing makes their slopes agree, and it is **bent**. Along the
# middle row of the output, with the triangle that each pixel lies in:

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
right.set(xlabel="$x^t$ along the middle row")
right.legend()
plt.show()

steps = line.diff() / x.diff()
print(f"largest jump of the source between neighbours: {line.diff().abs().max():.3f}, of its slope: {slope.diff().abs().max():.2f}")
print(f"slopes along the row: {slope.unique(dim=0).round(decimals=6).unique().numel()}, one for each triangle crossed")

# %% [markdown]
# **Folds.** A triangle that is turned over shows a piece of the picture mirrored, and its neighbours show the same
# piece again. It happens when a vertex crosses the edge opposite; the determinant of the triangle's map, its area
# in the source for an area in the target, then changes sign. Move one inner vertex to the right, towards and past its
# neighbour $\frac{2}{3}$ away:

# %%
for shift in (0.3, 0.6, 0.7, 0.9):
    pushed = torch.zeros(1, 32)
    pushed[0, 2 * 5] = shift  # vertex 5 is the first inner one
    determinants = mesh.determinant(pushed)
    print(f"moved by {shift}: smallest determinant {determinants.min():5.2f}, triangles turned over: {(determinants < 0).sum()}")

# %% [markdown]
# `mesh.determinant(theta)` is differentiable: a penalty on small values keeps a mesh from folding, if not for certain.
#
# **The gradient of a vertex** needs no new idea. A vertex moves the sources of the pixels in the triangles around it, its
# **star**, each by its weight:
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
print("ours and the library's agree:", torch.allclose(by_autograd.cpu().reshape(16, 2), ours, rtol=0, atol=1e-9))
stars = [(mesh.triangles == k).any(1).sum().item() for k in (0, 1, 5)]
print(f"triangles in the star of a corner {stars[0]}, of a vertex on the border {stars[1]}, of an inner one {stars[2]}")

# %% [markdown]
# A vertex is heard by its star alone. Where the picture is black around it, it gets no gradient at all and stays where
# it is. An affine map has no such deaf numbers: all six hear from every pixel.
#
# ## 10.9 T = M B
#
# Look at what was just computed: sources $=$ `moved` times `weights`. The paper has a name for this, at the end of
# section 3.2: *structured* transformations
#
# $$ T_\theta = M_\theta \, B $$
#
# $B$, of shape $D \times N$, is a fixed representation of the $N$ output pixels: $D$ numbers for each. $M_\theta$, $2 \times D$, mixes
# them. Affine is the case $B = (x, y, 1)^T$ with $M_\theta = A_\theta$. A mesh is the case where $B$ holds the
# barycentric weights and $M_\theta$ the moved vertices. Projective is a case only *before* the divide, with
# $M_\theta$ $3 \times 3$. And the gradient needs to be derived once, for all:
#
# $$ \frac{\partial L}{\partial M_\theta} = \Delta \, B^T, \qquad \Delta = (\delta_1, \ldots, \delta_N) $$

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
    agree = torch.allclose(M.grad, delta_by_basis) and torch.allclose(by_autograd[0].cpu(), M.grad, rtol=0, atol=1e-9)
    print(
        f"{name:6}  M is 2 × {len(B):2d}, B has {(B != 0).double().mean():4.0%} entries that are not 0; "
        f"Delta B^T, autograd, basis_sample agree: {agree}"
    )

# %% [markdown]
# Now we can make families by choosing $B$. A frequent choice are **hat functions** on a lattice. In one dimension the hat
# of a lattice point is 1 there, falls in straight lines, and is 0 from its neighbours on; the bilinear kernel of
# chapter 03, stretched. In two, multiply one in $x$ by one in $y$.

# %% alt="Left: four hat functions over x from -1 to 1, triangles of height 1 that overlap, each peak above a lattice point; their sum is a level line at 1. Middle: the hat of one inner lattice point in two dimensions, a bright spot that fades to black. Right: the barycentric weight of the same vertex in the mesh: a hexagonal pyramid with sharp ridges."
hats = stn.hat_functions((4, 4), (28, 28)).double()  # (16, H', W')
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(8.8, 2.6), width_ratios=(1.6, 1, 1))
across = stn.hat_functions((2, 4), (2, 200)).unflatten(0, (2, 4)).sum(0)[:, 0]  # both rows together: x alone
left.plot(regular_grid((2, 200))[0, :, 0], across.T)
left.plot(regular_grid((2, 200))[0, :, 0], across.sum(0), color="#888888", linestyle=":")
left.set(xlabel="$x$", xticks=(-1, -1 / 3, 1 / 3, 1), xticklabels=("$-1$", "$-1/3$", "$1/3$", "$1$"), yticks=(0, 1))
show_image(hats[5], middle, "a hat")
show_image(weights[..., 5], right, "a vertex's weight")
plt.show()

print("at every pixel the 16 hats sum to 1:", torch.allclose(hats.sum(0), torch.ones(28, 28).double()))
print(f"hats that are not 0 at a pixel: at most {(hats > 0).sum(0).max()}; vertices of the mesh: {(weights > 0).sum(-1).max()}")

# %% [markdown]
# `stn.Basis` takes any $B$. Its $\theta$ are the coefficients of the *displacement*: $B$ without the planes $x$ and
# $y$, so that $\theta = 0$ is the identity. With the hats, $M$ is simply by how much each lattice point moves.

# %%
bent = stn.Basis(hats)
D = 0.15 * torch.randn(2, 16, generator=generator, dtype=torch.float64)
G = regular_grid((28, 28))[..., :2]
by_hand = G + torch.einsum("id, dhw -> hwi", D, hats)
print("stn.Basis' grid agrees:             ", torch.allclose(bent.grid(D.flatten()[None], (28, 28))[0], by_hand))

A = mixes["affine"]
at_lattice = torch.cat([mesh.vertices.double(), torch.ones(16, 1)], 1) @ A.T - mesh.vertices
as_affine = bent.grid(at_lattice.T.flatten()[None], (28, 28))[0]
print("hats can do what affine can:        ", torch.allclose(as_affine, affine.grid(A.flatten()[None], (28, 28))[0]))

as_mesh = mesh.grid(D.T.flatten()[None], (28, 28))[0]
apart = ((as_mesh - by_hand) * 14).norm(dim=-1)
print(f"hats and mesh, moved alike, differ by {apart.mean():.2f} pixels on average; displacements are {(D.square().sum(0).sqrt().mean() * 14):.2f}")

# %% [markdown]
# Sum to 1, local, few of them not 0, exact for affine maps: hats have all that one can ask of a basis, but for one
# thing. They are made of straight pieces, so the warp is bent at every line of the lattice, as at the edges
# of a mesh. **Splines** are the smooth basis. They come next.
#
# > **A basis can be learned.** The paper remarks that with $T_\theta = M_\theta B$ one may learn $B$ too, and reports no
# > experiment. $B$ is shared by all pictures, so its gradient is a sum over the batch, $\sum M_\theta^T \Delta$.
# > `stn.Basis(basis, learned=True)` does it; start it at anything but zeros, for where $B$ is zero so is the gradient of
# > $\theta$.
#
# ## 10.10 Everything, and nothing
#
# At the top of the ladder every pixel has a displacement of its own; $B$ is the identity matrix. There is nothing
# left that such a field cannot do. It can put a picture's pixels in any order, and paint any picture
# that has no other values than the first. So that a field exists which turns picture 1 into picture 2 says
# nothing of what happened between them. A 5 into a 0, by descent:


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

# %% alt="Four pictures: the 5; what the affine map makes of it, still a 5, only wider; what the displacement field makes of it, almost exactly the 0; and the 0 that was wanted."
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
# 0, and nobody else speaks for that pixel. In practice a displacement field is never used alone. One adds a penalty on
# differences between neighbours (exercise 10-6), or predicts the field on a coarse lattice, which is hats
# again, or by a convolutional network, which is smooth by its making.
#
# ## 10.11 Which family?
#
# An experiment to end with. Ten digits are warped in three ways, by a random affine map, by a random projective map
# (corners moved by up to 0.35), and by a bend in two numbers for each digit: $x$ is pushed by $a \cos \pi y$
# and $y$ by $b \cos \pi x$. Then every family tries to undo each of them, by descent on the squared
# difference from the digit as it was. One family more takes part, made for the third task: $M B$ with just these two cosines as $B$.
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
    """Where the bend by a, b (N, 1, 1) takes the source from: p such that T(p) is the pixel, found by iteration."""
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
print("an affine map, for the projective warp, 1.5 times the right one:", off["projective", "affine"] > 1.5 * off["projective", "projective"])
print("an affine or projective map, for the bend, by more than 0.8:   ", min(off["bend", "affine"], off["bend", "projective"]) > 0.8)
print("for the bend, a mesh leaves less than half their error:        ", left["bend", "mesh"] < 0.5 * min(left["bend", "affine"], left["bend", "projective"]))
best = {task: min(contestants, key=lambda name: left[task, name]) for task in RIGHT}
print("least error in the picture, each time:", ", ".join(best.values()))
print("and its map is off by more than 1.5 pixels, each time:         ", all(off[task, "displacement"] > 1.5 for task in RIGHT))

# %% tags=["nbval-ignore-output"]
print(" " * 14 + "".join(f"{task:>22}" for task in RIGHT))
for name in contestants:
    print(f"{name:14}" + "".join(f"{left[task, name]:14.3f} {off[task, name]:7.2f}" for task in RIGHT))

