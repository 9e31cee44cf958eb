"""Small data sets in the formats of the published archives."""

from pathlib import Path

import numpy as np
from PIL import Image

FIELDS = ("label", "left", "top", "width", "height")


def write_house_numbers(folder: Path, images):
    """A folder of SVHN as it is unpacked, from {name: (grey levels, digits)}, each digit with its `FIELDS`.

    One digit has its fields as numbers, several have references to numbers.
    """
    import h5py

    folder.mkdir(parents=True)
    with h5py.File(folder / "digitStruct.mat", "w", userblock_size=512) as file:
        kept, lists = file.create_group("#refs#"), {"name": [], "bbox": []}

        def keep(content):
            return kept.create_dataset(str(len(kept)), data=content).ref

        def references(group, name, some):
            column = np.array(some, dtype=h5py.ref_dtype)[:, None]
            group.create_dataset(name, data=column, dtype=h5py.ref_dtype)

        for name, (grey, digits) in images.items():
            Image.fromarray(grey.astype(np.uint8)).save(folder / name)
            lists["name"].append(keep(np.array([[ord(letter)] for letter in name], dtype=np.uint16)))
            group = kept.create_group(str(len(kept)))
            lists["bbox"].append(group.ref)
            for field, values in zip(FIELDS, zip(*digits, strict=True), strict=False):
                if len(values) == 1:
                    group.create_dataset(field, data=np.array([values], dtype=float))
                else:
                    references(group, field, [keep(np.array([[float(value)]])) for value in values])
        group = file.create_group("digitStruct")
        for name, some in lists.items():
            references(group, name, some)


def write_birds(root: Path, images):
    """CUB_200_2011 as it is unpacked, from {path: (grey levels, species from 1, whether to train on it)}."""
    for path, (grey, _, _) in images.items():
        (root / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey.astype(np.uint8)).save(root / "images" / path, quality=95)
    lists = {
        "images.txt": images,
        "image_class_labels.txt": [species for _, species, _ in images.values()],
        "train_test_split.txt": [int(train) for _, _, train in images.values()],
    }
    for name, values in lists.items():
        lines = [f"{number} {value}\n" for number, value in enumerate(values, 1)]
        (root / name).write_text("".join(lines), encoding="utf-8")
