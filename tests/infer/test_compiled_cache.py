import os
from pathlib import Path

import numpy as np
import openvino
import pytest

import clickseg_infer as cs
from clickseg_infer import engines
from clickseg_infer.engines import Network, compiled_cache
from clickseg_infer.engines.compiled_cache import (
    cache_folder,
    clear,
    has_entry,
    list_entries,
    read_entry,
    write_entry,
)
from clickseg_infer.model import DEFAULT_MODEL, read_network

PRECISIONS = engines.precisions("openvino", read_network(DEFAULT_MODEL)[1])
SOMETHING = {"engine": "abacus", "model": "0"}


def about(path: Path) -> dict:
    """What an entry of the cache is about."""
    (found,) = [entry for entry in list_entries() if entry.path == path]
    assert found.about is not None
    return found.about


def named(name: str) -> dict:
    return {**SOMETHING, "model": name}


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


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_second_opening_compiles_nothing_and_answers_the_same_bits(
    precision: str, tiny_onnx: Path, cache: Path, compilations: list[str]
) -> None:
    first = logits(tiny_onnx, precision)
    assert (len(compilations), len(list(cache.iterdir()))) == (1, 1)
    assert np.array_equal(logits(tiny_onnx, precision), first)
    assert len(compilations) == 1


def test_what_is_not_exactly_as_written_is_compiled_again(
    tiny_onnx: Path,
    cache: Path,
    compilations: list[str],
    rng: np.random.Generator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = logits(tiny_onnx)
    (entry,) = cache.iterdir()
    record, good = about(entry), entry.read_bytes()
    write_entry(named("another"), lambda: b"compiled")
    another = next(path for path in cache.iterdir() if path != entry)
    flipped = []
    for position in (0, 40, len(good) - 1, *rng.integers(len(good), size=5)):
        content = bytearray(good)
        content[position] ^= 1 << int(rng.integers(8))
        flipped.append(bytes(content))
    longer, other = good + b"\0", another.read_bytes()
    for damaged in (*flipped, b"", good[:20], good[:-1], longer, b"text" * 99, other):
        caplog.clear()
        entry.write_bytes(damaged)
        before = len(compilations)
        assert np.array_equal(logits(tiny_onnx), expected)
        assert len(compilations) == before + 1
        assert caplog.messages == [
            f"the cache's entry {entry.name} is damaged; it is compiled anew"
        ]
        assert read_entry(record) is not None


def test_an_intact_entry_that_openvino_refuses_is_compiled_again(
    tiny_onnx: Path, cache: Path, compilations: list[str]
) -> None:
    expected = logits(tiny_onnx)
    (entry,) = cache.iterdir()
    write_entry(about(entry), lambda: b"not what OpenVINO exports")
    assert np.array_equal(logits(tiny_onnx), expected)
    assert len(compilations) == 2


def test_every_circumstance_gives_another_key(
    tiny_onnx: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision in PRECISIONS:
        logits(tiny_onnx, precision)
    count = len(PRECISIONS)
    assert len(list(cache.iterdir())) == count
    monkeypatch.setattr(openvino, "__version__", "2099.1")
    logits(tiny_onnx)
    content = tiny_onnx.read_bytes()
    cs.open_engine(Network(content + b"\x72\x00", (32, 32, 32)), "openvino", "float32")
    cs.open_engine(Network(content, (32, 32, 32)), "openvino", "float32")
    assert len(list(cache.iterdir())) == count + 2
    write_entry(SOMETHING, lambda: b"compiled")
    for change in ({"engine": "other"}, {"model": "1"}, {"more": 1}):
        assert not has_entry({**SOMETHING, **change})


def test_entries_can_be_listed_and_deleted(cache: Path) -> None:
    assert list_entries() == []
    assert clear() == 0
    for age, name in enumerate("abc"):
        write_entry(named(name), lambda: b"compiled")
        os.utime(list_entries()[0].path, (1000 + age, 1000 + age))
    write_entry(named("new"), lambda: b"x" * 1000)
    (cache / "bad.compiled").write_bytes(b"damaged")
    os.utime(cache / "bad.compiled", (1, 1))
    (cache / ".half.compiled.tmp").touch()
    (cache / "somebody's.txt").touch()
    found = list_entries()
    assert [entry.about and entry.about["model"] for entry in found] == ["new", "c", "b", "a", None]
    assert found[0].size > 1000
    assert clear() == 6
    assert [path.name for path in cache.iterdir()] == ["somebody's.txt"]


def test_what_cannot_be_deleted_is_said(cache: Path) -> None:
    for name in "ab":
        write_entry(named(name), lambda: b"compiled")
    kept = list_entries()[0].path
    kept.unlink()
    kept.mkdir()
    with pytest.raises(cs.FileError, match=f"{kept.name}: cannot be deleted"):
        clear()
    assert list(cache.iterdir()) == [kept]


def test_no_cache_is_no_error(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compilations: list[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLICKSEG_CACHE", str(tmp_path / "entry"))
    write_entry(SOMETHING, lambda: b"compiled")
    (entry,) = (tmp_path / "entry").iterdir()
    entry.unlink()
    entry.mkdir()
    for where in ("", "/proc/nowhere", str(tmp_path / "file"), "x" * 300):
        monkeypatch.setenv("CLICKSEG_CACHE", where)
        logits(tiny_onnx)
        assert read_entry(SOMETHING) is None
        assert (list_entries(), clear()) == ([], 0)
    assert len(compilations) == 4
    monkeypatch.setenv("CLICKSEG_CACHE", str(tmp_path / "entry"))
    assert read_entry(SOMETHING) is None
    assert not has_entry(SOMETHING)


def test_the_users_cache_folder_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLICKSEG_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "clickseg")
    write_entry(SOMETHING, lambda: b"compiled")
    assert read_entry(SOMETHING) == b"compiled"
    assert cache_folder() == tmp_path / "clickseg"
    assert [path.suffix for path in (tmp_path / "clickseg").iterdir()] == [".compiled"]


def test_the_least_recently_used_entries_go_first(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_cache, "_MOST_ENTRIES", 3)
    cache.mkdir(parents=True)
    (cache / "somebody's.txt").touch()
    for age, name in enumerate("cba"):
        write_entry(named(name), lambda: b"compiled")
        os.utime(list_entries()[0].path, (1000 - age, 1000 - age))
    assert read_entry(named("a")) == b"compiled"
    write_entry(named("d"), lambda: b"compiled")
    assert [entry.about["model"] for entry in list_entries() if entry.about] == ["d", "a", "c"]
    assert (cache / "somebody's.txt").exists()
    monkeypatch.setattr(compiled_cache, "_MOST_BYTES", 2 * list_entries()[0].size)
    write_entry(named("e"), lambda: b"compiled")
    assert len(list_entries()) == 2
    assert read_entry(named("e")) == b"compiled"
