"""The structures of the body in whole patches: what the network's structure branch learns from.

Data sets name different structures, and what one leaves unnamed another may name. A voxel without
a name is therefore only known to be none of the structures that its own data set names (the
marginal loss of Shi et al. 2021, https://arxiv.org/abs/2007.03868).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from clickseg_infer.boxes import slices_of
from clickseg_infer.file_grid import Index
from clickseg_infer.resample import NetworkGrid
from clickseg_train.augment import Augmentation
from clickseg_train.cases import LabelledObject, LoadedCase
from clickseg_train.objects import (
    TrainingObject,
    body_voxel,
    hu_patch,
    jittered_grid,
    jittered_start,
)

_ANYWHERE = 0.3  # chance of a patch around any voxel of the body, not around a structure
_ENHANCED = 0.3  # chance that a structure takes up more or less contrast agent than it did
_ENHANCEMENT_HU = 30.0


@dataclass(frozen=True, eq=False)
class StructurePatch:
    """A patch and what is known of its voxels.

    Attributes:
        hu: (z, y, x) float32 HU.
        classes: (z, y, x) uint8, each voxel's class, 0 for none.
    """

    hu: NDArray[np.float32]
    classes: NDArray[np.uint8]


def class_of(name: str, classes: Sequence[str]) -> int:
    """The class of a label, from 1, or 0 for none.

    Args:
        name: of the label.
        classes: each the words of which its labels' names hold some, separated by "|". Of several
            the last in the name counts, and of those the longest: a `lung_nodule` is a nodule.
    """
    places = [
        (found.end(), len(words), number)
        for number, names in enumerate(classes, start=1)
        for words in names.split("|")
        for found in re.finditer(rf"(?<![^\W_]){re.escape(words)}(?![^\W_])", name)
    ]
    return max(places, default=(0, 0, 0))[2]


def draw_patch(
    rng: np.random.Generator,
    case: LoadedCase,
    class_of_value: NDArray[np.uint8],
    spacing_mm: tuple[float, float],
    size: Index,
) -> StructurePatch:
    """Draw a patch, mostly around a structure, each as often as another.

    Args:
        rng: decides everything.
        case: where to look. Not modified.
        class_of_value: the class of each value of the label, 0 for none.
        spacing_mm: the range of spacings.
        size: the patch size (z, y, x).
    """
    objects: list[LabelledObject] = [o for o in case.objects if class_of_value[o.value]]
    anchor: Any
    if objects and rng.random() > _ANYWHERE:
        found = objects[rng.integers(len(objects))]
        inside = np.argwhere(case.label[slices_of(found.box)] == found.value)
        anchor = inside[rng.integers(len(inside))] + [low for low, _ in found.box]
    else:
        anchor = body_voxel(rng, case.volume)
    grid = jittered_grid(rng, case.volume, rng.uniform(*np.log(spacing_mm)))
    start = jittered_start(rng, grid, anchor, size)
    classes = class_of_value[_nearest(case.label, grid, start, size)]
    return StructurePatch(hu_patch(case.volume, grid, start, size), classes)


def varied(
    patch: StructurePatch, augmentation: Augmentation, rng: np.random.Generator
) -> StructurePatch:
    """A variation of `patch`, as of an object, with each structure in another phase of contrast."""
    classes = int(patch.classes.max()) + 1
    enhanced = rng.normal(0, _ENHANCEMENT_HU, classes) * (rng.random(classes) < _ENHANCED)
    enhanced[0] = 0
    hu = patch.hu + enhanced.astype(np.float32)[patch.classes]
    item = augmentation(TrainingObject(hu, patch.classes, "labels"), rng, enhance=False)
    return StructurePatch(item.hu, item.truth)


def cell_shares(classes: NDArray[np.uint8], count: int, cell: int) -> NDArray[np.float32]:
    """The share of each of `count` classes in each cell of `cell` voxels along an axis.

    Args:
        classes: (z, y, x), of each voxel.
        count: of the classes.
        cell: its size.

    Returns:
        (count, z / cell, y / cell, x / cell).
    """
    cells = [n // cell for n in classes.shape]
    z, y, x = (np.arange(n) // cell for n in classes.shape)
    own = (z[:, None, None] * cells[1] + y[:, None]) * cells[2] + x
    place = classes.astype(np.int64) * math.prod(cells) + own
    voxels = np.bincount(place.ravel(), minlength=count * math.prod(cells))
    return (voxels.reshape(count, *cells) / cell**3).astype(np.float32)


class StructureLoss(nn.Module):
    """Cross-entropy and soft Dice.

    Cross-entropy is the mean over all cells, plus `balance` times the mean of each class's own.
    Without the latter small structures are not found for thousands of steps; as long as it weighs
    much, they are seen where they are not.
    """

    def __init__(self, balance: float) -> None:
        super().__init__()
        self._balance = balance

    def forward(self, logits: Tensor, shares: Tensor, named: Tensor) -> Tensor:
        """What is lowered, for a batch.

        Args:
            logits: (N, C, z, y, x).
            shares: (N, C, z, y, x), of each class in each cell.
            named: (N, C), whether the patch's data set names the class; class 0 is never named.
        """
        known = named[:, :, None, None, None]
        logs = functional.log_softmax(logits, dim=1)
        unnamed = logs.masked_fill(known, -torch.inf).logsumexp(1)
        logs = torch.cat([unnamed[:, None], logs[:, 1:]], dim=1)
        over = (0, 2, 3, 4)
        cells = shares.sum(over)
        entropy = -(shares * logs).sum(over)
        there = cells > 1
        each = (entropy[there] / cells[there]).mean()
        chances, there = logs.exp() * known, there[1:]
        both, either = (chances * shares).sum(over)[1:], (chances + shares * known).sum(over)[1:]
        dice = (2 * both + 1) / (either + 1)
        overlap = dice[there].sum() / there.sum().clamp(min=1)
        return entropy.sum() / cells.sum() + self._balance * each + 1 - overlap


def dice_by_class(logits: Tensor, shares: Tensor, named: Tensor) -> list[tuple[int, float]]:
    """Class and Dice of each structure that has the largest share of a cell of the batch.

    What a patch's data set does not name counts as no structure there.
    """
    answer = logits.argmax(1)
    answer *= torch.take_along_dim(named[:, :, None, None, None], answer[:, None], 1)[:, 0]
    truth, found = shares.argmax(1), []
    for value in truth.unique().tolist():
        if value:
            ours, theirs = answer == value, truth == value
            both, either = (ours & theirs).sum(), ours.sum() + theirs.sum()
            found.append((value, float(2 * both / either)))
    return found


def _nearest(label: NDArray[Any], grid: NetworkGrid, start: Index, size: Index) -> NDArray[Any]:
    """The label's values at the voxels of a patch, 0 outside of it."""
    nearest, inside = [], []
    for first, length, ratio, n in zip(start, size, grid.ratio, label.shape, strict=True):
        at = np.rint((np.arange(first, first + length) + 0.5) * ratio - 0.5).astype(int)
        nearest.append(np.clip(at, 0, n - 1))
        inside.append((at >= 0) & (at < n))
    z, y, x = inside
    return np.where(z[:, None, None] & y[:, None] & x, label[np.ix_(*nearest)], 0)
