import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickseg_infer.patches import cover, focus, grow

sizes = st.tuples(*[st.integers(1, 90)] * 3)
patches = st.tuples(*[st.integers(1, 40)] * 3)


@settings(max_examples=60, deadline=None)
@given(shape=sizes, patch=patches, overlap=st.sampled_from([0.0, 0.25, 0.5, 0.8]))
def test_cover_visits_what_monai_visits(shape: tuple, patch: tuple, overlap: float) -> None:
    data_utils = pytest.importorskip("monai.data.utils")
    inferer_utils = pytest.importorskip("monai.inferers.utils")
    padded = tuple(max(n, p) for n, p in zip(shape, patch, strict=True))
    before = [(p - n) // 2 if n < p else 0 for n, p in zip(shape, patch, strict=True)]
    interval = inferer_utils._get_scan_interval(padded, patch, 3, (overlap,) * 3)
    expected = [
        tuple(s.start - b for s, b in zip(slices, before, strict=True))
        for slices in data_utils.dense_patch_slices(padded, patch, interval)
    ]
    assert cover(shape, patch, overlap) == expected


@settings(max_examples=60, deadline=None)
@given(shape=sizes, patch=patches, where=st.tuples(*[st.floats(0, 1)] * 3))
def test_focus_stays_inside_and_holds_its_centre(shape: tuple, patch: tuple, where: tuple) -> None:
    centre = [round(w * (n - 1)) for w, n in zip(where, shape, strict=True)]
    start = focus(centre, shape, patch)
    for s, c, n, p in zip(start, centre, shape, patch, strict=True):
        assert s <= c < s + p
        if n > p:
            assert 0 <= s <= n - p
        else:
            assert s <= 0
            assert s + p >= n


def test_grow_goes_where_the_object_touches_and_the_grid_goes_on() -> None:
    inside = np.zeros((10, 10, 10), bool)
    inside[0, 5, 5] = inside[5, 5, -1] = inside[5, 0, 5] = True
    assert grow((20, 0, 20), inside, (100, 100, 100), (10, 10, 10), 0.2) == [
        ((12, 0, 20), 1),
        ((20, 0, 28), 1),
    ]
    assert grow((0, 0, 90), inside, (100, 100, 100), (10, 10, 10), 0.2) == []
    assert grow((0, 0, 85), inside, (100, 100, 100), (10, 10, 10), 0.2) == [((0, 0, 90), 1)]
    assert grow((-2, -2, -2), inside, (6, 6, 6), (10, 10, 10), 0.2) == []
