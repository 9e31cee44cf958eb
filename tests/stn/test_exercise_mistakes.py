"""The typical wrong answers to the exercises are rejected, each with the sentence that helps."""

import math

import pytest
import torch
import torch.nn.functional as F

import stn_kernels
from verdicts import assert_mistake_is_named

ROTATION = torch.tensor([[0.0, -1.0], [1.0, 0.0]])


def window_swapped(row, column, side, size):
    return side / size, (2 * row + side) / size - 1, (2 * column + side) / size - 1


def window_for_aligned_corners(row, column, side, size):
    before, last = (side - 1) / 2, size - 1
    return (side - 1) / last, 2 * (column + before) / last - 1, 2 * (row + before) / last - 1


def window_from_its_corner(row, column, side, size):
    return side / size, 2 * column / size - 1, 2 * row / size - 1


def inverse_with_plain_shift(theta):
    return torch.cat([torch.linalg.inv(theta[:, :, :2]), -theta[:, :, 2:]], 2)


def inverse_by_transposing(theta):
    block = theta[:, :, :2].mT
    return torch.cat([block, -block @ theta[:, :, 2:]], 2)


def turned_about(x, y, angle):
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    block, fixed = torch.tensor([[cosine, -sine], [sine, cosine]]), torch.tensor([x, y])
    return torch.cat([block, (fixed - block @ fixed)[:, None]], 1)


def turn_without_half_pixel(row, column, angle, size):
    return turned_about(2 * column / size - 1, 2 * row / size - 1, angle)


def turn_clockwise(row, column, angle, size):
    return turned_about((2 * column + 1) / size - 1, (2 * row + 1) / size - 1, -angle)


def turn_about_the_centre(row, column, angle, size):
    return turned_about(0.0, 0.0, angle)


def nearest_value(image, n, m):
    return float(image[n, m]) if 0 <= n < image.shape[0] and 0 <= m < image.shape[1] else 0.0


def nearest_half_to_even(image, a, b):
    return nearest_value(image, round(b), round(a))


def nearest_cut_off(image, a, b):
    return nearest_value(image, math.floor(b), math.floor(a))


def nearest_swapped(image, a, b):
    return nearest_value(image, math.floor(a + 0.5), math.floor(b + 0.5))


def sample_zeros(image, a, b):
    value = 0.0
    for n in (math.floor(b), math.floor(b) + 1):
        for m in (math.floor(a), math.floor(a) + 1):
            value += (1 - abs(a - m)) * (1 - abs(b - n)) * nearest_value(image, n, m)
    return value


def sample_with_clamped_neighbours(image, a, b):
    height, width = image.shape
    left, right = (min(max(math.floor(a) + i, 0), width - 1) for i in (0, 1))
    top, bottom = (min(max(math.floor(b) + i, 0), height - 1) for i in (0, 1))
    upper = (right - a) * image[top, left] + (a - left) * image[top, right]
    lower = (right - a) * image[bottom, left] + (a - left) * image[bottom, right]
    return (bottom - b) * upper + (b - top) * lower


def background_not_given_back(input, theta, size, background):
    return stn_kernels.affine_sample(input - background, theta, size)


def background_painted_over_zeros(input, theta, size, background):
    output = stn_kernels.affine_sample(input, theta, size)
    return torch.where(output == 0, background, output)


def four_neighbours_for_any_kernel(image, a, b, kernel, radius):
    return sum(
        nearest_value(image, n, m) * kernel(a - m) * kernel(b - n)
        for n in (math.floor(b), math.floor(b) + 1)
        for m in (math.floor(a), math.floor(a) + 1)
    )


def slopes_of_patch(U00, U01, U10, U11, alpha, beta):
    across = (1 - beta) * (U01 - U00) + beta * (U11 - U10)
    return across, (1 - alpha) * (U10 - U00) + alpha * (U11 - U01)


def slopes_to_the_left(image, a, b):
    left, top = math.ceil(a) - 1, math.ceil(b) - 1
    patch = [nearest_value(image, n, m) for n in (top, top + 1) for m in (left, left + 1)]
    return slopes_of_patch(*patch, a - left, b - top)


def slopes_swapped(image, a, b):
    left, top = math.floor(a), math.floor(b)
    patch = [nearest_value(image, n, m) for n in (top, top + 1) for m in (left, left + 1)]
    return slopes_of_patch(*patch, a - left, b - top)[::-1]


def slopes_by_equation_7(image, a, b):
    def case(t):
        return 0 if abs(t) >= 1 else 1 if t <= 0 else -1

    def tent(t):
        return max(0, 1 - abs(t))

    pixels = [(n, m, float(image[n, m])) for n in range(image.shape[0]) for m in range(image.shape[1])]
    across = sum(value * case(a - m) * tent(b - n) for n, m, value in pixels)
    return across, sum(value * tent(a - m) * case(b - n) for n, m, value in pixels)


def paint_without_adding(values, a, b, height, width):
    image = torch.zeros(height, width)
    for n in (b.floor(), b.floor() + 1):
        for m in (a.floor(), a.floor() + 1):
            exists = (n >= 0) & (n < height) & (m >= 0) & (m < width)
            shares = values * (1 - (a - m).abs()) * (1 - (b - n).abs())
            image[n[exists].long(), m[exists].long()] = shares[exists]
    return image


def paint_nearest(values, a, b, height, width):
    image = torch.zeros(height, width)
    for value, m, n in zip(values, (a + 0.5).floor().long(), (b + 0.5).floor().long(), strict=True):
        if 0 <= n < height and 0 <= m < width:
            image[n, m] += value
    return image


def attention_gradient_of_x_only(delta, G):
    return torch.cat([(delta * G)[..., :1].sum((1, 2)), delta.sum((1, 2))], 1)


def attention_gradient_as_mean(delta, G):
    return torch.cat([(delta * G).sum(-1, keepdim=True), delta], -1).mean((1, 2))


def value_in_row(row, a):
    t = a[:, None] - torch.arange(len(row))
    return (row * torch.clamp(1 - t.abs(), min=0)).sum(1)


def glasses_over_eyes(row, a, reach):
    far = (value_in_row(row, a + reach) - value_in_row(row, a - reach)) / (2 * reach)
    return value_in_row(row, a) + far.detach() * (a - a.detach())


def glasses_not_worn(row, a, reach):
    return value_in_row(row, a)


def copy_as_if_contiguous(picture):
    return picture.as_strided(picture.shape, (picture.shape[1], 1)).clone()


def sample_by_two_functions(input, theta, size):
    grid = F.affine_grid(theta, (len(input), 1, *size), align_corners=False)
    return F.grid_sample(input, grid, align_corners=False)


def sample_with_rows_scaled_alike(input, theta, size):
    height, width = size
    aspect = theta.new_tensor([[1, height / width, 1], [width / height, 1, 1]])
    return sample_by_two_functions(input, theta * aspect, size)


def sample_without_dividing(input, theta, size):
    return sample_by_two_functions(input, theta[:, :2], size)


def sectors_of_one_pixel_in_whole_sectors(n, m, channels, size, channels_last):
    return -(-channels // 8) if channels_last else sectors_counted(n, m, channels, size, False)


def sectors_counted(n, m, channels, size, channels_last):
    numbers = [
        (n * size[1] + m) * channels + c if channels_last else (c * size[0] + n) * size[1] + m
        for c in range(channels)
    ]
    return len({number // 8 for number in numbers})


def sectors_with_layouts_exchanged(n, m, channels, size, channels_last):
    return sectors_counted(n, m, channels, size, not channels_last)


def sectors_of_large_planes(n, m, channels, size, channels_last):
    return sectors_counted(n, m, channels, size, True) if channels_last else channels


def attended(picture, s, t_x, t_y, size):
    zero = torch.zeros_like(s)
    return sample_by_two_functions(picture, torch.stack([s, zero, t_x, zero, s, t_y], 1).view(-1, 2, 3), size)


def attention_swapped(picture, parameters, size):
    s, t_x, t_y = parameters.unbind(1)
    return attended(picture, s, t_y, t_x, size)


def attention_with_scaled_shift(picture, parameters, size):
    s, t_x, t_y = parameters.unbind(1)
    return attended(picture, s, s * t_x, s * t_y, size)


def attention_by_two_functions(picture, parameters, size):
    return attended(picture, *parameters.unbind(1), size)


def through_lens(picture, k, size, power=2):
    identity = torch.eye(2, 3).to(picture).expand(len(picture), 2, 3)
    grid = F.affine_grid(identity, [len(picture), 1, *size], align_corners=False)
    stretch = 1 + k[:, None, None] * grid.norm(dim=3, keepdim=True) ** power
    return F.grid_sample(picture, stretch * grid, align_corners=False)


def lens_of_the_first(picture, k, size):
    return through_lens(picture, k[:1].expand_as(k), size)


def lens_the_other_way(picture, k, size):
    return through_lens(picture, -k, size)


def lens_of_distances(picture, k, size):
    return through_lens(picture, k, size, power=1)


def mismatch_of_all(picture, theta, target):
    return (sample_by_two_functions(picture, theta, target.shape[2:]) - target).square().sum()


def mismatch_as_mean(picture, theta, target):
    return (sample_by_two_functions(picture, theta, target.shape[2:]) - target).square().mean((1, 2, 3))


def mismatch_with_the_output_in_memory(picture, theta, target):
    return (sample_by_two_functions(picture, theta, target.shape[2:]) - target).square().sum((1, 2, 3))


def interval_without_swapping(M, d, y):
    rest = d - M[:, 1] * y
    return ((rest - 1) / M[:, 0]).max().item(), ((rest + 1) / M[:, 0]).min().item()


def interval_of_x_only(M, d, y):
    rest = (d - M[:, 1] * y)[0]
    return tuple(sorted(((rest + side) / M[0, 0]).item() for side in (-1, 1)))


def interval_as_union(M, d, y):
    rest = d - M[:, 1] * y
    ends = torch.stack([(rest - 1) / M[:, 0], (rest + 1) / M[:, 0]])
    return ends.min().item(), ends.max().item()


def interval_of_the_box(M, d, y):
    inverse = torch.linalg.inv(M)
    middle, half = (inverse @ d)[0].item(), inverse[0].abs().sum().item()
    return middle - half, middle + half


def blocks_of(values, k):
    return values.view(values.shape[0] // k, k, values.shape[1] // k, k)


def collect_the_mean(values, k):
    return blocks_of(values, k).mean((1, 3))


def collect_one_of_each(values, k):
    return values[::k, ::k]


@pytest.mark.parametrize(
    ("exercise", "answer", "sentence"),
    [
        ("02-1", [-1, -0.5, 0, 0.5, 1], "align_corners=True"),
        ("02-1", [-1, -0.6, -0.2, 0.2, 0.6], "left edges"),
        ("02-1", [0.2, 0.6, 1.0, 1.4, 1.8], "from -1 to 1"),
        ("02-1", [-0.8, -0.4, 0, 0.4], "should have shape"),
        ("02-1", "-4/5", "should be numbers"),
        ("02-2", 6, "which way"),
        ("02-2", -5.85, "align_corners=True"),
        ("02-2", -12, "a length of 2"),
        ("02-3", window_swapped, "t_x goes across"),
        ("02-3", window_for_aligned_corners, "right for align_corners=True"),
        ("02-3", window_from_its_corner, "not its top left corner"),
        ("02-4", [[0, 1, 0], [-1, 0, 0]], "clockwise"),
        ("02-4", torch.tensor([[0, 1, 0], [1, 0, 0]]), "swaps x and y"),
        ("02-4", ROTATION, "2 rows and 3 columns"),
        ("02-5", inverse_with_plain_shift, "through the inverse block"),
        ("02-5", inverse_by_transposing, "rotation only"),
        ("02-6", turn_without_half_pixel, "half a pixel"),
        ("02-6", turn_clockwise, "clockwise"),
        ("02-6", turn_about_the_centre, "about the centre"),
        ("03-1", [0.125, 0.375, 0.125, 0.375], "left and right are swapped"),
        ("03-1", [0.375, 0.375, 0.125, 0.125], "a goes across"),
        ("03-1", [0.75, 0.25, 0.5, 0.5], "product of two"),
        ("03-2", 8, "border padding"),
        ("03-2", 0, "half a pixel"),
        ("03-3", nearest_half_to_even, "rounds it up"),
        ("03-3", nearest_cut_off, "cuts the fraction off"),
        ("03-3", nearest_swapped, "a goes across"),
        ("03-4", sample_zeros, "zeros padding"),
        ("03-4", sample_with_clamped_neighbours, "clamp the point"),
        ("03-5", background_not_given_back, "not given back"),
        ("03-5", background_painted_over_zeros, "still mixed with 0"),
        ("03-6", four_neighbours_for_any_kernel, "radius 2 means"),
        ("04-1", [4, 6], "align_corners=True"),
        ("04-1", [4, 2], "grows by that factor"),
        ("04-1", [5, 10], "the first is the value"),
        ("04-2", [2, -3, 3, -0.5], "swapped"),
        ("04-2", [-3, 2, 2, -0.5], "knows nothing of the 5"),
        ("04-2", [-3, 2, 3, -1], "the mean, not the sum"),
        ("04-3", slopes_to_the_left, "the slope to the left"),
        ("04-3", slopes_swapped, "first across"),
        ("04-3", slopes_by_equation_7, "read literally"),
        ("04-4", paint_without_adding, "all of them should count"),
        ("04-4", paint_nearest, "share among four"),
        ("04-5", attention_gradient_of_x_only, "s scales y too"),
        ("04-5", attention_gradient_as_mean, "the mean over the pixels"),
        ("04-6", glasses_over_eyes, "detach the value"),
        ("04-6", glasses_not_worn, "one pixel far"),
        ("07-1", [20, 284], "there are five"),
        ("07-1", [60, 4260], "channels are a loop"),
        ("07-1", [18, 396], "do not run on from image to image"),
        ("07-2", [40, 24], "float16 has 2 bytes"),
        ("07-2", [20, 12], "stays float32"),
        ("07-3", copy_as_if_contiguous, "what lies next in memory"),
        ("07-3", torch.clone, "should be contiguous"),
        ("07-4", sample_by_two_functions, "exactly"),
        ("07-4", sample_with_rows_scaled_alike, "a step down"),
        ("07-5", sample_by_two_functions, "bilinear"),
        ("07-6", sample_without_dividing, "divided by w"),
        ("08-1", [20, 80], "float16 has 2 bytes"),
        ("08-1", [10, 50], "three coordinates"),
        ("08-1", [10, 46], "the gradient of the grid is moved"),
        ("08-1", [10, 58], "once more"),
        ("08-2", sectors_with_layouts_exchanged, "the other layout"),
        ("08-2", sectors_of_large_planes, "can share a sector"),
        ("08-2", sectors_of_one_pixel_in_whole_sectors, "across a border"),
        ("08-3", attention_swapped, "t_x goes across"),
        ("08-3", attention_with_scaled_shift, "not the shift"),
        ("08-3", attention_by_two_functions, "exactly"),
        ("08-4", lens_of_the_first, "m has its own"),
        ("08-4", lens_the_other_way, "the sign of k"),
        ("08-4", lens_of_distances, "its square is asked for"),
        ("08-5", mismatch_of_all, "one number for each image"),
        ("08-5", mismatch_as_mean, "the mean, not the sum"),
        ("08-5", mismatch_with_the_output_in_memory, "bytes were allocated"),
        ("09-1", ["float32"], "that the shares are float16 changes nothing"),
        ("09-1", ["float32", "float16", "rows"], "in the order of their places"),
        ("09-1", ["float32", "float16", "atomics"], "there is no 'atomics'"),
        ("09-2", [52, 46], "64-bit integers"),
        ("09-2", [21, 15], "round the logarithm up"),
        ("09-2", [25, 22], "count all output pixels"),
        ("09-3", [4, 512 * 504], "round up"),
        ("09-3", [5, 410 * 126], "has 4 bytes"),
        ("09-3", [5, 409 * 504], "one of 3"),
        ("09-3", [10, 205 * 504], "two numbers for each pixel"),
        ("09-4", interval_without_swapping, "swaps the two ends"),
        ("09-4", interval_of_x_only, "the second has one, too"),
        ("09-4", interval_as_union, "intersection"),
        ("09-4", interval_of_the_box, "that is the box"),
        ("09-5", collect_the_mean, "the mean of each block"),
        ("09-5", collect_one_of_each, "one output pixel of each block"),
    ],
)
def test_a_typical_mistake_is_named(exercise, answer, sentence, capsys):
    assert_mistake_is_named(exercise, answer, sentence, capsys)
