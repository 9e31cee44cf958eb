"""The CPU path beside PyTorch's two calls: affine_sample against affine_grid with grid_sample.

    python kernels/benchmarks/cpu_path.py [--repeats N]

One thread, eager, paired: the two take turns within one process, and the ratio is the median over the pairs.
Below 2^18 elements a call's fixed cost dominates, so the difference in microseconds is given as well.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from stn_kernels import affine_sample

SHAPES = [  # (N, C, H, W): launch-bound, digits, photographs, feature maps
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
]
LARGE = 2**18  # elements from which on the ratio counts


def pytorch(image: Tensor, theta: Tensor) -> Tensor:
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, align_corners=False)


def ours(image: Tensor, theta: Tensor) -> Tensor:
    return affine_sample(image, theta, (image.shape[2], image.shape[3]))


def seconds(
    call: Callable[[Tensor, Tensor], Tensor], image: Tensor, theta: Tensor, grad: Tensor | None
) -> float:
    image.grad = theta.grad = None
    start = time.perf_counter()
    output = call(image, theta)
    if grad is not None:
        output.backward(grad)
    return time.perf_counter() - start


def compare(
    shape: tuple[int, ...], channels_last: bool, backward: bool, repeats: int
) -> tuple[float, float, float]:
    """Median times of PyTorch and ours, in seconds, and the median of the paired ratios."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(shape, generator=generator).contiguous(memory_format=layout)
    theta = torch.eye(2, 3) + 0.2 * torch.randn(shape[0], 2, 3, generator=generator)
    if backward:
        image.requires_grad_()
        theta.requires_grad_()
    grad = torch.randn(shape, generator=generator) if backward else None
    pairs = []
    with torch.set_grad_enabled(backward):
        for repeat in range(-3, repeats):  # the first few warm up
            first, second = (pytorch, ours) if repeat % 2 else (ours, pytorch)
            times = {call: seconds(call, image, theta, grad) for call in (first, second)}
            if repeat >= 0:
                pairs.append((times[pytorch], times[ours]))
    peer, own = (statistics.median(p[i] for p in pairs) for i in (0, 1))
    return peer, own, statistics.median(b / a for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, help="pairs per case; by default 50 to 1000")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'N x C x H x W':>18}  {'layout':14} {'direction':16} {'PyTorch':>11} {'ours':>11} {'ratio':>6}")
    for shape in SHAPES:
        elements = torch.Size(shape).numel()
        for channels_last in (False, True) if shape[1] > 1 else (False,):
            for backward in (False, True):
                repeats = arguments.repeats or max(50, min(1000, 2**27 // elements))
                peer, own, ratio = compare(shape, channels_last, backward, repeats)
                layout = "channels-last" if channels_last else "channels-first"
                direction = "forward+backward" if backward else "forward"
                row = f"{' x '.join(map(str, shape)):>18}  {layout:14} {direction:16}"
                row += f" {peer * 1e6:8.0f} us {own * 1e6:8.0f} us {ratio:6.2f}"
                print(row if elements >= LARGE else f"{row}  {(own - peer) * 1e6:+.0f} us", flush=True)


if __name__ == "__main__":
    main()
