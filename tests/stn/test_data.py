"""The embedded digits are MNIST's, and no damaged file of MNIST is ever read."""

import functools
import gzip
import hashlib
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from stn.data import digits, make_digits, mnist, sources


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A folder with four small idx files whose checksums `sources` expects; returns it and the arrays."""
    random = np.random.default_rng(0)
    arrays, files = {}, {}
    for key, file in sources.FILES.items():
        count = 5 if key.startswith("train") else 3
        shape = (count, 28, 28) if key.endswith("images") else (count,)
        arrays[key] = random.integers(0, 256 if len(shape) == 3 else 10, shape, dtype=np.uint8)
        content = idx(arrays[key])
        archive = gzip.compress(content, mtime=0)
        (tmp_path / f"{file.name}.gz").write_bytes(archive)
        digests = (hashlib.md5(data, usedforsecurity=False).hexdigest() for data in (content, archive))
        files[key] = sources.IdxFile(file.name, *digests)
    monkeypatch.setattr(sources, "FILES", files)
    monkeypatch.delenv("STN_DATA", raising=False)
    return tmp_path, arrays


@pytest.mark.parametrize(("split", "count"), [("train", 10_000), ("test", 2_000)])
def test_embedded_digits_are_images_in_the_unit_interval_with_labels(split, count):
    images, labels = digits(split)
    assert images.shape == (count, 1, 28, 28)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    assert labels.shape == (count,)
    assert labels.dtype == torch.int64
    assert labels.unique().tolist() == list(range(10))


def test_embedded_digits_stay_small():
    size = (resources.files("stn.data") / "digits.npz").stat().st_size
    assert size <= 2.5e6


def test_unknown_split_is_named():
    with pytest.raises(ValueError, match=r"split should be .* not 'valid'"):
        digits("valid")


@pytest.mark.skipif(
    not Path(os.environ.get("STN_DATA", "/nowhere")).is_dir(), reason="STN_DATA names no folder"
)
def test_the_committed_script_makes_the_embedded_digits_from_whole_mnist():
    remade = make_digits.subset(sources.read_mnist())
    with np.load(resources.files("stn.data") / "digits.npz") as stored:
        assert sorted(stored) == sorted(remade)
        for key, array in remade.items():
            np.testing.assert_array_equal(array, stored[key])


def test_class_counts_keep_the_shares_by_largest_remainder():
    labels = np.repeat([0, 1, 2], [50, 33, 17])
    np.testing.assert_array_equal(make_digits.class_counts(labels, 10), [5, 3, 2])
    assert make_digits.class_counts(labels, 7).sum() == 7


@pytest.mark.parametrize("place", ["argument", "environment", "sub-folder", "uncompressed"])
def test_mnist_is_read_from_a_folder(small_mnist, monkeypatch, place):
    folder, arrays = small_mnist
    root = folder
    if place == "environment":
        monkeypatch.setenv("STN_DATA", str(folder))
        root = None
    elif place == "sub-folder":
        root = folder / "data"
        (root / "mnist").mkdir(parents=True)
        for path in folder.glob("*.gz"):
            path.rename(root / "mnist" / path.name)
    elif place == "uncompressed":
        for path in folder.glob("*.gz"):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    whole = mnist(root)
    torch.testing.assert_close(whole.train_images[:, 0] * 255, torch.tensor(arrays["train_images"]).float())
    assert whole.test_labels.tolist() == arrays["test_labels"].tolist()


@pytest.mark.parametrize(
    "damage", ["archive cut", "content cut", "pixel changed", "header changed", "no archive"]
)
def test_damaged_file_is_refused_by_name(small_mnist, damage):
    folder, _ = small_mnist
    path = folder / "t10k-images-idx3-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    if damage == "archive cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "no archive":
        path.write_bytes(content)
    else:
        if damage == "content cut":
            del content[-1]
        else:
            content[-1 if damage == "pixel changed" else 2] ^= 1
        path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte"):
        mnist(folder)


def test_missing_file_is_named(small_mnist):
    folder, _ = small_mnist
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="lacks train-labels-idx1-ubyte"):
        mnist(folder)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    pooch = pytest.importorskip("pooch")
    cache = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda project: cache / project)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return cache / "spatial-transformers"


def test_download_is_kept_and_verified(small_mnist, empty_cache, monkeypatch):
    folder, arrays = small_mnist
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setattr(sources, "URL", f"http://127.0.0.1:{server.server_port}/")
        downloaded = mnist()
        server.shutdown()
    assert downloaded.train_labels.tolist() == arrays["train_labels"].tolist()
    assert mnist().test_labels.tolist() == arrays["test_labels"].tolist()  # the server is gone
    assert len(list(empty_cache.iterdir())) == 4


def test_without_a_network_the_error_says_which_files_to_put_where(small_mnist, empty_cache, monkeypatch):
    monkeypatch.setattr(sources, "URL", "http://127.0.0.1:9/")  # nothing listens on the discard port
    with pytest.raises(
        ConnectionError, match=r"train-images-idx3-ubyte.*t10k-labels-idx1-ubyte.*root.*STN_DATA"
    ):
        mnist()
