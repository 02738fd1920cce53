"""The end of the network from an insertion point on, with its own way back.

f-BRS (Sofiiuk et al. 2020, https://arxiv.org/abs/2001.10331) adjusts a scale and a bias of a
feature map until the answer agrees with the clicks, and needs the gradient of a few logits by them.
A `Head` computes both, the gradient by formulas that a graph can hold, and neither on more than
windows around the voxels that are asked for: its convolutions are not padded, and each window
brings its surroundings along. A window that is the whole patch gives all logits.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clickseg_infer.refinement.heads import POINTS, Level, Shape
from clickseg_train.networks import DeepLabV3Plus, Detail

_Back = Callable[[Tensor], Tensor]
_Step = tuple[Tensor, _Back]


def makers_of(network: DeepLabV3Plus) -> dict[str, nn.Module]:
    """What heads begin with or read beside it: a tensor's name, and the module that makes it."""
    makers: dict[str, nn.Module] = {
        "backbone": network.stages[-1],
        "context": network.pyramid,
        "decoded": network.decoder if network.refine is None else network.refine,
        "low_level": network.low_level,
    }
    if network.middle is not None:
        makers["middle_skip"] = network.middle.skip
    if network.refine is not None:
        makers["stem"] = network.stem
    if isinstance(network.classifier, Detail):
        makers["cells"] = network.classifier.cells
    return makers


class WithTensors(nn.Module):
    """A network that gives, after its logits, the tensors of `makers_of`, in their order."""

    def __init__(self, network: DeepLabV3Plus) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, C, z, y, x) to logits (N, 1, z, y, x) and the tensors."""
        seen: dict[str, Tensor] = {}

        def see(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
            del module, inputs
            seen[name] = output

        makers = makers_of(self.network)
        hooks = [
            module.register_forward_hook(functools.partial(see, name))
            for name, module in makers.items()
        ]
        logits = self.network(x)
        for hook in hooks:
            hook.remove()
        return logits, *(seen[name] for name in makers)


class Head(nn.Module):
    """The logits of windows of a patch, and the gradients of a sum over them.

    Attributes:
        shape: what it consists of.
    """

    def __init__(self, network: DeepLabV3Plus, point: str, channels: Mapping[str, int]) -> None:
        """The head of a network from an insertion point on.

        Args:
            network: with its normalisations folded away.
            point: one of POINTS.
            channels: of each of `makers_of`'s tensors.
        """
        super().__init__()
        self.network, self.point = network, point
        decoded = 4 if network.refine is None else 2

        def level(
            name: str, stride: int, source: int, convolutions: int, skip: str, whole: bool = False
        ) -> Level:
            joined = channels[skip] if skip else 0
            return Level(name, stride, source, convolutions, skip, joined, whole)

        levels: list[Level] = []
        if point != "fbrs-c":
            coarse = 16
            if network.middle is not None:
                levels.append(level("middle", 8, coarse, 0, "middle_skip", whole=True))
                coarse = 8
            levels.append(level("decoder", 4, coarse, 2, "low_level"))
            if network.refine is not None:
                levels.append(level("refine", 2, 4, 1, "stem"))
        if isinstance(network.classifier, Detail):
            levels.append(level("detail", 2, 2, 1, "cells"))
        else:
            levels.append(level("voxels", 1, decoded, 0, ""))
        stride = decoded if point == "fbrs-c" else 16
        features = POINTS[point]
        self.shape = Shape(features, channels[features], stride, tuple(levels))

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The logits of N windows; with `d_logits`, also the two gradients (C,).

        Logits are (N, K, z, y, x) on the last level's grid, of K voxels in each of its cells:
        K is 1 where that is the grid of the voxels, else they are those of `Detail`.

        Args:
            inputs: those that `Shape.inputs` names; `d_logits` is what the logits are multiplied by
                in the sum whose gradients by scale and bias are wanted.
        """
        network, features = self.network, inputs["features"]
        scale, bias = (inputs[name][:, None, None, None] for name in ("scale", "bias"))
        way, shared = _Way(features * scale + bias), not self.shape.windowed
        if self.shape.windowed:
            way.go(_masked, inputs["features_inside"])
        if self.point == "fbrs-a":
            way.go(_pyramid, network.pyramid)
        for level in self.shape.levels:
            if level.name == "voxels":
                way.go(_convolved, network.classifier)
            if level.resized:
                way.go(_resized, [inputs[f"{level.name}_{axis}"] for axis in "zyx"], shared)
                shared = level.whole
            if level.name == "middle":
                assert network.middle is not None
                way.go(_refined, network.middle, inputs["middle_skip"])
                continue
            skip = inputs[f"{level.name}_skip"] if level.skip else None
            for number, convolution in enumerate(self._convolutions(level)):
                way.go(_convolved, convolution, 0, skip if number == 0 else None)
                way.go(_rectified)
                way.go(_masked, inputs[f"{level.name}_inside_{number}"])
        if isinstance(network.classifier, Detail):
            way.go(_convolved, network.classifier.voxels)
        if "d_logits" not in inputs:
            return (way.here,)
        back = way.back(inputs["d_logits"])
        return way.here, (back * features).sum((0, 2, 3, 4)), back.sum((0, 2, 3, 4))

    def _convolutions(self, level: Level) -> list[nn.Module]:
        parts: Any = {"decoder": self.network.decoder, "refine": [self.network.refine]}
        if isinstance(self.network.classifier, Detail):
            parts["detail"] = [self.network.classifier.join]
        return [part[0][0] for part in parts.get(level.name, [])]


class _Way:
    """Steps that were gone, and the way back along them."""

    def __init__(self, begin: Tensor) -> None:
        self.here = begin
        self._backs: list[_Back] = []

    def go(self, step: Callable[..., _Step], *args: Any) -> None:
        self.here, back = step(self.here, *args)
        self._backs.append(back)

    def back(self, gradient: Tensor) -> Tensor:
        for back in reversed(self._backs):
            gradient = back(gradient)
        return gradient


def _convolved(x: Tensor, layer: Any, padding: int = 0, skip: Tensor | None = None) -> _Step:
    """A convolution of stride 1, of the features and a skip beside them.

    Its way back is one too, with the kernel turned around. A transposed convolution would say the
    same, but OpenVINO (2026.4) gives wrong numbers for one that shares weights with a convolution.
    """
    (dilation, *_), (size, *_) = layer.dilation, layer.kernel_size
    own = x.shape[1]

    def back(gradient: Tensor) -> Tensor:
        turned = layer.weight[:, :own].flip(2, 3, 4).transpose(0, 1)
        return functional.conv3d(
            gradient, turned, padding=dilation * (size - 1) - padding, dilation=dilation
        )

    joined = x if skip is None else torch.cat([x, skip], dim=1)
    return functional.conv3d(joined, layer.weight, layer.bias, 1, padding, dilation), back


def _rectified(x: Tensor) -> _Step:
    answer = functional.relu(x)
    return answer, lambda gradient: gradient * (answer > 0).to(gradient.dtype)


def _masked(x: Tensor, inside: Tensor) -> _Step:
    """What lies outside the patch is zero, as a padded convolution sees it."""
    return x * inside, lambda gradient: gradient * inside


def _resized(x: Tensor, matrices: Sequence[Tensor], shared: bool) -> _Step:
    """Each axis by its matrix (N, out, in); N windows of one source if it is shared."""

    def back(gradient: Tensor) -> Tensor:
        gradient = _along(gradient, *(matrix.transpose(1, 2) for matrix in matrices))
        return gradient.sum(0, keepdim=True) if shared else gradient

    return _along(x, *matrices), back


def _along(x: Tensor, depths: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    x = torch.matmul(x, columns.transpose(1, 2)[:, None, None])
    x = torch.matmul(rows[:, None, None], x)
    return torch.matmul(x.movedim(2, 4), depths.transpose(1, 2)[:, None, None]).movedim(4, 2)


def _refined(context: Tensor, middle: Any, skip: Tensor) -> _Step:
    """The network's middle, whose skip has been computed."""
    way = _Way(context)
    way.go(_convolved, middle.first[0][0], 1, skip)
    way.go(_rectified)
    way.go(_convolved, middle.second[0], 1)
    answer, last = _rectified(context + way.here)

    def back(gradient: Tensor) -> Tensor:
        gradient = last(gradient)
        return gradient + way.back(gradient)

    return answer, back


def _pyramid(x: Tensor, pyramid: Any) -> _Step:
    """The network's pyramid."""
    ways = []
    for branch in pyramid.branches:
        way = _Way(x)
        way.go(_convolved, branch[0][0], branch[0][0].padding[0])
        way.go(_rectified)
        ways.append(way)
    mean = _Way(x.mean((2, 3, 4), keepdim=True))
    mean.go(_convolved, pyramid.mean[1])
    mean.go(_rectified)
    voxels = x.shape[2] * x.shape[3] * x.shape[4]
    parts = [*(way.here for way in ways), mean.here.expand(-1, -1, *x.shape[2:])]
    join = _Way(torch.cat(parts, dim=1))
    join.go(_convolved, pyramid.join[0][0])
    join.go(_rectified)

    def back(gradient: Tensor) -> Tensor:
        gradients = join.back(gradient).split([part.shape[1] for part in parts], dim=1)
        behind = mean.back(gradients[-1].sum((2, 3, 4), keepdim=True)) / voxels
        for way, part in zip(ways, gradients, strict=False):
            behind = behind + way.back(part)
        return behind

    return join.here, back
