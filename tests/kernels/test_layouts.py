"""Tensors are taken as they lie in memory; channels-last images stay so on the way through the kernels."""

import pytest
import torch

from sampling_cases import (
    AXES,
    INPUT_SIZE,
    LAYOUTS,
    MAPS,
    MODES,
    NAMES,
    PADDING_MODES,
    SIZE,
    VIEWS,
    assert_close,
    converted,
    definition,
    draw_problem,
    has_dimension,
    library,
    pairwise,
    values_and_gradients,
)
from stn_kernels.autograd import Choices

# Every tensor of every map that has it; the image and the gradient of the output are the same for all.
TENSORS = [("input", "affine"), ("grad_output", "affine")]
TENSORS += [("parameters", m) for m in MAPS] + [("shared", "basis"), ("shared", "tps")]


@pytest.mark.parametrize(
    ("which", "coordinate_map", "axes", "view"),
    [
        (*tensor, axes, view)
        for tensor, axes, view in pairwise(
            TENSORS, (2, 3), VIEWS, valid=lambda tensor, axes, view: has_dimension(tensor[1], axes)
        )
    ],
)
def test_any_strides_give_the_same_results(device, which, coordinate_map, axes, view):
    choices = Choices(SIZE[axes], coordinate_map)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[axes])
    problem = dict(zip(NAMES, converted(tensors, device), strict=True), grad_output=grad_output.to(device))
    problem[which] = viewed = VIEWS[view](problem[which])
    assert not viewed.is_contiguous()

    def solution(**problem):
        grad_output = problem.pop("grad_output")
        return values_and_gradients(library(choices), problem.values(), grad_output)

    expected = solution(**{**problem, which: viewed.contiguous()})
    assert_close(solution(**problem), expected, 1e-13)  # the same sums, perhaps in another order


@pytest.fixture(params=LAYOUTS)
def layouts(request, device):
    """The layout of an image, and of what is computed from it: ATen's results are always contiguous."""
    by_kernels = request.node.callspec.params["device"] == "kernels"
    return request.param, request.param if by_kernels else "contiguous"


def lies_as(tensor, layout):
    formats = LAYOUTS[layout]
    return (
        tensor.is_contiguous()
        if formats is None
        else tensor.is_contiguous(memory_format=formats[tensor.ndim])
    )


@pytest.mark.parametrize(
    ("coordinate_map", "axes", "channels", "dtype", "deterministic"),
    pairwise(
        *[MAPS, (2, 3), (2, 4, 5), (torch.float16, torch.float32, torch.float64), (False, True)],
        valid=lambda m, axes, *_: has_dimension(m, axes),
    ),
)
def test_channels_last_in_channels_last_out_of_the_kernels(
    request, device, coordinate_map, axes, channels, dtype, layouts, deterministic
):
    """The output, and the gradient of the image. Others are contiguous, as fake tensors say; without
    the operators, autograd lays them out."""
    layout, expected = layouts
    choices = Choices(SIZE[axes], coordinate_map, deterministic=deterministic)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[axes], channels=channels, layout=layout)
    tensors, grad_output = converted(tensors, device, dtype), grad_output.to(device, dtype)
    assert lies_as(tensors[0], layout)
    results = values_and_gradients(library(choices), tensors, grad_output)
    for name in ("output", "gradient of input"):
        assert lies_as(results.pop(name), expected), name
    if request.node.callspec.params["device"] != "cpu_path":
        assert all(gradient.is_contiguous() for gradient in results.values())


@pytest.mark.parametrize(
    ("images", "transforms", "channels"),
    [(0, 1, 3), (0, 3, 3), (2, 2, 0)],
    ids=["no images", "no images with transforms", "no channels"],
)
@pytest.mark.parametrize(
    ("coordinate_map", "axes", "mode", "padding_mode", "deterministic"),
    pairwise(
        *[MAPS, (2, 3), MODES, PADDING_MODES, (False, True)],
        valid=lambda m, axes, *_: has_dimension(m, axes),
    ),
)
def test_nothing_in_gives_nothing_out(
    device, coordinate_map, axes, mode, padding_mode, deterministic, images, transforms, channels
):
    choices = Choices(SIZE[axes], coordinate_map, mode, padding_mode, False, deterministic)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[axes], images, transforms, channels)
    tensors = converted(tensors, device)
    results = values_and_gradients(library(choices), tensors, grad_output.to(device))
    assert results["output"].shape == (images * transforms, channels, *SIZE[axes])
    for name, tensor in zip(NAMES, tensors, strict=True):
        if tensor is not None:
            assert results[f"gradient of {name}"].shape == tensor.shape
            assert (results[f"gradient of {name}"] == 0).all()


@AXES
@pytest.mark.parametrize("deterministic", [False, True])
def test_one_image_and_no_transforms_have_an_image_gradient_of_zeros(device, axes, deterministic):
    choices = Choices(SIZE[axes], "affine", deterministic=deterministic)
    tensors, grad_output = draw_problem(choices, INPUT_SIZE[axes], images=1)
    image, theta = (t.to(device) for t in tensors[:2])
    results = values_and_gradients(
        library(choices), (image, theta[:0], None, None), grad_output[:0].to(device)
    )
    assert results["output"].shape == (0, 3, *SIZE[axes])
    assert torch.equal(results["gradient of input"], torch.zeros_like(image))


@pytest.mark.parametrize("apart", [13, 14, 16])
def test_pixels_whose_distance_is_no_multiple_of_a_vector(kernels, apart):
    """Twelve of `apart` channels, neighbours in memory: vectors of one, two and four."""
    choices = Choices((3, 4), "affine")
    (_, *others), grad_output = draw_problem(choices, (5, 6), images=1, channels=12)
    image = torch.randn(1, 5, 6, apart, dtype=torch.float32).double()
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        memory = image.to(kernels, dtype)
        tensors = (memory[..., :12].permute(0, 3, 1, 2), *converted(others, kernels, dtype))
        expected = values_and_gradients(
            definition(choices), (image[..., :12].permute(0, 3, 1, 2), *others), grad_output
        )
        actual = values_and_gradients(library(choices), tensors, grad_output.to(kernels, dtype))
        assert_close(actual, expected, tolerance)
