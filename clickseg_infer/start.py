"""Open a scan and a model at the same time, so that the first click need not wait for either."""

import importlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.files import PathLike, read_volume
from clickseg_infer.model import Model, load_model
from clickseg_infer.volume import Volume


def open_scan(
    image: PathLike,
    model: PathLike | None = None,
    *,
    engine: str = "auto",
    precision: str = "auto",
    refine: str = "none",
) -> tuple[Volume, Model]:
    """Read a scan while a thread loads a model and everything else that a first click needs.

    Args:
        image: as for `read_volume`.
        model: as for `load_model`.
        engine: likewise.
        precision: likewise.
        refine: likewise.

    Returns:
        The volume, and the model, which is the caller's to close.

    Raises:
        FileError, VolumeError: as `read_volume`.
        FileError, ModelError, EngineError: as `load_model`, if the scan can be read.
    """
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(
            load_ready_model, model, engine=engine, precision=precision, refine=refine
        )
        try:
            volume = read_volume(image)
        except BaseException:
            if loading.exception() is None:
                loading.result().close()
            raise
        return volume, loading.result()


def load_ready_model(
    path: PathLike | None = None,
    *,
    engine: str = "auto",
    precision: str = "auto",
    refine: str = "none",
) -> Model:
    """Load a model and everything else that a first click needs.

    Raises:
        FileError, ModelError, EngineError: as `load_model`.
    """
    model = load_model(path, engine=engine, precision=precision, refine=refine)
    try:
        _load_kernels(model)
        if model.refiner is not None:
            importlib.import_module("scipy.optimize")
    except BaseException:
        model.close()
        raise
    return model


def _load_kernels(model: Model) -> None:
    """Have Numba load what it compiled earlier, by clicks on a volume of next to nothing."""
    from clickseg_infer.clicks import Click
    from clickseg_infer.distances import take_back_beyond
    from clickseg_infer.engines.function import FunctionEngine
    from clickseg_infer.predicting import predict
    from clickseg_infer.resample import network_grid, values_back
    from clickseg_infer.structures import CHANCES, IMAGE, Structures

    _import_numba_without_blas()

    def everywhere(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full((len(batch), 1, *batch.shape[2:]), 100, np.float32)

    def undecided(inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        cells = [n // 4 for n in inputs[IMAGE].shape[2:]]  # kernels take cells of any size
        return {CHANCES: np.full((1, 2, *cells), 0.5, np.float32)}

    engine = FunctionEngine(everywhere, graph=undecided)
    structures = None if model.structures is None else Structures(engine)
    stand_in = Model(replace(model.spec, patch_size=(32, 32, 32)), engine, structures=structures)
    volume = Volume(np.zeros((8, 8, 8), np.int16), np.eye(4))
    predict(stand_in, volume, [Click((4, 4, 4), True), Click((1, 1, 1), False)])
    # What only later clicks need.
    mask = np.zeros((1, 1, 1), np.uint8)
    box, place = ((0, 1), (0, 1), (0, 1)), (0, 0, 0)
    take_back_beyond(mask, mask.copy(), box, volume.spacing_mm, place, [place], 1.0)
    grid = network_grid(volume.shape, volume.spacing_mm, volume.spacing_mm)
    values_back(np.zeros((1, 1, 1), np.float32), place, grid, box, (0, 1))


def _import_numba_without_blas() -> None:
    """Spare SciPy's BLAS, a fifth of a second and 16 MB, which Numba imports to see it is there.

    What needs it, a product of matrices in somebody's own Numba code, still imports it.
    """
    with suppress(ImportError, AttributeError):  # a Numba that is arranged differently
        from numba.np import linalg

        look_for_blas = linalg.ensure_blas
        linalg.ensure_blas = lambda: None
        try:
            importlib.import_module("numba.np.arraymath")
        finally:
            linalg.ensure_blas = look_for_blas
