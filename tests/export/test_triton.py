import hashlib
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from clickseg_export.graph_precision import to_float16
from clickseg_export.triton import write_repository
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

import clickseg_infer as cs
from clickseg_infer.engines.nvidia import Gpu
from clickseg_infer.engines.plan_builder import Profile
from clickseg_infer.engines.plans import PlanRecord, plan_path, write_plan
from clickseg_infer.model import DEFAULT_MODEL, read_model_file, read_network

GPU = Gpu("NVIDIA Test", "SM89")


def config_of(folder: Path) -> ModelConfig:
    """As Triton reads it: by its own schema, whose unknown fields are errors."""
    return text_format.Parse((folder / "config.pbtxt").read_text(), ModelConfig())


def test_the_repository_is_what_triton_loads(tmp_path: Path) -> None:
    (folder,) = write_repository(DEFAULT_MODEL, tmp_path / "deep" / "models")
    assert sorted(p.relative_to(tmp_path / "deep").as_posix() for p in folder.rglob("*")) == [
        "models/clickseg_light/1",
        "models/clickseg_light/1/model.onnx",
        "models/clickseg_light/config.pbtxt",
    ]
    config = config_of(folder)
    assert config.name == folder.name  # or Triton refuses it
    assert config.platform == "onnxruntime_onnx"
    assert config.max_batch_size == 8
    graph = onnx.load(folder / "1" / "model.onnx").graph
    for told, real in ((config.input, graph.input), (config.output, graph.output)):
        (value,) = real
        assert [part.name for part in told] == [value.name]
        sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
        assert list(told[0].dims) == sizes[1:]  # without the batch, which is open
        assert sizes[0] == 0
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert config.input[0].data_type == config.output[0].data_type == 11  # TYPE_FP32
    spec, _ = read_network(DEFAULT_MODEL)
    assert cs.ModelSpec.from_json(config.parameters["clickseg.spec"].string_value) == spec


def test_a_plan_of_tensorrt_goes_along(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(DEFAULT_MODEL.read_bytes())
    _, network = read_network(model)
    plan = b"a plan"
    digest = hashlib.sha256(plan).hexdigest()
    record = PlanRecord(
        "tensorrt", "10.13", network.sha256, "float32", Profile(1, 1, 3), (), GPU.name, digest
    )
    write_plan(plan_path(model), plan, record)
    folders = write_repository(model, tmp_path / "models")
    assert [folder.name for folder in folders] == ["clickseg_light", "clickseg_light_trt"]
    config = config_of(folders[1])
    assert (config.name, config.platform) == ("clickseg_light_trt", "tensorrt_plan")
    assert config.max_batch_size == 3
    assert (folders[1] / "1" / "model.plan").read_bytes() == plan
    for changes in ({"builder": "tensorrt-rtx"}, {"onnx_sha256": "0"}):  # Triton cannot run these
        write_plan(plan_path(model), plan, replace(record, **changes))
        assert len(write_repository(model, tmp_path / "others")) == 1
    with pytest.raises(cs.FileError, match=r"clickseg_light_trt: is of an earlier export"):
        write_repository(model, tmp_path / "models")
    write_plan(plan_path(model), b"damaged", record)
    with pytest.raises(cs.EngineError, match="damaged"):
        write_repository(model, tmp_path / "models")


def test_models_of_other_precisions_stand_beside_each_other(tmp_path: Path) -> None:
    half = tmp_path / "h.onnx"
    half.write_bytes(to_float16(*read_model_file(DEFAULT_MODEL))[1])
    names = [write_repository(path, tmp_path / "m")[0].name for path in (DEFAULT_MODEL, half)]
    assert names == ["clickseg_light", "clickseg_light_float16"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(cs.FileError, match="cannot be made"):
        write_repository(DEFAULT_MODEL, tmp_path / "file")
