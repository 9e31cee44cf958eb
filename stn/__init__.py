"""Spatial transformers: the model side of the book, built on `stn_kernels`."""

from stn import data, networks, plotting, thin_plate_spline, training
from stn.localisation import ConvolutionalLocalisation, FullyConnectedLocalisation, Localisation
from stn.spatial_transformer import SpatialTransformer
from stn.spline_transforms import ThinPlateSpline
from stn.transforms import Affine, Attention, Transform

__all__ = [
    "Affine",
    "Attention",
    "ConvolutionalLocalisation",
    "FullyConnectedLocalisation",
    "Localisation",
    "SpatialTransformer",
    "ThinPlateSpline",
    "Transform",
    "data",
    "networks",
    "plotting",
    "thin_plate_spline",
    "training",
]
