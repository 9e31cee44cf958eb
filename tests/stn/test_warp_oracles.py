"""Transforms against libraries that nobody here wrote: scikit-image, OpenCV, kornia, SciPy.

They speak of pixels, with the first pixel's centre at 0. With align_corners=True the normalised -1 and 1 are
the centres of the first and of the last pixel, so that coordinates translate without halves.
"""

import cv2
import numpy as np
import pytest
import torch
from kornia.geometry.transform import warp_perspective
from scipy import ndimage
from scipy.spatial import Delaunay
from skimage.transform import PiecewiseAffineTransform

from families import TRIANGLES, VERTICES, estimated, random_theta
from stn import Affine, Affine3d, FourCorners, PiecewiseAffine, Projective


def to_pixels(size):
    """From normalised homogeneous coordinates to pixels, for align_corners=True, x first."""
    axes = len(size)
    halves = torch.tensor([(s - 1) / 2 for s in reversed(size)], dtype=torch.float64)
    matrix = torch.eye(axes + 1, dtype=torch.float64)
    matrix[range(axes), range(axes)] = halves
    matrix[:axes, axes] = halves
    return matrix


def in_pixels(matrix, source_size, target_size):
    """A homogeneous matrix (N, a + 1, a + 1) between normalised coordinates, between pixels instead."""
    return to_pixels(source_size) @ matrix @ torch.linalg.inv(to_pixels(target_size))


def smooth_image(*size):
    torch.manual_seed(0)
    noise = torch.rand(1, 1, *[s // 4 + 2 for s in size], dtype=torch.float64)
    mode = "bicubic" if len(size) == 2 else "trilinear"
    return torch.nn.functional.interpolate(noise, size, mode=mode, align_corners=True).clamp(0, 1)


@pytest.mark.parametrize("own_mesh", [False, True], ids=["lattice", "own mesh"])
def test_piecewise_affine_maps_are_those_of_scikit_image(own_mesh):
    """It triangulates by itself (Delaunay), so a lattice gets its triangles; a mesh of our own is one that
    Delaunay would make too."""
    vertices = VERTICES.double() if own_mesh else PiecewiseAffine((3, 4)).vertices.double()
    generator = torch.Generator().manual_seed(1)
    offsets = 0.1 * torch.randn(1, vertices.numel(), dtype=torch.float64, generator=generator)
    source = vertices + offsets.view(-1, 2)
    theirs = estimated(PiecewiseAffineTransform, vertices.numpy(), source.numpy())
    delaunay = torch.as_tensor(Delaunay(vertices.numpy()).simplices, dtype=torch.int64)
    if own_mesh:
        assert {frozenset(t) for t in delaunay.tolist()} == {frozenset(t) for t in TRIANGLES.tolist()}
    ours = PiecewiseAffine(vertices, TRIANGLES if own_mesh else delaunay)
    points = 2 * torch.rand(1, 500, 2, dtype=torch.float64, generator=generator) - 1
    expected = torch.as_tensor(np.asarray(theirs(points[0].numpy())))
    inside = (expected != -1).all(-1)  # scikit-image's value for points outside its mesh
    assert inside.sum() > 300
    mapped = ours.map_points(offsets, points)[0]
    # Vertices are float32 numbers here.
    torch.testing.assert_close(mapped[inside], expected[inside], rtol=0, atol=1e-6)


@pytest.mark.parametrize("transform", [Projective(), FourCorners()], ids=repr)
def test_projective_warps_are_opencvs_up_to_its_fixed_point(transform):
    """Its bilinear weights have 5 bits: places are rounded to 1 / 32 of a pixel, by half of that at most."""
    size, target = (40, 52), (36, 30)
    image = smooth_image(*size)
    theta = random_theta(transform, 4, spread=0.12)
    output = transform.sample(image, theta, target, align_corners=True)
    steepest = max(image.diff(dim=d).abs().max().item() for d in (2, 3))
    for n, matrix in enumerate(in_pixels(transform.homogeneous(theta), size, target)):
        # With this flag the matrix is the way we have it, from target to source.
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        expected = cv2.warpPerspective(image[0, 0].numpy(), matrix.numpy(), target[::-1], flags=flags)
        difference = (output[n, 0] - torch.as_tensor(expected)).abs()
        grid = transform.grid(theta[n : n + 1], target, align_corners=True)[0]
        interior = (grid.abs() < 0.98).all(-1)  # at the border its constant begins half a pixel elsewhere
        assert interior.float().mean() > 0.5
        assert difference[interior].max() <= 2 * steepest / 64 + 1e-6


@pytest.mark.parametrize("transform", [Affine(), Projective(), FourCorners()], ids=repr)
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
def test_warps_are_kornias(transform, padding_mode):
    size, target = (23, 31), (20, 18)
    image = smooth_image(*size).expand(3, -1, -1, -1)
    theta = random_theta(transform, 3, spread=0.15)
    output = transform.sample(image, theta, target, padding_mode=padding_mode, align_corners=True)
    # kornia takes the map from source to target, and inverts it.
    matrix = torch.linalg.inv(in_pixels(transform.homogeneous(theta), size, target))
    options = {"padding_mode": padding_mode, "align_corners": True}
    expected = warp_perspective(image, matrix, target, **options)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [(11, 9, 13), (8, 8, 8)])
def test_volumes_are_warped_as_by_scipy(size):
    transform, target = Affine3d(), (7, 12, 10)
    volume = smooth_image(*size)
    theta = random_theta(transform, 3)
    output = transform.sample(volume, theta, target, align_corners=True)
    for n, matrix in enumerate(in_pixels(transform.homogeneous(theta), size, target)):
        order = [2, 1, 0, 3]  # SciPy's coordinates run z, y, x
        theirs = matrix[order][:, order].numpy()
        expected = ndimage.affine_transform(
            volume[0, 0].numpy(), theirs, output_shape=target, order=1, mode="grid-constant"
        )
        torch.testing.assert_close(output[n, 0], torch.as_tensor(expected), rtol=0, atol=1e-12)
