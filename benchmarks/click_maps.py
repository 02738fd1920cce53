"""Five clicks drawn into a map of 160^3 voxels, beside how others mark clicks.

Writes results/click_maps.json. Everyone makes the map of disks from the positions of the clicks;
DeepEdit's is a map of Gaussians, as it defines them. f-BRS's distance map is found breadth first,
each voxel passing its nearest click on to its neighbours (the idea of
https://arxiv.org/abs/2001.10331, written anew); "stopped" does not go beyond the disks, which is
enough to draw them. Ours is a map that a session keeps: the balls of the last clicks are erased and
those of the next are drawn. A new map must be cleared first, which is nearly all of its time. What
moving the same bytes takes is shown by writing the same voxels from a list of their places.
"""

from functools import partial

import numpy as np
from contest import contest, write
from monai.apps.deepedit.transforms import AddGuidanceSignalDeepEditd
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from clickseg_infer.click_maps import centres_of, draw_disks

SHAPE = (160, 160, 160)
RADIUS = 3
CLICKS = 5
FAR = 1e6  # a squared distance beyond every other
ROUNDS = 15
FLOOR = "writing the voxels"


def by_distance_transform(centres: NDArray[np.int64]) -> NDArray[np.float32]:
    away = np.ones(SHAPE, bool)
    away[tuple(centres.T)] = False
    return (distance_transform_edt(away) <= RADIUS).astype(np.float32)


def breadth_first(centres: NDArray[np.int64], limit: float) -> NDArray[np.float32]:
    squared = np.full(SHAPE, np.float32(FAR))
    spread_from(centres, limit, squared)
    return (squared <= RADIUS**2).astype(np.float32)


@njit(cache=True)
def spread_from(centres, limit, squared):  # type: ignore[no-untyped-def]
    """Squared distances to the nearest centre, of the voxels that are reached within `limit`."""
    nz, ny, nx = squared.shape
    waiting = [(z, y, x, n) for n, (z, y, x) in enumerate(centres)]
    for z, y, x, _ in waiting:
        squared[z, y, x] = 0
    while len(waiting) > 0:
        found = waiting[:0]
        for z, y, x, n in waiting:
            for axis in range(3):
                for step in (-1, 1):
                    a = z + step if axis == 0 else z
                    b = y + step if axis == 1 else y
                    c = x + step if axis == 2 else x
                    if not (0 <= a < nz and 0 <= b < ny and 0 <= c < nx):
                        continue
                    cz, cy, cx = centres[n]
                    reached = np.float32((a - cz) ** 2 + (b - cy) ** 2 + (c - cx) ** 2)
                    if reached <= limit and reached < squared[a, b, c]:
                        squared[a, b, c] = reached
                        found.append((a, b, c, n))
        waiting = found


@njit(cache=True)
def write_places(places, out):  # type: ignore[no-untyped-def]
    """Erase voxels, and draw them again."""
    line = out.ravel()
    for value in (0, 1):
        for place in places:
            line[place] = value


def main() -> None:
    rng = np.random.default_rng(0)
    centres = centres_of([tuple(map(int, rng.integers(SHAPE))) for _ in range(CLICKS)])
    drawn, kept = np.empty((2, *SHAPE), np.float32)
    draw_disks(centres, RADIUS, kept)
    guide = AddGuidanceSignalDeepEditd(keys="image")
    image = {"image": np.zeros((1, *SHAPE), np.float32), "guidance": {"on": centres.tolist()}}
    contenders = {
        "clickseg": partial(draw_disks, centres, RADIUS, kept, centres),
        "clickseg, a new map": partial(draw_disks, centres, RADIUS, drawn),
        "f-BRS breadth first, stopped": partial(breadth_first, centres, RADIUS**2),
        "f-BRS breadth first": partial(breadth_first, centres, FAR),
        "scipy distance transform": partial(by_distance_transform, centres),
        "MONAI DeepEdit": partial(guide, image),
    }
    results = {name: run() for name, run in contenders.items()}
    floor = {FLOOR: partial(write_places, np.flatnonzero(drawn), kept)}
    for name in [name for name, found in results.items() if isinstance(found, np.ndarray)]:
        assert np.array_equal(results[name], drawn), name
    assert np.array_equal(kept, drawn)
    assert all(results["MONAI DeepEdit"]["image"][1][tuple(centres.T)] > 0.9)
    write(
        "click_maps",
        {
            "shape": SHAPE,
            "clicks": CLICKS,
            "radius": RADIUS,
            "map_bytes": drawn.nbytes,
            "contenders": contest({**contenders, **floor}, ROUNDS),
        },
    )


if __name__ == "__main__":
    main()
