"""What the tests leave out of Triton's interpreter changes no value, and hides no mistake."""

import pytest
import torch

from sampling_cases import converted, draw_problem, library, values_and_gradients
from stn_kernels import backend
from stn_kernels.autograd import Choices

if not (backend.HAS_TRITON and backend.INTERPRETED):
    pytest.skip("without Triton's interpreter", allow_module_level=True)

import triton
import triton.language as tl
from triton.runtime import interpreter

import quick_interpreter


@pytest.fixture
def as_triton_has_it(monkeypatch):
    """Puts everything back."""

    def restore():
        builder, core = interpreter.interpreter_builder, tl.core
        monkeypatch.setattr(builder, "options", interpreter.InterpreterOptions())
        monkeypatch.setattr(interpreter, "_patch_lang", quick_interpreter.patch_language)
        monkeypatch.setattr(interpreter, "_get_np_dtype", quick_interpreter.look_up_numpy_dtype)
        monkeypatch.setattr(core.block_type, "__init__", quick_interpreter.check_block_type)
        monkeypatch.setattr(core.tensor, "__init__", quick_interpreter.make_tensor)
        broadcast = quick_interpreter.compare_and_broadcast
        monkeypatch.setattr(quick_interpreter.TritonSemantic, "broadcast_impl_value", broadcast)

    return restore


@pytest.mark.parametrize(
    ("choices", "dtype"),
    [
        (Choices((2, 3), "affine", "bicubic", "reflection"), torch.float32),
        (Choices((2, 3), "grid", "bilinear", "constant", deterministic=True), torch.float64),
        (Choices((2, 2, 3), "displacement", "nearest"), torch.bfloat16),
        (Choices((2, 3), "tps"), torch.float16),
        (Choices((2, 3), "mesh"), torch.float32),
    ],
    ids=str,
)
def test_values_and_gradients_are_the_same_bits(kernels, as_triton_has_it, choices, dtype):
    tensors, grad_output = draw_problem(choices, (4, 5, 3)[: len(choices.size)], channels=2)
    # Parameters of half precision are not taken.
    image, *others = converted(tensors, torch.float64 if dtype == torch.float64 else torch.float32)
    problem = (image.to(dtype), *others), grad_output.to(dtype)
    quick = values_and_gradients(library(choices), *problem)
    as_triton_has_it()
    expected = values_and_gradients(library(choices), *problem)
    for name, e in expected.items():
        assert torch.equal(quick[name], e), name


@triton.jit
def add_blocks(out_ptr, LEFT: tl.constexpr, RIGHT: tl.constexpr):
    total = tl.zeros((LEFT,), tl.float32) + tl.zeros((RIGHT,), tl.float32)
    tl.store(out_ptr + tl.arange(0, LEFT), total)


def test_wrong_shapes_are_still_refused(kernels):
    out = torch.ones(8)
    add_blocks[(1,)](out, 8, 8)
    assert not out.any()
    with pytest.raises(Exception, match="incompatible dimensions"):
        add_blocks[(1,)](out, 8, 4)
    with pytest.raises(Exception, match="power of 2"):
        add_blocks[(1,)](out, 6, 6)
