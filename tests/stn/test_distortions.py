"""Distorted digits go where their pose says."""

import dataclasses

import pytest
import torch

from stn.data import Pose, digits, rotated, rotated_translated_scaled
from stn_kernels import affine_sample


def pose(angle=0.0, scale=1.0, translation=(0.0, 0.0), input_size=(28, 28), output_size=(28, 28)):
    def double(value):
        return torch.tensor([value], dtype=torch.float64)

    return Pose(double(angle), double(scale), double(translation), input_size, output_size)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    return digits("test")[0][:64]


@pytest.mark.parametrize(("angle", "turns"), [(0.0, 0), (90.0, 1), (180.0, 2), (-90.0, -1)])
def test_positive_angles_turn_counter_clockwise_as_displayed(images, angle, turns):
    image = images[:1].double()
    turned = affine_sample(image, pose(angle).matrix(), (28, 28))
    # torch.rot90 turns the first dimension towards the second: counter-clockwise where rows point down.
    # 1e-12: the cosine of a right angle is not exactly zero.
    torch.testing.assert_close(turned, torch.rot90(image, turns, (2, 3)), rtol=0, atol=1e-12)


def test_translation_moves_by_pixels_right_and_down(images):
    image = images[:1].double()
    moved = affine_sample(image, pose(translation=(3.0, -2.0)).matrix(), (28, 28))
    expected = torch.zeros_like(image)
    expected[..., :-2, 3:] = image[..., 2:, :-3]
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-12)


def test_scale_enlarges_the_digit_about_the_centre_of_a_canvas_of_another_shape():
    square = torch.ones(1, 1, 10, 10, dtype=torch.float64)
    canvas = affine_sample(
        square, pose(scale=2.0, input_size=(10, 10), output_size=(40, 60)).matrix(), (40, 60)
    )
    assert canvas[0, 0, 11:29, 21:39].min() == 1  # 20 x 20 in the middle, less the half-covered rim
    assert canvas.sum() == pytest.approx(400)


def test_inverse_matrix_undoes_matrix():
    true = pose(33.0, 0.8, (4.0, -7.0), (28, 20), (42, 50))
    product = homogeneous(true.matrix()) @ homogeneous(true.inverse_matrix())
    torch.testing.assert_close(product, torch.eye(3, dtype=torch.float64)[None])  # rounding only


def homogeneous(matrix):
    return torch.cat([matrix, matrix.new_tensor([[[0.0, 0.0, 1.0]]])], dim=1)


def test_the_inverse_matrix_brings_the_digits_back(images):
    distorted, true = rotated_translated_scaled(images, generator=generator())
    back = affine_sample(distorted, true.inverse_matrix(), (28, 28))
    # Two interpolations blur; a wrong pose misses the digit.
    assert (back - images).abs().mean() < 0.04


def test_rotated_keeps_the_size_and_draws_angles_over_the_whole_range(images):
    turned, true = rotated(images.repeat(8, 1, 1, 1), generator=generator(), max_angle=60.0)
    assert turned.shape == (512, 1, 28, 28)
    assert -60 <= true.angle.min() < -57 < 57 < true.angle.max() <= 60
    assert (true.scale == 1).all()
    assert (true.translation == 0).all()


def test_rotated_by_nothing_is_the_identity(images):
    turned, _ = rotated(images, max_angle=0.0)
    # Coordinates of up to 14 pixels, rounded to float32, and slopes of up to 1 per pixel.
    torch.testing.assert_close(turned, images, rtol=0, atol=4e-6)


def test_rts_draws_from_the_papers_ranges_and_keeps_the_scaled_image_on_the_canvas(images):
    distorted, true = rotated_translated_scaled(images.repeat(8, 1, 1, 1), generator=generator())
    assert distorted.shape == (512, 1, 42, 42)
    assert -45 <= true.angle.min() < -43 < 43 < true.angle.max() <= 45
    assert 0.7 <= true.scale.min() < 0.71 < 1.19 < true.scale.max() <= 1.2
    reach = true.translation.abs().amax(1) + 14 * true.scale
    assert 20.9 < reach.max() <= 21 + 1e-5  # float32 rounding


def test_no_ink_is_lost_on_the_rts_canvas():
    images, _ = digits("test")
    distorted, true = rotated_translated_scaled(images.double(), generator=generator())
    expected = images.double().sum((1, 2, 3)) * true.scale**2
    # Resampling itself changes a digit's ink by a few per cent; a digit half off the canvas would lose half.
    assert (distorted.sum((1, 2, 3)) / expected - 1).abs().max() < 0.06


@pytest.mark.parametrize("distortion", [rotated, rotated_translated_scaled])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_same_seed_gives_the_same_poses_in_every_dtype(images, distortion, dtype):
    single, true = distortion(images, generator=generator(7))
    other, other_true = distortion(images.to(dtype), generator=generator(7))
    assert other.dtype == dtype
    for field in ("angle", "scale", "translation"):
        torch.testing.assert_close(getattr(other_true, field).float(), getattr(true, field))
    torch.testing.assert_close(other.float(), single, rtol=0, atol=0.02)  # bfloat16 keeps eight bits


@pytest.mark.parametrize("distortion", [rotated, rotated_translated_scaled])
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (torch.zeros(28, 28), ValueError, r"images should be \(N, C, H, W\), not \(28, 28\)"),
        (
            torch.zeros(1, 1, 28, 28, dtype=torch.uint8),
            TypeError,
            "images should be of a floating dtype, not torch.uint8",
        ),
    ],
)
def test_bad_images_are_named(distortion, bad, error, message):
    with pytest.raises(error, match=message):
        distortion(bad)


def test_images_too_large_for_the_canvas_and_negative_angles_are_named():
    with pytest.raises(ValueError, match=r"images should fit \(42, 42\)"):
        rotated_translated_scaled(torch.zeros(1, 1, 36, 28))
    with pytest.raises(ValueError, match="max_angle should be at least 0"):
        rotated(torch.zeros(1, 1, 28, 28), max_angle=-1.0)


def test_a_pose_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        pose().angle = torch.zeros(1)
