import json
import shutil
import sys
from pathlib import Path

import onnx
import pytest
from clickseg_export.export_model import MOST_DROP, CheckpointOptions, export_model
from clickseg_export.graph_precision import to_float16, to_int8
from clickseg_export.parity import compare_models, example_batch
from clickseg_export.precision_check import calibration_patches, check_precision
from clickseg_export.tensorrt_plan import export_plan

import clickseg_infer as cs
from clickseg_infer.engines import Network, open_engine
from clickseg_infer.model import DEFAULT_MODEL, read_model_file
from clickseg_infer.model_spec import PrecisionCheck


@pytest.fixture(scope="module")
def half_weights(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("half") / "h.onnx"
    export_model(tiny_checkpoint, path, CheckpointOptions(half_weights=True, heads=False))
    return path


@pytest.fixture(scope="module")
def cases(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms, one of them kept for validation."""
    folder = shutil.copytree(phantoms, tmp_path_factory.mktemp("cases") / "phantoms")
    splits = {"train": ["case_0", "case_1"], "val": ["case_2"]}
    (folder / "splits.json").write_text(json.dumps(splits))
    return folder


@pytest.mark.parametrize("source", ["tiny_onnx", "half_weights"])
def test_a_16_bit_graph_computes_almost_the_same_from_float_to_float(
    source: str, request: pytest.FixtureRequest
) -> None:
    before = read_model_file(request.getfixturevalue(source))
    spec, content = to_float16(*before)
    assert (spec.precision, spec.weights, spec.channels) == (
        "float16",
        "float16",
        before[0].channels,
    )
    model = onnx.load_from_string(content)
    kinds = {weight.data_type for weight in model.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert onnx.TensorProto.FLOAT not in kinds
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    found = compare_models(before, (spec, content))
    assert 0 < found.largest < 0.1
    assert found.flipped < 0.02


def test_the_bundled_model_in_16_bits_gives_almost_the_same_mask() -> None:
    before = read_model_file(DEFAULT_MODEL)
    found = compare_models(before, to_float16(*before))
    assert found.engine == "onnxruntime"
    assert 0 < found.largest < 0.1
    assert found.flipped < 1e-4


def test_an_8_bit_graph(tiny_onnx: Path) -> None:
    before = read_model_file(tiny_onnx)
    batches = [example_batch(before[0])[n : n + 1] for n in range(2)]
    spec, content = to_int8(*before, batches)
    operators = {node.op_type for node in onnx.load_from_string(content).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    assert (spec.precision, spec.weights) == ("int8", "int8")
    found = compare_models(before, (spec, content))
    assert found.engine == "openvino"
    assert 0 < found.largest < 1
    network = Network(content, spec.patch_size, spec.precision)
    for name in ("openvino", "onnxruntime"):
        engine = open_engine(network, name)
        assert engine.precision == "int8"
        assert engine.run(batches[0]).shape == (1, 1, *spec.patch_size)
        with pytest.raises(cs.EngineError, match="in int8"):
            open_engine(network, name, "float32")
    for again in (to_float16, lambda *model: to_int8(*model, batches)):
        with pytest.raises(cs.ModelError, match="is int8 already"):
            again(spec, content)


def test_the_check_clicks_validation_cases_and_calibration_others(
    tiny_onnx: Path, cases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_model_file(tiny_onnx)
    looked_at: list[str] = []
    from clickseg_train import evaluate as module

    load = module.load_case

    def watched(case: object) -> object:
        looked_at.append(case.name)  # type: ignore[attr-defined]
        return load(case)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "load_case", watched)
    patches = calibration_patches(*before, [cases])
    assert patches[0].shape == (1, len(before[0].channels), *before[0].patch_size)
    assert 1 < len(patches) <= 128
    assert looked_at == ["case_0", "case_1"]
    looked_at.clear()
    found = check_precision(before, to_float16(*before), [cases])
    assert looked_at == ["case_2", "case_2"]
    assert found.objects > 1
    assert abs(found.drop) < 0.05
    assert found.drop == found.float32 - found.dice
    (cases / "splits.json").write_text(json.dumps({"train": [], "val": ["case_2"]}))
    with pytest.raises(cs.DatasetError, match="'train' has no labelled cases"):
        calibration_patches(*before, [cases])


@pytest.fixture
def costly(monkeypatch: pytest.MonkeyPatch) -> PrecisionCheck:
    """A conversion that costs a little more than is allowed."""
    check = PrecisionCheck(objects=4, clicks=5, float32=0.8, dice=0.8 - MOST_DROP - 0.001)
    monkeypatch.setattr("clickseg_export.precision_check.check_precision", lambda *_: check)
    return check


def test_a_model_that_costs_too_much_is_not_written(
    tiny_checkpoint: Path, cases: Path, tmp_path: Path, costly: PrecisionCheck
) -> None:
    out = tmp_path / "m.onnx"
    with pytest.raises(cs.ParityError, match=r"from 0\.8000 to 0\.7940, by more than 0\.005"):
        export_model(tiny_checkpoint, out, precision="fp16", datasets=[cases])
    assert list(tmp_path.iterdir()) == []
    found = export_model(tiny_checkpoint, out, precision="fp16", datasets=[cases], force=True)
    assert found.check == costly
    spec, _ = read_model_file(out)
    assert spec.precision_check == costly
    with cs.load_model(out, engine="onnxruntime") as model:
        assert model.engine.precision == "float16"


def test_what_is_within_bounds_is_written_with_its_numbers(
    tiny_onnx: Path, cases: Path, tmp_path: Path
) -> None:
    found = export_model(tiny_onnx, tmp_path / "h.onnx", precision="fp16", datasets=[cases])
    assert found.parity is None
    assert found.agreement is not None
    assert found.check is not None
    assert found.check.drop <= MOST_DROP
    assert read_model_file(tmp_path / "h.onnx")[0].precision_check == found.check


def test_another_patch_size(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    options = CheckpointOptions(patch=(32, 48, 16), heads=False)
    assert export_model(tiny_checkpoint, out, options).parity is not None
    with cs.load_model(out) as model:
        assert model.spec.patch_size == (32, 48, 16)
        batch = example_batch(model.spec)
        assert model.engine.run(batch).shape == (2, 1, 32, 48, 16)
    with pytest.raises(cs.ModelError, match="multiples of 16"):
        export_model(tiny_checkpoint, out, CheckpointOptions(patch=(30, 30, 30)))


def test_arguments_that_do_not_go_together(
    tiny_onnx: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    out, half = tmp_path / "m.onnx", tmp_path / "h.onnx"
    export_model(tiny_onnx, half, precision="fp16", force=True)
    for arguments, reason in (
        ((tiny_onnx, out, CheckpointOptions(threshold=0.4)), "need the checkpoint"),
        ((tiny_checkpoint, None), "name the model"),
    ):
        with pytest.raises(cs.ConfigError, match=reason):
            export_model(*arguments)
    for options, reason in (
        ({"precision": "fp16"}, "or write it unmeasured with --force"),
        ({"precision": "int8", "force": True}, "calibrated on real patches"),
        ({"precision": "fp4"}, "allowed are fp32, fp16, int8"),
        ({"precision": "fp32", "force": True}, "cases and force are for"),
        ({"force": True}, "cases and force are for"),
    ):
        with pytest.raises(cs.ConfigError, match=reason):
            export_model(tiny_onnx, out, **options)
    with pytest.raises(cs.ConfigError, match="name the model"):
        export_model(tiny_onnx, None, precision="fp16", force=True)
    with pytest.raises(cs.FileError, match="overwrite"):
        export_model(tiny_onnx, tiny_onnx, precision="fp16", force=True)
    for precision in ("fp32", "int8"):
        with pytest.raises(cs.ModelError, match=f"is float16; {precision} needs the float32"):
            export_model(half, out, precision=precision, datasets=[tmp_path])
    assert not out.exists()
    for precision in (None, "fp16"):
        assert export_model(half, None, precision=precision).model == half
    assert export_model(tiny_onnx, None).model == tiny_onnx


def test_what_makes_a_graph_is_looked_for_first(
    tiny_onnx: Path, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    monkeypatch.setattr("clickseg_export.precision_check.calibration_patches", None)
    with pytest.raises(ImportError, match="nncf"):
        export_model(tiny_onnx, tmp_path / "m.onnx", precision="int8", datasets=[cases])


def test_an_8_bit_model_becomes_a_plan(tiny_onnx: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    before = read_model_file(tiny_onnx)
    batches = [example_batch(before[0])[n : n + 1] for n in range(2)]
    path = tmp_path / "q.onnx"
    path.write_bytes(to_int8(*before, batches)[1])
    _, record = export_plan(path)
    assert record.precision == "int8"
