import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from clickseg_export import onnx_file, parity
from clickseg_export.export_model import CheckpointOptions, export_model
from clickseg_export.onnx_file import folded, network_of
from clickseg_export.onnx_weights import read_initial
from torch import nn

import clickseg_infer as cs
from clickseg_infer.model import DEFAULT_MODEL, read_model_file
from clickseg_train.checkpoint import read_checkpoint, write_checkpoint
from clickseg_train.config import read_config
from clickseg_train.networks import build_network

ROOT = Path(__file__).resolve().parents[2]

NO_HEADS = CheckpointOptions(heads=False)


def test_folding_changes_nothing_but_the_layers(tiny_checkpoint: Path) -> None:
    network = network_of(read_checkpoint(tiny_checkpoint))
    for module in network.modules():  # statistics that folding could get wrong
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    plain = folded(network)
    assert not any(isinstance(m, nn.BatchNorm3d) for m in plain.modules())
    x = torch.randn(1, 7, 32, 32, 32)
    with torch.no_grad():
        assert torch.allclose(network(x), plain(x), atol=1e-4)


def test_the_report_is_what_was_found(tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = export_model(tiny_checkpoint, tmp_path / "m.onnx", NO_HEADS).parity
    assert 0 < result.largest <= 1e-4
    assert result.rounding == 0
    assert read_model_file(tmp_path / "m.onnx")[0].threshold == 0.5
    options = CheckpointOptions(half_weights=True, threshold=0.7, heads=False)
    half = export_model(tiny_checkpoint, tmp_path / "h.onnx", options).parity
    assert 0 < half.largest <= 1e-4
    assert 0 < half.rounding < 0.1
    full_size, half_size = ((tmp_path / f"{n}.onnx").stat().st_size for n in "mh")
    assert half_size < 0.75 * full_size
    assert read_model_file(tmp_path / "h.onnx")[0].weights == "float16"
    assert read_model_file(tmp_path / "h.onnx")[0].threshold == 0.7
    with pytest.raises(cs.ModelError, match="threshold 2"):
        export_model(tiny_checkpoint, tmp_path / "x.onnx", CheckpointOptions(threshold=2))
    assert read_model_file(tmp_path / "m.onnx")[0].weights == "float32"


def test_a_mismatch_is_refused_and_nothing_written(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truly = onnx_file.serialised

    def wrong(network: nn.Module, batch: torch.Tensor) -> bytes:
        model = onnx.load_from_string(truly(network, batch))
        for weight in model.graph.initializer:
            values = onnx.numpy_helper.to_array(weight)
            if values.ndim == 5:
                weight.CopyFrom(onnx.numpy_helper.from_array(values * 1.01, weight.name))
        return model.SerializeToString()

    monkeypatch.setattr(onnx_file, "serialised", wrong)
    with pytest.raises(cs.ParityError, match="differ by up to"):
        export_model(tiny_checkpoint, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_nan_is_a_mismatch(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(tiny_checkpoint)
    average = {k: v * float("nan") if v.ndim else v for k, v in checkpoint.average.items()}
    write_checkpoint(tmp_path / "nan.ckpt", replace(checkpoint, average=average))
    with pytest.raises(cs.ParityError):
        export_model(tmp_path / "nan.ckpt", tmp_path / "m.onnx")


def test_the_batch_is_free_and_the_file_tells_nothing_of_its_maker(tiny_onnx: Path) -> None:
    content = tiny_onnx.read_bytes()
    model = onnx.load_from_string(content)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for trace in (str(ROOT), str(Path.home()), sys.prefix, "site-packages", "networks.py"):
        assert trace.encode() not in content
    with cs.load_model(tiny_onnx, engine="onnxruntime") as loaded:
        batch = parity.example_batch(loaded.spec)
        three = np.concatenate([batch, batch[:1]])
        answer = loaded.engine.run(three)
    assert answer.shape[0] == 3
    assert answer[2] == pytest.approx(answer[0], abs=1e-5)


def test_the_folder_must_exist_before_the_work_begins(tmp_path: Path) -> None:
    with pytest.raises(cs.FileError, match="does not exist"):
        export_model(tmp_path / "any.ckpt", tmp_path / "no" / "m.onnx")


def test_the_bundled_model_can_be_taught_further() -> None:
    """Its weights fit `finetune`, and compute what the model computes."""
    config = read_config("finetune")
    initial, spec = read_initial(DEFAULT_MODEL, config)
    assert spec.trained_on
    network = build_network(config.network, len(spec.channels)).eval()
    network.load_state_dict(initial)
    batch = parity.example_batch(spec)[:1]
    with torch.no_grad():
        expected = network(torch.from_numpy(batch)).numpy()
    with cs.load_model(precision="float32") as model:
        answer = model.engine.run(batch)
    assert np.abs(answer - expected).max() < 1e-3 * np.abs(expected).max()
