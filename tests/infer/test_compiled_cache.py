import os
from pathlib import Path

import numpy as np
import openvino
import pytest

import clickseg_infer as cs
from clickseg_infer import engines
from clickseg_infer.engines import compiled_cache
from clickseg_infer.engines.compiled_cache import entry_key, read_entry, write_entry


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; its folder is made when it is needed."""
    folder = tmp_path / "a" / "cache"
    monkeypatch.setenv("CLICKSEG_CACHE", str(folder))
    return folder


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one whenever OpenVINO compiles."""
    counted: list[str] = []
    compile_model = openvino.Core.compile_model

    def counting(core: openvino.Core, *arguments: object) -> object:
        counted.append(str(arguments[1]))
        return compile_model(core, *arguments)

    monkeypatch.setattr(openvino.Core, "compile_model", counting)
    return counted


def logits(path: Path, precision: str = "float32") -> np.ndarray:
    with cs.load_model(path, engine="openvino", precision=precision) as model:
        spec = model.spec
        shape = (1, len(spec.channels), *spec.patch_size)
        return model.engine.run(np.random.default_rng(0).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("precision", engines.precisions("openvino"))
def test_the_second_opening_compiles_nothing_and_answers_the_same_bits(
    precision: str, tiny_onnx: Path, cache: Path, compilations: list[str]
) -> None:
    first = logits(tiny_onnx, precision)
    assert (len(compilations), len(list(cache.iterdir()))) == (1, 1)
    assert np.array_equal(logits(tiny_onnx, precision), first)
    assert len(compilations) == 1


def test_what_is_not_exactly_as_written_is_compiled_again(
    tiny_onnx: Path, cache: Path, compilations: list[str], rng: np.random.Generator
) -> None:
    expected = logits(tiny_onnx)
    (entry,) = cache.iterdir()
    good = entry.read_bytes()
    flipped = []
    for position in (0, 40, len(good) - 1, *rng.integers(len(good), size=5)):
        content = bytearray(good)
        content[position] ^= 1 << int(rng.integers(8))
        flipped.append(bytes(content))
    longer, other = good + b"\0", compiled_cache._digest("another key", good[32:]) + good[32:]
    for damaged in (*flipped, b"", good[:20], good[:-1], longer, b"text" * 99, other):
        entry.write_bytes(damaged)
        before = len(compilations)
        assert np.array_equal(logits(tiny_onnx), expected)
        assert len(compilations) == before + 1
        assert read_entry(entry.stem) is not None


def test_an_intact_entry_that_openvino_refuses_is_compiled_again(
    tiny_onnx: Path, cache: Path, compilations: list[str]
) -> None:
    expected = logits(tiny_onnx)
    (entry,) = cache.iterdir()
    write_entry(entry.stem, lambda: b"not what OpenVINO exports")
    assert np.array_equal(logits(tiny_onnx), expected)
    assert len(compilations) == 2


def test_every_circumstance_gives_another_key(
    tiny_onnx: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision in engines.precisions("openvino"):
        logits(tiny_onnx, precision)
    count = len(engines.precisions("openvino"))
    assert len(list(cache.iterdir())) == count
    monkeypatch.setattr(openvino, "__version__", "2099.1")
    logits(tiny_onnx)
    content = tiny_onnx.read_bytes()
    cs.open_engine(content + b"\x72\x00", (32, 32, 32), "openvino", "float32")
    assert len(list(cache.iterdir())) == count + 2
    assert len({entry_key(b"a", "b"), entry_key(b"a", "c"), entry_key(b"b", "b")}) == 3


def test_no_cache_is_no_error(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compilations: list[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "entry" / f"{entry_key(b'')}.compiled").mkdir(parents=True)
    for where in ("", "/proc/nowhere", str(tmp_path / "file"), "x" * 300):
        monkeypatch.setenv("CLICKSEG_CACHE", where)
        logits(tiny_onnx)
        assert read_entry(entry_key(b"")) is None
    assert len(compilations) == 4
    monkeypatch.setenv("CLICKSEG_CACHE", str(tmp_path / "entry"))
    assert read_entry(entry_key(b"")) is None


def test_the_users_cache_folder_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLICKSEG_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "clickseg")
    write_entry("key", lambda: b"compiled")
    assert read_entry("key") == b"compiled"
    assert [path.name for path in (tmp_path / "clickseg").iterdir()] == ["key.compiled"]


def test_the_least_recently_used_entries_go_first(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_cache, "_MOST_ENTRIES", 3)
    cache.mkdir(parents=True)
    (cache / "somebody's.txt").touch()
    for age, name in enumerate("cba"):
        write_entry(name, lambda: b"compiled")
        os.utime(cache / f"{name}.compiled", (1000 - age, 1000 - age))
    assert read_entry("a") == b"compiled"
    write_entry("d", lambda: b"compiled")
    kept = {"a.compiled", "c.compiled", "d.compiled", "somebody's.txt"}
    assert {path.name for path in cache.iterdir()} == kept
    monkeypatch.setattr(compiled_cache, "_MOST_BYTES", 2 * len((cache / "a.compiled").read_bytes()))
    write_entry("e", lambda: b"compiled")
    assert len(list(cache.iterdir())) == 3
    assert read_entry("e") == b"compiled"
