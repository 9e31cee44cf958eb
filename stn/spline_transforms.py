"""The thin plate spline as a family of transforms: theta moves control points. Chapter 12."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stn.spline_system import solve
from stn.thin_plate_spline import SplineMap, uniform_grid
from stn.transforms import SamplingOptions, Transform, check_lattice, check_positive
from stn_kernels import checks, sample
from stn_kernels.reference import compute_dtype

if TYPE_CHECKING:
    from typing_extensions import Unpack

PARAMETERIZATIONS = ("offsets", "absolute", "bounded")


class ThinPlateSpline(Transform):
    """The warp that takes K fixed target points to source points and bends least (section 3.2). Chapter 12.

    Target points c lie in the output and source points c' in the input, both in [-1, 1]. theta, (N, 2 K),
    holds two numbers for each, (x_1, y_1, x_2, y_2, ...), which mean

    - "offsets": c' = c + theta; the identity is 0;
    - "absolute": c' = theta; the identity is c;
    - "bounded": c' = bound tanh(theta), so that no source point leaves the bound; the identity is
      artanh(c / bound).

    Each starts exactly at the identity, since what is solved for is the displacement c' - c, and that is 0.
    (When bounded it is measured from bound tanh(artanh(c / bound)) as computed: c but for rounding.)
    Bounded points must start within the bound, where artanh is finite: a lattice with a span below it. Points
    on the image's border need a bound above 1, and may then leave the image by as much. Near the bound tanh
    is flat: at 0.9 of it a point moves 0.19 times as fast as in the middle.

    Args:
        control_points: (rows, columns) of a lattice of target points, row by row from the top left; or target
            points of one's own, a tensor (K, 2), x first: at least three, distinct, not all on a line.
        span: the lattice reaches from -span to span in x and y; beyond it the warp extrapolates. Points of
            one's own are not scaled.
        parameterization: "offsets", "absolute" or "bounded".
        regularization: lambda. 0 takes target points to source points; the larger, the nearer the warp is to
            the affine map that fits best. The identity stays the identity.
        bound: of "bounded"; others ignore it.

    Raises TypeError or ValueError naming the argument that is none of these.

    What of the solve depends on the target points alone is done here, once; each theta then takes one product
    of small matrices. `spline(theta).bending_energy()` and `fold_penalty` may be added to a loss.
    """

    def __init__(
        self,
        control_points: Sequence[int] | Tensor = (4, 4),
        *,
        span: float = 0.9,
        parameterization: str = "offsets",
        regularization: float = 0.0,
        bound: float = 1.0,
    ) -> None:
        self.parameterization = checks.check_name(parameterization, "parameterization", PARAMETERIZATIONS)
        self.regularization = checks.check_regularization(regularization)
        self.bound = check_positive(bound, "bound")
        span = check_positive(span, "span")
        if isinstance(control_points, Tensor):
            points = _checked_points(control_points)
            self._layout = f"<{len(points)} points>"
        else:
            rows, columns = check_lattice(control_points, "control_points", ", or a tensor (K, 2)")
            points = span * uniform_grid((rows, columns), align_corners=True).flatten(0, 1)
            self._layout = f"({rows}, {columns}), span={span:g}"
        self.num_parameters = points.numel()
        # Float32 numbers, as the identity's are, in float64: theta of either dtype starts at the identity.
        points = points.float().double()
        self._constants = points, self._start(points), self._cardinal(points)
        self._copies: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor, Tensor]] = {}

    @classmethod
    def text_borders(cls, columns: int = 10, **options: Any) -> ThinPlateSpline:
        """Two rows of control points, as in text recognition: one along the upper border of a line of text,
        one along the lower, each from left to right. What lies between two curves is drawn out straight, or
        nearly so.

        Args:
            columns: points of each row.
            options: as for the class; at -span and span lie the borders and the ends.
        """
        return cls((2, columns), **options)

    @property
    def target_points(self) -> Tensor:
        """c, (K, 2) float32."""
        return self._constants[0].float()

    def identity(self) -> Tensor:
        return self._constants[1].float()

    def source_points(self, theta: Tensor) -> Tensor:
        """c', (N, K, 2): where in the input the target points are sampled, unless regularization keeps the
        warp from it."""
        return self._beside(theta)[0] + self._displacement(theta)

    def weights(self, theta: Tensor) -> Tensor:
        """(N, 2, K + 3): w, a_x, a_y and a_0, the parameters of the coordinate map "tps" in
        `stn_kernels.sample`.

        float64 for float64, else float32.
        """
        displacement, cardinal = self._displacement(theta), self._beside(theta)[2]
        with torch.autocast(theta.device.type, enabled=False):  # half precision would misplace pixels
            weights = displacement.mT @ cardinal
        identity = torch.eye(2, 3, dtype=weights.dtype, device=weights.device)
        return weights + nn.functional.pad(identity, (cardinal.shape[-1] - 3, 0))

    def spline(self, theta: Tensor) -> SplineMap:
        """The N warps, to look at: `stn.thin_plate_spline` has their Jacobian, bending energy, folds,
        inverse."""
        points = self._beside(theta)[0]
        weights, affine = self.weights(theta).mT.split([len(points), 3], -2)
        return SplineMap(points, weights, affine)

    def grid(self, theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
        return self.spline(theta).grid(size, align_corners)

    def jacobian(self, theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
        lattice = uniform_grid(size, align_corners=align_corners).flatten(0, 1)
        spline = self.spline(theta)
        return spline.jacobian(lattice.to(spline.weights)).unflatten(-3, tuple(size))

    def sample(
        self, input: Tensor, theta: Tensor, size: Sequence[int], **options: Unpack[SamplingOptions]
    ) -> Tensor:
        checks.check_image(input)
        self.check(theta)
        checks.check_parameters(theta, "theta", input, (self.num_parameters,))
        checks.check_device(theta, "theta", input)
        theta = checks.check_dtype(theta, "theta", input)
        output = sample(
            input,
            self.weights(theta).flatten(0, -3),
            size,
            coordinate_map="tps",
            shared=self._beside(theta)[0],
            **options,
        )
        return output.unflatten(0, theta.shape[:-1])

    def fold_penalty(self, theta: Tensor, size: Sequence[int] = (16, 16), margin: float = 0.0) -> Tensor:
        """(N,): by how much the determinant of the Jacobian falls short of `margin`, averaged over a lattice
        of `size` points, (rows, columns), on [-1, 1]. Differentiable in theta.

        With a margin of 0 it is 0 unless the warp folds or turns over. A larger margin also limits how far it
        magnifies: areas of the output are read from at least `margin` times as much of the input.
        """
        lattice = uniform_grid(size, align_corners=True).flatten(0, 1)
        spline = self.spline(theta)
        return (margin - spline.determinant(lattice.to(spline.points))).relu().mean(-1)

    def _start(self, points: Tensor) -> Tensor:
        """The identity's theta, of float32 numbers."""
        if self.parameterization == "offsets":
            return torch.zeros_like(points).flatten()
        if self.parameterization == "absolute":
            return points.flatten()
        largest = points.abs().amax().item()
        if largest >= self.bound:
            raise ValueError(
                f"bound should be larger than the control points' largest coordinate {largest:g}, not "
                f"{self.bound:g}: artanh is infinite there"
            )
        return (points / self.bound).atanh().flatten().float().double()

    def _cardinal(self, points: Tensor) -> Tensor:
        """(K, K + 3): row k holds the weights of the spline that is 1 at point k and 0 at the others. Any
        other spline is the sum of these, times its values."""
        unit = torch.eye(len(points)).to(points)
        return torch.cat(solve(points, unit, self.regularization, "control_points")).mT.contiguous()

    def _displacement(self, theta: Tensor) -> Tensor:
        """c' - c, (N, K, 2)."""
        self.check(theta)
        theta = theta.to(compute_dtype(theta))
        start = self._beside(theta)[1]
        if self.parameterization == "bounded":
            moved = self.bound * (theta.tanh() - start.tanh())
        else:
            moved = theta - start
        return moved.unflatten(-1, (-1, 2))

    def _beside(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Target points, start and cardinal weights on theta's device, in the dtype that its warp is computed
        in. Copied there once."""
        key = theta.device, compute_dtype(theta)
        if key in self._copies:
            return self._copies[key]
        with torch.inference_mode(False):  # else autograd could not use them later
            points, start, cardinal = (constant.to(*key, copy=True) for constant in self._constants)
        if type(points) is Tensor:  # not the stand-in of a tracer
            self._copies[key] = points, start, cardinal
        return points, start, cardinal

    def __getstate__(self) -> dict[str, Any]:
        """Without the copies, whose devices may not be there where this is read."""
        return {**self.__dict__, "_copies": {}}

    def __repr__(self) -> str:
        settings = f"{self._layout}, parameterization={self.parameterization!r}"
        if self.parameterization == "bounded" and self.bound != 1:
            settings += f", bound={self.bound:g}"
        if self.regularization:
            settings += f", regularization={self.regularization:g}"
        return f"{type(self).__name__}({settings})"


def _checked_points(points: Tensor) -> Tensor:
    checks.check_shape(points, "control_points", ("K", 2))
    if len(points) < 3:
        raise ValueError(f"control_points should be three or more, not {len(points)}")
    return points.detach().cpu()
