import sys
from pathlib import Path

import numpy as np
import pytest

import clickseg_infer as cs
from clickseg_infer import engines
from clickseg_infer.model import read_model_file


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
    for name in engines.NAMES:
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
    for name in engines.NAMES:
        with cs.load_model(engine=name, precision="float32") as model:
            answers.append(model.engine.run(example_batch(model.spec)[:1]))
    assert np.abs(answers[0] - answers[1]).max() <= allowed_difference(answers[0])


def test_bfloat16_is_close_where_the_cpu_has_it(tiny_onnx: Path, batch: np.ndarray) -> None:
    if "bfloat16" not in engines.precisions("openvino"):
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


def test_auto_takes_the_best_that_is_installed(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cs.load_model(tiny_onnx) as model:
        assert model.engine.name == engines.available()[0] == "openvino"
        assert model.engine.precision == engines.precisions("openvino")[0]
    monkeypatch.setattr(engines, "available", lambda: ("onnxruntime",))
    with cs.load_model(tiny_onnx) as model:
        assert model.engine.name == "onnxruntime"
    with pytest.raises(cs.EngineError, match="'openvino' is not installed"):
        cs.load_model(tiny_onnx, engine="openvino")
    monkeypatch.setattr(engines, "available", lambda: ())
    with pytest.raises(cs.EngineError, match="no engine is installed"):
        cs.load_model(tiny_onnx)


def test_auto_passes_over_an_engine_that_cannot_be_imported(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "clickseg_infer.engines.openvino_cpu", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(engines, "available", lambda: engines.NAMES)
    with cs.load_model(tiny_onnx) as model:
        assert model.engine.name == "onnxruntime"
    with pytest.raises(cs.EngineError, match="cannot be imported"):
        cs.load_model(tiny_onnx, engine="openvino")


def test_what_cannot_run_is_an_error_never_a_fallback(tiny_onnx: Path) -> None:
    with pytest.raises(cs.EngineError, match="unknown engine 'cuda'"):
        cs.load_model(tiny_onnx, engine="cuda")
    with pytest.raises(cs.EngineError, match="unknown precision"):
        cs.load_model(tiny_onnx, precision="float8")
    with pytest.raises(cs.EngineError, match="float32 here, not bfloat16"):
        cs.load_model(tiny_onnx, engine="onnxruntime", precision="bfloat16")


@pytest.mark.parametrize("name", engines.NAMES)
def test_engine_failures_are_ours(name: str, tiny_onnx: Path, batch: np.ndarray) -> None:
    _, content = read_model_file(tiny_onnx)
    with pytest.raises(cs.EngineError, match="cannot compile"):
        cs.open_engine(content[: len(content) // 2], (32, 32, 32), name)
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
