"""CUB-200-2011, 200 species of birds, from its unpacked archive. The data are not part of this project.

    CUB_200_2011/images.txt               1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
    CUB_200_2011/image_class_labels.txt   1 1
    CUB_200_2011/train_test_split.txt     1 0

C. Wah, S. Branson, P. Welinder, P. Perona, S. Belongie. The Caltech-UCSD Birds-200-2011 Dataset. 2011.
"""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset


class Birds(Dataset[tuple[Tensor, int]]):
    """Images (3, size, size) in [0, 1], and species, 0 to 199.

    The shorter side is scaled to 8 / 7 of `size`, 256 for 224, as the paper has it. In training a random
    square of `size` is cut out and mirrored in half of the cases; in testing the one in the middle.

    Args:
        root: the folder CUB_200_2011.
        train: the training or the test images.
        size: pixels.
        generator: draws squares and mirrorings; PyTorch's own if None.

    Raises:
        FileNotFoundError: a file of lists is missing.
        ValueError: a list has a line that does not read as it should, or lists differ in their images.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        train: bool,
        size: int = 224,
        generator: torch.Generator | None = None,
    ) -> None:
        self.root, self.train, self.size, self.generator = Path(root), train, size, generator
        paths = _read(self.root / "images.txt")
        species = _read(self.root / "image_class_labels.txt")
        split = _read(self.root / "train_test_split.txt")
        if not paths.keys() == species.keys() == split.keys():
            raise ValueError(f"the lists in {self.root} should be of the same images")
        for number, value in species.items():
            if not value.isdecimal() or int(value) < 1:
                raise ValueError(f"image_class_labels.txt: image {number} has the species {value!r}")
        for number, value in split.items():
            if value not in ("0", "1"):
                raise ValueError(f"train_test_split.txt: image {number} has {value!r}, neither 0 nor 1")
        wanted = "1" if train else "0"
        chosen = [number for number in paths if split[number] == wanted]
        self.paths = [paths[number] for number in chosen]
        self.species = [int(species[number]) - 1 for number in chosen]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.draw(index, self.generator)

    def draw(self, index: int, generator: torch.Generator | None) -> tuple[Tensor, int]:
        """An item, drawn by a generator of its own; safe in threads."""
        from PIL import Image

        with Image.open(self.root / "images" / self.paths[index]) as file:
            pixels = np.asarray(file.convert("RGB"))
        image = torch.from_numpy(pixels.copy()).movedim(2, 0).float() / 255
        wanted = self.size * 8 // 7
        height, width = image.shape[1:]
        scale = wanted / min(height, width)
        size = [max(wanted, round(extent * scale)) for extent in (height, width)]
        image = functional.interpolate(
            image[None], size, mode="bilinear", antialias=True, align_corners=False
        )[0]
        return self._cut(image, generator), self.species[index]

    def _cut(self, image: Tensor, generator: torch.Generator | None) -> Tensor:
        rooms = [extent - self.size for extent in image.shape[1:]]
        if self.train:
            top, left = (int(torch.randint(room + 1, (), generator=generator)) for room in rooms)
        else:
            top, left = (room // 2 for room in rooms)
        image = image[:, top : top + self.size, left : left + self.size]
        mirrored = self.train and bool(torch.randint(2, (), generator=generator))
        return image.flip(2) if mirrored else image


def _read(path: Path) -> dict[str, str]:
    """A list's lines, by the image's number."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        number, _, value = line.strip().partition(" ")
        if not number.isdecimal() or not value:
            raise ValueError(f"{path.name}: a line should be a number and a value, not {line!r}")
        found[number] = value
    return found
