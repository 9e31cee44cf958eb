"""ONNX's own test cases of GridSample and AffineGrid: inputs, and the outputs that a backend must give."""

import numpy as np
import pytest
import torch

from sampling_cases import assert_same
from stn_kernels import affine_sample, grid_sample, reference

pytest.importorskip("onnx")

from onnx.backend.test.case.node import affinegrid, gridsample

MODES = {"linear": "bilinear", "cubic": "bicubic"}  # by the names before opset 20, too


def cases_of(module, operator):
    """All that the module hands to ONNX's collection: attributes, inputs and outputs by name."""
    found = {}

    def record(node, inputs, outputs, name):
        attributes = {a.name: a.s.decode() if a.s else a.i for a in node.attribute}
        found[name] = (
            attributes,
            [torch.from_numpy(np.array(i)) for i in inputs],
            torch.from_numpy(outputs[0]),
        )

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(module, "expect", record)
        for name in dir(operator):
            if name.startswith("export"):
                getattr(operator, name)()
    return found


GRID_SAMPLE = cases_of(gridsample, gridsample.GridSample)
AFFINE_GRID = cases_of(affinegrid, affinegrid.AffineGrid)


def test_the_cases_are_of_two_and_three_dimensions():
    assert {len(shape) for _, (_, shape), _ in AFFINE_GRID.values()} == {4, 5}
    assert {inputs[0].ndim for _, inputs, _ in GRID_SAMPLE.values()} == {4, 5}
    assert {attributes.get("mode", "linear") for attributes, _, _ in GRID_SAMPLE.values()} >= {"nearest"}


@pytest.mark.parametrize("name", GRID_SAMPLE)
def test_grid_sample(device, name):
    attributes, (image, grid), expected = GRID_SAMPLE[name]
    mode = attributes.get("mode", "linear")
    output = grid_sample(
        image.to(device),
        grid.to(device),
        MODES.get(mode, mode),
        attributes.get("padding_mode", "zeros"),
        bool(attributes.get("align_corners", 0)),
    )
    # Outputs are written down with four decimals.
    assert_same({"output": output}, {"output": expected}, tolerance=1e-4)


@pytest.mark.parametrize("name", AFFINE_GRID)
def test_affine_grid(device, name):
    """The reference's grid; and an image whose values are its coordinates, sampled by theta. Theta is made
    smaller so that all points are inside."""
    attributes, (theta, shape), expected = AFFINE_GRID[name]
    size, corners = tuple(shape[2:].tolist()), bool(attributes["align_corners"])
    expected = expected.to(theta.dtype)
    grid = reference.affine_grid(theta, size, corners)
    torch.testing.assert_close(grid, expected, rtol=0, atol=1e-6)
    identity = torch.eye(len(size), len(size) + 1, dtype=theta.dtype)[None]
    coordinates = reference.affine_grid(identity, (9,) * len(size), corners).movedim(-1, 1)
    scale = 0.8 / float(expected.abs().max())
    output = affine_sample(coordinates.to(device), scale * theta.to(device), size, align_corners=corners)
    torch.testing.assert_close(output.movedim(1, -1).cpu(), scale * expected, rtol=0, atol=1e-6)
