"""The networks for house numbers: shapes, sizes, identity starts, loss and error."""

import itertools
import math

import pytest
import torch
from torch import nn

from stn import SpatialTransformer
from stn.data.house_numbers import NONE, as_targets
from stn.experiments.svhn_networks import (
    MODELS,
    HouseNumberNetwork,
    sequence_error,
    sequence_loss,
)
from stn.training import count_parameters


def transformers(network):
    return [layer for layer in network.layers if isinstance(layer, SpatialTransformer)]


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("model", MODELS)
def test_images_become_scores_of_five_places(model, size):
    network = HouseNumberNetwork(model, size, units=8)
    scores = network(torch.rand(2, 3, size, size))
    assert scores.shape == (2, 5, 11)
    scores.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("model", "count", "maps"), [("cnn", 0, []), ("st-single", 1, [3]), ("st-multi", 4, [3, 48, 64, 128])]
)
def test_transformers_stand_before_the_first_convolutions_and_start_at_the_identity(model, count, maps):
    network = HouseNumberNetwork(model, units=8).eval()
    assert len(transformers(network)) == count
    images, seen = torch.rand(2, 3, 64, 64), []
    for layer in network.layers:
        if isinstance(layer, SpatialTransformer):
            seen.append(images.shape[1])
            torch.testing.assert_close(layer(images), images, rtol=0, atol=1e-4)
        images = layer(images)
    assert seen == maps


def test_the_classifier_has_the_papers_layers():
    network = HouseNumberNetwork("cnn")
    layers = [layer for layer in network.layers if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 11  # its hidden layers
    assert [layer.out_channels for layer in layers[:8]] == [48, 64, 128, 160, 192, 192, 192, 192]
    assert layers[8].in_features == 192 * 4 * 4
    channels = [3, 48, 64, 128, 160, 192, 192, 192, 192]
    convolutions = sum(25 * a * b + b for a, b in itertools.pairwise(channels))
    assert count_parameters(network) == convolutions + 3 * (3072 * 3072 + 3072) + 5 * (3072 * 11 + 11)


def test_single_has_a_localisation_network_of_four_layers():
    (transformer,) = transformers(HouseNumberNetwork("st-single", units=8))
    body = transformer.localisation.body
    assert sum(isinstance(layer, (nn.Conv2d, nn.Linear)) for layer in body) == 4


def test_there_is_no_dropout_after_the_first_convolution_nor_in_localisation_networks():
    network = HouseNumberNetwork("st-multi", units=8)
    kinds = [type(layer) for layer in network.layers]
    first, second = [index for index, kind in enumerate(kinds) if kind is nn.Conv2d][:2]
    assert nn.Dropout not in kinds[first:second]
    assert kinds.count(nn.Dropout) == 7 + 3
    assert not any(isinstance(module, nn.Dropout) for t in transformers(network) for module in t.modules())


def test_scores_depend_on_the_image_from_the_start():
    network, images = HouseNumberNetwork("cnn", units=256), torch.rand(8, 3, 64, 64)
    with torch.no_grad():
        assert 0.1 < network(images).std() < 2  # with dropout
        assert network.eval()(images).std(0).mean() > 1e-4  # 2e-6 from PyTorch's own start


def test_loss_is_the_sum_over_places_and_the_error_is_of_whole_numbers():
    targets = as_targets([[1, 2, 3], [7]])
    assert targets.tolist() == [[1, 2, 3, NONE, NONE], [7, NONE, NONE, NONE, NONE]]
    assert sequence_loss(torch.zeros(2, 5, 11), targets).item() == pytest.approx(5 * math.log(11))
    scores = nn.functional.one_hot(targets, 11).float()
    assert sequence_error(scores, targets) == 0
    scores[1, 4] = scores[1, 0]  # a digit where there is none
    assert sequence_error(scores, targets) == 0.5


def test_wrong_choices_are_named():
    with pytest.raises(ValueError, match="model should be one of cnn, st-single, st-multi, not 'st'"):
        HouseNumberNetwork("st")
    with pytest.raises(ValueError, match="size should be 64 or 128, not 32"):
        HouseNumberNetwork("cnn", 32)
