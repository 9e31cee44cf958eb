"""What runs where: fused Triton kernels, ATen, or the reference.

| tensors on | what runs |
| --- | --- |
| a GPU, with Triton | the fused kernels |
| the CPU | ATen where it computes the same thing, else the reference |
| the CPU, with TRITON_INTERPRET=1 set before the import | the fused kernels in Triton's interpreter |
| anything else | the reference |

Triton's interpreter is slow: it is for tests and for study.
"""

import importlib.util
import os

import torch
from torch.autograd import forward_ad

# Triton reads this variable when a kernel is decorated, so a later change has no effect.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")
# Whether CPU tensors run the interpreted kernels; False sends them to ATen even so.
interpret_cpu_tensors = INTERPRETED


NO_TRITON = (
    "the kernels of stn_kernels need Triton: on Linux, `pip install triton`; there is no official build "
    "for macOS or Windows. Every operation works without it, in plain PyTorch."
)


HAS_TRITON = importlib.util.find_spec("triton") is not None


def runs_kernels(device: torch.device) -> bool:
    """Whether operations on tensors of this device run the fused kernels."""
    return (device.type == "cuda" or (interpret_cpu_tensors and device.type == "cpu")) and HAS_TRITON


def result_format(input: torch.Tensor) -> torch.memory_format:
    """The memory format of an output sampled from `input`, and of its gradient.

    The kernels write channels-last where the input is. ATen writes contiguous tensors only, and to turn them
    round would cost the CPU more than a tenth of the sampling.
    """
    last = torch.channels_last if input.ndim == 4 else torch.channels_last_3d
    is_last = input.is_contiguous(memory_format=last) and not input.is_contiguous()
    return last if is_last and runs_kernels(input.device) else torch.contiguous_format


def is_plain(*tensors: torch.Tensor | None) -> bool:
    """Whether these are ordinary eager tensors that no compiler, transform, mode or subclass is watching."""
    for tensor in tensors:
        if tensor is not None and type(tensor) is not torch.Tensor and type(tensor) is not torch.nn.Parameter:
            return False
    return (
        not torch.compiler.is_compiling()
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._len_torch_dispatch_stack() == 0
        and forward_ad._current_level < 0
        # The operators keep their backward in full precision, even if it runs under autocast too.
        and not torch.is_autocast_enabled("cpu")
    )
