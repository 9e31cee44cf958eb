"""Sampling kernels k(t) of Eq. 3 and their derivatives: the weight of a pixel that lies t to the left.

t = a - m for a sample at pixel coordinate a and a pixel at m. The templates visit only the taps in the
kernel's support, which starts at floor(a) - TAPS / 2 + 1.
"""

import triton
import triton.language as tl


@triton.jit
def bilinear(t):
    """Eq. 5: max(0, 1 - |t|)."""
    return tl.maximum(1.0 - tl.abs(t), 0.0)


@triton.jit
def bilinear_derivative(t):
    """Eq. 7, but taken to the right of the kinks at -1, 0 and 1, where the printed one is no sub-gradient."""
    slope = tl.where(t < 0.0, 1.0, -1.0)
    return tl.where((t >= -1.0) & (t < 1.0), slope, 0.0)
