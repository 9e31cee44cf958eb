"""The CPU path beside PyTorch compositions that compute the same: affine_grid with grid_sample, and so on.

    python kernels/benchmarks/cpu_path.py [--repeats N] [--only WORD]

One thread, eager, paired: the two take turns within one process, and the ratio is the median over the pairs.
Below 2^18 elements a call's fixed cost dominates, so the difference in microseconds is given as well.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

import cases
import compositions
import implementations
import stn_kernels
from stn_kernels.splines import tps_weights

LARGE = 2**18  # elements from which on the ratio counts
Tensors = tuple[Tensor, ...]


@dataclasses.dataclass
class Case:
    name: str
    shape: tuple[int, ...]  # of the image; the output is of the same size
    peer: Callable[..., Tensor]
    own: Callable[..., Tensor]
    parameters: Tensors  # what both take beside the image; they get gradients
    channels_last: bool = False
    same: bool = True  # the peer computes the same; else only the times are compared


def thetas(batch: int, axes: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.eye(axes, axes + 1) + 0.2 * torch.randn(batch, axes, axes + 1, generator=generator)


def affine_cases() -> Iterator[Case]:
    def peer(image: Tensor, theta: Tensor, **choices: str) -> Tensor:
        return compositions.affine(image, theta, tuple(image.shape[2:]), **choices)

    def own(image: Tensor, theta: Tensor, **choices: str) -> Tensor:
        return stn_kernels.affine_sample(image, theta, image.shape[2:], **choices)

    for shape in [  # launch-bound, digits, photographs, feature maps
        (1, 1, 8, 8),
        (8, 3, 32, 32),
        (128, 1, 28, 28),
        (64, 1, 64, 64),
        (256, 1, 42, 42),
        (16, 1, 128, 128),
        (2, 3, 512, 512),
        (4, 16, 64, 64),
        (32, 64, 28, 28),
        (8, 256, 14, 14),
    ]:
        for last in (False, True) if shape[1] > 1 else (False,):
            yield Case("affine", shape, peer, own, (thetas(shape[0]),), last)
    for shape in [(2, 1, 64, 64, 64), (1, 16, 32, 32, 32)]:
        yield Case("affine 3-D", shape, peer, own, (thetas(shape[0], 3),))
    for choices in ({"mode": "nearest"}, {"mode": "bicubic"}, {"padding_mode": "reflection"}):

        def peer_with(image: Tensor, theta: Tensor, choices: dict[str, str] = choices) -> Tensor:
            return peer(image, theta, **choices)

        def own_with(image: Tensor, theta: Tensor, choices: dict[str, str] = choices) -> Tensor:
            return own(image, theta, **choices)

        for shape in [(64, 1, 64, 64), (4, 16, 128, 128)]:
            yield Case(*choices.values(), shape, peer_with, own_with, (thetas(shape[0]),))

    for shape in [(64, 1, 64, 64), (4, 16, 128, 128)]:
        yield Case("affine, T = 4", shape, peer, own, (thetas(4 * shape[0]).unflatten(0, (-1, 4)),))


def other_cases() -> Iterator[Case]:
    for shape in [(1, 1, 8, 8), (64, 1, 64, 64), (2, 3, 512, 512), (4, 16, 128, 128)]:
        batch, size = shape[0], shape[2:]
        target = compositions.target_points(size, torch.empty(0))
        generator = torch.Generator().manual_seed(0)
        theta = torch.eye(3) + 0.1 * torch.randn(batch, 3, 3, generator=generator)
        yield Case(
            "projective",
            shape,
            lambda image, theta, target=target: compositions.projective(
                image, theta, image.shape[2:], target
            ),
            lambda image, theta: stn_kernels.projective_sample(image, theta, image.shape[2:]),
            (theta,),
        )
        grid = F.affine_grid(thetas(batch), list(shape), align_corners=False)
        yield Case("grid", shape, compositions.grid, stn_kernels.grid_sample, (grid,))
        shift = 0.05 * torch.randn(batch, 2, *size, generator=generator)
        yield Case(
            "displacement",
            shape,
            lambda image, shift, target=target: compositions.displacement(image, shift, target),
            lambda image, shift: stn_kernels.displacement_sample(image, shift, unit="normalized"),
            (shift,),
        )
        planes = torch.randn(8, *size, generator=generator)
        coefficients = 0.2 * torch.randn(batch, 2, 8, generator=generator)
        yield Case("basis", shape, compositions.basis, stn_kernels.basis_sample, (coefficients, planes))
        control = torch.cartesian_prod(*2 * [torch.linspace(-1, 1, 4)])

        def spline(image: Tensor, source: Tensor, control: Tensor, target: Tensor = target) -> Tensor:
            features = compositions.spline_features(control, target)  # control points have a gradient, too
            return compositions.spline(image, source, control, features, tuple(image.shape[2:]))

        source = control + 0.05 * torch.randn(batch, 16, 2, generator=generator)
        yield Case(
            "tps",
            shape,
            spline,
            lambda image, source, control: stn_kernels.tps_sample(
                image, source, image.shape[2:], target_points=control
            ),
            (source, control),
        )
    yield from spline_cases()


def spline_cases() -> Iterator[Case]:
    """25 fixed target points: beside the paper's T = M B with B, a spline for each point, made beforehand;
    and beside kornia where it is installed, whose spline is another (`implementations.kornia`)."""
    control = torch.cartesian_prod(*2 * [torch.linspace(-0.9, 0.9, 5)])
    unit = torch.eye(25).unsqueeze(-1).expand(-1, -1, 2)  # the k-th warp takes point k to (1, 1), others to 0
    for shape in [(32, 1, 128, 128), (32, 3, 128, 128)]:
        size = shape[2:]
        features = compositions.spline_features(control, compositions.target_points(size, torch.empty(0)))
        splines = features @ tps_weights(unit, control)[:, 0].mT  # (pixels, 25)
        source = control + 0.05 * torch.randn(shape[0], 25, 2, generator=torch.Generator().manual_seed(0))

        def peer(image: Tensor, source: Tensor, splines: Tensor = splines) -> Tensor:
            return compositions.sampled(image, splines @ source, tuple(image.shape[2:]))

        def quicker_peer(image: Tensor, source: Tensor, splines: Tensor = splines) -> Tensor:
            """One product for the whole batch: x and y lie apart, as the library has them, too."""
            planes = source.mT.flatten(0, 1) @ splines.mT
            points = planes.unflatten(0, (-1, 2)).mT.unflatten(1, image.shape[2:])
            return F.grid_sample(image, points, align_corners=False)

        def own(image: Tensor, source: Tensor) -> Tensor:
            return stn_kernels.tps_sample(image, source, image.shape[2:], target_points=control)

        yield Case("tps, T = M B", shape, peer, own, (source,))
        yield Case("tps, planes", shape, quicker_peer, own, (source,))
        kornia = implementations.kornia(cases.Case("splines", shape, cases.RANDOM, "tps", points=25), control)
        if kornia is not None:
            yield Case("tps, kornia", shape, kornia, own, (source,), same=False)


def seconds(call: Callable[..., Tensor], tensors: Tensors, grad: Tensor | None) -> float:
    for tensor in tensors:
        tensor.grad = None
    start = time.perf_counter()
    output = call(*tensors)
    if grad is not None:
        output.backward(grad)
    return time.perf_counter() - start


def compare(case: Case, backward: bool, repeats: int) -> tuple[float, float, float]:
    """Median times of PyTorch and ours, in seconds, and the median of the paired ratios."""
    last = torch.channels_last if len(case.shape) == 4 else torch.channels_last_3d
    layout = last if case.channels_last else torch.contiguous_format
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(case.shape, generator=generator).contiguous(memory_format=layout)
    tensors = [t.detach().clone().requires_grad_(backward) for t in (image, *case.parameters)]
    with torch.no_grad():
        peer, own = case.peer(*tensors), case.own(*tensors)
    if case.same:
        torch.testing.assert_close(own, peer, atol=1e-2, rtol=1e-2)  # the same computation, roundings apart
    grad = torch.randn(own.shape, generator=generator) if backward else None
    pairs = []
    with torch.set_grad_enabled(backward):
        for repeat in range(-3, repeats):  # the first few warm up
            order = (case.peer, case.own) if repeat % 2 else (case.own, case.peer)
            times = {call: seconds(call, tuple(tensors), grad) for call in order}
            if repeat >= 0:
                pairs.append((times[case.peer], times[case.own]))
    medians = [statistics.median(p[i] for p in pairs) for i in (0, 1)]
    return medians[0], medians[1], statistics.median(b / a for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, help="pairs per case; by default 50 to 1000")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    heading = f"{'case':14} {'N x C x size':>19}  {'layout':14} {'direction':16}"
    print(f"{heading} {'PyTorch':>11} {'ours':>11} {'ratio':>6}")
    for case in (*affine_cases(), *other_cases()):
        if arguments.only not in case.name:
            continue
        elements = torch.Size(case.shape).numel()
        for backward in (False, True):
            repeats = arguments.repeats or max(50, min(1000, 2**27 // elements))
            peer, own, ratio = compare(case, backward, repeats)
            layout = "channels-last" if case.channels_last else "channels-first"
            direction = "forward+backward" if backward else "forward"
            row = f"{case.name:14} {' x '.join(map(str, case.shape)):>19}  {layout:14} {direction:16}"
            row += f" {peer * 1e6:8.0f} us {own * 1e6:8.0f} us {ratio:6.2f}"
            print(row if elements >= LARGE else f"{row}  {(own - peer) * 1e6:+.0f} us", flush=True)


if __name__ == "__main__":
    main()
