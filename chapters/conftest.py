"""Run the chapters under nbval in the surroundings that build.py executed them in."""

import importlib.util
import os

from build import hide_the_machine

hide_the_machine(os.environ)


def pytest_collectstart(collector):
    """Without Triton, do not compare the sentences of stn/without_triton.py, which are the only Markdown."""
    if hasattr(collector, "skip_compare") and importlib.util.find_spec("triton") is None:
        collector.skip_compare += ("text/markdown",)
