"""The layers that networks are built of."""

from torch import Tensor, nn
from torch.nn import functional


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, dilation: int = 1) -> nn.Module:
    """A convolution that keeps the size but for its stride, and batch normalisation."""
    padding = dilation * (size // 2)
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, size, stride, padding, dilation, bias=False),
        nn.BatchNorm3d(outputs),
    )


def conv_relu(inputs: int, outputs: int, size: int = 3, **options: int) -> nn.Module:
    """`conv`, and a rectifier."""
    return nn.Sequential(conv(inputs, outputs, size, **options), nn.ReLU(inplace=True))


def resize(features: Tensor, like: Tensor) -> Tensor:
    """Features at the size of others, trilinearly."""
    size = like.shape[2:]
    return functional.interpolate(features, size=size, mode="trilinear", align_corners=False)


def shuffled(cells: Tensor) -> Tensor:
    """Eight channels of a cell become its 2^3 voxels: (N, 8C, z, y, x) to (N, C, 2z, 2y, 2x)."""
    count, channels, depth, height, width = cells.shape
    voxels = cells.view(count, channels // 8, 2, 2, 2, depth, height, width)
    voxels = voxels.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return voxels.reshape(count, channels // 8, 2 * depth, 2 * height, 2 * width)


class Block(nn.Module):
    """ResNet's basic block: two 3^3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.first = conv_relu(inputs, outputs, stride=stride, dilation=dilation)
        self.second = conv(outputs, outputs, dilation=dilation)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, z, y, x) to (N, outputs, z, y, x), each axis divided by the stride."""
        return functional.relu(self.second(self.first(x)) + self.shortcut(x))


def stage(inputs: int, outputs: int, blocks: int, stride: int, dilation: int) -> nn.Module:
    """Residual blocks, of which the first strides and widens."""
    first = Block(inputs, outputs, stride, dilation)
    return nn.Sequential(first, *(Block(outputs, outputs, 1, dilation) for _ in range(blocks - 1)))
