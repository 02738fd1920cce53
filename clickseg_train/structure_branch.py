"""A network of its own beside the one that follows clicks: which structure of the body is where.

It never sees a click. The runtime asks it what was clicked; see `clickseg_infer.structures`.
"""

import torch
from torch import Tensor, nn

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
