"""The programs of kernels/examples compute what the compositions that they replace do, and its gradients."""

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import one_import
import optical_flow
import rectify_text
import registration
from deformable_attention import deformable_attention

try:  # as on a machine with a GPU and little else
    from kornia import augmentation

    import kornia_augmentation
except ImportError:
    augmentation = kornia_augmentation = None

NEEDS_KORNIA = pytest.mark.skipif(augmentation is None, reason="kornia is not installed")
EXAMPLES = Path(one_import.__file__).parent
# Of the largest value. In float32 the compositions round coordinates, of up to a dozen pixels here, at each
# of their steps: a few times 1e-7 of the extent. Pixels differ by about 1, and so do values by as much.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-5}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])


def agree(ours, theirs, tensors, tolerance):
    """Whether two functions have the same values and the same gradients with respect to the tensors."""
    results = []
    for function in (ours, theirs):
        output = function()
        generator = torch.Generator().manual_seed(1)
        cotangent = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
        results.append((output, *torch.autograd.grad(output, tensors, cotangent)))
    for our, their in zip(*results, strict=True):
        assert their.abs().max() > 0
        torch.testing.assert_close(our, their, rtol=0, atol=tolerance * their.abs().max().item())


def leaves(device, dtype, *tensors):
    return [tensor.to(device, dtype).requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_programs_run_and_say_so(path, capsys):
    if path.stem.startswith("kornia"):
        pytest.importorskip("kornia")
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    assert "True" in said
    assert "False" not in said


def test_each_program_is_in_the_readme():
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f"](examples/{path.name})" not in readme] == []


# --- one import --------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("name", ["Transformer", "FusedTransformer"])
def test_a_model_by_one_import(device, dtype, name):
    source = (EXAMPLES / "one_import.py").read_text(encoding="utf-8")
    line = "from stn_kernels import affine_sample, grid_sample\n"
    assert source.count(line) == 1
    before = {"__name__": "before"}
    exec(source.replace(line, "from torch.nn.functional import grid_sample\n"), before)

    theirs = before["Transformer"]().to(device, dtype)
    nn.init.normal_(theirs.fc_loc[-1].weight, std=0.2)
    ours = getattr(one_import, name)().to(device, dtype)
    ours.load_state_dict(theirs.state_dict())
    (x,) = leaves(device, dtype, torch.rand(2, 1, 28, 28))
    agree(lambda: ours(x), lambda: theirs(x), [x], TOLERANCES[dtype])
    for model in (ours, theirs):
        model(x).square().sum().backward()
    for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        scale = their.grad.abs().max().item()  # sums over 784 pixels, of both signs
        torch.testing.assert_close(our.grad, their.grad, rtol=0, atol=10 * TOLERANCES[dtype] * scale)


# --- registration ------------------------------------------------------------------------------------------


class SpatialTransformer(nn.Module):
    """VoxelMorph's."""

    def __init__(self, size):
        super().__init__()
        vectors = [torch.arange(0, s) for s in size]
        self.grid = torch.stack(torch.meshgrid(vectors, indexing="ij"))[None]

    def forward(self, source, flow):
        locations = self.grid.to(flow) + flow
        shape = flow.shape[2:]
        scaled = [2 * (locations[:, i] / (extent - 1) - 0.5) for i, extent in enumerate(shape)]
        return F.grid_sample(source, torch.stack(scaled[::-1], dim=-1), align_corners=True)


def voxelmorph_integrate(transformer, velocity, steps):
    field = velocity * (1.0 / (2**steps))
    for _ in range(steps):
        field = field + transformer(field, field)
    return field


def voxelmorph_grad(field):
    differences = []
    for axis in range(2, field.ndim):
        along = field.movedim(axis, 0)
        differences.append(torch.mean((along[1:] - along[:-1]) ** 2))
    return sum(differences) / len(differences)


@DTYPES
@pytest.mark.parametrize("size", [(6, 7), (4, 5, 3)], ids=["2-D", "3-D"])
def test_registration(device, dtype, size):
    moving, fixed, velocity = leaves(
        device,
        dtype,
        torch.rand(2, 1, *size),
        torch.rand(2, 1, *size),
        torch.randn(2, len(size), *size),
    )
    transformer = SpatialTransformer(size)

    def ours():
        field = registration.integrate(velocity, steps=3)
        loss = F.mse_loss(registration.warp(moving, field), fixed)
        return loss + 0.01 * registration.roughness(field)

    def theirs():
        field = voxelmorph_integrate(transformer, velocity, steps=3)
        loss = torch.mean((fixed - transformer(moving, field)) ** 2)
        return loss + 0.01 * voxelmorph_grad(field)

    agree(ours, theirs, [moving, fixed, velocity], TOLERANCES[dtype])


def test_a_registration_step_starts_from_a_field_of_zeros_and_reaches_it():
    model = registration.Registration(axes=2, width=4)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    pair = torch.rand(2, 2, 1, 8, 8)
    loss = registration.registration_step(model, optimiser, *pair)
    assert loss == pytest.approx(F.mse_loss(*pair).item(), rel=1e-5)  # nothing moves, nothing is rough
    assert model(*pair).abs().max() > 0


# --- optical flow ------------------------------------------------------------------------------------------


def raft_bilinear_sampler(image, coordinates):
    height, width = image.shape[-2:]
    x, y = coordinates.split([1, 1], dim=-1)
    grid = torch.cat([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1)
    return F.grid_sample(image, grid, align_corners=True)


def raft_coordinates(batch, height, width, like):
    y, x = torch.meshgrid(torch.arange(height).to(like), torch.arange(width).to(like), indexing="ij")
    return torch.stack([x, y])[None].repeat(batch, 1, 1, 1)


def raft_lookup(first, second, coordinates, levels, r):
    batch, channels, height, width = first.shape
    volume = first.view(batch, channels, -1).transpose(1, 2) @ second.view(batch, channels, -1)
    volume = volume.view(batch * height * width, 1, height, width) / torch.tensor(channels).to(first).sqrt()
    coordinates = coordinates.permute(0, 2, 3, 1)
    outputs = []
    for level in range(levels):
        d = torch.linspace(-r, r, 2 * r + 1).to(first)
        delta = torch.stack(torch.meshgrid(d, d, indexing="ij"), dim=-1)
        centroid = coordinates.reshape(batch * height * width, 1, 1, 2) / 2**level
        window = raft_bilinear_sampler(volume, centroid + delta.view(1, 2 * r + 1, 2 * r + 1, 2))
        outputs.append(window.view(batch, height, width, -1))
        volume = F.avg_pool2d(volume, 2, stride=2)
    return torch.cat(outputs, dim=-1).permute(0, 3, 1, 2).contiguous()


@DTYPES
def test_warping_by_optical_flow(device, dtype):
    image, flow = leaves(device, dtype, torch.rand(2, 3, 6, 9), 2 * torch.randn(2, 2, 6, 9))

    def theirs():
        coordinates = raft_coordinates(2, 6, 9, flow) + flow
        return raft_bilinear_sampler(image, coordinates.permute(0, 2, 3, 1))

    agree(lambda: optical_flow.warp(image, flow), theirs, [image, flow], TOLERANCES[dtype])


@DTYPES
def test_correlation_lookup(device, dtype):
    first, second, flow = leaves(
        device, dtype, torch.randn(1, 3, 6, 5), torch.randn(1, 3, 6, 5), torch.randn(1, 2, 6, 5)
    )

    def ours():
        matches = raft_coordinates(1, 6, 5, flow) + flow
        return optical_flow.CorrelationBlock(first, second, levels=2, radius=2)(matches)

    def theirs():
        return raft_lookup(first, second, raft_coordinates(1, 6, 5, flow) + flow, levels=2, r=2)

    agree(ours, theirs, [first, second, flow], TOLERANCES[dtype])


# --- deformable attention ----------------------------------------------------------------------------------


def ms_deform_attn_core_pytorch(value, spatial_shapes, sampling_locations, attention_weights):
    """Deformable DETR's."""
    N, _, M, D = value.shape
    _, Lq, _, L, P, _ = sampling_locations.shape
    value_list = value.split([H * W for H, W in spatial_shapes], dim=1)
    sampling_grids = 2 * sampling_locations - 1
    sampling_value_list = []
    for level, (H, W) in enumerate(spatial_shapes):
        value_l = value_list[level].flatten(2).transpose(1, 2).reshape(N * M, D, H, W)
        sampling_grid_l = sampling_grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        sampling_value_list.append(F.grid_sample(value_l, sampling_grid_l, align_corners=False))
    attention_weights = attention_weights.transpose(1, 2).reshape(N * M, 1, Lq, L * P)
    output = (torch.stack(sampling_value_list, dim=-2).flatten(-2) * attention_weights).sum(-1)
    return output.view(N, M * D, Lq).transpose(1, 2).contiguous()


@DTYPES
def test_deformable_attention(device, dtype):
    shapes = [(5, 6), (3, 2)]
    value, locations, weights = leaves(
        device,
        dtype,
        torch.randn(2, 36, 3, 4),
        1.2 * torch.rand(2, 5, 3, 2, 2, 2) - 0.1,  # some beside the map
        torch.rand(2, 5, 3, 2, 2),
    )
    arguments = value, shapes, locations, weights
    agree(
        lambda: deformable_attention(*arguments),
        lambda: ms_deform_attn_core_pytorch(*arguments),
        [value, locations, weights],
        TOLERANCES[dtype],
    )


# --- text rectification ------------------------------------------------------------------------------------


def rare_grid(source_points, target_points, size):
    """RARE's grid generator: the inverse of the system's matrix, times the points, times a row a pixel."""
    count = len(target_points)
    distances = torch.cdist(target_points, target_points)
    hat = torch.xlogy(distances**2, distances)
    one, zeros = target_points.new_ones(count, 1), target_points.new_zeros(3, 3)
    upper = torch.cat([one, target_points, hat], dim=1)
    lower = torch.cat([zeros, torch.cat([one, target_points], dim=1).T], dim=1)
    inverse = torch.linalg.inv(torch.cat([upper, lower]))

    height, width = size
    x = (torch.arange(-width, width, 2).to(target_points) + 1) / width
    y = (torch.arange(-height, height, 2).to(target_points) + 1) / height
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).view(-1, 2)
    r = torch.cdist(pixels, target_points)
    rows = torch.cat([torch.ones_like(pixels[:, :1]), pixels, torch.xlogy(r**2, r)], dim=1)
    T = inverse @ torch.cat([source_points, source_points.new_zeros(len(source_points), 3, 2)], dim=1)
    return (rows @ T).view(-1, height, width, 2)


@DTYPES
def test_text_rectification(device, dtype):
    rectifier = rectify_text.Rectifier(channels=1, size=(3, 6), points=6).to(device, dtype)
    head = rectifier.localisation[-1]
    nn.init.normal_(head.weight, std=0.2)
    (images,) = leaves(device, dtype, torch.rand(2, 1, 6, 9))

    def theirs():
        points = rectifier.localisation(images).unflatten(1, (-1, 2))
        grid = rare_grid(points.double(), rectifier.target_points.double(), (3, 6)).to(points)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    agree(lambda: rectifier(images), theirs, [images, head.weight, head.bias], TOLERANCES[dtype])


def test_an_untrained_rectifier_changes_nothing():
    images = torch.rand(2, 1, 32, 100)
    # The spline's coordinates in float32: 23 terms of up to about 5, in a grid that half of 100 pixels wide.
    torch.testing.assert_close(rectify_text.Rectifier(1)(images), images, rtol=0, atol=1e-3)


# --- kornia ------------------------------------------------------------------------------------------------

AUGMENTATIONS = {
    "FusedAffine": ("RandomAffine", {"degrees": 40.0, "translate": (0.2, 0.1), "shear": 10.0}),
    "FusedRotation": ("RandomRotation", {"degrees": 60.0}),
    "FusedPerspective": ("RandomPerspective", {"distortion_scale": 0.5}),
}


def ours_and_theirs(name, **choices):
    theirs, arguments = AUGMENTATIONS[name]
    for module, kind in ((kornia_augmentation, name), (augmentation, theirs)):
        yield getattr(module, kind)(**arguments, p=1.0, **choices)


@NEEDS_KORNIA
@DTYPES
@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_kornia_augmentations(device, dtype, name, align_corners):
    (images,) = leaves(device, dtype, torch.rand(2, 2, 7, 9))

    def seeded(augment):
        torch.manual_seed(0)
        return augment(images)

    ours, theirs = ours_and_theirs(name, align_corners=align_corners)
    agree(lambda: seeded(ours), lambda: seeded(theirs), [images], TOLERANCES[dtype])


@NEEDS_KORNIA
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_kornias_inverse_goes_through_the_same_warp(name, monkeypatch):
    images, results, calls = torch.rand(2, 1, 8, 9), [], []
    apply = kornia_augmentation.Fused.apply_transform
    monkeypatch.setattr(
        kornia_augmentation.Fused, "apply_transform", lambda *a, **k: calls.append(1) or apply(*a, **k)
    )
    for augment in ours_and_theirs(name):
        sequence = augmentation.AugmentationSequential(augment, data_keys=["input"])
        torch.manual_seed(0)
        results.append(sequence.inverse(sequence(images)))
    assert len(calls) == 2
    torch.testing.assert_close(*results, rtol=0, atol=TOLERANCES[torch.float32])


@NEEDS_KORNIA
def test_kornia_in_half_precision():
    """Coordinates in float32: off by no more than the rounding of the image, and of the result, to 8 bits."""
    augment = kornia_augmentation.FusedPerspective(p=1.0)
    images, matrix = torch.rand(2, 1, 8, 9), torch.eye(3) + torch.rand(2, 3, 3) / 50
    exact = augment.apply_transform(images, {}, augment.flags, matrix)
    rounded = augment.apply_transform(images.bfloat16(), {}, augment.flags, matrix)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=2**-8)


@NEEDS_KORNIA
def test_kornias_fill_is_refused():
    augment = kornia_augmentation.FusedAffine(degrees=10.0, padding_mode="fill", p=1.0)
    with pytest.raises(NotImplementedError, match="fill"):
        augment(torch.rand(1, 1, 5, 5))
