"""One of each family of transforms, and parameters for them that keep clear of kinks and folds."""

import torch

import stn

SIZE = (7, 10)
VERTICES = torch.tensor([[-0.9, -0.8], [0.8, -0.95], [1.0, 0.7], [-0.7, 0.9], [0.1, 0.05]])
TRIANGLES = torch.tensor([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])


def basis(**options):
    torch.manual_seed(1)
    return stn.Basis(torch.randn(3, *SIZE, dtype=torch.float64), **options)


MATRICES = [
    stn.Translation(),
    stn.Attention(),
    stn.Similarity(),
    stn.Affine(),
    stn.Projective(),
    stn.Projective(bound=None),
    stn.FourCorners(),
    stn.FourCorners(bound=None),
]
BENT = [
    stn.PiecewiseAffine((3, 4)),
    stn.PiecewiseAffine(VERTICES, TRIANGLES),
    basis(),
    basis(learned=True),
    stn.Displacement(SIZE),
    stn.Displacement((3, 4)),
    stn.ThinPlateSpline((3, 3)),
]
FAMILIES = MATRICES + BENT


def label(transform):
    learned = getattr(transform, "basis", None)
    return f"{transform}" + ("-learned" if isinstance(learned, torch.nn.Parameter) else "")


def random_theta(transform, count=3, dtype=torch.float64, spread=0.2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.randn(count, transform.num_parameters, dtype=torch.float64, generator=generator)
    return (transform.identity().double() + spread * offsets).to(dtype)


def estimated(kind, points, others):
    """A map of scikit-image, fitted; before 0.26 it is made first and fitted then."""
    if hasattr(kind, "from_estimate"):
        return kind.from_estimate(points, others)
    made = kind()
    assert made.estimate(points, others)
    return made
