"""The operations under PyTorch's compilers, transforms and modes: each gives what the plain call gives."""

import pytest
import torch
from torch.autograd import forward_ad

from sampling_cases import (
    converted,
    definition,
    deviation,
    draw_problem,
    library,
    of_present,
    pytorch,
)
from stn_kernels import aten, sample
from stn_kernels.autograd import Choices

INPUT_SIZE, SIZE = (5, 6), (3, 4)
# A map of each kind: parameters of a transform, of a pixel, and with a part that all transforms share, summed
# or by pixels; every padding but one.
CASES = {
    "affine": Choices(SIZE, "affine"),
    "projective": Choices(SIZE, "projective", "bicubic", "reflection"),
    "grid": Choices(SIZE, "grid", padding_mode="constant"),
    "tps": Choices(SIZE, "tps", padding_mode="border"),
    "basis": Choices(SIZE, "basis", padding_mode="constant"),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES)
AFFINE = CASES["affine"]
OURS, REFERENCE = library(AFFINE), definition(AFFINE)


@pytest.fixture(params=["kernels", "cpu_path"])
def device(request):
    """The ways of a plain call; compilers and transforms turn the second into the operators by themselves."""
    return request.getfixturevalue(request.param)


def draw(case, device, images=1, transforms=1, channels=2, layout="contiguous"):
    """The four tensors."""
    tensors, _ = draw_problem(CASES[case], INPUT_SIZE, images, transforms, channels, layout)
    return converted(tensors, device)


def draw_affine(device, **arguments):
    """Image and theta."""
    return draw("affine", device, **arguments)[:2]


def loss(solve):
    """A scalar that is curved in all tensors."""
    return lambda *tensors: solve(*tensors).square().sum()


# --- compilers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requires_grad", [False, True], ids=["no grad", "grad"])
@pytest.mark.parametrize(
    ("case", "layout", "transforms", "traced_twice"),
    [
        ("affine", "contiguous", 2, "kernels"),
        ("affine", "channels_last", 1, "cpu_path"),
        ("tps", "contiguous", 1, "kernels"),
        ("basis", "channels_last", 2, "cpu_path"),
    ],
)
def test_operators_pass_opcheck(request, device, case, layout, transforms, traced_twice, requires_grad):
    """Second derivatives are the reference's, whose tracing takes longer than all else: one way a case."""
    choices, tensors = CASES[case], draw(case, device, transforms=transforms, layout=layout)
    tensors = [None if t is None else t.requires_grad_(requires_grad) for t in tensors]
    grad_output = torch.randn(transforms, 2, *SIZE, dtype=torch.float64, device=device)
    grad_output.requires_grad_(requires_grad)
    operators, needs = torch.ops.stn_kernels, [t is not None for t in tensors]
    torch.library.opcheck(operators.sample.default, (*tensors, *choices))
    test_utils = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if not requires_grad or request.node.callspec.params["device"] == traced_twice:
        test_utils.append("test_aot_dispatch_dynamic")
    arguments = (grad_output, *tensors, *choices, *needs)
    torch.library.opcheck(operators.sample_backward.default, arguments, test_utils=test_utils)


def compiled_agrees(function, compiled, tensors):
    tensors = [t.detach().requires_grad_() for t in tensors if t is not None]
    results = []
    for call in (compiled, function):
        output = call(*tensors)
        grads = torch.autograd.grad(output.sum(), tensors)
        results.append((output.detach(), *grads))
    for a, b in zip(*results, strict=True):
        assert deviation(a, b) <= 1e-14
    assert results[0][0].stride() == results[1][0].stride()


@pytest.mark.filterwarnings("error:Dynamo")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@EVERY_CASE
def test_compiled_whole(device, case, layout):
    torch.compiler.reset()
    solve, tensors = of_present(library(CASES[case]), draw(case, device, transforms=2, layout=layout))

    def function(image, *others):
        return solve(2 * image, *others).sin()

    compiled_agrees(function, torch.compile(function, fullgraph=True, backend="aot_eager"), tensors)


def test_compiled_where_only_the_reference_computes(cpu_path):
    """Half precision on the CPU: differentiated within the operator."""
    torch.compiler.reset()
    image, theta = draw_affine(cpu_path)
    compiled = torch.compile(OURS, fullgraph=True, backend="aot_eager")
    compiled_agrees(OURS, compiled, (image.half(), theta.float()))


def test_compiled_by_inductor(device):
    """Without neighbours to fuse, so that no C++ compiler is needed."""
    torch.compiler.reset()
    compiled_agrees(OURS, torch.compile(OURS, fullgraph=True), draw_affine(device))


@pytest.mark.parametrize("case", ["affine", "displacement"])
def test_one_compilation_serves_all_sizes(device, case):
    torch.compiler.reset()

    def function(image, parameters):
        size = (image.shape[2] // 2, image.shape[3] + 1)
        return sample(image, parameters, size, coordinate_map=case)

    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    # The first sizes differ from one another and from theta's 2 and 3: equal ones the compiler takes for one.
    for batch, height, width in [(4, 11, 6), (5, 8, 7), (3, 9, 11)]:
        choices = Choices((height // 2, width + 1), case)
        (image, parameters, _, _), _ = draw_problem(choices, (height, width), images=batch, channels=2)
        compiled_agrees(function, compiled, (image.to(device), parameters.to(device)))
    assert len(graphs) == 1


class Warp(torch.nn.Module):
    def forward(self, image, theta):
        return OURS(image, theta)


@pytest.mark.parametrize("strict", [False, True])
def test_exported_programs_hold_the_operator_and_differentiate(device, strict):
    image, theta = draw_affine(device, images=2)
    batch = torch.export.Dim("batch")
    shapes = {"image": {0: batch}, "theta": {0: batch}}
    program = torch.export.export(Warp(), (image, theta), dynamic_shapes=shapes, strict=strict)
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert targets == [torch.ops.stn_kernels.sample.default]
    compiled_agrees(OURS, program.module(), draw_affine(device, images=3))


# --- transforms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "in_dims"),
    [
        ("affine", (0, 0)),
        ("affine", (2, 1)),
        ("affine", (0, None)),
        ("affine", (None, 0)),
        ("projective", (None, 2)),
        ("grid", (1, 0, 0)),  # image, grid, fill
        ("grid", (0, None, None)),
        ("tps", (0, 0, None)),
        ("tps", (None, None, 0)),
        ("basis", (None, 0, None, None)),
        ("basis", (0, 0, 1, 0)),
    ],
    ids=str,
)
def test_vmap_equals_a_loop(device, case, in_dims):
    """Values and gradients, over one dimension or another of some of the tensors."""
    images = 1 if CASES[case].mode == "bicubic" else 2  # sixteen taps are interpreted slowly
    draws = [draw(case, device, images, transforms=2) for _ in range(2)]
    solve, first = of_present(library(CASES[case]), draws[0])
    draws = [[t.detach() for t in draw if t is not None] for draw in draws]
    first = draws[0]
    problems = [[p[i] if d is not None else first[i] for i, d in enumerate(in_dims)] for p in draws]
    stacked = [
        torch.stack(same, d) if d is not None else same[0]
        for same, d in zip(zip(*problems, strict=True), in_dims, strict=True)
    ]
    for function in (solve, torch.func.grad(loss(solve), tuple(range(len(in_dims))))):
        actual = torch.func.vmap(function, in_dims)(*stacked)
        expected = [function(*problem) for problem in problems]
        if function is solve:
            actual, expected = (actual,), [(e,) for e in expected]
        for a, e in zip(actual, zip(*expected, strict=True), strict=True):
            assert deviation(a, torch.stack(e)) <= 1e-13


@EVERY_CASE
def test_no_tangent_is_silently_zero(device, case):
    """Along each tensor alone, and along all of them, as dual numbers and by torch.func.jvp."""
    tensors = draw(case, device)
    ours, inputs = of_present(library(CASES[case]), tensors)
    theirs, _ = of_present(definition(CASES[case]), tensors)
    primals = [t.detach() for t in inputs]
    tangents = [torch.randn_like(t) for t in primals]
    for moved in (*([i] for i in range(len(primals))), range(len(primals))):
        along = [t if i in moved else torch.zeros_like(t) for i, t in enumerate(tangents)]
        _, expected = torch.func.jvp(theirs, tuple(primals), tuple(along))
        with forward_ad.dual_level():
            dual = [
                forward_ad.make_dual(p, t) if i in moved else p
                for i, (p, t) in enumerate(zip(primals, tangents, strict=True))
            ]
            by_dual_numbers = forward_ad.unpack_dual(ours(*dual)).tangent
        _, by_jvp = torch.func.jvp(ours, tuple(primals), tuple(along))
        assert expected.abs().max() > 0
        assert deviation(by_jvp, expected) <= 1e-12
        assert deviation(by_dual_numbers, expected) <= 1e-12


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd], ids=lambda t: t.__name__)
@pytest.mark.parametrize("case", ["affine", "tps", "grid"])
def test_jacobians(device, case, transform):
    tensors = draw(case, device)
    ours, inputs = of_present(library(CASES[case]), tensors)
    theirs, _ = of_present(definition(CASES[case]), tensors)
    primals = [t.detach() for t in inputs]
    actual, expected = (transform(f, tuple(range(len(primals))))(*primals) for f in (ours, theirs))
    for a, e in zip(actual, expected, strict=True):
        assert deviation(a, e) <= 1e-12


@pytest.mark.parametrize("case", ["affine", "tps"])
def test_hessian(device, case):
    """Forward over reverse, batched: the three transforms at once. All blocks."""
    tensors = draw(case, device, channels=1)
    ours, inputs = of_present(library(CASES[case]), tensors)
    theirs, _ = of_present(definition(CASES[case]), tensors)
    primals = [t.detach() for t in inputs]
    everything = tuple(range(len(primals)))
    actual, expected = (torch.func.hessian(loss(f), everything)(*primals) for f in (ours, theirs))
    for i in everything:
        for j in everything:
            assert expected[i][j].abs().max() > 0
            assert deviation(actual[i][j], expected[i][j]) <= 1e-12


@pytest.mark.parametrize("transform", ["hessian of each sample", "jvp of a vmap", "vmap of a vmap"])
def test_transforms_nest(device, transform):
    images, thetas = (torch.stack(t) for t in zip(*(draw_affine(device) for _ in range(2)), strict=True))
    tangents = tuple(map(torch.randn_like, (images, thetas)))

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
    problem = draw_affine(device)

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
    image, theta = (t.requires_grad_() for t in draw_affine(cpu_path))
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
    image, theta = (t.float() for t in draw_affine(device))
    image, theta = image.to(image_dtype), theta.bfloat16().requires_grad_()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        output = OURS(image, theta)
    assert output.dtype == image_dtype
    rounding = torch.finfo(image_dtype).eps if image_dtype == torch.bfloat16 else 1e-5
    assert deviation(output, REFERENCE(image.double(), theta.double())) <= rounding
    output.sum().backward()
    assert theta.grad.dtype == torch.bfloat16


def test_backward_under_autocast_keeps_full_precision(device):
    image, theta = draw_affine(device)
    problem = [t.float().requires_grad_() for t in (image, theta)]
    expected = torch.autograd.grad(OURS(*problem).sum(), problem)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        actual = torch.autograd.grad(OURS(*problem).sum(), problem)
    for a, e in zip(actual, expected, strict=True):
        assert deviation(a, e) <= 1e-5


def test_inference_mode_leaves_nothing_behind_that_training_cannot_use(cpu_path):
    image, theta = draw_affine(cpu_path)
    aten.cached_base_grid.cache_clear()
    with torch.inference_mode():
        inferred = OURS(image, theta)
    output = OURS(image, theta.requires_grad_())
    output.sum().backward()
    assert torch.equal(output, inferred)


def test_checkpointing_recomputes_the_same(device):
    image, theta = (t.requires_grad_() for t in draw_affine(device))

    def function(image, theta):
        return OURS(image, theta).sin()

    output = torch.utils.checkpoint.checkpoint(function, image, theta, use_reentrant=False)
    results = (torch.autograd.grad(o.sum(), (image, theta)) for o in (output, function(image, theta)))
    for actual, expected in zip(*results, strict=True):
        assert deviation(actual, expected) <= 1e-14


# --- only what is asked for --------------------------------------------------------------------------------


@pytest.mark.parametrize("needs", [(True, False), (False, True), (False, False)], ids=str)
def test_an_operator_returns_an_empty_tensor_for_an_unneeded_gradient(device, needs):
    image, theta = draw_affine(device)
    grad_output = torch.ones(1, 2, *SIZE, dtype=torch.float64, device=device)
    operator = torch.ops.stn_kernels.sample_backward
    grads = operator(grad_output, image, theta, None, None, *AFFINE, *needs, False, False)
    shapes = [t.shape if need else (0,) for t, need in zip((image, theta), needs, strict=True)]
    assert [g.shape for g in grads] == [*shapes, (0,), (0,)]


@pytest.mark.parametrize("needed", [(), (0,), (1,), (0, 1)], ids=["none", "image", "theta", "both"])
def test_backward_asks_the_operator_for_what_requires_grad(kernels, monkeypatch, needed):
    from stn_kernels import launch_backward

    asked = []

    def sample_backward(*arguments, run=launch_backward.sample_backward):
        asked.append(tuple(arguments[-1]))
        return run(*arguments)

    monkeypatch.setattr(launch_backward, "sample_backward", sample_backward)
    problem = [t.requires_grad_(i in needed) for i, t in enumerate(draw_affine(kernels))]
    output = OURS(*problem)
    assert output.requires_grad == bool(needed)
    if needed:
        output.sum().backward()
        assert asked == [(0 in needed, 1 in needed, False, False)]
    assert [t.grad is not None for t in problem] == [i in needed for i in (0, 1)]


def test_tensors_without_memory_give_their_results_shape():
    image = torch.empty(2, 3, *INPUT_SIZE, device="meta")
    output = OURS(image, torch.empty(2, 2, 3, device="meta"))
    assert (output.device.type, output.shape) == ("meta", (2, 3, *SIZE))
    assert pytorch(AFFINE)(image, torch.empty(2, 2, 3, device="meta")).shape == output.shape
