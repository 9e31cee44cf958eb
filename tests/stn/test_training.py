"""The training loop learns, repeats itself with a seed, and counts errors rightly."""

import pytest
import torch
from torch import nn

from stn.data import digits, rotated
from stn.localisation import FullyConnectedLocalisation
from stn.networks import convolutional_network, fully_connected_network
from stn.spatial_transformer import SpatialTransformer
from stn.training import count_parameters, error_rate, random_batches, train
from stn.transforms import Affine


def small_training(seed, steps=200):
    images, labels = digits("test")
    torch.manual_seed(seed)
    model = fully_connected_network((1, 28, 28), units=32)
    generator = torch.Generator().manual_seed(seed)
    batches = random_batches(images, labels, 64, distortion=rotated, generator=generator)
    return model, train(model, batches, steps, learning_rate=3e-3)


def test_training_lowers_the_loss_and_the_error():
    images, labels = digits("test")
    model, losses = small_training(0)
    assert losses.shape == (200,)
    assert losses[-10:].mean() < losses[:10].mean() / 2
    assert error_rate(model, images, labels) < 0.3  # chance is 0.9


def test_a_seed_decides_everything():
    (first, losses), (second, same) = small_training(1), small_training(1)
    assert torch.equal(losses, same)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(losses, small_training(2)[1])


def test_batches_keep_images_and_labels_together():
    images = torch.arange(50.0).view(50, 1, 1, 1).expand(50, 1, 28, 28)
    batches = random_batches(images, torch.arange(50), 200, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        batch, labels = next(batches)
        assert torch.equal(batch[:, 0, 0, 0], labels.float())
        assert len(labels.unique()) > 40  # of 50; 200 draws leave out one in fifty on average


def test_the_callback_sees_every_step_in_turn():
    model = fully_connected_network((1, 4, 4), units=4)
    seen = []
    batch = (torch.rand(2, 1, 4, 4), torch.tensor([1, 2]))
    train(model, iter([batch] * 3), 3, callback=seen.append)
    assert seen == [1, 2, 3]
    assert not model.training


def test_the_localisation_network_learns_at_its_own_rate():
    """Adam's first step moves every number that has a gradient by the learning rate."""
    torch.manual_seed(0)
    localisation = FullyConnectedLocalisation((1, 28, 28), Affine(), hidden=(8,))
    transformer = SpatialTransformer(localisation, Affine(), (28, 28))
    model = nn.Sequential(transformer, fully_connected_network((1, 28, 28), units=8))
    images, labels = digits("test")
    before = [localisation.head.bias.detach().clone(), model[1][-1].bias.detach().clone()]
    train(model, [(images[:32], labels[:32])], 1, learning_rate=1e-2, localisation_factor=0.1)
    for old, new, moved in zip(
        before, (localisation.head.bias, model[1][-1].bias), (1e-3, 1e-2), strict=True
    ):
        torch.testing.assert_close((new - old).abs(), torch.full_like(old, moved), rtol=1e-2, atol=0)


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_error_rate_is_the_share_of_wrong_answers(batch_size):
    scores = torch.eye(4)[:, :, None, None]
    labels = torch.tensor([0, 1, 3, 3])
    assert error_rate(nn.Flatten(), scores, labels, batch_size) == 0.25


def test_count_parameters_leaves_out_frozen_ones():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert count_parameters(model) == 6


@pytest.mark.parametrize("side", [21, 28, 42, 60])
def test_networks_give_scores_for_every_image_size_of_the_paper(side):
    image = torch.rand(2, 3, side, side)
    assert convolutional_network((3, side, side), filters=4)(image).shape == (2, 10)
    assert fully_connected_network((3, side, side), units=5, num_classes=19)(image).shape == (2, 19)


def test_three_weight_layers_each():
    for network in (convolutional_network((1, 28, 28), 4), fully_connected_network((1, 28, 28), 4)):
        assert sum(isinstance(layer, nn.Linear | nn.Conv2d) for layer in network) == 3


def test_bad_arguments_are_named():
    batch = (torch.rand(2, 1, 4, 4), torch.tensor([1, 2]))
    model = fully_connected_network((1, 4, 4), units=4)
    with pytest.raises(ValueError, match="steps should be at least 1, not 0"):
        train(model, [batch], 0)
    with pytest.raises(ValueError, match="batches should yield 2 batches, not 1"):
        train(model, [batch], 2)
    with pytest.raises(ValueError, match=r"labels should be as many as images \(2\), not 3"):
        next(random_batches(torch.rand(2, 1, 4, 4), torch.zeros(3), 1))
    with pytest.raises(ValueError, match="input_shape should have H and W of at least 21"):
        convolutional_network((1, 20, 28), 4)
