"""Structures of the body, seen from the image alone, and what is alike to what was clicked.

The profile of a few marked voxels, compared with every place, is after PANet (Wang et al. 2019,
https://arxiv.org/abs/1908.06391), with chances of structures in place of learnt features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from clickseg_train.layers import Block, conv_relu, resize, stage


class _Up(nn.Module):
    """Deeper features, narrowed, resized and joined with a skip of half their channels."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.narrow = conv_relu(inputs, inputs // 2, 1)
        self.join = Block(inputs, inputs // 2, 1, 1)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        narrow = resize(self.narrow(features), skip)
        return self.join(torch.cat([skip, narrow], dim=1))


class Structures(nn.Module):
    """Which structure of the body is where, seen from the image alone.

    A small residual U-Net that answers at stride 4; class 0 is everything without a name.
    """

    def __init__(self, windows: int, width: int, classes: int) -> None:
        super().__init__()
        self.stem = conv_relu(windows, width // 3, stride=2)
        self.fine = stage(width // 3, width, 1, 2, 1)
        self.middle = stage(width, 2 * width, 2, 2, 1)
        self.coarse = stage(2 * width, 4 * width, 2, 2, 1)
        self.to_middle, self.to_fine = _Up(4 * width), _Up(2 * width)
        self.classes = nn.Conv3d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, W, z, y, x), a channel for each HU window, to logits (N, classes, z/4, y/4, x/4)."""
        fine = self.fine(self.stem(image))
        middle = self.middle(fine)
        features = self.to_middle(self.coarse(middle), middle)
        logits: Tensor = self.classes(self.to_fine(features, fine))
        return logits


class Likeness(nn.Module):
    """Adds to features at stride 2 how alike each place is to what was clicked; nothing at first.

    Of the voxels of each mark (positive clicks, negative clicks, previous mask) the mean chance of
    each structure is their profile, and a place is alike as far as its own chances agree with it.
    What has no name is alike to nothing.

    Attributes:
        forget: the chance that a structure is as if it had never been learnt, drawn anew for every
            patch while training: whatever reads this must also do without.
    """

    _MARKS = 3

    def __init__(self, windows: int, width: int, classes: int, features: int) -> None:
        super().__init__()
        self._windows, self.forget = windows, 0.0
        self.structures = Structures(windows, width, classes)
        self.read = conv_relu(2 * self._MARKS + 1, features, 1)
        self.mix = nn.Conv3d(features, features, 1)
        for parameter in self.mix.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, x: Tensor) -> Tensor:
        """Features at stride 2 and network input to features of the same shape."""
        logits = self.structures(x[:, : self._windows])
        if self.training and self.forget:
            forgotten = torch.rand(logits.shape[:2]) < self.forget
            forgotten[:, 0] = False
            logits = logits.masked_fill(forgotten.to(x.device)[:, :, None, None, None], -torch.inf)
        chances = logits.softmax(1)
        unnamed, named = chances[:, :1], chances[:, 1:]
        marks = functional.avg_pool3d(x[:, self._windows : self._windows + self._MARKS], 4)
        profiles = profiles_of(named, marks)
        known = profiles.sum(2)[:, :, None, None, None].expand_as(marks)
        maps = torch.cat([alike(named, profiles), known, unnamed], dim=1)
        return features + resize(self.mix(self.read(maps)), features)


def profiles_of(chances: Tensor, marks: Tensor) -> Tensor:
    """The mean chances under each mark.

    Args:
        chances: (N, C, z, y, x) of each structure, adding up to at most 1.
        marks: (N, M, z, y, x), at least 0.

    Returns:
        (N, M, C); zeros for a mark that is nowhere.
    """
    weights, places = marks.flatten(2), chances.flatten(2)
    return weights @ places.transpose(1, 2) / (weights.sum(2, keepdim=True) + 1e-3)


def alike(chances: Tensor, profiles: Tensor) -> Tensor:
    """How well each place's chances, (N, C, z, y, x), agree with each profile: (N, M, z, y, x)."""
    return (profiles @ chances.flatten(2)).unflatten(2, chances.shape[2:])
