"""How sure the network is of a mask."""

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.boxes import bounds_of, slices_of


def expected_dice(logits: NDArray[np.float32], threshold_logit: float) -> float:
    """The Dice to expect of a mask, if the network's probabilities are right.

    Twice the expected overlap by the expected sum of sizes. Only voxels of the mask and those that
    touch one of its faces count: farther away, faint probabilities of other objects would add up.

    Args:
        logits: (z, y, x) float32. Not modified.
        threshold_logit: above which a voxel belongs to the mask.

    Returns:
        0 for an empty mask, 1 for one of which the network is sure.
    """
    whole = logits > threshold_logit
    held = bounds_of(whole)
    if held is None:
        return 0.0
    z, y, x = (
        (max(0, low - 1), min(length, high + 1))
        for (low, high), length in zip(held, logits.shape, strict=True)
    )
    area = slices_of((z, y, x))
    mask = whole[area]
    probability = 1 / (1 + np.exp(np.minimum(-logits[area], 80)))
    near = mask.copy()
    for axis in range(3):
        there, here = np.moveaxis(mask, axis, 0), np.moveaxis(near, axis, 0)
        here[1:] |= there[:-1]
        here[:-1] |= there[1:]
    sizes = float(probability[near].sum()) + int(mask.sum())
    return 2 * float(probability[mask].sum()) / sizes
