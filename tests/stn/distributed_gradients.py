"""Networks with transformers, and their gradients on two processes: run as a script, one of the two."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

import stn


def networks(shape, size):
    """Functions that make one network for each way in which modules hold transforms and parameters."""

    def transformer(transform, **options):
        localisation = stn.FullyConnectedLocalisation(shape, transform, hidden=(6,))
        return stn.SpatialTransformer(localisation, transform, size, **options)

    def basis():
        generator = torch.Generator().manual_seed(1)
        return stn.Basis(0.2 * torch.randn(3, *size, generator=generator), learned=True)

    def compositional():
        localisation = stn.FullyConnectedLocalisation(shape, stn.Affine(), hidden=(6,))
        return stn.InverseCompositional(localisation, stn.Affine(), size, steps=2)

    return {
        "affine": lambda: transformer(stn.Affine()),
        "antialiased": lambda: transformer(stn.Attention(), antialias=True),
        "canvas": lambda: transformer(stn.Similarity(), canvas=0.5),
        "coarse to fine": lambda: transformer(stn.Projective(), gradient_scales=(2,)),
        "mesh": lambda: transformer(stn.PiecewiseAffine((3, 3))),
        "spline": lambda: transformer(stn.ThinPlateSpline((3, 3)), padding_mode="border"),
        "field": lambda: transformer(stn.Displacement((3, 4))),
        "learned basis": lambda: transformer(basis()),
        "inverse compositional": compositional,
    }


def gradients(call, images, parameters=None):
    """Of the mean square of a call's output, for a module's parameters."""
    parameters = list(call.parameters()) if parameters is None else parameters
    for parameter in parameters:
        parameter.grad = None
    call(images).square().mean().backward()
    return tuple(parameter.grad for parameter in parameters)


def run_on_two_processes(folder):
    """By name of a network: its state, the batch, and the gradients that either process has."""
    root = Path(__file__).parents[2]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(root), str(root / "kernels"), environment.get("PYTHONPATH", "")]
    )
    command = [sys.executable, str(Path(__file__)), str(folder)]
    processes = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    both = [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    merged = {name: (*both[0][name][:2], [of[name][2] for of in both]) for name in both[0]["names"]}
    return {**merged, "sizes": both[0]["sizes"]}


def main(folder, rank):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    sizes = (1, 12, 11), (9, 8)
    made = networks(*sizes)
    found = {"names": list(made), "sizes": sizes}
    for number, (name, make) in enumerate(made.items()):
        torch.manual_seed(100 * rank + number)  # the first process's parameters are to become the other's
        module = make().eval()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.03 * torch.randn_like(parameter))
        torch.manual_seed(number)
        images = torch.rand(4, *sizes[0])
        parallel = nn.parallel.DistributedDataParallel(module)
        found[name] = module.state_dict(), images, gradients(parallel, images[2 * rank : 2 * rank + 2])
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
