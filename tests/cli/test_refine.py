"""`--refine` from the command line."""

import json
from pathlib import Path

from running import Run

import clickseg_infer as cs


def test_contradictory_clicks_are_obeyed_reported_and_replayed(
    run: Run, image: Path, tmp_path: Path
) -> None:
    out, session = tmp_path / "m.nii.gz", tmp_path / "session.json"
    clicks = ("--positive", "12,12,12", "--negative", "13,12,12", "--positive", "14,12,12")
    code, told, _ = run(
        "segment",
        image,
        *clicks,
        "--refine",
        "fbrs",
        "--json",
        "-o",
        out,
        "--record",
        session,
    )
    assert code == 0
    assert set(json.loads(told)["refinement"]) == {
        "patches",
        "evaluations",
        "corrected",
        "far_voxels",
    }
    mask = cs.read_label(out, like=cs.read_volume(image))
    recorded = cs.read_clicks(session, cs.read_volume(image))
    assert len(recorded) == 3
    assert all(bool(mask[click.zyx]) == click.positive for click in recorded)
    assert run("replay", session, "--image", image, "--expect")[0] == 0
    code, _, err = run("replay", session, "--image", image, "--expect", "--refine", "none")
    assert code == 2
    assert "another refinement" in err


def test_what_cannot_be_refined_is_said_in_one_line(
    run: Run, image: Path, tmp_path: Path, tiny_onnx: Path
) -> None:
    click = ("segment", image, "--positive", "12,12,12", "-o", tmp_path / "m.nii.gz")
    for options, reason in (
        (("--refine", "magic"), "unknown refinement 'magic', allowed are none, fbrs"),
        (("--refine", "fbrs-a", "--model", tiny_onnx), "no head for fbrs-a"),
    ):
        code, out, err = run(*click, *options)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert reason in err
    assert not (tmp_path / "m.nii.gz").exists()


def test_evaluate_and_info_know_it(
    run: Run, image: Path, tmp_path: Path, ball_volume: cs.Volume
) -> None:
    label = tmp_path / "label.nii.gz"
    cs.write_mask(label, (ball_volume.voxels > 0).astype("uint8"), like=ball_volume)
    pair = ("--image", image, "--label", label)
    code, out, _ = run("evaluate", *pair, "--max-clicks", 2, "--refine", "fbrs-b", "--json")
    assert code == 0
    assert len(json.loads(out)["cases"][0]["dice"]) == 2
    code, out, _ = run("info")
    assert code == 0
    assert "refine: none, fbrs-a, fbrs-b, fbrs-c" in out


def test_heads_can_be_left_out(run: Run, tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    code, told, _ = run("export", tiny_checkpoint, "--no-heads", "-o", out)
    assert code == 0
    assert "in a logit" in told
    assert "of a gradient" not in told
    code, told, _ = run("info", out)
    assert "refine: none\n" in told
