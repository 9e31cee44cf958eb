"""Checks of arguments: each raises an error that names the argument, what it should be, and what came."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import registry
from .reference import PADDING_MODES, Size

HALF = (torch.float16, torch.bfloat16)
DTYPES = (*HALF, torch.float32, torch.float64)
DIMENSIONS = {4: "(N, C, H, W)", 5: "(N, C, D, H, W)"}


def check_tensor(tensor: Any, name: str, expected: str) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} should be a tensor of shape {expected}, not {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise TypeError(f"{name} should be of a floating dtype, not {tensor.dtype}")


def check_image(input: Any, name: str = "input") -> int:
    """Returns the number of spatial dimensions, 2 or 3."""
    if not isinstance(input, Tensor):
        raise TypeError(f"{name} should be a tensor, not {type(input).__name__}")
    if input.dtype not in DTYPES:
        raise TypeError(
            f"{name} should be of a dtype in {DTYPES}, not {input.dtype}; convert it with {name}.float()"
        )
    if input.ndim not in DIMENSIONS:
        shapes = " or ".join(DIMENSIONS.values())
        raise ValueError(f"{name} should have shape {shapes}, not {tuple(input.shape)}")
    if 0 in input.shape[2:]:
        raise ValueError(f"{name} should have at least one pixel, not shape {tuple(input.shape)}")
    return input.ndim - 2


def check_shape(tensor: Any, name: str, shape: Sequence[int | str]) -> None:
    """`shape`: numbers, and letters for dimensions of any length."""
    fits = isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.ndim == len(shape)
    if not fits or not all(isinstance(s, str) or s == t for s, t in zip(shape, tensor.shape, strict=True)):
        expected = "(" + ", ".join(map(str, shape)) + ")"  # not before: a compiler can't write its symbols
        check_tensor(tensor, name, expected)
        raise ValueError(f"{name} should have shape {expected}, not {tuple(tensor.shape)}")


def check_parameters(parameters: Any, name: str, input: Tensor, trailing: Sequence[int]) -> None:
    """(N, *trailing) or (N, T, *trailing), with N the batch of the input unless that is one."""
    fits = isinstance(parameters, Tensor) and parameters.is_floating_point()
    shape = tuple(parameters.shape) if fits else ()
    leading = len(shape) - len(trailing)
    if leading not in (1, 2) or shape[leading:] != tuple(trailing):
        numbers_ = ", ".join(map(str, trailing))
        expected = f"(N, {numbers_}) or (N, T, {numbers_})"
        check_tensor(parameters, name, expected)
        raise ValueError(f"{name} should have shape {expected}, not {shape}")
    if shape[0] != input.shape[0] and input.shape[0] != 1:
        raise ValueError(f"{name} should have input's batch size {input.shape[0]}, not {shape[0]}")


def check_device(tensor: Tensor, name: str, input: Tensor, input_name: str = "input") -> None:
    if tensor.device != input.device:
        raise ValueError(f"{name} should be on {input_name}'s device {input.device}, not on {tensor.device}")


def check_dtype(tensor: Tensor, name: str, input: Tensor, input_name: str = "input") -> Tensor:
    """What belongs to the coordinates, in the dtype in which they are computed."""
    if tensor.dtype == input.dtype:
        return tensor
    # Beside a half-precision image float32 coordinates are welcome. The other way round is what a
    # localisation network returns under autocast: no worse than it is, and exact in float32.
    finer = input.dtype in HALF and tensor.dtype == torch.float32
    if not finer and not (tensor.dtype in HALF and under_autocast(input)):
        raise TypeError(
            f"{name} should have {input_name}'s dtype {input.dtype}, or be float32 beside a half-precision "
            f"{input_name}, not {tensor.dtype}"
        )
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def under_autocast(tensor: Tensor) -> bool:
    device = tensor.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def check_size(size: Any, name: str, axes: int = 2) -> Size:
    names = "two integers (height, width)" if axes == 2 else "three integers (depth, height, width)"
    try:
        sizes = tuple(size)
    except TypeError:
        raise ValueError(f"{name} should be {names}, not {size!r}") from None
    if len(sizes) != axes:
        raise ValueError(f"{name} should be {names}, not {size!r}")
    for length in sizes:
        if not is_integer(length):
            raise TypeError(f"{name} should be {names}, not {size!r}")
        if length < 1:
            raise ValueError(f"{name} should be positive, not {sizes}")
    return tuple([as_int(length) for length in sizes])


def is_integer(value: Any) -> bool:
    """An int, one of NumPy's, or a compiler's symbol for one."""
    if type(value) is int:
        return True
    return isinstance(value, (numbers.Integral, torch.SymInt)) and not isinstance(value, bool)


def as_int(value: Any) -> Any:
    """What `is_integer` takes, as Python's own where it is NumPy's, which has not all of its methods."""
    return value if type(value) is int or isinstance(value, torch.SymInt) else int(value)


def check_name(value: Any, name: str, known: Sequence[str]) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} should be a string, one of {known}, not {value!r}")
    if value not in known:
        raise ValueError(f"{name} should be one of {known}, not {value!r}")
    return value


def check_choices(
    mode: Any, padding_mode: Any, align_corners: Any, deterministic: Any = None, antialias: Any = False
) -> tuple[str, str, bool, bool | None, bool]:
    check_name(mode, "mode", registry.known_kernels())
    check_name(padding_mode, "padding_mode", PADDING_MODES)
    if align_corners is None:  # as in PyTorch
        align_corners = False
    if not isinstance(align_corners, bool):
        raise TypeError(f"align_corners should be True or False, not {align_corners!r}")
    if deterministic is not None and not isinstance(deterministic, bool):
        raise TypeError(f"deterministic should be True, False or None, not {deterministic!r}")
    if not isinstance(antialias, bool):
        raise TypeError(f"antialias should be True or False, not {antialias!r}")
    return mode, padding_mode, align_corners, deterministic, antialias


def check_fill(fill_value: Any, padding_mode: str, input: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The fill as (C,) of `dtype`; None unless the padding needs it."""
    if isinstance(fill_value, bool) or not isinstance(fill_value, (int, float, numbers.Real, Tensor)):
        raise TypeError(f"fill_value should be a number or a tensor of shape (C,), not {fill_value!r}")
    if padding_mode != "constant":
        if isinstance(fill_value, Tensor) or fill_value != 0:
            raise ValueError(
                f"fill_value is for padding_mode='constant' only; with {padding_mode!r} it should be 0"
            )
        return None
    channels = input.shape[1]
    if not isinstance(fill_value, Tensor):
        return torch.full((channels,), float(fill_value), dtype=dtype, device=input.device)
    if fill_value.ndim > 1 or (fill_value.ndim == 1 and fill_value.shape[0] != channels):
        raise ValueError(f"fill_value should have shape () or ({channels},), not {tuple(fill_value.shape)}")
    check_device(fill_value, "fill_value", input)
    return fill_value.to(dtype).expand(channels).contiguous()


def check_regularization(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"regularization should be a number, not {value!r}")
    if not 0 <= float(value) < math.inf:
        raise ValueError(f"regularization should be finite and not negative, not {value!r}")
    return float(value)


def check_free_parameters(parameters: Any, input: Tensor) -> None:
    """Parameters of a map whose shape only the map knows: (M, ...)."""
    check_tensor(parameters, "parameters", "(M, ...)")
    if not 1 <= parameters.ndim <= 5:
        raise ValueError(
            f"parameters should have one to five dimensions, not shape {tuple(parameters.shape)}"
        )
    images, transforms = input.shape[0], parameters.shape[0]
    if transforms % images if images else transforms:
        raise ValueError(
            f"parameters should be for a multiple of input's batch size {images} transforms, not {transforms}"
        )


def check_shared(shared: Tensor | None, coordinate_map: str, axes: int, size: Size) -> None:
    """What a built-in map shares among its transforms."""
    shapes: dict[str, tuple[int | str, ...]] = {
        "basis": ("B", *size),
        "residual_basis": ("B", *size),
        "tps": ("K", 2),
        "mesh": ("T", 3, 3),
    }
    if coordinate_map not in shapes:
        if shared is not None:
            raise ValueError(f"shared should be None: {coordinate_map!r} shares nothing")
        return
    if coordinate_map in ("tps", "mesh") and axes == 3:
        raise ValueError(
            f"coordinate_map should not be {coordinate_map!r} for an input (N, C, D, H, W): splines and "
            "meshes are 2-D only"
        )
    check_shape(shared, "shared", shapes[coordinate_map])


def parameter_shape(coordinate_map: str, axes: int, size: Size, shared: Tensor | None) -> tuple[int, ...]:
    """The parameters of one transform of a built-in map."""
    if coordinate_map in ("basis", "residual_basis", "tps"):
        assert shared is not None
        return (axes, shared.shape[0] + (3 if coordinate_map == "tps" else 0))
    if coordinate_map == "mesh":
        assert shared is not None
        return (shared.shape[0], 2, 3)
    return {
        "affine": (axes, axes + 1),
        "projective": (axes + 1, axes + 1),
        "grid": (*size, axes),
        "displacement": (axes, *size),
        "normalised_displacement": (axes, *size),
    }[coordinate_map]
