"""The spatial transformer: localisation network, grid generator and sampler (section 3, figure 2)."""

from collections.abc import Sequence
from typing import Literal, overload

from torch import Tensor, nn

from stn.transforms import Transform
from stn_kernels.checks import check_choices, check_size


class SpatialTransformer(nn.Module):
    """Looks at its input, decides where to look, and samples there. Assembled by hand in chapter 06.

    Args:
        localisation: maps the input (N, C, H, W) to theta (N, transform.num_parameters).
        transform: what theta means.
        size: (H', W') of the output.
        padding_mode: "zeros", "border" or "reflection": what lies outside the input.
        align_corners: whether -1 and 1 are the centres (True) or the outer edges (False) of border pixels.

    Raises TypeError or ValueError naming `size`, `padding_mode` or `align_corners` if it is none of these.
    """

    def __init__(
        self,
        localisation: nn.Module,
        transform: Transform,
        size: Sequence[int],
        *,
        padding_mode: str = "zeros",
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.localisation = localisation
        self.transform = transform
        self.size = check_size(size, "size")
        check_choices("bilinear", padding_mode, align_corners)
        self.padding_mode = padding_mode
        self.align_corners = align_corners

    @overload
    def forward(self, input: Tensor, return_theta: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, input: Tensor, return_theta: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(self, input: Tensor, return_theta: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """V, (N, C, H', W'), differentiable in input and localisation parameters; and theta if asked.

        Raises ValueError naming `localisation` if what it returned is not (N, num_parameters), and what
        `stn_kernels.affine_sample` raises for a bad input.
        """
        theta = self.localisation(input)
        expected = (input.shape[0], self.transform.num_parameters)
        if theta.shape != expected:
            raise ValueError(
                f"localisation should return {expected}, (N, num_parameters) of {self.transform}, "
                f"not {tuple(theta.shape)}"
            )
        output = self.transform.sample(
            input, theta, self.size, padding_mode=self.padding_mode, align_corners=self.align_corners
        )
        return (output, theta) if return_theta else output

    def extra_repr(self) -> str:
        return (
            f"transform={self.transform}, size={self.size}, padding_mode={self.padding_mode!r}, "
            f"align_corners={self.align_corners}"
        )
