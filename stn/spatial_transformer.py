"""The spatial transformer: localisation network, grid generator and sampler (section 3, figure 2)."""

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from stn.coarse_to_fine import check_scales, sample_coarse_to_fine
from stn.transforms import MatrixTransform, Transform
from stn_kernels.checks import check_choices, check_size


class _Sampler(nn.Module):
    """What samples an input by a transform, and how: the choices that all transformers share."""

    def __init__(
        self,
        transform: Transform,
        size: Sequence[int],
        *,
        mode: str = "bilinear",
        padding_mode: str = "zeros",
        align_corners: bool = False,
        antialias: bool = False,
    ) -> None:
        super().__init__()
        self.transform = transform
        self.size = check_size(size, "size", transform.axes)
        check_choices(mode, padding_mode, align_corners)
        if not isinstance(antialias, bool):
            raise TypeError(f"antialias should be True or False, not {antialias!r}")
        self.mode = mode
        self.padding_mode = padding_mode
        self.align_corners = align_corners
        self.antialias = antialias

    def options(self) -> dict[str, Any]:
        """The keywords of `sample`."""
        names = ("mode", "padding_mode", "align_corners", "antialias")
        return {name: getattr(self, name) for name in names}

    def extra_repr(self) -> str:
        described = "" if isinstance(self.transform, nn.Module) else f"transform={self.transform}, "
        defaults = {"mode": "bilinear", "antialias": False}
        options = [f"{k}={v!r}" for k, v in self.options().items() if v != defaults.get(k, ...)]
        return f"{described}size={self.size}, " + ", ".join(options)


class SpatialTransformer(_Sampler):
    """Looks at its input, decides where to look, and samples there. Assembled by hand in chapter 06.

    Args:
        localisation: maps the input (N, C, H, W) to theta (N, transform.num_parameters); or to (N, T,
            transform.num_parameters) for T transforms side by side, which all look at the one input: see
            `start` of `stn.Localisation`. Chapter 13.
        transform: what theta means.
        size: (H', W') of the output, in three dimensions (D', H', W').
        mode: the sampling kernel, as in `stn_kernels.grid_sample`.
        padding_mode: what lies outside the input, likewise.
        align_corners: whether -1 and 1 are the centres (True) or the outer edges (False) of border pixels.
        antialias: average over each output pixel's footprint where the transform shrinks. Chapter 14.
        canvas: a number, or a tensor that broadcasts to the output: what shows where the transform leaves the
            input, see `Transform.sample_over`; padding_mode stays "zeros". None for none.
        gradient_scales: half-widths, in pixels of the input, of blurs through which theta's gradient sees as
            well as through the input itself, see `stn.sample_coarse_to_fine`. Chapter 14. Values do not
            change.

    Raises TypeError or ValueError naming the argument that is none of these.
    """

    canvas: Tensor | None

    def __init__(
        self,
        localisation: nn.Module,
        transform: Transform,
        size: Sequence[int],
        *,
        canvas: Tensor | float | None = None,
        gradient_scales: Sequence[int] = (),
        **options: Any,
    ) -> None:
        super().__init__(transform, size, **options)
        self.localisation = localisation
        if canvas is not None and self.padding_mode != "zeros":
            raise ValueError(f"padding_mode should be 'zeros' beside a canvas, not {self.padding_mode!r}")
        self.register_buffer("canvas", None if canvas is None else torch.as_tensor(canvas), persistent=False)
        self.gradient_scales = check_scales(gradient_scales, "gradient_scales")
        if self.gradient_scales and canvas is not None:
            raise ValueError("gradient_scales should be () beside a canvas")

    @overload
    def forward(self, input: Tensor, return_theta: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, input: Tensor, return_theta: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(self, input: Tensor, return_theta: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """V, (N, C, H', W'), with T transforms (N, T, C, H', W'), differentiable in input and localisation
        parameters; and theta if asked.

        Raises ValueError naming `localisation` if what it returned is not (N, num_parameters) or (N, T,
        num_parameters), and what `stn_kernels.affine_sample` raises for a bad input.
        """
        theta = self.localisation(input)
        count = self.transform.num_parameters
        if theta.ndim not in (2, 3) or (theta.shape[0], theta.shape[-1]) != (input.shape[0], count):
            raise ValueError(
                f"localisation should return {input.shape[0], count}, (N, num_parameters) of "
                f"{self.transform}, or (N, T, num_parameters), not {tuple(theta.shape)}"
            )
        output = self._sample(input, theta)
        return (output, theta) if return_theta else output

    def _sample(self, input: Tensor, theta: Tensor) -> Tensor:
        options = self.options()
        if self.canvas is not None:
            del options["padding_mode"]
            return self.transform.sample_over(self.canvas.to(input), input, theta, self.size, **options)
        if self.gradient_scales:
            scales = self.gradient_scales
            return sample_coarse_to_fine(self.transform, input, theta, self.size, scales, **options)
        return self.transform.sample(input, theta, self.size, **options)


class InverseCompositional(_Sampler):
    """Looks several times: each look corrects the last, and all sample the input itself (Lin and Lucey, CVPR
    2017). Chapter 13.

    Step by step the localisation network sees the input as it has been warped so far, and says how to warp
    that further; the two warps are composed to one, T_k = T_(k - 1) after T_theta. Nothing is resampled
    twice, so nothing is blurred twice, and what one step pushed over the border another can fetch back.

    Args:
        localisation: maps (N, C, H, W) to theta (N, num_parameters): one network that is asked at each of
            `steps` steps, or a sequence of networks, one for each step.
        transform: a family of matrices. Their products need not belong to it.
        size: (H', W') of the output. The localisation network sees warps of the input's own size.
        steps: how many; needed for one network, and for a sequence their number if given.
        options: mode, padding_mode, align_corners and antialias, as in `SpatialTransformer`.

    Raises TypeError or ValueError naming the argument that is none of these.
    """

    transform: MatrixTransform

    def __init__(
        self,
        localisation: nn.Module | Sequence[nn.Module],
        transform: MatrixTransform,
        size: Sequence[int],
        *,
        steps: int | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(transform, MatrixTransform):
            raise TypeError(f"transform should be a family of matrices, not {transform!r}")
        super().__init__(transform, size, **options)
        networks: list[nn.Module]
        if isinstance(localisation, nn.ModuleList) or not isinstance(localisation, nn.Module):
            shared, networks = False, list(localisation)
        else:
            shared, networks = True, [localisation]
        self.localisation = nn.ModuleList(networks)
        self.steps = len(networks) if steps is None and not shared else steps
        if isinstance(self.steps, bool) or not isinstance(self.steps, int):
            raise TypeError(f"steps should be an integer beside one localisation network, not {steps!r}")
        if self.steps < 1 or (not shared and self.steps != len(networks)):
            expected = "at least 1" if shared else f"{len(networks)}, the number of networks"
            raise ValueError(f"steps should be {expected}, not {steps}")

    @overload
    def forward(self, input: Tensor, return_matrix: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, input: Tensor, return_matrix: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(self, input: Tensor, return_matrix: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """V, (N, C, H', W'); and the composed matrix, (N, 3, 3), in three dimensions (N, 4, 4), if asked."""
        matrix: Tensor | None = None
        for step in range(self.steps or 0):
            seen = input if matrix is None else self._sample(input, matrix, input.shape[2:])
            theta = self.localisation[step % len(self.localisation)](seen)
            further = self.transform.homogeneous(theta)
            matrix = further if matrix is None else matrix @ further
        assert matrix is not None
        output = self._sample(input, matrix, self.size)
        return (output, matrix) if return_matrix else output

    def _sample(self, input: Tensor, matrix: Tensor, size: Sequence[int]) -> Tensor:
        return self.transform.sample_matrix(input, matrix, size, **self.options())
