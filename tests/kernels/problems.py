"""Sampling problems of every kind as hypothesis strategies, and which of their pixels rounding decides.

Hypothesis draws the structure, which it can make smaller: sizes, choices, dtypes, layouts. The numbers are
PyTorch's, from a seed that is drawn, too.
"""

from typing import Any, NamedTuple

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from sampling_cases import (
    MARGIN,
    MODES,
    NAMES,
    PADDING_MODES,
    VIEWS,
    converted,
    draw_image,
    draw_shared,
    has_dimension,
    near_kinks,
    near_multiples,
    propose_parameters,
    uniform,
)
from stn_kernels import antialiasing, reference
from stn_kernels.autograd import Choices
from stn_kernels.reference import compute_dtype

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# Of outputs and gradients, as a share of the largest or of one: roundings of some hundred terms, which are
# tens and may cancel, in the dtype of the sums; where results are stored in half precision, one more in that.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 5e-4, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
# What the sums of a sample's place in float64 are off by, in pixels, and more.
ROUNDING = 1e-9
# A coordinate that no image is large enough for, and numbers that are none.
WILD = (torch.nan, torch.inf, -torch.inf, 1e4, -1e30)
# Sixty-four taps take the interpreter seconds.
VOLUME_MODES = [m for m in MODES if m != "bicubic"] * 4 + ["bicubic"]
LAYOUTS = (None, "channels_last", *VIEWS)


def interpreted():
    """A twentieth of the profile's examples: the interpreter takes that much longer for one."""
    return settings(max_examples=max(settings().max_examples // 20, 1))


class Problem(NamedTuple):
    """What a solver takes, see `sampling_cases`, and the output pixels (M, H', W') that rounding decides."""

    choices: Choices
    tensors: tuple[Tensor | None, ...]
    grad_output: Tensor
    undecided: Tensor

    @property
    def input_size(self):
        return tuple(self.tensors[0].shape[2:])

    def to(self, device):
        """On a device, as it lies."""
        tensors = tuple(None if t is None else moved(t, device) for t in self.tensors)
        grad_output, undecided = moved(self.grad_output, device), self.undecided.to(device)
        return self._replace(tensors=tensors, grad_output=grad_output, undecided=undecided)

    def exact(self):
        """The same numbers in float64, contiguous."""
        return tuple(None if t is None else t.double().contiguous() for t in self.tensors)

    def offsets(self):
        """Where the output's pixels are sampled, in pixels from the image's centre: (M, H', W', axes)."""
        _, parameters, shared, _ = self.exact()
        return offsets_of(self.choices, self.input_size, parameters, shared)

    def of_image(self, image):
        """The same of another image."""
        exact = [None if t is None else t.double().cpu() for t in self.tensors]
        size, compute = tuple(image.shape[2:]), compute_dtype(*self.tensors[:3])
        undecided = rounding_decides(self.choices, size, exact[1], exact[2], compute)
        return self._replace(tensors=(image, *self.tensors[1:]), undecided=undecided.to(image.device))

    def __repr__(self):
        shapes = {
            n: (tuple(t.shape), t.stride(), t.dtype)
            for n, t in zip(NAMES, self.tensors, strict=True)
            if t is not None
        }
        return f"{self.choices}, {shapes}"


def offsets_of(choices, input_size, parameters, shared):
    to_offsets = reference.COORDINATE_MAPS[choices.coordinate_map]
    return to_offsets(parameters, shared, input_size, choices.size, choices.align_corners)


def moved(tensor, device):
    """`Tensor.to` that keeps any strides."""
    elements = tensor.untyped_storage().nbytes() // tensor.element_size()
    memory = tensor.as_strided((elements,), (1,), 0).to(device)
    return memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def lie_as(tensor, layout):
    """The tensor in a layout. The values of expanded ones become equal along a dimension."""
    if layout is None or (layout == "expanded everywhere" and not tensor.numel()):
        return tensor
    if layout == "channels_last":
        last = torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d
        return tensor.to(memory_format=last) if tensor.ndim in (4, 5) else tensor
    return VIEWS[layout](tensor)


def rounding_decides(choices, input_size, parameters, shared, compute):
    """(M, H', W'): pixels that are sampled near a kink, and those sampled so far out that rounding moves them
    by as much, unless they are far outside the image all the same."""
    undecided = near_kinks(parameters, shared, choices, input_size)
    offsets = offsets_of(choices, input_size, parameters, shared)
    if "displacement" in choices.coordinate_map:
        terms = parameters.abs().movedim(1, -1).amax(-1)
    elif choices.coordinate_map == "grid":
        terms = parameters.abs().amax(-1)
    else:
        features = 1.0 if shared is None else max(float(shared.abs().max()), 8.0)  # r^2 log r is less
        terms = features * reference.per_pixel(parameters.abs().flatten(1).sum(1), len(choices.size))
    moved = 16 * torch.finfo(compute).eps * terms * max(input_size)
    far = moved.isfinite() & (moved > MARGIN)
    if choices.padding_mode != "reflection":
        beyond = offsets.abs() - moved[..., None] > 2 * max(input_size) + 4
        far = far & ~beyond.any(-1)
    undecided = undecided | far
    if choices.coordinate_map == "mesh":
        undecided = undecided | on_an_edge(shared, choices)
    if choices.antialias:
        undecided = undecided | samples_on_kinks(choices, input_size, parameters, shared)
    return undecided


def samples_on_kinks(choices, input_size, parameters, shared):
    """(M, H', W'): pixels with a sample on a kink. Samples divide a pixel into equal parts: some meet a kink
    exactly where parameters are equal or a map shrinks by a whole number."""
    numbers = parameters, shared, choices.coordinate_map, input_size, choices.size, choices.align_corners
    samples = antialiasing.samples(reference.footprints(*numbers))
    near = [near_multiples(offsets, choices, input_size, margin=ROUNDING) for offsets, _ in samples]
    return torch.stack(near).any(0)


def on_an_edge(triangles, choices):
    """(H', W'): pixels that rounding may put in another triangle."""
    x, y = torch.broadcast_tensors(
        *reference.normalised_pixels(choices.size, triangles, choices.align_corners)
    )
    smallest = torch.einsum("tij,j...->it...", triangles, torch.stack([x, y, torch.ones_like(x)])).amin(0)
    best = smallest.topk(2, 0).values
    return best[0] - best[1] < MARGIN


def lengths(axes, most):
    return st.tuples(*[st.integers(1, most)] * axes)


def mostly(*counts):
    """One of these, now and then none."""
    return st.sampled_from((*counts * 3, 0))


@st.composite
def problems(
    draw, maps, dtypes=DTYPES, modes=tuple(MODES), paddings=PADDING_MODES, wild=True, antialias=False, most=7
):
    """A problem of one of these maps: two or three dimensions, sizes from one pixel on, no images, transforms
    or channels among others; any strides; if `wild`, now and then a parameter without bounds."""
    coordinate_map = draw(st.sampled_from(maps))
    axes = draw(st.sampled_from([a for a in (2, 3) if has_dimension(coordinate_map, a)]))
    input_size = draw(lengths(axes, most if axes == 2 else 4))
    size = draw(lengths(axes, most if axes == 2 else 3))
    choices = Choices(
        size,
        coordinate_map,
        draw(st.sampled_from(modes if axes == 2 or "bicubic" not in modes else VOLUME_MODES)),
        draw(st.sampled_from(paddings)),
        draw(st.booleans()),
        draw(st.booleans()),
        antialias,
    )
    images, transforms = (draw(mostly(1, 2, 3)) for _ in range(2))
    channels = draw(mostly(1, 2, 3, 4, 5, 8))
    dtype = draw(st.sampled_from(dtypes))
    compute = compute_dtype(torch.empty(0, dtype=dtype))
    parameter_dtype = draw(st.sampled_from((dtype, compute)))

    torch.manual_seed(draw(st.integers(0, 2**32 - 1)))
    shared = uniform(-1, 1, 3, 3, 3) if coordinate_map == "mesh" else draw_shared(coordinate_map, size)
    parameters = propose_parameters(coordinate_map, images * transforms, input_size, size, shared)
    if wild and parameters.numel() and draw(st.integers(0, 3)) == 0:
        value = draw(st.sampled_from(WILD if coordinate_map != "projective" else WILD[:3]))
        parameters.view(-1)[draw(st.integers(0, parameters.numel() - 1))] = value
    fill = uniform(-1, 1, channels) if choices.padding_mode == "constant" else None

    image = lie_as(draw_image(images, channels, input_size).to(dtype), draw(st.sampled_from(LAYOUTS)))
    # A matrix of equal numbers may divide by zero.
    views = [v for v in VIEWS if not (coordinate_map == "projective" and v.startswith("expanded"))]
    parameters = lie_as(parameters.to(parameter_dtype), draw(st.sampled_from(views)))
    if shared is not None:
        shared = shared.to(parameter_dtype)
        if "basis" in coordinate_map:  # points or triangles that are equal make no map
            shared = lie_as(shared, draw(st.sampled_from(tuple(VIEWS))))
    tensors = (image, parameters, shared, *converted((fill,), compute))
    grad_output = draw_image(images * transforms, channels, size).to(dtype)
    grad_output = lie_as(grad_output, draw(st.sampled_from(LAYOUTS)))
    exact = [None if t is None else t.double().contiguous() for t in tensors]
    undecided = rounding_decides(choices, input_size, exact[1], exact[2], compute)
    if undecided.any():
        grad_output = torch.where(undecided[:, None], 0, grad_output)
    return Problem(choices, tensors, grad_output, undecided)


class Splatting(NamedTuple):
    """The arguments of `splat`, and the points that rounding decides, whose values are zero."""

    values: Tensor
    grid: Tensor
    size: tuple[int, ...]
    options: dict[str, Any]
    undecided: Tensor  # of the grid's shape, without its last dimension

    def to(self, device):
        """As `Problem.to`."""
        values, grid = moved(self.values, device), moved(self.grid, device)
        return self._replace(values=values, grid=grid, undecided=self.undecided.to(device))

    def __repr__(self):
        shapes = {n: (tuple(t.shape), t.stride(), t.dtype) for n, t in zip("vg", self[:2], strict=True)}
        return f"Splatting({shapes}, {self.size}, {self.options})"


@st.composite
def splattings(draw, dtypes=DTYPES):
    """As `problems`, with a grid."""
    problem = draw(problems(("grid",), dtypes, paddings=("zeros", "border", "reflection")))
    choices, (image, grid, _, _), values = problem.choices, problem.tensors, problem.grad_output
    options = {name: getattr(choices, name) for name in ("mode", "padding_mode", "align_corners")}
    options["deterministic"] = choices.deterministic
    images = image.shape[0]
    if len(grid) != images or draw(st.booleans()):
        transforms = len(grid) // images if images else draw(st.integers(0, 2))
        values, grid = (t.unflatten(0, (images, transforms)) for t in (values, grid))
    undecided = problem.undecided.view(grid.shape[:-1])
    return Splatting(values, grid, problem.input_size, options, undecided)
