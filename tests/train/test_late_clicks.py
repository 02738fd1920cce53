from pathlib import Path

import numpy as np
from stand_ins import bright, make_ball, make_spec

import clickseg_infer as cs
from clickseg_infer import judging
from clickseg_infer.judging import KNOWN
from clickseg_train.late_clicks import Examples, joined, learn, record, save


def test_what_is_recorded_is_what_should_have_changed() -> None:
    model = cs.Model(make_spec(), cs.FunctionEngine(bright))
    volume = make_ball(12.0)
    truth = np.roll(volume.voxels > 0, 3, axis=2)  # not what is bright: clicks do not run out
    seen = record(model, volume, truth, 8, np.random.default_rng(0))
    both = joined(seen.values())
    assert len(both.known) == len(both.right) == len(both.weight) > 500
    assert 0.05 < both.right.mean() < 0.95
    close = both.known[:, KNOWN.index("distance")] < 1
    assert both.right[close].mean() > 1.5 * both.right.mean()


def test_a_network_learns_what_the_examples_say_and_is_read_as_it_was_saved(
    tmp_path: Path, monkeypatch
) -> None:
    rng = np.random.default_rng(1)
    known = rng.normal(3, 5, (4000, len(KNOWN))).astype(np.float32)
    logit = known[:, KNOWN.index("logit")]
    ones = np.ones(len(known), np.float32)
    sure = learn(Examples(known, (logit > 3).astype(np.float32), ones), 0)
    unlike = learn(Examples(known, (logit < 3).astype(np.float32), ones), 0)
    assert ((sure(known) > 0.5) == (logit > 3)).mean() > 0.95
    save({True: sure, False: unlike}, tmp_path / "judges.npz")
    monkeypatch.setattr(judging, "JUDGES", tmp_path / "judges.npz")
    judging._bundled.cache_clear()
    try:
        there = np.ones((1, 1, len(known)), bool)
        for on, network in ((True, sure), (False, unlike)):
            near = judging.Nearby(cs.Click((0, 0, 0), on), ((0, 1), (0, 1), (0, 1)), there, known)
            assert np.array_equal(judging.bundled_judge(near), network(known))
    finally:
        judging._bundled.cache_clear()
