"""Extruded digits stand in their volume as their pose says."""

import dataclasses

import pytest
import torch

from stn.data import Pose3d, digits, extruded, rotation_about_axes
from stn_kernels import affine_sample

QUARTER = torch.pi / 2
ROUNDING = 1e-12  # of float64: the cosine of a right angle is not exactly zero


def pose(angles=(0.0, 0.0, 0.0), scale=1.0, translation=(0.0, 0.0, 0.0), sizes=((6, 6, 6), (6, 6, 6))):
    rotation = rotation_about_axes(torch.tensor([angles], dtype=torch.float64))
    scales = torch.tensor([scale], dtype=torch.float64)
    return Pose3d(rotation, scales, torch.tensor([translation], dtype=torch.float64), *sizes)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    return digits("test")[0][:64]


@pytest.fixture(scope="module")
def solid():
    return torch.rand(1, 1, 6, 6, 6, generator=generator(), dtype=torch.float64)


@pytest.mark.parametrize(
    ("angles", "turned_dims"),
    # torch.rot90 turns the first dimension towards the second; dimensions are z, y, x = 2, 3, 4.
    [((QUARTER, 0, 0), (3, 2)), ((0, QUARTER, 0), (2, 4)), ((0, 0, QUARTER), (4, 3))],
)
def test_positive_angles_take_y_to_z_z_to_x_and_x_to_y(solid, angles, turned_dims):
    turned = affine_sample(solid, pose(angles).matrix(), (6, 6, 6))
    torch.testing.assert_close(turned, torch.rot90(solid, 1, turned_dims), rtol=0, atol=ROUNDING)


def test_the_solid_is_turned_about_x_first_and_about_z_last(solid):
    turned = affine_sample(solid, pose((QUARTER, QUARTER, QUARTER)).matrix(), (6, 6, 6))
    expected = solid
    for dims in ((3, 2), (2, 4), (4, 3)):
        expected = torch.rot90(expected, 1, dims)
    torch.testing.assert_close(turned, expected, rtol=0, atol=ROUNDING)


def test_translation_moves_by_voxels_right_down_and_away(solid):
    moved = affine_sample(solid, pose(translation=(2.0, -1.0, 3.0)).matrix(), (6, 6, 6))
    expected = torch.zeros_like(solid)
    expected[..., 3:, :-1, 2:] = solid[..., :-3, 1:, :-2]
    torch.testing.assert_close(moved, expected, rtol=0, atol=ROUNDING)


def test_an_upright_volume_holds_the_image_in_every_layer_of_the_slab(images):
    volumes, _ = extruded(images[:4].double(), size=(10, 28, 28), depth=4, max_angles=(0, 0, 0))
    expected = torch.zeros(4, 1, 10, 28, 28, dtype=torch.float64)
    expected[:, :, 3:7] = images[:4, :, None].double()
    torch.testing.assert_close(volumes, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("max_angles", [None, (60.0, 60.0, 20.0)])
def test_the_volume_is_the_slab_where_the_pose_says(images, max_angles):
    """One voxel after another, without normalised coordinates: back into the slab, and its pixel there."""
    volumes, true = extruded(
        images[:2].double(),
        size=(20, 24, 28),
        depth=6,
        max_angles=max_angles,
        max_shift=3,
        generator=generator(),
    )
    halves = torch.tensor([28, 24, 20]) / 2 - 0.5
    for item, (z, y, x) in ((0, (9, 12, 13)), (0, (11, 10, 16)), (1, (10, 11, 12)), (1, (8, 14, 15))):
        offset = torch.tensor([x, y, z]) - halves - true.translation[item]
        a, b, c = (true.rotation[item].T @ offset).tolist()  # from the slab's centre
        slab = torch.nn.functional.pad(images[item, 0].double().expand(6, 28, 28), (1, 1, 1, 1, 1, 1))
        place = torch.tensor([c + 3.5, b + 14.5, a + 14.5], dtype=torch.float64)  # the padded slab's indices
        low = place.floor().long()
        value = 0.0
        for corner in torch.cartesian_prod(*[torch.arange(2)] * 3):
            index = low + corner
            if ((index >= 0) & (index < torch.tensor(slab.shape))).all():
                value += slab[tuple(index)] * (1 - (place - index).abs()).prod()
        torch.testing.assert_close(volumes[item, 0, z, y, x], torch.as_tensor(value), rtol=0, atol=1e-10)


def test_inverse_matrix_undoes_matrix():
    true = pose((0.4, -1.1, 2.0), 0.8, (4.0, -7.0, 2.0), ((8, 28, 20), (42, 50, 36)))
    product = homogeneous(true.matrix()) @ homogeneous(true.inverse_matrix())
    torch.testing.assert_close(product, torch.eye(4, dtype=torch.float64)[None])  # rounding only


def homogeneous(matrix):
    return torch.cat([matrix, matrix.new_tensor([[[0.0, 0.0, 0.0, 1.0]]])], dim=1)


@pytest.mark.parametrize("max_angles", [None, (60.0, 60.0, 20.0)])
def test_the_inverse_matrix_brings_the_digits_back(images, max_angles):
    volumes, true = extruded(
        images, size=36, depth=6, max_angles=max_angles, max_shift=2, generator=generator()
    )
    back = affine_sample(volumes, true.inverse_matrix(), (6, 28, 28))[:, :, 1:-1].mean(2)
    # Two interpolations blur, by 0.02 on average; a wrong pose misses the digit, by 0.1 and more.
    assert (back - images).abs().mean() < 0.04


def test_no_ink_is_lost_in_a_volume_that_is_large_enough(images):
    volumes, _ = extruded(images.double(), size=40, depth=8, scale=1.2, max_shift=1, generator=generator())
    expected = images.double().sum((1, 2, 3)) * 8 * 1.2**3
    # Resampling itself changes a digit's ink by a few per cent; a scale of 1.2 squared would be a sixth off.
    assert (volumes.sum((1, 2, 3, 4)) / expected - 1).abs().max() < 0.04


def test_rotations_are_rotations_and_uniform_ones_have_no_preferred_direction():
    _, true = extruded(
        torch.zeros(4000, 1, 1, 1, dtype=torch.float64), size=1, depth=1, generator=generator()
    )
    eye = torch.eye(3, dtype=torch.float64).expand(4000, 3, 3)
    torch.testing.assert_close(true.rotation @ true.rotation.mT, eye)
    torch.testing.assert_close(true.rotation.det(), torch.ones(4000, dtype=torch.float64))
    # Each entry of a uniform rotation is uniform in [-1, 1]: mean 0 and mean square 1/3, over 4,000 draws to
    # within five standard errors, 5 sqrt(1/3 / 4000) and 5 sqrt(4/45 / 4000).
    assert true.rotation.mean(0).abs().max() < 0.046
    assert (true.rotation.square().mean(0) - 1 / 3).abs().max() < 0.024
    # The trace of a uniform rotation, 1 + 2 cos(angle), has mean 0 and mean square 1.
    trace = true.rotation.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(trace.mean()) < 0.08
    assert abs(trace.square().mean() - 1) < 0.15


def test_bounded_angles_and_shifts_fill_their_ranges_and_stay_within():
    _, true = extruded(
        torch.zeros(2000, 1, 1, 1, dtype=torch.float64),
        size=1, depth=1, max_angles=(60.0, 30.0, 10.0), max_shift=2.0, generator=generator(),
    )  # fmt: skip
    # Read off R_z R_y R_x: its first column and its last row.
    R = true.rotation
    angles = torch.stack([R[:, 2, 1].atan2(R[:, 2, 2]), -R[:, 2, 0].asin(), R[:, 1, 0].atan2(R[:, 0, 0])], 1)
    reach = torch.rad2deg(angles).abs().amax(0) / torch.tensor([60.0, 30.0, 10.0])
    assert ((reach > 0.98) & (reach <= 1 + 1e-9)).all()
    assert 1.96 < true.translation.abs().max() <= 2
    assert (true.scale == 1).all()


@pytest.mark.parametrize("max_angles", [None, (60.0, 60.0, 20.0)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_same_seed_gives_the_same_poses_in_every_dtype(images, max_angles, dtype):
    def make(images):
        return extruded(images, size=24, depth=6, max_angles=max_angles, generator=generator(7))

    single, true = make(images[:8])
    other, other_true = make(images[:8].to(dtype))
    assert other.dtype == dtype
    for field in ("rotation", "scale", "translation"):
        torch.testing.assert_close(getattr(other_true, field).float(), getattr(true, field))
    torch.testing.assert_close(other.float(), single, rtol=0, atol=0.02)  # bfloat16 keeps eight bits


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"images": torch.zeros(28, 28)}, ValueError, r"images should be \(N, C, H, W\), not \(28, 28\)"),
        (
            {"images": torch.zeros(1, 1, 8, 8, dtype=torch.uint8)},
            TypeError,
            "images should be of a floating dtype",
        ),
        ({"size": (8, 8)}, ValueError, "size should be three integers"),
        ({"size": 0}, ValueError, "size should be positive"),
        ({"depth": 0}, ValueError, "depth should be an integer of at least 1, not 0"),
        ({"depth": 2.5}, ValueError, "depth should be an integer of at least 1, not 2.5"),
        ({"scale": 0.0}, ValueError, "scale should be positive, not 0"),
        ({"max_angles": (60.0, 60.0)}, ValueError, "max_angles should be three angles"),
        ({"max_angles": (60.0, -1.0, 0.0)}, ValueError, "max_angles should be three angles"),
        ({"max_shift": -1.0}, ValueError, "max_shift should be at least 0 voxels, not -1"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        extruded(**{"images": torch.zeros(1, 1, 8, 8), "size": 8} | arguments)


def test_a_pose_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        pose().scale = torch.zeros(1)
