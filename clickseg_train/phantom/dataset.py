"""A folder of phantoms in the layout of the Medical Segmentation Decathlon."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clickseg_infer.atomic_write import make_folder, write_whole
from clickseg_infer.errors import FileError
from clickseg_infer.files import write_mask, write_volume
from clickseg_train.phantom.case import phantom
from clickseg_train.phantom.patient import LABELS


def write_phantoms(
    out: Path,
    *,
    cases: int,
    seed: int,
    on_case: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write a Medical Segmentation Decathlon folder of phantoms, and splits.json beside it.

    dataset.json is written last and whole, so a folder that has one is complete.

    Args:
        out: The folder; made if it is missing.
        cases: How many cases; about one in five is for validation, none of a single one.
        seed: Each case has its own stream of this seed.
        on_case: Called after each case with (cases written, cases).

    Raises:
        ValueError: `cases` is below 1.
        FileError: the folder cannot be made or written to, or holds a dataset already.
    """
    if (out / "dataset.json").exists():
        raise FileError(f"{out}: holds a dataset already")
    if cases < 1:
        raise ValueError(f"cases must be at least 1, got {cases}")
    for folder in ("imagesTr", "labelsTr"):
        make_folder(out / folder, parents=True)
    stems = [f"phantom_{index:03d}" for index in range(cases)]
    for index, stem in enumerate(stems):
        stream = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
        case = phantom(int(stream[0]))
        write_volume(out / "imagesTr" / f"{stem}.nii.gz", case.volume)
        write_mask(out / "labelsTr" / f"{stem}.nii.gz", case.label, like=case.volume)
        on_case(index + 1, cases)
    train = cases - max(1, round(cases / 5)) if cases > 1 else 1
    _write_json(out / "splits.json", {"train": stems[:train], "val": stems[train:]})
    _write_json(out / "dataset.json", _dataset(stems))


def _dataset(stems: list[str]) -> dict[str, Any]:
    """The Decathlon's dataset.json."""
    return {
        "name": "ClicksegPhantom",
        "description": "Synthetic abdomen-like CT, drawn from random numbers; no patient data",
        "reference": "clickseg_train.phantom",
        "licence": "Apache-2.0",
        "release": "1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {str(value): name for name, value in LABELS.items()},
        "numTraining": len(stems),
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{stem}.nii.gz", "label": f"./labelsTr/{stem}.nii.gz"}
            for stem in stems
        ],
        "test": [],
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())
