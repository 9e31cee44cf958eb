"""What only a GPU can show: real races, streams, graphs, and tensors too large for the interpreter."""

import pytest
import torch

from stn_kernels import affine_sample, backend, displacement_sample, grid_sample

if not (backend.HAS_TRITON and torch.cuda.is_available()):
    pytest.skip("needs a GPU, and Triton", allow_module_level=True)

from stn_kernels import launch_backward

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
RUNS = 10


def problem(channels_last=True, dtype=torch.float32, magnification=8.0):
    """Many output pixels add to each input pixel."""
    image = torch.randn(4, 16, 64, 64, device=CUDA, dtype=dtype)
    if channels_last:
        image = image.contiguous(memory_format=torch.channels_last)
    theta = torch.eye(2, 3, device=CUDA) / magnification + 0.02 * torch.randn(4, 2, 3, device=CUDA)
    return image.requires_grad_(), theta.requires_grad_()


def gradients(image, theta, **choices):
    output = affine_sample(image, theta, (256, 256), **choices)
    grad = torch.randn(output.shape, device=CUDA, generator=torch.Generator(CUDA).manual_seed(1))
    return torch.autograd.grad(output, (image, theta), grad.to(output.dtype))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("magnification", [1.0, 8.0])
@pytest.mark.parametrize("way", [name for name, way in launch_backward.WAYS.items() if way.fixed_point])
def test_deterministic_gradients_are_the_same_bits_on_every_run(
    monkeypatch, way, magnification, dtype, channels_last
):
    monkeypatch.setattr(launch_backward, "forced_way", way)
    tensors = problem(channels_last, dtype, magnification)
    first = gradients(*tensors)
    for _ in range(RUNS):
        assert all(map(torch.equal, gradients(*tensors), first))


def test_deterministic_splatting_of_random_points_is_the_same_bits_on_every_run():
    image = torch.randn(2, 3, 32, 32, device=CUDA, requires_grad=True)
    grid = torch.rand(2, 300, 300, 2, device=CUDA) * 3 - 1.5
    first = None
    for _ in range(RUNS):
        (grad,) = torch.autograd.grad(grid_sample(image, grid, deterministic=True).sum(), image)
        first = grad if first is None else first
        assert torch.equal(grad, first)


def test_thetas_gradient_is_the_same_bits_on_every_run_also_beside_the_scatter():
    tensors = problem()
    first = gradients(*tensors)[1]
    assert all(torch.equal(gradients(*tensors)[1], first) for _ in range(RUNS))


def test_the_ways_agree_on_large_images():
    tensors = problem(magnification=1.0)
    expected = gradients(*tensors)[0]
    for way in launch_backward.WAYS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch_backward, "forced_way", way)
            actual = gradients(*tensors)[0]
        # Sums of about sixteen terms; their weights differ by a rounding of coordinates up to 32, 2 ** -19,
        # where the compiler fuses multiplications and additions otherwise.
        assert float((actual - expected).abs().max() / expected.abs().max()) < 16 * 2**-19, way


def test_a_training_step_is_captured_in_a_graph_and_replayed_on_new_values():
    image, theta = problem()
    static = [t.detach().clone().requires_grad_() for t in (image, theta)]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # warm up: compile, and let the allocator settle
        for _ in range(2):
            torch.autograd.grad(affine_sample(*static, (256, 256)).square().sum(), static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = torch.autograd.grad(affine_sample(*static, (256, 256)).square().sum(), static)
    with torch.no_grad():
        for t in static:
            t.add_(0.01)
    graph.replay()
    expected = torch.autograd.grad(affine_sample(*static, (256, 256)).square().sum(), static)
    for actual, wanted in zip(captured, expected, strict=True):
        assert float((actual - wanted).abs().max() / wanted.abs().max()) < 1e-4


def test_kernels_run_on_the_current_stream():
    image, theta = problem()
    expected = affine_sample(image, theta, (256, 256))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        busy = torch.randn(2048, 2048, device=CUDA)
        for _ in range(20):
            busy = busy @ busy * 1e-3
        late = torch.zeros_like(image).copy_(image)  # written after all of that
        actual = affine_sample(late, theta, (256, 256))
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(actual, expected)


def test_offsets_past_2_to_the_31():
    """One half-precision image of 4.3 GB, of which only the last corner is not zero."""
    side = 46_342
    free, _ = torch.cuda.mem_get_info()
    if free < 30 * 2**30:
        pytest.skip("needs 30 GiB of GPU memory")
    image = torch.zeros(1, 1, side, side, device=CUDA, dtype=torch.float16)
    corner = torch.arange(1.0, 17.0, device=CUDA, dtype=torch.float16).view(1, 1, 4, 4)
    image[..., -4:, -4:] = corner
    image.requires_grad_()
    # The output's pixels are the last four rows and columns.
    scale = 4 / side
    theta = torch.tensor([[[scale, 0, 1 - scale], [0, scale, 1 - scale]]], device=CUDA)
    output = affine_sample(image, theta, (4, 4))
    # At this distance from the centre a float32 coordinate is exact to 2 ** -9 pixel, of differences up to 4.
    assert float((output - corner).abs().max()) < 16 * 2**-8
    (grad,) = torch.autograd.grad(output.sum(), image)
    assert abs(float(grad[..., -5:, -5:].sum(dtype=torch.float32)) - 16) < 0.1
    assert not grad[..., :-6, :].any()


def test_a_displacement_of_a_large_volume_moves_it():
    volume = torch.randn(1, 2, 96, 96, 96, device=CUDA)
    shift = torch.zeros(1, 3, 96, 96, 96, device=CUDA)
    shift[:, 0] = 1
    moved = displacement_sample(volume, shift)
    assert torch.equal(moved[..., :-1], volume[..., 1:])
