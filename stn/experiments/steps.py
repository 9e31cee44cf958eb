"""Training steps: sent to the device kernel by kernel, or replayed as one CUDA graph."""

from collections.abc import Callable

import torch
from torch import Tensor

BEFORE_CAPTURE = 3
Loss = Callable[[Tensor, Tensor], Tensor]  # of images and targets


class Step:
    """One batch after another.

    Args:
        loss: of a batch, differentiable in what the optimiser holds.
        optimiser: takes a step for each batch.
    """

    def __init__(self, loss: Loss, optimiser: torch.optim.Optimizer) -> None:
        self.loss = loss
        self.optimiser = optimiser

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Take a step; the batch's loss, valid until the next step."""
        return self._take(images, targets)

    def _take(self, images: Tensor, targets: Tensor) -> Tensor:
        self.optimiser.zero_grad()
        loss = self.loss(images, targets)
        loss.backward()
        self.optimiser.step()
        return loss.detach()


class CapturedStep(Step):
    """The same on a CUDA device, where sending the kernels of a small network takes longer than running them.

    The first steps are sent kernel by kernel, which compiles and allocates all that is needed. Then the step
    is captured, and from there on each batch, of the first one's shape and dtype, is copied to where the
    graph reads it. The optimiser's rates become tensors, to be filled and not replaced.
    """

    def __init__(self, loss: Loss, optimiser: torch.optim.Optimizer, device: torch.device) -> None:
        super().__init__(loss, optimiser)
        make_capturable(optimiser, device)
        self.left = BEFORE_CAPTURE
        self.stream = torch.cuda.Stream(device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.images = self.targets = self.found = torch.empty(0)

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        if self.left > 0:
            self.left -= 1
            return self._take_aside(images, targets)
        if self.graph is None:
            self._capture(images, targets)
        assert self.graph is not None
        self.images.copy_(images)
        self.targets.copy_(targets)
        self.graph.replay()
        return self.found

    def _take_aside(self, images: Tensor, targets: Tensor) -> Tensor:
        """On the stream of the capture: autograd remembers where gradients were first accumulated."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            loss = self._take(images, targets)
        current.wait_stream(self.stream)
        return loss

    def _capture(self, images: Tensor, targets: Tensor) -> None:
        self.images, self.targets = images.clone(), targets.clone()
        self.optimiser.zero_grad()  # so that the gradients, too, get places that belong to the graph
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            self.found = self._take(self.images, self.targets)


def make_capturable(optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """Let Adam or SGD take steps without the CPU: fused, the rate and the number of steps on the device."""
    for group in optimiser.param_groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
        group["fused"] = True
        if "capturable" in group:
            group["capturable"] = True
