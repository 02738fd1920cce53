"""Cutting a head's inputs out of the network's tensors, for windows of a patch."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.file_grid import Index
from clickseg_infer.refinement.heads import Level, Shape

Floats = NDArray[np.float32]

WINDOW: Index = (6, 6, 6)
"""What a click needs of the logits: its own voxel, one to either side, and the next to interpolate
with; and one more, so that the window begins at an even voxel."""


@dataclass(frozen=True)
class _Span:
    """Along one axis, what a level reads for one window: where it begins and how long it is."""

    begin: int
    length: int

    def widened(self, by: int) -> "_Span":
        return _Span(self.begin - by, self.length + 2 * by)

    def source(self, ratio: int) -> "_Span":
        """What has to be there on a grid `ratio` times coarser, wherever the span begins."""
        first = math.floor((self.begin + 0.5) / ratio - 0.5)
        return _Span(first, math.ceil((self.length - 1) / ratio) + 2)


def window_inputs(
    shape: Shape, patch: Index, tensors: Mapping[str, Floats], starts: Sequence[Index], size: Index
) -> dict[str, Floats]:
    """All inputs of a head but scale and bias.

    Args:
        shape: of the head.
        patch: the patch size (z, y, x).
        tensors: the network's tensors (1, C, z, y, x) that the head reads, by name. Not modified.
        starts: the first voxel (z, y, x) of each of N windows in the patch, even numbers; a window
            may reach beyond the patch.
        size: of each window (z, y, x), even numbers.
    """
    inputs: dict[str, Floats] = {}
    spans = [
        [_spans(shape, patch[axis], start[axis], size[axis]) for axis in range(3)]
        for start in starts
    ]
    features = tensors[shape.features]
    if shape.windowed:
        grid = _grid(patch, shape.stride)
        cuts = [[axis[0][0] for axis in window] for window in spans]
        inputs["features"] = np.stack([_cut(features[0], cut) for cut in cuts])
        inputs["features_inside"] = np.stack([_inside(cut, grid) for cut in cuts])
    else:
        inputs["features"] = features
    for number, level in enumerate(shape.levels):
        grid = _grid(patch, level.stride)
        windows = spans[:1] if level.whole else spans
        if level.resized:
            coarse = _grid(patch, level.source)
            for axis, letter in enumerate("zyx"):
                pairs = [window[axis][number] for window in windows]
                inputs[f"{level.name}_{letter}"] = np.stack(
                    [_weights(*pair, level, coarse[axis], grid[axis]) for pair in pairs]
                )
        cuts = [[axis[number][1] for axis in window] for window in windows]
        if level.skip:
            tensor = tensors[level.skip]
            inputs[f"{level.name}_skip"] = (
                tensor if level.whole else np.stack([_cut(tensor[0], cut) for cut in cuts])
            )
        for done in range(level.convolutions):
            left = [[span.widened(-done - 1) for span in cut] for cut in cuts]
            inputs[f"{level.name}_inside_{done}"] = np.stack([_inside(cut, grid) for cut in left])
    return inputs


def input_shapes(
    shape: Shape, patch: Index, size: Index, windows: int
) -> dict[str, tuple[int, ...]]:
    """The shapes of all inputs of a head for so many windows; -1 for any number of them.

    That of the logits' gradient is among them.
    """
    tensors = {
        name: np.broadcast_to(np.float32(0), sizes)
        for name, sizes in shape.tensor_shapes(patch).items()
    }
    inputs = window_inputs(shape, patch, tensors, [(0, 0, 0)], size)
    shapes = {
        name: (windows if name in shape.windowed_inputs else len(value), *value.shape[1:])
        for name, value in inputs.items()
    }
    by_cell = (windows, shape.cell**3, *(n // shape.cell for n in size))
    channels = (shape.channels,)
    return {**shapes, "scale": channels, "bias": channels, "d_logits": by_cell}


def cells_of(voxels: Floats, cell: int) -> Floats:
    """Windows (N, z, y, x) as (N, cell^3, z / cell, y / cell, x / cell), as heads have them."""
    count, depth, height, width = voxels.shape
    sizes = (count, depth // cell, cell, height // cell, cell, width // cell, cell)
    cells = voxels.reshape(sizes).transpose(0, 2, 4, 6, 1, 3, 5)
    return np.ascontiguousarray(cells.reshape(count, cell**3, *cells.shape[4:]))


def voxels_of(cells: Floats, cell: int) -> Floats:
    """The way back from `cells_of`."""
    count, _, depth, height, width = cells.shape
    voxels = cells.reshape(count, cell, cell, cell, depth, height, width)
    voxels = voxels.transpose(0, 4, 1, 5, 2, 6, 3)
    return voxels.reshape(count, depth * cell, height * cell, width * cell)


def _grid(patch: Index, stride: int) -> Index:
    z, y, x = (n // stride for n in patch)
    return z, y, x


def _spans(shape: Shape, patch: int, start: int, size: int) -> list[tuple[_Span, _Span]]:
    """For each level, along one axis: what it takes of its source, and its input after that."""
    spans = []
    needed = _Span(start // shape.cell, size // shape.cell)
    for level, coarser in itertools.zip_longest(reversed(shape.levels), shape.levels[-2::-1]):
        whole = coarser.whole if coarser is not None else not shape.windowed
        own = _Span(0, patch // level.stride) if level.whole else needed.widened(level.convolutions)
        source = own.source(level.source // level.stride) if level.resized else own
        if whole:
            source = _Span(0, patch // level.source)
        spans.append((source, own))
        needed = source
    return spans[::-1]


def _weights(source: _Span, own: _Span, level: Level, coarse: int, fine: int) -> Floats:
    """The matrix (out, in) of linear interpolation; what lies outside the patch becomes zero.

    As `torch.nn.functional.interpolate` with `align_corners=False`.
    """
    matrix = np.zeros((own.length, source.length), np.float32)
    index = np.arange(own.begin, own.begin + own.length)
    rows = np.flatnonzero((index >= 0) & (index < fine))
    ratio = level.source // level.stride
    position = np.maximum((index[rows] + 0.5) / ratio - 0.5, 0)
    first = position.astype(np.int64)
    second = np.minimum(first + 1, coarse - 1)
    np.add.at(matrix, (rows, first - source.begin), 1 - (position - first))
    np.add.at(matrix, (rows, second - source.begin), position - first)
    return matrix


def _cut(tensor: Floats, spans: Sequence[_Span]) -> Floats:
    """A window (C, z, y, x) of a tensor (C, z, y, x); zero outside of it."""
    out = np.zeros((len(tensor), *(span.length for span in spans)), np.float32)
    inner, outer = [slice(None)], [slice(None)]
    for span, length in zip(spans, tensor.shape[1:], strict=True):
        low, high = max(span.begin, 0), min(span.begin + span.length, length)
        inner.append(slice(low, max(low, high)))
        outer.append(slice(low - span.begin, max(low, high) - span.begin))
    out[tuple(outer)] = tensor[tuple(inner)]
    return out


def _inside(spans: Sequence[_Span], grid: Index) -> Floats:
    """(1, z, y, x): 1 where a window lies in the patch."""
    return _cut(np.ones((1, *grid), np.float32), spans)
