"""How many may be open, how large, and for how long."""

import gc
import time
import tracemalloc
import weakref
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from fastapi.testclient import TestClient
from stand_ins import make_ball

import clickseg_infer as cs
from clickseg_infer.server.labelling import Labelling
from clickseg_infer.server.opening import Demo
from clickseg_infer.server.refusals import NotFoundError, TooManyError
from clickseg_infer.server.registry import Limits, Opened, Registry

from .conftest import ON_BALL, with_limits


def opened(model: cs.Model) -> Opened:
    return Opened(Labelling(model, make_ball(10.0, (8, 8, 8)), "ball"), Path("ball.nii"))


def test_what_is_idle_is_closed_and_what_is_not_stays(bright_model: cs.Model) -> None:
    now = 0.0
    registry = Registry(Limits(idle_s=10), clock=lambda: now)
    quiet, busy = registry.add(opened(bright_model)), registry.add(opened(bright_model))
    now = 8.0
    registry.find(busy)
    now = 12.0
    registry.find(busy)
    assert len(registry) == 1
    with pytest.raises(NotFoundError):
        registry.find(quiet)


def test_the_number_is_bounded(bright_model: cs.Model) -> None:
    registry = Registry(Limits(labellings=2))
    keys = [registry.add(opened(bright_model)) for _ in range(2)]
    assert len(set(keys)) == 2
    with pytest.raises(TooManyError):
        registry.check_room(10)
    with pytest.raises(TooManyError):
        registry.add(opened(bright_model))
    registry.close(keys[0])
    registry.check_room(10)


def test_memory_is_bounded_and_a_shared_scan_counts_once(bright_model: cs.Model) -> None:
    registry = Registry()
    volume = cs.Volume(np.zeros((64, 64, 64), np.int16), np.eye(4))
    for _ in range(2):
        registry.add(Opened(Labelling(bright_model, volume, "zeros"), Path("zeros.nii")))
    own = Registry()
    own.add(Opened(Labelling(bright_model, volume, "zeros"), Path("zeros.nii")))
    assert registry.memory_bytes() == 2 * own.memory_bytes() - volume.voxels.nbytes
    registry.limits = Limits(memory_bytes=registry.memory_bytes() + (64 << 20) + 400)
    registry.check_room(100)
    with pytest.raises(TooManyError, match="does not fit"):
        registry.check_room(101)


def test_closing_removes_the_folder(bright_model: cs.Model) -> None:
    scratch = TemporaryDirectory()
    labelling = opened(bright_model).labelling
    registry = Registry()
    key = registry.add(Opened(labelling, Path(scratch.name) / "scan.nii", scratch))
    assert Path(scratch.name).is_dir()
    registry.close(key)
    assert not Path(scratch.name).exists()


def test_fifty_sessions_opened_and_dropped_leave_no_memory_behind(
    client: TestClient, demo: Demo, ball_file: Path
) -> None:
    content = ball_file.read_bytes()
    volumes: list[weakref.ref[cs.Volume]] = []
    folders = []

    def open_and_drop() -> None:
        reply = client.post("/api/sessions/upload?name=ball.nii.gz", content=content)
        assert reply.status_code == 201
        key = reply.json()["session"]
        kept = demo.registry.find(key)
        volumes.append(weakref.ref(kept.labelling.volume))
        folders.append(kept.file.parent)
        del kept
        session = f"/api/sessions/{key}"
        assert client.post(f"{session}/clicks", json={"ijk": ON_BALL}).json()["changed"]
        assert client.delete(session).status_code == 204

    for _ in range(5):  # what is loaded and cached once
        open_and_drop()
    gc.collect()
    tracemalloc.start()
    for _ in range(50):
        open_and_drop()
    gc.collect()
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(demo.registry) == 0
    assert not any(ref() for ref in volumes)
    assert not any(folder.exists() for folder in folders)
    # One session's scan, buffers and masks are some 20 MB.
    assert left < 1e6


def test_a_tab_that_went_away_without_a_word_makes_room_once_it_is_idle(
    client: TestClient, demo: Demo
) -> None:
    with_limits(demo, labellings=1, idle_s=0.2)
    for _ in range(3):
        assert client.post("/api/sessions", json={}).status_code == 201
        time.sleep(0.3)
    assert len(demo.registry) == 1
    with_limits(demo, idle_s=1000.0)
    assert client.post("/api/sessions", json={}).status_code == 429
