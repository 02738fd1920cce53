"""A network of its own beside the one that follows clicks: which structure of the body is where.

It never sees a click. The runtime asks it what was clicked; see `clickseg_infer.structures`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from clickseg_train.config import NetworkConfig
from clickseg_train.layers import Block, conv_relu, resize, shuffled, stage


class _Up(nn.Module):
    """Deeper features, narrowed, resized and joined with a skip of half their channels."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.narrow = conv_relu(inputs, inputs // 2, 1)
        self.join = Block(inputs, inputs // 2, 1, 1)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        narrow = resize(self.narrow(features), skip)
        return self.join(torch.cat([skip, narrow], dim=1))


class _Sharper(nn.Module):
    """What cells of half the size add to the logits of structures; nothing at first.

    The features of a cell say what to look for in each of its eighths, and the stem what is there.
    """

    def __init__(self, features: int, stem: int, width: int, structures: int) -> None:
        super().__init__()
        self.sought = nn.Conv3d(features, 8 * width, 1)
        self.seen = nn.Conv3d(stem, width, 1)
        self.classes = nn.Conv3d(width, structures, 1, bias=False)
        nn.init.zeros_(self.classes.weight)

    def forward(self, features: Tensor, stem: Tensor) -> Tensor:
        """Features at stride 4, and the stem's at stride 2, to (N, structures, z/2, y/2, x/2)."""
        logits: Tensor = self.classes(
            functional.relu(shuffled(self.sought(features)) + self.seen(stem))
        )
        return logits


class Structures(nn.Module):
    """Which structure of the body is where, seen from the image alone.

    A small residual U-Net that answers at stride 4, or at stride 2; class 0 is everything without a
    name.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.structure_width
        self.stem = conv_relu(config.structure_windows, width // 3, stride=2)
        self.fine = stage(width // 3, width, 1, 2, 1)
        self.middle = stage(width, 2 * width, 2, 2, 1)
        self.coarse = stage(2 * width, 4 * width, 2, 2, 1)
        self.to_middle, self.to_fine = _Up(4 * width), _Up(2 * width)
        self.classes = nn.Conv3d(width, len(config.classes) + 1, 1)
        self.sharper = None
        if config.structure_detail:
            self.sharper = _Sharper(
                width, width // 3, config.structure_detail, len(config.structures)
            )
        self._lesions = len(config.lesions)

    def forward(self, image: Tensor) -> Tensor:
        """(N, W, z, y, x), one for each HU window, to logits (N, classes, z, y, x) of cells."""
        stem = self.stem(image)
        fine = self.fine(stem)
        middle = self.middle(fine)
        features = self.to_middle(self.coarse(middle), middle)
        features = self.to_fine(features, fine)
        logits: Tensor = self.classes(features)
        if self.sharper is None:
            return logits
        # The others keep theirs: a softmax only knows differences.
        sharper = functional.pad(self.sharper(features, stem), (0, 0, 0, 0, 0, 0, 1, self._lesions))
        return resize(logits, stem) + sharper
