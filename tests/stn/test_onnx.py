"""Networks with spatial transformers, exported to ONNX, give in onnxruntime what they give in PyTorch."""

import copy
import warnings

import onnxruntime
import pytest
import torch
from torch import nn

import stn
from families import BENT, MATRICES, label
from stn import Affine, Affine3d, InverseCompositional, SpatialTransformer

pytest.importorskip("onnxscript")
SIZE = (28, 20)


def network(transform, size, shape=(2, *SIZE), kind=SpatialTransformer, **options):
    torch.manual_seed(0)
    start = options.pop("start", None)
    localisation = stn.FullyConnectedLocalisation(shape, transform, hidden=(8,), start=start)
    nn.init.normal_(localisation.head.weight, std=0.05)
    return nn.Sequential(
        kind(localisation, transform, size, **options), nn.Flatten(), nn.LazyLinear(5)
    ).eval()


def exported(model, example, **options):
    """The model's operators, and onnxruntime's function of a NumPy array."""
    model(example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's exporter uses parts of PyTorch that are deprecated
        program = torch.onnx.export(model, (example,), dynamo=True, verbose=False, **options)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    name = session.get_inputs()[0].name
    operators = {(node.domain, node.op_type) for node in program.model_proto.graph.node}
    return operators, lambda input: torch.from_numpy(session.run(None, {name: input.numpy()})[0])


# The first of each class: exporting takes seconds.
FAMILIES = list({type(transform): transform for transform in reversed([*MATRICES, *BENT])}.values())


@pytest.mark.parametrize("transform", FAMILIES, ids=label)
def test_every_transform_becomes_standard_operators_that_sample_the_same_for_any_batch(transform):
    if isinstance(transform, nn.Module):
        transform = copy.deepcopy(transform).float()
    model, input = network(transform, (9, 8)), torch.rand(3, 2, *SIZE)
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    operators, run = exported(model, input, dynamic_shapes=shapes)
    assert ("", "GridSample") in operators
    assert {domain for domain, _ in operators} == {""}
    for count in (3, 5):
        input = torch.rand(count, 2, *SIZE)
        torch.testing.assert_close(run(input), model(input), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "padding_mode", "align_corners"),
    [
        ("bilinear", "border", True),
        ("bilinear", "reflection", False),
        ("nearest", "zeros", True),
        ("bicubic", "border", False),
    ],
)
def test_choices_that_onnx_has(mode, padding_mode, align_corners):
    options = {"padding_mode": padding_mode, "align_corners": align_corners, "mode": mode}
    model, input = network(Affine(), (9, 8), **options), torch.rand(3, 2, *SIZE)
    operators, run = exported(model, input)
    assert ("", "GridSample") in operators
    torch.testing.assert_close(run(input), model(input), rtol=0, atol=1e-5)


def test_side_by_side_in_a_row_in_three_dimensions_and_over_a_canvas():
    image, volume = torch.rand(3, 2, *SIZE), torch.rand(2, 1, 8, 7, 9)
    models = {
        "side by side": (network(Affine(), (9, 8), start=Affine().identity().expand(2, 6)), image),
        "in a row": (network(Affine(), (9, 8), kind=InverseCompositional, steps=2), image),
        "volume": (network(Affine3d(), (5, 6, 4), shape=(1, 8, 7, 9)), volume),
        "canvas": (network(Affine(), (9, 8), canvas=0.3), image),
    }
    for name, (model, input) in models.items():
        operators, run = exported(model, input)
        assert ("", "GridSample") in operators, name
        torch.testing.assert_close(run(input), model(input), rtol=0, atol=1e-5)


def test_what_onnx_has_not_is_put_together_from_other_operators():
    model, input = network(Affine(), (9, 8), mode="integer"), torch.rand(3, 2, *SIZE)
    _, run = exported(model, input)
    torch.testing.assert_close(run(input), model(input), rtol=0, atol=1e-5)


@pytest.mark.parametrize("start", [Affine().identity(), Affine().identity().expand(2, 6)], ids=["one", "two"])
def test_antialiased_it_is_one_grid_sample_of_all_samples(start):
    model, input = network(Affine(), (9, 8), start=start, antialias=True), torch.rand(3, 2, *SIZE)
    operators, run = exported(model, input)
    assert ("", "GridSample") in operators
    plain = copy.deepcopy(model)
    plain[0].antialias = False
    expected = model(input)
    assert (plain(input) - expected).abs().max() > 1e-3
    torch.testing.assert_close(run(input), expected, rtol=0, atol=1e-5)
