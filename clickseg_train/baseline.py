"""A classical baseline for the same clicks: ITK's confidence-connected region growing."""

from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from clickseg_infer.clicks import Clicks
from clickseg_infer.volume import Volume

_MULTIPLIER = 2.5  # ITK's default: HU within so many standard deviations of the region's mean
_ITERATIONS = 4
_SEED_RADIUS = 1


def smoothed(volume: Volume) -> Any:
    """The scan as an ITK image, smoothed by curvature flow as in ITK's own example."""
    image = SimpleITK.GetImageFromArray(volume.voxels.astype(np.float32))
    image.SetSpacing(volume.spacing_mm[::-1])
    return SimpleITK.CurvatureFlow(image, timeStep=0.0625, numberOfIterations=5)


def grown_region(image: Any, clicks: Clicks) -> NDArray[np.uint8]:
    """Grow a region from the positive clicks.

    Region growing knows no negative clicks: what lies nearer to one of those than to any positive
    click is taken away afterwards.

    Args:
        image: of `smoothed`. Not modified.
        clicks: at least one positive.

    Returns:
        (z, y, x) uint8 of the volume's shape, 0 or 1.
    """
    grown = SimpleITK.ConfidenceConnected(
        image,
        seedList=[click.zyx[::-1] for click in clicks if click.positive],
        numberOfIterations=_ITERATIONS,
        multiplier=_MULTIPLIER,
        initialNeighborhoodRadius=_SEED_RADIUS,
        replaceValue=1,
    )
    found: NDArray[np.uint8] = SimpleITK.GetArrayFromImage(grown).astype(np.uint8)
    if all(click.positive for click in clicks):
        return found
    voxels = np.argwhere(found)
    spacing_mm = np.array(image.GetSpacing()[::-1])
    near = {True: np.full(len(voxels), np.inf), False: np.full(len(voxels), np.inf)}
    for click in clicks:
        distance = np.linalg.norm((voxels - click.zyx) * spacing_mm, axis=1)
        near[click.positive] = np.minimum(near[click.positive], distance)
    found[tuple(voxels[near[False] < near[True]].T)] = 0
    return found
