"""Rotated digits: does a thin plate spline transformer help to read them, and how many control points?

The comparison of an earlier system, github.com/WarBean/tps_stn_pytorch, which published one curve and no
table: a small classifier alone, or behind a transformer whose localisation network has the same body. The
sizes, the optimiser (SGD), batches, learning rate, momentum and the 10 epochs are that system's. Digits are
turned uniformly within an angle, in training anew each time. Models:

- none: the classifier alone, 21,840 parameters;
- unbounded: a spline whose source points are regressed as they are;
- bounded: a spline whose source points go through tanh, so that none leaves the image;
- affine: an affine transformer, which that system does not have. It can turn a digit exactly.

What differs from that system, on purpose:

- Every transformer starts at the identity. Its published curve was made with bounded points that started
  at 0.9 of where the spline had them, and a pixel grid shifted by a pixel's width.
- Grid and sampler agree on what -1 and 1 are, the outer edges of the border pixels. Its sampler's default
  has changed in PyTorch since, so that identity is no longer identity there.
- No dropout in the localisation network: there it made the warp itself random in training. The classifier
  keeps its dropout.
- The test digits are turned once, the same way for every run, so that runs differ by what they learned. It
  turned them anew for every epoch.
- Digits are turned with bilinear interpolation, by `stn.data.rotated`; there by nearest neighbours.
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from stn import data
from stn.experiments import digits
from stn.experiments.report import Key, Summary, common, difference, summarise, table, with_error
from stn.experiments.runner import Experiment, Figures, Result, Run, Settings, Training
from stn.localisation import Localisation
from stn.spatial_transformer import SpatialTransformer
from stn.spline_transforms import ThinPlateSpline
from stn.transforms import Affine, Transform

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODELS = ("none", "affine", "bounded", "unbounded")
ON_A_GRID = ("bounded", "unbounded")
ANGLES = (60.0, 90.0)
GRIDS = (2, 3, 4, 5)
MOST_ROWS = 20  # of a control grid: 400 points
SHAPE = (1, 28, 28)
SPAN = 0.9
BATCH_SIZE, LEARNING_RATE, MOMENTUM = 64, 0.01, 0.5
TEST_SEED = 0  # turns the test digits, whatever the run's seed
FEATURES = 50


def body(dropout: bool) -> nn.Sequential:
    """Images (N, 1, 28, 28) to features (N, 50): what classifier and localisation network have in common."""
    return nn.Sequential(
        nn.Conv2d(1, 10, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(10, 20, 5),
        *([nn.Dropout2d()] if dropout else []),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(320, FEATURES),
        nn.ReLU(),
        *([nn.Dropout()] if dropout else []),
    )


def build(model: str, grid: int | None = None) -> nn.Module:
    """One of `MODELS`, images to scores (N, 10); `grid` rows and columns of control points.

    The classifier is made first: from one seed, all models start with the same one.
    """
    classifier = nn.Sequential(body(dropout=True), nn.Linear(FEATURES, 10))
    if model == "none":
        return classifier
    transform = _transform(model, grid)
    localisation = Localisation(body(dropout=False), FEATURES, transform, SHAPE)
    return nn.Sequential(SpatialTransformer(localisation, transform, SHAPE[1:]), classifier)


def _transform(model: str, grid: int | None) -> Transform:
    if model == "affine":
        return Affine()
    if model not in ON_A_GRID or grid is None:
        raise ValueError(f"model should be one of {', '.join(MODELS)}, with a grid if bounded or unbounded")
    parameterization = "bounded" if model == "bounded" else "absolute"
    return ThinPlateSpline((grid, grid), span=SPAN, parameterization=parameterization)


class RotatedTraining(Training):
    """A run: batches without replacement, each turned anew."""

    def __init__(self, settings: Settings, seed: int, device: str) -> None:
        model = build(settings["model"], settings["grid"]).to(device)
        # Two thirds of the time, on a CPU.
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        super().__init__(model, optimiser, torch.Generator().manual_seed(seed))
        self.angle = settings["angle"]
        loaded = digits.load(settings["data"])
        self.images = loaded.train_images[: settings["train_images"]].to(device)
        self.labels = loaded.train_labels[: settings["train_images"]].to(device)
        generator = torch.Generator().manual_seed(TEST_SEED)
        test_images, _ = data.rotated(loaded.test_images, generator=generator, max_angle=self.angle)
        self.test_images, self.test_labels = test_images.to(device), loaded.test_labels.to(device)

    def epoch(self) -> Figures:
        self.model.train()
        total = torch.zeros((), device=self.images.device)
        order = torch.randperm(len(self.images), generator=self.generator)
        for chosen in order.to(self.images.device).split(BATCH_SIZE):
            images, _ = data.rotated(self.images[chosen], generator=self.generator, max_angle=self.angle)
            loss = functional.cross_entropy(self.model(images), self.labels[chosen])
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            total += loss.detach() * len(chosen)
        accuracy, test_loss = self.evaluate()
        return {
            "train_loss": round(total.item() / len(order), 5),
            "test_loss": round(test_loss, 5),
            "accuracy": round(accuracy, 3),
        }

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Accuracy in % and mean cross entropy on the turned test digits."""
        self.model.eval()
        scores = torch.cat([self.model(images) for images in self.test_images.split(1000)])
        right = (scores.argmax(1) == self.test_labels).sum().item()
        return 100 * right / len(scores), functional.cross_entropy(scores, self.test_labels).item()


def gains(results: Sequence[Result]) -> dict[Key, Summary]:
    """By how many points of accuracy each (angle, model, grid) is above the model without a transformer."""
    summaries = summarise(results, "accuracy", Rotated.keys)
    return {
        (angle, model, grid): difference(summary, summaries[angle, "none", None])
        for (angle, model, grid), summary in summaries.items()
        if model != "none" and (angle, "none", None) in summaries
    }


class Rotated(Experiment):
    """`python -m stn.experiments rotated`."""

    name = "rotated"
    description = (
        "Rotated digits, read with and without a spatial transformer: a thin plate spline with bounded or "
        "unbounded control points, or an affine map. One run takes about 4 minutes of a CPU core (2 without "
        "a transformer), all 60 (2 angles, 10 models, 3 seeds) about two hours with --jobs 2. Whole MNIST is "
        "read from the folder that STN_DATA names; if that is not set, the 12,000 embedded digits are taken, "
        "and the results say so."
    )
    epochs = 10
    keys = ("angle", "model", "grid")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--angle", type=_angle, help="digits are turned within ± so many degrees; 60")
        parser.add_argument("--grid", type=_grid, help="rows and columns of control points; 4")
        parser.add_argument(
            "--model", choices=MODELS, help="needed unless --all; none and affine have no grid"
        )
        parser.add_argument("--all", action="store_true", help="angles 60 and 90, grids 2 to 5, every model")
        parser.add_argument(
            "--train-images", type=int, help="only the first so many training digits, for a trial; all"
        )

    def runs(self, arguments: argparse.Namespace, seeds: Sequence[int], epochs: int | None) -> list[Run]:
        angle, model, grid = arguments.angle, arguments.model, arguments.grid
        if arguments.all:
            for name, value in (("angle", angle), ("grid", grid), ("model", model)):
                if value is not None:
                    raise argparse.ArgumentTypeError(f"argument --{name}: not allowed with --all")
            chosen = [
                (a, m, g) for a in ANGLES for m in MODELS for g in (GRIDS if m in ON_A_GRID else [None])
            ]
        elif model is None:
            raise argparse.ArgumentTypeError(f"argument --model: one of {', '.join(MODELS)}, or --all")
        else:
            chosen = [(angle or ANGLES[0], model, (grid or 4) if model in ON_A_GRID else None)]
        name = digits.chosen()
        most = len(digits.load(name).train_images)
        images = arguments.train_images
        if images is not None and not 1 <= images <= most:
            raise argparse.ArgumentTypeError(f"argument --train-images: 1 to {most}, not {images}")
        return [
            self.run(_settings(a, m, g, name, images or most), epochs or self.epochs, seed)
            for seed in seeds
            for a, m, g in chosen
        ]

    def start(self, run: Run, device: str) -> Training:
        return RotatedTraining(run.settings, run.seed, device)

    def table(self, results: Sequence[Result]) -> str:
        same = common(results, self.keys)
        accuracy = summarise(_in_order(results), "accuracy", self.keys)
        text = (
            f"Rotated digits ({same['data']}, {same['train_images']} to train on), {same['epochs']} epochs.\n"
            "Accuracy on the test digits in %: mean ± standard deviation over seeds (how many)\n\n"
            + table(accuracy, self.keys)
        )
        if gained := gains(_in_order(results)):
            text += "\n\nPoints gained over none, ± standard error\n\n" + table(gained, self.keys, with_error)
        return text

    def draw(self, results: Sequence[Result]) -> "Figure":
        import matplotlib.pyplot as plt

        from stn.plotting import use_style

        use_style()
        accuracy = summarise(_in_order(results), "accuracy", self.keys)
        angles = list(dict.fromkeys(angle for angle, _, _ in accuracy))
        grids = sorted({grid for _, _, grid in accuracy if grid is not None})
        size = (3.6 * len(angles), 3.2)
        figure, axes = plt.subplots(
            1, len(angles), figsize=size, squeeze=False, sharey=True, layout="compressed"
        )
        for ax, angle in zip(axes[0], angles, strict=True):
            for number, model in enumerate(MODELS):
                color = f"C{number}"
                found = {grid: one for (a, m, grid), one in accuracy.items() if (a, m) == (angle, model)}
                means = [one.mean for one in found.values()]
                spreads = [one.spread if one.seeds > 1 else 0.0 for one in found.values()]
                if None in found:  # the same for every grid
                    ax.axhline(means[0], color=color, label=model)
                    band = means[0] - spreads[0], means[0] + spreads[0]
                    ax.axhspan(*band, color=color, alpha=0.15, linewidth=0)
                elif found:
                    ax.errorbar(list(found), means, spreads, color=color, marker="o", capsize=3, label=model)
            ax.set(
                title=f"turned within ±{angle:g}°",
                xlabel="control points",
                ylabel="accuracy, %" if ax is axes[0, 0] else "",
            )
            ax.set_xticks(grids, [f"{grid} × {grid}" for grid in grids])
            ax.legend()
        return figure


def _in_order(results: Sequence[Result]) -> list[Result]:
    """As `MODELS` has them."""

    def place(result: Result) -> tuple[float, int, int, int]:
        settings = result["settings"]
        return settings["angle"], MODELS.index(settings["model"]), settings["grid"] or 0, result["seed"]

    return sorted(results, key=place)


def _settings(angle: float, model: str, grid: int | None, name: str, train_images: int) -> Settings:
    return {
        "angle": angle,
        "model": model,
        "grid": grid,
        "data": name,
        "train_images": train_images,
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "momentum": MOMENTUM,
        "span": SPAN,
    }


def _angle(text: str) -> float:
    angle = float(text) if text.replace(".", "", 1).isdecimal() else 0.0
    if not 0 < angle <= 180:
        raise argparse.ArgumentTypeError(f"degrees above 0 and up to 180, not {text!r}")
    return angle


def _grid(text: str) -> int:
    grid = int(text) if text.isdecimal() else 0
    if not 2 <= grid <= MOST_ROWS:
        raise argparse.ArgumentTypeError(f"2 to {MOST_ROWS} rows and columns, not {text!r}")
    return grid
