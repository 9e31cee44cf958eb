"""Co-localisation (appendix A.2): find what a set of images has in common, with no label and no box.

A transformer cuts a window out of each image. The windows are right when they look alike, more so than they
look like windows anywhere; an encoder that was trained to tell digits says what looks alike. Chapter 16.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from stn.coarse_to_fine import sample_coarse_to_fine
from stn.localisation import Localisation
from stn.transforms import Attention

LAYERS = (2, 5)  # of `stn.networks.convolutional_network`: behind each convolution's pooling
ALL_LAYERS = (2, 5, 7)  # and the scores, as the paper has it


def encode(
    encoder: nn.Sequential, images: Tensor, layers: Sequence[int] = LAYERS, *, unit: bool = True
) -> Tensor:
    """The activations of some layers of a network, one behind the other: (N, C, H, W) to (N, F).

    Args:
        encoder: any network in sequence.
        images: what it takes.
        layers: indices of the layers, at least one.
        unit: whether those of each layer are scaled to the norm 1, so that every layer counts alike and a
            squared distance is at most 4 for each of them, whatever the network.
    """
    if not layers or not all(0 <= layer < len(encoder) for layer in layers):
        raise ValueError(f"layers should be indices of the encoder's {len(encoder)}, not {tuple(layers)}")
    found = []
    for index in range(max(layers) + 1):
        images = encoder[index](images)
        if index in layers:
            flat = images.flatten(1)
            found.append(functional.normalize(flat, dim=1) if unit else flat)
    return torch.cat(found, 1)


def hinge_loss(crops: Tensor, others: Tensor, alpha: float = 1.0) -> Tensor:
    """The paper's loss: max(0, |e_n - e_m|² - |e_n - r_n|² + alpha), mean over all n and m ≠ n, a scalar.

    Args:
        crops: (N, F), features e of the transformer's windows, N at least 2.
        others: (N, F), features r of windows of the same images at random.
        alpha: by how much a window should be nearer to the others than to one at random.
    """
    if crops.ndim != 2 or len(crops) < 2 or crops.shape != others.shape:
        raise ValueError(
            f"crops and others should be (N, F), N at least 2, not {tuple(crops.shape)} and "
            f"{tuple(others.shape)}"
        )
    count = len(crops)
    together = (crops[:, None] - crops).square().sum(2)
    apart = (crops - others).square().sum(1, keepdim=True)
    terms = (together - apart + alpha).clamp(min=0)
    return (terms.sum() - terms.diagonal().sum()) / (count * (count - 1))


def random_windows(
    count: int, scale: float, reach: float, *, slack: float = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    """theta (count, 3) of `stn.Attention`: scales within `slack` of `scale`, centres within `reach` of 0."""
    draws = 2 * torch.rand(count, 3, generator=generator) - 1
    return draws * torch.tensor([slack, reach, reach]) + torch.tensor([scale, 0.0, 0.0])


def intersection_over_union(theta: Tensor, centres: Tensor, size: Sequence[int], side: float) -> Tensor:
    """Of the windows and the true boxes: the area that they share by the area that they cover, (N,).

    Args:
        theta: (N, 3) of `stn.Attention`.
        centres: (N, 2), x and y of the true boxes' centres, in pixels from the image's, as
            `stn.data.Pose.translation`.
        size: (H, W) of the images.
        side: of the true boxes, pixels.
    """
    half = theta.new_tensor([size[1] / 2, size[0] / 2])
    reach, places = theta[:, :1] * half, theta[:, 1:] * half
    low = torch.maximum(places - reach, centres - side / 2)
    high = torch.minimum(places + reach, centres + side / 2)
    shared = (high - low).clamp(min=0).prod(1)
    return shared / ((2 * reach).prod(1) + side**2 - shared)


class Colocaliser(nn.Module):
    """Windows on what images have in common: (N, C, H, W) to theta (N, 3) of `stn.Attention`.

    Windows on nothing look alike too, and two things keep it from these. The loss is not asked where all
    windows together should move (`anchored`): that would be off the images, and all the same to it is where
    in the windows the thing lies, if only at one place in all. `centre` moves them onto the middle of what
    they show instead. And the window starts larger than the image, so that every window shows the thing, and
    gets smaller (`narrow`) while the network follows.

    Args:
        shape: (C, H, W) of the images, at least 17 x 17.
        last: the scale of the window at the end.
        first: at the start; `last` for a window that stays as it is.
        slack: how far the network may change the scale; None to leave the whole of theta free, as the paper.
        anchored: whether gradients that move all windows alike are left out.
        crop: (H', W') of what is cut out.
        hidden: units of the localisation network's two fully connected layers. The paper has a convolution
            of 8 filters 9 x 9 with stride 4, pooling, and these of 8 units; and about 100,000 parameters,
            which 8 units are not.
        scales: of the blurs of `stn.sample_coarse_to_fine`; none for plain gradients.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        last: float,
        *,
        first: float = 1.5,
        slack: float | None = 0.03,
        anchored: bool = True,
        crop: tuple[int, int] = (28, 28),
        hidden: tuple[int, int] = (128, 32),
        scales: Sequence[int] = (4,),
    ) -> None:
        super().__init__()
        channels, height, width = shape
        if min(height, width) < 17:
            raise ValueError(f"shape should have H and W of at least 17, not {shape}")
        if not 0 < last <= first or not (slack is None or 0 < slack < last):
            raise ValueError(
                f"slack, last and first should rise from above 0, not {slack}, {last} and {first}"
            )
        self.first, self.last, self.slack, self.anchored = first, last, slack, anchored
        self.crop, self.scales, self.transform = crop, scales, Attention()
        self.reach = max(1 - last, 0.0)  # of centres, so that the last window lies in the image
        rows, columns = (((extent - 9) // 4 + 1) // 2 for extent in (height, width))
        body = nn.Sequential(
            nn.Conv2d(channels, 8, 9, stride=4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * rows * columns, hidden[0]),
            nn.ReLU(),
            nn.Linear(*hidden),
            nn.ReLU(),
        )
        bound = None if slack is None else torch.tensor([slack, 1.1 * self.reach, 1.1 * self.reach])
        self.localisation = Localisation(
            body, hidden[1], self.transform, shape, start=torch.zeros(3), bound=bound
        )
        self.offset = nn.Buffer(torch.tensor([first, 0.0, 0.0]))

    @property
    def scale(self) -> float:
        """Of the window now, but for what the network changes."""
        return self.offset[0].item()

    def narrow(self, progress: float) -> None:
        """Set the scale: `first` for a fifth of the training, `last` after four fifths, in between a line."""
        share = min(max((progress - 0.2) / 0.6, 0.0), 1.0)
        self.offset[0] = self.first + share * (self.last - self.first)

    @torch.no_grad()
    def centre(self, images: Tensor) -> None:
        """Move all windows alike, so that the mean of what they show has its centre of mass in the middle.

        Its median, the background, weighs nothing.
        """
        mean = self.cut(images, self(images)).mean((0, 1))
        mass = (mean - mean.median()).clamp(min=0)
        total = mass.sum()
        if total > 0:
            xs, ys = (
                (2 * torch.arange(extent, device=mass.device) + 1) / extent - 1 for extent in self.crop[::-1]
            )
            place = torch.stack([(mass.sum(0) * xs).sum(), (mass.sum(1) * ys).sum()]) / total
            self.offset[1:] += self.offset[0] * place

    def forward(self, images: Tensor) -> Tensor:
        theta: Tensor = self.localisation(images)
        return theta + self.offset

    def cut(self, images: Tensor, theta: Tensor) -> Tensor:
        """What the windows show, (N, C, H', W')."""
        if not self.scales:
            return self.transform.sample(images, theta, self.crop)
        return sample_coarse_to_fine(self.transform, images, theta, self.crop, self.scales)

    def loss(
        self,
        encoder: nn.Sequential,
        images: Tensor,
        *,
        layers: Sequence[int] = LAYERS,
        unit: bool = True,
        alpha: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """`hinge_loss` of these images' windows against as many at random, of the same scale. A scalar."""
        windows = random_windows(
            len(images), self.scale, self.reach, slack=self.slack or 0.0, generator=generator
        )
        shown = self.transform.sample(images, windows.to(images), self.crop)
        theta = self(images)
        if self.anchored:
            common = theta.mean(0) * theta.new_tensor([0.0, 1.0, 1.0])
            theta = theta - common + common.detach()
        return hinge_loss(
            encode(encoder, self.cut(images, theta), layers, unit=unit),
            encode(encoder, shown, layers, unit=unit),
            alpha,
        )
