"""Triton's interpreter without the work whose results it throws away, or finds anew for each operation: four
fifths of the time that these tests would take.

No value that a kernel computes depends on it: `test_quick_interpreter.py`.
"""

import dataclasses
import math
from types import SimpleNamespace

import triton.language as tl
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter

core = tl.core
# What Triton itself does, before any of it is replaced.
patch_language = interpreter._patch_lang
look_up_numpy_dtype = interpreter._get_np_dtype
check_block_type = core.block_type.__init__
make_tensor = core.tensor.__init__
compare_and_broadcast = TritonSemantic.broadcast_impl_value

NUMPY_DTYPES, SHAPES, BLOCK_TYPES, SHAPES_OF_TENSORS = {}, {}, {}, {}


def install(monkeypatch):
    options = dataclasses.replace(interpreter.interpreter_builder.options, sanitize_overflow=False)
    assert not options.debug  # which alone looks at the overflows
    monkeypatch.setattr(interpreter.interpreter_builder, "options", options)
    monkeypatch.setattr(interpreter, "_patch_lang", patch_once_a_launch)
    monkeypatch.setattr(interpreter, "_get_np_dtype", numpy_dtype)
    monkeypatch.setattr(core.block_type, "__init__", initialise_block_type)
    monkeypatch.setattr(core.tensor, "__init__", initialise_tensor)
    monkeypatch.setattr(TritonSemantic, "broadcast_impl_value", broadcast)


def patch_once_a_launch(function):
    """The functions of `triton.language` are replaced by the interpreter's at each launch; and again, to no
    effect, at each call of a function within."""
    both = SimpleNamespace(__globals__={"tl": tl, "core": core})  # whichever a function within refers to
    return patch_language(both) if core.is_builtin(tl.load) else None


def numpy_dtype(dtype):
    """Triton makes a table of all of them at each call."""
    scalar = dtype.scalar
    if scalar.name not in NUMPY_DTYPES:
        NUMPY_DTYPES[scalar.name] = look_up_numpy_dtype(scalar)
    return NUMPY_DTYPES[scalar.name]


def initialise_block_type(self, element_ty, shape):
    """A shape is checked and named once, and its object is shared."""
    sizes = tuple([s.value if isinstance(s, core.constexpr) else s for s in shape])
    key = (element_ty.name, sizes)
    if key not in BLOCK_TYPES:
        check_block_type(self, element_ty, shape)
        BLOCK_TYPES[key] = SHAPES.setdefault(sizes, self.shape), self.numel, self.name
    self.element_ty = element_ty
    self.shape, self.numel, self.name = BLOCK_TYPES[key]


def initialise_tensor(self, handle, type):
    sizes = tuple(type.shape) if type.is_block() else ()
    if sizes not in SHAPES_OF_TENSORS:
        shape = core.tuple([core.constexpr(s) for s in sizes])
        SHAPES_OF_TENSORS[sizes] = core.constexpr(math.prod(sizes)), shape
    self.handle, self.type, self.dtype = handle, type, type.scalar
    self.numel, self.shape = SHAPES_OF_TENSORS[sizes]


def broadcast(self, left, right):
    """Shapes are compared only where they differ."""
    if left.type.is_block() and right.type.is_block() and left.type.shape is right.type.shape:
        return left, right
    return compare_and_broadcast(self, left, right)
