import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stand_ins import bright, make_ball, make_spec

import clickseg_infer as cs
from clickseg_infer.recording import check_same, image_hash, mask_hash

CENTRE = (20, 40, 50)


def clicked(model: cs.Model, volume: cs.Volume) -> cs.Session:
    session = cs.Session(model, volume)
    session.click(CENTRE)
    session.click((20, 40, 65))
    session.click((25, 40, 50), positive=False)
    return session


def darker(batch: np.ndarray) -> np.ndarray:
    """As `bright`, but it ignores negative clicks."""
    return bright(np.concatenate([batch[:, :2], 0 * batch[:, 2:3], batch[:, 3:]], axis=1))


def test_a_recording_replays_to_the_same_masks(
    bright_model: cs.Model, ball_volume: cs.Volume, tmp_path: Path
) -> None:
    session = clicked(bright_model, ball_volume)
    cs.write_recording(tmp_path / "r.json", cs.record(session), ball_volume)
    recording = cs.read_recording(tmp_path / "r.json", ball_volume)
    assert recording == cs.record(session)
    assert cs.read_clicks(tmp_path / "r.json", ball_volume) == session.clicks
    check_same(recording, bright_model, ball_volume)
    steps = list(cs.replay(bright_model, ball_volume, recording))
    assert [step.differs for step in steps] == [False] * 3
    assert np.array_equal(steps[-1].answer.mask, session.mask)


def test_a_replay_names_the_first_click_whose_mask_differs(
    bright_model: cs.Model, ball_volume: cs.Volume
) -> None:
    recording = cs.record(clicked(bright_model, ball_volume))
    other = cs.Model(make_spec(), cs.FunctionEngine(darker))
    steps = list(cs.replay(other, ball_volume, recording))
    assert [step.differs for step in steps] == [False, False, True]


def test_what_was_seen_is_recorded_after_undo_removal_and_from_a_mask(
    bright_model: cs.Model, ball_volume: cs.Volume
) -> None:
    mask = make_ball(10.0).voxels > 0
    session = cs.Session(bright_model, ball_volume, mask)
    session.click((12, 25, 25), positive=False)
    session.click(CENTRE)
    session.click((20, 40, 65))
    session.remove(0)
    session.undo()
    session.remove(1)
    recording = cs.record(session)
    assert set(recording.masks) == {1, 2}
    assert recording.masks[2] == mask_hash(session.prediction)
    check_same(recording, bright_model, ball_volume, mask)
    steps = list(cs.replay(bright_model, ball_volume, recording, mask))
    assert not any(step.differs for step in steps)
    with pytest.raises(cs.ReplayError, match="first mask"):
        check_same(recording, bright_model, ball_volume)


def test_a_negative_click_that_came_first_has_no_mask_of_its_own(
    bright_model: cs.Model, ball_volume: cs.Volume
) -> None:
    session = cs.Session(bright_model, ball_volume)
    session.set_clicks([cs.Click((5, 5, 5), False), cs.Click(CENTRE)])
    assert set(cs.record(session).masks) == {2}


def test_clicks_that_answer_nothing_are_refused_and_none_record_nothing(
    bright_model: cs.Model, ball_volume: cs.Volume
) -> None:
    session = cs.Session(bright_model, ball_volume)
    empty = cs.record(session)
    assert empty.masks == {}
    beside = replace(empty, clicks=(cs.Click((5, 5, 5), False),))
    with pytest.raises(cs.ClickError, match="positive"):
        list(cs.replay(bright_model, ball_volume, beside))


def test_another_image_model_or_engine_is_named(
    bright_model: cs.Model, ball_volume: cs.Volume
) -> None:
    recording = cs.record(clicked(bright_model, ball_volume))
    voxels = ball_volume.voxels.copy()
    voxels[0, 0, 0] += 1
    others = {
        "image": (bright_model, cs.Volume(voxels, ball_volume.affine)),
        "engine": (cs.Model(make_spec(), cs.FunctionEngine(bright, "else")), ball_volume),
        "model": (cs.Model(make_spec(), bright_model.engine, "abc"), ball_volume),
    }
    for what, (model, volume) in others.items():
        with pytest.raises(cs.ReplayError, match=f"another {what}"):
            check_same(recording, model, volume)


def test_an_images_hash_knows_voxels_and_affine_but_not_their_layout(
    ball_volume: cs.Volume,
) -> None:
    voxels, affine = ball_volume.voxels, ball_volume.affine
    turned = cs.Volume(np.asfortranarray(voxels), affine)
    assert image_hash(turned) == image_hash(ball_volume)
    assert image_hash(cs.Volume(voxels, affine * 1.01)) != image_hash(ball_volume)
    assert image_hash(cs.Volume(voxels + np.int16(1), affine)) != image_hash(ball_volume)


@pytest.mark.parametrize(
    "change", [{"image": 3}, {"expect": [{"after": 1}]}, {"expect": [{"after": "x"}]}]
)
def test_a_damaged_recording_gets_one_line(
    change: dict, bright_model: cs.Model, ball_volume: cs.Volume, tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    cs.write_recording(path, cs.record(clicked(bright_model, ball_volume)), ball_volume)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(cs.ClickError, match="damaged"):
        cs.read_recording(path, ball_volume)


def test_plain_click_files_hold_no_masks(
    bright_model: cs.Model, ball_volume: cs.Volume, tmp_path: Path
) -> None:
    path = tmp_path / "clicks.json"
    cs.write_clicks(path, [cs.Click(CENTRE)], ball_volume)
    recording = cs.read_recording(path, ball_volume)
    assert recording.masks == {}
    assert len(list(cs.replay(bright_model, ball_volume, recording))) == 1
    with pytest.raises(cs.ReplayError, match="no recorded masks"):
        list(cs.replay(bright_model, ball_volume, recording, expect=True))
    with pytest.raises(cs.ClickError, match="no clicks"):
        list(cs.replay(bright_model, ball_volume, replace(recording, clicks=())))


@pytest.mark.parametrize("masks", [{99: "x"}, {1: None, 99: "x"}, {2: None}])
def test_every_mask_must_have_been_recorded_and_every_recorded_one_replayed(
    masks: dict, bright_model: cs.Model, ball_volume: cs.Volume
) -> None:
    session = cs.Session(bright_model, ball_volume)
    session.click(CENTRE)
    session.click((20, 40, 65))
    recording = cs.record(session)
    kept = {n: recording.masks.get(n, text) for n, text in masks.items()}
    with pytest.raises(cs.ReplayError, match="recorded"):
        list(cs.replay(bright_model, ball_volume, replace(recording, masks=kept), expect=True))
