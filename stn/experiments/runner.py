"""Runs and their files: each is trained once, and one that is cut off goes on from its last epoch.

A result file is JSON and written all at once, when its run is finished. Until then the run has a checkpoint
in the sub-folder `checkpoints`, which git ignores. A run has one CPU thread, so that its figures depend
neither on the number of cores nor on what runs beside it; photographs are read by more, to the same effect.
"""

import argparse
import io
import json
import multiprocessing
import platform
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from stn.training import count_parameters

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Settings = Mapping[str, Any]  # to str, int, float or None
Figures = dict[str, float]
Result = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One training: with these settings, for so many epochs, from this seed.

    Attributes:
        name: of its files; different for each run of an experiment.
        settings: all that decides the figures apart from epochs and seed.
        epochs: at least 1.
        seed: of everything that is drawn.
    """

    name: str
    settings: Settings
    epochs: int
    seed: int


Tell = Callable[[Run, Figures], object]


class ProcessFailedError(RuntimeError):
    """The process of a run ended before the run did."""


class DamagedFileError(ValueError):
    """A file of a run does not read as it was written."""

    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(f"{path} is damaged ({type(error).__name__}): remove it")


class Training(ABC):
    """A run under way.

    Args:
        model: what is trained.
        optimiser: of its parameters.
        generator: draws the data, on the CPU. What the model draws, as for dropout, comes from PyTorch's own
            generators.
    """

    def __init__(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, generator: torch.Generator
    ) -> None:
        self.model = model
        self.optimiser = optimiser
        self.generator = generator

    @abstractmethod
    def epoch(self) -> Figures:
        """Train for one epoch; the figures after it. Those of the last epoch are the run's final figures."""

    def state(self) -> dict[str, Any]:
        """All that the following epochs depend on."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "cpu": torch.get_rng_state(),
            "cuda": [torch.cuda.get_rng_state(device) for device in self._cuda()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["cpu"])
        for device, generator in zip(self._cuda(), state["cuda"], strict=True):
            torch.cuda.set_rng_state(generator, device)

    def _cuda(self) -> list[torch.device]:
        devices = {parameter.device for parameter in self.model.parameters()}
        return sorted((device for device in devices if device.type == "cuda"), key=str)


class Experiment(ABC):
    """What the commands need to know of an experiment.

    Attributes:
        name: of its command and of its folder.
        description: what it does and how long that takes, for `--help`.
        epochs: of a run, if nothing else is asked for; None if other arguments say how many.
        keys: the settings that tell its runs apart. All others must agree before runs are compared.
    """

    name: str
    description: str
    epochs: int | None
    keys: tuple[str, ...]

    @abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Its own arguments, beside those of every experiment."""

    @abstractmethod
    def runs(self, arguments: argparse.Namespace, seeds: Sequence[int], epochs: int | None) -> list[Run]:
        """What to execute; argparse.ArgumentTypeError for arguments that do not go together."""

    @abstractmethod
    def start(self, run: Run, device: str) -> Training:
        """A run at its first epoch. PyTorch's own generators are seeded already."""

    @abstractmethod
    def table(self, results: Sequence[Result]) -> str:
        """The results in text."""

    @abstractmethod
    def draw(self, results: Sequence[Result]) -> "Figure":
        """The results in a figure, in the style of the book."""

    def run(self, settings: Settings, epochs: int, seed: int) -> Run:
        """The run with these settings, named by those that tell runs apart."""
        words = [f"{key}-{_short(settings[key])}" for key in self.keys if settings[key] is not None]
        return Run("_".join([*words, f"seed-{seed}"]), settings, epochs, seed)


def at_least_one(text: str) -> int:
    """A whole number in an argument of a command."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1, not {text!r}")
    return int(text)


def _short(value: str | int | float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_result(path: Path) -> Result:
    """The result in a file; DamagedFileError if there is none."""
    try:
        result: Result = json.loads(path.read_text(encoding="utf-8"))
        if missing := {"settings", "epochs", "final"} - set(result):
            raise KeyError(*missing)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(path, error) from error
    return result


class Store:
    """The folder of an experiment's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> None:
        """Make the folder, OSError where nothing can be written: better before the first epoch than after."""
        checkpoints = self.folder / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)
        (checkpoints / ".gitignore").write_text("*\n", encoding="utf-8")

    def path(self, run: Run) -> Path:
        return self.folder / f"{run.name}.json"

    def result(self, run: Run) -> Result | None:
        """What a finished run has found, else None. ValueError if its file is of a run that differs, or
        damaged."""
        path = self.path(run)
        if not path.exists():
            return None
        result = read_result(path)
        wanted = {**run.settings, "epochs": run.epochs}
        found = {**result["settings"], "epochs": result["epochs"]}
        for name in wanted | found:
            if wanted.get(name) != found.get(name):
                raise ValueError(
                    f"{path} holds a run with {name} {found.get(name)}, not {wanted.get(name)}: "
                    "remove it, or choose another --output"
                )
        return result

    def write_result(self, run: Run, result: Result) -> None:
        with _unfinished(self.path(run)) as path:
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        self._checkpoint(run).unlink(missing_ok=True)

    def checkpoint(self, run: Run, device: str) -> dict[str, Any] | None:
        """Where a run was cut off; None if nowhere, or on another device, or with other versions.
        DamagedFileError if that cannot be read."""
        path = self._checkpoint(run)
        if not path.exists():
            return None
        content = io.BytesIO(path.read_bytes())
        try:
            checkpoint: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
            return checkpoint if checkpoint["record"] == _record(run, device) else None
        except Exception as error:  # PyTorch has no one error for what it cannot make sense of
            raise DamagedFileError(path, error) from error

    def write_checkpoint(self, run: Run, device: str, training: Training, history: Sequence[Figures]) -> None:
        checkpoint = {
            "record": _record(run, device),
            "history": list(history),
            "state": training.state(),
        }
        content = io.BytesIO()  # a file that torch.save writes itself fails with errors that do not say why
        torch.save(checkpoint, content)
        with _unfinished(self._checkpoint(run)) as path:
            path.write_bytes(content.getbuffer())

    def epochs_done(self, run: Run, device: str) -> int:
        if self.result(run) is not None:
            return run.epochs
        checkpoint = self.checkpoint(run, device)
        return 0 if checkpoint is None else len(checkpoint["history"])

    def _checkpoint(self, run: Run) -> Path:
        return self.folder / "checkpoints" / f"{run.name}.pt"


def execute(
    experiment: Experiment, run: Run, folder: Path, device: str = "cpu", tell: Tell = lambda *_: None
) -> Result:
    """Train one run to its end, from its checkpoint if there is one, and write its result file.

    Args:
        experiment: whose run it is.
        run: returned from its file if it is there already.
        folder: of the experiment's files.
        device: "cpu", "cuda" or "cuda:0", "cuda:1", ...
        tell: called after every epoch with the run and the epoch's figures.

    Raises:
        ValueError: the file that is there is of a run with other settings.
        OSError: a file could not be read or written; what was written before is whole.
    """
    store = Store(folder)
    if (result := store.result(run)) is not None:
        return result
    store.make()
    with _apart(run.seed, device):
        training = experiment.start(run, device)
        history: list[Figures] = []
        if (checkpoint := store.checkpoint(run, device)) is not None:
            history = checkpoint["history"]
            training.restore(checkpoint["state"])
        while len(history) < run.epochs:
            start = time.perf_counter()
            figures = training.epoch()
            seconds = round(time.perf_counter() - start, 1)
            history.append({"epoch": len(history) + 1, **figures, "seconds": seconds})
            store.write_checkpoint(run, device, training, history)
            tell(run, history[-1])
        final = {name: value for name, value in history[-1].items() if name not in ("epoch", "seconds")}
        final["parameters"] = count_parameters(training.model)
    result = {"experiment": experiment.name, **_record(run, device), "final": final, "history": history}
    store.write_result(run, result)
    return result


def execute_all(
    experiment: Experiment,
    runs: Sequence[Run],
    folder: Path,
    device: str = "cpu",
    jobs: int = 1,
    tell: Tell = lambda *_: None,
) -> None:
    """Execute those runs that are not finished, `jobs` at a time; more than one as processes of their own.

    The first run that fails ends the others too; the same call goes on from their checkpoints.

    Raises:
        ValueError: a file that is there is of a run with other settings; nothing was executed.
        OSError: a file could not be read or written. With several jobs that is a process that failed.
        ProcessFailedError: the process of a run failed; it has said why, unless it was killed.
    """
    left = deque(run for run in runs if Store(folder).result(run) is None)
    if jobs == 1:
        for run in left:
            execute(experiment, run, folder, device, tell)
        return
    # Not forked: a forked process cannot use CUDA, nor safely PyTorch's threads.
    context = multiprocessing.get_context("spawn")
    alive: dict[object, tuple[Connection, BaseProcess, Run]] = {}
    try:
        while left or alive:
            while left and len(alive) < jobs:
                run = left.popleft()
                receiver, sender = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(
                    target=_work, args=(sender, experiment, run, folder, device), daemon=True
                )
                process.start()
                sender.close()  # the process has its own: once that is closed, the receiver is at its end
                alive[receiver] = receiver, process, run
            for ready in wait([receiver for receiver, _, _ in alive.values()]):
                receiver, process, run = alive[ready]
                try:
                    tell(run, receiver.recv())
                except EOFError:
                    process.join()
                    del alive[ready]
                    receiver.close()
                    if process.exitcode != 0:
                        raise ProcessFailedError(
                            f"the process of {run.name} failed with exit code {process.exitcode}"
                        ) from None
    finally:
        for _, process, _ in alive.values():
            process.terminate()
            process.join()


def why_it_ended(error: Exception) -> str | None:
    """What a user can do something about, in one line; None for a fault of the program."""
    first_line = str(error).partition("\n")[0]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in first_line:
        return f"out of memory: {first_line}" if first_line else "out of memory"
    return str(error) if isinstance(error, (DamagedFileError, OSError, ProcessFailedError)) else None


def _work(sender: Connection, experiment: Experiment, run: Run, folder: Path, device: str) -> None:
    """A process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first ends the others
    try:
        execute(experiment, run, folder, device, lambda _, figures: sender.send(figures))
    except Exception as error:
        if (reason := why_it_ended(error)) is None:
            raise
        sys.exit(f"{run.name}: {reason}")


def _record(run: Run, device: str) -> dict[str, Any]:
    """What is written down of a run before it starts; a checkpoint serves only a run with the same."""
    return {
        "settings": dict(run.settings),
        "epochs": run.epochs,
        "seed": run.seed,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "spatial-transformers": _version("spatial-transformers"),
            "stn-kernels": _version("stn-kernels"),
        },
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # run from a clone that is not installed
        return "not installed"


@contextmanager
def _apart(seed: int, device: str) -> Iterator[None]:
    """One thread and PyTorch's generators seeded; both as they were afterwards."""
    threads = torch.get_num_threads()
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """Where to write first: the file appears under its name once it is whole, and nothing is left of one that
    could not be written."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
