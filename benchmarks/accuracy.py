"""Dice by click of the bundled model on cases that it was not trained on.

Writes results/accuracy.json. Reads the real CT beside the checkout (../shared/data).
"""

import json
from pathlib import Path

import numpy as np
from machine import machine

import clickseg_infer as cs
from clickseg_infer.model import DEFAULT_MODEL
from clickseg_train.cases import Case, read_dataset
from clickseg_train.evaluate import TARGETS, evaluate

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
MAX_CLICKS = 10


def fixture(name: str) -> Case:
    folder = DATA / "fixtures"
    return Case(name, folder / f"{name}_image.nii.gz", folder / f"{name}_label.nii.gz")


def main() -> None:
    groups = {
        "sarcomas (3 validation cases)": read_dataset(DATA / "Task20_SoftTissueSarcoma").val,
        "head-and-neck organs (6 validation cases)": read_dataset(DATA / "Task22_HeadNeck").val,
        "aorta, pulmonary artery, lungs (4 fixtures)": tuple(
            fixture(name) for name in ("ts_aorta", "ts_pulm", "elx_lung", "cip64")
        ),
    }
    results = {}
    with cs.load_model() as model:
        engine = {"name": model.engine.name, "precision": model.engine.precision}
        for group, cases in groups.items():
            found = evaluate(model, cases, MAX_CLICKS)
            results[group] = {
                "objects": len(found.cases),
                "mean_dice": [round(value, 4) for value in found.mean_dice],
                "clicks_to": {f"{t:.2f}": round(found.clicks_to(t), 2) for t in TARGETS},
                "failures": {f"{t:.2f}": found.failures(t) for t in TARGETS},
                "median_click_ms": round(found.median_click_ms, 1),
                "by_object": {
                    f"{Path(case.image).name} {case.label_value}": np.round(case.dice, 3).tolist()
                    for case in found.cases
                },
            }
            print(group, results[group]["mean_dice"], flush=True)
    import hashlib

    digest = hashlib.sha256(DEFAULT_MODEL.read_bytes()).hexdigest()
    content = {"model_sha256": digest, "engine": engine, "machine": machine(), "groups": results}
    (HERE / "results" / "accuracy.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
