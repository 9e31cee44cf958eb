"""Fused kernels for spatial transformers: differentiable image sampling for PyTorch, written in Triton."""

from . import reference
from .functional import affine_sample, grid_sample

__all__ = ["affine_sample", "grid_sample", "reference"]
__version__ = "0.1.0"
