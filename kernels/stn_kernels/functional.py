"""The public functions: plain Python that checks its arguments and chooses what computes the result."""

import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import aten, reference
from .autograd import Choices
from .backend import runs_kernels
from .reference import Size

MODES = tuple(reference.SAMPLING_KERNELS)
PADDING_MODES = tuple(reference.PADDINGS)
HALF = (torch.float16, torch.bfloat16)
DTYPES = (*HALF, torch.float32, torch.float64)


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = False,
) -> Tensor:
    """Samples an image at the points of a grid: Eq. 3 of the paper, `torch.nn.functional.grid_sample`'s twin.

    It takes the same arguments in the same order and gives the same values and gradients, so that changing an
    import is the whole migration.

    Args:
        input: (N, C, H, W), any strides; float16, bfloat16, float32 or float64.
        grid: (N, H', W', 2), normalised source coordinates, x before y, -1 and 1 at the borders of the image.
            Of input's dtype, or float32 beside a float16 or bfloat16 input.
        mode: "bilinear" (Eq. 5).
        padding_mode: what lies outside the image: "zeros", "border" (its border pixels) or "reflection".
        align_corners: whether -1 and 1 are the centres (True) or the outer edges (False) of the border
            pixels.

    Returns:
        (N, C, H', W') in input's dtype; from the kernels, channels-last where input is. Differentiable in
        input and grid. A NaN coordinate gives NaN; an infinite one is outside the image (under reflection,
        NaN).

    Raises:
        TypeError: an argument is not what it should be: a tensor, a floating dtype, a string, a matching
            dtype.
        ValueError: a wrong shape, batch, device or name; the message says which argument, and what came.

    Taught in chapter 03.
    """
    check_image(input)
    check_parameters(grid, "grid", input, (None, None, 2), "(N, H', W', 2)")
    size = check_size(grid.shape[1:3], "grid's H' and W'")
    choices = Choices(size, "grid", *check_choices(mode, padding_mode, align_corners))
    return sample(input, grid, choices)


def affine_sample(
    input: Tensor,
    theta: Tensor,
    size: Sequence[int],
    *,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = False,
) -> Tensor:
    """Warps an image by an affine map: Eqs. 1 and 3 of the paper in one step.

    Equal to `grid_sample(input, affine_grid(theta, ...), ...)`; the kernels compute each coordinate where it
    is used, so that no grid is stored, forward or backward.

    Args:
        input: (N, C, H, W), any strides; float16, bfloat16, float32 or float64.
        theta: (N, 2, 3), from target to source, both normalised: (x, y)_source = theta (x, y, 1)_target. Of
            input's dtype, or float32 beside a float16 or bfloat16 input.
        size: (H', W') of the output, in pixels.
        mode, padding_mode, align_corners: as in `grid_sample`.

    Returns:
        (N, C, H', W') in input's dtype; from the kernels, channels-last where input is. Differentiable in
        input and theta. With the identity as theta and size (H, W), the kernels return the input exactly.

    Raises:
        TypeError, ValueError: as in `grid_sample`.

    Taught in chapters 02 and 03.
    """
    check_image(input)
    check_parameters(theta, "theta", input, (2, 3), "(N, 2, 3)")
    size = check_size(size, "size")
    choices = Choices(size, "affine", *check_choices(mode, padding_mode, align_corners))
    return sample(input, theta, choices)


# --- which implementation ----------------------------------------------------------------------------------


def sample(input: Tensor, parameters: Tensor, choices: Choices) -> Tensor:
    """Runs an operation whose arguments were checked one by one."""
    if parameters.dtype != input.dtype:
        # Beside a half-precision image float32 coordinates are welcome. The other way round is what a
        # localisation network returns under autocast: no worse than it is, and exact in float32.
        finer = input.dtype in HALF and parameters.dtype == torch.float32
        if not finer and not (parameters.dtype in HALF and under_autocast(input)):
            name = "theta" if choices.coordinate_map == "affine" else choices.coordinate_map
            raise TypeError(
                f"{name} should have input's dtype {input.dtype}, or be float32 beside a half-precision "
                f"input, not {parameters.dtype}"
            )
        parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))

    device = input.device.type
    plain = device == "cpu" and not runs_kernels(input.device) and is_plain(input, parameters)
    if plain and (aten.differentiates_twice() or not torch.is_grad_enabled()):
        # Nothing watches these calls, so the values may be looked at and ATen's own autograd may do the rest.
        if aten.computes_same(input, parameters):
            return aten.sample(input, parameters, choices)
    elif device in ("cpu", "cuda"):
        from . import ops  # registers the operators, which takes longer than the rest of the package together

        return ops.apply(input, parameters, *choices)
    return reference.sample(input, parameters, *choices)


def under_autocast(tensor: Tensor) -> bool:
    device = tensor.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def is_plain(*tensors: Tensor) -> bool:
    """Whether these are ordinary eager tensors that no compiler, transform, mode or subclass is watching."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._len_torch_dispatch_stack() == 0
        and forward_ad._current_level < 0
        # The operators keep their backward in full precision, even if it runs under autocast too.
        and not torch.is_autocast_enabled("cpu")
        and all(type(t) is Tensor or type(t) is torch.nn.Parameter for t in tensors)
    )


# --- checks ------------------------------------------------------------------------------------------------


def check_image(input: Tensor) -> None:
    if not isinstance(input, Tensor):
        raise TypeError(f"input should be a tensor, not {type(input).__name__}")
    if input.dtype not in DTYPES:
        raise TypeError(
            f"input should be of a dtype in {DTYPES}, not {input.dtype}; convert it with input.float()"
        )
    if input.ndim != 4:
        raise ValueError(f"input should have shape (N, C, H, W), not {tuple(input.shape)}")
    if input.shape[2] < 1 or input.shape[3] < 1:
        raise ValueError(f"input should have at least one pixel, not shape {tuple(input.shape)}")


def check_parameters(
    parameters: Tensor, name: str, input: Tensor, trailing: tuple[int | None, ...], expected: str
) -> None:
    if not isinstance(parameters, Tensor):
        raise TypeError(f"{name} should be a tensor of shape {expected}, not {type(parameters).__name__}")
    shape = tuple(parameters.shape)
    fits = len(shape) == 1 + len(trailing) and all(
        t is None or s == t for s, t in zip(shape[1:], trailing, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} should have shape {expected}, not {shape}")
    if not parameters.is_floating_point():
        raise TypeError(f"{name} should be of a floating dtype, not {parameters.dtype}")
    if shape[0] != input.shape[0]:
        raise ValueError(f"{name} should have input's batch size {input.shape[0]}, not {shape[0]}")
    if parameters.device != input.device:
        raise ValueError(f"{name} should be on input's device {input.device}, not on {parameters.device}")


def check_size(size: Sequence[Any], name: str) -> Size:
    try:
        height, width = size
    except (TypeError, ValueError):
        raise ValueError(f"{name} should be two integers (height, width), not {size!r}") from None
    if not (is_integer(height) and is_integer(width)):
        raise TypeError(f"{name} should be two integers (height, width), not {size!r}")
    if height < 1 or width < 1:
        raise ValueError(f"{name} should be positive, not {tuple(size)}")
    return height, width


def is_integer(value: Any) -> bool:
    """An int, one of NumPy's, or a compiler's symbol for one."""
    return isinstance(value, (numbers.Integral, torch.SymInt)) and not isinstance(value, bool)


def check_choices(mode: str, padding_mode: str, align_corners: bool | None) -> tuple[str, str, bool]:
    for value, name, known in ((mode, "mode", MODES), (padding_mode, "padding_mode", PADDING_MODES)):
        if not isinstance(value, str):
            raise TypeError(f"{name} should be a string, one of {known}, not {value!r}")
        if value not in known:
            raise ValueError(f"{name} should be one of {known}, not {value!r}")
    if align_corners is None:  # as in PyTorch
        align_corners = False
    if not isinstance(align_corners, bool):
        raise TypeError(f"align_corners should be True or False, not {align_corners!r}")
    return mode, padding_mode, align_corners
