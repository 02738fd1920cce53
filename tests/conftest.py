"""What several tests share: small volumes, a stand-in network, a run that was really trained."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stand_ins import TINY_TOML, bright, make_ball, make_spec, write_dataset_json

import clickseg_infer as cs

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled models that tests leave lie where pytest's files do, never in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLICKSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("real CT is not beside this checkout (../shared/data)")
    return SHARED


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def bright_model() -> cs.Model:
    return cs.Model(make_spec(), cs.FunctionEngine(bright))


@pytest.fixture
def ball_volume() -> cs.Volume:
    """A ball of 100 HU and 25 mm radius in fat, anisotropic; centre at voxel (20, 40, 50)."""
    return make_ball(25.0)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Decathlon folder of three small phantoms."""
    from clickseg_train.phantom import phantom

    folder = tmp_path_factory.mktemp("phantoms")
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir()
    names = [f"case_{n}" for n in range(3)]
    for n, name in enumerate(names):
        case = phantom(n, shape=(40, 64, 64))
        cs.write_volume(folder / "imagesTr" / f"{name}.nii.gz", case.volume)
        cs.write_mask(folder / "labelsTr" / f"{name}.nii.gz", case.label, like=case.volume)
    write_dataset_json(folder, names)
    return folder


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(TINY_TOML)
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(
    phantoms: Path, tiny_config: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The checkpoint of a run of four steps."""
    from clickseg_train.cases import read_dataset
    from clickseg_train.config import read_config
    from clickseg_train.train import train

    out = tmp_path_factory.mktemp("run") / "tiny"
    return train([read_dataset(phantoms)], out, read_config(tiny_config))


@pytest.fixture(scope="session")
def tiny_onnx(tiny_checkpoint: Path) -> Path:
    """That run, exported, without what f-BRS needs."""
    from clickseg_export.export_model import CheckpointOptions, export_model

    path = tiny_checkpoint.parent / "tiny.onnx"
    export_model(tiny_checkpoint, path, CheckpointOptions(heads=False))
    return path


@pytest.fixture(scope="session")
def tiny_refinable(tiny_checkpoint: Path) -> Path:
    """That run, exported with its heads."""
    from clickseg_export.export_model import export_model

    path = tiny_checkpoint.parent / "refinable.onnx"
    export_model(tiny_checkpoint, path)
    return path
