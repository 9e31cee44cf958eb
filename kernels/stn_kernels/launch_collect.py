"""The launch that brings footprints' gradients to parameters that belong to pixels; see `collect.py`."""

from torch import Tensor

from .autograd import Choices, Tensors
from .collect import collect_kernel
from .launch import TRITON_DTYPES, Launch, block_shape, coordinate_map
from .layouts import for_all_transforms, index_dtype, padded_strides, per_transform, volume_size
from .reference import compute_dtype


def collect_launch(
    gradients: Tensor,
    tensors: Tensors,
    choices: Choices,
    grad_parameters: Tensor | None = None,
    grad_shared: Tensor | None = None,
) -> Launch:
    """For one of both: from gradients of footprints (M, axes (1 + axes), *size) to parameters, which are
    stored, or to what is shared, which is added to."""
    input, parameters, shared, _ = tensors
    map = coordinate_map(choices.coordinate_map)
    over_transforms = grad_shared is not None
    written = parameters if grad_parameters is None else grad_parameters
    blocks = block_shape(choices.size, 1, 0, backward=True)
    tiles, tiles_x = blocks.tiles(choices.size)
    transforms = parameters.shape[0]
    return Launch(
        collect_kernel,
        tiles * (1 if over_transforms else transforms),
        (
            per_transform(written),
            (written, (0, 0, 0, 0)) if grad_shared is None else (grad_shared, padded_strides(grad_shared)),
            per_transform(gradients),
            per_transform(parameters),
            for_all_transforms(shared, parameters),
            (volume_size(tuple(input.shape[2:])), volume_size(choices.size)),
            tiles,
            tiles_x,
            transforms if over_transforms else 1,
        ),
        {
            "COORDINATE_MAP_VJP": map.vjp,
            "SHARED_VJP": map.shared_vjp or map.vjp,
            "RUNS_OVER_TRANSFORMS": over_transforms,
            "ALIGN_CORNERS": choices.align_corners,
            "AXES": len(choices.size),
            "TILE_Y": blocks.tile_y,
            "TILE_X": blocks.tile_x,
            "INDEX": index_dtype(written, grad_shared, gradients, parameters, shared),
            "COMPUTE": TRITON_DTYPES[compute_dtype(input, parameters, shared)],
        },
    )
