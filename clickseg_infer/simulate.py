"""Simulated users: each looks at the truth and the mask, and clicks where they differ."""

from collections.abc import Sequence
from typing import Any

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray

from clickseg_infer.boxes import bounds_of, slices_of
from clickseg_infer.clicks import Click
from clickseg_infer.file_grid import Index
from clickseg_infer.volume import Spacing


def next_click(
    truth: NDArray[Any],
    mask: NDArray[Any],
    spacing_mm: Spacing = (1.0, 1.0, 1.0),
    rng: np.random.Generator | None = None,
) -> Click | None:
    """Click the largest error: its 26-connected component, at the voxel deepest inside.

    Args:
        truth: (z, y, x), nonzero on the object. Not modified.
        mask: (z, y, x), nonzero where the answer so far says so. Not modified.
        spacing_mm: voxel distances (z, y, x), by which depth is measured.
        rng: None for the deterministic user. With a generator, a user less exact: a component is
            drawn with a chance that grows with its size, and a voxel down to any depth in it.

    Returns:
        A positive click where the object was missed, a negative one where it was overrun; None
        if truth and mask agree.
    """
    found, wanted = mask.astype(bool), truth.astype(bool)
    error = found != wanted
    box = bounds_of(error)
    if box is None:
        return None
    bounds = slices_of(box)
    # Two values, so that a missed part and an overrun one that touch stay two components.
    kinds = error[bounds].astype(np.uint8)
    kinds[wanted[bounds] & error[bounds]] = 2
    components = cc3d.connected_components(kinds, connectivity=26)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    if rng is None:
        chosen = int(sizes.argmax())
    else:
        chosen = int(rng.choice(len(sizes), p=sizes / sizes.sum()))
    component = components == chosen
    depth = edt.edt(component, anisotropy=spacing_mm, black_border=True, parallel=1)
    if rng is None:
        position = int(depth.argmax())
    else:
        reach = depth.max() * rng.random()
        position = int(rng.choice(np.flatnonzero(depth.ravel() >= max(reach, 1e-6))))
    z, y, x = np.unravel_index(position, component.shape)
    zyx = (int(z) + box[0][0], int(y) + box[1][0], int(x) + box[2][0])
    return Click(zyx, positive=bool(wanted[zyx]))


def deepest_click(
    truth: NDArray[Any],
    mask: NDArray[Any],
    spacing_mm: Spacing = (1.0, 1.0, 1.0),
    clicked: Sequence[Index] = (),
) -> Click | None:
    """Click the voxel deepest in what was missed or overrun, as f-BRS's simulated user does.

    Unlike `next_click` it looks at no component's size: a small round error is clicked before a
    large flat one (Sofiiuk et al. 2020, https://arxiv.org/abs/2001.10331).

    Args:
        truth: (z, y, x), nonzero on the object. Not modified.
        mask: (z, y, x), nonzero where the answer so far says so. Not modified.
        spacing_mm: voxel distances (z, y, x), by which depth is measured.
        clicked: voxels (z, y, x) that are not clicked again.

    Returns:
        A click; None if truth and mask agree but for what was clicked.
    """
    found, wanted = mask.astype(bool), truth.astype(bool)
    box = bounds_of(found != wanted)
    if box is None:
        return None
    best, best_depth = None, 0.0
    for positive in (True, False):
        error = (wanted & ~found if positive else found & ~wanted)[slices_of(box)]
        depth = edt.edt(
            np.ascontiguousarray(error), anisotropy=spacing_mm, black_border=True, parallel=1
        )
        for zyx in clicked:
            inside = tuple(p - low for p, (low, _) in zip(zyx, box, strict=True))
            if all(0 <= p < n for p, n in zip(inside, depth.shape, strict=True)):
                depth[inside] = 0
        deepest = np.unravel_index(int(depth.argmax()), depth.shape)
        if depth[deepest] > best_depth:
            z, y, x = (int(p) + low for p, (low, _) in zip(deepest, box, strict=True))
            best, best_depth = Click((z, y, x), positive), float(depth[deepest])
    return best
