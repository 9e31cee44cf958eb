"""Digits, the paper's distortions of them, scenes of several, and lines of text."""

from stn.data.distortions import Pose, rotated, rotated_translated_scaled
from stn.data.scenes import side_by_side, translated_cluttered
from stn.data.sources import Mnist, digits, mnist
from stn.data.text import curved_text
from stn.data.volumes import Pose3d, extruded, rotation_about_axes
from stn.data.warped import elastic, projected

__all__ = [
    "Mnist",
    "Pose",
    "Pose3d",
    "curved_text",
    "digits",
    "elastic",
    "extruded",
    "mnist",
    "projected",
    "rotated",
    "rotated_translated_scaled",
    "rotation_about_axes",
    "side_by_side",
    "translated_cluttered",
]
