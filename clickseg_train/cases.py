"""Cases of a Medical Segmentation Decathlon folder."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickseg_infer.boxes import Box
from clickseg_infer.errors import DatasetError
from clickseg_infer.files import read_label, read_volume
from clickseg_infer.volume import Volume


@dataclass(frozen=True)
class Case:
    """An image file and the label file that belongs to it, if there is one."""

    name: str
    image: Path
    label: Path | None


@dataclass(frozen=True)
class Dataset:
    """A Decathlon folder.

    Attributes:
        name: as `dataset.json` says.
        labels: value -> name, without the background; empty if no case has a label.
        train: the cases to learn from.
        val: the cases kept for validation.
        licence, release: as `dataset.json` says, empty if it does not.
    """

    name: str
    labels: dict[int, str]
    train: tuple[Case, ...]
    val: tuple[Case, ...]
    licence: str = ""
    release: str = ""


@dataclass(frozen=True)
class LabelledObject:
    """One value of a label: where it is, and how many voxels it has."""

    value: int
    box: Box
    voxels: int


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """A case in memory.

    Attributes:
        volume: the image.
        label: (z, y, x) integers of the same shape, all 0 for a case without a label.
        objects: the values above 0 in `label`, each with its half-open box.
    """

    volume: Volume
    label: NDArray[Any]
    objects: tuple[LabelledObject, ...]


def read_dataset(folder: Path) -> Dataset:
    """Read `dataset.json`, and `splits.json` (`{"train": names, "val": names}`) if there is one.

    Without splits every fifth case is kept for validation. AppleDouble files (`._*`) are ignored.
    A training item without a `label` is a scan to cut pseudo-objects from.

    Raises:
        DatasetError: no folder or no `dataset.json`, one without labels or cases, missing files, or
            splits that name unknown cases.
    """
    content = _json(folder / "dataset.json")
    cases = [
        _case(folder, item)
        for item in _list(content.get("training"))
        if not (isinstance(item, dict) and Path(str(item.get("image"))).name.startswith("._"))
    ]
    if not cases:
        raise DatasetError(f"{folder / 'dataset.json'}: 'training' lists no cases")
    labelled = any(case.label for case in cases)
    labels = _labels(content.get("labels"), folder) if labelled else {}
    files = [path for case in cases for path in (case.image, case.label) if path]
    missing = [path for path in files if not os.path.isfile(path)]
    if missing:
        raise DatasetError(f"{folder}: {len(missing)} files are missing, the first is {missing[0]}")
    train, val = _split(folder, cases)
    return Dataset(
        name=str(content.get("name", folder.name)),
        labels=labels,
        train=tuple(train),
        val=tuple(val),
        licence=str(content.get("licence") or content.get("license") or ""),
        release=str(content.get("release") or content.get("relase") or ""),
    )


def load_case(case: Case) -> LoadedCase:
    """Read a case's image and label.

    Raises:
        FileError, VolumeError: as the readers do.
    """
    volume = read_volume(case.image)
    if case.label is None:
        return LoadedCase(volume, np.zeros(volume.shape, np.uint8), ())
    label = np.ascontiguousarray(read_label(case.label, like=volume))
    if label.max() < 256:
        label = label.astype(np.uint8, copy=False)
    voxels = np.bincount(label.ravel())
    objects = []
    for value, slices in enumerate(ndimage.find_objects(label), start=1):
        if slices is not None:
            z, y, x = ((s.start, s.stop) for s in slices)
            objects.append(LabelledObject(value, (z, y, x), int(voxels[value])))
    return LoadedCase(volume, label, tuple(objects))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: must hold an object")
    return content


def _labels(labels: Any, folder: Path) -> dict[int, str]:
    """Both ways of writing them: {"1": "spleen"} as the Decathlon, {"spleen": 1} as nnU-Net v2."""
    names: dict[int, str] = {}
    try:
        for key, value in labels.items():
            number, name = (int(key), str(value)) if str(key).isdigit() else (int(value), str(key))
            if number > 0:
                names[number] = name
    except (AttributeError, TypeError, ValueError, OverflowError):
        names = {}
    if not names:
        raise DatasetError(f"{folder / 'dataset.json'}: 'labels' names no object")
    return names


def _case(folder: Path, item: Any) -> Case:
    if not (isinstance(item, dict) and item.get("image")):
        raise DatasetError(
            f"{folder / 'dataset.json'}: every training case needs an image, not {item}"
        )
    image = folder / str(item["image"])
    name = image.name.removesuffix(".gz").removesuffix(".nii")
    label = item.get("label")
    return Case(name, image, folder / str(label) if label else None)


def _split(folder: Path, cases: list[Case]) -> tuple[list[Case], list[Case]]:
    path = folder / "splits.json"
    if not path.exists():
        val = cases[4::5]
        return [case for case in cases if case not in val], val
    named = {case.name: case for case in cases}
    if len(named) < len(cases):
        raise DatasetError(f"{path}: names cases, but images in {folder} share a name")
    splits = _json(path)
    chosen = []
    for part in ("train", "val"):
        names = [str(name) for name in _list(splits.get(part))]
        unknown = [name for name in names if name not in named]
        if unknown:
            raise DatasetError(f"{path}: {part!r} names unknown cases {unknown[:3]}")
        chosen.append([named[name] for name in names])
    both = sorted(case.name for case in chosen[0] if case in chosen[1])
    if both:
        raise DatasetError(f"{path}: cases {both[:3]} are in train and in val")
    return chosen[0], chosen[1]


def _list(value: Any) -> list[Any]:
    """A JSON list; anything else counts as an empty one."""
    return value if isinstance(value, list) else []
