"""Objects that any CT gives for nothing: cut from it by intensity or edges, or pasted in."""

import itertools
import math

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from clickseg_infer.file_grid import Index


def region(rng: np.random.Generator, hu: NDArray[np.float32], seed: Index) -> NDArray[np.uint8]:
    """The voxels connected to `seed` whose smoothed HU lie in a band around its own.

    Args:
        rng: decides smoothing, band, opening and whether holes are filled.
        hu: (z, y, x) float32 HU. Not modified.
        seed: a voxel (z, y, x).

    Returns:
        (z, y, x) uint8, 1 on the region; empty where the seed was opened away.
    """
    smooth = ndimage.gaussian_filter(np.clip(hu, -1000, 1000), rng.uniform(0.7, 2.0))
    centre = smooth[seed]
    band = math.exp(rng.uniform(math.log(15), math.log(90))) * contrast_scale(centre)
    near = np.abs(smooth - centre) < band
    if rng.random() < 0.7:
        near = ndimage.binary_opening(near, iterations=int(rng.integers(1, 3)))
    components = cc3d.connected_components(near, connectivity=6)
    value = components[seed]
    if value == 0:
        return np.zeros(hu.shape, np.uint8)
    found = components == value
    if rng.random() < 0.5:
        found = ndimage.binary_fill_holes(found)
    return found.astype(np.uint8)


def supervoxel(rng: np.random.Generator, hu: NDArray[np.float32], seed: Index) -> NDArray[np.uint8]:
    """The basin around `seed` of a watershed on the smoothed gradient, at a random scale.

    Basins grow from the quietest voxel of each cell of a lattice; a little compactness makes them
    supervoxels (Neubert and Protzel 2014), none leaves them the watershed's own.

    Args:
        rng: decides smoothing, scale and compactness.
        hu: (z, y, x) float32 HU. Not modified.
        seed: a voxel (z, y, x).

    Returns:
        (z, y, x) uint8, 1 on the basin.
    """
    clipped = np.clip(hu, -300, 400) if hu[seed] > -300 else np.clip(hu, -1000, 0)
    gradient = ndimage.gaussian_gradient_magnitude(clipped, rng.uniform(0.8, 1.8))
    cell = round(math.exp(rng.uniform(math.log(10), math.log(36))))
    markers = np.zeros(hu.shape, np.int32)
    # Beyond the patch's end there are none, so the last cell of each axis may be smaller.
    corners = [range(int(rng.integers(-cell + 1, 1)), n, cell) for n in hu.shape]
    for count, corner in enumerate(itertools.product(*corners), start=1):
        low = [max(0, start) for start in corner]
        block = gradient[tuple(slice(a, b + cell) for a, b in zip(low, corner, strict=True))]
        quiet = np.unravel_index(int(block.argmin()), block.shape)
        markers[tuple(a + int(b) for a, b in zip(low, quiet, strict=True))] = count
    compactness = 0.0 if rng.random() < 0.6 else math.exp(rng.uniform(-3, 0))
    basins = watershed(gradient, markers, compactness=compactness)
    return (basins == basins[seed]).astype(np.uint8)


def paste(
    rng: np.random.Generator, hu: NDArray[np.float32], centre: Index
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Lay a lump of its own HU into the patch; the CT's own texture shines through.

    Args:
        rng: decides size, bumps, contrast and sharpness.
        hu: (z, y, x) float32 HU. Not modified.
        centre: the voxel (z, y, x) around which it lies.

    Returns:
        The changed patch, (z, y, x) float32 HU, and the lump, (z, y, x) uint8.
    """
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
    contrast = math.exp(rng.uniform(math.log(20), math.log(250))) * contrast_scale(host)
    if host - contrast > -1000 and rng.random() < 0.5:
        contrast = -contrast
    texture = rng.uniform(0.2, 1.0)
    filled = host + contrast + texture * np.clip(hu - host, -100, 100)
    soft = ndimage.gaussian_filter(truth.astype(np.float32), rng.uniform(0.3, 1.0))
    return hu * (1 - soft) + filled.astype(np.float32) * soft, truth.astype(np.uint8)


def contrast_scale(hu: float) -> float:
    """A difference in HU means less in air and bone than in soft tissue."""
    return 1 + abs(hu - 40) / 200
