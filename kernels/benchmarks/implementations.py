"""What computes a case: the library, its backward passes one by one, and what a user would otherwise call.

An implementation is a function of the image and of the parameters alone; whatever stays the same between
calls is made beforehand.
"""

import contextlib
import dataclasses
import importlib.util
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import compositions
import stn_kernels
from cases import IDENTITY, Case

OWN, EAGER, COMPILED = "stn_kernels", "PyTorch", "torch.compile"
ALIGNED = "PyTorch, align_corners"  # which may take cuDNN
DETERMINISTIC = "PyTorch, deterministic"
KORNIA = "kornia"
WAYS = ("scatter", "fixed point", "gather", "gather, fixed point")

Call = Callable[[Tensor, Tensor], Tensor]


def own_way(way: str) -> str:
    return f"{OWN}, {way}"


def own(case: Case, shared: Tensor | None) -> Call:
    size = case.output_size
    if case.operation == "affine":
        return lambda image, theta: stn_kernels.affine_sample(image, theta, size)
    if case.operation == "tps":
        assert shared is not None
        return lambda image, source: stn_kernels.tps_sample(image, source, size, target_points=shared)
    if case.operation == "displacement":
        return lambda image, shift: stn_kernels.displacement_sample(image, shift, unit="normalized")
    return stn_kernels.grid_sample


def pytorch(case: Case, shared: Tensor | None, like: Tensor, align_corners: bool = False) -> Call:
    size = case.output_size
    if case.operation == "affine":
        return lambda image, theta: compositions.affine(image, theta, size, align_corners)
    if case.operation == "grid":
        return lambda image, points: compositions.grid(image, points, align_corners)
    target = compositions.target_points(size, like, align_corners)
    if case.operation == "displacement":
        return lambda image, shift: compositions.displacement(image, shift, target, align_corners)
    assert shared is not None
    features = compositions.spline_features(shared, target)
    return lambda image, source: compositions.spline(image, source, shared, features, size)


def pixel_matrices(theta: Tensor, case: Case) -> Tensor:
    """(N, 3, 3): theta between pixel centres, from source to target, as kornia takes it."""
    matrix = torch.eye(3, dtype=theta.dtype, device=theta.device).repeat(len(theta), 1, 1)
    matrix[:, :2] = theta
    (height, width), (rows, columns) = case.shape[2:], case.output_size
    to_pixel = torch.tensor([[width / 2, 0, (width - 1) / 2], [0, height / 2, (height - 1) / 2], [0, 0, 1]])
    to_unit = torch.tensor([[2 / columns, 0, 1 / columns - 1], [0, 2 / rows, 1 / rows - 1], [0, 0, 1]])
    return torch.linalg.inv(to_pixel.to(matrix) @ matrix @ to_unit.to(matrix))


def kornia(case: Case, shared: Tensor | None) -> Call | None:
    """kornia's own warp, where it is installed and has one. It takes pixel matrices, and for a spline its
    weights: both are made from the parameters within what is timed, as users do. (Its spline is compared in
    time alone: in 0.9.0 the system holds the distances between source and target points, not those among the
    target points, so that it does not go through the points.)"""
    plain = case.axes == 2 and case.transforms == 1 and case.dtype == "float32"
    if not plain or importlib.util.find_spec("kornia") is None:
        return None
    import kornia.geometry.transform as kt

    if case.operation == "affine":
        return lambda image, theta: kt.warp_affine(
            image, pixel_matrices(theta, case)[:, :2], case.output_size, align_corners=False
        )
    if case.operation == "tps" and case.output_size == case.shape[2:]:
        assert shared is not None

        def spline(image: Tensor, source: Tensor) -> Tensor:
            control = shared.expand_as(source)
            weights, affine = kt.get_tps_transform(control, source)
            return kt.warp_image_tps(image, control, weights, affine, align_corners=False)

        return spline
    return None


@contextlib.contextmanager
def forced(way: str) -> Iterator[None]:
    """Within, the image's gradient comes about in this way."""
    from stn_kernels import launch_backward

    before, launch_backward.forced_way = launch_backward.forced_way, way
    try:
        yield
    finally:
        launch_backward.forced_way = before


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def backward_ways(case: Case) -> tuple[str, ...]:
    """Those beside the default that the case has."""
    return WAYS[1:] if case.operation == "affine" else WAYS[1:2]


def compiled(case: Case, shared: Tensor | None, like: Tensor) -> Call:
    """One compiled function for all transforms of a shape, whose parameters are data to it."""
    key = dataclasses.replace(case, transform=IDENTITY)
    if key not in _compiled:
        _compiled.clear()
        torch.compiler.reset()
        _compiled[key] = torch.compile(pytorch(case, shared, like), dynamic=False)
    return _compiled[key]


_compiled: dict[Case, Call] = {}
