"""Lines of digits on an arc: places and angles against the circle itself, the picture against its digits."""

import math

import pytest
import torch

from stn.data import Pose, curved_text, digits
from stn_kernels import affine_sample


@pytest.fixture(scope="module")
def lines():
    """40 lines of 4 digits, the canvases and the pose of each digit."""
    images = digits("test")[0][:160].view(40, 4, 28, 28).double()
    return images, *curved_text(images, generator=torch.Generator().manual_seed(0))


def by_line(pose):
    return pose.translation.unflatten(0, (-1, 4)), pose.angle.unflatten(0, (-1, 4))


def test_shapes_and_dtypes(lines):
    images, canvases, pose = lines
    assert canvases.shape == (40, 1, 48, 96)
    assert canvases.dtype == images.dtype
    assert pose.translation.shape == (160, 2)
    assert pose.output_size == (48, 96)
    assert 0 <= canvases.min() <= canvases.max() <= 1


def test_digits_stand_on_a_circle_and_lean_with_it(lines):
    """Equal chords; every digit's upright, as far as the circle's radius, ends in one and the same point."""
    places, angle = by_line(lines[2])
    chords = (places[:, 1:] - places[:, :-1]).norm(dim=-1)
    torch.testing.assert_close(chords, chords[:, :1].expand_as(chords))
    turn = torch.deg2rad(angle[:, :1] - angle[:, 3:]) / 3  # clockwise, from one digit to the next
    radius = (17 / turn)[..., None]
    upright = torch.stack([torch.deg2rad(angle).sin(), torch.deg2rad(angle).cos()], -1)  # down, as displayed
    centres = places + radius * upright
    torch.testing.assert_close(centres, centres[:, :1].expand_as(centres), rtol=0, atol=1e-6)


def test_text_runs_from_left_to_right_within_bend_and_tilt(lines):
    places, angle = by_line(lines[2])
    assert (angle[:, 0] - angle[:, 3]).abs().max() <= 120
    assert (angle[:, 0] - angle[:, 3]).abs().max() > 100  # it does bend
    assert angle.mean(1).abs().max() <= 15
    assert (places[:, 3, 0] > places[:, 0, 0]).all()


def test_digits_stay_on_the_canvas(lines):
    limit = torch.tensor([96 - 15, 48 - 15]) / 2
    assert (lines[2].translation.abs() <= limit + 1e-9).all()


def test_the_pose_gets_every_digit_back(lines):
    """Where no neighbour is: the middle, 12 pixels square."""
    images, canvases, pose = lines
    each = canvases.repeat_interleave(4, 0)
    back = affine_sample(each, pose.inverse_matrix(), (28, 28))[:, 0, 8:20, 8:20]
    there = images.flatten(0, 1)[:, 8:20, 8:20]
    assert (back - there).abs().mean() < 0.3 * there.mean()
    assert (back.roll(1, 0) - there).abs().mean() > 0.6 * there.mean()  # and not another one


def test_without_bend_and_tilt_a_line_is_straight():
    images = digits("test")[0][:8].view(2, 4, 28, 28)
    _, pose = curved_text(images, max_bend=0, max_tilt=0, generator=torch.Generator().manual_seed(0))
    places, angle = by_line(pose)
    assert (angle == 0).all()
    torch.testing.assert_close(places.diff(dim=1), torch.tensor([17.0, 0.0]).expand(2, 3, 2))


def test_one_digit_makes_a_line():
    line, pose = curved_text(torch.ones(2, 1, 28, 28))
    assert line.shape == (2, 1, 48, 96)
    assert isinstance(pose, Pose)
    assert len(pose.angle) == 2


def test_a_seed_decides_the_line_whatever_the_dtype():
    images = digits("test")[0][:4].view(1, 4, 28, 28)
    poses = [
        curved_text(images.to(dtype), generator=torch.Generator().manual_seed(3))[1]
        for dtype in (torch.float32, torch.float64)
    ]
    torch.testing.assert_close(poses[0].angle, poses[1].angle.float())


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("size", (0, 96)),
        ("scale", 0.0),
        ("spacing", -1.0),
        ("spacing", math.nan),
        ("max_bend", -1.0),
        ("max_tilt", math.nan),
    ],
)
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=argument):
        curved_text(torch.zeros(1, 4, 28, 28), **{argument: value})


def test_bad_images_are_named():
    with pytest.raises(ValueError, match="images"):
        curved_text(torch.zeros(4, 28, 28))
    with pytest.raises(TypeError, match="images"):
        curved_text(torch.zeros(1, 4, 28, 28, dtype=torch.uint8))
