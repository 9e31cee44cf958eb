"""Coarse-to-fine gradients: the values of plain sampling, theta's gradient through blurred copies."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import stn
from stn import Affine, Affine3d, Attention, Translation, blur, sample_coarse_to_fine

PADDINGS = ["zeros", "border", "reflection", "constant"]


def case(axes=2, dtype=torch.float64):
    """An image or volume, a theta off the pixels, an output size, and its affine transform."""
    shape, size = ((2, 3, 9, 11), (7, 8)) if axes == 2 else ((2, 2, 6, 7, 8), (5, 4, 6))
    transform = Affine() if axes == 2 else Affine3d()
    theta = transform.identity() + 0.15 * torch.randn(2, transform.num_parameters)
    return transform, torch.rand(shape).to(dtype), theta.to(dtype), size


def gradients(output, *tensors):
    weights = torch.rand(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
    return torch.autograd.grad((output * weights).sum(), tensors)


def tent_by_pixels(image, half_width, zeros):
    """`blur`, one pixel at a time: its definition."""
    expected = torch.zeros_like(image)
    for target in torch.cartesian_prod(*map(torch.arange, image.shape[2:])):
        weights = torch.ones(image.shape[2:], dtype=image.dtype)
        for axis, length in enumerate(image.shape[2:]):
            along = (half_width - (torch.arange(length) - target[axis]).abs()).clamp(min=0).to(image)
            along = along / (half_width**2 if zeros else along.sum())
            weights = weights * along.view([-1 if a == axis else 1 for a in range(image.ndim - 2)])
        expected[(..., *target)] = (image * weights).flatten(2).sum(-1)
    return expected


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("padding_mode", PADDINGS)
@pytest.mark.parametrize("half_width", [2, 3, 20])
def test_blur_is_the_average_with_a_tent(axes, padding_mode, half_width):
    _, image, _, _ = case(axes)
    image = image[:1, :1]
    expected = tent_by_pixels(image, half_width, zeros=padding_mode == "zeros")
    # Float64 sums of up to 300 products.
    torch.testing.assert_close(blur(image, half_width, padding_mode), expected, rtol=0, atol=1e-13)


def test_blur_keeps_a_constant_except_where_zeros_come_in():
    image = torch.full((1, 1, 40, 40), 0.7, dtype=torch.float64)
    torch.testing.assert_close(blur(image, 6, "border"), image, rtol=0, atol=1e-14)
    blurred = blur(image, 6)
    torch.testing.assert_close(blurred[..., 6:-6, 6:-6], image[..., 6:-6, 6:-6], rtol=0, atol=1e-14)
    assert (blurred[..., 0, :] < 0.5).all()


def test_no_frequency_of_a_blur_is_turned_round():
    """A tent's spectrum is a square, sinc^2: what chapter 14's argument for the fixed point rests on."""
    spike = torch.zeros(1, 1, 1, 64, dtype=torch.float64)
    spike[..., 32] = 1
    tent = blur(spike, 8, "zeros")[0, 0, 0] * 8  # the one row has lost 7 / 8 of its weight to zeros around
    spectrum = torch.fft.fft(tent.roll(-32))
    assert spectrum.imag.abs().max() < 1e-13
    assert spectrum.real.min() > -1e-13


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("padding_mode", PADDINGS)
@pytest.mark.parametrize("options", [{}, {"align_corners": True}, {"mode": "nearest"}, {"antialias": True}])
def test_values_and_the_inputs_gradient_are_those_of_plain_sampling(axes, padding_mode, options):
    transform, input, theta, size = case(axes)
    input.requires_grad_()
    options = {"padding_mode": padding_mode, **options}
    if padding_mode == "constant":
        options["fill_value"] = 0.3
    plain = transform.sample(input, theta, size, **options)
    output = sample_coarse_to_fine(transform, input, theta.requires_grad_(), size, (2, 4), **options)
    assert torch.equal(output, plain)
    assert torch.equal(gradients(output, input)[0], gradients(plain, input)[0])


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_thetas_gradient_is_that_of_the_blurred_copies(axes, padding_mode):
    transform, input, theta, size = case(axes)
    theta.requires_grad_()
    output = sample_coarse_to_fine(transform, input, theta, size, (2, 5), padding_mode=padding_mode)
    expected = sum(
        scale**2
        * gradients(
            transform.sample(blur(input, scale, padding_mode), theta, size, padding_mode=padding_mode), theta
        )[0]
        for scale in (2, 5)
    )
    # Float64, the same sums in another order; gradients are of the order of 100.
    torch.testing.assert_close(gradients(output, theta)[0], expected, rtol=1e-12, atol=1e-11)
    plain = gradients(transform.sample(input, theta, size, padding_mode=padding_mode), theta)[0]
    assert (plain - expected).norm() > 0.1 * plain.norm()


def test_nearest_values_learn_through_bilinear_copies():
    transform, input, theta, size = case()
    theta.requires_grad_()
    output, bilinear = (
        sample_coarse_to_fine(transform, input, theta, size, (3,), mode=mode)
        for mode in ("nearest", "bilinear")
    )
    assert not torch.equal(output, bilinear)
    assert torch.equal(gradients(output, theta)[0], gradients(bilinear, theta)[0])


def test_the_fills_gradient_is_that_of_plain_sampling():
    transform, input, theta, size = case()
    fill = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    options = {"padding_mode": "constant", "fill_value": fill}
    theta = theta.requires_grad_()
    output = sample_coarse_to_fine(transform, input, theta, size, (3,), **options)
    (got,) = gradients(output, fill)
    (expected,) = gradients(transform.sample(input, theta, size, **options), fill)
    assert expected.all()
    assert torch.equal(got, expected)


def test_the_gradient_is_zero_where_the_output_is_what_it_should_be():
    transform, input, theta, size = case()
    wanted = transform.sample(input, theta, size)
    theta.requires_grad_()
    output = sample_coarse_to_fine(transform, input, theta, size, (2, 6))
    (gradient,) = torch.autograd.grad((output - wanted).square().sum(), theta)
    assert torch.equal(gradient, torch.zeros_like(theta))


@pytest.mark.parametrize("shift", [[3.0, 0.0], [-2.0, 5.0], [6.3, -4.8], [11.5, 9.25]])
def test_for_translations_it_is_the_gradient_between_images_blurred_by_a_box(shift):
    """Chapter 14: a tent is a box blurred by a box, and of the two each image takes one."""
    image = F.pad(torch.rand(1, 1, 7, 6, dtype=torch.float64), (37, 37, 37, 36))
    scale, box = 5, torch.ones(1, 1, 5, 5, dtype=torch.float64) / 25
    boxed = F.conv2d(image, box, padding=2)
    theta = torch.tensor([shift], dtype=torch.float64) * 2 / 80
    theta.requires_grad_()
    transform = Translation()
    output = sample_coarse_to_fine(transform, image, theta, (80, 80), (scale,))
    (gradient,) = torch.autograd.grad((output - image).square().sum(), theta)
    loss = (transform.sample(boxed, theta, (80, 80)) - boxed).square().sum()
    (expected,) = torch.autograd.grad(loss, theta)
    # Float64, 80 x 80 terms of the order of 10.
    torch.testing.assert_close(gradient, scale**2 * expected, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("scales", [(), (16,), (8, 24)])
def test_it_finds_from_sixteen_pixels_what_plain_sampling_does_not(scales):
    images, _ = stn.data.digits("test")
    digits = F.pad(images[:6], (22, 22, 22, 22))
    angle = torch.arange(6.0) * (torch.pi / 3)
    start = 16 * torch.stack([angle.cos(), angle.sin()], 1) * 2 / 72
    theta = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([theta], lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 100)
    for _ in range(100):
        output = sample_coarse_to_fine(Translation(), digits, theta, (72, 72), scales)
        optimiser.zero_grad()
        (output - digits).square().sum().backward()
        optimiser.step()
        schedule.step()
    found = ((theta.detach() * 36).norm(dim=1) < 0.5).float().mean()
    assert found == 1 if scales else found < 0.5


def test_no_scales_are_plain_sampling_with_its_own_gradient():
    transform, input, theta, size = case()
    theta.requires_grad_()
    output, plain = (
        sample_coarse_to_fine(transform, input, theta, size, ()),
        transform.sample(input, theta, size),
    )
    assert torch.equal(gradients(output, theta)[0], gradients(plain, theta)[0])


def test_without_a_gradient_of_theta_no_copy_is_made(monkeypatch):
    def fail(*arguments):
        raise AssertionError("a copy was blurred")

    monkeypatch.setattr("stn.coarse_to_fine.blur", fail)
    transform, input, theta, size = case()
    plain = transform.sample(input, theta, size)
    assert torch.equal(sample_coarse_to_fine(transform, input, theta, size, (4,)), plain)
    with torch.no_grad():
        output = sample_coarse_to_fine(transform, input, theta.requires_grad_(), size, (4,))
    assert torch.equal(output, plain)


def test_several_transforms_share_an_image():
    transform, input, theta, size = case()
    several = torch.stack([theta, theta + 0.1], 1).requires_grad_()
    output = sample_coarse_to_fine(transform, input, several, size, (3,))
    assert output.shape == (2, 2, 3, *size)
    single = theta.clone().requires_grad_()
    first = sample_coarse_to_fine(transform, input, single, size, (3,))
    assert torch.equal(output[:, 0], first)
    got = torch.autograd.grad(output[:, 0].square().sum(), several)[0][:, 0]
    torch.testing.assert_close(got, torch.autograd.grad(first.square().sum(), single)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_blurred_in_float32(dtype):
    transform, input, theta, size = case(dtype=torch.float32)
    half, theta = input.to(dtype), theta.requires_grad_()
    output = sample_coarse_to_fine(transform, half, theta, size, (4,))
    assert output.dtype == dtype
    assert torch.equal(output, transform.sample(half, theta.detach(), size))
    exact = sample_coarse_to_fine(transform, half.float(), theta, size, (4,))
    got, expected = gradients(output, theta)[0], gradients(exact, theta)[0]
    # Only the weights of the loss were rounded, to 8 bits in bfloat16.
    torch.testing.assert_close(got, expected, rtol=0, atol=2**-8 * float(expected.abs().max()))


@pytest.mark.parametrize("scales", [8, None, 2.5])
def test_scales_should_be_a_sequence(scales):
    transform, input, theta, size = case()
    with pytest.raises(TypeError, match="scales should be a sequence of integers"):
        sample_coarse_to_fine(transform, input, theta, size, scales)


@pytest.mark.parametrize("scales", [(1,), (0, 4), (4, 2.5), (True, 4), "ab", (-3,)])
def test_scales_should_be_integers_of_at_least_two(scales):
    transform, input, theta, size = case()
    with pytest.raises(ValueError, match=r"^scales should be integers of at least 2, not"):
        sample_coarse_to_fine(transform, input, theta, size, scales)
    with pytest.raises(ValueError, match=r"^gradient_scales should be integers of at least 2, not"):
        stn.SpatialTransformer(nn.Identity(), transform, size, gradient_scales=scales)


def test_a_wrong_image_is_named():
    transform, input, theta, size = case()
    with pytest.raises(ValueError, match="input"):
        sample_coarse_to_fine(transform, input[0], theta.requires_grad_(), size, (4,))
    with pytest.raises(ValueError, match="input"):
        blur(input[0], 4)


def transformers(scales=(3, 8), **options):
    """A transformer whose theta depends on the image, with and without scales, with the same weights."""
    torch.manual_seed(0)
    localisation = stn.FullyConnectedLocalisation((1, 28, 28), Attention())
    nn.init.normal_(localisation.head.weight, std=0.1)
    return (
        stn.SpatialTransformer(
            copy.deepcopy(localisation), Attention(), (20, 20), gradient_scales=s, **options
        )
        for s in (scales, ())
    )


def test_a_transformer_with_scales_has_the_values_of_one_without_and_their_gradients():
    far, plain = transformers(padding_mode="border")
    images = torch.rand(4, 1, 28, 28)
    output = far(images)
    assert torch.equal(output, plain(images))
    theta = far.localisation(images)
    expected = sample_coarse_to_fine(Attention(), images, theta, (20, 20), (3, 8), padding_mode="border")
    bias = far.localisation.head.bias
    (got,) = gradients(output, bias)
    assert torch.equal(got, gradients(expected, bias)[0])
    (near,) = gradients(plain(images), plain.localisation.head.bias)
    assert (got - near).norm() > 0.1 * near.norm()


def test_scales_and_a_canvas_exclude_each_other():
    with pytest.raises(ValueError, match="gradient_scales should be"):
        list(transformers(canvas=0.5))


def test_compiled_it_is_one_graph_with_the_same_values_and_gradients():
    far, _ = transformers()
    images = torch.rand(4, 1, 28, 28)
    compiled = torch.compile(copy.deepcopy(far), fullgraph=True, backend="aot_eager")
    output, expected = compiled(images), far(images)
    torch.testing.assert_close(output, expected)
    output.square().sum().backward()
    expected.square().sum().backward()
    for got, want in zip(compiled.parameters(), far.parameters(), strict=True):
        # float32 sums in another order; gradients are of the order of 1000
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-4, atol=1e-2)


def test_autocast_changes_neither_values_nor_the_precision_of_copies():
    transform, input, theta, size = case(dtype=torch.float32)
    theta.requires_grad_()
    expected = sample_coarse_to_fine(transform, input, theta, size, (4,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = sample_coarse_to_fine(transform, input, theta, size, (4,))
    assert torch.equal(output.float(), expected)
    torch.testing.assert_close(gradients(output, theta)[0], gradients(expected, theta)[0])
