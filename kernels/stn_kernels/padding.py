"""Padding: what a coordinate outside the image means.

Each function takes an offset from the image's centre and returns the offset to sample at, and the slope that
the coordinate's gradient is multiplied with. Taps that still fall outside the image count as zero.

NaN passes through: minimum and maximum are written with comparisons because a GPU's own drop it.
"""

import triton
import triton.language as tl


@triton.jit
def clamp(value, limit):
    """To [-limit, limit], NaN to NaN."""
    return tl.where(value > limit, limit, tl.where(value < -limit, -limit, value))


@triton.jit
def zeros(offset, half_extent, centre):
    """Zero outside. Two pixels out every tap is zero: the offset stops there and stays a safe index."""
    return clamp(offset, centre + 2.0), 1.0


@triton.jit
def border(offset, half_extent, centre):
    """The nearest border pixel; no gradient from its centre on outwards, as in PyTorch."""
    return clamp(offset, centre), tl.where(tl.abs(offset) < centre, 1.0, 0.0)


@triton.jit
def reflection(offset, half_extent, centre):
    """Mirrored at -half_extent and half_extent as often as needed, then as `border`. Infinity becomes NaN."""
    span = 2.0 * half_extent
    left = offset < -half_extent
    distance = tl.where(left, -half_extent - offset, offset + half_extent)
    turns = tl.floor(distance / tl.where(span == 0.0, 1.0, span))
    rest = distance - turns * span
    odd = turns - 2.0 * tl.floor(turns * 0.5) == 1.0
    mirrored = tl.where(odd, half_extent - rest, rest - half_extent)
    mirrored = tl.where(span == 0.0, offset * 0.0, mirrored)  # one pixel, align_corners=True
    clamped, slope = border(mirrored, half_extent, centre)
    return clamped, tl.where(left != odd, -slope, slope)
