"""Run the chapters under nbval in the surroundings that build.py executed them in."""

import importlib.util
import os

from build import hide_the_machine

hide_the_machine(os.environ)

# Chapter 07 writes Triton kernels, and Triton has no official build for macOS and Windows.
collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["07_*.ipynb", "solutions/07_*.ipynb"]
