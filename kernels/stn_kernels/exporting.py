"""What ONNX gets to see: PyTorch's own operators, of which the sampler becomes ONNX's GridSample.

Nothing is looked at, kept or chosen by value, since an exporter traces without values.
"""

import torch
from torch import Tensor

from . import reference
from .aten import MODES, PADDING_MODES, unstacked
from .autograd import Choices, Tensors, sample_reference


def sample(tensors: Tensors, choices: Choices) -> Tensor:
    """The reference's coordinates and PyTorch's sampler; the reference throughout where that sampler has no
    such mode or padding."""
    input, parameters, shared, _ = tensors
    input_size, axes = tuple(input.shape[2:]), input.ndim - 2
    extents = reference.half_extents(input_size, choices.align_corners)
    known = choices.mode in MODES and choices.padding_mode in PADDING_MODES and not choices.antialias
    if not known or 0 in extents or (choices.mode == "bicubic" and axes == 3):
        return sample_reference(tensors, choices)
    to_offsets = reference.lookup(reference.COORDINATE_MAPS, choices.coordinate_map, "coordinate map")
    offsets = to_offsets(parameters, shared, input_size, choices.size, choices.align_corners)
    grid = (offsets / offsets.new_tensor(extents)).to(input.dtype)
    # The transforms of an image are stacked, as on the CPU.
    stacked = grid.reshape(input.shape[0], -1, *choices.size[1:], axes)
    mode, padding = MODES[choices.mode], PADDING_MODES[choices.padding_mode]
    return unstacked(
        torch.grid_sampler(input, stacked, mode, padding, choices.align_corners), tensors, choices
    )
