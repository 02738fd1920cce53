"""3D DeepLabV3+ with a 3D ResNet-34 backbone.

After Chen et al. 2018 (https://arxiv.org/abs/1802.02611) and He et al. 2015
(https://arxiv.org/abs/1512.03385), with 3D convolutions throughout. The backbone's stem has stride
2, its stages 4, 8, 16 and, dilated, 16 again. The decoder joins stage 1 at stride 4, and optionally
the stem at stride 2.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from clickseg_train.config import NetworkConfig
from clickseg_train.layers import conv, conv_relu, resize, shuffled, stage
from clickseg_train.structure_branch import Structures

_BLOCKS = (3, 4, 6, 3)  # ResNet-34


def build_network(config: NetworkConfig, channels: int) -> "DeepLabV3Plus":
    """The network for `channels` input channels: (N, C, z, y, x) -> logits (N, 1, z, y, x)."""
    return DeepLabV3Plus(config, channels)


class _Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: three dilations, a 1^3 convolution and the patch's mean."""

    def __init__(self, inputs: int, outputs: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        branches = [conv_relu(inputs, outputs, 1)]
        branches += [conv_relu(inputs, outputs, dilation=rate) for rate in dilations]
        self.branches = nn.ModuleList(branches)
        # No normalisation here: one value per patch has no variance to normalise by.
        self.mean = nn.Sequential(
            nn.AdaptiveAvgPool3d(1), nn.Conv3d(inputs, outputs, 1), nn.ReLU(inplace=True)
        )
        self.join = conv_relu(outputs * (len(branches) + 1), outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mean(x).expand(-1, -1, *x.shape[2:])
        return self.join(torch.cat([*(branch(x) for branch in self.branches), mean], dim=1))


class _Middle(nn.Module):
    """What stage 2 adds to the context at stride 8; nothing at first."""

    def __init__(self, inputs: int, narrow: int, context: int) -> None:
        super().__init__()
        self.skip = conv_relu(inputs, narrow, 1)
        self.first = conv_relu(context + narrow, context)
        self.second = conv(context, context)
        for norm in self.second.modules():
            if isinstance(norm, nn.BatchNorm3d):
                nn.init.zeros_(norm.weight)

    def forward(self, context: Tensor, features: Tensor) -> Tensor:
        joined = torch.cat([context, self.skip(features)], dim=1)
        return functional.relu(context + self.second(self.first(joined)))


class Detail(nn.Module):
    """Logits of single voxels from features at stride 2 and the input itself.

    Cells of 2^3 voxels of the input become channels, and eight channels become such a cell of
    logits, so that all the work is done at stride 2.
    """

    def __init__(self, channels: int, features: int, width: int) -> None:
        super().__init__()
        self.cells = nn.Sequential(nn.Conv3d(channels, width, 2, stride=2), nn.ReLU(inplace=True))
        self.join = conv_relu(features + width, width)
        self.voxels = nn.Conv3d(width, 8, 1)
        with torch.no_grad():  # the voxels of a cell are alike at first
            self.voxels.weight[:] = self.voxels.weight[:1].clone()
            self.voxels.bias[:] = 0  # type: ignore[index]

    def forward(self, features: Tensor, cells: Tensor) -> Tensor:
        """The network's features at stride 2, and those of `cells`, to logits (N, 1, z, y, x)."""
        return shuffled(self.voxels(self.join(torch.cat([features, cells], dim=1))))


class DeepLabV3Plus(nn.Module):
    """(N, C, z, y, x) float -> logits (N, 1, z, y, x); sizes must be multiples of 16.

    Attributes:
        structures: the branch that tells structures of the body apart, if there is one. It has no
            part in the logits.
    """

    def __init__(self, config: NetworkConfig, channels: int) -> None:
        super().__init__()
        width, narrow = config.width, config.decoder_width
        self.stem = conv_relu(channels, width, config.stem_size, stride=2)
        self.pool = nn.MaxPool3d(3, stride=2, padding=1)
        widths = [width * factor for factor in (1, 2, 4, 8)]
        inputs = [width, *widths[:3]]
        strides, dilations = (1, 2, 2, 1), (1, 1, 1, 2)
        self.stages = nn.ModuleList(
            stage(a, b, n, stride, dilation)
            for a, b, n, stride, dilation in zip(
                inputs, widths, _BLOCKS, strides, dilations, strict=True
            )
        )
        self.pyramid = _Pyramid(widths[3], config.pyramid_width, config.pyramid_dilations)
        self.middle = None
        if config.middle_width:
            self.middle = _Middle(widths[1], config.middle_width, config.pyramid_width)
        self.low_level = conv_relu(width, narrow, 1)
        self.decoder = nn.Sequential(
            conv_relu(config.pyramid_width + narrow, 2 * narrow),
            conv_relu(2 * narrow, 2 * narrow),
        )
        self.refine = None
        if config.refine_width:
            self.refine = conv_relu(2 * narrow + width, config.refine_width)
        self.structures = None
        if config.structures:
            self.structures = Structures(config)
        self.classifier: nn.Module
        if config.detail_width:
            self.classifier = Detail(channels, config.refine_width, config.detail_width)
        else:
            self.classifier = nn.Conv3d(config.refine_width or 2 * narrow, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Network input to logits."""
        stem = self.stem(x)  # stride 2
        low = self.stages[0](self.pool(stem))  # stride 4
        middle = features = self.stages[1](low)  # stride 8
        for deeper in self.stages[2:]:
            features = deeper(features)  # stride 16, twice
        context = self.pyramid(features)
        if self.middle is not None:
            context = self.middle(resize(context, middle), middle)
        context = resize(context, low)
        decoded = self.decoder(torch.cat([context, self.low_level(low)], dim=1))
        if self.refine is not None:
            decoded = self.refine(torch.cat([resize(decoded, stem), stem], dim=1))
        if isinstance(self.classifier, Detail):
            logits: Tensor = self.classifier(decoded, self.classifier.cells(x))
            return logits
        return resize(self.classifier(decoded), x)
