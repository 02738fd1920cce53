"""The protocol of the CVPR 2025 challenge on interactive 3D segmentation, points only.

A case is an `.npz` with `imgs` (D, H, W), `spacing` and, to be evaluated, `gts`. Five clicks are
made for each class, each at the middle of the largest error; scores are the areas under Dice and
surface Dice over the five, and the last of each. Boxes that a file may hold are not used, which the
protocol allows: such a case is scored by its clicks alone.

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

from clickseg_infer.atomic_write import write_whole
from clickseg_infer.boxes import bounds_of, slices_of
from clickseg_infer.clicks import Click
from clickseg_infer.errors import DatasetError, FileError, VolumeError
from clickseg_infer.metrics import dice
from clickseg_infer.model import Model
from clickseg_infer.session import Session
from clickseg_infer.volume import Volume
from clickseg_train.surface_dice import surface_dice

CLICKS = 5
CSV = "scores.csv"
_WINDOW_HU = (-160.0, 240.0)  # what the challenge's CT grey values 0 to 255 stand for
_TIE_SEED = 42
_SURFACE_NEEDS = 0.2  # surface Dice is 0 where Dice is not above this


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


def read_npz(path: Path) -> Npz:
    """Read a case; grey values from 0 to 255 become HU of the challenge's soft-tissue window.

    Raises:
        FileError: cannot be read, or is not an .npz.
        VolumeError: no image, no spacing, or truth of another shape.
        ClickError: clicks that are no voxels.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = {
                name.removesuffix(".npy"): _read_array(archive.read(name))
                for name in archive.namelist()
            }
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever zip or pickle meets in a damaged file
        raise FileError(f"{path}: not an .npz file, or damaged") from error
    if "imgs" not in content or np.shape(content.get("spacing", ())) != (3,):
        raise VolumeError(f"{path}: needs 'imgs' and a 'spacing' of three values")
    truth = content.get("gts")
    if truth is not None and truth.shape != content["imgs"].shape:
        raise VolumeError(f"{path}: 'gts' {truth.shape} differs from 'imgs' in shape")
    grey = content["imgs"]
    if grey.min() >= 0 and grey.max() <= 255:
        low, high = _WINDOW_HU
        grey = grey.astype(np.float32) * ((high - low) / 255) + low
    z, y, x = (float(s) for s in content["spacing"])
    volume = Volume(grey, np.diag([x, y, z, 1.0]))
    return Npz(volume, truth, _clicks(content))


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


def evaluate_folder(model: Model, folder: Path, out: Path) -> dict[str, float]:
    """Evaluate every `.npz` of a folder, and write each case's `segs` and `scores.csv`.

    Args:
        model: to evaluate.
        folder: holds the cases, each with `gts`.
        out: made if its parent exists; must not be `folder`.

    Returns:
        The means of DSC_AUC, NSD_AUC, DSC_Final and NSD_Final over the cases.

    Raises:
        FileError, VolumeError: as `read_npz`.
        DatasetError: no case, one without truth, or `out` is the folder itself.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise DatasetError(f"{folder}: holds no .npz file")
    if out.resolve() == folder.resolve():
        raise DatasetError(f"{out}: is the folder with the cases; answers need another one")
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        raise FileError(f"{out}: cannot be made: {error.strerror or error}") from error
    rows = []
    for path in paths:
        case = read_npz(path)
        if case.truth is None or not case.truth.any():
            raise DatasetError(f"{path}: holds no 'gts' to evaluate by")
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


def _evaluate_case(
    model: Model, volume: Volume, truth: NDArray[Any]
) -> tuple[NDArray[np.uint8], dict[str, float]]:
    values = [int(value) for value in np.unique(truth) if value > 0]
    sessions = {value: Session(model, volume) for value in values}
    segs = np.zeros(volume.shape, np.uint8)
    scores: dict[str, list[float]] = {"DSC": [], "NSD": [], "RunningTime": []}
    for _ in range(CLICKS):
        clicks = {value: challenge_click(truth == value, segs == value) for value in values}
        began = time.perf_counter()
        for value, click in clicks.items():
            first = not sessions[value].clicks
            if click is not None and (click.positive or not first):
                sessions[value].click(click.zyx, click.positive)
        scores["RunningTime"].append(time.perf_counter() - began)
        segs[:] = 0
        for value in values:
            segs[sessions[value].mask > 0] = value
        found = [_scores(truth == value, segs == value, volume) for value in values]
        for name, mean in zip(("DSC", "NSD"), np.mean(found, axis=0), strict=True):
            scores[name].append(float(mean))
    row: dict[str, float] = {
        "TotalRunningTime": sum(scores["RunningTime"]),
        **{f"RunningTime_{n}": s for n, s in enumerate(scores["RunningTime"], start=1)},
        "DSC_AUC": float(np.trapezoid(scores["DSC"])),
        "NSD_AUC": float(np.trapezoid(scores["NSD"])),
        "DSC_Final": scores["DSC"][-1],
        "NSD_Final": scores["NSD"][-1],
        **{f"DSC_{n}": s for n, s in enumerate(scores["DSC"], start=1)},
        **{f"NSD_{n}": s for n, s in enumerate(scores["NSD"], start=1)},
        "num_class": len(values),
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
    components = cc3d.connected_components(error, connectivity=26)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    largest = components == int(sizes.argmax())
    box = bounds_of(largest)
    assert box is not None
    # Padded by a quarter on either side, at least one voxel, but not beyond the image.
    z, y, x = (
        (max(0, low - pad), min(size, high + pad))
        for (low, high), size in zip(box, error.shape, strict=True)
        for pad in [max(1, int((high - low) * 0.25))]
    )
    crop = np.ascontiguousarray(largest[slices_of((z, y, x))])
    depth = edt.edt(crop, black_border=False, parallel=1)
    places = np.flatnonzero(depth.ravel() == depth.max())
    chosen = int(np.random.RandomState(_TIE_SEED).choice(places))
    dz, dy, dx = (int(p) for p in np.unravel_index(chosen, crop.shape))
    zyx = (z[0] + dz, y[0] + dy, x[0] + dx)
    return Click(zyx, positive=bool(truth[zyx]))


def _scores(truth: NDArray[Any], answer: NDArray[Any], volume: Volume) -> Sequence[float]:
    overlap = dice(truth, answer)
    if overlap <= _SURFACE_NEEDS:
        return overlap, 0.0
    return overlap, surface_dice(truth, answer, volume.spacing_mm)


def _write_npz(path: Path, segs: NDArray[np.uint8]) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, segs=segs)
    write_whole(path, content.getvalue())
