"""What only an NVIDIA GPU can show: that every engine on it computes what torch computes."""

import importlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clickseg_export.graph_precision import to_float16
from clickseg_export.onnx_weights import read_initial
from clickseg_export.parity import allowed_difference, example_batch
from clickseg_export.tensorrt_plan import PlanOptions, export_plan

import clickseg_infer as cs
from clickseg_infer.engines import NAMES, ON_GPU
from clickseg_infer.engines.nvidia import find_gpu
from clickseg_infer.engines.plan_builder import PACKAGES, capabilities_of
from clickseg_infer.model import DEFAULT_MODEL, read_model_file
from clickseg_train.cases import read_dataset
from clickseg_train.config import read_config
from clickseg_train.networks import build_network
from clickseg_train.train import train

pytestmark = pytest.mark.gpu

PLANS = tuple(PACKAGES)
CUDA = "onnxruntime-cuda"


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    try:
        find_gpu()
    except cs.EngineError as error:
        pytest.skip(str(error))
    if not torch.cuda.is_available():
        pytest.skip("torch is the build for CPUs")


def needed(name: str) -> None:
    """Skip, with the reason, a test of an engine that this machine has not."""
    package = PACKAGES.get(name, "onnxruntime")
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    if name == "tensorrt-rtx" and find_gpu().compute_capability not in capabilities_of(name):
        pytest.skip(f"tensorrt-rtx does not know {find_gpu().compute_capability}")
    if name == CUDA:
        runtime = importlib.import_module("onnxruntime")
        if "CUDAExecutionProvider" not in runtime.get_available_providers():
            pytest.skip("onnxruntime is the build for CPUs")


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    spec, _ = read_model_file(DEFAULT_MODEL)
    two = example_batch(spec)
    return np.concatenate([two, two[::-1], two[:1]])  # more than a plan takes at once


@pytest.fixture(scope="module")
def expected(batch: np.ndarray) -> np.ndarray:
    """Torch on the GPU, in float32."""
    config = read_config("light")
    network = build_network(config.network, batch.shape[1])
    network.load_state_dict(read_initial(DEFAULT_MODEL, config)[0])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        return network.eval().cuda()(torch.from_numpy(batch).cuda()).cpu().numpy()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    paths = {precision: folder / f"{precision}.onnx" for precision in ("float32", "float16")}
    paths["float32"].write_bytes(DEFAULT_MODEL.read_bytes())
    paths["float16"].write_bytes(to_float16(*read_model_file(DEFAULT_MODEL))[1])
    return paths


@pytest.mark.parametrize("name", [*PLANS, CUDA])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_every_engine_computes_what_torch_computes(
    name: str,
    precision: str,
    models: dict[str, Path],
    batch: np.ndarray,
    expected: np.ndarray,
) -> None:
    needed(name)
    if name in PLANS:
        export_plan(models[precision], PlanOptions(name, batch=2))
    with cs.load_model(models[precision], engine=name) as model:
        assert (model.engine.name, model.engine.precision) == (name, precision)
        if name == CUDA:
            ran: Any = model.engine
            assert ran._session.get_providers()[0] == "CUDAExecutionProvider"
        logits = model.engine.run(batch)
        assert np.array_equal(model.engine.run(batch[:1]), model.engine.run(batch[:1]))
        assert np.abs(model.engine.run(batch[3:]) - logits[3:]).max() < 1e-2  # buffers are kept
    assert logits.dtype == np.float32
    difference = np.abs(logits - expected)
    if precision == "float32":
        assert difference.max() <= 10 * allowed_difference(expected)
    else:
        assert 0 < difference.max() < 0.1
        assert np.mean((logits > 0) != (expected > 0)) < 1e-4


def test_the_ladder_falls_as_it_says(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rung that is there answers once those above it are gone."""
    removed: set[str] = set()
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in removed else real(name, *rest),
    )
    there = [name for name in ON_GPU if runs(name)]
    for name in there:
        if name in PLANS:
            export_plan(models["float32"], PlanOptions(name))
        with cs.load_model(models["float32"]) as model:
            assert model.engine.name == name
            assert tuple(model.passed_over) == NAMES[: NAMES.index(name)]
        removed.add(PACKAGES.get(name, "onnxruntime"))
    with cs.load_model(models["float32"]) as model:
        assert model.engine.name == "openvino"
        assert all("not installed" in model.passed_over[name] for name in there)


def runs(name: str) -> bool:
    try:
        needed(name)
    except pytest.skip.Exception:
        return False
    return True


@pytest.mark.parametrize("name", PLANS)
def test_a_click_on_a_plan_gives_the_cpus_mask(name: str, models: dict[str, Path]) -> None:
    needed(name)
    from stand_ins import make_ball

    masks = []
    for engine in (name, "openvino"):
        with cs.load_model(models["float32"], engine=engine, precision="float32") as model:
            masks.append(cs.Session(model, make_ball(25.0)).click((20, 40, 50)))
    assert cs.dice(*masks) > 0.999


@pytest.mark.parametrize("name", PLANS)
def test_closing_gives_the_memory_back(name: str, models: dict[str, Path]) -> None:
    needed(name)
    from cuda.bindings import runtime

    def free() -> int:
        return int(runtime.cudaMemGetInfo()[1])

    batch = example_batch(read_model_file(DEFAULT_MODEL)[0])
    left = []
    for _ in range(4):
        with cs.load_model(models["float32"], engine=name) as model:
            model.engine.run(batch)
        left.append(free())
    assert left[-1] >= left[1] - (1 << 20)


@pytest.mark.parametrize("by", ["clicks", "sliding_window"])
def test_training_validates_on_the_card(
    by: str, phantoms: Path, tiny_config: Path, tmp_path: Path
) -> None:
    dataset = read_dataset(phantoms)
    one = replace(dataset, train=dataset.train[:1], val=dataset.train[1:2])
    settings = replace(
        read_config(tiny_config), steps=2, validate_every=2, validate_by=by, validate_clicks=1
    )
    reports: list[Any] = []
    train([one], tmp_path / "run", settings, device="cuda", report=reports.append)
    assert reports[-1].step == 2
    assert all(0 <= dice <= 1 for dice in reports[-1].mean_dice)
