"""Sampling kernels k(t) of Eq. 3 and their derivatives: the weight of a pixel that lies t to the left.

t = a - m for a sample at pixel coordinate a and a pixel at m. The templates visit only the TAPS pixels in the
kernel's support. `middle_taps` says where that starts, or a function of its own does. Each kernel here has
its twin in `reference.py`.
"""

import triton
import triton.language as tl


@triton.jit
def middle_taps(position, TAPS: tl.constexpr):
    """The first of the TAPS pixels around a position. With one tap, Eq. 4's floor(x + 0.5)."""
    return tl.floor(position + (1.0 - TAPS * 0.5))


@triton.jit
def round_half_even(position, TAPS: tl.constexpr):
    """The nearest pixel, of two equally near the even one, as in PyTorch."""
    down = tl.floor(position)
    rest = position - down
    odd = down - 2.0 * tl.floor(down * 0.5)
    return tl.where((rest > 0.5) | ((rest == 0.5) & (odd == 1.0)), down + 1.0, down)


@triton.jit
def box(t):
    """One tap: the whole weight."""
    return t * 0.0 + 1.0


@triton.jit
def box_derivative(t):
    """The value jumps, and has no slope anywhere else."""
    return t * 0.0


@triton.jit
def bilinear(t):
    """Eq. 5: max(0, 1 - |t|)."""
    return tl.maximum(1.0 - tl.abs(t), 0.0)


@triton.jit
def bilinear_derivative(t):
    """Eq. 7, but taken to the right of the kinks at -1, 0 and 1, where the printed one is no sub-gradient."""
    slope = tl.where(t < 0.0, 1.0, -1.0)
    return tl.where((t >= -1.0) & (t < 1.0), slope, 0.0)


@triton.jit
def bicubic(t):
    """Keys' cubic convolution (IEEE Trans. ASSP 29, 1981) with a = -0.75, as in PyTorch and ONNX."""
    t = tl.abs(t)
    near = (1.25 * t - 2.25) * t * t + 1.0
    far = ((-0.75 * t + 3.75) * t - 6.0) * t + 3.0
    return tl.where(t <= 1.0, near, tl.where(t < 2.0, far, 0.0))


@triton.jit
def bicubic_derivative(t):
    """Of `bicubic`, which has one everywhere."""
    distance = tl.abs(t)
    near = (3.75 * distance - 4.5) * distance
    far = (-2.25 * distance + 7.5) * distance - 6.0
    slope = tl.where(distance <= 1.0, near, tl.where(distance < 2.0, far, 0.0))
    return tl.where(t < 0.0, -slope, slope)
