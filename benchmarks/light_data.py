"""Lay out what the bundled model learns from, as Decathlon folders in `data/light`.

The real CT beside the checkout (../shared/data) stays where it is; what has no Decathlon folder of
its own there gets one here, and phantoms are generated. `light_labels` has the organs of a scan
that came without labels.
"""

import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from clickseg_train.phantom import write_phantoms

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
OUT = ROOT / "data" / "light"
TASKS = ("Task20_SoftTissueSarcoma", "Task21_AbdomenPelvis", "Task22_HeadNeck")
LABELS = Path(__file__).parent / "light_labels"


def folders() -> list[Path]:
    """The data sets, in the order in which they are given to `clickseg train`."""
    own = ("phantoms", "nodule", "lungs", "ChestOrgans", "radiogenomics")
    return [*(SHARED / task for task in TASKS), *(OUT / name for name in own)]


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    if not (OUT / "phantoms").exists():
        write_phantoms(OUT / "phantoms", cases=6, seed=1000)
    chest = SHARED / "Task23_ChestOrgans"
    layout(
        "nodule",
        {"0": "background", "1": "nodule"},
        "CC BY 3.0 (TCIA LIDC-IDRI)",
        chest / "imagesTr" / "chest_001.nii.gz",
        chest / "nodule" / "chest_001.nii.gz",
    )
    image, label = (chest / kind / "chest_001.nii.gz" for kind in ("imagesTr", "labelsTr"))
    lungs(image, label)
    organs(image, label)
    layout(
        "radiogenomics",
        json.loads((LABELS / "chest_r01_001.json").read_text()),
        "CC BY 3.0 (TCIA NSCLC-Radiogenomics)",
        SHARED / "unlabelled" / "chest_r01_001.nii.gz",
        LABELS / "chest_r01_001.nii.gz",
    )
    print(" ".join(os.path.relpath(folder) for folder in folders()))


def lungs(image: Path, lobes: Path) -> None:
    """Whole lungs, each the union of its lobes."""
    names = json.loads((lobes.parents[1] / "dataset.json").read_text())["labels"]
    stored = nib.load(lobes)
    values = np.asanyarray(stored.dataobj)
    whole = np.zeros(values.shape, np.uint8)
    labels = {"0": "background"}
    for number, side in enumerate(("left", "right"), start=1):
        parts = [int(v) for v, n in names.items() if n.startswith("lung_") and n.endswith(side)]
        whole[np.isin(values, parts)] = number
        labels[str(number)] = f"lung_{side}"
    layout("lungs", labels, "CC BY 3.0 (TCIA LIDC-IDRI)", image, saved("lungs", whole, stored))


def organs(image: Path, label: Path) -> None:
    """All organs of the chest, the pulmonary artery apart from the heart.

    TotalSegmentator's heart holds that artery. In this scan it is what lies above the left atrium,
    and in front of that from the pulmonary valve on.
    """
    names = json.loads((label.parents[1] / "dataset.json").read_text())["labels"]
    stored = nib.load(label)
    values = np.asanyarray(stored.dataobj).copy()
    heart = values == next(int(value) for value, name in names.items() if name == "heart")
    artery = max(map(int, names)) + 1
    for part in (np.s_[:, :, 77:], np.s_[275:330, 280:345, 74:77]):
        values[part][heart[part]] = artery
    labels = {**names, str(artery): "pulmonary_artery"}
    path = saved("ChestOrgans", values, stored)
    layout("ChestOrgans", labels, "CC BY 3.0 (TCIA LIDC-IDRI)", image, path)


def saved(name: str, values: NDArray[np.uint8], like: Any) -> Path:
    """The label of a folder's one case."""
    path = OUT / name / "label.nii.gz"
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(values, like.affine, like.header), path)
    return path


def layout(
    name: str, labels: dict[str, str], licence: str, image: Path, label: Path | None = None
) -> None:
    """A folder with one case whose files lie elsewhere."""
    folder = OUT / name
    folder.mkdir(exist_ok=True)
    case = {"image": os.path.relpath(image, folder)}
    if label is not None:
        case["label"] = os.path.relpath(label, folder)
    content = {"name": name, "licence": licence, "labels": labels, "training": [case]}
    (folder / "dataset.json").write_text(json.dumps(content, indent=1))
    (folder / "splits.json").write_text(json.dumps({"train": [image.name[:-7]], "val": []}))


if __name__ == "__main__":
    main()
