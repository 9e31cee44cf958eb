"""The digits: the embedded subset, and the whole of MNIST from a folder or from the network."""

import gzip
import hashlib
import math
import os
import zlib
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"


class IdxFile(NamedTuple):
    """One published file: its name, and the md5 of its content and of the archive that the network serves."""

    name: str
    md5: str
    archive_md5: str


FILES = {
    "train_images": IdxFile(
        "train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"
    ),
    "train_labels": IdxFile(
        "train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"
    ),
    "test_images": IdxFile(
        "t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"
    ),
    "test_labels": IdxFile(
        "t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"
    ),
}


class Mnist(NamedTuple):
    """Whole MNIST, 60,000 and 10,000: images (N, 1, 28, 28) float32 in [0, 1], labels (N,) int64."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def digits(split: str = "train") -> tuple[Tensor, Tensor]:
    """The embedded digits: 10,000 of MNIST's training set (`"train"`) or 2,000 of its test set (`"test"`).

    Returns images (N, 1, 28, 28) float32 in [0, 1], white on black, and labels (N,) int64. Class shares are
    those of the whole set. Licence and credit: `stn/data/LICENSE.md`. First met in chapter 01.
    """
    if split not in ("train", "test"):
        raise ValueError(f'split should be "train" or "test", not {split!r}')
    file = resources.files("stn.data") / "digits.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return _images(arrays[f"{split}_images"]), _labels(arrays[f"{split}_labels"])


def mnist(root: str | os.PathLike[str] | None = None) -> Mnist:
    """Whole MNIST, from the folder `root`, else from the folder in `STN_DATA`, else downloaded once (12 MB).

    A folder holds the four idx files, plain or gzipped, directly or in its sub-folder `mnist`. Every checksum
    is verified. Raises FileNotFoundError for a missing file, ValueError for a truncated or altered one, and
    ConnectionError, which says where to put which files, when the download fails.
    """
    arrays = read_mnist(root)
    return Mnist(
        _images(arrays["train_images"]),
        _labels(arrays["train_labels"]),
        _images(arrays["test_images"]),
        _labels(arrays["test_labels"]),
    )


def read_mnist(root: str | os.PathLike[str] | None = None) -> dict[str, np.ndarray]:
    """MNIST's four arrays as stored, uint8, keyed as `FILES` is; arguments and errors as in `mnist`."""
    root = root or os.environ.get("STN_DATA")
    paths = _find(Path(root)) if root else _download()
    return {key: _verified(paths[key], file) for key, file in FILES.items()}


def _images(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).unsqueeze(1).to(torch.float32).div_(255)


def _labels(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).to(torch.int64)


def _find(root: Path) -> dict[str, Path]:
    paths = {}
    for key, file in FILES.items():
        candidates = [
            folder / (file.name + suffix) for folder in (root, root / "mnist") for suffix in ("", ".gz")
        ]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            raise FileNotFoundError(f"root {str(root)!r} lacks {file.name}; it should hold {_wanted()}")
        paths[key] = found
    return paths


def _download() -> dict[str, Path]:
    import pooch  # only a download needs it

    archives = {key: file.name + ".gz" for key, file in FILES.items()}
    registry = {file.name + ".gz": "md5:" + file.archive_md5 for file in FILES.values()}
    cache = pooch.create(path=pooch.os_cache("spatial-transformers"), base_url=URL, registry=registry)
    try:
        return {key: Path(cache.fetch(name, progressbar=True)) for key, name in archives.items()}
    except OSError as error:
        raise ConnectionError(
            f"MNIST could not be downloaded from {URL} ({error}). Put {_wanted()} into one folder and pass "
            "it as root, or name it in the environment variable STN_DATA"
        ) from error


def _wanted() -> str:
    return ", ".join(file.name for file in FILES.values()) + " (plain or .gz)"


def _verified(path: Path, file: IdxFile) -> np.ndarray:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or altered: {error}") from error
    array = parse_idx(content, str(path))
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 != file.md5:
        raise ValueError(f"{path} is altered: its content's md5 should be {file.md5}, not {md5}")
    return array


def parse_idx(content: bytes, name: str) -> np.ndarray:
    """The uint8 array in an idx file's content; ValueError naming `name` unless header and length agree."""
    # Two zero bytes, the element type (8: unsigned byte), the rank; then each extent, big-endian.
    if content[:3] != b"\x00\x00\x08":
        raise ValueError(
            f"{name} should start with 00 00 08, an idx file of bytes, not {content[:3].hex(' ')!r}"
        )
    header = 4 + 4 * content[3]
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    if len(content) != header + math.prod(shape):
        expected = header + math.prod(shape)
        raise ValueError(
            f"{name} is truncated or altered: it should hold {expected} bytes, not {len(content)}"
        )
    # A copy, because torch refuses to share read-only memory without a warning.
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
