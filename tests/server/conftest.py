"""A demo over a stand-in model and a ball, and a client that speaks to it as a browser does."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from stand_ins import bright, make_ball, make_spec

import clickseg_infer as cs
from clickseg_infer.engines.shared import SharedEngine
from clickseg_infer.server.app import create_app
from clickseg_infer.server.guard import Guard
from clickseg_infer.server.opening import Demo
from clickseg_infer.server.registry import Limits, Registry
from clickseg_infer.server.scans import Scans

URL = "http://127.0.0.1:8642"
ON_BALL = [50, 40, 20]  # (i, j, k)
BESIDE = [10, 10, 5]


@pytest.fixture
def ball_file(tmp_path: Path) -> Path:
    cs.write_volume(tmp_path / "ball.nii.gz", make_ball(25.0))
    return tmp_path / "ball.nii.gz"


@pytest.fixture
def shared_model() -> cs.Model:
    return cs.Model(make_spec(), SharedEngine(cs.FunctionEngine(bright)), "stand-in")


@pytest.fixture
def demo(ball_file: Path, shared_model: cs.Model) -> Iterator[Demo]:
    limits = Limits(labellings=4, upload_bytes=1 << 20, voxels=400_000)
    demo = Demo(shared_model, Scans(ball_file, ball_file.parent), Registry(limits))
    yield demo
    demo.registry.close_all()


@pytest.fixture
def client(demo: Demo) -> Iterator[TestClient]:
    with TestClient(Guard(create_app(demo)), base_url=URL) as client:
        yield client


@pytest.fixture
def session(client: TestClient) -> str:
    opened = client.post("/api/sessions", json={})
    assert opened.status_code == 201, opened.text
    return f"/api/sessions/{opened.json()['session']}"


def with_limits(demo: Demo, **changes: object) -> None:
    """Change what a demo takes on, while it runs."""
    demo.registry.limits = dataclasses.replace(demo.registry.limits, **changes)
