"""How the bundled model follows clicks on what it was not trained on, beside region growing.

Writes results/accuracy.json. Reads the real CT beside the checkout (../shared/data).
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK
from machine import machine

import clickseg_infer as cs
from clickseg_train.cases import Case, Dataset, read_dataset
from clickseg_train.config import read_config
from clickseg_train.evaluate import TARGETS, Evaluation, Protocol, evaluate

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
MAX_CLICKS = 10
HELD_OUT = "organs held out (7, in 2 training bodies)"
SARCOMAS = "sarcomas (3 validation cases)"
HEADS = "head-and-neck organs (6 validation cases)"
FIXTURES = "aorta, pulmonary artery, lungs (4 fixtures)"
SLAB = "an abdomen (31 structures in 20 slices)"
AIMS = {  # mean Dice after so many clicks
    SARCOMAS: {1: 0.65, 3: 0.80, 5: 0.85, 10: 0.88},
    HEADS: {1: 0.50, 3: 0.65, 5: 0.75, 10: 0.80},
    FIXTURES: {1: 0.60, 3: 0.80, 5: 0.88, 10: 0.92},
}
BODIES = ("Task21_AbdomenPelvis", "Task23_ChestOrgans")
_ONE_OF_MANY = re.compile(r"_(left|right|[CTL]?\d+)(?=_|$)")


def fixture(name: str) -> Case:
    folder = DATA / "fixtures"
    return Case(name, folder / f"{name}_image.nii.gz", folder / f"{name}_label.nii.gz")


def slab() -> Dataset:
    """Twenty slices of an abdomen, a DICOM series laid out as a Decathlon folder in `data/slab`.

    Its labels are numbered as TotalSegmentator's second version numbers them.
    """
    folder = HERE.parent / "data" / "slab"
    image, label = folder / "imagesTr" / "slab.nii.gz", folder / "labelsTr" / "slab.nii.gz"
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(
        str(DATA / "fixtures" / "totalsegmentator_example_ct_dicom")
    )
    SimpleITK.WriteImage(SimpleITK.ReadImage(files), image)
    label.unlink(missing_ok=True)
    label.symlink_to(DATA / "fixtures" / "ts_example_dicom_label.nii.gz")
    names = {str(v): name for v, name in read_dataset(DATA / BODIES[1]).labels.items()}
    case = {"image": os.path.relpath(image, folder), "label": os.path.relpath(label, folder)}
    content = {"labels": {**names, "117": "costal_cartilages"}, "training": [case]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return read_dataset(folder)


def groups() -> dict[str, list[tuple[Sequence[Case], Sequence[int]]]]:
    """What is evaluated: cases, and the values of the objects in them (none: all)."""
    kept = read_config("light").sampling.held_out
    bodies = [read_dataset(DATA / name) for name in BODIES]
    fixtures = [fixture(name) for name in ("ts_aorta", "ts_pulm", "elx_lung", "cip64")]
    return {
        SARCOMAS: [(read_dataset(DATA / "Task20_SoftTissueSarcoma").val, ())],
        HEADS: [(read_dataset(DATA / "Task22_HeadNeck").val, ())],
        FIXTURES: [(fixtures, ())],
        SLAB: [(slab().train, ())],
        HELD_OUT: [
            (body.train + body.val, [v for v, name in body.labels.items() if name in kept])
            for body in bodies
        ],
    }


def by_kind(
    by_object: Mapping[str, Sequence[float]], images: Mapping[str, Path]
) -> dict[str, dict[str, object]]:
    """Mean Dice of each kind of object, by the name of its label or of the file.

    Left and right, ribs and vertebrae are one kind each.

    Args:
        by_object: Dice after each click, by the image's name and the label's value.
        images: by their names.
    """
    kinds: dict[str, list[Sequence[float]]] = {}
    for key, dice in by_object.items():
        image, value = key.split()
        dataset = images[image].parents[1]
        if (dataset / "dataset.json").is_file():
            label = read_dataset(dataset).labels[int(value)]
            name = _ONE_OF_MANY.sub("", label).replace("_", " ")
        else:
            name = image.removesuffix("_image.nii.gz")
        kinds.setdefault(name, []).append(dice)
    return {
        name: {"objects": len(dice), "mean_dice": rounded(np.mean(dice, axis=0))}
        for name, dice in kinds.items()
    }


def rounded(values: Sequence[float]) -> list[float]:
    return np.round(values, 4).tolist()


def main() -> None:
    results = {}
    with cs.load_model() as model:
        engine = {"name": model.engine.name, "precision": model.engine.precision}
        for group, parts in groups().items():
            # On a full-size scan region growing takes ten seconds a click.
            protocol = Protocol(MAX_CLICKS, baseline=group in AIMS)
            found = Evaluation(
                tuple(c for cases, v in parts for c in evaluate(model, cases, protocol, v).cases)
            )
            by_object = {
                f"{Path(case.image).name} {case.label_value}": np.round(case.dice, 3).tolist()
                for case in found.cases
            }
            results[group] = {
                "objects": len(found.cases),
                "aim": AIMS.get(group, {}),
                "mean_dice": rounded(found.mean_dice),
                "mean_surface_dice": rounded(found.mean("surface_dice")),
                "mean_volume_error": rounded(found.mean("volume_error")),
                "region_growing_dice": rounded(found.mean("baseline_dice")),
                "clicks_to": {f"{t:.2f}": round(found.clicks_to(t), 2) for t in TARGETS},
                "failures": {f"{t:.2f}": found.failures(t) for t in TARGETS},
                "median_click_ms": round(found.median_click_ms, 1),
                "by_kind": by_kind(by_object, {c.image.name: c.image for p, _ in parts for c in p}),
                "by_object": by_object,
            }
            print(group, results[group]["mean_dice"], flush=True)
    content = {
        "model_sha256": model.sha256,
        "engine": engine,
        "machine": machine(),
        "groups": results,
    }
    (HERE / "results" / "accuracy.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
