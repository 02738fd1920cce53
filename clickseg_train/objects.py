"""Objects to learn from: a CT patch and the truth in it.

Three kinds. Labels are what the dataset marks. Regions are pseudo-objects that any CT gives for
nothing: the connected voxels whose smoothed HU lie near those of a point. Pasted shapes are lumps
with an HU of their own, laid into a real CT. Spacing is drawn without regard to the object as far
as it remains visible, lest the network take the size of a voxel for the size of the object.
"""

import math
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickseg_infer.file_grid import Index
from clickseg_infer.patches import focus
from clickseg_infer.prediction import slices_of
from clickseg_infer.resample import NetworkGrid, mask_to_network, network_grid, to_network
from clickseg_infer.volume import Volume
from clickseg_train.cases import LoadedCase
from clickseg_train.config import SamplingConfig

HU_RANGE = (-1024.0, 3071.0)
KINDS = ("labels", "regions", "pasted")
_LEAST_VOXELS = 30
_VISIBLE = (0.08, 2.5)  # an object's longest side, as a fraction of the patch's


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
    rng: np.random.Generator, case: LoadedCase, kind: str, sampling: SamplingConfig, size: Index
) -> TrainingObject | None:
    """Draw an object of `kind` from a case, or None where this draw found nothing of use.

    Args:
        rng: decides everything.
        case: where to look. Not modified.
        kind: one of KINDS.
        sampling: the range of spacings.
        size: the patch size (z, y, x).
    """
    if kind == "labels":
        return _label(rng, case, sampling, size)
    volume = case.volume
    anchor = _body_voxel(rng, volume)
    grid = _grid(rng, volume, sampling, None, size)
    start = _start(rng, grid, anchor, size)
    hu = _hu(volume, grid, start, size)
    z, y, x = (
        min(max(round(p) - s, 0), n - 1)
        for p, s, n in zip(grid.of_volume(anchor), start, size, strict=True)
    )
    if kind == "regions":
        truth = _region(rng, hu, (z, y, x))
    else:
        hu, truth = _paste(rng, hu, (z, y, x))
    share = truth.mean()
    if truth.sum() < _LEAST_VOXELS or share > 0.4:
        return None
    return TrainingObject(hu, truth, kind)


def _label(
    rng: np.random.Generator, case: LoadedCase, sampling: SamplingConfig, size: Index
) -> TrainingObject | None:
    if not case.objects:
        return None
    value, box = case.objects[rng.integers(len(case.objects))]
    mask = (case.label[slices_of(box)] == value).astype(np.uint8)
    inside = np.argwhere(mask)
    anchor = inside[rng.integers(len(inside))] + [low for low, _ in box]
    if rng.random() < 0.5:  # towards the middle, where a second look will be centred
        anchor = (anchor + np.mean(box, axis=1)) / 2
    longest = max(
        (high - low) * spacing
        for (low, high), spacing in zip(box, case.volume.spacing_mm, strict=True)
    )
    grid = _grid(rng, case.volume, sampling, longest, size)
    start = _start(rng, grid, tuple(anchor), size)
    truth = np.empty(size, np.float32)
    mask_to_network(mask, box, grid, start, truth)
    if truth.sum() < _LEAST_VOXELS:
        return None
    hu, found = _hu(case.volume, grid, start, size), truth.astype(np.uint8)
    return TrainingObject(hu, found, "labels", _others(case, value, grid, start, size))


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


def _grid(
    rng: np.random.Generator,
    volume: Volume,
    sampling: SamplingConfig,
    longest_mm: float | None,
    size: Index,
) -> NetworkGrid:
    """A grid of random spacing, slightly anisotropic, in which the object remains visible."""
    low, high = np.log(sampling.spacing_mm)
    if longest_mm is not None:
        nearest, widest = (longest_mm / (fraction * max(size)) for fraction in _VISIBLE[::-1])
        low, high = np.clip((low, high), math.log(nearest), math.log(widest))
    spacing = math.exp(rng.uniform(low, high)) * np.exp(rng.uniform(-0.1, 0.1, 3))
    z, y, x = spacing.tolist()
    return network_grid(volume.shape, volume.spacing_mm, (z, y, x))


def _start(rng: np.random.Generator, grid: NetworkGrid, anchor: Any, size: Index) -> Index:
    """A patch that holds the anchor somewhere near its middle."""
    jitter = rng.uniform(-0.25, 0.25, 3) * size
    centre = np.add(grid.of_volume(anchor), jitter)
    return focus(centre.tolist(), grid.shape, size)


def _hu(volume: Volume, grid: NetworkGrid, start: Index, size: Index) -> NDArray[np.float32]:
    out = np.empty((1, *size), np.float32)
    to_network(volume.voxels, grid, start, [HU_RANGE], out)
    low, high = HU_RANGE
    return (out[0] + 1) * np.float32((high - low) / 2) + np.float32(low)


def _body_voxel(rng: np.random.Generator, volume: Volume) -> Index:
    """A random voxel, mostly not in air."""
    z, y, x = (int(p) for p in rng.integers(volume.shape))
    for _ in range(20):
        if volume.voxels[z, y, x] > -900:
            break
        z, y, x = (int(p) for p in rng.integers(volume.shape))
    return z, y, x


def _region(rng: np.random.Generator, hu: NDArray[np.float32], seed: Index) -> NDArray[np.uint8]:
    """The voxels connected to `seed` whose smoothed HU lie in a band around its own."""
    smooth = ndimage.gaussian_filter(np.clip(hu, -1000, 1000), rng.uniform(0.7, 2.0))
    centre = smooth[seed]
    band = math.exp(rng.uniform(math.log(15), math.log(90))) * _contrast_scale(centre)
    near = np.abs(smooth - centre) < band
    if rng.random() < 0.7:
        near = ndimage.binary_opening(near, iterations=int(rng.integers(1, 3)))
    components = cc3d.connected_components(near, connectivity=6)
    value = components[seed]
    if value == 0:
        return np.zeros(hu.shape, np.uint8)
    region = components == value
    if rng.random() < 0.5:
        region = ndimage.binary_fill_holes(region)
    return region.astype(np.uint8)


def _paste(
    rng: np.random.Generator, hu: NDArray[np.float32], centre: Index
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Lay a lump of its own HU into the patch; the CT's own texture shines through."""
    axes = [
        (np.arange(n, dtype=np.float32) - c) / rng.uniform(0.06, 0.4) / n
        for n, c in zip(hu.shape, centre, strict=True)
    ]
    radius = np.sqrt(
        axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2
    )
    coarse = rng.normal(size=[int(rng.integers(3, 7))] * 3).astype(np.float32)
    bumps = ndimage.zoom(coarse, [n / coarse.shape[0] for n in hu.shape], order=1)
    lump = radius + bumps * rng.uniform(0.0, 0.35) < 1
    components = cc3d.connected_components(lump, connectivity=6)
    if components[centre] == 0:
        return hu, np.zeros(hu.shape, np.uint8)
    truth = components == components[centre]
    host = float(np.median(hu[truth]))
    contrast = math.exp(rng.uniform(math.log(20), math.log(250))) * _contrast_scale(host)
    if host - contrast > -1000 and rng.random() < 0.5:
        contrast = -contrast
    texture = rng.uniform(0.2, 1.0)
    filled = host + contrast + texture * np.clip(hu - host, -100, 100)
    soft = ndimage.gaussian_filter(truth.astype(np.float32), rng.uniform(0.3, 1.0))
    return hu * (1 - soft) + filled.astype(np.float32) * soft, truth.astype(np.uint8)


def _contrast_scale(hu: float) -> float:
    """A difference in HU means less in air and bone than in soft tissue."""
    return 1 + abs(hu - 40) / 200


def half_known(rng: np.random.Generator, truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The truth on one side of a plane: what a patch knows of an object that grew into it."""
    axis = int(rng.integers(3))
    hit = np.flatnonzero(truth.any(axis=tuple(a for a in range(3) if a != axis)))
    cut = int(rng.integers(hit[0], hit[-1])) + 1 if len(hit) > 1 else int(hit[0])
    known = truth.copy()
    side = slice(cut, None) if rng.random() < 0.5 else slice(None, cut)
    known[tuple(side if a == axis else slice(None) for a in range(3))] = 0
    return known
