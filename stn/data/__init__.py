"""Digits, and the paper's distortions of them."""

from stn.data.distortions import Pose, rotated, rotated_translated_scaled
from stn.data.sources import Mnist, digits, mnist

__all__ = ["Mnist", "Pose", "digits", "mnist", "rotated", "rotated_translated_scaled"]
