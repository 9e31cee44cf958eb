"""Experiments of the paper, and of those who built on it, as commands: `python -m stn.experiments --help`.

An experiment is a set of runs, settings times seeds. Each run writes one result file; `runner` executes them,
`report` sums them up, and every experiment is one module that says what its runs are and how they train.
"""

from stn.experiments.birds import Species
from stn.experiments.colocalisation import Colocalisation
from stn.experiments.distorted import Addition, Cluttered, Table1, Volumes
from stn.experiments.report import Summary, read, summarise
from stn.experiments.rotated import Rotated
from stn.experiments.runner import Experiment, Run, Training, execute, execute_all
from stn.experiments.svhn import Svhn

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        Rotated(),
        Table1(),
        Cluttered(),
        Addition(),
        Colocalisation(),
        Volumes(),
        Svhn(),
        Species(),
    )
}

__all__ = [
    "EXPERIMENTS",
    "Addition",
    "Cluttered",
    "Colocalisation",
    "Experiment",
    "Rotated",
    "Run",
    "Species",
    "Summary",
    "Svhn",
    "Table1",
    "Training",
    "Volumes",
    "execute",
    "execute_all",
    "read",
    "summarise",
]
