"""Every module, copied, stored, compiled, exported, recomputed, mapped and run by several processes, does the
same."""

import copy
import importlib
import io
import pickle
import pkgutil

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import stn
from distributed_gradients import gradients, networks, run_on_two_processes
from stn.experiments import birds_networks, distorted_networks, step_time, svhn_networks, volume_networks

SHAPE, SIZE = (1, 21, 22), (9, 8)


def body():
    return nn.Sequential(nn.Flatten(), nn.Linear(21 * 22, 6), nn.ReLU())


# Functions that make them, for images of SHAPE or of what is said beside.
MODULES = {
    **networks(SHAPE, SIZE),
    "localisation": lambda: stn.Localisation(body(), 6, stn.Affine(), SHAPE),
    "fully connected": lambda: stn.FullyConnectedLocalisation(SHAPE, stn.Affine(), hidden=(6,)),
    "convolutional": lambda: stn.ConvolutionalLocalisation((1, 28, 28), stn.Affine()),
    "colocaliser": lambda: stn.colocalisation.Colocaliser(SHAPE, 0.5, hidden=(6, 6)),
    "side by side": lambda: distorted_networks.build("2st-fcn-tps", (1, 28, 28)),
    "by hand": lambda: step_time.rewritten(distorted_networks.build("st-fcn-aff", (1, 28, 28))),
    "volumes": lambda: volume_networks.build("st-sum", (1, 12, 12, 12), parameters=50_000),
    "house numbers": lambda: svhn_networks.HouseNumberNetwork("st-multi", units=4),
    "birds": lambda: birds_networks.BirdNetwork(0),
}
SHAPES = {
    **dict.fromkeys(("convolutional", "side by side", "by hand"), (1, 28, 28)),
    "volumes": (1, 12, 12, 12),
    "house numbers": (3, 64, 64),
    "birds": (3, 224, 224),
}
EVERY_MODULE = pytest.mark.parametrize("name", MODULES)
EVERY_NETWORK = pytest.mark.parametrize("name", networks(SHAPE, SIZE))


def make(name):
    """In evaluation, away from its start, where most transforms are the identity; and a batch for it."""
    torch.manual_seed(0)
    module = MODULES[name]().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return module, torch.rand(2, *SHAPES.get(name, SHAPE))


def test_these_are_all():
    """Of the library and of the experiments, the abstract one apart."""
    defined = set()
    for module in pkgutil.walk_packages(stn.__path__, "stn."):
        if not module.name.endswith("__main__") and "exercises" not in module.name:
            members = vars(importlib.import_module(module.name)).values()
            classes = {m for m in members if isinstance(m, type) and issubclass(m, nn.Module)}
            defined |= {c for c in classes if c.__module__ == module.name}
    tried = {type(m) for name in MODULES for m in make(name)[0].modules()}
    assert defined - tried == {stn.spatial_transformer._Sampler}


def stored(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m)), "torch.save": stored}


@pytest.mark.parametrize("way", COPIES)
@EVERY_MODULE
def test_a_copy_gives_the_same_and_shares_nothing(name, way):
    module, images = make(name)
    same = COPIES[way](module)
    expected = module(images).detach()
    assert torch.equal(same(images), expected)
    assert repr(same) == repr(module)
    with torch.no_grad():
        for tensor in (*same.parameters(), *same.buffers()):
            tensor.zero_()
    assert torch.equal(module(images), expected)


@EVERY_NETWORK
def test_compiled_it_is_one_graph(name):
    torch.compiler.reset()
    module, images = make(name)
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradients(compiled, images), gradients(module, images), rtol=1e-4, atol=1e-4)


@EVERY_NETWORK
def test_exported_it_takes_any_batch(name):
    module, images = make(name)
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    program = torch.export.export(module, (images,), dynamic_shapes=shapes)
    more = torch.rand(5, *SHAPE)
    torch.testing.assert_close(program.module()(more), module(more), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use_reentrant", [False, True])
@EVERY_NETWORK
def test_recomputed_in_the_backward_pass(name, use_reentrant):
    module, images = make(name)
    images.requires_grad_()

    def recomputed(images):
        return checkpoint(module, images, use_reentrant=use_reentrant)

    expected = gradients(module, images)
    found = gradients(recomputed, images, list(module.parameters()))
    for actual, wanted in zip(found, expected, strict=True):
        assert torch.equal(actual, wanted)


@EVERY_NETWORK
def test_several_are_mapped_over_at_once(name):
    """An ensemble: other parameters for each, the same images."""
    modules = [make(name)[0] for _ in range(2)]
    with torch.no_grad():
        for parameter in modules[1].parameters():
            parameter.mul_(1.1)
    images = make(name)[1]
    parameters, buffers = torch.func.stack_module_state(modules)

    def call(parameters, buffers, images):
        return torch.func.functional_call(modules[0], (parameters, buffers), (images,))

    mapped = torch.func.vmap(call, (0, 0, None))(parameters, buffers, images)
    expected = torch.stack([module(images) for module in modules])
    torch.testing.assert_close(mapped, expected, rtol=1e-4, atol=1e-4)


@EVERY_NETWORK
def test_under_autocast_only_the_localisation_loses_precision(name):
    """Its theta has eight bits there; gradients are finite and where they are without."""
    module, images = make(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients(module, images)
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in found)
    expected = gradients(module, images)
    apart = torch.cat([(f - e).flatten() for f, e in zip(found, expected, strict=True)]).norm()
    assert apart < 0.2 * torch.cat([e.flatten() for e in expected]).norm()


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    return run_on_two_processes(tmp_path_factory.mktemp("processes"))


@EVERY_NETWORK
def test_two_processes_average_the_gradients_of_their_halves(of_two_processes, name):
    """DistributedDataParallel: those of the whole batch."""
    state, images, found = of_two_processes[name]
    module = networks(*of_two_processes["sizes"])[name]().eval()
    module.load_state_dict(state)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    torch.testing.assert_close(found[0], gradients(module, images), rtol=1e-4, atol=1e-5)
