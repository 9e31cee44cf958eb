"""Faults that the kernel tests must notice: each is planted, alone, by `run_faults.py`.

`caught_by` is a test of the fast subset, which is all of these tests together, that fails with the fault and
passes without. Planting one means replacing `old`, which occurs once in the file, by `new`.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    what: str
    file: str  # in kernels/stn_kernels
    old: str
    new: str
    caught_by: str  # in tests/kernels


FAULTS = [
    # weights
    Fault(
        "bilinear weights a thousandth too large",
        "sampling_kernels.py",
        "tl.maximum(1.0 - tl.abs(t), 0.0)",
        "tl.maximum(1.001 - tl.abs(t), 0.0)",
        "test_maps.py::test_each_map_equals_grid_then_sample",
    ),
    Fault(
        "bicubic: another polynomial between the middle taps",
        "sampling_kernels.py",
        "near = (1.25 * t - 2.25) * t * t + 1.0",
        "near = (1.2 * t - 2.2) * t * t + 1.0",
        "test_maps.py::test_each_map_equals_the_reference_in_every_choice",
    ),
    Fault(
        "bicubic: a derivative of another polynomial",
        "sampling_kernels.py",
        "(3.75 * distance - 4.5) * distance",
        "(3.75 * distance - 4.4) * distance",
        "test_maps.py::test_each_map_equals_the_reference_in_every_choice",
    ),
    Fault(
        "nearest: ties to the odd pixel",
        "sampling_kernels.py",
        "(rest == 0.5) & (odd == 1.0)",
        "(rest == 0.5) & (odd == 0.0)",
        "test_sample.py::test_nearest_takes_the_even_one_of_two_equally_near_pixels",
    ),
    Fault(
        "the support begins half a pixel too far left",
        "sampling_kernels.py",
        "tl.floor(position + (1.0 - TAPS * 0.5))",
        "tl.floor(position + (0.5 - TAPS * 0.5))",
        "test_maps.py::test_each_map_equals_grid_then_sample",
    ),
    # bounds
    Fault(
        "one pixel beyond the image counts as inside",
        "padding.py",
        "valid = (index >= 0) & (index < size)",
        "valid = (index >= 0) & (index <= size)",
        "test_maps.py::test_each_map_equals_grid_then_sample",
    ),
    Fault(
        "the fill begins half a pixel too far out",
        "padding.py",
        "outside = tl.abs(offset) > half_extent",
        "outside = tl.abs(offset) > half_extent + 0.5",
        "test_maps.py::test_each_map_equals_the_reference_in_every_choice",
    ),
    Fault(
        "gather: the last candidate of a row is not visited",
        "gather.py",
        "end = tl.ceil(middle + half)",
        "end = tl.ceil(middle + half) - 1.0",
        "test_gather.py::test_gathering_agrees_with_the_reference",
    ),
    Fault(
        "gather: transforms that are left to the scatter are forgotten",
        "gather.py",
        "            left += 1",
        "            left += 0",
        "test_gather.py::test_what_is_left_to_the_scatter_agrees_beside_what_is_gathered",
    ),
    Fault(
        "fixed point: the sums overflow",
        "launch_backward.py",
        "bits = 60 - ",
        "bits = 76 - ",
        "test_backward_ways.py::test_every_way_agrees_for_every_choice",
    ),
    # indices
    Fault(
        "taps mirrored at the border pixel's far edge",
        "padding.py",
        "index = tl.minimum(index, period - 1 - index)",
        "index = tl.minimum(index, period - index)",
        "test_maps.py::test_each_map_equals_grid_then_sample",
    ),
    Fault(
        "3-D: slices as high as they are wide",
        "template.py",
        "z = row // size[1]",
        "z = row // size[2]",
        "test_maps.py::test_each_map_equals_grid_then_sample",
    ),
    Fault(
        "transforms of one image read another",
        "forward.py",
        "n = m // transforms",
        "n = m % transforms",
        "test_transforms_per_image.py::test_many_at_once_equal_one_by_one",
    ),
    Fault(
        "displacement: rows stretched as columns are",
        "pixel_maps.py",
        "positions[1] * ratio(source[1], to[1], COMPUTE)",
        "positions[1] * ratio(source[1], to[0], COMPUTE)",
        "test_maps.py::test_no_displacement_in_another_size_stretches_the_image",
    ),
    Fault(
        "channels-last vectors of pixels that are not aligned",
        "layouts.py",
        "while tensor.stride(dimension) % unit:",
        "while False and tensor.stride(dimension) % unit:",
        "test_layouts.py::test_pixels_whose_distance_is_no_multiple_of_a_vector",
    ),
    # signs
    Fault(
        "reflection: the slope of the left side",
        "padding.py",
        "tl.where(left != odd, -1.0, 1.0)",
        "tl.where(odd, -1.0, 1.0)",
        "test_maps.py::test_each_map_equals_the_reference_in_every_choice",
    ),
    Fault(
        "bilinear: the slope points the other way",
        "sampling_kernels.py",
        "slope = tl.where(t < 0.0, 1.0, -1.0)",
        "slope = tl.where(t < 0.0, -1.0, 1.0)",
        "test_maps.py::test_each_map_equals_grid_then_sample",
    ),
    Fault(
        "projective: the denominator's sign",
        "coordinate_maps.py",
        "-numerator * offset",
        "numerator * offset",
        "test_maps.py::test_each_map_equals_grid_then_sample",
    ),
    # derivatives of transforms
    Fault(
        "affine: y's coefficient gets x's sum",
        "coordinate_maps.py",
        "tl.sum(grad * positions[1])",
        "tl.sum(grad * positions[0])",
        "test_maps.py::test_each_map_equals_grid_then_sample",
    ),
    Fault(
        "affine, 3-D: the third row lands in the second",
        "coordinate_maps.py",
        "linear_vjp(grad[2], lane, 8,",
        "linear_vjp(grad[2], lane, 4,",
        "test_maps.py::test_each_map_equals_grid_then_sample",
    ),
    Fault(
        "thin plate spline: half of the product rule for control points",
        "shared_maps.py",
        "pull *= log + 1.0",
        "pull *= log",
        "test_maps.py::test_splines_equal_solve_then_sample",
    ),
    Fault(
        "basis: the gradient of the last transform only",
        "shared_maps.py",
        "tl.load(plane, mask=inside, other=0.0) + change",
        "change",
        "test_maps.py::test_each_map_equals_grid_then_sample",
    ),
    Fault(
        "Eq. 7 with the weight in place of the slope along y",
        "backward.py",
        "product * (weight_x * slope_y * weight_z)[:, None]",
        "product * (weight_x * weight_y * weight_z)[:, None]",
        "test_maps.py::test_each_map_equals_grid_then_sample",
    ),
    Fault(
        "control points: the mean over transforms in place of the sum",
        "launch_backward.py",
        "rows[:, own:].sum(0)",
        "rows[:, own:].mean(0)",
        "test_maps.py::test_splines_equal_solve_then_sample",
    ),
    # around the kernels
    Fault(
        "forward mode: zero tangents",
        "autograd.py",
        "return double_vjp_jvp(reference_function(tensors, ctx.choices), present(tensors), there)",
        "return 0 * double_vjp_jvp(reference_function(tensors, ctx.choices), present(tensors), there)",
        "test_pytorch.py::test_no_tangent_is_silently_zero",
    ),
    Fault(
        "vmap over transforms of one image: in the order of the others",
        "ops.py",
        "joined = parameters.movedim(in_dims[1], 1).flatten(0, 1)",
        "joined = parameters.movedim(in_dims[1], 0).flatten(0, 1)",
        "test_pytorch.py::test_vmap_equals_a_loop",
    ),
]
