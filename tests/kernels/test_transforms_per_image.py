"""Several transforms of each image: the results of one by one, and no copy of the image."""

import pytest
import torch

import stn_kernels
from sampling_cases import (
    AXES,
    INPUT_SIZE,
    MAPS,
    SIZE,
    assert_close,
    converted,
    definition,
    draw_image,
    draw_problem,
    has_dimension,
    leaves,
    library,
    uniform,
    values_and_gradients,
)
from stn_kernels.autograd import Choices

MAPS_OF_EITHER_DIMENSION = pytest.mark.parametrize(
    ("coordinate_map", "axes"), [(m, a) for m in MAPS for a in (2, 3) if has_dimension(m, a)]
)


def one_by_one(choices, transforms):
    """The reference, for each transform and its own image: image n's are n T ... n T + T - 1."""

    def solve(input, parameters, *others):
        pairs = [(input[m // transforms, None], parameters[m, None]) for m in range(len(parameters))]
        return torch.cat([definition(choices)(*pair, *others) for pair in pairs])

    return solve


@MAPS_OF_EITHER_DIMENSION
def test_many_at_once_equal_one_by_one(device, coordinate_map, axes):
    """The gradients of image, basis, control points and fill are sums over the transforms."""
    choices = Choices(SIZE[axes], coordinate_map, padding_mode="constant")
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[axes], images=2, transforms=2, channels=2)
    actual = values_and_gradients(library(choices), converted(tensors, device), grad_output.to(device))
    assert_close(actual, values_and_gradients(one_by_one(choices, 2), tensors, grad_output))


@MAPS_OF_EITHER_DIMENSION
def test_one_image_serves_any_number_of_transforms(device, coordinate_map, axes):
    """(1, C, H, W) with parameters (N, ...) gives (N, C, H', W')."""
    choices = Choices(SIZE[axes], coordinate_map)
    (image, *others), grad_output = draw_problem(choices, INPUT_SIZE[axes], images=3, channels=2)
    one = (image[:1].to(device), *converted(others, device))
    actual = values_and_gradients(library(choices), one, grad_output.to(device))

    def repeated(input, *others):
        return library(choices)(input.expand_as(image), *others)

    assert actual["output"].shape == (3, 2, *SIZE[axes])
    assert_close(actual, values_and_gradients(repeated, one, grad_output.to(device)))


@AXES
@pytest.mark.parametrize(("images", "leading"), [(1, (2,)), (1, (2, 3)), (2, (2, 3))], ids=str)
def test_the_output_has_the_parameters_leading_dimensions(device, images, leading, axes):
    image, size = draw_image(images, 3, INPUT_SIZE[axes]).to(device), SIZE[axes]
    shape = (*leading, 3, *size)
    zeros = image.new_zeros
    homography = torch.eye(axes + 1, device=device).double().expand(*leading, axes + 1, axes + 1)
    outputs = [
        stn_kernels.grid_sample(image, zeros(*leading, *size, axes)),
        stn_kernels.affine_sample(image, zeros(*leading, axes, axes + 1), size),
        stn_kernels.projective_sample(image, homography, size),
        stn_kernels.basis_sample(image, zeros(*leading, axes, 5), zeros(5, *size)),
        stn_kernels.displacement_sample(image, zeros(*leading, axes, *size)),
    ]
    if axes == 2:
        points = uniform(-1, 1, 4, 2).to(device)
        source = points.expand(*leading, 4, 2)
        outputs.append(stn_kernels.tps_sample(image, source, size, target_points=points))
    assert [output.shape for output in outputs] == [shape] * len(outputs)


def test_second_gradients_of_many_equal_those_of_one_by_one(device):
    choices = Choices(SIZE[2], "affine")
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[2], images=2, transforms=2, channels=2)
    tensors, grad_output = converted(tensors, device), grad_output.to(device)

    def second(solve):
        inputs = list(leaves(tensors).values())
        first = torch.autograd.grad(solve(*inputs), inputs, grad_output, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), inputs)

    for actual, expected in zip(second(library(choices)), second(one_by_one(choices, 2)), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
