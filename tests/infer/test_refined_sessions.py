"""Sessions whose every click is obeyed: through undo, removal, budgets, and files."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stand_ins import make_ball

import clickseg_infer as cs
from clickseg_infer.look import sweep_logits
from clickseg_infer.patch_run import Run
from clickseg_infer.recording import check_same
from clickseg_infer.refinement.tuning import Refinement, Tuning
from clickseg_infer.resample import network_grid

CENTRE = (20, 40, 50)
BESIDE = (20, 40, 51)


def noisy_ball() -> cs.Volume:
    ball = make_ball(25.0)
    noise = np.random.default_rng(0).normal(0, 30, ball.shape)
    return cs.Volume((ball.voxels + noise).astype(np.int16), ball.affine)


@pytest.fixture(scope="module")
def volume() -> cs.Volume:
    return noisy_ball()


@pytest.fixture(scope="module")
def refinable(tiny_refinable: Path, volume: cs.Volume) -> Iterator[Callable[[str], cs.Model]]:
    """The tiny model by way to refine; its threshold has half of the ball's scan in the mask."""
    opened: dict[str, cs.Model] = {}

    def by(method: str) -> cs.Model:
        if method not in opened:
            options = {"engine": "openvino", "precision": "float32", "refine": method}
            model = cs.load_model(tiny_refinable, **options)
            grid = network_grid(volume.shape, volume.spacing_mm, model.spec.spacing_mm)
            nothing = cs.Prediction((), volume.shape)
            plain = replace(model, refiner=None) if method == "none" else model
            logits = sweep_logits(Run(plain, volume), grid, (), nothing)
            threshold = float(1 / (1 + np.exp(-np.median(logits))))
            opened[method] = replace(model, spec=replace(model.spec, threshold=threshold))
        return opened[method]

    yield by
    for model in opened.values():
        model.close()


def same_tuning(ours: Tuning | None, theirs: Tuning | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return np.array_equal(ours.scale, theirs.scale) and np.array_equal(ours.bias, theirs.bias)


def check_answer(session: cs.Session) -> None:
    """Every click is obeyed, and the answer is the one that its clicks have from nothing."""
    answer = session.prediction
    assert all(session.mask[click.zyx] == click.positive for click in session.clicks)
    if session.clicks:
        assert isinstance(answer.refinement, Refinement)
        fresh = cs.predict(session.model, session.volume, session.clicks, session.start)
        assert np.array_equal(session.mask, fresh.mask)
        assert same_tuning(answer.tuning, fresh.tuning)
        assert answer.refinement == fresh.refinement


def random_place(session: cs.Session, rng: np.random.Generator) -> tuple[int, int, int]:
    """Anywhere; every other time right beside a click."""
    z, y, x = (int(p) for p in rng.integers((0, 0, 0), session.volume.shape))
    if session.clicks and rng.random() < 0.5:
        z, y, x = session.clicks[rng.integers(len(session.clicks))].zyx
        x += 1 if x + 1 < session.volume.shape[2] else -1
    return z, y, x


def random_step(session: cs.Session, rng: np.random.Generator) -> None:
    """A click, often a contradictory one, or something taken back."""
    action = rng.choice(["click", "oppose", "undo", "redo", "remove"], p=[0.4, 0.3, 0.1, 0.1, 0.1])
    with suppress(cs.ClickError):
        if action in ("undo", "redo"):
            getattr(session, action)()
        elif action == "remove":
            session.remove(int(rng.integers(max(1, len(session.clicks)))))
        else:
            place = random_place(session, rng)
            against = not session.mask[place] if action == "oppose" else bool(rng.integers(2))
            session.click(place, bool(against))


@pytest.mark.parametrize(
    ("method", "seed"),
    [*[("fbrs-c", seed) for seed in range(8)], ("fbrs", 8), ("fbrs", 9), ("fbrs-a", 10)],
)
def test_whatever_is_done_every_click_is_obeyed(
    refinable: Callable[[str], cs.Model], volume: cs.Volume, method: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = make_ball(15.0).voxels > 0 if seed % 4 == 3 else None
    session = cs.Session(refinable(method), volume, mask)
    session.click(CENTRE)
    for _ in range(7):
        random_step(session, rng)
        if session.clicks:
            assert all(session.mask[click.zyx] == click.positive for click in session.clicks)
    check_answer(session)


def test_it_is_needed_and_reported(refinable: Callable[[str], cs.Model], volume: cs.Volume) -> None:
    """Without it the same clicks are not obeyed, and with it the answer says what it took."""
    clicks = [cs.Click(CENTRE), cs.Click(BESIDE, False), cs.Click((20, 41, 50))]
    plain = cs.predict(refinable("none"), volume, clicks)
    assert plain.refinement is None
    assert plain.tuning is None
    assert any(plain.mask[click.zyx] != click.positive for click in clicks)
    answer = cs.predict(refinable("fbrs-c"), volume, clicks)
    assert all(answer.mask[click.zyx] == click.positive for click in clicks)
    assert answer.refinement.patches >= 1
    assert answer.refinement.evaluations >= answer.refinement.patches
    assert answer.tuning is not None
    assert answer.ms["refine"] > 0


def test_what_is_obeyed_already_is_left_alone(
    refinable: Callable[[str], cs.Model], volume: cs.Volume
) -> None:
    """Such a click is answered as without refinement, bit for bit."""
    clicks = [cs.Click(CENTRE)]
    model = refinable("fbrs-c")
    lenient = replace(model, spec=replace(model.spec, threshold=0.001))
    answer = cs.predict(lenient, volume, clicks)
    expected = cs.predict(replace(lenient, refiner=None), volume, clicks)
    assert answer.refinement == Refinement()
    assert answer.tuning is None
    assert np.array_equal(answer.mask, expected.mask)


def test_a_tuning_is_where_the_next_click_begins(
    refinable: Callable[[str], cs.Model], volume: cs.Volume
) -> None:
    session = cs.Session(refinable("fbrs-c"), volume)
    session.click(CENTRE)
    session.click(BESIDE, positive=False)
    first = session.prediction
    assert first.tuning is not None
    click = (*first.clicks, cs.Click((21, 44, 52), not first.mask[21, 44, 52]))
    warm = cs.predict(session.model, volume, click, first)
    cold = cs.predict(session.model, volume, click, replace(first, tuning=None))
    assert warm.refinement.evaluations >= 1
    assert not same_tuning(warm.tuning, cold.tuning)


def test_a_budget_cuts_the_search_short_and_refine_completes_it(
    refinable: Callable[[str], cs.Model], volume: cs.Volume
) -> None:
    session = cs.Session(refinable("fbrs-c"), volume)
    session.click(CENTRE)
    session.click(BESIDE, positive=False, budget_ms=1e-6)
    assert not session.final
    assert session.prediction.refinement.evaluations == 1
    assert session.mask[CENTRE]
    assert not session.mask[BESIDE]
    session.refine()
    assert session.final
    assert session.prediction.refinement.evaluations > 1
    check_answer(session)


def test_the_smallest_budgets_end_too(
    refinable: Callable[[str], cs.Model], volume: cs.Volume
) -> None:
    session = cs.Session(refinable("fbrs-c"), volume)
    rounds = 0
    for place, positive in ((CENTRE, True), (BESIDE, False), ((5, 70, 90), False)):
        session.click(place, positive, budget_ms=1e-6)
        while not session.final:
            assert all(session.mask[click.zyx] == click.positive for click in session.clicks)
            session.refine(budget_ms=1e-6)
            rounds += 1
            assert rounds < 100
    assert rounds
    check_answer(session)


def test_a_sweep_obeys_by_balls_and_does_not_depend_on_where_it_began(
    refinable: Callable[[str], cs.Model], volume: cs.Volume
) -> None:
    model, clicks = refinable("fbrs-c"), [cs.Click(CENTRE), cs.Click(BESIDE, False)]
    answers = [
        cs.predict(model, volume, clicks, previous, whole_volume=True)
        for previous in (None, *(cs.predict(model, volume, clicks[:n]) for n in (1, 2)))
    ]
    for answer in answers:
        assert answer.swept
        assert all(answer.mask[click.zyx] == click.positive for click in clicks)
        assert np.array_equal(answer.mask, answers[0].mask)
        assert same_tuning(answer.tuning, answers[0].tuning)
        assert answer.refinement == answers[0].refinement
    assert answers[0].refinement.patches == 0
    assert answers[0].refinement.corrected >= 1


def test_a_negative_click_on_nothing_took_no_effort(
    refinable: Callable[[str], cs.Model], volume: cs.Volume
) -> None:
    mask = np.zeros(volume.shape, np.uint8)
    mask[CENTRE] = 1
    session = cs.Session(refinable("fbrs-c"), volume, mask)
    session.click(CENTRE, positive=False)
    assert session.prediction.box is None
    session.click(BESIDE, positive=False)
    assert session.prediction.refinement == Refinement()
    check_answer(session)


def test_a_recording_says_how_answers_were_refined(
    refinable: Callable[[str], cs.Model], volume: cs.Volume, tmp_path: Path
) -> None:
    session = cs.Session(refinable("fbrs-c"), volume)
    session.click(CENTRE)
    session.click(BESIDE, positive=False)
    path = tmp_path / "r.json"
    cs.write_recording(path, cs.record(session), volume)
    assert json.loads(path.read_text())["refine"] == "fbrs-c"
    recording = cs.read_recording(path, volume)
    assert recording == cs.record(session)
    steps = list(cs.replay(session.model, volume, recording, expect=True))
    assert np.array_equal(steps[-1].answer.mask, session.mask)
    said = r"another refinement: recorded was fbrs-c, this is none"
    with pytest.raises(cs.ReplayError, match=said):
        list(cs.replay(refinable("none"), volume, recording, expect=True))
    with pytest.raises(cs.ReplayError, match="this is fbrs-b"):
        check_same(recording, refinable("fbrs"), volume)


def test_recordings_from_before_it_existed_replay(
    refinable: Callable[[str], cs.Model], volume: cs.Volume, tmp_path: Path
) -> None:
    session = cs.Session(refinable("none"), volume)
    session.click(CENTRE)
    path = tmp_path / "r.json"
    cs.write_recording(path, cs.record(session), volume)
    content = json.loads(path.read_text())
    assert content.pop("refine") == "none"
    path.write_text(json.dumps(content))
    recording = cs.read_recording(path, volume)
    assert recording == cs.record(session)
    assert len(list(cs.replay(session.model, volume, recording, expect=True))) == 1
    with pytest.raises(cs.ReplayError, match="recorded was none, this is fbrs-c"):
        check_same(recording, refinable("fbrs-c"), volume)


def test_both_engines_obey(tiny_refinable: Path, volume: cs.Volume) -> None:
    for engine, precision in (("onnxruntime", "auto"), ("openvino", "auto")):
        options = {"engine": engine, "precision": precision, "refine": "fbrs"}
        with cs.load_model(tiny_refinable, **options) as model:
            session = cs.Session(model, volume)
            session.click(CENTRE)
            session.click(BESIDE, positive=False)
            check_answer(session)


def test_several_threads_share_a_model_and_its_refiner(
    refinable: Callable[[str], cs.Model], volume: cs.Volume
) -> None:
    model = refinable("fbrs-c").shared()

    def clicked(shift: int) -> np.ndarray:
        session = cs.Session(model, volume)
        session.click((20, 40, 50 + shift))
        return session.click((20, 40, 51 + shift), positive=False)

    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(clicked, [0, 9, 0, 9]))
    for shift, mask in zip([0, 9, 0, 9], together, strict=True):
        assert mask[20, 40, 50 + shift]
        assert not mask[20, 40, 51 + shift]
        assert np.array_equal(mask, together[shift // 9])
    assert model.refine == "fbrs-c"


REAL = ("fixtures/ts_aorta_image.nii.gz", "fixtures/cip64_image.nii.gz")


@pytest.mark.parametrize("seed", range(20))
def test_random_sessions_on_real_scans(shared_data: Path, seed: int) -> None:
    scan = cs.read_volume(shared_data / REAL[seed % len(REAL)])
    rng = np.random.default_rng(seed)
    with cs.load_model(refine="fbrs") as model:
        session = cs.Session(model, scan)
        z, y, x = (int(p) for p in rng.integers((0, 0, 0), scan.shape))
        session.click((z, y, x))
        for _ in range(4):
            random_step(session, rng)
            assert all(session.mask[click.zyx] == click.positive for click in session.clicks)
        check_answer(session)
