"""SVHN: the loader on small archives in its format."""

import sys

import h5py
import numpy as np
import pytest
import torch

from archives import write_house_numbers as write
from stn.data.house_numbers import NONE, HouseNumbers, as_targets, crop

# Name: grey levels (height, width), and each digit's label, left, top, width and height.
SINGLE = {"1.png": (np.full((40, 30), 200), [(10, 8, 5, 10, 20)])}
SEVERAL = {
    "1.png": (np.full((40, 60), 50), [(1, 10, 5, 10, 20), (10, 22, 6, 10, 20), (9, 33, 5, 10, 20)]),
    "2.png": (np.full((20, 20), 100), [(3, -2, -1, 12, 23), (4, 10, 0, 12, 20)]),
    "3.png": (np.full((20, 90), 150), [(label, 10 * label, 2, 9, 15) for label in range(1, 7)]),
}


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "train", SINGLE)
    write(tmp_path / "extra", SEVERAL)
    write(tmp_path / "test", {**SINGLE, "2.png": SEVERAL["2.png"]})
    return tmp_path


def test_single_and_several_digits_are_read_and_more_than_five_left_out(root):
    numbers = HouseNumbers(root, ("train", "extra"))
    assert [numbers[index][1].tolist() for index in range(len(numbers))] == [
        [0, NONE, NONE, NONE, NONE],
        [1, 0, 9, NONE, NONE],
        [3, 4, NONE, NONE, NONE],
    ]
    for index, grey in enumerate((200, 50, 100)):
        image = numbers[index][0]
        torch.testing.assert_close(image, torch.full((3, 64, 64), grey / 255))
    assert len(HouseNumbers(root, ["test"])) == 2


def test_crops_are_around_all_digits_and_end_with_the_image():
    box = (10.0, 20.0, 30.0, 30.0)
    assert crop(box, 64, (100, 100)) == pytest.approx((7, 18.5, 33, 31.5))
    assert crop(box, 128, (100, 100)) == pytest.approx((0, 12, 46, 38))  # from -6
    assert crop((-5.0, -3.0, 15.0, 17.0), 64, (16, 18)) == pytest.approx((0, 0, 16, 18))


@pytest.mark.parametrize(("size", "first", "last"), [(64, 37, 63), (128, 24, 76)])
def test_the_crop_is_what_is_seen(size, first, last, tmp_path):
    columns = np.broadcast_to(np.arange(100), (80, 100))
    write(tmp_path / "test", {"1.png": (columns, [(1, 40, 30, 10, 20), (2, 50, 30, 10, 20)])})
    image, _ = HouseNumbers(tmp_path, ["test"], size=size)[0]
    assert image.shape == (3, size, size)
    assert 255 * image[:, :, 0] == pytest.approx(first, abs=0.6)
    assert 255 * image[:, :, -1] == pytest.approx(last - 1, abs=0.6)


def test_a_missing_list_and_a_missing_image_are_named(root):
    (root / "test" / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"digitStruct\.mat names 2\.png, which is missing"):
        HouseNumbers(root, ["test"])
    (root / "extra" / "digitStruct.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"extra.digitStruct\.mat is missing"):
        HouseNumbers(root, ["train", "extra"])


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_list_is_named(share, root):
    path = root / "extra" / "digitStruct.mat"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"extra.digitStruct\.mat is damaged: "):
        HouseNumbers(root, ["extra"])


def test_a_list_without_its_groups_is_named(tmp_path):
    (tmp_path / "test").mkdir()
    h5py.File(tmp_path / "test" / "digitStruct.mat", "w").close()
    with pytest.raises(ValueError, match=r"digitStruct\.mat is damaged: .*digitStruct"):
        HouseNumbers(tmp_path, ["test"])


@pytest.mark.parametrize(
    ("digits", "message"),
    [
        ([], r"digitStruct\.mat: 1\.png has no labels"),
        ([(11, 8, 5, 10, 20)], r"1\.png has the labels \[11\.0\], not of 1 to 10"),
        ([(1.5, 8, 5, 10, 20)], r"1\.png has the labels \[1\.5\], not of 1 to 10"),
        ([(1, 8, 5, 10)], r"1\.png should have left, top, width, height of each of its 1 digits"),
        ([(1, 8, 5, 0, 20)], r"1\.png has a box without extent"),
    ],
)
def test_what_does_not_read_as_it_should_is_named(digits, message, tmp_path):
    write(tmp_path / "test", {"1.png": (np.zeros((40, 30)), digits)})
    with pytest.raises(ValueError, match=message):
        HouseNumbers(tmp_path, ["test"])


def test_digits_outside_the_image_are_named(tmp_path):
    write(tmp_path / "test", {"1.png": (np.zeros((40, 30)), [(1, 50, 5, 10, 20)])})
    with pytest.raises(ValueError, match=r"1\.png: the digits lie outside the image"):
        HouseNumbers(tmp_path, ["test"])[0]


def test_other_sizes_are_named(root):
    with pytest.raises(ValueError, match="size should be 64 or 128, not 32"):
        HouseNumbers(root, ["test"], size=32)


def test_a_missing_h5py_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match="house numbers need h5py: pip install h5py"):
        HouseNumbers(root, ["test"])


@pytest.mark.parametrize("number", [[], [1, 2, 3, 4, 5, 6], [10], [-1]])
def test_other_house_numbers_have_no_targets(number):
    with pytest.raises(ValueError, match="a house number should be 1 to 5 digits of 0 to 9"):
        as_targets([number])
