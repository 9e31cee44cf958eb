"""Footprints: what of the image an output pixel stands for, and the samples of which `antialias=True` takes
the mean. The definition, in differentiable plain PyTorch; `footprints.py` is its twin in the kernels.

The coordinate map T sends output pixel p to a place T(p) in the image, and the pixel's unit square to a
footprint, to first order the parallelogram (in 3-D the parallelepiped) of the places

    T(p) + J d,    d in [-1/2, 1/2] along each axis of the output,

with J's columns, how the place changes from one pixel to the next along each axis of the output:

    J_j = T(p + e_j / 2) - T(p - e_j / 2)    for maps that are formulas of a position (BETWEEN_PIXELS),
    J_j = (T(p + e_j) - T(p - e_j)) / 2      for any other, one-sided at the border of the output.

The output is the mean of n_x n_y (n_z) samples of the chosen kernel, with equal weights, at

    d_j = (i + 1/2) / n_j - 1/2,  i = 0 ... n_j - 1,    n_j = |J_j| rounded up, from 1 to MOST_SAMPLES:

neighbouring samples lie at most a pixel of the image apart. Where the map magnifies n is 1, d is 0, and this
is plain sampling. n is a constant to derivatives; they are exact for the mean of these n samples.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

MOST_SAMPLES = 16  # along each axis of the output
# A map that shrinks by a whole number n, up to rounding, takes n samples: so much longer a column may be.
TOLERANCE = 1 / 64  # pixels
LARGEST = 1e6  # pixels, whose square is far from overflow; a longer column is as good as this


class Footprints(NamedTuple):
    """Of the pixels of M transforms. Offsets are pixels of the input, x before y before z."""

    places: Tensor  # T(p), relative to the centre of the input: (M, *size, axes)
    columns: Tensor  # J, column j at [..., j]: (M, *size, axes, axes); zero where one sample is taken
    counts: Tensor  # n, whole numbers without a gradient: (M, *size, axes)


def neighbour_differences(places: Tensor) -> Tensor:
    """J (M, *size, axes, axes) of a map that is known at the output's pixels only, by its places
    (M, *size, axes). Along an axis of one pixel it is zero."""
    columns = []
    for dimension in reversed(range(1, places.ndim - 1)):  # x first
        index = torch.arange(places.shape[dimension], device=places.device)
        ahead, behind = (index + 1).clamp(max=len(index) - 1), (index - 1).clamp(min=0)
        steps = (ahead - behind).clamp(min=1).view(-1, *[1] * (places.ndim - 1 - dimension))
        difference = places.index_select(dimension, ahead) - places.index_select(dimension, behind)
        columns.append(difference / steps)
    return torch.stack(columns, -1)


def make_footprints(places: Tensor, columns: Tensor) -> Footprints:
    """From T(p) and J. Where either is not finite one sample is taken, at T(p)."""
    seen = columns.detach().clamp(-LARGEST, LARGEST)
    counts = (seen.square().sum(-2).sqrt() - TOLERANCE).ceil().clamp(1, MOST_SAMPLES)
    finite = columns.detach().isfinite().all(-2) & places.detach().isfinite().all(-1, keepdim=True)
    counts = torch.where(finite, counts, 1)
    return Footprints(places, torch.where(counts[..., None, :] > 1, columns, 0), counts)


def hides_values(tensor: Tensor) -> bool:
    """Whether a number of this tensor cannot be read: it stands for several of them, or for none yet."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            return True
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0 or tensor.is_meta


def most_samples(footprints: Footprints) -> int:
    """How many samples suffice for every pixel."""
    counts = footprints.counts
    if not counts.numel():
        return 1
    if hides_values(counts):
        return MOST_SAMPLES ** counts.shape[-1]
    return int(counts.detach().prod(-1).max())


def nth_sample(footprints: Footprints, sample: int | Tensor) -> tuple[Tensor, Tensor]:
    """A sample of all pixels: its offsets (M, *size, axes), and its weight in the mean (M, *size), zero where
    a pixel has no such sample: it is then its first one again. Several samples, a tensor (S, 1, ..., 1) with
    as many dimensions more than `size`, come with a first dimension S."""
    places, columns, counts = footprints
    total = counts.prod(-1)
    exists = sample < total
    rest = torch.where(exists, sample, 0).to(total.dtype)
    inner = []
    for count in counts.unbind(-1):  # x fastest
        row = (rest / count).floor()
        inner.append((rest - row * count + 0.5) / count - 0.5)
        rest = row
    offsets = places + (columns * torch.stack(inner, -1)[..., None, :]).sum(-1)
    return offsets, torch.where(exists, 1 / total, 0)


def samples(footprints: Footprints) -> Iterator[tuple[Tensor, Tensor]]:
    """The samples of all pixels, one after another, as `nth_sample` returns them."""
    for sample in range(most_samples(footprints)):
        yield nth_sample(footprints, sample)
