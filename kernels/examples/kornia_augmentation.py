"""kornia's geometric augmentations (kornia 0.8 and later) with the kernels as their warp.

kornia draws the parameters, and knows what became of boxes and keypoints; only how pixels are sampled
changes, in one method. So the classes go where kornia's went: in `AugmentationSequential`, with
`same_on_batch`, with `inverse`.
"""

from typing import Any

import torch
from kornia.augmentation import AugmentationSequential, RandomAffine, RandomPerspective, RandomRotation
from torch import Tensor

from stn_kernels import affine_sample, projective_sample


def normalised(matrix: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """kornia's matrix (N, 3, 3), from source to target, in pixels -> from target to source, normalised."""
    height, width = size
    x, y = (width - 1) / 2, (height - 1) / 2  # the centre
    half = (x, y) if align_corners else (width / 2, height / 2)
    to_pixels = matrix.new_tensor([[half[0], 0, x], [0, half[1], y], [0, 0, 1]])
    return torch.linalg.solve(matrix @ to_pixels, to_pixels.expand_as(matrix))


class Fused:
    """Put it before one of kornia's geometric augmentations of images in the list of bases."""

    projective = False

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        assert transform is not None
        size = (input.shape[2], input.shape[3])
        padding_mode = flags["padding_mode"].name.lower() if "padding_mode" in flags else "zeros"
        if padding_mode == "fill":
            raise NotImplementedError("kornia fades into its fill, stn_kernels does not")
        at_least_float32 = torch.promote_types(input.dtype, torch.float32)
        theta = normalised(transform.to(at_least_float32), size, flags["align_corners"])
        choices = {
            "mode": flags["resample"].name.lower(),
            "padding_mode": padding_mode,
            "align_corners": flags["align_corners"],
        }
        if self.projective:
            return projective_sample(input, theta, size, **choices)
        return affine_sample(input, theta[:, :2], size, **choices)


class FusedAffine(Fused, RandomAffine):
    pass


class FusedRotation(Fused, RandomRotation):
    pass


class FusedPerspective(Fused, RandomPerspective):
    projective = True


def main() -> None:
    images, corners = torch.rand(4, 3, 32, 48), torch.tensor([[[10.0, 8.0], [40.0, 20.0]]]).repeat(4, 1, 1)
    results = []
    for affine, perspective in ((RandomAffine, RandomPerspective), (FusedAffine, FusedPerspective)):
        augment = AugmentationSequential(
            affine(degrees=30.0, translate=(0.1, 0.1), scale=(0.8, 1.2), p=1.0),
            perspective(0.3, p=1.0),
            data_keys=["input", "keypoints"],
        )
        torch.manual_seed(0)
        results.append(augment(images, corners))
    for what, ours, theirs in zip(("images", "keypoints"), *results, strict=True):
        print(f"{what} as kornia has them:", torch.allclose(ours, theirs, atol=1e-3))


if __name__ == "__main__":
    main()
