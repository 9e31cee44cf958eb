"""Spatial transformers: the model side of the book, built on `stn_kernels`."""

from stn import data, networks, plotting, training
from stn.localisation import ConvolutionalLocalisation, FullyConnectedLocalisation, Localisation
from stn.spatial_transformer import SpatialTransformer
from stn.transforms import Affine, Attention, Transform

__all__ = [
    "Affine",
    "Attention",
    "ConvolutionalLocalisation",
    "FullyConnectedLocalisation",
    "Localisation",
    "SpatialTransformer",
    "Transform",
    "data",
    "networks",
    "plotting",
    "training",
]
