"""What 16 and 8 bits cost the bundled model, and what they gain on a CPU.

Writes results/precision.json: mean Dice on the validation cases beside float32's, by
`clickseg export`'s own check, and one patch through each of OpenVINO's precisions, interleaved.
Reads the real CT beside the checkout (../shared/data).
"""

from functools import partial
from pathlib import Path
from typing import Any

from clickseg_export.graph_precision import to_float16, to_int8
from clickseg_export.parity import CHECKED_BY, compare_models, example_batch
from clickseg_export.precision_check import calibration_patches, check_precision
from contest import contest, write

from clickseg_infer.engines import Network, open_engine, precisions
from clickseg_infer.model import DEFAULT_MODEL, read_model_file
from clickseg_infer.model_spec import ModelSpec

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
DATASETS = [
    DATA / "Task20_SoftTissueSarcoma",
    DATA / "Task21_AbdomenPelvis",
    DATA / "Task22_HeadNeck",
    DATA / "Task23_ChestOrgans",
]


def main() -> None:
    before = read_model_file(DEFAULT_MODEL)
    patches = calibration_patches(*before, DATASETS)
    models = {"float16": to_float16(*before), "int8": to_int8(*before, patches)}
    rows = {}
    for name, after in models.items():
        check = check_precision(before, after, DATASETS)
        agreement = compare_models(before, after)
        rows[name] = {
            "engine": CHECKED_BY[name],
            "objects": check.objects,
            "clicks": check.clicks,
            "dice": round(check.dice, 4),
            "dice_float32": round(check.float32, 4),
            "drop": round(check.drop, 4),
            "largest_logit_difference": round(agreement.largest, 4),
            "mib": round(len(after[1]) / 2**20, 1),
        }
        print(name, rows[name], flush=True)
    speed = timed(before, models["int8"])
    names = [folder.name for folder in DATASETS]
    content = {"datasets": names, "precisions": rows, "openvino": speed}
    write("precision", content)


def timed(plain: tuple[ModelSpec, bytes], quantised: tuple[ModelSpec, bytes]) -> dict[str, Any]:
    engines, batch = {}, example_batch(plain[0])[:1]
    for spec, content in (plain, quantised):
        network = Network(content, spec.patch_size, spec.precision)
        for precision in precisions("openvino", network):
            engines[precision] = open_engine(network, "openvino", precision)
    runs = {name: partial(engine.run, batch) for name, engine in engines.items()}
    return contest(runs, rounds=25)


if __name__ == "__main__":
    main()
