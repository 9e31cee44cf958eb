"""Which digits an experiment trains on: whole MNIST where it is, else those that come with the project."""

import argparse
import os
from functools import lru_cache

from stn import data

NAMES = ("MNIST", "embedded digits")  # as results say


@lru_cache(maxsize=1)
def load(name: str) -> data.Mnist:
    """The digits by the name that a result has for them, one of `NAMES`."""
    if name == NAMES[0]:
        return data.mnist()
    return data.Mnist(*data.digits("train"), *data.digits("test"))


def chosen() -> str:
    """The name of those that STN_DATA chooses; argparse.ArgumentTypeError if they cannot be read."""
    name = NAMES[0] if os.environ.get("STN_DATA") else NAMES[1]
    try:
        load(name)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"STN_DATA: {error}") from error
    return name
