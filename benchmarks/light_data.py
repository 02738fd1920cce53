"""Lay out what the bundled model learns from, as Decathlon folders in `data/light`.

The real CT beside the checkout (../shared/data) stays where it is; what has no Decathlon folder of
its own there gets one here, and phantoms are generated.
"""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np

from clickseg_train.phantom import write_phantoms

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
OUT = ROOT / "data" / "light"
TASKS = (
    "Task20_SoftTissueSarcoma",
    "Task21_AbdomenPelvis",
    "Task22_HeadNeck",
    "Task23_ChestOrgans",
)


def folders() -> list[Path]:
    """The data sets, in the order in which they are given to `clickseg train`."""
    own = ("phantoms", "nodule", "lungs", "unlabelled")
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
    lungs(chest / "imagesTr" / "chest_001.nii.gz", chest / "labelsTr" / "chest_001.nii.gz")
    layout(
        "unlabelled",
        {"0": "background"},
        "CC BY 3.0 (TCIA NSCLC-Radiogenomics)",
        SHARED / "unlabelled" / "chest_r01_001.nii.gz",
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
    path = OUT / "lungs" / "label.nii.gz"
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        nib.save(nib.Nifti1Image(whole, stored.affine, stored.header), path)
    layout("lungs", labels, "CC BY 3.0 (TCIA LIDC-IDRI)", image, path)


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
