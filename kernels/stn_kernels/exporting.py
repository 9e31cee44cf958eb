"""What ONNX gets to see: PyTorch's own operators, of which the sampler becomes ONNX's GridSample.

Nothing is looked at, kept or chosen by value, since an exporter traces without values.
"""

import torch
from torch import Tensor

from . import antialiasing, reference
from .aten import MODES, PADDING_MODES, unstacked
from .autograd import Choices, Tensors, sample_reference


def sample(tensors: Tensors, choices: Choices) -> Tensor:
    """The reference's coordinates and PyTorch's sampler; the reference throughout where that sampler has no
    such mode or padding."""
    input, parameters, shared, _ = tensors
    input_size, axes = tuple(input.shape[2:]), input.ndim - 2
    extents = reference.half_extents(input_size, choices.align_corners)
    known = choices.mode in MODES and choices.padding_mode in PADDING_MODES
    if not known or 0 in extents or (choices.mode == "bicubic" and axes == 3):
        return sample_reference(tensors, choices)
    if choices.antialias:
        return sample_footprints(tensors, choices)
    to_offsets = reference.lookup(reference.COORDINATE_MAPS, choices.coordinate_map, "coordinate map")
    offsets = to_offsets(parameters, shared, input_size, choices.size, choices.align_corners)
    grid = (offsets / offsets.new_tensor(extents)).to(input.dtype)
    # The transforms of an image are stacked, as on the CPU.
    stacked = grid.reshape(input.shape[0], -1, *choices.size[1:], axes)
    mode, padding = MODES[choices.mode], PADDING_MODES[choices.padding_mode]
    return unstacked(
        torch.grid_sampler(input, stacked, mode, padding, choices.align_corners), tensors, choices
    )


def sample_footprints(tensors: Tensors, choices: Choices) -> Tensor:
    """Antialiased sampling. How many samples a pixel takes is not known when the graph is made, so it has all
    that there could be, side by side in one GridSample of so many images' height; those that a pixel does not
    take have weight 0."""
    input, parameters, shared, _ = tensors
    input_size, size = tuple(input.shape[2:]), choices.size
    extents = reference.half_extents(input_size, choices.align_corners)
    footprints = reference.footprints(
        parameters, shared, choices.coordinate_map, input_size, size, choices.align_corners
    )
    count = antialiasing.MOST_SAMPLES ** len(size)
    every = torch.arange(count, device=input.device).view(-1, *[1] * (1 + len(size)))
    offsets, weights = antialiasing.nth_sample(footprints, every)
    offsets, weights = offsets.movedim(0, 1), weights.movedim(0, 1)  # (M, S, *size)
    grid = (offsets / offsets.new_tensor(extents)).to(input.dtype)
    stacked = grid.reshape(input.shape[0], -1, *size[1:], len(size))
    mode, padding = MODES[choices.mode], PADDING_MODES[choices.padding_mode]
    seen = torch.grid_sampler(input, stacked, mode, padding, choices.align_corners)  # (N, C, T x S x H', W')
    seen = seen.unflatten(2, (-1, count, size[0])).transpose(1, 2).flatten(0, 1)  # (M, C, S, H', W')
    return (seen * weights[:, None].to(seen.dtype)).sum(2)
