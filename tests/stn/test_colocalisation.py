"""Co-localisation: the loss, the windows, and the command."""

import json

import pytest
import torch

import stn
from stn.colocalisation import (
    Colocaliser,
    encode,
    hinge_loss,
    intersection_over_union,
    random_windows,
)
from stn.experiments.__main__ import main
from stn.experiments.colocalisation import CLUTTER, METHODS, scattered
from stn.networks import convolutional_network


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return convolutional_network((1, 28, 28), 4).requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    digits, labels = stn.data.digits("train")
    return scattered(digits, labels, 3, 0, generator())


# --- the parts ---------------------------------------------------------------------------------------------


def test_the_loss_is_the_papers_sum_as_a_mean():
    crops, others = torch.randn(2, 5, 3, generator=generator(), dtype=torch.float64)
    terms = [
        max(0.0, ((crops[n] - crops[m]) ** 2).sum() - ((crops[n] - others[n]) ** 2).sum() + 0.7)
        for n in range(5)
        for m in range(5)
        if m != n
    ]
    assert any(term == 0 for term in terms)
    torch.testing.assert_close(hinge_loss(crops, others, 0.7), sum(terms) / 20)


def test_features_of_each_layer_have_norm_one(encoder, images):
    crops = images[0][:6, :, 20:48, 20:48]
    shares = [encode(encoder, crops, (layer,)) for layer in (2, 5)]
    for share in shares:
        torch.testing.assert_close(share.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(encode(encoder, crops, (2, 5)), torch.cat(shares, 1))
    torch.testing.assert_close(encode(encoder, crops, (7,), unit=False), encoder(crops))


def test_overlap_is_that_of_counted_pixels():
    theta = torch.tensor([[0.5, 0.0, 0.0], [0.25, 0.5, -0.25], [0.25, 0.9, 0.9]])
    centres = torch.tensor([[0.0, 0.0], [8.0, -6.0], [-8.0, -8.0]])
    pixels = (torch.arange(32) - 15.5).expand(32, 32)
    for one, centre, overlap in zip(
        theta, centres, intersection_over_union(theta, centres, (32, 32), 12.0), strict=True
    ):
        inside = [
            ((pixels - x).abs() < reach) & ((pixels.T - y).abs() < reach)
            for reach, (x, y) in ((16 * one[0], 16 * one[1:]), (6, centre))
        ]
        counted = (inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum()
        assert overlap.item() == pytest.approx(counted.item(), abs=1e-6)


def test_random_windows_keep_their_bounds():
    theta = random_windows(1000, 0.5, 0.4, slack=0.1, generator=generator())
    assert (theta[:, 0] - 0.5).abs().max() <= 0.1
    assert 0.38 < theta[:, 1:].abs().max() <= 0.4


def test_digits_lie_where_it_says(images):
    seen, places = images
    assert seen.shape == (100, 1, 84, 84)
    theta = torch.cat([torch.full((100, 1), 1 / 3), places / 42], 1)
    ink = stn.Attention().sample(seen, theta, (28, 28)).sum((1, 2, 3))
    torch.testing.assert_close(ink, seen.sum((1, 2, 3)), rtol=1e-3, atol=0.0)


def test_clutter_is_added(images):
    digits, labels = stn.data.digits("train")
    cluttered, places = scattered(digits, labels, 3, CLUTTER["TC"], generator())
    torch.testing.assert_close(places, images[1])
    assert cluttered.sum() > 1.3 * images[0].sum()


# --- the windows -------------------------------------------------------------------------------------------


def test_the_window_narrows():
    model = Colocaliser((1, 84, 84), 0.3, first=1.5)
    scales = []
    for progress in (0, 0.2, 0.5, 0.8, 1):
        model.narrow(progress)
        scales.append(round(model.scale, 4))
    assert scales == [1.5, 1.5, 0.9, 0.3, 0.3]
    theta = model(torch.rand(3, 1, 84, 84))
    torch.testing.assert_close(theta, torch.tensor([0.3, 0.0, 0.0]).expand(3, 3))


@pytest.mark.parametrize("anchored", [True, False])
def test_anchored_windows_have_no_gradient_that_moves_them_all(encoder, images, anchored):
    model = Colocaliser((1, 84, 84), 0.4, anchored=anchored)
    model.loss(encoder, images[0][:8], generator=generator()).backward()
    gradient = model.localisation.head.bias.grad
    together = gradient[1:].abs().max()
    assert (together < 1e-5) if anchored else (together > 1e-2)  # sums of some ones, in float32
    assert gradient[0].abs() > 1e-2
    assert model.localisation.head.weight.grad[1:].abs().max() > 1e-4  # each image's own


def test_centring_brings_what_is_shown_to_the_middle(images):
    model = Colocaliser((1, 84, 84), 1 / 3, first=1 / 3, slack=None, scales=())
    here = torch.zeros(4, 1, 84, 84)
    here[:, :, 45:52, 30:40] = 1.0  # its middle 7 pixels to the left of the image's and 6.5 below
    for _ in range(3):
        model.centre(here)
    torch.testing.assert_close(model.offset[1:], torch.tensor([35.0 - 42, 48.5 - 42]) / 42, rtol=0, atol=2e-3)
    before = model.offset.clone()
    model.centre(torch.zeros(4, 1, 84, 84))
    assert torch.equal(model.offset, before)


def test_wrong_arguments_are_named(encoder):
    with pytest.raises(ValueError, match="slack, last and first should rise"):
        Colocaliser((1, 84, 84), 0.4, first=0.3)
    with pytest.raises(ValueError, match="shape should have H and W of at least 17"):
        Colocaliser((1, 16, 84), 0.4)
    with pytest.raises(ValueError, match="layers should be indices of the encoder's 8"):
        encode(encoder, torch.zeros(2, 1, 28, 28), (2, 8))
    with pytest.raises(ValueError, match=r"crops and others should be \(N, F\)"):
        hinge_loss(torch.zeros(1, 3), torch.zeros(1, 3))


# --- the command -------------------------------------------------------------------------------------------


def run(folder):
    words = ["colocalisation", "--schedule", "smoke", "--sets", "TC", "--digits", "3", "--seeds", "0"]
    main([*words, "--device", "cpu", "--output", str(folder)])
    return {path.name: json.loads(path.read_text())["final"] for path in sorted(folder.glob("*.json"))}


def test_a_smoke_run_repeats_its_figures_and_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("STN_DATA", raising=False)
    first = run(tmp_path / "one")
    assert len(first) == len(METHODS)
    assert run(tmp_path / "two") == first
    main(["report", "colocalisation", "--output", f"{tmp_path}/one", "--figure", f"{tmp_path}/figure.png"])
    text = capsys.readouterr().out
    assert "embedded digits" in text
    assert "TC narrowed" in text
    assert "[75]" in text
    assert (tmp_path / "figure.png").stat().st_size > 1000
