import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import make_spec

import clickseg_infer as cs
from clickseg_infer.model import read_model_file, read_structures, with_spec
from clickseg_infer.model_spec import PrecisionCheck
from clickseg_infer.onnx_metadata import (
    append_metadata,
    digest_without_metadata,
    drop_metadata,
    read_metadata,
)


def test_a_spec_survives_json() -> None:
    spec = make_spec(
        trained_on=(cs.Source("Somewhere", "CC0"),),
        description="für alle",
        precision="int8",
        precision_check=PrecisionCheck(objects=3, clicks=5, float32=0.75, dice=0.5),
    )
    assert cs.ModelSpec.from_json(spec.to_json()) == spec
    assert spec.precision_check.drop == 0.25


def test_a_spec_of_the_first_format_is_read() -> None:
    values = json.loads(make_spec().to_json())
    for key in ("precision", "precision_check"):
        del values[key]
    spec = cs.ModelSpec.from_json(json.dumps({**values, "format_version": 1}))
    assert (spec.precision, spec.format_version) == ("float32", 5)


def test_another_spec_replaces_the_one_that_is_there(tiny_onnx: Path, tmp_path: Path) -> None:
    spec, content = read_model_file(tiny_onnx)
    other = tmp_path / "other.onnx"
    other.write_bytes(with_spec(content, replace(spec, name="other")))
    assert read_model_file(other)[0].name == "other"
    assert b'"tiny"' not in other.read_bytes()
    assert with_spec(other.read_bytes(), spec) == content


def test_a_plan_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(cs.ModelError, match=r"give the \.onnx file"):
        cs.load_model(tmp_path / "m.plan")


@pytest.mark.parametrize(
    "change",
    [
        {"patch_size": (30, 32, 32)},
        {"patch_size": (32, 32)},
        {"spacing_mm": (0.0, 1.0, 1.0)},
        {"spacing_mm": (5.0, 2.0, 2.0)},
        {"channels": ("ct", "sound")},
        {"channels": ("positive", "ct")},
        {"channels": ("ct", "positive", "positive")},
        {"channels": ()},
        {"hu_windows": {"ct": (100.0, -100.0)}},
        {"click_radius": -1},
        {"threshold": 1.0},
        {"overlap": 1.0},
        {"precision": "int4"},
    ],
    ids=str,
)
def test_a_spec_that_makes_no_sense_is_refused(change: dict) -> None:
    with pytest.raises(cs.ModelError, match="model spec"):
        make_spec(**change)


def test_a_model_file_explains_itself(tiny_onnx: Path) -> None:
    spec, _ = read_model_file(tiny_onnx)
    assert spec.name == "tiny"
    assert spec.patch_size == (32, 32, 32)
    assert spec.trained_on == (cs.Source("Small", "CC0"),)
    import onnx

    metadata = {p.key: p.value for p in onnx.load(tiny_onnx).metadata_props}
    assert cs.ModelSpec.from_json(metadata["clickseg.spec"]) == spec


def test_not_a_model_of_ours(tiny_onnx: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(tiny_onnx)
    del model.metadata_props[:]
    plain = tmp_path / "plain.onnx"
    plain.write_bytes(model.SerializeToString())
    with pytest.raises(cs.ModelError, match=r"plain\.onnx.*without a clickseg spec"):
        cs.load_model(plain)
    for name, content in {
        "text": b"hello, I am a model",
        "empty": b"",
        "noise": b"\xff" * 90,
    }.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(cs.ModelError, match=name):
            cs.load_model(path)
    with pytest.raises(cs.FileError, match="nowhere"):
        cs.load_model(tmp_path / "nowhere.onnx")


def test_a_newer_format_is_refused(tiny_onnx: Path, tmp_path: Path) -> None:
    content = tiny_onnx.read_bytes().replace(b'"format_version": 5', b'"format_version": 9')
    (tmp_path / "new.onnx").write_bytes(content)
    with pytest.raises(cs.ModelError, match="format 9 is newer"):
        cs.load_model(tmp_path / "new.onnx")


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_no_damage_goes_unnoticed(
    data: st.DataObject, tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(tiny_onnx.read_bytes())
    if data.draw(st.booleans(), label="truncate"):
        content = content[: data.draw(st.integers(0, len(content) - 1), label="length")]
    else:
        position = data.draw(st.integers(0, len(content) - 1), label="position")
        content[position] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    path = tmp_path_factory.mktemp("damage") / "damaged.onnx"
    path.write_bytes(content)
    with pytest.raises(cs.ModelError, match="damaged"):
        read_model_file(path)


def test_metadata_is_onnxs_own(tiny_onnx: Path) -> None:
    onnx = pytest.importorskip("onnx")
    content = append_metadata(tiny_onnx.read_bytes(), {"greeting": "hello", "long": "x" * 5000})
    model = onnx.load_from_string(content)
    theirs = {p.key: p.value for p in model.metadata_props}
    assert read_metadata(content) == theirs
    digest = digest_without_metadata(content)
    assert digest == digest_without_metadata(tiny_onnx.read_bytes())


def test_what_tells_structures_apart_is_part_of_the_digest(tiny_onnx: Path, tmp_path: Path) -> None:
    spec, content = read_model_file(tiny_onnx)
    path = tmp_path / "with.onnx"
    path.write_bytes(with_spec(content, spec, structures=b"a graph"))
    assert read_structures(read_model_file(path)[1]) == b"a graph"
    assert read_structures(content) == b""
    other = read_metadata(with_spec(content, spec, structures=b"another"))
    mixed = read_metadata(path.read_bytes()) | {"clickseg.structures": other["clickseg.structures"]}
    path.write_bytes(append_metadata(drop_metadata(content), mixed))
    with pytest.raises(cs.ModelError, match="damaged"):
        read_model_file(path)


def test_with_spec_is_read_back(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, 32, 32, 32])
        for name, channels in (("input", 5), ("logits", 1))
    ]
    node = helper.make_node("ReduceSum", ["input", "axes"], ["logits"], keepdims=1)
    axes = onnx.numpy_helper.from_array(np.array([1]), "axes")
    graph = helper.make_graph([node], "sum", ends[:1], ends[1:], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path / "sum.onnx"
    path.write_bytes(with_spec(model.SerializeToString(), make_spec()))
    batch = np.random.default_rng(0).normal(size=(1, 5, 32, 32, 32)).astype(np.float32)
    with cs.load_model(path) as loaded:
        assert loaded.spec == make_spec()
        assert loaded.engine.run(batch) == pytest.approx(
            batch.sum(1, keepdims=True), rel=0.05, abs=0.1
        )
