"""The public functions: plain Python that checks its arguments and chooses what computes the result.

What they all take is said once, in `grid_sample`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import aten, checks, registry
from .autograd import Choices, Sample, Tensors, sample_reference
from .backend import is_plain, runs_kernels
from .reference import compute_dtype
from .splines import tps_weights


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = False,
    *,
    fill_value: float | Tensor = 0.0,
    deterministic: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Samples an image at the points of a grid: Eq. 3 of the paper, `torch.nn.functional.grid_sample`'s twin.

    It takes the same arguments in the same order and gives the same values and gradients, so that changing an
    import is the whole migration.

    Args:
        input: (N, C, H, W) or (N, C, D, H, W), any strides; float16, bfloat16, float32 or float64.
        grid: (N, H', W', 2) or (N, D', H', W', 3), normalised source coordinates, x before y before z, -1 and
            1 at the borders of the image. Of input's dtype, or float32 beside a float16 or bfloat16 input.
            With T grids for each image (N, T, H', W', 2); one image (1, C, H, W) serves any number of grids.
        mode: "nearest" (of two equally near pixels the even one), "integer" (Eq. 4), "bilinear" (Eq. 5; in
            3-D trilinear), "bicubic" (Keys, a = -0.75; in 3-D tricubic), or a registered sampling kernel.
        padding_mode: what lies outside the image: "zeros", "border" (its border pixels), "reflection", or
            "constant": `fill_value` where the coordinate leaves the image, beyond -1 or 1; inside, taps over
            the edge are border pixels.
        align_corners: whether -1 and 1 are the centres (True) or the outer edges (False) of the border
            pixels.
        fill_value: for "constant", a number or one for each channel, (C,).
        deterministic: whether the image's gradient is the same bits on every run, at some cost on a GPU.
            None: as `torch.use_deterministic_algorithms` says. Everything else is so always.
        antialias: where the map shrinks the image, takes for each output pixel the mean of samples all over
            its footprint in the image, up to 16 along each axis of the output. Without, one sample stands for
            the footprint, and detail smaller than it aliases. Where the map magnifies, nothing changes. See
            `stn_kernels.antialiasing`.

    Returns:
        (N, C, H', W') or (N, C, D', H', W') in input's dtype, with T grids (N, T, C, H', W'); from the
        kernels, channels-last where input is. Differentiable in input, grid and fill_value. A NaN coordinate
        gives NaN; an infinite one is outside the image (under reflection, NaN).

    Raises:
        TypeError: an argument is not what it should be: a tensor, a floating dtype, a string, a matching
            dtype.
        ValueError: a wrong shape, batch, device or name; the message says which argument, and what came.

    Taught in chapters 03 and 04.
    """
    axes = checks.check_image(input)
    expected = "(N, H', W', 2)" if axes == 2 else "(N, D', H', W', 3)"
    checks.check_tensor(grid, "grid", expected)
    if grid.ndim not in (axes + 2, axes + 3) or grid.shape[-1] != axes:
        several = expected.replace("(N, ", "(N, T, ")
        raise ValueError(f"grid should have shape {expected} or {several}, not {tuple(grid.shape)}")
    size = checks.check_size(grid.shape[-1 - axes : -1], "grid's size", axes)
    choices = checks.check_choices(mode, padding_mode, align_corners, deterministic, antialias)
    return warp(input, grid, "grid", None, Choices(size, "grid", *choices), fill_value)


def affine_sample(
    input: Tensor,
    theta: Tensor,
    size: Sequence[int],
    *,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = False,
    fill_value: float | Tensor = 0.0,
    deterministic: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Warps an image by an affine map: Eqs. 1 and 3 of the paper in one step.

    Equal to `grid_sample(input, affine_grid(theta, ...), ...)`; the kernels compute each coordinate where it
    is used, so that no grid is stored, forward or backward.

    Args:
        input: (N, C, H, W) or (N, C, D, H, W), as in `grid_sample`.
        theta: (N, 2, 3), in 3-D (N, 3, 4), from target to source, both normalised: (x, y)_source = theta (x,
            y, 1)_target. Of input's dtype, or float32 beside a float16 or bfloat16 input. With T transforms
            for each image (N, T, 2, 3); one image (1, C, H, W) serves any number of thetas.
        size: (H', W') or (D', H', W') of the output, in pixels.
        mode, padding_mode, align_corners, fill_value, deterministic, antialias: as in `grid_sample`.

    Returns:
        (N, C, H', W') in input's dtype, with T transforms (N, T, C, H', W'); from the kernels, channels-last
        where input is. Differentiable in input, theta and fill_value. With the identity as theta and size
        (H, W), the kernels return the input exactly.

    Raises:
        TypeError, ValueError: as in `grid_sample`.

    Taught in chapters 02 and 03.
    """
    size = checks.check_size(size, "size", checks.check_image(input))
    choices = checks.check_choices(mode, padding_mode, align_corners, deterministic, antialias)
    return warp(input, theta, "theta", None, Choices(size, "affine", *choices), fill_value)


def projective_sample(
    input: Tensor,
    theta: Tensor,
    size: Sequence[int],
    *,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = False,
    fill_value: float | Tensor = 0.0,
    deterministic: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Warps an image by a projective map (a homography), which `affine_sample` does by an affine one.

    Args:
        theta: (N, 3, 3), in 3-D (N, 4, 4), from target to source, both normalised: (x, y, w) = theta (x, y,
            1)_target, and the source is at (x / w, y / w). With T transforms for each image (N, T, 3, 3).
            Where w is 0 the source is infinite; where it is negative, behind the viewer, it is sampled all
            the same.
        others, returns, raises: as in `affine_sample`.
    """
    size = checks.check_size(size, "size", checks.check_image(input))
    choices = checks.check_choices(mode, padding_mode, align_corners, deterministic, antialias)
    return warp(input, theta, "theta", None, Choices(size, "projective", *choices), fill_value)


def tps_sample(
    input: Tensor,
    source_points: Tensor,
    size: Sequence[int],
    *,
    target_points: Tensor,
    regularization: float = 0.0,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = False,
    fill_value: float | Tensor = 0.0,
    deterministic: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Warps an image by the thin plate spline that takes target points to source points. 2-D only.

    Args:
        source_points: (N, K, 2), normalised, x before y: where in the input the target points are sampled.
            With T transforms for each image (N, T, K, 2).
        target_points: (K, 2), normalised, in the output: at least three, distinct, not all on a line.
        regularization: 0 goes through the points; the larger, the nearer to an affine map. See
            `splines.tps_weights`.
        others, returns: as in `affine_sample`. Differentiable in the points, too.

    Raises:
        TypeError, ValueError: as in `grid_sample`; no spline goes through target_points.
    """
    axes = checks.check_image(input)
    if axes != 2:
        raise ValueError(
            f"input should have shape (N, C, H, W), not {tuple(input.shape)}: splines are 2-D only"
        )
    size = checks.check_size(size, "size")
    checks.check_shape(target_points, "target_points", ("K", 2))
    count = target_points.shape[0]
    if count < 3:
        raise ValueError(f"target_points should be three or more, not {count}")
    checks.check_device(target_points, "target_points", input)
    regularization = checks.check_regularization(regularization)
    checks.check_parameters(source_points, "source_points", input, (count, 2))
    checks.check_device(source_points, "source_points", input)
    target_points = checks.check_dtype(target_points, "target_points", input)
    source_points = checks.check_dtype(source_points, "source_points", input)
    several = source_points.shape[:-2]
    weights = tps_weights(source_points.flatten(0, -3), target_points, regularization).unflatten(0, several)
    choices = checks.check_choices(mode, padding_mode, align_corners, deterministic, antialias)
    return warp(input, weights, "source_points", target_points, Choices(size, "tps", *choices), fill_value)


def basis_sample(
    input: Tensor,
    coefficients: Tensor,
    basis: Tensor,
    *,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = False,
    fill_value: float | Tensor = 0.0,
    deterministic: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Warps an image by a structured transformation T = M B (section 3.2 of the paper): grids that are
    combinations of a basis.

    Args:
        coefficients: M, (N, 2, B), in 3-D (N, 3, B): how much of each basis plane x, y (and z) take. With T
            transforms for each image (N, T, 2, B).
        basis: B, (B, H', W') or (B, D', H', W'): planes of normalised coordinates; the output has their size.
        others, returns, raises: as in `affine_sample`. Differentiable in coefficients and basis.
    """
    axes = checks.check_image(input)
    checks.check_shape(basis, "basis", ("B", "H'", "W'") if axes == 2 else ("B", "D'", "H'", "W'"))
    size = checks.check_size(basis.shape[1:], "basis's size", axes)
    choices = checks.check_choices(mode, padding_mode, align_corners, deterministic, antialias)
    return warp(input, coefficients, "coefficients", basis, Choices(size, "basis", *choices), fill_value)


def displacement_sample(
    input: Tensor,
    displacement: Tensor,
    *,
    unit: str = "pixel",
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = False,
    fill_value: float | Tensor = 0.0,
    deterministic: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Warps an image by a displacement field: each output pixel is sampled where it lies, plus its
    displacement.

    Args:
        displacement: (N, 2, H', W'), x before y, in 3-D (N, 3, D', H', W'), x before y before z. With T
            fields for each image (N, T, 2, H', W'). The output has its size; if that is not the input's, a
            pixel lies where stretching the output to the input puts it.
        unit: "pixel" of the input, or "normalized": half of the input's extent, as in a grid.
        others, returns, raises: as in `affine_sample`. With zeros, or whole pixels, in the input's own size,
            the kernels move values without changing them.
    """
    axes = checks.check_image(input)
    expected = "(N, 2, H', W')" if axes == 2 else "(N, 3, D', H', W')"
    checks.check_tensor(displacement, "displacement", expected)
    if displacement.ndim not in (axes + 2, axes + 3):
        several = expected.replace("(N, ", "(N, T, ")
        raise ValueError(
            f"displacement should have shape {expected} or {several}, not {tuple(displacement.shape)}"
        )
    checks.check_name(unit, "unit", ("pixel", "normalized"))
    size = checks.check_size(displacement.shape[-axes:], "displacement's size", axes)
    choices = checks.check_choices(mode, padding_mode, align_corners, deterministic, antialias)
    return warp(
        input,
        displacement,
        "displacement",
        None,
        Choices(size, "displacement" if unit == "pixel" else "normalised_displacement", *choices),
        fill_value,
    )


def sample(
    input: Tensor,
    parameters: Tensor,
    size: Sequence[int],
    *,
    coordinate_map: str,
    shared: Tensor | None = None,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = False,
    fill_value: float | Tensor = 0.0,
    deterministic: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Warps an image by any registered coordinate map, the reader's own among them.

    Args:
        input: (N, C, H, W) or (N, C, D, H, W), as in `grid_sample`.
        parameters: (M, ...), up to five dimensions: what the map reads for each of M transforms, M a multiple
            of N. Each image has M / N of them, one after another.
        size: (H', W') or (D', H', W') of the output, in pixels.
        coordinate_map: a built-in map ("affine", "projective", "grid", "displacement",
            "normalised_displacement", "basis", "residual_basis", "tps", "mesh") or one added by
            `register_coordinate_map`.
        shared: what the map reads for all transforms, up to four dimensions: basis (B, H', W'), of
            "residual_basis" too, whose maps are the identity plus M B; control points (K, 2) of "tps", whose
            parameters are `splines.tps_weights`; triangles (T, 3, 3) of "mesh", what times (x, y, 1) gives
            the barycentric coordinates, whose parameters (M, T, 2, 3) are an affine map for each triangle.
        mode, padding_mode, align_corners, fill_value, deterministic, antialias: as in `grid_sample`.

    Returns:
        (M, C, H', W') or (M, C, D', H', W') in input's dtype. Differentiable in input, parameters, shared and
        fill_value.

    Raises:
        TypeError, ValueError: as in `grid_sample`.
        NotImplementedError: the map or the kernel was registered without a twin in PyTorch, and this call
            needs one.
    """
    axes = checks.check_image(input)
    size = checks.check_size(size, "size", axes)
    checks.check_name(coordinate_map, "coordinate_map", registry.known_maps())
    checks.check_free_parameters(parameters, input)
    if shared is not None:
        checks.check_tensor(shared, "shared", "(...)")
    if coordinate_map in registry.BUILT_IN_MAPS:
        checks.check_shared(shared, coordinate_map, axes, size)
        trailing = checks.parameter_shape(coordinate_map, axes, size, shared)
        checks.check_shape(parameters, "parameters", ("M", *trailing))
    choices = Choices(
        size,
        coordinate_map,
        *checks.check_choices(mode, padding_mode, align_corners, deterministic, antialias),
    )
    return finish(input, parameters, "parameters", shared, choices, fill_value)


# --- from checked arguments to a result --------------------------------------------------------------------


def warp(
    input: Tensor, parameters: Tensor, name: str, shared: Tensor | None, choices: Choices, fill_value: Any
) -> Tensor:
    """An operation with parameters (N, ...) or (N, T, ...), whose image, size and choices were checked."""
    trailing = checks.parameter_shape(choices.coordinate_map, input.ndim - 2, choices.size, shared)
    checks.check_parameters(parameters, name, input, trailing)
    leading = parameters.shape[: -len(trailing)]
    if len(leading) == 1:
        return finish(input, parameters, name, shared, choices, fill_value)
    output = finish(input, parameters.flatten(0, 1), name, shared, choices, fill_value)
    return output.unflatten(0, leading)


def finish(
    input: Tensor, parameters: Tensor, name: str, shared: Tensor | None, choices: Choices, fill_value: Any
) -> Tensor:
    """Checks what tensors have to do with one another, and runs."""
    checks.check_device(parameters, name, input)
    parameters = checks.check_dtype(parameters, name, input)
    if shared is not None:
        shared_name = {"basis": "basis", "tps": "target_points"}.get(choices.coordinate_map, "shared")
        checks.check_device(shared, shared_name, input)
        shared = checks.check_dtype(shared, shared_name, input)
    dtype = compute_dtype(input, parameters, shared)
    fill = checks.check_fill(fill_value, choices.padding_mode, input, dtype)
    return run((input, parameters, shared, fill), choices)


def run(tensors: Tensors, choices: Choices) -> Tensor:
    """Chooses what computes an operation whose arguments were checked."""
    if torch.onnx.is_in_onnx_export():
        from . import exporting

        return exporting.sample(tensors, choices)
    device = tensors[0].device
    fused = runs_kernels(device)
    plain = (fused or device.type == "cpu") and is_plain(*tensors)
    if plain and fused and not needs_gradient(*tensors):
        if registry.has_kernels(choices.coordinate_map, choices.mode):
            from . import launch

            return launch.sample(tensors, choices)  # without what an operator costs
    elif plain and not fused and (aten.differentiates_twice() or not torch.is_grad_enabled()):
        # Nothing watches these calls, so the values may be looked at and ATen's own autograd may do the rest.
        output = aten.sample(tensors, choices)
        return sample_reference(tensors, choices) if output is None else output
    if device.type in ("cpu", "cuda"):
        if torch.compiler.is_compiling():
            from . import opaque

            return opaque.sample(*tensors, *choices)
        return Sample.apply(*tensors, *choices.flat())
    return sample_reference(tensors, choices)


def needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
