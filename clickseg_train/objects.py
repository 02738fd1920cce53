"""Objects to learn from: a CT patch and the truth in it.

Four kinds. Labels are what the dataset marks; regions and supervoxels are pseudo-objects cut from
any CT; pasted shapes are laid into it. A label is read as the runtime would look at it: wide, at a
spacing at which the object about fits, or closer. Pseudo-objects are read at any spacing in range.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.boxes import slices_of
from clickseg_infer.file_grid import Index
from clickseg_infer.patches import focus
from clickseg_infer.resample import NetworkGrid, mask_to_network, network_grid, to_network
from clickseg_infer.volume import Volume
from clickseg_train.cases import LabelledObject, LoadedCase
from clickseg_train.config import SamplingConfig
from clickseg_train.pseudo_objects import paste, region, supervoxel

HU_RANGE = (-1024.0, 3071.0)
KINDS = ("labels", "regions", "supervoxels", "pasted")
_LEAST_VOXELS = 30
_LARGEST_SHARE = 0.4  # of the patch, for a pseudo-object
_FILLS = (0.6, 1.1)  # a fitted object's longest side, as a fraction of the patch's
_JITTER = (0.8, 1.5)  # by which a spacing may miss one that just fits
_LOCAL = 0.35  # chance that a label is read finer than it fits, as around a later click


@dataclass(frozen=True, eq=False)
class TrainingObject:
    """One object in one patch.

    Attributes:
        hu: (z, y, x) float32 HU.
        truth: (z, y, x) uint8, 1 on the object.
        kind: one of KINDS.
        others: (z, y, x) uint8, 1 on other labelled objects; None where there are none.
    """

    hu: NDArray[np.float32]
    truth: NDArray[np.uint8]
    kind: str
    others: NDArray[np.uint8] | None = None


def draw_object(
    rng: np.random.Generator,
    case: LoadedCase,
    kind: str,
    sampling: SamplingConfig,
    size: Index,
    objects: tuple[LabelledObject, ...],
) -> TrainingObject | None:
    """Draw an object of `kind` from a case, or None where this draw found nothing of use.

    Args:
        rng: decides everything.
        case: where to look. Not modified.
        kind: one of KINDS.
        sampling: the range of spacings.
        size: the patch size (z, y, x).
        objects: which of the case's objects may be drawn as labels.
    """
    if kind == "labels":
        return _label(rng, case, objects, sampling, size) if objects else None
    volume = case.volume
    anchor = body_voxel(rng, volume)
    grid = jittered_grid(rng, volume, rng.uniform(*np.log(sampling.spacing_mm)))
    start = jittered_start(rng, grid, anchor, size)
    hu = hu_patch(volume, grid, start, size)
    z, y, x = (
        min(max(round(p) - s, 0), n - 1)
        for p, s, n in zip(grid.of_volume(anchor), start, size, strict=True)
    )
    if kind == "regions":
        truth = region(rng, hu, (z, y, x))
    elif kind == "supervoxels":
        truth = supervoxel(rng, hu, (z, y, x))
    else:
        hu, truth = paste(rng, hu, (z, y, x))
    if truth.sum() < _LEAST_VOXELS or truth.mean() > _LARGEST_SHARE:
        return None
    return TrainingObject(hu, truth, kind)


def _label(
    rng: np.random.Generator,
    case: LoadedCase,
    objects: tuple[LabelledObject, ...],
    sampling: SamplingConfig,
    size: Index,
) -> TrainingObject | None:
    # By their lengths: a liver is drawn more often than a rib, but not as often as it is larger.
    lengths = np.cbrt([found.voxels for found in objects])
    found = objects[rng.choice(len(objects), p=lengths / lengths.sum())]
    mask = (case.label[slices_of(found.box)] == found.value).astype(np.uint8)
    inside = np.argwhere(mask)
    anchor = inside[rng.integers(len(inside))] + [low for low, _ in found.box]
    if rng.random() < 0.5:  # towards the middle, where a second look will be centred
        anchor = (anchor + np.mean(found.box, axis=1)) / 2
    grid = jittered_grid(rng, case.volume, _log_spacing(rng, case.volume, found, sampling, size))
    start = jittered_start(rng, grid, tuple(anchor), size)
    truth = np.empty(size, np.float32)
    mask_to_network(mask, found.box, grid, start, truth)
    if truth.sum() < _LEAST_VOXELS:
        return None
    hu, mask = hu_patch(case.volume, grid, start, size), truth.astype(np.uint8)
    return TrainingObject(hu, mask, "labels", _others(case, found.value, grid, start, size))


def _log_spacing(
    rng: np.random.Generator,
    volume: Volume,
    found: LabelledObject,
    sampling: SamplingConfig,
    size: Index,
) -> float:
    """The logarithm of a spacing: about the widest, one at which the object fits, or finer."""
    close, wide = sampling.spacing_mm
    longest = max(
        (high - low) * own for (low, high), own in zip(found.box, volume.spacing_mm, strict=True)
    )
    fitting = longest / (rng.uniform(*_FILLS) * max(size))
    chosen = wide if rng.random() < sampling.wide else min(max(fitting, close), wide)
    if rng.random() < _LOCAL:
        chosen = math.exp(rng.uniform(math.log(close), math.log(chosen)))
    return math.log(chosen * rng.uniform(*_JITTER))


def _others(
    case: LoadedCase, value: int, grid: NetworkGrid, start: Index, size: Index
) -> NDArray[np.uint8]:
    """The other labelled objects in the patch."""
    box = grid.volume_box(start, size)
    labels = case.label[slices_of(box)]
    marked = ((labels != value) & (labels > 0)).astype(np.uint8)
    others = np.empty(size, np.float32)
    mask_to_network(marked, box, grid, start, others)
    return others.astype(np.uint8)


def jittered_grid(rng: np.random.Generator, volume: Volume, log_spacing: float) -> NetworkGrid:
    """A grid of that spacing in mm, slightly anisotropic."""
    z, y, x = (math.exp(log_spacing) * np.exp(rng.uniform(-0.1, 0.1, 3))).tolist()
    return network_grid(volume.shape, volume.spacing_mm, (z, y, x))


def jittered_start(rng: np.random.Generator, grid: NetworkGrid, anchor: Any, size: Index) -> Index:
    """A patch that holds the anchor somewhere near its middle."""
    jitter = rng.uniform(-0.25, 0.25, 3) * size
    centre = np.add(grid.of_volume(anchor), jitter)
    return focus(centre.tolist(), grid.shape, size)


def hu_patch(volume: Volume, grid: NetworkGrid, start: Index, size: Index) -> NDArray[np.float32]:
    """The HU of a patch."""
    out = np.empty((1, *size), np.float32)
    to_network(volume.voxels, grid, start, [HU_RANGE], out)
    low, high = HU_RANGE
    return (out[0] + 1) * np.float32((high - low) / 2) + np.float32(low)


def in_windows(
    hu: NDArray[np.float32], windows: Collection[tuple[float, float]]
) -> NDArray[np.float32]:
    """HU as the network sees them: (z, y, x) to (W, z, y, x), each window from -1 to 1."""
    channels = np.empty((len(windows), *hu.shape), np.float32)
    for channel, (low, high) in zip(channels, windows, strict=True):
        np.clip((hu - low) * np.float32(2 / (high - low)) - 1, -1, 1, out=channel)
    return channels


def body_voxel(rng: np.random.Generator, volume: Volume) -> Index:
    """A random voxel, mostly not in air."""
    z, y, x = (int(p) for p in rng.integers(volume.shape))
    for _ in range(20):
        if volume.voxels[z, y, x] > -900:
            break
        z, y, x = (int(p) for p in rng.integers(volume.shape))
    return z, y, x
