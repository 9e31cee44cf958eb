"""Coordinate maps and sampling kernels by name, the reader's own among them.

A name travels through operators, compilers and exported programs, where a function cannot. A registration
lasts as long as the process.
"""

from typing import Any, NamedTuple

from . import reference


class CoordinateMap(NamedTuple):
    """The `@triton.jit` side of a map; `coordinate_maps.py` says what the functions take."""

    function: Any
    vjp: Any
    per_pixel: bool = False  # whether its parameters belong to output pixels rather than to transforms
    shared_vjp: Any = None  # if what is shared belongs to output pixels


class SamplingKernel(NamedTuple):
    """The `@triton.jit` side of a sampling kernel; `sampling_kernels.py` says what the functions take."""

    function: Any
    derivative: Any
    taps: int  # along each axis
    first_tap: Any
    vanishes: bool = False  # whether it is zero at both ends of its support


# Those registered by the reader; `launch.py` holds the built-in ones.
COORDINATE_MAPS: dict[str, CoordinateMap] = {}
SAMPLING_KERNELS: dict[str, SamplingKernel] = {}
BUILT_IN_MAPS, BUILT_IN_KERNELS = tuple(reference.COORDINATE_MAPS), tuple(reference.SAMPLING_KERNELS)


def known_maps() -> tuple[str, ...]:
    return tuple(dict.fromkeys((*reference.COORDINATE_MAPS, *COORDINATE_MAPS)))


def known_kernels() -> tuple[str, ...]:
    return tuple(dict.fromkeys((*reference.SAMPLING_KERNELS, *SAMPLING_KERNELS)))


def check_registration(name: str, twin: Any, function: Any, derivative: Any, second: str) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name should be an identifier, not {name!r}")
    if name in (*BUILT_IN_MAPS, *BUILT_IN_KERNELS):
        raise ValueError(f"name should not be a built-in one, and {name!r} is")
    if twin is None and function is None:
        raise ValueError("twin or function should be given")
    if twin is not None and not callable(twin):
        raise TypeError(f"twin should be a function, not {twin!r}")
    if (function is None) != (derivative is None):
        raise ValueError(f"function and {second} should be given together")
    for given, argument in ((function, "function"), (derivative, second)):
        # Both JITFunction and the interpreter's stand-in for it keep the Python function as `fn`.
        if given is not None and not hasattr(given, "fn"):
            raise TypeError(f"{argument} should be a @triton.jit function, not {given!r}")


def register_coordinate_map(
    name: str,
    twin: reference.CoordinateMap | None = None,
    function: Any = None,
    vjp: Any = None,
    *,
    per_pixel: bool = False,
    shared_vjp: Any = None,
) -> None:
    """Adds a coordinate map, or replaces one added before, for `sample(..., coordinate_map=name)`.

    Args:
        name: an identifier, not a built-in map's.
        twin: the map in differentiable PyTorch: (parameters (M, ...), shared, input_size, size,
            align_corners) -> offsets (M, H', W', 2), pixels of the input relative to its centre, x before y;
            in 3-D (M, D', H', W', 3). It serves the CPU, second derivatives and forward mode; without one,
            those raise NotImplementedError.
        function, vjp: the same for the fused kernels, `@triton.jit` functions as the module
            `stn_kernels.coordinate_maps` describes. Without them a GPU runs the twin.
        per_pixel: whether the parameters belong to output pixels, as a grid's do, rather than to transforms.
        shared_vjp: the gradient of `shared`, if that belongs to output pixels.

    Raises:
        TypeError, ValueError: an argument is not what it should be.

    `kernels/README.md` works through an example.
    """
    check_registration(name, twin, function, vjp, "vjp")
    if function is not None:
        COORDINATE_MAPS[name] = CoordinateMap(function, vjp, per_pixel, shared_vjp)
    else:
        COORDINATE_MAPS.pop(name, None)
    if twin is not None:
        reference.COORDINATE_MAPS[name] = twin
    else:
        reference.COORDINATE_MAPS.pop(name, None)


def register_sampling_kernel(
    name: str,
    twin: Any = None,
    taps: int = 2,
    function: Any = None,
    derivative: Any = None,
    *,
    vanishes: bool = False,
) -> None:
    """Adds a sampling kernel, or replaces one added before, for `mode=name` in every operation.

    Args:
        name: an identifier, not a built-in mode's.
        twin: k(t) of Eq. 3 in differentiable PyTorch, elementwise: the weight of a pixel t to the left of the
            sample. An even function, zero from taps / 2 on. It serves the CPU, second derivatives and forward
            mode; without one, those raise NotImplementedError.
        taps: pixels along each axis in the kernel's support, from 1 to 16.
        function, derivative: k(t) and k'(t) for the fused kernels, `@triton.jit` functions of a block.
            Without them a GPU runs the twin.
        vanishes: whether k is continuous at the ends of its support. A gradient that is gathered then visits
            fewer pixels.

    Raises:
        TypeError, ValueError: an argument is not what it should be.
    """
    check_registration(name, twin, function, derivative, "derivative")
    if isinstance(taps, bool) or not isinstance(taps, int):
        raise TypeError(f"taps should be an integer, not {taps!r}")
    if not 1 <= taps <= 16:
        raise ValueError(f"taps should be from 1 to 16, not {taps}")
    if function is not None:
        from .sampling_kernels import middle_taps

        SAMPLING_KERNELS[name] = SamplingKernel(function, derivative, taps, middle_taps, vanishes)
    else:
        SAMPLING_KERNELS.pop(name, None)
    if twin is not None:
        reference.SAMPLING_KERNELS[name] = reference.SamplingKernel(twin, taps)
    else:
        reference.SAMPLING_KERNELS.pop(name, None)


def has_kernels(coordinate_map: str, mode: str) -> bool:
    """Whether the fused kernels know both: built-in, or registered with `@triton.jit` functions."""
    return (coordinate_map in BUILT_IN_MAPS or coordinate_map in COORDINATE_MAPS) and (
        mode in BUILT_IN_KERNELS or mode in SAMPLING_KERNELS
    )
