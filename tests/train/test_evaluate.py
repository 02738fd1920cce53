import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from stand_ins import make_ball

import clickseg_infer as cs
from clickseg_infer.simulate import deepest_click
from clickseg_train.baseline import grown_region, smoothed
from clickseg_train.cases import Case, read_dataset
from clickseg_train.cvpr2025 import CSV as SCORES
from clickseg_train.cvpr2025 import answer_npz, challenge_click, evaluate_folder, read_npz
from clickseg_train.evaluate import USERS, Protocol, evaluate, values_named
from clickseg_train.evaluation_report import CSV, CURVE, WORST, write_report
from clickseg_train.surface_dice import surface_dice


@pytest.fixture
def ball_case(ball_volume: cs.Volume, tmp_path: Path) -> Case:
    image, label = tmp_path / "ball.nii.gz", tmp_path / "ball_label.nii.gz"
    cs.write_volume(image, ball_volume)
    cs.write_mask(label, (ball_volume.voxels > 0).astype(np.uint8), like=ball_volume)
    return Case("ball", image, label)


def slab(low: int, high: int) -> np.ndarray:
    mask = np.zeros((20, 40, 40), bool)
    mask[low:high, 5:35, 5:35] = True
    return mask


def test_surface_dice_counts_what_lies_within_the_tolerance() -> None:
    spacing = (1.0, 0.7, 0.7)
    assert surface_dice(slab(5, 15), slab(5, 15), spacing) == 1
    assert surface_dice(slab(5, 15), slab(6, 15), spacing) == 1  # 1 mm off, of 2 allowed
    one_face_off = surface_dice(slab(5, 15), slab(9, 15), spacing)
    # One of two faces of 21 mm x 21 mm is 4 mm off; the sides agree as far as both have them.
    assert 0.5 < one_face_off < 0.75
    assert surface_dice(slab(5, 15), slab(9, 15), spacing, tolerance_mm=4.5) > 0.95
    assert surface_dice(slab(5, 5), slab(5, 5), spacing) == 1
    assert surface_dice(slab(5, 15), slab(5, 5), spacing) == 0


def test_the_deepest_click_prefers_round_errors_to_large_flat_ones() -> None:
    truth, mask = np.zeros((30, 60, 60), bool), np.zeros((30, 60, 60), bool)
    truth[2:4] = True  # flat and large, missed
    mask[10:20, 10:20, 10:20] = True  # round and small, overrun
    click = deepest_click(truth, mask)
    assert click is not None
    assert not click.positive
    assert all(13 <= p <= 16 for p in click.zyx)
    largest = cs.next_click(truth, mask)
    assert largest is not None
    assert largest.positive
    clicked = [(z, y, x) for z in range(10, 20) for y in range(10, 20) for x in range(10, 20)]
    again = deepest_click(truth, mask, clicked=clicked)
    assert again is not None
    assert again.positive
    assert deepest_click(truth, truth) is None


@pytest.mark.parametrize("user", USERS)
def test_every_user_segments_a_ball(user: str, bright_model: cs.Model, ball_case: Case) -> None:
    found = evaluate(bright_model, [ball_case], Protocol(3, user, baseline=True))
    (result,) = found.cases
    assert result.dice[0] > 0.95
    assert len(result.dice) == len(result.surface_dice) == len(result.baseline_dice) == 3
    assert result.surface_dice[-1] > 0.95
    assert abs(result.volume_error[-1]) < 0.1
    assert result.clicks[0].positive
    assert len(result.click_ms) == len(result.clicks) <= 3
    again = evaluate(bright_model, [ball_case], Protocol(3, user, surfaces=False))
    assert again.cases[0].clicks == result.clicks
    assert again.cases[0].surface_dice == ()


def test_unknown_users_and_objects(bright_model: cs.Model, ball_case: Case, phantoms: Path) -> None:
    with pytest.raises(cs.DatasetError, match="unknown user 'eye', allowed are centre"):
        Protocol(user="eye")
    with pytest.raises(cs.DatasetError, match="no value of 7"):
        evaluate(bright_model, [ball_case], Protocol(1), [7])
    dataset = read_dataset(phantoms)
    assert values_named(["spleen", "1"], dataset) == (2, 1)
    with pytest.raises(cs.DatasetError, match=r"\['heart'\]; known are \['liver', 'spleen'\]"):
        values_named(["heart"], dataset)


def test_region_growing_finds_a_ball_and_obeys_negative_clicks(
    ball_volume: cs.Volume, rng: np.random.Generator
) -> None:
    truth = ball_volume.voxels > 0
    noise = rng.normal(0, 10, truth.shape).astype(np.int16)  # it goes by the region's deviation
    image = smoothed(cs.Volume(ball_volume.voxels + noise, ball_volume.affine))
    grown = grown_region(image, (cs.Click((20, 40, 50)),))
    assert cs.dice(truth, grown) > 0.9
    clicks = (cs.Click((20, 34, 50)), cs.Click((20, 46, 50), positive=False))
    half = grown_region(image, clicks)
    assert half[20, 34, 50] == 1
    assert half[20, 46, 50] == 0
    assert 0.3 < half.sum() / grown.sum() < 0.7


def test_a_report_in_files(bright_model: cs.Model, ball_case: Case, tmp_path: Path) -> None:
    found = evaluate(bright_model, [ball_case], Protocol(2, baseline=True))
    cases = {str(ball_case.image): ball_case}
    (tmp_path / "report").mkdir()
    write_report(tmp_path / "report", found, bright_model, cases, {1: "ball"})
    rows = list(csv.DictReader((tmp_path / "report" / CSV).open()))
    assert len(rows) == len(found.cases[0].clicks)
    assert rows[0]["label"] == "ball"
    assert float(rows[0]["dice"]) == pytest.approx(found.cases[0].dice[0], abs=1e-4)
    assert (int(rows[0]["z"]), int(rows[0]["y"]), int(rows[0]["x"])) == found.cases[0].clicks[0].zyx
    for name in (CURVE, WORST):
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_a_report_of_what_is_perfect(bright_model: cs.Model, tmp_path: Path) -> None:
    voxels = np.full((16, 40, 40), -100, np.int16)
    voxels[4:12, 8:32, 8:32] = 100
    volume = cs.Volume(voxels, np.diag([2.0, 2.0, 2.0, 1.0]))
    case = Case("box", tmp_path / "box.nii.gz", tmp_path / "label.nii.gz")
    cs.write_volume(case.image, volume)
    answer = cs.predict(bright_model, volume, [cs.Click((8, 20, 20))]).mask
    cs.write_mask(case.label, answer, like=volume)
    found = evaluate(bright_model, [case], Protocol(1))
    assert found.mean_dice == (1.0,)
    write_report(tmp_path, found, bright_model, {str(case.image): case}, {})
    assert (tmp_path / WORST).read_bytes().startswith(b"\x89PNG")


def npz(path: Path, **changes: object) -> Path:
    ball = make_ball(25.0)
    grey = np.where(ball.voxels > 0, 200, 60).astype(np.uint8)
    content: dict = {
        "imgs": grey,
        "gts": (ball.voxels > 0).astype(np.uint8),
        "spacing": np.array([3.0, 1.5, 1.2]),
        **changes,
    }
    np.savez_compressed(path, **{k: v for k, v in content.items() if v is not None})
    return path


def test_the_challenges_clicks() -> None:
    truth, answer = np.zeros((20, 30, 30), bool), np.zeros((20, 30, 30), bool)
    truth[5:14, 5:14, 5:14] = True
    answer[16:18, 20:22, 20:22] = True
    click = challenge_click(truth, answer)
    assert click == cs.Click((9, 9, 9), positive=True)
    click = challenge_click(np.zeros_like(truth), truth)
    assert click == cs.Click((9, 9, 9), positive=False)
    assert challenge_click(truth, truth) is None
    row = np.zeros((1, 1, 3), bool)
    row[..., ::2] = True  # two errors in a single row
    assert challenge_click(row, np.zeros_like(row)) is not None
    # Missed and overrun parts that touch are one error: together larger than a third part.
    answer = np.roll(truth, 9, axis=2)
    truth[15:20, 20:28, 3:27] = True
    click = challenge_click(truth, answer)
    assert click is not None
    assert 5 <= click.zyx[0] < 14


def test_the_challenges_clicks_stay_away_from_the_images_border() -> None:
    truth = np.zeros((20, 30, 30), bool)
    truth[:13, 10:23, 10:23] = True
    assert challenge_click(truth, np.zeros_like(truth)) == cs.Click((6, 16, 16), positive=True)


def test_the_challenge_averages_classes_before_it_looks_at_dice(
    bright_model: cs.Model, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    truth = 2 * (make_ball(25.0).voxels > 0).astype(np.uint8)
    truth[0, 0, :2] = 1  # cannot be found
    npz(tmp_path / "in" / "case.npz", gts=truth)
    evaluate_folder(bright_model, tmp_path / "in", tmp_path / "out")
    (row,) = csv.DictReader((tmp_path / "out" / SCORES).open())
    assert 0.2 < float(row["DSC_2"]) < 0.6
    assert 0.4 < float(row["NSD_2"]) < 0.6
    assert row["num_class"] == "2"
    assert row["runtime_upperbound"] == "180"


def test_the_challenges_truth_may_lie_apart(bright_model: cs.Model, tmp_path: Path) -> None:
    cases, truths = tmp_path / "in", tmp_path / "truths"
    for folder in (cases, truths):
        folder.mkdir()
    npz(cases / "a.npz", gts=None)
    with pytest.raises(cs.DatasetError, match=r"truths/a\.npz: holds no 'gts'"):
        evaluate_folder(bright_model, cases, tmp_path / "out", truths)
    assert not (tmp_path / "out").exists()
    npz(truths / "a.npz", imgs=None, spacing=None)
    means = evaluate_folder(bright_model, cases, tmp_path / "out", truths)
    assert means["DSC_Final"] > 0.95
    with pytest.raises(cs.DatasetError, match="another one"):
        evaluate_folder(bright_model, cases, truths, truths)


def test_the_challenges_protocol(bright_model: cs.Model, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    npz(tmp_path / "in" / "case.npz")
    means = evaluate_folder(bright_model, tmp_path / "in", tmp_path / "out")
    (row,) = csv.DictReader((tmp_path / "out" / SCORES).open())
    assert row["CaseName"] == "case.npz"
    assert float(row["DSC_1"]) == 0  # for a box
    scores = [float(row[f"DSC_{n}"]) for n in range(2, 7)]
    assert means["DSC_AUC"] == pytest.approx(sum(scores) - (scores[0] + scores[-1]) / 2)
    assert means["DSC_Final"] == pytest.approx(scores[-1])
    assert scores[-1] > 0.95
    assert 3.5 < means["NSD_AUC"] <= 4
    segs = np.load(tmp_path / "out" / "case.npz")["segs"]
    assert segs.dtype == np.uint8
    assert cs.dice(read_npz(tmp_path / "in" / "case.npz").truth, segs) == pytest.approx(scores[-1])
    with pytest.raises(cs.DatasetError, match="another one"):
        evaluate_folder(bright_model, tmp_path / "in", tmp_path / "in")
    with pytest.raises(cs.DatasetError, match=r"no \.npz"):
        evaluate_folder(bright_model, tmp_path, tmp_path / "out")


def test_clicks_of_somebody_else(bright_model: cs.Model, tmp_path: Path) -> None:
    clicks = np.array([{"fg": [[20, 40, 50]], "bg": [[20, 40, 90]]}], dtype=object)
    order = np.array([["fg", "bg"]], dtype=object)
    path = npz(tmp_path / "in.npz", clicks=clicks, clicks_order=order, gts=None)
    assert read_npz(path).clicks == ((cs.Click((20, 40, 50)), cs.Click((20, 40, 90), False)),)
    answer_npz(bright_model, path, tmp_path / "out.npz")
    segs = np.load(tmp_path / "out.npz")["segs"]
    assert cs.dice(make_ball(25.0).voxels > 0, segs) > 0.95
    with pytest.raises(cs.DatasetError, match="holds no 'clicks'"):
        answer_npz(bright_model, npz(tmp_path / "none.npz"), tmp_path / "out.npz")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"clicks_order": np.array([["fg", "fg", "fg"]], dtype=object)}, cs.ClickError),
        ({"clicks_order": np.array([["fg"], ["bg"]], dtype=object)}, cs.ClickError),
        ({"clicks": np.array([[1, 2, 3]], dtype=object)}, cs.ClickError),
        ({"clicks": np.array([{"fg": [[1, 2]]}], dtype=object)}, cs.ClickError),
        ({"spacing": np.array(["a", "b", "c"])}, cs.VolumeError),
        ({"spacing": np.zeros(3)}, cs.VolumeError),
        ({"imgs": np.zeros((2, 3, 4, 5)), "gts": None}, cs.VolumeError),
    ],
)
def test_what_a_file_of_clicks_cannot_mean(
    changes: dict, complaint: type[Exception], tmp_path: Path
) -> None:
    clicks = np.array([{"fg": [[20, 40, 50]], "bg": [[20, 40, 90]]}], dtype=object)
    path = npz(tmp_path / "bad.npz", **{"clicks": clicks, **changes})
    with pytest.raises(complaint, match=r"bad\.npz: "):
        read_npz(path)


class Bomb:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("exploded"),))


def test_a_file_of_clicks_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = npz(tmp_path / "bomb.npz", clicks=np.array([Bomb()], dtype=object))
    with pytest.raises(cs.FileError, match="damaged"):
        read_npz(path)
    assert not Path("exploded").exists()
    assert pickle.dumps(Bomb())  # the bomb is live: plain unpickling would have set it off


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"imgs": None}, "needs 'imgs'"),
        ({"spacing": None}, "a 'spacing'"),
        ({"gts": np.zeros((2, 2, 2))}, "differs from 'imgs'"),
    ],
)
def test_npz_files_that_are_incomplete(changes: dict, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(cs.VolumeError, match=complaint):
        read_npz(npz(tmp_path / "bad.npz", **changes))
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(cs.FileError, match="damaged"):
        read_npz(tmp_path / "text.npz")


def test_results_as_json(bright_model: cs.Model, ball_case: Case) -> None:
    found = evaluate(bright_model, [ball_case], Protocol(2))
    content = json.loads(json.dumps(found.as_json()))
    assert content["mean_dice"] == pytest.approx(found.mean_dice)
    assert content["cases"][0]["clicks"][0]["positive"] is True
    assert content["mean_baseline_dice"] == []
