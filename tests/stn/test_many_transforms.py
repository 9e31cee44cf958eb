"""Several transforms side by side and one after another, over a canvas, with gradients that see further."""

import copy

import pytest
import torch
from torch import nn

import stn
from families import FAMILIES, SIZE, label, random_theta
from stn import (
    Affine,
    Affine3d,
    Attention,
    FullyConnectedLocalisation,
    InverseCompositional,
    Projective,
    SpatialTransformer,
    Translation,
)

SHAPE = (2, *SIZE)


def localisation(transform, spread=0.1, shape=SHAPE, **options):
    torch.manual_seed(0)
    network = FullyConnectedLocalisation(shape, transform, hidden=(8,), **options).double()
    nn.init.normal_(network.head.weight, std=spread)
    return network


def images(count=3):
    torch.manual_seed(1)
    return torch.rand(count, *SHAPE, dtype=torch.float64)


# --- side by side ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", FAMILIES, ids=label)
def test_several_transforms_from_one_network_are_each_sampled_from_the_one_input(transform):
    start = torch.stack([transform.identity(), random_theta(transform, 1, torch.float32)[0]])
    model = SpatialTransformer(localisation(transform, start=start), transform, (5, 6), padding_mode="border")
    output, theta = model(images(), return_theta=True)
    assert theta.shape == (3, 2, transform.num_parameters)
    assert output.shape == (3, 2, 2, 5, 6)
    for t in range(2):
        expected = transform.sample(images(), theta[:, t], (5, 6), padding_mode="border")
        torch.testing.assert_close(output[:, t], expected)


def test_windows_that_tile_the_image_show_its_quarters_before_training():
    start = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
    image = torch.rand(2, 1, 8, 8)
    network = FullyConnectedLocalisation((1, 8, 8), Translation(0.5), start=start)
    quarters = SpatialTransformer(network, Translation(0.5), (4, 4))(image)
    expected = torch.stack([image[..., r : r + 4, c : c + 4] for r in (0, 4) for c in (0, 4)], 1)
    torch.testing.assert_close(quarters, expected, rtol=0, atol=1e-6)


# --- one after another -------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", [Affine(), Attention(), Translation(0.9), Projective()], ids=repr)
@pytest.mark.parametrize("separate", [False, True], ids=["one network", "three networks"])
def test_looks_compose_and_resample_the_input_itself(transform, separate):
    networks = [localisation(transform) for _ in range(3)]
    given = networks if separate else networks[0]
    model = InverseCompositional(given, transform, (5, 6), steps=3, padding_mode="border")
    output, matrix = model(images(), return_matrix=True)
    composed = torch.eye(3, dtype=torch.float64).expand(3, 3, 3)
    for step in range(3):
        options = {"padding_mode": "border"}
        seen = transform.sample_matrix(images(), composed, SIZE, **options) if step else images()
        composed = composed @ transform.homogeneous(networks[step if separate else 0](seen))
    torch.testing.assert_close(matrix, composed)
    torch.testing.assert_close(
        output, transform.sample_matrix(images(), composed, (5, 6), padding_mode="border")
    )
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_one_look_is_a_spatial_transformer():
    network = localisation(Affine())
    once = InverseCompositional(network, Affine(), (5, 6), steps=1, align_corners=True)
    plain = SpatialTransformer(network, Affine(), (5, 6), align_corners=True)
    torch.testing.assert_close(once(images()), plain(images()))


def test_before_training_the_looks_return_the_input():
    network = FullyConnectedLocalisation(SHAPE, Affine()).double()
    model = InverseCompositional(network, Affine(), SIZE, steps=4)
    torch.testing.assert_close(model(images()), images(), rtol=0, atol=1e-13)


def test_what_one_look_pushed_out_another_fetches_back():
    """Three pixels to the left and back to the right: resampled twice, three columns would be lost."""

    class Alternately(nn.Module):
        sign = 1.0

        def forward(self, input):
            self.sign = -self.sign
            return torch.tensor([[self.sign * 2 * 3 / SIZE[1], 0.0]], dtype=torch.float64).expand(
                len(input), 2
            )

    model = InverseCompositional(Alternately(), Translation(), SIZE, steps=2)
    torch.testing.assert_close(model(images()), images(), rtol=0, atol=1e-13)


def test_volumes_are_looked_at_twice():
    network = localisation(Affine3d(), 0.01, (1, 4, 5, 6))
    model = InverseCompositional(network, Affine3d(), (3, 4, 5), steps=2)
    assert model(torch.rand(2, 1, 4, 5, 6, dtype=torch.float64)).shape == (2, 1, 3, 4, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"transform": stn.ThinPlateSpline()}, TypeError, "transform should be a family of matrices"),
        ({"steps": None}, TypeError, "steps should be an integer"),
        ({"steps": 2.0}, TypeError, "steps should be an integer"),
        ({"steps": 0}, ValueError, "steps should be at least 1"),
        ({"localisation": [localisation(Affine())] * 2, "steps": 3}, ValueError, "steps should be 2"),
        ({"size": (0, 3)}, ValueError, "size should be positive"),
        ({"antialias": 1}, TypeError, "antialias should be True or False"),
        ({"mode": "cubic"}, ValueError, "mode should be one of"),
    ],
)
def test_bad_settings_of_looks_are_named(arguments, error, message):
    defaults = {"localisation": localisation(Affine()), "transform": Affine(), "size": SIZE, "steps": 2}
    with pytest.raises(error, match=f"^{message}"):
        InverseCompositional(**{**defaults, **arguments})


# --- canvas, and gradients through blurs -------------------------------------------------------------------


def test_a_canvas_lies_under_what_the_transform_shows():
    canvas = torch.rand(2, 5, 6, dtype=torch.float64)
    network = localisation(Affine(), 0.5)
    model = SpatialTransformer(network, Affine(), (5, 6), canvas=canvas)
    output, theta = model(images(), return_theta=True)
    torch.testing.assert_close(output, Affine().sample_over(canvas, images(), theta, (5, 6)))
    assert (output - SpatialTransformer(network, Affine(), (5, 6))(images())).abs().max() > 0.1
    assert list(model.state_dict()) == list(SpatialTransformer(network, Affine(), (5, 6)).state_dict())
    with pytest.raises(ValueError, match=r"^padding_mode should be 'zeros' beside a canvas, not 'border'$"):
        SpatialTransformer(network, Affine(), (5, 6), canvas=0.5, padding_mode="border")


def test_gradients_through_blurs_change_no_value():
    network = localisation(Affine())
    plain = SpatialTransformer(network, Affine(), (5, 6))
    further = SpatialTransformer(network, Affine(), (5, 6), gradient_scales=(2, 4))
    assert torch.equal(plain(images()), further(images()))
    gradients = []
    for model in (plain, further):
        network.zero_grad()
        model(images()).square().sum().backward()
        gradients.append(network.head.bias.grad.clone())
    assert (gradients[0] - gradients[1]).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"^gradient_scales should be integers of at least 2"):
        SpatialTransformer(network, Affine(), (5, 6), gradient_scales=(1, 4))
    with pytest.raises(ValueError, match=r"^gradient_scales should be \(\) beside a canvas"):
        SpatialTransformer(network, Affine(), (5, 6), gradient_scales=(4,), canvas=0.0)


# --- as modules should -----------------------------------------------------------------------------------


def made(transform, kind):
    network = localisation(transform).float()
    if kind is InverseCompositional:
        return InverseCompositional(network, transform, (5, 6), steps=2)
    return SpatialTransformer(network, transform, (5, 6))


KINDS = [(t, SpatialTransformer) for t in FAMILIES] + [(Affine(), InverseCompositional)]
kinds = pytest.mark.parametrize(
    ("transform", "kind"), KINDS, ids=[f"{k.__name__}-{label(t)}" for t, k in KINDS]
)


@kinds
def test_compiled_it_is_one_graph_with_the_same_values_and_gradients(transform, kind):
    torch.compiler.reset()  # the same code for all of them, and there is a limit to how often it is compiled
    model = made(transform, kind)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    input = images().float()
    output, expected = compiled(input), model(input)
    torch.testing.assert_close(output, expected)
    output.square().sum().backward()
    expected.square().sum().backward()
    for got, want in zip(compiled.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-4, atol=1e-4)  # float32 sums in another order


@kinds
def test_exported_it_gives_the_same_for_any_batch(transform, kind):
    model = made(transform, kind)
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    exported = torch.export.export(model, (images(3).float(),), dynamic_shapes=shapes)
    for count in (2, 5):
        input = images(count).float()
        torch.testing.assert_close(exported.module()(input), model(input))


@kinds
def test_autocast_changes_little(transform, kind):
    model, input = made(transform, kind), images().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(input)
    # The network in between is computed in bfloat16, with 8 bits; the coordinates are not.
    torch.testing.assert_close(output.float(), model(input), rtol=0, atol=0.1)
    output.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@kinds
def test_a_state_dict_carries_everything(transform, kind):
    model, fresh = made(transform, kind), made(copy.deepcopy(transform), kind)
    for parameter in fresh.parameters():
        nn.init.normal_(parameter)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(images().float()), model(images().float()))
