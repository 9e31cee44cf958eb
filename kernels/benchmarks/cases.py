"""The cases of the GPU benchmark: what is warped, by what, and how.

A transform is given by theta; each operation gets it in its own terms: a grid, displacements, source points.
The same theta therefore moves the same bytes of the image whatever the operation.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from stn_kernels.reference import Size

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LAYOUTS = ("channels-first", "channels-last")
DIRECTIONS = ("forward", "backward", "backward of theta")
FORWARD, BACKWARD, OF_THETA = DIRECTIONS
TRANSFORMS = ("identity", "rotation by 45 degrees", "zoom x8", "shrink x4", "random")
IDENTITY, ROTATION, ZOOM, SHRINK, RANDOM = TRANSFORMS


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    shape: tuple[int, ...]  # of the image
    transform: str = IDENTITY
    operation: str = "affine"
    layout: str = "channels-first"
    dtype: str = "float32"
    size: Size | None = None  # of the output, if not the image's
    transforms: int = 1  # of each image
    points: int = 0  # of a spline

    @property
    def output_size(self) -> Size:
        return self.size or self.shape[2:]

    @property
    def axes(self) -> int:
        return len(self.shape) - 2

    def image(self, device: torch.device, fill: bool = True) -> Tensor:
        last = torch.channels_last if self.axes == 2 else torch.channels_last_3d
        layout = last if self.layout == "channels-last" else torch.contiguous_format
        image = torch.empty(self.shape, dtype=DTYPES[self.dtype], device=device, memory_format=layout)
        return image.normal_(generator=torch.Generator(device).manual_seed(0)) if fill else image

    def parameters(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """What the operation takes for each image, and what its transforms share. float32 beside any image,
        as under autocast."""
        generator = torch.Generator().manual_seed(0)
        if self.operation == "affine":
            return self.thetas().to(device), None
        if self.operation == "tps":
            rows = math.isqrt(self.points)
            control = torch.cartesian_prod(*2 * [torch.linspace(-1, 1, rows)])
            theta = self.thetas()
            source = control @ theta[:, :, :2].mT + theta[:, None, :, 2]
            if self.transform == RANDOM:
                source = control + 0.5 / rows * torch.randn(source.shape, generator=generator)
            return source.to(device), control.to(device)
        grid = self.grid(generator)
        if self.operation == "displacement":
            shape = [len(grid), 1, *self.output_size]
            identity = torch.eye(self.axes, self.axes + 1).expand(len(grid), -1, -1)
            shift = grid - F.affine_grid(identity, shape, align_corners=False)
            return shift.movedim(-1, 1).contiguous().to(device), None
        return grid.to(device), None

    def thetas(self) -> Tensor:
        """(N, axes, axes + 1), with T transforms (N, T, ...): turned a little further each. "random" is near
        the identity here: what has so few parameters cannot be at random at every pixel."""
        batch, axes, count = self.shape[0], self.axes, self.transforms
        turn = {ROTATION: math.pi / 4}.get(self.transform, 0.0)
        scale = {ZOOM: 1 / 8, SHRINK: 4.0}.get(self.transform, 1.0)
        angles = turn + 0.1 * torch.arange(count) / count
        rotation = torch.eye(axes).repeat(count, 1, 1)
        rotation[:, 0, 0] = rotation[:, 1, 1] = angles.cos()
        rotation[:, 0, 1], rotation[:, 1, 0] = -angles.sin(), angles.sin()
        theta = torch.cat([scale * rotation, torch.zeros(count, axes, 1)], 2).repeat(batch, 1, 1, 1)
        if self.transform == RANDOM:
            generator = torch.Generator().manual_seed(1)
            theta = theta + 0.2 * torch.randn(theta.shape, generator=generator)
        return theta if count > 1 else theta[:, 0].contiguous()

    def grid(self, generator: torch.Generator) -> Tensor:
        """(N, *size, axes). At random: each pixel anywhere, or, displaced, by 3 % of the image."""
        batch, axes = self.shape[0], self.axes
        if self.transform == RANDOM and self.operation == "grid":
            return 2 * torch.rand(batch, *self.output_size, axes, generator=generator) - 1
        theta = dataclasses.replace(self, transforms=1, transform=self.transform).thetas()
        if self.transform == RANDOM:
            theta = torch.eye(axes, axes + 1).repeat(batch, 1, 1)
        grid = F.affine_grid(theta, [batch, 1, *self.output_size], align_corners=False)
        noise = 0.03 * torch.randn(grid.shape, generator=generator) if self.transform == RANDOM else 0.0
        return grid + noise


LAUNCH_BOUND = Case("launch-bound", (8, 3, 32, 32))
PHOTOGRAPHS = Case("photographs", (16, 3, 1024, 1024))
FEATURES = Case("feature maps", (32, 64, 128, 128), layout="channels-last")
DEEP_FEATURES = Case("feature maps", (32, 256, 56, 56), layout="channels-last")
DETECTION = Case("detection", (42, 128, 120, 160), RANDOM, "grid", "channels-last", size=(1, 10_000))
VOLUME = Case("volumes", (2, 1, 128, 128, 128))
DEEP_VOLUME = Case("volumes", (2, 16, 64, 64, 64), layout="channels-last")
SPLINE = Case("splines", (16, 3, 512, 512), RANDOM, "tps", points=16)
DISPLACED = Case("displacements", (16, 3, 512, 512), RANDOM, "displacement")
DISPLACED_VOLUME = Case("displacements", (2, 1, 128, 128, 128), RANDOM, "displacement")
SEVERAL = Case("T = 4", (16, 3, 256, 256), ROTATION, transforms=4)
SEVERAL_FEATURES = Case("T = 4", (32, 64, 56, 56), ROTATION, layout="channels-last", transforms=4)


def core_cases() -> Iterator[Case]:
    """One after another what decides: in each group the usual case first, then the hard ones."""
    vary = dataclasses.replace
    yield LAUNCH_BOUND
    yield from (vary(PHOTOGRAPHS, transform=t) for t in TRANSFORMS[:4])
    yield vary(PHOTOGRAPHS, operation="grid", transform=RANDOM)
    for base, layout, transform in itertools.product((FEATURES, DEEP_FEATURES), LAYOUTS, TRANSFORMS[:2]):
        yield vary(base, layout=layout, transform=transform)
    for transform in (ZOOM, SHRINK):
        yield vary(FEATURES, transform=transform)
    yield vary(FEATURES, operation="grid", transform=RANDOM)
    yield DETECTION
    yield from (vary(VOLUME, transform=t) for t in TRANSFORMS[:2])
    yield vary(VOLUME, operation="grid", transform=RANDOM)
    yield from (vary(DEEP_VOLUME, transform=t) for t in TRANSFORMS[:2])
    yield SPLINE
    yield vary(SPLINE, points=100)
    yield DISPLACED
    yield DISPLACED_VOLUME
    yield SEVERAL
    yield SEVERAL_FEATURES
    for dtype in ("float16", "bfloat16"):
        yield vary(PHOTOGRAPHS, dtype=dtype)
        yield vary(FEATURES, dtype=dtype)


def all_cases() -> Iterator[Case]:
    """The core, then every base under every transform, layout and dtype."""
    core = list(core_cases())
    yield from core
    bases = {dataclasses.replace(c, transform=IDENTITY, layout=LAYOUTS[0], dtype="float32") for c in core}
    for base in sorted(bases, key=lambda b: (b.name, b.shape, b.operation, b.points)):
        for dtype, layout, transform in itertools.product(DTYPES, LAYOUTS, TRANSFORMS):
            case = dataclasses.replace(base, transform=transform, layout=layout, dtype=dtype)
            if case not in core:
                yield case


def smoke_cases() -> Iterator[Case]:
    """A case of every kind, small enough for Triton's interpreter. Their times mean nothing."""
    vary = dataclasses.replace
    kinds = [LAUNCH_BOUND, vary(PHOTOGRAPHS, transform=ROTATION, dtype="float16"), DETECTION]
    for case in (*kinds, VOLUME, SPLINE, DISPLACED, SEVERAL_FEATURES):
        size = (4, 6) if case.axes == 2 else (2, 3, 4)
        yield vary(case, shape=(2, min(case.shape[1], 4), *size), size=case.size and (1, 10))
