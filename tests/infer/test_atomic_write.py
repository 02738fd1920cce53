import os
from pathlib import Path

import pytest

import clickseg_infer as cs
from clickseg_infer.atomic_write import write_whole


def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    write_whole(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(cs.FileError, match=r"a\.bin.*No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_permissions_are_those_of_a_new_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.bin", b"")
    (tmp_path / "b.bin").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("a.bin", "b.bin")]
    assert modes[0] == modes[1]
