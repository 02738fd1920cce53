"""What f-BRS, RGB-BRS and DistMap-BRS do: sessions that contradict the model, validation cases.

Writes results/refinement.json. Reads the real CT beside the checkout (../shared/data).
"""

from typing import Any

import numpy as np
from accuracy import groups
from bundled import torch_network
from clickseg_export.onnx_file import folded
from contest import write

import clickseg_infer as cs
from clickseg_infer.clicks import Click
from clickseg_infer.latency import random_click
from clickseg_infer.model import Model
from clickseg_infer.refinement.heads import POINTS
from clickseg_infer.refinement.obedience import carries
from clickseg_infer.refinement.tuning import Refinement
from clickseg_infer.session import Session
from clickseg_infer.volume import Volume
from clickseg_train.cases import Case
from clickseg_train.evaluate import Evaluation, Protocol, evaluate
from clickseg_train.input_brs import METHODS as BY_INPUT
from clickseg_train.input_brs import with_input_brs

SESSIONS = {"fbrs-a": 50, "fbrs-b": 500, "fbrs-c": 50, "rgb-brs": 50, "distmap-brs": 50}
CLICKS = 4
CONTRADICTING = 0.5  # share of the clicks that lie beside another one and say the opposite
_BESIDE = 3  # voxels, at most
VALIDATION = 2  # of the groups: the first ones
TARGET = 0.90


def main() -> None:
    cases = [case for parts in groups().values() for found, _ in parts for case in found]
    volumes = [cs.read_volume(case.image) for case in cases]
    stubborn, validation = {}, {}
    for method, sessions in SESSIONS.items():
        with opened(method) as model:
            stubborn[method] = contradicted(model, volumes, sessions)
        print(method, stubborn[method], flush=True)
    for method in ("none", *POINTS, *BY_INPUT):
        with opened(method) as model:
            validation[method] = {
                group: followed(model, [(list(found), values) for found, values in parts])
                for group, parts in list(groups().items())[:VALIDATION]
            }
        print(method, validation[method], flush=True)
    write("refinement", {"sessions": stubborn, "validation": validation})


def opened(method: str) -> Model:
    """The bundled model, refining by a method; in torch where it is one that changes the input."""
    if method in BY_INPUT:
        return with_input_brs(cs.load_model(), folded(torch_network()), method)
    return cs.load_model(refine=method)


def contradicted(model: Model, volumes: list[Volume], sessions: int) -> dict[str, Any]:
    """Random sessions in which half of the clicks contradict a neighbour."""
    rng = np.random.default_rng(0)
    told: list[tuple[Refinement, float]] = []
    obeyed = 0
    for number in range(sessions):
        volume = volumes[number % len(volumes)]
        session = Session(model, volume)
        while len(session.clicks) < CLICKS:
            click = next_click(session, rng)
            try:
                session.click(click.zyx, click.positive)
            except cs.ClickError:
                continue
            answer = session.prediction
            assert answer.refinement is not None
            told.append((answer.refinement, answer.ms.get("refine", 0.0)))
            obeyed += all(carries(answer, click) for click in session.clicks)
    tuned = [found for found, _ in told if found.patches]
    times = [ms for found, ms in told if found.patches]
    return {
        "sessions": sessions,
        "clicks": len(told),
        "answers_that_obey_all_clicks": obeyed,
        "answers_tuned": len(tuned),
        "tuned_and_corrected": sum(found.corrected > 0 for found in tuned),
        "corrected_only": sum(found.corrected > 0 for found, _ in told if not found.patches),
        "evaluations": float(np.median([found.evaluations / found.patches for found in tuned])),
        "refine_ms": {
            "p50": round(float(np.median(times)), 1),
            "p95": round(float(np.percentile(times, 95)), 1),
        },
        "answers_with_far_changes": sum(found.far_voxels > 0 for found in tuned),
        "median_far_voxels": float(np.median([found.far_voxels for found in tuned])),
    }


def next_click(session: Session, rng: np.random.Generator) -> Click:
    """A click as in latency's sessions, or one beside another that says the opposite."""
    if not session.clicks or rng.random() > CONTRADICTING:
        return random_click(session, rng)
    other = session.clicks[rng.integers(len(session.clicks))]
    moved = np.add(other.zyx, rng.integers(-_BESIDE, _BESIDE + 1, 3))
    z, y, x = (int(p) for p in np.clip(moved, 0, np.subtract(session.volume.shape, 1)))
    return Click((z, y, x), not other.positive)


def followed(model: Model, parts: list[tuple[list[Case], Any]]) -> dict[str, Any]:
    protocol = Protocol(10, surfaces=False)
    found = Evaluation(
        tuple(case for cases, v in parts for case in evaluate(model, cases, protocol, v).cases)
    )
    return {
        "objects": len(found.cases),
        "mean_dice": np.round(found.mean_dice, 4).tolist(),
        f"clicks_to_{TARGET:.2f}": round(found.clicks_to(TARGET), 2),
        "median_click_ms": round(found.median_click_ms, 1),
    }


if __name__ == "__main__":
    main()
