"""Someone's model that calls `grid_sample`, with the kernels by one import; then without the grid.

The model is the transformer of PyTorch's tutorial on spatial transformer networks. `from torch.nn.functional
import grid_sample` became the line below, and nothing else changed: arguments, defaults, values and
gradients are the same. Of a model that calls `F.grid_sample`, change the call. `torch.nn.functional` itself
stays as it is: others use it.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid

from stn_kernels import affine_sample, grid_sample


class Transformer(nn.Module):
    """Images (N, 1, 28, 28) -> the same, as the network saw fit to look at them."""

    def __init__(self) -> None:
        super().__init__()
        self.localization = nn.Sequential(
            nn.Conv2d(1, 8, 7), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(8, 10, 5), nn.MaxPool2d(2), nn.ReLU()
        )
        self.fc_loc = nn.Sequential(nn.Flatten(), nn.Linear(10 * 3 * 3, 32), nn.ReLU(), nn.Linear(32, 6))
        head = self.fc_loc[-1]
        assert isinstance(head, nn.Linear)
        nn.init.zeros_(head.weight)
        head.bias.data = torch.tensor([1.0, 0, 0, 0, 1, 0])

    def theta(self, x: Tensor) -> Tensor:
        return self.fc_loc(self.localization(x)).view(-1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        grid = affine_grid(self.theta(x), list(x.shape), align_corners=False)
        return grid_sample(x, grid, align_corners=False)


class FusedTransformer(Transformer):
    """The same, of the same weights, without a grid in memory: the kernel applies theta where it samples."""

    def forward(self, x: Tensor) -> Tensor:
        return affine_sample(x, self.theta(x), x.shape[2:])


def main() -> None:
    torch.manual_seed(0)
    model, fused = Transformer(), FusedTransformer()
    fused.load_state_dict(model.state_dict())
    x = torch.rand(4, 1, 28, 28)
    print("the same with and without a grid:", torch.allclose(model(x), fused(x), atol=1e-5))


if __name__ == "__main__":
    main()
