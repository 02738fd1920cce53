"""A scan of 300 x 512 x 512 goes to the network's grid of 1.5 mm, and an answer comes back.

Writes results/resampling.json. Torch interpolates trilinearly and clamps (or compares) afterwards.
Beside them stands what moving the same bytes takes. The masks must agree in every voxel: with
torch in float64, because in float32 it places the voxels of a large volume less exactly; in how
many voxels that makes it differ is written too.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from contest import contest, write
from numpy.typing import NDArray
from scans import scan
from torch.nn.functional import interpolate

from clickseg_infer.resample import NetworkGrid, from_network, network_grid, to_network
from clickseg_infer.stitch import UNCOVERED

SLICES = 300
SCAN_MM = (1.0, 0.8, 0.8)  # taken for the scan's: up to half of the network's, all is trilinear
SPACING_MM = (1.5, 1.5, 1.5)
WINDOWS = [(-160.0, 240.0), (-1000.0, 600.0)]
PATCH = (96, 96, 96)
LEVEL = 0.0123  # not 0, which whole numbers of HU hit exactly
ROUNDS = 7


def torch_to_network(voxels: NDArray[np.int16], grid: NetworkGrid) -> torch.Tensor:
    low, high = WINDOWS[0]
    found = stretched(voxels, [1 / ratio for ratio in grid.ratio], torch.float32)
    return found.sub_(low).mul_(2 / (high - low)).sub_(1).clamp_(-1, 1)


def torch_from_network(
    logits: NDArray[np.float32], grid: NetworkGrid, dtype: torch.dtype
) -> torch.Tensor:
    z, y, x = grid.volume_shape
    return (stretched(logits, grid.ratio, dtype)[:z, :y, :x] > LEVEL).to(torch.uint8)


def stretched(
    array: NDArray[np.generic], factors: tuple[float, ...] | list[float], dtype: torch.dtype
) -> torch.Tensor:
    """An array (z, y, x), interpolated so that it is `factors` times as long along each axis."""
    given = torch.from_numpy(array)[None, None].to(dtype)
    return interpolate(
        given, scale_factor=tuple(factors), mode="trilinear", recompute_scale_factor=False
    )[0, 0]


def organ(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits within a ball in the middle; what lies around it is no part of the answer."""
    away = np.linalg.norm(
        np.stack(np.indices(logits.shape)) - np.reshape(logits.shape, (3, 1, 1, 1)) / 2, axis=0
    )
    return np.where(away < 40, logits, np.float32(UNCOVERED))


def back(logits: NDArray[np.float32], grid: NetworkGrid) -> dict[str, object]:
    z, y, x = ((0, n) for n in grid.volume_shape)
    runs: dict[str, Callable[[], object]] = {
        "clickseg": lambda: from_network(logits, (0, 0, 0), grid, (z, y, x), LEVEL),
        "torch": partial(torch_from_network, logits, grid, torch.float32),
        "writing as many new bytes": partial(np.ones, grid.volume_shape, np.uint8),
    }
    mask = np.asarray(runs["clickseg"]())
    assert np.array_equal(mask, torch_from_network(logits, grid, torch.float64).numpy())
    differing = int((mask != np.asarray(runs["torch"]())).sum())
    return {
        "in_the_mask": int(mask.sum()),
        "torch_float32_differs": differing,
        "contenders": contest(runs, ROUNDS),
    }


def main() -> None:
    voxels = np.array(scan(SLICES).voxels, order="C")
    grid = network_grid(voxels.shape, SCAN_MM, SPACING_MM)
    there, patch = np.empty((1, *grid.shape), np.float32), np.empty((2, *PATCH), np.float32)
    middle = [(n - size) // 2 for n, size in zip(grid.shape, PATCH, strict=True)]
    z, y, x = (slice(*bounds) for bounds in grid.volume_box(middle, PATCH))
    copied, copied_part = np.empty_like(voxels), np.empty_like(voxels[z, y, x])
    whole: dict[str, Callable[[], object]] = {
        "clickseg": partial(to_network, voxels, grid, (0, 0, 0), WINDOWS[:1], there),
        "torch": partial(torch_to_network, voxels, grid),
        "copying the voxels": partial(np.copyto, copied, voxels),
    }
    one_patch: dict[str, Callable[[], object]] = {
        "clickseg": partial(to_network, voxels, grid, middle, WINDOWS, patch),
        "copying its voxels": partial(np.copyto, copied_part, voxels[z, y, x]),
    }
    whole["clickseg"]()
    theirs = np.asarray(whole["torch"]())
    ours = there[0, : theirs.shape[0], : theirs.shape[1], : theirs.shape[2]]
    assert np.abs(ours - theirs).max() <= 2e-3
    write(
        "resampling",
        {
            "shape": voxels.shape,
            "spacing_mm": SCAN_MM,
            "network_shape": grid.shape,
            "to_network": {"contenders": contest(whole, ROUNDS)},
            "one_patch_two_windows": {"contenders": contest(one_patch, 5 * ROUNDS)},
            "from_network": back(4 * there[0], grid),
            "from_network_one_organ": back(organ(4 * there[0]), grid),
        },
    )


if __name__ == "__main__":
    main()
