import importlib
import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import clickseg_infer as cs
from clickseg_infer import engines
from clickseg_infer.engines import (
    ON_GPU,
    Network,
    onnxruntime_any,
    plan_builder,
    tensorrt_gpu,
)
from clickseg_infer.engines.nvidia import Gpu
from clickseg_infer.model import (
    read_model_file,
    read_network,
)

ON_CPU = ("openvino", "onnxruntime")


@pytest.fixture
def batch(tiny_onnx: Path) -> np.ndarray:
    from clickseg_export.parity import example_batch

    return example_batch(read_model_file(tiny_onnx)[0])


def test_torch_and_every_engine_agree(
    tiny_onnx: Path, tiny_checkpoint: Path, batch: np.ndarray
) -> None:
    import torch
    from clickseg_export.onnx_file import network_of

    from clickseg_train.checkpoint import read_checkpoint

    before = batch.copy()
    with torch.no_grad():
        expected = network_of(read_checkpoint(tiny_checkpoint))(torch.from_numpy(batch)).numpy()
    for name in ON_CPU:
        with cs.load_model(tiny_onnx, engine=name, precision="float32") as model:
            logits = model.engine.run(batch)
            assert (model.engine.name, model.engine.precision) == (name, "float32")
            assert logits.shape == (2, 1, 32, 32, 32)
            assert logits.dtype == np.float32
            assert np.abs(logits - expected).max() <= 1e-4, name
            assert np.array_equal(model.engine.run(batch), logits)
    assert np.array_equal(batch, before)
    assert expected.std() > 1e-3


def test_the_bundled_model_agrees_between_engines() -> None:
    from clickseg_export.parity import allowed_difference, example_batch

    answers = []
    for name in ON_CPU:
        with cs.load_model(engine=name, precision="float32") as model:
            answers.append(model.engine.run(example_batch(model.spec)[:1]))
    assert np.abs(answers[0] - answers[1]).max() <= allowed_difference(answers[0])


def test_bfloat16_is_close_where_the_cpu_has_it(tiny_onnx: Path, batch: np.ndarray) -> None:
    if "bfloat16" not in engines.precisions("openvino", read_network(tiny_onnx)[1]):
        with pytest.raises(cs.EngineError, match="bfloat16"):
            cs.load_model(tiny_onnx, engine="openvino", precision="bfloat16")
        return
    answers = {}
    for precision in ("float32", "bfloat16"):
        with cs.load_model(tiny_onnx, engine="openvino", precision=precision) as model:
            assert model.engine.precision == precision
            answers[precision] = model.engine.run(batch)
    difference = np.abs(answers["float32"] - answers["bfloat16"])
    assert 0 < difference.max() < 0.1 * np.ptp(answers["float32"])


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_gpu() -> None:
        raise cs.EngineError("no NVIDIA GPU: test")

    for module in (engines, tensorrt_gpu, plan_builder):
        monkeypatch.setattr(module, "find_gpu", find_gpu)


def missing(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let these packages not be installed."""
    real = importlib.util.find_spec

    def find_spec(name: str, *rest: str) -> object:
        return None if name in packages else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_auto_climbs_down_and_says_why(
    tiny_onnx: Path, no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = read_network(tiny_onnx)[1]
    with cs.load_model(tiny_onnx) as model:
        assert model.engine.name == "openvino"
        assert model.engine.precision == engines.precisions("openvino", network)[0]
        assert list(model.passed_over) == list(ON_GPU)
        assert set(model.passed_over.values()) == {"no NVIDIA GPU: test"}
    assert engines.available(network) == ON_CPU
    missing(monkeypatch, "openvino")
    with cs.load_model(tiny_onnx) as model:
        assert model.engine.name == "onnxruntime"
        assert "not installed" in model.passed_over["openvino"]
    with pytest.raises(cs.EngineError, match="'openvino' is not installed"):
        cs.load_model(tiny_onnx, engine="openvino")
    missing(monkeypatch, "tensorrt", "tensorrt_rtx", "openvino", "onnxruntime")
    monkeypatch.setattr(engines, "find_gpu", lambda: Gpu("NVIDIA Test", "SM89"))
    with pytest.raises(cs.EngineError, match=r"no engine .*clickseg\[trt\].*clickseg\[cpu\]"):
        cs.load_model(tiny_onnx)


def test_a_named_engine_is_not_replaced(tiny_onnx: Path, no_gpu: None) -> None:
    for name in ("tensorrt-rtx", "onnxruntime-cuda"):
        with pytest.raises(cs.EngineError, match="no NVIDIA GPU: test"):
            cs.load_model(tiny_onnx, engine=name)


def test_auto_passes_over_an_engine_that_cannot_be_imported(
    tiny_onnx: Path, no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec("openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: spec)
    with cs.load_model(tiny_onnx) as model:
        assert model.engine.name == "onnxruntime"
        assert "cannot be imported" in model.passed_over["openvino"]
    with pytest.raises(cs.EngineError, match="cannot be imported"):
        cs.load_model(tiny_onnx, engine="openvino")


def test_a_precision_passes_over_engines_that_lack_it(tiny_onnx: Path, no_gpu: None) -> None:
    with cs.load_model(tiny_onnx, precision="float32") as model:
        assert (model.engine.name, model.engine.precision) == ("openvino", "float32")
    with pytest.raises(cs.EngineError, match="not float16"):
        cs.load_model(tiny_onnx, precision="float16")


class OnnxRuntime(types.ModuleType):
    """onnxruntime, as a wheel for GPUs is: with CUDA among its providers, and falling back."""

    SessionOptions = types.SimpleNamespace

    def __init__(self, available: tuple[str, ...], ran: str) -> None:
        super().__init__("onnxruntime")
        self.available, self.ran, self.asked = available, ran, [("", {})]
        self.loaded = False

    def preload_dlls(self) -> None:
        print("what it cannot load")
        self.loaded = True

    def get_available_providers(self) -> tuple[str, ...]:
        return self.available

    def InferenceSession(  # noqa: N802
        self,
        content: bytes,
        options: object,
        providers: list[tuple[str, dict]],
        enable_fallback: int = 1,
    ) -> "OnnxRuntime":
        assert not enable_fallback  # or it runs on the CPU when CUDA fails, and prints
        self.asked = providers
        return self

    def get_providers(self) -> list[str]:
        return [self.ran, "CPUExecutionProvider"]

    def get_inputs(self) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(name="input", shape=["batch", 5, 32, 32, 32])]

    def get_outputs(self) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(name="logits"), types.SimpleNamespace(name="further")]

    def run(self, wanted: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert wanted == ["logits"]
        return [feed["input"][:, :1]]


CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("available", "ran", "reason"),
    [
        ((CUDA, CPU), CUDA, ""),
        ((CUDA, CPU), CPU, "fell back to CPUExecutionProvider"),
        ((CPU,), CPU, r"the build for CPUs: pip install 'clickseg\[gpu\]'"),
    ],
)
def test_what_onnxruntime_really_runs_is_looked_at(
    available: tuple[str, ...],
    ran: str,
    reason: str,
    tiny_onnx: Path,
    batch: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    runtime = OnnxRuntime(available, ran)
    monkeypatch.setattr(importlib, "import_module", lambda _: runtime)
    network = read_network(tiny_onnx)[1]
    if reason:
        with pytest.raises(cs.EngineError, match=reason):
            onnxruntime_any.open_network("onnxruntime-cuda", network, "auto", asked=True)
        return
    engine = onnxruntime_any.open_network("onnxruntime-cuda", network, "float32", asked=True)
    assert (engine.name, engine.precision) == ("onnxruntime-cuda", "float32")
    assert np.array_equal(engine.run(batch), batch[:, :1])
    assert runtime.loaded
    assert capfd.readouterr().out == ""
    assert runtime.asked == [(CUDA, {"use_tf32": "0"})]


def test_two_distributions_of_onnxruntime_get_a_line_that_mends_it(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert onnxruntime_any.double_installation() == ""
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1.30")
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in onnxruntime_any.double_installation()
    rest = types.ModuleType("onnxruntime")  # what is left of it is a folder
    rest.__spec__ = importlib.machinery.ModuleSpec("onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", rest)
    with pytest.raises(cs.EngineError, match=r"InferenceSession.*both installed.*pip uninstall"):
        cs.load_model(tiny_onnx, engine="onnxruntime")


def test_what_cannot_run_is_an_error_never_a_fallback(tiny_onnx: Path) -> None:
    with pytest.raises(cs.EngineError, match="unknown engine 'cuda'"):
        cs.load_model(tiny_onnx, engine="cuda")
    with pytest.raises(cs.EngineError, match="unknown precision"):
        cs.load_model(tiny_onnx, precision="float8")
    with pytest.raises(cs.EngineError, match="in float32, not bfloat16"):
        cs.load_model(tiny_onnx, engine="onnxruntime", precision="bfloat16")


@pytest.mark.parametrize("name", ON_CPU)
def test_engine_failures_are_ours(name: str, tiny_onnx: Path, batch: np.ndarray) -> None:
    _, content = read_model_file(tiny_onnx)
    with pytest.raises(cs.EngineError, match="cannot compile"):
        cs.open_engine(Network(content[: len(content) // 2], (32, 32, 32)), name)
    model = cs.load_model(tiny_onnx, engine=name)
    with pytest.raises(cs.EngineError, match="failed"):
        model.engine.run(batch[:, :2])
    model.close()
    with pytest.raises(cs.EngineError, match="closed"):
        model.engine.run(batch)


def test_an_engine_that_is_not_asked_for_is_not_imported(tiny_onnx: Path) -> None:
    import subprocess

    code = (
        "import sys, clickseg_infer as cs; "
        f"cs.load_model({str(tiny_onnx)!r}, engine='onnxruntime'); "
        "sys.exit('openvino' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
