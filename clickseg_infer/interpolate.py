"""Trilinear interpolation by tables of taps: out of a scan, and back with a threshold.

Rows are read along the axis whose voxels are neighbours in memory, whatever the strides; and what
cannot reach the threshold is not interpolated.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from clickseg_infer.machine import cores

Taps = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""For each position along an axis: the first tap, the second, and the second's weight."""

_NOWHERE = 2**31  # beyond every row

_VOXELS_PER_THREAD = 2_000_000  # a thread's start costs less than a tenth of such a share


def read_box(
    voxels: NDArray[Any],
    taps: Sequence[Taps],
    box: Sequence[tuple[int, int]],
    outside: float,
    windows: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Fill `box` of `out`, (W, z, y, x), for each window; a tap of -1 reads `outside`.

    Whole rows are read, along the axis whose voxels are neighbours in memory. A window is (lowest
    value, 2 / width).
    """
    line, origin, steps, c = _in_memory(voxels)
    # Rows along x are written as rows. Of others, those that follow each other differ in x, and
    # what is read as a plane of rows is written turned.
    a, b = ((1, 2), (0, 2), (0, 1))[c]
    lowest, highest, left, right = _places_in_row(*taps[c][:2], steps[c] < 0)
    origin += lowest if steps[c] > 0 else -highest
    air = np.full(highest - lowest + 2, outside, voxels.dtype)
    air.flags.writeable = False
    tables = (*taps[a], *taps[b], left, right, taps[c][2])
    planes = out.transpose(0, a + 1, *sorted((b + 1, c + 1)))

    def read(first: int, last: int) -> None:
        bounds = (box[a][0] + first, box[a][0] + last, *box[b], *box[c])
        _read(line, air, origin, (steps[a], steps[b]), tables, c, bounds, windows, planes)

    filled = len(windows) * math.prod(high - low for low, high in box)
    _share(box[a][1] - box[a][0], filled, read)


def threshold(
    logits: NDArray[np.float32], taps: Sequence[Taps], threshold_logit: float
) -> NDArray[np.uint8]:
    """Interpolate logits (z, y, x) at the taps, and say where they exceed the threshold.

    Returns:
        (z, y, x) uint8, 0 or 1, of the size that the taps have.
    """
    z, y, x = taps
    # Where all logits are below this, so is their mean, however it is rounded.
    low = np.float32(threshold_logit - 1e-5 * abs(threshold_logit))
    columns = np.arange(logits.shape[2])
    readers = np.searchsorted(x[1], columns, "left"), np.searchsorted(x[0], columns, "right")
    live = np.empty((*logits.shape[:2], 2), np.int64)
    # Unsigned, so that the inner loop need not ask whether a place counts from the end.
    x_places = x[0].astype(np.uint32), x[1].astype(np.uint32), x[2]
    mask = np.zeros([len(axis[0]) for axis in taps], np.uint8)
    if mask.size == 0:
        return mask
    limit = np.float32(threshold_logit)
    _share(len(live), logits.size, lambda *part: _find_live(logits, low, *readers, *part, live))
    _share(
        len(mask),
        mask.size,
        lambda *part: _threshold(logits, live, *z, *y, *x_places, limit, *part, mask),
    )
    return mask


def has_rows(voxels: NDArray[Any]) -> bool:
    """Whether voxels are neighbours in memory along an axis, and the others a whole number on."""
    item = voxels.itemsize
    strides = [abs(s) for n, s in zip(voxels.shape, voxels.strides, strict=True) if n > 1]
    return not strides or (min(strides) == item and not any(stride % item for stride in strides))


def _in_memory(voxels: NDArray[Any]) -> tuple[NDArray[Any], int, list[int], int]:
    """An array as the line of memory that it spans, whatever its strides.

    Returns:
        The line; the place of voxel (0, 0, 0) on it; how many places on the next voxel along each
        axis is; and the axis along which that is one place, forwards or backwards.
    """
    if not has_rows(voxels):
        voxels = np.ascontiguousarray(voxels)
    item = voxels.itemsize
    # The stride of an axis with one position means nothing.
    steps = [s // item if n > 1 else 0 for n, s in zip(voxels.shape, voxels.strides, strict=True)]
    axes = [axis for axis in range(3) if abs(steps[axis]) <= 1]
    spans = [(n - 1) * step for n, step in zip(voxels.shape, steps, strict=True)]
    forwards = voxels[tuple(slice(None, None, -1 if step < 0 else 1) for step in steps)]
    line = as_strided(forwards, (1 + sum(map(abs, spans)),), (item,), writeable=False)
    origin = -sum(min(span, 0) for span in spans)
    return line, origin, steps, max(axes, key=lambda a: voxels.shape[a])


def _places_in_row(
    first: NDArray[np.int64], second: NDArray[np.int64], backwards: bool
) -> tuple[int, int, NDArray[np.uint32], NDArray[np.uint32]]:
    """The lowest and highest tap, and taps as places in a row of these, where 0 is outside."""
    taps = np.stack([first, second])
    inside = taps >= 0
    lowest, highest = (taps[inside].min(), taps[inside].max()) if inside.any() else (0, -1)
    places = np.where(inside, 1 + (highest - taps if backwards else taps - lowest), 0)
    left, right = places.astype(np.uint32)
    return int(lowest), int(highest), left, right


def _share(count: int, voxels: int, work: Callable[[int, int], None]) -> None:
    """Have `work(first, last)` do positions 0 to `count`, in threads if it is about many voxels."""
    threads = min(count, cores(), max(1, voxels // _VOXELS_PER_THREAD))
    if threads <= 1:
        work(0, count)
        return
    parts = 4 * threads  # so that a thread that is held up holds up little
    edges = [count * n // parts for n in range(parts + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))


@njit(cache=True, nogil=True)
def _read(line, air, origin, steps, tables, axis, bounds, windows, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Interpolate along z, then y, then x, so that strides do not change how it is rounded.

    Rows run along `axis`, c, and planes of them along b and c; a and b are the other axes in order.
    `out` is (W, a, b, c), or (W, a, c, b) where c is not x. `air` is a row outside the volume.
    """
    a0, a1, wa, b0, b1, wb, left, right, wc = tables
    begin_a, end_a, begin_b, end_b, begin_c, end_c = bounds
    left, right, wc = left[begin_c:end_c], right[begin_c:end_c], wc[begin_c:end_c]
    taps, stretched = np.empty((4, len(air)), np.float32), np.empty((4, len(wc)), np.float32)
    taps[:, 0] = air[0]
    plane = np.empty((end_b - begin_b, len(wc)), np.float32)
    for a in range(begin_a, end_a):
        for b in range(begin_b, end_b):
            mean = plane[b - begin_b]
            row_00 = _row(line, air, origin, steps, a0[a], b0[b])
            row_01 = _row(line, air, origin, steps, a0[a], b1[b])
            row_10 = _row(line, air, origin, steps, a1[a], b0[b])
            row_11 = _row(line, air, origin, steps, a1[a], b1[b])
            if axis == 2:
                _mix_four(row_00, row_01, row_10, row_11, wa[a], wb[b], taps[0, 1:])
                _stretch(taps[0], left, right, wc, mean)
            elif axis == 1:
                _mix(row_00, row_10, wa[a], taps[0, 1:])
                _mix(row_01, row_11, wa[a], taps[1, 1:])
                for n in range(2):
                    _stretch(taps[n], left, right, wc, stretched[n])
                _mix(stretched[0], stretched[1], wb[b], mean)
            else:
                for n, row in enumerate((row_00, row_01, row_10, row_11)):
                    _mix(row, row, wa[a], taps[n, 1:])
                    _stretch(taps[n], left, right, wc, stretched[n])
                s00, s01, s10, s11 = stretched[0], stretched[1], stretched[2], stretched[3]
                _mix_four(s00, s01, s10, s11, wa[a], wb[b], mean)
        for window in range(len(windows)):
            low, scale = windows[window]
            if axis == 2:
                _clip(plane, low, scale, begin_b, begin_c, out[window, a])
            else:
                _clip(plane.T, low, scale, begin_c, begin_b, out[window, a])


@njit(cache=True, nogil=True)
def _row(line, air, origin, steps, a, b):  # type: ignore[no-untyped-def] # pragma: no cover
    if a < 0 or b < 0:
        return air[1:]
    begin = origin + a * steps[0] + b * steps[1]
    return line[begin : begin + len(air) - 1]


@njit(cache=True, nogil=True)
def _mix(near, far, weight, out):  # type: ignore[no-untyped-def] # pragma: no cover
    for n in range(len(out)):
        a, b = np.float32(near[n]), np.float32(far[n])
        out[n] = a + (b - a) * weight


@njit(cache=True, nogil=True)
def _mix_four(row_00, row_01, row_10, row_11, weight_a, weight_b, out):  # type: ignore[no-untyped-def] # pragma: no cover
    for n in range(len(out)):
        a, b = np.float32(row_00[n]), np.float32(row_01[n])
        c, d = np.float32(row_10[n]), np.float32(row_11[n])
        near, far = a + (c - a) * weight_a, b + (d - b) * weight_a
        out[n] = near + (far - near) * weight_b


@njit(cache=True, nogil=True)
def _stretch(taps, left, right, weight, out):  # type: ignore[no-untyped-def] # pragma: no cover
    for n in range(len(out)):
        near, far = taps[left[n]], taps[right[n]]
        out[n] = near + (far - near) * weight[n]


@njit(cache=True, nogil=True)
def _clip(values, low, scale, begin_m, begin_n, out):  # type: ignore[no-untyped-def] # pragma: no cover
    one = np.float32(1)
    rows, width = values.shape
    for m in range(rows):
        source, target = values[m], out[begin_m + m, begin_n : begin_n + width]
        for n in range(width):
            target[n] = min(max((source[n] - low) * scale - one, -one), one)


@njit(cache=True, nogil=True)
def _find_live(logits, low, first_reader, last_reader, begin, end, live):  # type: ignore[no-untyped-def] # pragma: no cover
    """For each row of logits, the voxels along x that read one that is not below `low`."""
    width = logits.shape[2]
    for z in range(begin, end):
        for y in range(logits.shape[1]):
            row = logits[z, y]
            first, last = 0, width - 1
            while first < width and row[first] < low:
                first += 1
            while last > first and row[last] < low:
                last -= 1
            live[z, y, 0] = first_reader[first] if first < width else _NOWHERE
            live[z, y, 1] = last_reader[last] if first < width else 0


@njit(cache=True, nogil=True)
def _threshold(logits, live, z0, z1, wz, y0, y1, wy, x0, x1, wx, threshold, begin, end, mask):  # type: ignore[no-untyped-def] # pragma: no cover
    """Trilinear: first along x, where neighbouring rows of the mask share what is computed."""
    one = np.float32(1)
    planes = np.empty((2, logits.shape[1], mask.shape[2]), np.float32)
    held = np.full(2, -1)
    for z in range(begin, end):
        for plane in (z0[z], z1[z]):
            if held[plane % 2] != plane:
                rows = y0[0], y1[-1] + 1
                _stretch_plane(logits, live, plane, rows, x0, x1, wx, planes[plane % 2])
                held[plane % 2] = plane
        near, far = planes[z0[z] % 2], planes[z1[z] % 2]
        a, b = one - wz[z], wz[z]
        for y in range(len(y0)):
            first, last = _union(live, z0[z], z1[z], y0[y], y1[y])
            c, d = one - wy[y], wy[y]
            near_0, near_1 = near[y0[y], first:last], near[y1[y], first:last]
            far_0, far_1 = far[y0[y], first:last], far[y1[y], first:last]
            row = mask[z, y, first:last]
            for x in range(len(row)):
                value = a * (c * near_0[x] + d * near_1[x]) + b * (c * far_0[x] + d * far_1[x])
                row[x] = value > threshold


@njit(cache=True, nogil=True)
def _stretch_plane(logits, live, z, rows, x0, x1, wx, plane):  # type: ignore[no-untyped-def] # pragma: no cover
    """Interpolate rows of a plane along x, as far as they or their neighbours are live."""
    nz, ny, _ = logits.shape
    for y in range(*rows):
        above, below = max(y - 1, 0), min(y + 1, ny - 1)
        first, last = _union(live, max(z - 1, 0), min(z + 1, nz - 1), above, below)
        row, target = logits[z, y], plane[y, first:last]
        left, right, weight = x0[first:last], x1[first:last], wx[first:last]
        for x in range(len(target)):
            near, far = row[left[x]], row[right[x]]
            target[x] = (np.float32(1) - weight[x]) * near + weight[x] * far


@njit(cache=True, nogil=True)
def _union(live, z0, z1, y0, y1):  # type: ignore[no-untyped-def] # pragma: no cover
    """From the first to the last voxel along x that any of these rows needs."""
    first, last = _NOWHERE, 0
    for z in range(z0, z1 + 1):
        for y in range(y0, y1 + 1):
            first, last = min(first, live[z, y, 0]), max(last, live[z, y, 1])
    return first, last
