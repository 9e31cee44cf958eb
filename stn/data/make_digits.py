"""Makes the embedded digits from the four idx files of MNIST: `python -m stn.data.make_digits ROOT`."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from stn.data.sources import read_mnist

SEED = 1506_02025  # the paper's number on arXiv
COUNTS = {"train": 10_000, "test": 2_000}


def class_counts(labels: np.ndarray, total: int) -> np.ndarray:
    """How many of each class to draw so that `total` keep the shares of `labels`, by largest remainder."""
    shares = total * np.bincount(labels) / len(labels)
    counts = np.floor(shares).astype(int)
    largest = np.argsort(counts - shares, kind="stable")[: total - counts.sum()]
    counts[largest] += 1
    return counts


def draw(labels: np.ndarray, total: int, random: np.random.RandomState) -> np.ndarray:
    """Indices of the drawn digits, in the order in which MNIST holds them."""
    chosen = [
        random.permutation(np.flatnonzero(labels == digit))[:count]
        for digit, count in enumerate(class_counts(labels, total))
    ]
    return np.sort(np.concatenate(chosen))


def subset(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The embedded arrays, from whole MNIST as `read_mnist` returns it."""
    random = np.random.RandomState(SEED)  # its stream is frozen for good; default_rng's may change with NumPy
    chosen = {}
    for split, total in COUNTS.items():
        indices = draw(arrays[f"{split}_labels"], total, random)
        chosen[f"{split}_images"] = arrays[f"{split}_images"][indices]
        chosen[f"{split}_labels"] = arrays[f"{split}_labels"][indices]
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description="Write digits.npz beside this file.")
    parser.add_argument("root", help="folder with the four idx files of MNIST, plain or gzipped")
    arrays = subset(read_mnist(parser.parse_args().root))
    np.savez_compressed(Path(__file__).with_name("digits.npz"), **arrays)


if __name__ == "__main__":
    main()
