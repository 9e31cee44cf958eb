"""CUB-200-2011: the loader on a small folder in its format, and the networks' shapes."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from archives import write_birds
from stn.data.birds import Birds
from stn.experiments.birds_networks import MODULES, BirdNetwork, Inception, inception, tiling


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "CUB_200_2011"
    images = {
        "001.Albatross/A_1.jpg": (np.full((300, 500), 0), 1, True),
        "001.Albatross/A_2.jpg": (np.full((90, 60), 128), 1, False),
        "200.Yellowthroat/Y_1.jpg": (np.full((256, 256), 255), 200, True),
    }
    write_birds(root, images)
    return root


def test_images_and_species_of_each_split(folder):
    train, test = Birds(folder, train=True), Birds(folder, train=False)
    assert (len(train), len(test)) == (2, 1)
    assert [species for _, species in (train[0], train[1])] == [0, 199]
    for image, grey in ((train[0][0], 0), (test[0][0], 128 / 255), (train[1][0], 1)):
        assert image.shape == (3, 224, 224)
        torch.testing.assert_close(image, torch.full_like(image, grey), rtol=0, atol=0.02)  # JPEG


def test_training_images_are_cut_and_mirrored_at_random_and_test_images_in_the_middle(folder):
    path = folder / "images" / "001.Albatross" / "A_1.jpg"
    columns = np.linspace(0, 255, 512).astype(np.uint8)
    Image.fromarray(np.broadcast_to(columns, (256, 512)).copy()).save(path, quality=95)
    generator = torch.Generator().manual_seed(0)
    train = Birds(folder, train=True, generator=generator)
    cut = [train[0][0][0, 100] for _ in range(12)]
    rising = [bool(row[-1] > row[0]) for row in cut]
    assert 0 < sum(rising) < 12
    assert len({round(row.mean().item(), 2) for row in cut}) > 6
    (folder / "train_test_split.txt").write_text("1 0\n2 0\n3 1\n")
    middle = Birds(folder, train=False)[0][0][0, 100]
    assert middle.mean().item() == pytest.approx(0.5, abs=0.02)
    assert middle[-1] > middle[0]


def test_448_pixels(folder):
    assert Birds(folder, train=False, size=448)[0][0].shape == (3, 448, 448)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("images.txt", "1 a.jpg\n2 b.jpg\n", "should be of the same images"),
        ("images.txt", "one\n", "images.txt: a line should be a number and a value, not 'one'"),
        ("image_class_labels.txt", "1 1\n2 x\n3 2\n", "image 2 has the species 'x'"),
        ("train_test_split.txt", "1 1\n2 0\n3 2\n", "image 3 has '2', neither 0 nor 1"),
    ],
)
def test_damaged_lists_are_named(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        Birds(folder, train=True)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"images\.txt"):
        Birds(tmp_path, train=True)


def test_inception_has_the_published_channels():
    filters = [module.filters for module in inception() if isinstance(module, Inception)]
    assert filters == [256, 320, 576, 576, 576, 576, 576, 1024, 1024, 1024]
    assert len(MODULES) == 10


def test_features_are_a_thirty_second_of_the_size():
    with torch.no_grad():
        assert inception().eval()(torch.rand(1, 3, 64, 96)).shape == (1, 1024, 2, 3)


@pytest.mark.parametrize(("crops", "size"), [(0, 224), (2, 224), (2, 448), (4, 448)])
def test_images_become_scores(crops, size):
    network = BirdNetwork(crops, size).eval()
    assert len(network.readers) == max(crops, 1)
    with torch.no_grad():
        assert network(torch.rand(1, 3, size, size)).shape == (1, 200)


@pytest.mark.parametrize("crops", [2, 4])
def test_windows_start_as_tiles_of_the_image(crops):
    network = BirdNetwork(crops, 448).eval()
    images = torch.rand(1, 3, 448, 448)
    with torch.no_grad():
        windows, theta = network.windows(images)
    torch.testing.assert_close(theta[0], tiling(crops))
    if crops == 4:
        quarters = [images[:, :, top : top + 224, left : left + 224] for top in (0, 224) for left in (0, 224)]
        torch.testing.assert_close(windows, torch.stack(quarters, 1), rtol=0, atol=1e-4)


def test_localisation_is_one_network_with_two_numbers_for_each_window():
    network = BirdNetwork(2)
    assert network.localisation.head.out_features == 4
    assert sum(isinstance(module, nn.Dropout) for module in network.modules()) == 1


def test_wrong_choices_are_named():
    with pytest.raises(ValueError, match="crops should be 0, 2 or 4, not 3"):
        BirdNetwork(3)
    with pytest.raises(ValueError, match="size should be 224, or 448 with transformers, not 448"):
        BirdNetwork(0, 448)
    with pytest.raises(RuntimeError, match="without transformers has no windows"):
        BirdNetwork(0).windows(torch.rand(1, 3, 224, 224))
