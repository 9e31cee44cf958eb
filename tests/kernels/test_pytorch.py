"""The operations under PyTorch's compilers, transforms and modes: each gives what the plain call gives."""

import pytest
import torch
from torch.autograd import forward_ad

from sampling_cases import MAPS, assert_close, definition, deviation, draw, draw_image, library, pytorch
from stn_kernels import affine_sample, aten

INPUT_SIZE, SIZE = (5, 6), (3, 4)
CHOICES = ((3, 4), "affine", "bilinear", "zeros", False)  # the operators' trailing arguments


@pytest.fixture(params=["kernels", "cpu_path"])
def device(request):
    """The ways of a plain call; compilers and transforms turn the second into the operators by themselves."""
    return request.getfixturevalue(request.param)


def draw_problem(device, coordinate_map="affine", batch=1, channels=2, layout="contiguous"):
    image = draw_image(batch, channels, INPUT_SIZE, layout).to(device)
    return image, draw(coordinate_map, batch, INPUT_SIZE, SIZE).to(device)


def loss(solve):
    """A scalar that is curved in both tensors."""
    return lambda image, parameters: solve(image, parameters).square().sum()


OURS, REFERENCE = library("affine", SIZE), definition("affine", SIZE)


# --- compilers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requires_grad", [False, True], ids=["no grad", "grad"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_operators_pass_opcheck(device, layout, requires_grad):
    from stn_kernels import ops  # noqa: F401, registers them

    tensors = [t.requires_grad_(requires_grad) for t in draw_problem(device, layout=layout)]
    grad_output = torch.randn(1, 2, *SIZE, dtype=torch.float64, device=device, requires_grad=requires_grad)
    operators = torch.ops.stn_kernels
    torch.library.opcheck(operators.sample.default, (*tensors, *CHOICES))
    torch.library.opcheck(operators.sample_backward.default, (grad_output, *tensors, *CHOICES, True, True))


def compiled_agrees(function, image, parameters, compiled):
    tensors = [t.detach().requires_grad_() for t in (image, parameters)]
    results = []
    for call in (compiled, function):
        output = call(*tensors)
        results.append((output.detach(), *torch.autograd.grad(output.sum(), tensors)))
    assert_close(*results, tolerance=1e-14)
    assert results[0][0].stride() == results[1][0].stride()


@pytest.mark.filterwarnings("error:Dynamo")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("coordinate_map", MAPS)
def test_compiled_whole(device, coordinate_map, layout):
    torch.compiler.reset()

    def function(image, parameters):
        return library(coordinate_map, SIZE)(2 * image, parameters).sin()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    compiled_agrees(function, *draw_problem(device, coordinate_map, layout=layout), compiled)


def test_compiled_by_inductor(device):
    """Without neighbours to fuse, so that no C++ compiler is needed."""
    torch.compiler.reset()
    compiled_agrees(OURS, *draw_problem(device), torch.compile(OURS, fullgraph=True))


def test_one_compilation_serves_all_sizes(device):
    torch.compiler.reset()

    def function(image, theta):
        return affine_sample(image, theta, (image.shape[2] // 2, image.shape[3] + 1))

    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    # The first sizes differ from one another and from theta's 2 and 3: equal ones the compiler takes for one.
    for batch, height, width in [(4, 11, 6), (5, 8, 7), (3, 9, 11)]:
        image = draw_image(batch, 2, (height, width)).to(device)
        theta = draw("affine", batch, (height, width), (height // 2, width + 1)).to(device)
        compiled_agrees(function, image, theta, compiled)
    assert len(graphs) == 1


class Warp(torch.nn.Module):
    def forward(self, image, theta):
        return OURS(image, theta)


@pytest.mark.parametrize("strict", [False, True])
def test_exported_programs_hold_the_operator_and_differentiate(device, strict):
    image, theta = draw_problem(device, batch=2)
    batch = torch.export.Dim("batch")
    shapes = {"image": {0: batch}, "theta": {0: batch}}
    program = torch.export.export(Warp(), (image, theta), dynamic_shapes=shapes, strict=strict)
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert targets == [torch.ops.stn_kernels.sample.default]
    compiled_agrees(OURS, *draw_problem(device, batch=3), program.module())


# --- transforms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0), (2, 1)], ids=str)
@pytest.mark.parametrize("coordinate_map", MAPS)
def test_vmap_equals_a_loop(device, coordinate_map, in_dims):
    solve = library(coordinate_map, SIZE)
    problems = [draw_problem(device, coordinate_map) for _ in range(2)]
    problems = [[p[i] if d is not None else problems[0][i] for i, d in enumerate(in_dims)] for p in problems]
    stacked = [
        torch.stack(same, d) if d is not None else same[0]
        for same, d in zip(zip(*problems, strict=True), in_dims, strict=True)
    ]
    for function in (solve, torch.func.grad(loss(solve), (0, 1))):
        actual = torch.func.vmap(function, in_dims)(*stacked)
        expected = [function(*problem) for problem in problems]
        if function is solve:
            actual, expected = (actual,), [(e,) for e in expected]
        for a, e in zip(actual, zip(*expected, strict=True), strict=True):
            assert deviation(a, torch.stack(e)) <= 1e-14


def draw_tangents(problem):
    return tuple(torch.randn_like(t) for t in problem)


@pytest.mark.parametrize("coordinate_map", MAPS)
def test_jvp_is_the_slope_along_the_tangents(device, coordinate_map):
    problem = draw_problem(device, coordinate_map)
    tangents, step = draw_tangents(problem), 1e-6  # pixels, or so: less than the distance to the next kink
    solve = library(coordinate_map, SIZE)
    _, actual = torch.func.jvp(solve, problem, tangents)
    ends = [solve(*(t + sign * step * d for t, d in zip(problem, tangents, strict=True))) for sign in (1, -1)]
    assert deviation(actual, (ends[0] - ends[1]) / (2 * step)) <= 1e-8


@pytest.mark.parametrize("which", ["image", "theta"])
def test_dual_numbers_carry_the_tangent(device, which):
    problem = list(draw_problem(device))
    i = ["image", "theta"].index(which)
    tangent = torch.randn_like(problem[i])
    with forward_ad.dual_level():
        dual = [forward_ad.make_dual(t, tangent) if j == i else t for j, t in enumerate(problem)]
        actual, expected = (forward_ad.unpack_dual(solve(*dual)).tangent for solve in (OURS, REFERENCE))
    assert actual.abs().max() > 0
    assert deviation(actual, expected) <= 1e-12


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd], ids=lambda t: t.__name__)
def test_jacobians(device, transform):
    problem = draw_problem(device)
    actual, expected = (transform(solve, (0, 1))(*problem) for solve in (OURS, REFERENCE))
    for a, e in zip(actual, expected, strict=True):
        assert deviation(a, e) <= 1e-12


def test_hessian(device):
    """Forward over reverse, batched: the three transforms at once. All four blocks, image and theta."""
    problem = draw_problem(device, channels=1)
    actual, expected = (torch.func.hessian(loss(solve), (0, 1))(*problem) for solve in (OURS, REFERENCE))
    for i in (0, 1):
        for j in (0, 1):
            assert expected[i][j].abs().max() > 0
            assert deviation(actual[i][j], expected[i][j]) <= 1e-12


@pytest.mark.parametrize("transform", ["hessian of each sample", "jvp of a vmap", "vmap of a vmap"])
def test_transforms_nest(device, transform):
    images, thetas = (torch.stack(t) for t in zip(*(draw_problem(device) for _ in range(2)), strict=True))
    tangents = draw_tangents((images, thetas))

    def run(solve):
        vmap = torch.func.vmap
        if transform == "hessian of each sample":
            return vmap(torch.func.hessian(loss(solve), 1))(images, thetas)
        if transform == "jvp of a vmap":
            return torch.func.jvp(vmap(solve), (images, thetas), tangents)[1]
        return vmap(vmap(solve))(images[None], thetas[None])

    assert deviation(run(OURS), run(REFERENCE)) <= 1e-12


@pytest.mark.parametrize("needed", [(0,), (1,), (0, 1)], ids=["image", "theta", "both"])
def test_double_backward(device, needed):
    problem = draw_problem(device)

    def run(solve):
        tensors = [t.detach().requires_grad_(i in needed) for i, t in enumerate(problem)]
        wanted = [tensors[i] for i in needed]
        first = torch.autograd.grad(loss(solve)(*tensors), wanted, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), wanted)

    for actual, expected in zip(run(OURS), run(REFERENCE), strict=True):
        assert deviation(actual, expected) <= 1e-12


def test_double_backward_where_aten_has_none(cpu_path, monkeypatch):
    """As with PyTorch 2.11: the operators then differentiate the reference."""
    monkeypatch.setattr(aten, "differentiates_twice", lambda: False)
    image, theta = (t.requires_grad_() for t in draw_problem(cpu_path))
    output = OURS(image, theta)
    assert "GridSampler" not in type(output.grad_fn).__name__
    (first,) = torch.autograd.grad(output.square().sum(), theta, create_graph=True)
    actual = torch.autograd.grad(first.square().sum(), (image, theta))
    (first,) = torch.autograd.grad(REFERENCE(image, theta).square().sum(), theta, create_graph=True)
    expected = torch.autograd.grad(first.square().sum(), (image, theta))
    for a, e in zip(actual, expected, strict=True):
        assert deviation(a, e) <= 1e-12


# --- modes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_dtype", [torch.float32, torch.bfloat16])
def test_autocast_keeps_coordinates_in_float32(device, image_dtype):
    """A localisation network returns theta in half precision there: no more than that is lost."""
    image, theta = (t.float() for t in draw_problem(device))
    image, theta = image.to(image_dtype), theta.bfloat16().requires_grad_()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        output = OURS(image, theta)
    assert output.dtype == image_dtype
    rounding = torch.finfo(image_dtype).eps if image_dtype == torch.bfloat16 else 1e-5
    assert deviation(output, REFERENCE(image.double(), theta.double())) <= rounding
    output.sum().backward()
    assert theta.grad.dtype == torch.bfloat16


def test_backward_under_autocast_keeps_full_precision(device):
    image, theta = draw_problem(device)
    problem = [t.float().requires_grad_() for t in (image, theta)]
    expected = torch.autograd.grad(OURS(*problem).sum(), problem)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        actual = torch.autograd.grad(OURS(*problem).sum(), problem)
    for a, e in zip(actual, expected, strict=True):
        assert deviation(a, e) <= 1e-5


def test_inference_mode_leaves_nothing_behind_that_training_cannot_use(cpu_path):
    image, theta = draw_problem(cpu_path)
    aten.cached_base_grid.cache_clear()
    with torch.inference_mode():
        inferred = OURS(image, theta)
    output = OURS(image, theta.requires_grad_())
    output.sum().backward()
    assert torch.equal(output, inferred)


def test_checkpointing_recomputes_the_same(device):
    image, theta = (t.requires_grad_() for t in draw_problem(device))

    def function(image, theta):
        return OURS(image, theta).sin()

    output = torch.utils.checkpoint.checkpoint(function, image, theta, use_reentrant=False)
    results = (torch.autograd.grad(o.sum(), (image, theta)) for o in (output, function(image, theta)))
    for actual, expected in zip(*results, strict=True):
        assert deviation(actual, expected) <= 1e-14


# --- only what is asked for --------------------------------------------------------------------------------


@pytest.mark.parametrize("needs", [(True, False), (False, True), (False, False)], ids=str)
def test_an_operator_returns_an_empty_tensor_for_an_unneeded_gradient(device, needs):
    from stn_kernels import ops  # noqa: F401

    image, theta = draw_problem(device)
    grad_output = torch.ones(1, 2, *SIZE, dtype=torch.float64, device=device)
    grads = torch.ops.stn_kernels.sample_backward(grad_output, image, theta, *CHOICES, *needs)
    shapes = [t.shape if need else (0,) for t, need in zip((image, theta), needs, strict=True)]
    assert [g.shape for g in grads] == shapes


@pytest.mark.parametrize("needed", [(), (0,), (1,), (0, 1)], ids=["none", "image", "theta", "both"])
def test_backward_asks_the_operator_for_what_requires_grad(kernels, monkeypatch, needed):
    from stn_kernels import launch

    asked = []

    def sample_backward(*arguments, run=launch.sample_backward):
        asked.append(arguments[-2:])
        return run(*arguments)

    monkeypatch.setattr(launch, "sample_backward", sample_backward)
    problem = [t.requires_grad_(i in needed) for i, t in enumerate(draw_problem(kernels))]
    output = OURS(*problem)
    assert output.requires_grad == bool(needed)
    if needed:
        output.sum().backward()
        assert asked == [(0 in needed, 1 in needed)]
    assert [t.grad is not None for t in problem] == [i in needed for i in (0, 1)]


def test_tensors_without_memory_give_their_results_shape():
    image = torch.empty(2, 3, *INPUT_SIZE, device="meta")
    output = OURS(image, torch.empty(2, 2, 3, device="meta"))
    assert (output.device.type, output.shape) == ("meta", (2, 3, *SIZE))
    assert pytorch("affine", SIZE)(image, torch.empty(2, 2, 3, device="meta")).shape == output.shape
