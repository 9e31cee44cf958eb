"""Compiles the kernels of cases side by side, into Triton's cache on disk, before they are timed one by one.

Nothing runs: tensors without memory stand for the real ones, and a launch is compiled where it would be run.
"""

import contextlib
import dataclasses
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import torch

import cases
import implementations as peers
from cases import Case
from stn_kernels import functional, launch, launch_backward
from stn_kernels.autograd import Choices, Tensors


@contextlib.contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def planned(case: Case) -> tuple[Tensors, Choices]:
    """What the public function would hand to the kernels, without memory."""
    seen: list[tuple[Tensors, Choices]] = []

    def record(tensors: Tensors, choices: Choices) -> torch.Tensor:
        seen.append((tensors, choices))
        return tensors[0].new_empty(choices.size)  # of any shape

    cpu = torch.device("cpu")
    parameters, shared = case.parameters(cpu)
    with replaced(functional, "run", record), contextlib.suppress(RuntimeError):
        peers.own(case, shared)(case.image(cpu, fill=False), parameters)
    (tensors, choices) = seen[0]
    # The strides of an image decide what is compiled; .to() keeps them.
    return tuple(None if t is None else t.detach().to("meta") for t in tensors), choices


def compile_case(case: Case) -> int:
    """Compiles every kernel that any row of the case launches; how many launches that were."""
    count = 0

    def compile_only(self: launch.Launch) -> None:
        nonlocal count
        count += 1
        self.compile()

    tensors, choices = planned(case)
    with replaced(launch.Launch, "run", compile_only):
        grad = launch.sample(tensors, choices)
        for needs in ((True, True, False, False), (False, True, False, False)):
            launch_backward.sample_backward(grad, tensors, choices, needs)
        for way in peers.backward_ways(case):
            with peers.forced(way):
                launch_backward.sample_backward(grad, tensors, choices, (True, True, False, False))
    return count


def side_by_side(function: Callable[[Case], int], chosen: Sequence[Case], jobs: int) -> int:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        return sum(pool.map(function, chosen))


def run(chosen: Sequence[Case]) -> None:
    # Sizes only decide whether they are multiples of 16; transforms decide nothing.
    kinds = list({dataclasses.replace(case, transform=cases.IDENTITY): case for case in chosen}.values())
    jobs = min(len(kinds), max(1, (os.cpu_count() or 1) - 1))
    launches = side_by_side(compile_case, kinds, jobs)
    print(f"{launches} launches of {len(kinds)} kinds of case are compiled.", flush=True)
