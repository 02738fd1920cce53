"""How the bundled model follows clicks on what it was not trained on, beside region growing.

Writes results/accuracy.json. Reads the real CT beside the checkout (../shared/data).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from machine import machine

import clickseg_infer as cs
from clickseg_train.cases import Case, read_dataset
from clickseg_train.config import read_config
from clickseg_train.evaluate import TARGETS, Evaluation, Protocol, evaluate

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
MAX_CLICKS = 10
HELD_OUT = "organs held out (7, in 2 training bodies)"
BODIES = ("Task21_AbdomenPelvis", "Task23_ChestOrgans")


def fixture(name: str) -> Case:
    folder = DATA / "fixtures"
    return Case(name, folder / f"{name}_image.nii.gz", folder / f"{name}_label.nii.gz")


def groups() -> dict[str, list[tuple[Sequence[Case], Sequence[int]]]]:
    """What is evaluated: cases, and the values of the objects in them (none: all)."""
    kept = read_config("light").sampling.held_out
    bodies = [read_dataset(DATA / name) for name in BODIES]
    fixtures = [fixture(name) for name in ("ts_aorta", "ts_pulm", "elx_lung", "cip64")]
    return {
        "sarcomas (3 validation cases)": [
            (read_dataset(DATA / "Task20_SoftTissueSarcoma").val, ())
        ],
        "head-and-neck organs (6 validation cases)": [
            (read_dataset(DATA / "Task22_HeadNeck").val, ())
        ],
        "aorta, pulmonary artery, lungs (4 fixtures)": [(fixtures, ())],
        HELD_OUT: [
            (body.train + body.val, [v for v, name in body.labels.items() if name in kept])
            for body in bodies
        ],
    }


def rounded(values: Sequence[float]) -> list[float]:
    return np.round(values, 4).tolist()


def main() -> None:
    results = {}
    with cs.load_model() as model:
        engine = {"name": model.engine.name, "precision": model.engine.precision}
        for group, parts in groups().items():
            # On a full-size scan region growing takes ten seconds a click.
            protocol = Protocol(MAX_CLICKS, baseline=group != HELD_OUT)
            found = Evaluation(
                tuple(c for cases, v in parts for c in evaluate(model, cases, protocol, v).cases)
            )
            results[group] = {
                "objects": len(found.cases),
                "mean_dice": rounded(found.mean_dice),
                "mean_surface_dice": rounded(found.mean("surface_dice")),
                "mean_volume_error": rounded(found.mean("volume_error")),
                "region_growing_dice": rounded(found.mean("baseline_dice")),
                "clicks_to": {f"{t:.2f}": round(found.clicks_to(t), 2) for t in TARGETS},
                "failures": {f"{t:.2f}": found.failures(t) for t in TARGETS},
                "median_click_ms": round(found.median_click_ms, 1),
                "by_object": {
                    f"{Path(case.image).name} {case.label_value}": np.round(case.dice, 3).tolist()
                    for case in found.cases
                },
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
