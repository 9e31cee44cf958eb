"""The thin plate spline transform: the identity at the start, what theta means, folds, and the canvas."""

import copy
import pickle

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from stn import (
    Affine,
    Attention,
    ConvolutionalLocalisation,
    FullyConnectedLocalisation,
    SpatialTransformer,
    ThinPlateSpline,
)
from stn.measured import allocations
from stn.thin_plate_spline import SplineMap, fit_map
from stn_kernels import grid_sample, tps_sample

PARAMETERIZATIONS = ["offsets", "absolute", "bounded"]
OWN = torch.tensor([[-0.8, -0.5], [0.7, -0.9], [0.1, 0.2], [-0.6, 0.8], [0.9, 0.6]])
LAYOUTS = {"2 x 2": (2, 2), "3 x 5": (3, 5), "10 x 10": (10, 10), "text": "text", "own": OWN}


def transform_of(layout="3 x 5", parameterization="offsets", **options):
    control_points = LAYOUTS[layout]
    if isinstance(control_points, str):
        return ThinPlateSpline.text_borders(6, parameterization=parameterization, **options)
    return ThinPlateSpline(control_points, parameterization=parameterization, **options)


def random_theta(transform, count=3, sigma=0.1):
    noise = sigma * torch.randn(count, transform.num_parameters, dtype=torch.float64)
    return transform.identity().double() + noise


def close(actual, expected, atol):
    torch.testing.assert_close(actual, torch.as_tensor(expected).to(actual), rtol=0, atol=atol)


over_layouts = pytest.mark.parametrize("layout", LAYOUTS)
over_parameterizations = pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
over_corners = pytest.mark.parametrize("align_corners", [False, True])


# --- the identity ------------------------------------------------------------------------------------------


@over_layouts
@over_parameterizations
@over_corners
@pytest.mark.parametrize("regularization", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_untrained_it_returns_its_input(layout, parameterization, align_corners, regularization, dtype):
    transform = transform_of(layout, parameterization, regularization=regularization)
    localisation = FullyConnectedLocalisation((1, 7, 10), transform, hidden=(4,))
    model = SpatialTransformer(localisation, transform, (7, 10), align_corners=align_corners).to(dtype)
    images = torch.rand(2, 1, 7, 10, dtype=dtype)
    close(model(images), images, atol=1e-6 if dtype == torch.float32 else 1e-12)


@over_layouts
@over_parameterizations
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_identity_is_exact(layout, parameterization, dtype):
    """Whatever is left of the deviation above is the sampler's rounding, as for an affine identity."""
    transform = transform_of(layout, parameterization)
    weights = transform.weights(transform.identity().to(dtype).expand(5, -1))
    assert weights.dtype == dtype
    assert not weights[..., :-3].any()
    assert torch.equal(weights[..., -3:], torch.eye(2, 3, dtype=dtype).expand(5, 2, 3))


def test_a_bounded_lattice_on_the_border_needs_a_larger_bound():
    with pytest.raises(
        ValueError, match=r"^bound should be larger .* coordinate 1, not 1: artanh is infinite"
    ):
        ThinPlateSpline((3, 3), span=1.0, parameterization="bounded")
    transform = ThinPlateSpline((3, 3), span=1.0, parameterization="bounded", bound=1.2)
    image = torch.rand(1, 1, 6, 6)
    close(transform.sample(image, transform.identity()[None], (6, 6)), image, atol=1e-6)
    assert transform.source_points(torch.full((1, 18), 50.0)).amax().item() == pytest.approx(1.2)


# --- what theta means --------------------------------------------------------------------------------------


@over_layouts
@over_parameterizations
def test_theta_places_the_source_points(layout, parameterization):
    transform = transform_of(layout, parameterization)
    theta = random_theta(transform)
    target = transform.target_points
    numbers = theta.unflatten(1, (-1, 2))
    expected = {"offsets": target + numbers, "absolute": numbers, "bounded": numbers.tanh()}[parameterization]
    close(transform.source_points(theta), expected, atol=1e-7)  # artanh is rounded to float32
    # And that is where the warp reads at the target points.
    close(transform.spline(theta)(target.double()), transform.source_points(theta), atol=1e-10)


def test_layouts():
    assert ThinPlateSpline((2, 3), span=0.5).target_points.tolist() == [
        [-0.5, -0.5],
        [0.0, -0.5],
        [0.5, -0.5],
        [-0.5, 0.5],
        [0.0, 0.5],
        [0.5, 0.5],
    ]
    text = ThinPlateSpline.text_borders(5, span=1.0)
    assert text.target_points[:5].tolist() == [
        [-1.0, -1.0],
        [-0.5, -1.0],
        [0.0, -1.0],
        [0.5, -1.0],
        [1.0, -1.0],
    ]
    assert text.target_points[5:, 1].tolist() == [1.0] * 5
    assert torch.equal(ThinPlateSpline(OWN).target_points, OWN)
    assert [transform_of(name).num_parameters for name in LAYOUTS] == [8, 30, 200, 24, 10]


def test_bounded_source_points_stay_in_the_image_and_offsets_do_not():
    theta = 100 * torch.randn(4, 18)
    assert ThinPlateSpline((3, 3), parameterization="bounded").source_points(theta).abs().amax() <= 1 + 1e-6
    assert ThinPlateSpline((3, 3)).source_points(theta).abs().amax() > 10


@over_layouts
@over_parameterizations
@over_corners
@pytest.mark.parametrize("regularization", [0.0, 0.1])
@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
def test_sample_is_the_librarys(layout, parameterization, align_corners, regularization, padding_mode):
    transform = transform_of(layout, parameterization, regularization=regularization)
    image, theta = torch.rand(3, 2, 6, 9, dtype=torch.float64), random_theta(transform)
    options = {"padding_mode": padding_mode, "align_corners": align_corners}
    output = transform.sample(image, theta, (5, 8), **options)
    target, source = transform.target_points.double(), transform.source_points(theta)
    expected = tps_sample(
        image, source, (5, 8), target_points=target, regularization=regularization, **options
    )
    close(output, expected, atol=1e-9)
    grid = transform.grid(theta, (5, 8), align_corners)
    close(functional.grid_sample(image, grid, "bilinear", padding_mode, align_corners), output, atol=1e-9)


def test_the_spline_is_the_fitted_one():
    transform = transform_of(regularization=0.2)
    theta = random_theta(transform)
    spline = transform.spline(theta)
    source = transform.source_points(theta)
    expected = fit_map(
        target_points=transform.target_points.double(), source_points=source, regularization=0.2
    )
    assert isinstance(spline, SplineMap)
    close(spline.weights, expected.weights, atol=1e-12)
    close(spline.affine, expected.affine, atol=1e-12)
    close(spline.bending_energy(), expected.bending_energy(), atol=1e-10)


def test_text_on_a_curve_becomes_straight():
    """A line of text along y = 0.5 x^2 - 0.25, half as high as the image."""

    def middle(x):
        return 0.5 * x**2 - 0.25

    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 128), indexing="ij")
    image = torch.exp(-(((y - middle(x)) / 0.15) ** 2))[None, None].double()
    transform = ThinPlateSpline.text_borders(10, span=1.0, parameterization="absolute")
    columns = torch.linspace(-1, 1, 10).double()
    upper, lower = (torch.stack([columns, middle(columns) + half], -1) for half in (-0.4, 0.4))
    theta = torch.cat([upper, lower]).flatten()[None]
    output = transform.sample(image, theta, (16, 100), align_corners=True)
    bent = transform.sample(image, transform.identity().double()[None], (16, 100), align_corners=True)

    def spread_along_rows(strip):
        return strip[..., 5:-5].std(-1).amax().item()

    # Halfway between the borders, least bending is not quite the parabola.
    assert spread_along_rows(output) < 0.1
    assert spread_along_rows(bent) > 0.3


# --- gradients ---------------------------------------------------------------------------------------------


@over_parameterizations
@pytest.mark.parametrize("regularization", [0.0, 0.1])
def test_theta_gets_the_gradient(parameterization, regularization):
    transform = transform_of("2 x 2", parameterization, regularization=regularization)
    image, theta = torch.rand(2, 2, 5, 6, dtype=torch.float64), random_theta(transform, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: transform.sample(image, t, (3, 4)), theta)
    assert torch.autograd.gradcheck(
        lambda t: transform.sample_over(0.7, image, t, (3, 4), align_corners=True), theta
    )


@over_parameterizations
def test_pixels_on_control_points_have_finite_gradients(parameterization):
    transform = ThinPlateSpline((3, 3), span=1.0, parameterization=parameterization, bound=1.5)
    image = torch.rand(2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    theta = random_theta(transform, 2).requires_grad_()
    transform.sample(image, theta, (3, 3), align_corners=True).square().sum().backward()
    for tensor in (image, theta):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


def test_a_fold_is_penalised_until_it_is_gone():
    transform = ThinPlateSpline((4, 4))
    swapped = transform.target_points.clone()
    swapped[[5, 6]] = swapped[[6, 5]]
    theta = torch.stack([torch.zeros(32), (swapped - transform.target_points).flatten()]).double()
    penalty = transform.fold_penalty(theta)
    assert penalty[0] == 0
    assert penalty[1] > 0.03
    assert transform.fold_penalty(theta, margin=1.5)[0] == pytest.approx(0.5)
    assert transform.fold_penalty(theta, (40, 30))[1] == pytest.approx(penalty[1].item(), rel=0.3)
    theta.requires_grad_()
    optimiser = torch.optim.Adam([theta], lr=0.03)
    for _ in range(100):
        optimiser.zero_grad()
        transform.fold_penalty(theta, margin=0.1).sum().backward()
        optimiser.step()
    assert transform.spline(theta).folds().tolist() == [False, False]
    assert not theta[0].any()  # what does not fold is left alone


def test_it_learns_to_undo_a_warp():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 24), indexing="ij")
    image = (torch.exp(-8 * ((x - 0.2) ** 2 + y**2)) + 0.5 * (3 * x).sin())[None, None].double()
    transform = ThinPlateSpline((3, 3))
    theta = 0.1 * torch.randn(1, 18).double()
    wanted = transform.sample(image, theta, (24, 24), padding_mode="border")
    learned = torch.zeros(1, 18).double().requires_grad_()
    optimiser = torch.optim.Adam([learned], lr=0.02)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = functional.mse_loss(transform.sample(image, learned, (24, 24), padding_mode="border"), wanted)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 50


# --- the canvas --------------------------------------------------------------------------------------------


def test_where_the_warp_leaves_the_image_the_canvas_shows():
    image, canvas = torch.rand(1, 2, 4, 4), torch.rand(1, 2, 4, 4)
    half_a_pixel, away = torch.tensor([1.0, 0, 0.25, 0, 1, 0]), torch.tensor([1.0, 0, 3, 0, 1, 0])
    theta = torch.stack([Affine().identity(), half_a_pixel, away])
    output = Affine().sample_over(canvas, image, theta, (4, 4))
    close(output[0], image[0], atol=1e-6)
    close(output[1, ..., 3], (image[0, ..., 3] + canvas[0, ..., 3]) / 2, atol=1e-6)
    close(output[1, ..., :3], (image[0, ..., :3] + image[0, ..., 1:]) / 2, atol=1e-6)
    close(output[2], canvas[0], atol=0)


@pytest.mark.parametrize("transform", [Affine(), Attention(), transform_of("own")], ids=repr)
@over_corners
def test_white_on_white_stays_white(transform, align_corners):
    """Multiplied by the mask twice, the image's border would be darker."""
    theta = random_theta(transform, sigma=0.5)
    white = torch.ones(3, 1, 6, 6, dtype=torch.float64)
    output = transform.sample_over(1.0, white, theta, (9, 9), align_corners=align_corners)
    close(output, torch.ones(3, 1, 9, 9), atol=1e-12)
    black = transform.sample(white, theta, (9, 9), align_corners=align_corners)
    assert ((black > 0.01) & (black < 0.99)).any()


@pytest.mark.parametrize("shape", [(), (2, 1, 1), (5, 5), (2, 5, 5), (1, 2, 5, 5), (3, 2, 5, 5)])
def test_a_canvas_of_any_shape_that_broadcasts(shape):
    transform = transform_of("own")
    image, theta = torch.rand(3, 2, 5, 5, dtype=torch.float64), random_theta(transform, sigma=0.5)
    canvas = torch.rand(shape, dtype=torch.float64)
    output = transform.sample_over(canvas, image, theta, (5, 5))
    mask = transform.sample(torch.ones(3, 1, 5, 5).double(), theta, (5, 5))
    close(output, transform.sample(image, theta, (5, 5)) + (1 - mask) * canvas, atol=1e-12)


def test_canvas_and_image_get_gradients():
    transform = transform_of("own")
    theta = random_theta(transform, 2, sigma=0.5)
    image, canvas = (torch.rand(2, 1, *size, dtype=torch.float64) for size in ((4, 4), (3, 3)))
    tensors = (canvas.requires_grad_(), image.requires_grad_())
    assert torch.autograd.gradcheck(lambda c, i: transform.sample_over(c, i, theta, (3, 3)), tensors)


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 1, 2, 4, 4), (4, 1, 4, 4)])
def test_a_canvas_that_does_not_fit_is_named(shape):
    with pytest.raises(ValueError, match=r"^canvas should broadcast to \(2, 2, 4, 4\), not have shape"):
        Affine().sample_over(torch.rand(shape), torch.rand(2, 2, 4, 4), torch.zeros(2, 6), (4, 4))


# --- as a part of PyTorch ----------------------------------------------------------------------------------


def test_no_tensor_holds_every_pair_of_a_point_and_a_pixel_of_the_batch():
    """The fused kernel needs no such pairs; without a GPU there are those of one image, in x and y."""
    points, batch, side = 100, 16, 32
    transform = ThinPlateSpline((10, 10))
    image, theta = torch.rand(batch, 1, side, side), torch.zeros(batch, 2 * points, requires_grad=True)

    def forward_and_backward():
        transform.sample(image, theta, (side, side)).sum().backward()

    forward_and_backward()
    _, largest = allocations(forward_and_backward)
    assert largest[0] <= 4 * 2 * points * side * side


def test_half_precision_images_are_placed_in_float32():
    transform = transform_of()
    image, theta = torch.rand(2, 1, 28, 28).bfloat16(), 0.1 * torch.randn(2, 30)
    output = transform.sample(image, theta, (28, 28))
    assert output.dtype == torch.bfloat16
    close(output.float(), transform.sample(image.float(), theta, (28, 28)), atol=4e-3)  # half an ulp of 1


def test_autocast_keeps_the_identity_and_gives_gradients():
    transform = transform_of(parameterization="bounded")
    model = SpatialTransformer(ConvolutionalLocalisation((1, 28, 28), transform), transform, (28, 28))
    images = torch.rand(2, 1, 28, 28)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(images)
    close(output.float(), images, atol=4e-6)  # 14 pixels, rounded to float32
    output.sum().backward()
    assert model.localisation.head.bias.grad.any()


def test_compiled_it_is_one_graph_with_the_same_values_and_gradients():
    """Also where the constants have not been copied to the device yet."""
    torch._dynamo.reset()
    image, theta = torch.rand(2, 1, 8, 8), 0.1 * torch.randn(2, 30)
    outputs, gradients = [], []
    for function in (
        torch.compile(transform_of().sample, fullgraph=True, backend="aot_eager"),
        transform_of().sample,
    ):
        given = theta.clone().requires_grad_()
        for _ in range(2):
            outputs.append(function(image, given, (8, 8)))
        outputs[-1].square().sum().backward()
        gradients.append(given.grad)
    for output in outputs[1:]:
        close(output, outputs[0], atol=1e-5)
    close(gradients[0], gradients[1], atol=1e-4)


def test_what_comes_first_does_not_spoil_what_follows():
    """The constants are copied to a device and dtype at the first call, whatever is watching it."""
    image, theta = torch.rand(2, 1, 8, 8), 0.1 * torch.randn(2, 30)
    expected = transform_of().sample(image, theta, (8, 8))

    def in_inference_mode(transform):
        with torch.inference_mode():
            transform.sample(image, theta, (8, 8))

    def faked(transform):
        with FakeTensorMode(allow_non_fake_inputs=True):
            transform.weights(theta)

    def compiled(transform):
        torch._dynamo.reset()
        torch.compile(transform.sample, fullgraph=True, backend="aot_eager")(image, theta, (8, 8))

    def mapped(transform):
        torch.func.vmap(lambda t: transform.weights(t[None]))(theta)

    for first in (in_inference_mode, faked, compiled, mapped):
        transform = transform_of()
        first(transform)
        learned = theta.clone().requires_grad_()
        output = transform.sample(image, learned, (8, 8))
        close(output, expected, atol=1e-6)
        output.sum().backward()
        assert learned.grad.any()


def test_copies_and_pickles_do_the_same():
    transform = transform_of(regularization=0.1)
    image, theta = torch.rand(2, 1, 8, 8), 0.1 * torch.randn(2, 30)
    expected = transform.sample(image, theta, (8, 8))
    for other in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        assert torch.equal(other.sample(image, theta, (8, 8)), expected)


def test_the_callers_points_may_change_afterwards():
    points = OWN.clone()
    transform = ThinPlateSpline(points)
    points.zero_()
    assert torch.equal(transform.target_points, OWN)


def test_its_representation_shows_its_settings():
    assert repr(ThinPlateSpline()) == "ThinPlateSpline((4, 4), span=0.9, parameterization='offsets')"
    own = ThinPlateSpline(OWN, parameterization="bounded", bound=1.5, regularization=0.1)
    assert repr(own) == (
        "ThinPlateSpline(<5 points>, parameterization='bounded', bound=1.5, regularization=0.1)"
    )


@pytest.mark.parametrize(
    ("error", "message", "arguments", "options"),
    [
        (ValueError, "control_points should be .rows, columns.", [(1, 4)], {}),
        (ValueError, "control_points should be .rows, columns.", [(4.0, 4)], {}),
        (ValueError, "control_points should be .rows, columns.", [4], {}),
        (ValueError, "control_points should be .rows, columns.", ["grid"], {}),
        (ValueError, "control_points should have shape", [torch.zeros(3, 3)], {}),
        (ValueError, "control_points should be three or more", [OWN[:2]], {}),
        (ValueError, "control_points should not all be on a line", [OWN * torch.tensor([1.0, 0.0])], {}),
        (ValueError, "control_points should be distinct", [OWN[[0, 1, 2, 1]]], {}),
        (ValueError, "span should be positive", [], {"span": 0}),
        (TypeError, "span should be a number", [], {"span": "1"}),
        (ValueError, "bound should be positive", [], {"bound": -1.0}),
        (ValueError, "parameterization should be one of", [], {"parameterization": "free"}),
        (ValueError, "regularization should be finite", [], {"regularization": -1}),
    ],
)
def test_bad_arguments_are_named(error, message, arguments, options):
    with pytest.raises(error, match="^" + message):
        ThinPlateSpline(*arguments, **options)


@pytest.mark.parametrize("call", ["source_points", "weights", "spline", "fold_penalty", "grid", "sample"])
def test_bad_theta_is_named(call):
    transform, image = ThinPlateSpline((2, 2)), torch.zeros(2, 1, 4, 4)
    calls = {
        "grid": lambda theta: transform.grid(theta, (4, 4)),
        "sample": lambda theta: transform.sample(image, theta, (4, 4)),
    }
    function = calls.get(call) or getattr(transform, call)
    with pytest.raises(
        ValueError, match=r"^theta should have shape \(N, 8\) for ThinPlateSpline.* not \(2, 9\)"
    ):
        function(torch.zeros(2, 9))
    with pytest.raises(TypeError, match=r"^theta should be of a floating dtype, not torch\.int64"):
        function(torch.zeros(2, 8, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^theta should have input's batch size 2, not 3"):
        transform.sample(image, torch.zeros(3, 8), (4, 4))
    with pytest.raises(TypeError, match=r"^theta should have input's dtype torch.float32"):
        transform.sample(image, torch.zeros(2, 8).double(), (4, 4))


def test_an_image_of_one_serves_many_thetas():
    transform = ThinPlateSpline((2, 2))
    image, theta = torch.rand(1, 1, 6, 6), 0.1 * torch.randn(4, 8)
    expected = grid_sample(image, transform.grid(theta, (6, 6)))
    close(transform.sample(image, theta, (6, 6)), expected, atol=1e-5)
