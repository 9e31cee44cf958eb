"""The commands `python -m stn.experiments EXPERIMENT ...` and `... report EXPERIMENT`.

Under `torchrun --nproc-per-node N -m stn.experiments ...` each process takes its share of the runs.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import distributed

from stn.experiments import EXPERIMENTS
from stn.experiments.report import RESULTS, read
from stn.experiments.runner import (
    DamagedFileError,
    Experiment,
    Figures,
    Run,
    Store,
    at_least_one,
    execute_all,
    why_it_ended,
)


def main(words: Sequence[str] | None = None) -> None:
    """Carry out a command; SystemExit with a message, and status 2, for arguments that make no sense."""
    parser = argparse.ArgumentParser(prog="python -m stn.experiments", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for experiment in EXPERIMENTS.values():
        own = commands.add_parser(
            experiment.name,
            help=experiment.description.partition(":")[0].lower(),
            description=experiment.description,
            epilog=_RESUMES,
        )
        experiment.add_arguments(own)
        _add_common_arguments(own, experiment)
        own.set_defaults(parser=own)
    report = commands.add_parser(
        "report", help="table and figure of the results", description="Sums up results: a table and a figure."
    )
    report.add_argument("experiment", choices=EXPERIMENTS, help="whose results")
    report.add_argument("--output", type=Path, help="the folder that has them; the committed ones")
    report.add_argument("--figure", type=Path, help="where to draw to, .png, .svg or .pdf; nowhere")
    report.set_defaults(parser=report)
    arguments = parser.parse_args(words)
    if arguments.command == "report":
        _report(arguments)
    else:
        _execute(EXPERIMENTS[arguments.command], arguments)


_DESCRIPTION = "Trains what the paper, and those who built on it, compare; and reports what was found."
_RESUMES = (
    "Every run writes one file. A run that is there already is not repeated, and one that was cut off goes "
    "on from its last epoch: give the same command again. With several GPUs: torchrun --nproc-per-node N -m "
    "stn.experiments ..., and each GPU takes its share of the runs."
)


def _add_common_arguments(parser: argparse.ArgumentParser, experiment: Experiment) -> None:
    parser.add_argument("--seeds", type=_natural, nargs="+", default=[0, 1, 2], help="a run for each; 0 1 2")
    if experiment.epochs is not None:
        parser.add_argument(
            "--epochs", type=at_least_one, default=experiment.epochs, help=str(experiment.epochs)
        )
    parser.add_argument("--device", type=_device, default=None, help="cpu or cuda; cuda if there is one")
    parser.add_argument("--jobs", type=at_least_one, default=1, help="runs at a time, a thread each; 1")
    parser.add_argument(
        "--output", type=Path, help="folder for the result files; stn/experiments/results/" + experiment.name
    )


def _execute(experiment: Experiment, arguments: argparse.Namespace) -> None:
    folder = arguments.output or RESULTS / experiment.name
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    shared, first = distributed.is_torchelastic_launched(), os.environ.get("RANK", "0") == "0"
    if shared and arguments.jobs != 1:
        arguments.parser.error("argument --jobs: 1 under torchrun, whose processes are the jobs")
    if folder.exists() and not folder.is_dir():
        arguments.parser.error(f"argument --output: {folder} is not a folder")
    try:
        epochs = getattr(arguments, "epochs", None)
        runs = experiment.runs(arguments, list(dict.fromkeys(arguments.seeds)), epochs)
        if shared and device.startswith("cuda"):
            device = _device(f"cuda:{os.environ['LOCAL_RANK']}")
        store = Store(folder)
        left = [run for run in runs if store.result(run) is None]
    except (argparse.ArgumentTypeError, ValueError) as error:
        arguments.parser.error(str(error))
    if len(left) < len(runs) and first:
        print(f"{len(runs) - len(left)} of {len(runs)} runs are in {folder} already")
    if shared:
        left = _share(left)
    if left:
        try:
            _execute_with_progress(experiment, left, folder, device, arguments.jobs, quiet=not first)
        except KeyboardInterrupt:
            sys.exit("interrupted: the same command goes on from here")
        except Exception as error:
            if (reason := why_it_ended(error)) is None:
                raise
            sys.exit(f"error: {reason}; the same command goes on from here")
    if first:
        print(f"To see them: python -m stn.experiments report {experiment.name} --output {folder}")


def _share(left: Sequence[Run]) -> list[Run]:
    """This process's of the runs that are left: every so many-th, as the first process has found them.

    The others may look later, when a run is finished already.
    """
    distributed.init_process_group("gloo")
    try:
        agreed = [left]
        distributed.broadcast_object_list(agreed)
        return list(agreed[0][distributed.get_rank() :: distributed.get_world_size()])
    finally:
        distributed.destroy_process_group()


def _execute_with_progress(
    experiment: Experiment,
    runs: Sequence[Run],
    folder: Path,
    device: str,
    jobs: int,
    quiet: bool,
) -> None:
    from tqdm import tqdm

    epochs = sum(run.epochs for run in runs)
    done = sum(Store(folder).epochs_done(run, device) for run in runs)
    with tqdm(total=epochs, initial=done, unit="epoch", smoothing=0.05, disable=quiet) as bar:

        def tell(run: Run, figures: Figures) -> None:
            said = ", ".join(f"{name} {value:g}" for name, value in figures.items() if name != "seconds")
            bar.set_postfix_str(f"{run.name}: {said}", refresh=False)
            bar.update()
            if figures["epoch"] == run.epochs:
                bar.write(f"{run.name}: {said}")

        execute_all(experiment, runs, folder, device, jobs, tell)


def _report(arguments: argparse.Namespace) -> None:
    experiment = EXPERIMENTS[arguments.experiment]
    folder = arguments.output or RESULTS / experiment.name
    try:
        results = read(folder)
    except DamagedFileError as error:
        arguments.parser.error(f"argument --output: {error}")
    if not results:
        arguments.parser.error(f"argument --output: {folder} holds no results")
    try:
        print(experiment.table(results))
    except ValueError as error:
        arguments.parser.error(f"argument --output: {folder}: {error}")
    if arguments.figure is not None:
        try:
            experiment.draw(results).savefig(arguments.figure)
        except (ImportError, OSError, ValueError) as error:
            arguments.parser.error(f"argument --figure: {error}")


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a whole number of at least 0, not {text!r}")
    return int(text)


def _device(text: str) -> str:
    kind, _, number = text.partition(":")
    if kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal())):
        raise argparse.ArgumentTypeError(f"cpu, cuda or cuda:NUMBER, not {text!r}")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not there: PyTorch sees {torch.cuda.device_count()} GPUs"
        )
    return text


if __name__ == "__main__":
    main()
