"""What Dynamo takes as it is, since it cannot trace an autograd.Function with a jvp.

To say so imports Dynamo, which takes a second: import this only while it compiles.
"""

from typing import Any

import torch
from torch import Tensor

from .autograd import Choices, Sample
from .reference import Size
from .splatting import Splat


@torch.compiler.allow_in_graph
def sample(
    input: Tensor, parameters: Tensor, shared: Tensor | None, fill: Tensor | None, *choices: Any
) -> Tensor:
    """`Sample`, of the choices as they come."""
    return Sample.apply(input, parameters, shared, fill, *Choices.of(choices).flat())


@torch.compiler.allow_in_graph
def splat(values: Tensor, grid: Tensor, images: int, size: Size, *choices: Any) -> Tensor:
    """`Splat`, of the choices as they come."""
    return Splat.apply(values, grid, images, *Choices.of(choices).flat(), *size)
