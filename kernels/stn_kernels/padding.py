"""Padding: what a coordinate outside the image means.

Kernels of one or two taps sample at a padded coordinate, `pad_coordinate`; with more, each tap is padded,
`pad_tap`. PADDING is "zeros", "border", "reflection" or "constant", which pads as "border" does and has the
templates put the fill wherever `outside` holds.

Where a coordinate is NaN, the padded one is anything: `tl.minimum` and `tl.maximum` are one instruction each
where comparisons that keep NaN are two. `undefined` tells.
"""

import triton
import triton.language as tl


@triton.jit
def clamp(value, limit):
    """To [-limit, limit]; NaN to anything."""
    return tl.minimum(tl.maximum(value, -limit), limit)


@triton.jit
def mirror(offset, half_extent):
    """Mirrored at -half_extent and half_extent as often as needed, and the slope of that: 1 or -1. Infinity
    becomes NaN."""
    span = 2.0 * half_extent
    left = offset < -half_extent
    distance = tl.where(left, -half_extent - offset, offset + half_extent)
    turns = tl.floor(distance / tl.where(span == 0.0, 1.0, span))
    rest = distance - turns * span
    odd = turns - 2.0 * tl.floor(turns * 0.5) == 1.0
    mirrored = tl.where(odd, half_extent - rest, rest - half_extent)
    mirrored = tl.where(span == 0.0, offset * 0.0, mirrored)  # one pixel, align_corners=True
    return mirrored, tl.where(left != odd, -1.0, 1.0)


@triton.jit
def pad_coordinate(offset, half_extent, centre, PADDING: tl.constexpr, TAPS: tl.constexpr):
    """From an offset relative to the image's centre to the one to sample at, the slope that the coordinate's
    gradient is multiplied with, and whether the coordinate is undefined: NaN, or infinity mirrored."""
    slope = 1.0
    if PADDING == "reflection":
        offset, slope = mirror(offset, half_extent)
    undefined = offset != offset
    if PADDING == "zeros":
        # From there on every tap is zero: the offset stops, and stays a safe index.
        padded = clamp(offset, centre + (TAPS // 2 + 1))
    elif TAPS > 2:
        # From there on every tap is the same border pixel.
        limit = centre + (TAPS // 2 + 1)
        padded = clamp(offset, limit)
        slope = tl.where(tl.abs(offset) <= limit, slope, 0.0)
    else:
        # No gradient from the border pixel's centre on outwards, as in PyTorch.
        padded = clamp(offset, centre)
        slope = tl.where(tl.abs(offset) < centre, slope, 0.0)
    return padded, slope, undefined


@triton.jit
def pad_tap(index, size, PADDING: tl.constexpr, TAPS: tl.constexpr, ALIGN_CORNERS: tl.constexpr):
    """The pixel that stands for a tap, and whether there is one."""
    if TAPS > 2 and PADDING != "zeros":
        if PADDING == "reflection":
            # Taps lie fewer than TAPS pixels outside, and Triton's remainder takes the sign of its dividend.
            if ALIGN_CORNERS:
                period = tl.maximum(2 * size - 2, 1)
                index = (index + TAPS * period) % period
                index = tl.minimum(index, period - index)
            else:
                period = 2 * size
                index = (index + TAPS * period) % period
                index = tl.minimum(index, period - 1 - index)
        index = tl.minimum(tl.maximum(index, 0), size - 1)
        valid = index >= 0
    else:
        valid = (index >= 0) & (index < size)
    return index, valid


@triton.jit
def is_outside(offset, half_extent, PADDING: tl.constexpr):
    """Whether a sample at this offset takes the fill. NaN does not."""
    if PADDING == "constant":
        outside = tl.abs(offset) > half_extent
    else:
        outside = offset != offset
        outside = outside & False
    return outside
