"""What do 16 or 8 bits cost? The same simulated user clicks with both models.

With the clicking networks alone: what tells structures apart keeps its bits.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickseg_export.parity import CHECKED_BY
from clickseg_infer.engines import Network, open_engine
from clickseg_infer.engines.function import FunctionEngine
from clickseg_infer.errors import DatasetError
from clickseg_infer.model import Model
from clickseg_infer.model_spec import ModelSpec, PrecisionCheck
from clickseg_train.cases import Case, Dataset, load_case, read_dataset
from clickseg_train.evaluate import ObjectResult, Protocol, evaluate

_CLICKS = 5
_CALIBRATION_CLICKS = 3
_CALIBRATION_CASES = 6  # of each dataset
_CALIBRATION_OBJECTS = 10  # of each case
_CALIBRATION_PATCHES = 128


def check_precision(
    before: tuple[ModelSpec, bytes],
    after: tuple[ModelSpec, bytes],
    datasets: Sequence[Path],
    report: Callable[[ObjectResult], None] = lambda _: None,
) -> PrecisionCheck:
    """Mean Dice over the objects of the validation cases, with each of two models.

    Args:
        before: spec and file of the float32 model.
        after: spec and file of the model that was made of it.
        datasets: Decathlon folders.
        report: called after each object of each model.

    Raises:
        DatasetError, FileError: the folders have no validation cases, or cannot be read.
        EngineError: the engine is not there.
    """
    cases = [case for dataset in _read(datasets, "val") for case in _labelled(dataset.val)]
    means = []
    for spec, content in (before, after):
        with _opened(spec, content, CHECKED_BY[after[0].precision]) as model:
            found = evaluate(model, cases, Protocol(_CLICKS, surfaces=False), report=report)
        means.append(found.mean_dice[-1])
    return PrecisionCheck(len(found.cases), _CLICKS, *means)


def calibration_patches(
    spec: ModelSpec, content: bytes, datasets: Sequence[Path]
) -> list[NDArray[np.float32]]:
    """Network inputs (1, C, z, y, x) as clicks on training cases make them.

    Every dataset gives as many. None is of a validation case, on which the result is judged.

    Raises:
        DatasetError, FileError: the folders have no training cases, or cannot be read.
        EngineError: the engine is not there.
    """
    seen: list[NDArray[np.float32]] = []
    chosen: list[NDArray[np.float32]] = []
    known = _read(datasets, "train")
    rng = np.random.default_rng(0)
    with _opened(spec, content, CHECKED_BY["int8"]) as model:

        def watched(batch: NDArray[np.float32]) -> NDArray[np.float32]:
            seen.extend(patch[None].copy() for patch in batch)
            return model.engine.run(batch)

        watching = Model(spec, FunctionEngine(watched))
        protocol = Protocol(_CALIBRATION_CLICKS, surfaces=False)
        for dataset in known:
            seen.clear()
            for case in _some(_labelled(dataset.train), _CALIBRATION_CASES):
                objects = [found.value for found in load_case(case).objects]
                evaluate(watching, [case], protocol, _some(objects, _CALIBRATION_OBJECTS))
            share = rng.permutation(len(seen))[: _CALIBRATION_PATCHES // len(known)]
            chosen += [seen[n] for n in share]
    return chosen


@contextmanager
def _opened(spec: ModelSpec, content: bytes, engine: str) -> Iterator[Model]:
    network = Network(content, spec.patch_size, spec.precision)
    with Model(spec, open_engine(network, engine, spec.precision)) as model:
        yield model


def _read(folders: Sequence[Path], split: str) -> list[Dataset]:
    """The datasets that have labelled cases in a split."""
    known = [read_dataset(folder) for folder in folders]
    found = [dataset for dataset in known if _labelled(getattr(dataset, split))]
    if not found:
        names = ", ".join(str(folder) for folder in folders)
        raise DatasetError(f"{names}: the split {split!r} has no labelled cases")
    return found


def _labelled(cases: Sequence[Case]) -> list[Case]:
    return [case for case in cases if case.label]


def _some(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many, evenly spaced."""
    return list(values[:: -(-len(values) // most)] if values else ())
