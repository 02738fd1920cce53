"""What the cues, the previous mask and each source of objects are worth: short trainings, compared.

Every row is one training from nothing of the bundled model's network with the same seed and the
same few steps, on 48^3 patches, judged by the simulated user on validation cases. Writes
results/ablation.json. One run each, so differences of a few hundredths mean nothing.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import light_data
import numpy as np
from machine import machine

from clickseg_train.cases import read_dataset
from clickseg_train.checkpoint import read_checkpoint
from clickseg_train.config import TrainConfig, read_config
from clickseg_train.evaluate import Protocol, click_object, load_case
from clickseg_train.networks import build_network
from clickseg_train.objects import KINDS
from clickseg_train.train import train
from clickseg_train.validate import torch_model

HERE = Path(__file__).resolve().parent
CUES = ("geodesic_positive", "geodesic_negative", "intensity_difference")
CLICKS = 5
LAST = 0.4  # of the steps, over which training Dice is averaged


def without(*channels: str) -> Callable[[TrainConfig], TrainConfig]:
    def change(config: TrainConfig) -> TrainConfig:
        kept = tuple(c for c in config.model.click_channels if c not in channels)
        return replace(config, model=replace(config.model, click_channels=kept))

    return change


def only(kind: str) -> Callable[[TrainConfig], TrainConfig]:
    def change(config: TrainConfig) -> TrainConfig:
        shares = {name: float(name == kind) for name in KINDS}
        return replace(config, sampling=replace(config.sampling, **shares))

    return change


VARIANTS: dict[str, Callable[[TrainConfig], TrainConfig]] = {
    "everything": lambda config: config,
    "without the cues": without(*CUES),
    "without the previous mask": without("previous"),
    **{f"only {kind}": only(kind) for kind in KINDS},
}


def settings(steps: int) -> TrainConfig:
    light = read_config("light")
    small = replace(light.model, patch_size=(64, 64, 64), spacing_mm=(2.0, 2.0, 2.0))
    return replace(
        light,
        steps=steps,
        warm_up=steps // 10,
        settle=0.3,
        autocast="float32",
        patch_size=(48, 48, 48),
        ema=0.99,
        picture_every=0,
        model=small,
    )


def measure(config: TrainConfig, cache: Path) -> dict[str, object]:
    """Dice by click, in training and on the validation cases, after one training."""
    datasets = [read_dataset(folder) for folder in light_data.folders()]
    with tempfile.TemporaryDirectory() as folder:
        path = train(datasets, Path(folder) / "run", config, cache=cache)
        log = [json.loads(line) for line in (path.parent / "log.jsonl").read_text().splitlines()]
        average = read_checkpoint(path).average
    late = [found for line in log[-int(LAST * len(log)) :] for found in line["objects"]]
    network = build_network(config.network, len(config.model.spec().channels))
    network.load_state_dict(average)
    model = torch_model(network, config)
    scores = []
    for dataset, count in ((datasets[0], 3), (datasets[2], 1)):  # tumours, head and neck
        for case in dataset.val[:count]:
            loaded = load_case(case)
            for found in loaded.objects:
                truth = loaded.label == found.value
                protocol = Protocol(CLICKS, surfaces=False)
                scores.append(click_object(model, loaded.volume, truth, protocol)["dice"])
    return {
        "training_dice": {
            str(n): round(float(np.mean([d for _, clicks, d in late if clicks == n])), 3)
            for n in (1, 3, 5)
        },
        "validation_dice": np.round(np.mean(scores, axis=0), 3).tolist(),
        "objects": len(scores),
    }


def main(steps: int = 300) -> None:
    light_data.main()
    rows = {}
    for name, change in VARIANTS.items():
        rows[name] = measure(change(settings(steps)), light_data.OUT / "cases")
        print(name, rows[name], flush=True)
    content = {"steps": steps, "machine": machine(), "variants": rows}
    (HERE / "results" / "ablation.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    main(parser.parse_args().steps)
