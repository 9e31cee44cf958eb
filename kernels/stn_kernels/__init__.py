"""Fused kernels for spatial transformers: differentiable image sampling for PyTorch, written in Triton."""

from . import (
    ops,  # noqa: F401, registers the operators
    reference,
)
from .functional import (
    affine_sample,
    basis_sample,
    displacement_sample,
    grid_sample,
    projective_sample,
    sample,
    tps_sample,
)
from .registry import register_coordinate_map, register_sampling_kernel
from .splatting import splat

__all__ = [
    "affine_sample",
    "basis_sample",
    "displacement_sample",
    "grid_sample",
    "projective_sample",
    "reference",
    "register_coordinate_map",
    "register_sampling_kernel",
    "sample",
    "splat",
    "tps_sample",
]
__version__ = "0.1.0"
