"""Scenes: digits stand where their pose says and apart from each other, clutter comes from other digits."""

import pytest
import torch

from stn.data import digits, side_by_side, translated_cluttered
from stn_kernels import affine_sample


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    return digits("test")[0][:600]


@pytest.fixture(scope="module")
def pairs(images):
    return images.view(300, 2, 28, 28)


def test_digits_stand_side_by_side_on_the_canvas(pairs):
    canvases, pose = side_by_side(pairs, generator=generator())
    assert canvases.shape == (300, 1, 40, 60)
    assert 0 <= canvases.min() <= canvases.max() <= 1
    assert pose.output_size == (40, 60)
    assert (pose.angle == 0).all()
    assert (pose.scale == 1).all()
    places = pose.translation.view(300, 2, 2)
    # Half a digit from the borders, a digit from each other; 1e-5 pixels for rounding to float32.
    assert (places.abs() <= torch.tensor([20.0, 10.0]) + 1e-5).all()
    assert (places[:, 1, 0] - places[:, 0, 0]).min() >= 20 - 1e-5


def test_places_fill_the_room(pairs):
    places = side_by_side(pairs, generator=generator())[1].translation.view(300, 2, 2)
    assert places[..., 1].min() < -9.5 < 9.5 < places[..., 1].max()
    # Of two sorted points the left is in its half of the room three times in four: 300 draws, four sigma.
    assert (places[:, 0, 0] < -10).float().mean() == pytest.approx(0.75, abs=0.1)
    assert (places[:, 1, 0] > 10).float().mean() == pytest.approx(0.75, abs=0.1)


def test_each_digit_of_a_pair_is_seen_where_its_pose_says(pairs):
    canvases, pose = side_by_side(pairs, generator=generator())
    back = affine_sample(canvases.repeat_interleave(2, 0), pose.inverse_matrix(), (28, 28))[:, 0, 8:20, 8:20]
    there = pairs.flatten(0, 1)[:, 8:20, 8:20]
    # Two interpolations blur; another digit differs by more than half of the ink.
    assert (back - there).abs().mean() < 0.3 * there.mean()
    assert (back.roll(1, 0) - there).abs().mean() > 0.6 * there.mean()


def test_little_ink_is_lost(pairs):
    canvases, _ = side_by_side(pairs, generator=generator())
    kept = canvases.sum((1, 2, 3)) / pairs.sum((1, 2, 3))
    assert kept.mean() > 0.99
    assert kept.min() > 0.9


def test_digits_that_fill_the_canvas_have_one_place_each():
    _, pose = side_by_side(torch.ones(2, 3, 28, 28), size=(20, 60), generator=generator())
    expected = torch.tensor([[-20.0, 0.0], [0.0, 0.0], [20.0, 0.0]]).repeat(2, 1)
    torch.testing.assert_close(pose.translation, expected)


def test_without_patches_the_digit_is_alone_and_where_its_pose_says(images):
    canvases, pose = translated_cluttered(images, patches=0, generator=generator())
    assert canvases.shape == (600, 1, 60, 60)
    assert (pose.translation.abs() <= 16).all()
    assert pose.translation.abs().max() > 15.5
    ink = canvases.sum((1, 2, 3)) / images.sum((1, 2, 3))
    torch.testing.assert_close(ink, torch.ones(600), rtol=0, atol=1e-4)  # sums of 784 pixels in float32
    back = affine_sample(canvases, pose.inverse_matrix(), (28, 28))
    assert (back - images).abs().mean() < 0.04  # as for RTS


def test_clutter_only_adds_and_each_patch_is_cut_from_another_digit():
    """Every image has one grey value of its own, so that what is seen tells where it is from."""
    images = (torch.arange(1.0, 9)[:, None, None, None] / 8).expand(8, 1, 28, 28)
    alone, pose = translated_cluttered(images, patches=0, size=(28, 28), generator=generator())
    torch.testing.assert_close(alone, images)
    assert (pose.translation == 0).all()
    blank = images.clone()
    blank[7] = 0  # on this one patches of all other digits can be seen, brighter than itself
    cluttered, _ = translated_cluttered(blank, size=(60, 60), patches=6, generator=generator())
    without, _ = translated_cluttered(blank, size=(60, 60), patches=0, generator=generator())
    assert (cluttered >= without).all()
    assert 0 < (cluttered[7] > 0).sum() <= 6 * 36
    assert set(cluttered[7].unique().tolist()) <= {i / 8 for i in range(8)}


def test_patches_are_squares_of_the_size_asked_for():
    images = torch.ones(2, 1, 20, 20)
    images[1] = 0
    seen, _ = translated_cluttered(images, patches=1, patch_size=5, generator=generator())
    assert seen[1].sum() == 25
    rows, columns = seen[1, 0].nonzero().unbind(1)
    assert rows.max() - rows.min() == columns.max() - columns.min() == 4


def test_a_channel_s_clutter_stays_in_its_channel():
    images = torch.zeros(4, 2, 28, 28)
    images[:, 1] = 1
    canvases, _ = translated_cluttered(images, generator=generator())
    assert (canvases[:, 0] == 0).all()
    assert (canvases[:, 1].sum((1, 2)) > 27**2).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_the_same_seed_gives_the_same_scenes_in_every_dtype(images, pairs, dtype):
    for scene, batch in ((side_by_side, pairs), (translated_cluttered, images)):
        single, true = scene(batch, generator=generator(7))
        other, other_true = scene(batch.to(dtype), generator=generator(7))
        assert other.dtype == dtype
        torch.testing.assert_close(other_true.translation.float(), true.translation)
        torch.testing.assert_close(other.float(), single, rtol=0, atol=0.01)  # half precision: 11 bits


def test_bad_arguments_are_named():
    for scene in (side_by_side, translated_cluttered):
        with pytest.raises(ValueError, match="images should be"):
            scene(torch.zeros(28, 28))
        with pytest.raises(TypeError, match="images should be of a floating dtype"):
            scene(torch.zeros(2, 2, 28, 28, dtype=torch.uint8))
    with pytest.raises(ValueError, match="size should be at least"):
        side_by_side(torch.zeros(1, 4, 28, 28))
    two = torch.zeros(2, 1, 28, 28)
    with pytest.raises(ValueError, match="patches should be at least 0"):
        translated_cluttered(two, patches=-1)
    with pytest.raises(ValueError, match="patch_size should be from 1 to 20"):
        translated_cluttered(two, patch_size=21)
    with pytest.raises(ValueError, match="images should be at least 2"):
        translated_cluttered(two[:1])
    with pytest.raises(ValueError, match=r"images should be from \(20, 20\) to \(24, 60\)"):
        translated_cluttered(two, size=(24, 60))
