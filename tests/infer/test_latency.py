import numpy as np
import pytest
from stand_ins import bright, make_ball, make_spec

import clickseg_infer as cs
from clickseg_infer.latency import measure

STAGES = {"resample", "maps", "network", "stitch", "weigh", "components", "back"}


def test_every_click_is_measured_and_the_same_places_are_clicked() -> None:
    volume, places = make_ball(25.0), []

    def network(batch: np.ndarray) -> np.ndarray:
        places.append((batch[0, 1:3] > 0).tobytes())
        return bright(batch)

    model = cs.Model(make_spec(), cs.FunctionEngine(network))
    reports = []
    found = measure(model, volume, 12, seed=3, report=lambda *at: reports.append(at))
    assert reports[-1] == (14, 14)
    assert found["clicks"] == 12
    assert set(found["stages_ms"]) == STAGES
    for row in (found["click_ms"], found["overhead_ms"], *found["stages_ms"].values()):
        assert 0 <= row["p50"] <= row["p95"] <= row["p99"]
    assert found["overhead_ms"]["p50"] < found["click_ms"]["p50"]
    stages = sum(row["p50"] for row in found["stages_ms"].values())
    assert stages < found["click_ms"]["p95"]
    assert found["patches"] > 0
    assert found["peak_mb"] > 50
    assert found["machine"]["cores"] >= 1
    assert found["engine"] == {"name": "function", "precision": "float32"}
    first = list(places)
    places.clear()
    measure(model, volume, 12, seed=3)
    assert places == first
    places.clear()
    measure(model, volume, 12, seed=4)
    assert places != first


def test_a_scan_without_a_body_is_refused() -> None:
    air = cs.Volume(np.full((8, 8, 8), -1000, np.int16), np.eye(4))
    with pytest.raises(cs.VolumeError, match="no body"):
        measure(cs.Model(make_spec(), cs.FunctionEngine(bright)), air, 1)
