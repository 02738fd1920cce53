from pathlib import Path

import numpy as np
import pytest
from stand_ins import make_spec

import clickseg_infer as cs
from clickseg_infer.clicks import Click
from clickseg_train import exercises
from clickseg_train.augment import Augmentation
from clickseg_train.cases import LoadedCase, load_case, read_dataset
from clickseg_train.config import SamplingConfig
from clickseg_train.known_masks import coarse, half_known, known_mask
from clickseg_train.objects import KINDS, TrainingObject, draw_object

SIZE = (32, 32, 32)


@pytest.fixture(scope="module")
def case(phantoms: Path) -> LoadedCase:
    return load_case(read_dataset(phantoms).train[0])


def drawn(case: LoadedCase, kind: str, count: int = 12) -> list[TrainingObject]:
    sampling = SamplingConfig(spacing_mm=(2.0, 5.0))
    items = (
        draw_object(np.random.default_rng(n), case, kind, sampling, SIZE, case.objects)
        for n in range(6 * count)
    )
    return [item for item in items if item is not None][:count]


@pytest.mark.parametrize("kind", KINDS)
def test_objects_are_visible_and_repeatable(kind: str, case: LoadedCase) -> None:
    items = drawn(case, kind)
    assert len(items) == 12
    for item in items:
        assert item.hu.shape == item.truth.shape == SIZE
        assert item.truth.sum() >= 30
        assert np.isfinite(item.hu).all()
    again = drawn(case, kind, 3)
    assert all(np.array_equal(a.hu, b.hu) for a, b in zip(items, again, strict=False))


def test_labels_lie_on_what_they_label(case: LoadedCase) -> None:
    """The spine is brighter than the rest, wherever its patch was cut."""
    spine = tuple(found for found in case.objects if found.value == 9)
    only = LoadedCase(case.volume, case.label, spine)
    for item in drawn(only, "labels", 6):
        inside, outside = item.hu[item.truth > 0], item.hu[item.truth == 0]
        assert np.median(inside) > np.median(outside) + 50


def test_pasted_shapes_can_be_seen(case: LoadedCase) -> None:
    for item in drawn(case, "pasted"):
        shell = np.zeros_like(item.truth)
        for axis in range(3):
            for step in (-2, 2):
                shell |= np.roll(item.truth, step, axis)
        shell = (shell > 0) & (item.truth == 0)
        assert abs(item.hu[item.truth > 0].mean() - item.hu[shell].mean()) > 5


def test_augmentation_moves_image_and_truth_together(rng: np.random.Generator) -> None:
    truth = np.zeros(SIZE, np.uint8)
    truth[4:12, 8:28, 10:16] = 1
    item = TrainingObject(np.where(truth, 900, -900).astype(np.float32), truth, "labels")
    transform = Augmentation()
    seen = set()
    for n in range(20):
        varied = transform(item, np.random.default_rng(n))
        seen.add(varied.truth.tobytes())
        agree = (varied.hu > 0) == (varied.truth > 0)
        assert agree.mean() > 0.97
        again = transform(item, np.random.default_rng(n))
        assert np.array_equal(varied.hu, again.hu)
    assert len(seen) > 10


def test_what_lies_beside_an_object_moves_with_it_and_is_not_made_up() -> None:
    truth, others = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    truth[4:12, 8:28, 10:16] = 1
    others[16:28, 4:12, 18:26] = 1
    hu = np.where(truth, 900, np.where(others, 300, -900)).astype(np.float32)
    for n in range(20):
        rng = np.random.default_rng(n)
        varied = Augmentation()(TrainingObject(hu, truth, "labels", others), rng, enhance=False)
        assert varied.others is not None
        agree = ((varied.hu > -300) & (varied.hu < 600)) == (varied.others > 0)
        assert agree.mean() > 0.95
        alone = Augmentation()(TrainingObject(hu, truth, "labels"), np.random.default_rng(n))
        assert alone.others is None


def test_patients_are_mirrored_more_often_than_turned() -> None:
    """A mark at the upper end stays at the upper end in most variations of a label."""
    truth = np.zeros(SIZE, np.uint8)
    truth[24:30, 10:22, 10:22] = 1
    hu = np.where(truth, 300, 0).astype(np.float32)
    up = {}
    for kind in ("labels", "regions"):
        varied = [
            Augmentation()(TrainingObject(hu, truth, kind), np.random.default_rng(n))
            for n in range(60)
        ]
        up[kind] = np.mean([np.argwhere(v.truth).mean(axis=0)[0] > 20 for v in varied])
    assert up["labels"] > 0.65
    assert up["regions"] < 0.45


def test_a_label_takes_up_contrast_as_a_whole() -> None:
    truth = np.zeros(SIZE, np.uint8)
    truth[8:24, 8:24, 8:24] = 1
    hu = np.zeros(SIZE, np.float32)
    differences = []
    for n in range(60):
        varied = Augmentation()(TrainingObject(hu, truth, "labels"), np.random.default_rng(n))
        inside, outside = (varied.hu[varied.truth == v].mean() for v in (1, 0))
        differences.append(abs(inside - outside))
    assert 0.1 < np.mean(np.array(differences) > 5) < 0.6


@pytest.mark.parametrize("cell", [2, 3, 4])
def test_a_coarse_mask_is_made_of_cells(cell: int, rng: np.random.Generator) -> None:
    truth = np.zeros(SIZE, np.uint8)
    truth[5:26, 7:21, 9:28] = 1
    rough = coarse(truth, cell)
    assert rough.shape == SIZE
    assert cs.dice(truth, rough) > 0.7
    whole = [n // cell * cell for n in SIZE]
    cells = rough[: whole[0], : whole[1], : whole[2]].reshape(
        whole[0] // cell, cell, whole[1] // cell, cell, whole[2] // cell, cell
    )
    assert np.array_equal(cells.min(axis=(1, 3, 5)), cells.max(axis=(1, 3, 5)))


def test_known_masks_are_wrong_in_many_ways() -> None:
    truth, others = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    truth[6:26, 6:26, 4:22] = 1
    others[6:26, 6:26, 24:30] = 1
    item = TrainingObject(np.zeros(SIZE, np.float32), truth, "labels", others)
    scores = []
    for seed in range(60):
        known = known_mask(np.random.default_rng(seed), item)
        assert known.dtype == np.uint8
        assert known.shape == item.truth.shape
        scores.append(cs.dice(item.truth, known))
    assert np.mean(np.array(scores) < 1) > 0.9
    assert np.mean(np.array(scores) > 0.2) > 0.7


def test_half_known_is_part_of_the_truth(rng: np.random.Generator) -> None:
    truth = np.zeros(SIZE, np.uint8)
    truth[4:20, 8:28, 10:16] = 1
    for _ in range(20):
        known = half_known(rng, truth)
        assert known.sum() < truth.sum()
        assert not known[truth == 0].any()


def exercise_rounds(seed: int, rounds: int) -> list[tuple[np.ndarray, exercises.Exercise]]:
    spec, rng = make_spec(patch_size=SIZE), np.random.default_rng(seed)
    truth = np.zeros(SIZE, np.uint8)
    truth[6:26, 8:24, 10:22] = 1
    item = TrainingObject(np.where(truth, 100, -100).astype(np.float32), truth, "labels")
    exercise = exercises.start(rng, spec, item)
    result = []
    for _ in range(rounds):
        inputs = np.full((len(spec.channels), *SIZE), np.nan, np.float32)
        exercises.prepare(exercise, rng, spec, inputs)
        result.append((inputs, exercise))
        half = np.where(truth, 5.0, -5.0)
        half[:, :, 16:] = -5.0
        exercises.answer(exercise, half.astype(np.float32), 0.0)
    return result


def test_some_users_begin_with_clicks_on_other_objects(case: LoadedCase) -> None:
    item = next(item for item in drawn(case, "labels") if item.others.sum() > 500)
    assert not (item.others & item.truth).any()
    on_others = 0
    for seed in range(200):
        exercise = exercises.start(np.random.default_rng(seed), make_spec(), item)
        assert all(not c.positive and not item.truth[c.zyx] for c in exercise.clicks)
        on_others += any(item.others[c.zyx] for c in exercise.clicks)
    assert on_others > 200 * 0.25 * 0.3


def test_exercises_show_what_inference_shows() -> None:
    for seed in range(12):
        for inputs, exercise in exercise_rounds(seed, 4):
            assert np.isfinite(inputs).all()
            assert inputs[0][exercise.truth > 0] == pytest.approx(0.5)
            assert set(np.unique(inputs[3])) <= {0.0, 1.0}
        positives = [c for c in exercise.clicks if c.positive]
        assert positives
        for click in exercise.clicks:
            assert bool(exercise.truth[click.zyx]) == click.positive


def test_corrections_go_where_the_answer_is_wrong() -> None:
    later: list[Click] = []
    for seed in range(12):
        exercise = exercise_rounds(seed, 5)[-1][1]
        later += [click for click in exercise.clicks[2:] if click.positive]
    in_missed_half = [click.zyx[2] >= 16 for click in later]
    assert np.mean(in_missed_half) > 0.8
