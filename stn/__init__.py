"""Spatial transformers: the model side of the book, built on `stn_kernels`."""

import importlib.util
import sys

if importlib.util.find_spec("torch") is None:
    missing = "stn needs PyTorch, which is not installed: pip install torch"
    if sys.argv[0] == "-m":  # python -m stn: a line instead of a traceback
        sys.exit(missing)
    raise ModuleNotFoundError(missing, name="torch")

from stn import colocalisation, data, displacement_fields, networks, plotting, thin_plate_spline, training
from stn.coarse_to_fine import blur, sample_coarse_to_fine
from stn.localisation import (
    ConvolutionalLocalisation,
    FullyConnectedLocalisation,
    Localisation,
    parameter_groups,
)
from stn.spatial_transformer import InverseCompositional, SpatialTransformer
from stn.spline_transforms import ThinPlateSpline
from stn.transforms import (
    Affine,
    Affine3d,
    Attention,
    FourCorners,
    MatrixTransform,
    Projective,
    Similarity,
    Transform,
    Translation,
    homography,
)
from stn.warps import Basis, Displacement, PiecewiseAffine, hat_functions

__all__ = [
    "Affine",
    "Affine3d",
    "Attention",
    "Basis",
    "ConvolutionalLocalisation",
    "Displacement",
    "FourCorners",
    "FullyConnectedLocalisation",
    "InverseCompositional",
    "Localisation",
    "MatrixTransform",
    "PiecewiseAffine",
    "Projective",
    "Similarity",
    "SpatialTransformer",
    "ThinPlateSpline",
    "Transform",
    "Translation",
    "blur",
    "colocalisation",
    "data",
    "displacement_fields",
    "hat_functions",
    "homography",
    "networks",
    "parameter_groups",
    "plotting",
    "sample_coarse_to_fine",
    "thin_plate_spline",
    "training",
]
