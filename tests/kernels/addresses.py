"""Triton's interpreter with a check of every address that a kernel reads, writes or adds to: it is that of an
element of a tensor of the launch. Memory around a tensor counts as outside, and so do the gaps between the
elements of a view.

The interpreter does nothing of the kind: it reads and writes the process's memory.
"""

import numpy as np
import torch
from triton._C.libtriton import interpreter as accesses
from triton.runtime import interpreter


class OutsideError(AssertionError):
    """A kernel left the tensors that it was launched with."""


def tensors_in(argument):
    if isinstance(argument, tuple):
        return [t for a in argument for t in tensors_in(a)]
    return [argument] if isinstance(argument, torch.Tensor) else []


def addresses_of(tensor):
    """Of all elements, flat."""
    offsets = torch.zeros((), dtype=torch.int64)
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        offsets = offsets[..., None] + stride * torch.arange(length)
    return (tensor.data_ptr() + tensor.element_size() * offsets.flatten().numpy()).astype(np.uint64)


class WatchedAccesses:
    """In place of the interpreter's access to memory. `allowed`: addresses by the size of an element."""

    def __init__(self):
        self.allowed = {}
        self.checked = 0

    def __getattr__(self, name):
        return getattr(accesses, name)

    def launch_with(self, arguments):
        self.allowed = {}
        for tensor in tensors_in(arguments):
            size = tensor.element_size()
            before = self.allowed.get(size, np.empty(0, np.uint64))
            self.allowed[size] = np.union1d(before, addresses_of(tensor))

    def check(self, what, pointers, mask, size):
        wanted = pointers[mask.astype(bool)].ravel()
        self.checked += wanted.size
        outside = ~np.isin(wanted, self.allowed.get(size, ()))
        if outside.any():
            raise OutsideError(f"{what}: {outside.sum()} of {wanted.size} addresses are outside the tensors")

    def load(self, pointers, mask, other, dtype):
        self.check("load", pointers, mask, np.dtype(dtype).itemsize)
        return accesses.load(pointers, mask, other, dtype)

    def store(self, pointers, value, mask):
        self.check("store", pointers, mask, value.dtype.itemsize)
        return accesses.store(pointers, value, mask)

    def atomic_rmw(self, operation, pointers, value, mask, semantics):
        self.check("atomic", pointers, mask, value.dtype.itemsize)
        return accesses.atomic_rmw(operation, pointers, value, mask, semantics)

    def atomic_cas(self, pointers, compare, value, semantics):
        self.check("atomic", pointers, np.ones_like(pointers, dtype=bool), value.dtype.itemsize)
        return accesses.atomic_cas(pointers, compare, value, semantics)


def install(monkeypatch):
    """The watch, which counts what it has checked."""
    watched = WatchedAccesses()
    prepare = interpreter.GridExecutor._init_args_hst

    def prepare_and_look(self, arguments, keywords):
        prepared = prepare(self, arguments, keywords)
        watched.launch_with((*prepared[0], *prepared[1].values()))
        return prepared

    monkeypatch.setattr(interpreter, "_interpreter", watched)
    monkeypatch.setattr(interpreter.GridExecutor, "_init_args_hst", prepare_and_look)
    return watched
