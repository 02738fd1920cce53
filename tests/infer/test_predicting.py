from pathlib import Path

import edt
import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff
from stand_ins import ORIENTATIONS, bright, make_ball, make_spec

import clickseg_infer as cs
from clickseg_infer.prediction import from_mask

CENTRE = (20, 40, 50)


def test_a_click_on_a_ball_gives_the_ball(bright_model: cs.Model, ball_volume: cs.Volume) -> None:
    answer = cs.predict(bright_model, ball_volume, [cs.Click(CENTRE)])
    assert cs.dice(ball_volume.voxels > 0, answer.mask) > 0.97
    assert answer.voxels == answer.mask.sum()
    looking = {"resample", "maps", "network", "stitch", "weigh", "components", "back"}
    assert set(answer.ms) == looking
    bounds = [(int(p.min()), int(p.max()) + 1) for p in np.nonzero(answer.mask)]
    assert answer.box == tuple(bounds)


@pytest.mark.parametrize("sure_one", [1, 2])
def test_the_first_answer_is_the_closer_look_of_which_the_network_is_surest(
    sure_one: int,
) -> None:
    volume = make_ball(12.0)
    looks: list[int] = []

    def scripted(batch: np.ndarray) -> np.ndarray:
        logits = bright(batch) / (1 if len(looks) in (0, sure_one) else 10)
        if len(looks) == 1:  # the first of the closer looks misses a half
            logits[..., logits.shape[-1] // 2 + 1 :] = -4
        looks.append(int((logits > 0).sum()))
        return logits

    model = cs.Model(make_spec(), cs.FunctionEngine(scripted))
    answer = cs.predict(model, volume, [cs.Click(CENTRE)])
    assert len(looks) == answer.patches == 3
    half = cs.dice(volume.voxels > 0, answer.mask) < 0.8
    assert half == (sure_one == 1)


@pytest.mark.parametrize("axis", range(3))
def test_two_voxels_apart_in_a_single_row_are_an_answer(axis: int) -> None:
    volume = cs.Volume(np.zeros((32, 32, 32), np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))

    def two(batch: np.ndarray) -> np.ndarray:
        logits = np.full((1, 1, *batch.shape[2:]), -4, np.float32)
        across = np.moveaxis(logits, 2 + axis, 2)
        across[:, :, 15, 16, 16] = across[:, :, 17, 16, 16] = 4
        return logits

    model = cs.Model(make_spec(), cs.FunctionEngine(two))
    answer = cs.predict(model, volume, [cs.Click((16, 16, 16))])
    assert answer.box is not None
    sizes = sorted(high - low for low, high in answer.box)
    assert sizes == [1, 1, 3]
    assert answer.voxels == 2


def test_an_incremental_answer_equals_a_recomputation(
    bright_model: cs.Model, ball_volume: cs.Volume
) -> None:
    clicks = (
        cs.Click(CENTRE),
        cs.Click((20, 40, 60)),
        cs.Click((25, 40, 50), False),
        cs.Click((14, 45, 50)),
    )
    answer = None
    for count in range(1, len(clicks) + 1):
        answer = cs.predict(bright_model, ball_volume, clicks[:count], answer)
        fresh = cs.predict(bright_model, ball_volume, clicks[:count])
        assert answer.box == fresh.box
        assert np.array_equal(answer.mask, fresh.mask)


def test_the_same_arguments_give_the_same_bits_and_touch_nothing(
    bright_model: cs.Model, ball_volume: cs.Volume
) -> None:
    before = ball_volume.voxels.copy()
    clicks = [cs.Click(CENTRE), cs.Click((25, 40, 50), False)]
    first = cs.predict(bright_model, ball_volume, clicks)
    second = cs.predict(bright_model, ball_volume, clicks)
    assert np.array_equal(first.mask, second.mask)
    assert np.array_equal(ball_volume.voxels, before)
    with pytest.raises(ValueError, match="read-only"):
        ball_volume.voxels[0, 0, 0] = 1


def test_a_previous_answer_to_other_clicks_is_refused(
    bright_model: cs.Model, ball_volume: cs.Volume
) -> None:
    answer = cs.predict(bright_model, ball_volume, [cs.Click(CENTRE)])
    with pytest.raises(cs.ClickError, match="previous"):
        cs.predict(bright_model, ball_volume, [cs.Click((21, 40, 50))], answer)


def test_an_object_larger_than_a_patch_is_followed_into_its_neighbours() -> None:
    volume = make_ball(70.0, (80, 160, 200))  # 140 mm across; the widest patch spans 128 mm
    model = cs.Model(make_spec(), cs.FunctionEngine(bright))
    answer = cs.predict(model, volume, [cs.Click((40, 80, 100))])
    assert answer.patches > 1
    assert cs.dice(volume.voxels > 0, answer.mask) > 0.95


def test_every_click_is_looked_at_however_long_the_object() -> None:
    voxels = np.full((300, 30, 30), -100, np.int16)
    voxels[10:290, 10:20, 10:20] = 100  # 840 mm long; the widest patch spans 128 mm
    volume = cs.Volume(voxels, np.diag([2.0, 2.0, 3.0, 1.0]))
    model = cs.Model(make_spec(), cs.FunctionEngine(bright))
    clicks = [cs.Click((z, 15, 15)) for z in (20, 280, 150)]
    ends = cs.predict(model, volume, clicks).mask
    assert all(ends[click.zyx] for click in clicks)
    cut = cs.predict(model, volume, [*clicks, cs.Click((281, 15, 15), False)])
    assert not cut.mask[281, 15, 15]


def test_a_second_part_far_away_is_found() -> None:
    voxels = np.full((200, 40, 40), -100, np.int16)
    voxels[10:20, 15:25, 15:25] = voxels[180:190, 15:25, 15:25] = 100
    volume = cs.Volume(voxels, np.diag([2.0, 2.0, 2.5, 1.0]))
    model = cs.Model(make_spec(), cs.FunctionEngine(bright))
    clicks = [cs.Click((15, 20, 20)), cs.Click((185, 20, 20))]
    mask = cs.predict(model, volume, clicks).mask
    assert all(mask[click.zyx] for click in clicks)
    assert cs.dice(voxels > 0, mask) > 0.8


def test_a_negative_click_adds_nothing_to_nothing(bright_model: cs.Model) -> None:
    volume = make_ball(12.0, (240, 80, 100))
    clicks = [cs.Click((10, 40, 50)), cs.Click((112, 40, 50), False)]  # in fat, and by the ball
    assert cs.predict(bright_model, volume, clicks[:1]).voxels == 0
    assert cs.predict(bright_model, volume, clicks).voxels == 0
    assert cs.predict(bright_model, volume, [*clicks, cs.Click((120, 40, 50))]).voxels > 0


def test_nothing_continues_a_swept_answer(bright_model: cs.Model, ball_volume: cs.Volume) -> None:
    clicks = [cs.Click(CENTRE)]
    swept = cs.predict(bright_model, ball_volume, clicks, whole_volume=True)
    with pytest.raises(cs.ClickError, match="swept"):
        cs.predict(bright_model, ball_volume, [*clicks, cs.Click((20, 41, 50))], swept)


def test_a_sweep_beyond_memory_is_refused(bright_model: cs.Model) -> None:
    volume = cs.Volume(np.zeros((60, 60, 60), np.int16), np.diag([50.0, 50.0, 50.0, 1.0]))
    with pytest.raises(cs.VolumeError, match="too large"):
        cs.predict(bright_model, volume, [cs.Click((30, 30, 30))], whole_volume=True)


def test_cost_follows_the_object_not_the_volume(bright_model: cs.Model) -> None:
    small, tall = make_ball(25.0), make_ball(25.0, (240, 80, 100))
    answers = [
        cs.predict(bright_model, volume, [cs.Click(tuple(n // 2 for n in volume.shape))])
        for volume in (small, tall)
    ]
    assert answers[0].patches == answers[1].patches
    assert answers[0].voxels == pytest.approx(answers[1].voxels, rel=0.02)


def test_the_whole_volume_can_be_swept(bright_model: cs.Model, ball_volume: cs.Volume) -> None:
    clicks = [cs.Click(CENTRE)]
    near = cs.predict(bright_model, ball_volume, clicks)
    swept = cs.predict(bright_model, ball_volume, clicks, whole_volume=True)
    assert swept.patches > near.patches
    assert cs.dice(near.mask, swept.mask) > 0.95


def test_what_is_not_connected_to_a_click_is_left_out(bright_model: cs.Model) -> None:
    volume = make_ball(12.0)
    voxels = volume.voxels.copy()
    voxels[20, 38:43, 85:90] = 100
    both = cs.Volume(voxels, volume.affine)
    mask = cs.predict(bright_model, both, [cs.Click(CENTRE)]).mask
    assert mask[CENTRE] == 1
    assert mask[20, 40, 87] == 0
    mask = cs.predict(bright_model, both, [cs.Click(CENTRE), cs.Click((20, 40, 87))]).mask
    assert mask[20, 40, 87] == 1


def test_a_negative_click_before_a_positive_one_waits(
    bright_model: cs.Model, ball_volume: cs.Volume
) -> None:
    answer = cs.predict(bright_model, ball_volume, [cs.Click((5, 5, 5), False), cs.Click(CENTRE)])
    assert answer.voxels > 0


def inverse(orientation: np.ndarray) -> np.ndarray:
    back = np.empty_like(orientation)
    for axis, (to, flip) in enumerate(orientation):
        back[to] = axis, flip
    return back


def test_all_orientations_of_a_file_give_the_same_mask(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Through files and the bundled model: nothing anatomical depends on how a file stores it."""
    volume = make_ball(25.0)
    noisy = (volume.voxels + rng.normal(0, 30, volume.shape)).astype(np.int16).T
    affine = np.array([[1.2, 0, 0, -7], [0, 1.5, 0, 9], [0, 0, 3, 11], [0, 0, 0, 1.0]])
    clicks = [(50, 40, 20), (58, 44, 23)]
    expected = None
    with cs.load_model() as model:
        for orientation in ORIENTATIONS:
            stored = apply_orientation(noisy, orientation)
            stored_affine = affine @ inv_ornt_aff(orientation, noisy.shape)
            nib.save(nib.Nifti1Image(stored, stored_affine), tmp_path / "a.nii")
            image = cs.read_volume(tmp_path / "a.nii")
            anatomical = [affine @ [*click, 1] for click in clicks]
            at = [image.zyx_of_ras(tuple(position[:3])) for position in anatomical]
            answer = cs.predict(model, image, [cs.Click(zyx) for zyx in at])
            cs.write_mask(tmp_path / "m.nii", answer.mask, like=image)
            mask = np.asarray(nib.load(tmp_path / "m.nii").dataobj)
            assert mask.shape == stored.shape
            undone = apply_orientation(mask, inverse(orientation))
            expected = undone if expected is None else expected
            assert np.array_equal(undone, expected), orientation
    assert 0 < expected.sum() < expected.size


def test_a_positive_click_only_adds_and_a_negative_one_only_takes_away(
    ball_volume: cs.Volume,
) -> None:
    def shrunk(batch: np.ndarray) -> np.ndarray:
        """Only what is near a click of either kind, whatever was known."""
        ct, negative, geodesic = batch[:, :1], batch[:, 2:3], batch[:, 4:5]
        return np.where((ct > 0) & (geodesic > 0.965) & (negative == 0), 4.0, -4.0).astype("f4")

    spec = make_spec(spacing_mm=(4.0, 4.0, 4.0))
    model = cs.Model(spec, cs.FunctionEngine(shrunk))
    session = cs.Session(model, ball_volume)
    before = session.click(CENTRE)
    assert before.any()
    for zyx, positive in (((26, 40, 50), True), ((20, 52, 50), False), ((14, 40, 50), True)):
        after = session.click(zyx, positive)
        if positive:
            assert (after >= before).all()
        else:
            assert (after <= before).all()
        assert (after != before).any()
        before = after


def test_the_first_answer_does_not_depend_on_the_wide_looks_mask(ball_volume: cs.Volume) -> None:
    known = []

    def remember(batch: np.ndarray) -> np.ndarray:
        known.append(float(batch[0, 3].sum()))
        return bright(batch)

    model = cs.Model(make_spec(), cs.FunctionEngine(remember))
    answer = cs.predict(model, ball_volume, [cs.Click(CENTRE)])
    assert answer.patches == len(known) >= 2
    assert known[0] == known[1] == 0


def test_the_second_click_is_looked_at_from_as_close_as_the_object_fits() -> None:
    seen: list[np.ndarray] = []

    def watching(batch: np.ndarray) -> np.ndarray:
        seen.append(batch[0, 0] > 0)
        return bright(batch)

    model, volume = cs.Model(make_spec(), cs.FunctionEngine(watching)), make_ball(40.0)
    first = cs.predict(model, volume, [cs.Click(CENTRE)])
    cs.predict(model, volume, [*first.clicks, cs.Click((20, 40, 80), positive=False)], first)
    inside = seen[first.patches :]
    assert len(inside) == 1
    for length, size in zip(np.ptp(np.argwhere(inside[0]), axis=0), (32, 32, 32), strict=True):
        assert 0.88 * size < length + 1 < size


def test_late_clicks_are_looked_at_closely_in_one_patch() -> None:
    volume = make_ball(70.0, (80, 160, 200))
    model = cs.Model(make_spec(), cs.FunctionEngine(bright))
    clicks = [cs.Click((40, 80, 100 + 5 * n)) for n in range(6)]
    answer = None
    for count in range(1, 7):
        answer = cs.predict(model, volume, clicks[:count], answer)
        if count >= 4:
            assert answer.patches == 1
        elif count == 1:
            assert answer.patches > 1


def distances(volume: cs.Volume, click: cs.Click) -> np.ndarray:
    """Of every voxel from a click, in mm."""
    away = np.moveaxis(np.indices(volume.shape), 0, -1) - click.zyx
    return np.linalg.norm(away * volume.spacing_mm, axis=-1)


@pytest.mark.parametrize("begun", [False, True])
def test_a_negative_click_does_not_take_everything(begun: bool) -> None:
    """A network that gives up the whole object at a negative click."""

    def gives_up(batch: np.ndarray) -> np.ndarray:
        return bright(batch) - 20 * batch[:, 2:3].max()

    volume = make_ball(25.0)
    model = cs.Model(make_spec(), cs.FunctionEngine(gives_up))
    start = from_mask(volume.voxels > 0) if begun else None
    clicks = [] if begun else [cs.Click(CENTRE)]
    before = start or cs.predict(model, volume, clicks)
    clicks.append(cs.Click((20, 40, 65), positive=False))
    after = cs.predict(model, volume, clicks, before)
    if begun:
        assert after.voxels == 0  # with no positive click there is nothing to go by
        return
    mask, (positive, negative) = after.mask, clicks
    assert mask[CENTRE]
    # It reaches what is at most twice as far from it as from the positive one.
    kept = distances(volume, negative) > 2 * distances(volume, positive)
    assert np.array_equal(mask, before.mask & kept)


@pytest.mark.parametrize("guarded", [False, True])
def test_a_positive_click_does_not_flood_what_is_nearer_to_negative_ones(guarded: bool) -> None:
    """A network that takes everything once there are two positive clicks."""

    def floods(batch: np.ndarray) -> np.ndarray:
        return bright(batch) + 20 * (batch[:, 1:2].sum() > 40)  # a disk has 33 voxels

    volume = make_ball(25.0)
    model = cs.Model(make_spec(), cs.FunctionEngine(floods))
    clicks = [cs.Click(CENTRE), cs.Click((20, 40, 80), positive=False)][: 1 + guarded]
    before = cs.predict(model, volume, clicks)
    assert not before.mask[20, 40, 76]
    after = cs.predict(model, volume, [*clicks, cs.Click((20, 40, 60))], before)
    assert after.voxels > 1.5 * before.voxels
    assert after.clicks == (*clicks, cs.Click((20, 40, 60)))
    assert after.mask[20, 40, 69]
    assert after.mask[20, 40, 76] == (not guarded)  # the middle is at 70


@pytest.mark.parametrize("late", [False, True])
def test_late_positive_clicks_add_only_around_themselves(late: bool) -> None:
    """However little they would add."""
    ball = make_ball(25.0)
    voxels = ball.voxels.copy()
    voxels[18:23, 37:44, 71:80] = np.maximum(voxels[18:23, 37:44, 71:80], 60)
    volume = cs.Volume(voxels, ball.affine)
    clicks = [cs.Click(CENTRE), cs.Click((20, 40, 82), positive=False)]
    clicks += [cs.Click((20, 40, 40)), cs.Click((20, 40, 60))] * late
    positive = sum(click.positive for click in clicks)

    def grows(batch: np.ndarray) -> np.ndarray:
        """Takes what is attached to the ball, too, after one more positive click."""
        more = batch[:, 1:2].sum() > 33 * positive  # a disk has 33 voxels
        return (20 * (batch[:, :1] - (0.0 if more else 0.2))).astype(np.float32)

    model = cs.Model(make_spec(), cs.FunctionEngine(grows))
    before = cs.predict(model, volume, clicks)
    latest = cs.Click((20, 40, 66))
    added = cs.predict(model, volume, [*clicks, latest], before).mask > before.mask
    assert 0 < added.sum() < 0.3 * before.voxels
    beyond = distances(volume, latest) > 0.6 * distances(volume, clicks[1])
    assert (added & beyond).any() == (not late)
    assert (added & ~beyond).any()


@pytest.mark.parametrize("late", [False, True])
def test_late_negative_clicks_take_away_only_around_their_own_depth(late: bool) -> None:
    volume = make_ball(25.0)
    clicks = [cs.Click(CENTRE)] + [cs.Click((20, 40, 40)), cs.Click((20, 40, 60))] * late

    def doubts(batch: np.ndarray) -> np.ndarray:
        """Takes the ball, and weakly doubts all of it after a negative click."""
        inside = -4.0 if batch[:, 2:3].any() else 8.0
        return np.where(batch[:, :1] > 0, inside, -8.0).astype(np.float32)

    model = cs.Model(make_spec(), cs.FunctionEngine(doubts))
    before = cs.predict(model, volume, clicks)
    latest = cs.Click((20, 40, 67), positive=False)
    after = cs.predict(model, volume, [*clicks, latest], before)
    removed = before.mask > after.mask
    depth = edt.edt(before.mask, anisotropy=volume.spacing_mm)
    assert removed[latest.zyx]
    assert 3 < depth[latest.zyx] <= 6
    assert (removed & (depth > 12)).any() == (not late)


def test_a_negative_click_takes_less_than_half_wherever_it_is() -> None:
    volume = make_ball(25.0)
    model = cs.Model(make_spec(), cs.FunctionEngine(bright))
    clicks = [cs.Click(CENTRE), cs.Click((20, 40, 60), False)]
    before, after = (cs.predict(model, volume, clicks[:n]) for n in (1, 2))
    assert before.voxels / 2 < after.voxels < before.voxels
