"""Multi-scale deformable attention, the core of Deformable DETR (arXiv:2010.04159), without a CUDA extension.

It takes the arguments of `ms_deform_attn_core_pytorch` and returns the same, and is differentiable in
values, locations and weights. On a GPU the kernels sample without the extension having to be compiled; they
run where Triton does.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from stn_kernels import grid_sample


def deformable_attention(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """For each query and head, a weighted sum of samples from feature maps of several scales.

    Args:
        value: (N, S, M, D), the feature maps one after another: S is the sum of H W, M heads have D channels
            each.
        shapes: (H, W) of each of the L maps.
        locations: (N, Q, M, L, P, 2), P sampling points of each of Q queries in each map, x before y, from 0
            to 1.
        weights: (N, Q, M, L, P), of each sample, adding up to 1 over L and P.

    Returns:
        (N, Q, M D).
    """
    count, _, heads, channels = value.shape
    queries = locations.shape[1]
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (N M, Q, L, P, 2)
    weights = weights.transpose(1, 2).reshape(count * heads, 1, queries, -1)
    samples = []
    for level, (feature_map, (height, width)) in enumerate(
        zip(value.split([height * width for height, width in shapes], dim=1), shapes, strict=True)
    ):
        # The channels of a head stay side by side in memory, so that a kernel reads several of them at once.
        per_head = feature_map.transpose(1, 2).reshape(count * heads, height, width, channels)
        samples.append(grid_sample(per_head.permute(0, 3, 1, 2), grids[:, :, level], align_corners=False))
    total = (torch.cat(samples, dim=-1) * weights).sum(-1)  # (N M, D, Q, L P) -> (N M, D, Q)
    return total.view(count, heads * channels, queries).transpose(1, 2).contiguous()


def main() -> None:
    torch.manual_seed(0)
    shapes = [(16, 24), (8, 12), (4, 6)]
    value = torch.randn(2, sum(h * w for h, w in shapes), 8, 32, requires_grad=True)
    locations = torch.rand(2, 10, 8, len(shapes), 4, 2, requires_grad=True)
    weights = torch.randn(2, 10, 8, len(shapes) * 4).softmax(-1).unflatten(-1, (-1, 4)).requires_grad_()
    output = deformable_attention(value, shapes, locations, weights)
    output.square().mean().backward()
    reached = [t.grad is not None and bool(t.grad.any()) for t in (value, locations, weights)]
    print("output", tuple(output.shape), "- gradients reach values, locations, weights:", *reached)


if __name__ == "__main__":
    main()
