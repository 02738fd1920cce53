"""The protocol of the CVPR 2025 challenge on interactive 3D segmentation, points only.

A case is an `.npz` with `imgs` (D, H, W), `spacing` and, to be evaluated, `gts`, there or in a file
of the same name in another folder. The first of six steps is for a box; none is used, which the
protocol allows, so that it scores 0. Then five clicks are made for each class, each at the middle
of the largest error; scores are the areas under Dice and surface Dice over the five, and the last
of each.

To answer clicks that somebody else made, as the challenge's containers do, a file holds `clicks`,
for each class `{"fg": [[z, y, x], ...], "bg": [...]}`, and `clicks_order`, for each class the kinds
of its clicks in order; `segs` in the answer holds the classes' values.
"""

import csv
import io
import pickle
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray

from clickseg_infer.atomic_write import make_folder, write_whole
from clickseg_infer.boxes import bounds_of, slices_of
from clickseg_infer.clicks import Click
from clickseg_infer.errors import ClickError, DatasetError, FileError, VolumeError
from clickseg_infer.metrics import dice
from clickseg_infer.model import Model
from clickseg_infer.session import Session
from clickseg_infer.volume import Volume
from clickseg_train.surface_dice import surface_dice

CLICKS = 5
SECONDS_PER_CLASS = 90
"""What the challenge allows for all steps together."""

CSV = "scores.csv"
_WINDOW_HU = (-160.0, 240.0)  # what the challenge's CT grey values 0 to 255 stand for
_TIE_SEED = 42
_SURFACE_NEEDS = 0.2  # a case's surface Dice is 0 where its Dice is not above this


@dataclass(frozen=True, eq=False)
class Npz:
    """One of the challenge's files.

    Attributes:
        volume: HU, in the file's own axis order, which is taken for (z, y, x).
        truth: (z, y, x) of class values; None if the file has none.
        clicks: of each class in the order they were made; empty if the file has none.
    """

    volume: Volume
    truth: NDArray[Any] | None
    clicks: tuple[tuple[Click, ...], ...]


def read_npz(path: Path, truth: Path | None = None) -> Npz:
    """Read a case; grey values from 0 to 255 become HU of the challenge's soft-tissue window.

    Args:
        path: the case.
        truth: holds its `gts`; without it, the case itself may.

    Raises:
        FileError: cannot be read, or is not an .npz.
        VolumeError: no image or no spacing that can be used, or truth of another shape.
        ClickError: clicks that are no voxels, or fewer than their order names.
    """
    content = _read_arrays(path)
    if "imgs" not in content or np.shape(content.get("spacing", ())) != (3,):
        raise VolumeError(f"{path}: needs 'imgs' and a 'spacing' of three values")
    labels = (content if truth in (None, path) else _read_arrays(truth)).get("gts")
    grey = content["imgs"]
    if labels is not None and labels.shape != grey.shape:
        raise VolumeError(f"{truth or path}: 'gts' {labels.shape} differs from 'imgs' in shape")
    try:
        z, y, x = (float(s) for s in content["spacing"])
        if grey.min() >= 0 and grey.max() <= 255:
            low, high = _WINDOW_HU
            grey = grey.astype(np.float32) * ((high - low) / 255) + low
        volume = Volume(grey, np.diag([x, y, z, 1.0]))
    except (ValueError, TypeError, VolumeError) as error:
        raise VolumeError(f"{path}: {error}") from error
    try:
        clicks = _clicks(content)
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise ClickError(f"{path}: 'clicks' and 'clicks_order' do not fit: {error}") from error
    return Npz(volume, labels, clicks)


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                name.removesuffix(".npy"): _read_array(archive.read(name))
                for name in archive.namelist()
            }
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever zip or pickle meets in a damaged file
        raise FileError(f"{path}: not an .npz file, or damaged") from error


def _read_array(content: bytes) -> NDArray[Any]:
    """An .npy array; one of Python objects, as clicks are stored, may hold plain values only."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    if not read[version[0]](file)[2].hasobject:
        return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))
    return np.asarray(_PlainUnpickler(file).load(), dtype=object)


class _PlainUnpickler(pickle.Unpickler):
    """Knows NumPy's arrays and nothing that could run code of the file's choice."""

    _KNOWN = frozenset({"_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer"})

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self._KNOWN:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of clicks")


def _clicks(content: dict[str, Any]) -> tuple[tuple[Click, ...], ...]:
    classes = list(content.get("clicks", []))
    orders = list(content.get("clicks_order", [None] * len(classes)))
    found = []
    for clicks, order in zip(classes, orders, strict=True):
        waiting = {kind: list(clicks.get(kind, [])) for kind in ("fg", "bg")}
        kinds = [kind for kind in (order if order is not None else []) if kind in waiting]
        kinds = kinds or ["fg"] * len(waiting["fg"]) + ["bg"] * len(waiting["bg"])
        found.append(tuple(_click(waiting[kind].pop(0), positive=kind == "fg") for kind in kinds))
    return tuple(found)


def _click(position: Sequence[Any], positive: bool) -> Click:
    z, y, x = (int(p) for p in position)
    return Click((z, y, x), positive)


def answer_npz(model: Model, path: Path, out: Path) -> None:
    """Answer the clicks in a file, and write `segs` (z, y, x) uint8 as the challenge reads it.

    Raises:
        FileError, VolumeError, ClickError: as `read_npz`; DatasetError: no clicks.
    """
    case = read_npz(path)
    if not case.clicks:
        raise DatasetError(f"{path}: holds no 'clicks' to answer")
    segs = np.zeros(case.volume.shape, np.uint8)
    for value, clicks in enumerate(case.clicks, start=1):
        session = Session(model, case.volume)
        for click in clicks:
            if click.positive or any(c.positive for c in session.clicks):
                session.click(click.zyx, click.positive)
        segs[session.mask > 0] = value
    _write_npz(out, segs)


def evaluate_folder(
    model: Model, folder: Path, out: Path, truths: Path | None = None
) -> dict[str, float]:
    """Evaluate every `.npz` of a folder, and write each case's `segs` and `scores.csv`.

    Args:
        model: to evaluate.
        folder: holds the cases.
        out: made if its parent exists; must not be a folder that is read. Rows of `scores.csv` are
            written case by case.
        truths: holds a file of the same name with `gts` for each case; without it, cases hold
            their own.

    Returns:
        The means of DSC_AUC, NSD_AUC, DSC_Final and NSD_Final over the cases.

    Raises:
        FileError, VolumeError, ClickError: as `read_npz`.
        DatasetError: no case, one without truth, or `out` is a folder that is read.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise DatasetError(f"{folder}: holds no .npz file")
    if out.resolve() in {folder.resolve(), (truths or folder).resolve()}:
        raise DatasetError(f"{out}: is the folder with the cases; answers need another one")
    held = [path if truths is None else truths / path.name for path in paths]
    for path in held:  # before any case is answered
        if not _has_truth(path):
            raise DatasetError(f"{path}: holds no 'gts' to evaluate by")
    make_folder(out)
    rows: list[dict[str, Any]] = []
    for path, truth in zip(paths, held, strict=True):
        case = read_npz(path, truth)
        if case.truth is None or not case.truth.any():
            raise DatasetError(f"{truth}: 'gts' holds no class")
        segs, row = _evaluate_case(model, case.volume, case.truth)
        _write_npz(out / path.name, segs)
        rows.append({"CaseName": path.name, **row})
        lines = io.StringIO()
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(out / CSV, lines.getvalue().encode())
    shown = ("DSC_AUC", "NSD_AUC", "DSC_Final", "NSD_Final")
    return {name: float(np.mean([row[name] for row in rows])) for name in shown}


def _has_truth(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "gts.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _evaluate_case(
    model: Model, volume: Volume, truth: NDArray[Any]
) -> tuple[NDArray[np.uint8], dict[str, float]]:
    values = [int(value) for value in np.unique(truth) if value > 0]
    sessions = {value: Session(model, volume) for value in values}
    segs = np.zeros(volume.shape, np.uint8)
    overlaps, surfaces, seconds = [0.0], [0.0], [0.0]  # of the step with a box
    for _ in range(CLICKS):
        clicks = {value: challenge_click(truth == value, segs == value) for value in values}
        began = time.perf_counter()
        for value, click in clicks.items():
            first = not sessions[value].clicks
            if click is not None and (click.positive or not first):
                sessions[value].click(click.zyx, click.positive)
        seconds.append(time.perf_counter() - began)
        segs[:] = 0
        for value in values:
            segs[sessions[value].mask > 0] = value
        overlap, surface = _mean_scores(truth, segs, values, volume)
        overlaps.append(overlap)
        surfaces.append(surface)
    row: dict[str, float] = {
        "TotalRunningTime": sum(seconds),
        **{f"RunningTime_{n}": s for n, s in enumerate(seconds, start=1)},
        "DSC_AUC": float(np.trapezoid(overlaps[1:])),
        "NSD_AUC": float(np.trapezoid(surfaces[1:])),
        "DSC_Final": overlaps[-1],
        "NSD_Final": surfaces[-1],
        **{f"DSC_{n}": s for n, s in enumerate(overlaps, start=1)},
        **{f"NSD_{n}": s for n, s in enumerate(surfaces, start=1)},
        "num_class": len(values),
        "runtime_upperbound": len(values) * SECONDS_PER_CLASS,
    }
    return segs, row


def challenge_click(truth: NDArray[np.bool_], answer: NDArray[np.bool_]) -> Click | None:
    """The challenge's click: the middle of the largest error, missed and overrun parts together.

    Args:
        truth: (z, y, x) bool, one class. Not modified.
        answer: the same shape. Not modified.

    Returns:
        A click, deepest in voxels within the largest 26-connected component of the error, ties
        broken by a fixed seed; None if there is no error.
    """
    error = truth != answer
    if not error.any():
        return None
    # As numbers: cc3d 4.1 fails on some truth values that lie in a single row.
    components = cc3d.connected_components(error.view(np.uint8), connectivity=26)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    largest = components == int(sizes.argmax())
    box = bounds_of(largest)
    assert box is not None
    crop = np.ascontiguousarray(largest[slices_of(box)])
    depth = edt.edt(crop, black_border=True, parallel=1)
    places = np.flatnonzero(depth.ravel() == depth.max())
    chosen = int(np.random.RandomState(_TIE_SEED).choice(places))
    dz, dy, dx = (int(p) for p in np.unravel_index(chosen, crop.shape))
    (z, _), (y, _), (x, _) = box
    zyx = (z + dz, y + dy, x + dx)
    return Click(zyx, positive=bool(truth[zyx]))


def _mean_scores(
    truth: NDArray[Any], answer: NDArray[Any], values: Sequence[int], volume: Volume
) -> tuple[float, float]:
    """Dice and surface Dice, each the mean over the classes."""
    pairs = [(truth == value, answer == value) for value in values]
    overlap = float(np.mean([dice(*pair) for pair in pairs]))
    if overlap <= _SURFACE_NEEDS:
        return overlap, 0.0
    return overlap, float(np.mean([surface_dice(*pair, volume.spacing_mm) for pair in pairs]))


def _write_npz(path: Path, segs: NDArray[np.uint8]) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, segs=segs)
    write_whole(path, content.getvalue())
