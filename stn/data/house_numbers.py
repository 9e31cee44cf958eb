"""SVHN, house numbers in photographs (format 1), from its unpacked archives. The data are not part of this
project.

    train/1.png                1.png to 33402.png; test and extra likewise
    train/digitStruct.mat      MATLAB 7.3, which is HDF5: for each image its name and its digits' boxes

Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu, A. Y. Ng. Reading Digits in Natural Images with
Unsupervised Feature Learning. 2011.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

# How many times the digits' extent a crop has, by its size: 30 % more, and twice that.
EXTENTS = {64: 1.3, 128: 2.6}
SIZES = tuple(EXTENTS)
PLACES = 5
NONE = 10  # the class of a place without a digit
FIELDS = ("label", "left", "top", "width", "height")
Box = tuple[float, float, float, float]  # left, top, right, bottom


class HouseNumbers(Dataset[tuple[Tensor, Tensor]]):
    """Images (3, size, size) in [0, 1], and targets (5,): the digits from the left, `NONE` behind.

    For 64 pixels the box around all digits' boxes is made 30 % wider and higher about its centre, as by
    Goodfellow et al. (2013), and scaled to a square. For 128 it is twice as wide and high as that: the paper
    only says that these crops are looser. What would lie outside the image is cut off before. Numbers of more
    than five digits, of which there is one, are left out.

    Args:
        root: the folder of the folders.
        folders: of "train", "test" and "extra".
        size: 64 or 128 pixels.

    Raises:
        ImportError: h5py is not installed.
        FileNotFoundError: a list, or an image that it names, is missing.
        ValueError: a list is damaged, or has a number that does not read as it should.
    """

    def __init__(self, root: str | os.PathLike[str], folders: Sequence[str], *, size: int = 64) -> None:
        if size not in SIZES:
            raise ValueError(f"size should be 64 or 128, not {size}")
        self.size = size
        self.paths: list[Path] = []
        self.boxes: list[Box] = []
        numbers = []
        for folder in folders:
            path = Path(root) / folder / "digitStruct.mat"
            found = _read(path)
            there = {image.name for image in path.parent.iterdir()}
            for name, fields in found:
                try:
                    number, box = _digits(fields), _around(fields)
                except ValueError as error:
                    raise ValueError(f"{path}: {name} {error}") from None
                if name not in there:
                    raise FileNotFoundError(f"{path} names {name}, which is missing")
                if len(number) <= PLACES:
                    self.paths.append(path.with_name(name))
                    self.boxes.append(box)
                    numbers.append(number)
        self.targets = as_targets(numbers)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        from PIL import Image

        with Image.open(self.paths[index]) as file:
            box = crop(self.boxes[index], self.size, file.size)
            if box[0] >= box[2] or box[1] >= box[3]:
                raise ValueError(f"{self.paths[index]}: the digits lie outside the image")
            scaled = file.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR, box)
        return torch.from_numpy(np.array(scaled)).movedim(2, 0).float() / 255, self.targets[index]


def crop(box: Box, size: int, image: tuple[int, int]) -> Box:
    """What is seen of an image, whose width and height are given, around the box of its digits."""
    left, top, right, bottom = box
    x, y = (left + right) / 2, (top + bottom) / 2
    across, down = EXTENTS[size] / 2 * (right - left), EXTENTS[size] / 2 * (bottom - top)
    width, height = image
    return max(0.0, x - across), max(0.0, y - down), min(width, x + across), min(height, y + down)


def as_targets(numbers: Sequence[Sequence[int]]) -> Tensor:
    """House numbers, each a list of 1 to 5 digits, to targets (N, 5), int64, filled with `NONE`.

    Raises:
        ValueError: a number with no digit, with more than five, or with something else than 0 to 9.
    """
    rows = []
    for number in numbers:
        if not 1 <= len(number) <= PLACES or not all(0 <= digit <= 9 for digit in number):
            raise ValueError(f"a house number should be 1 to 5 digits of 0 to 9, not {list(number)}")
        rows.append([*number, *[NONE] * (PLACES - len(number))])
    return torch.tensor(rows, dtype=torch.int64).view(-1, PLACES)


def _read(path: Path) -> list[tuple[str, dict[str, list[float]]]]:
    """A list's images and the fields of their digits."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError("house numbers need h5py: pip install h5py") from error
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")

    # h5py's lower interface takes half the time, which is minutes.
    def content(dataset: Any) -> np.ndarray:
        array = np.empty(dataset.shape, dataset.dtype)
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
        return array.ravel()

    def values(group: Any, field: str) -> list[float]:
        """One number, or references to as many as there are digits."""
        array = content(h5py.h5o.open(group, field.encode()))
        if array.dtype != h5py.ref_dtype:
            return array.tolist()
        return [content(h5py.h5r.dereference(reference, file.id)).item() for reference in array]

    try:
        with h5py.File(path) as file:
            names, boxes = (content(file["digitStruct"][field].id) for field in ("name", "bbox"))
            found = []
            for name, box in zip(names, boxes, strict=True):
                text = "".join(map(chr, content(h5py.h5r.dereference(name, file.id))))
                group = h5py.h5r.dereference(box, file.id)
                present = [field for field in FIELDS if field.encode() in group]
                found.append((text, {field: values(group, field) for field in present}))
            return found
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _digits(fields: dict[str, list[float]]) -> list[int]:
    labels = fields.get("label", [])
    if not labels:
        raise ValueError("has no labels")
    if not all(label in range(11) for label in labels):
        raise ValueError(f"has the labels {labels}, not of 1 to 10")
    return [int(label) % 10 for label in labels]  # 10 is the digit 0


def _around(fields: dict[str, list[float]]) -> Box:
    """The box of all digits' boxes."""
    count = len(fields["label"])
    if any(len(fields.get(field, [])) != count for field in FIELDS):
        raise ValueError(f"should have {', '.join(FIELDS[1:])} of each of its {count} digits")
    left, top, width, height = (np.array(fields[field]) for field in FIELDS[1:])
    if not (np.isfinite([left, top]).all() and (width > 0).all() and (height > 0).all()):
        raise ValueError("has a box without extent")
    return float(left.min()), float(top.min()), float((left + width).max()), float((top + height).max())
