"""Digits, the paper's distortions of them, and lines of text."""

from stn.data.distortions import Pose, rotated, rotated_translated_scaled
from stn.data.sources import Mnist, digits, mnist
from stn.data.text import curved_text

__all__ = ["Mnist", "Pose", "curved_text", "digits", "mnist", "rotated", "rotated_translated_scaled"]
