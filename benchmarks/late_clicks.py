"""Teach the bundled judges of late clicks: clickseg_infer/models/late_clicks.npz.

Clicks through what the bundled model was taught, but for the structures that were held out.
"""

from collections.abc import Iterator

import numpy as np
from light_data import folders
from light_data import main as lay_out
from numpy.typing import NDArray

import clickseg_infer as cs
from clickseg_infer.judging import JUDGES
from clickseg_infer.volume import Volume
from clickseg_train.cases import load_case, read_dataset
from clickseg_train.config import read_config
from clickseg_train.late_clicks import joined, learn, record, save

OBJECTS = 100
"""Of each data set, at most; its cases come in random order."""
CLICKS, SEED = 10, 12


def objects(rng: np.random.Generator) -> Iterator[tuple[Volume, NDArray[np.bool_]]]:
    """Scans and objects in them."""
    held_out = read_config("light").sampling.held_out
    for folder in folders():
        dataset, left = read_dataset(folder), OBJECTS
        if "Phantom" in dataset.name:
            continue
        cases = [case for case in dataset.train if case.label]
        for number in rng.permutation(len(cases)):
            if not left:
                break
            loaded = load_case(cases[number])
            for found in loaded.objects:
                if left and dataset.labels.get(found.value) not in held_out:
                    left -= 1
                    yield loaded.volume, loaded.label == found.value


def main() -> None:
    lay_out()
    rng = np.random.default_rng(SEED)
    seen = []
    with cs.load_model() as model:
        for number, (volume, truth) in enumerate(objects(rng), start=1):
            seen.append(record(model, volume, truth, CLICKS, rng))
            if number % 20 == 0:
                print(number, "objects", flush=True)
    save({on: learn(joined(part[on] for part in seen), SEED) for on in (True, False)}, JUDGES)


if __name__ == "__main__":
    main()
