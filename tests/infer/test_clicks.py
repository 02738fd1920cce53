import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clickseg_infer as cs
from clickseg_infer.clicks import parse_voxel


@pytest.fixture
def volume() -> cs.Volume:
    affine = np.array([[2.0, 0, 0, -10], [0, 3, 0, 5], [0, 0, 4, 7], [0, 0, 0, 1]])
    return cs.Volume(np.zeros((10, 20, 30), np.int16), affine)


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def own(space: str, *positions: list, **changes: object) -> dict:
    clicks = [{"position": p, "positive": n == 0} for n, p in enumerate(positions)]
    return {"schema": "clickseg.clicks/1", "space": space, "clicks": clicks, **changes}


def test_all_spaces_mean_the_same_voxel(volume: cs.Volume, tmp_path: Path) -> None:
    ras = [2 * 3 - 10, 3 * 4 + 5, 4 * 5 + 7]
    expected = (cs.Click((5, 4, 3), True),)
    for space, position in (
        ("ijk", [3, 4, 5]),
        ("ras", ras),
        ("lps", [-ras[0], -ras[1], ras[2]]),
        ("ras", [p + 0.4 for p in ras]),
    ):
        path = written(tmp_path / "c.json", own(space, position))
        assert cs.read_clicks(path, volume) == expected, space


def test_monai_label(volume: cs.Volume, tmp_path: Path) -> None:
    expected = (cs.Click((5, 4, 3)), cs.Click((1, 1, 1)), cs.Click((0, 0, 9), False))
    points = {"foreground": [[3, 4, 5], [1, 1, 1]], "background": [[9, 0, 0]]}
    assert cs.read_clicks(written(tmp_path / "a.json", points), volume) == expected
    named = {"spleen": points["foreground"], "background": points["background"]}
    assert cs.read_clicks(written(tmp_path / "b.json", named), volume) == expected


def markups(*lists: dict) -> dict:
    return {"@schema": "https://example.org/markups-schema-v1.0.3.json#", "markups": list(lists)}


def points(labels: dict[str, list[float]], **changes: object) -> dict:
    control = [
        {"label": label, "position": position, "positionStatus": "defined"}
        for label, position in labels.items()
    ]
    return {"type": "Fiducial", "controlPoints": control, **changes}


def test_slicer_markups(volume: cs.Volume, tmp_path: Path) -> None:
    ras, lps = [-4.0, 17.0, 27.0], [4.0, -17.0, 27.0]
    other = [10.0, -5.0, 7.0]  # LPS of voxel i, j, k = 0, 0, 0
    undefined = points({"P-9": [0.0, 0.0, 0.0]})
    undefined["controlPoints"][0]["positionStatus"] = "undefined"
    ruler = points({"P-1": lps}, type="Line")
    content = markups(points({"P-1": lps, "N-1": other}), undefined, ruler)
    expected = (cs.Click((5, 4, 3)), cs.Click((0, 0, 0), False))
    assert cs.read_clicks(written(tmp_path / "F.mrk.json", content), volume) == expected
    in_ras = markups(points({"F-1": ras}, coordinateSystem="RAS"))
    assert cs.read_clicks(written(tmp_path / "F.mrk.json", in_ras), volume) == expected[:1]


@pytest.mark.parametrize(
    ("label", "positive"),
    [
        ("P-1", True),
        ("N-1", False),
        ("negative 3", False),
        ("background", False),
        ("BG_2", False),
        ("-", False),
        ("+2", True),
        ("foreground", True),
        ("N1 node-1", True),
        ("nodule", True),  # a word that begins with n is no polarity
        ("F-1", True),
        ("", True),
    ],
)
def test_polarity_of_slicer_labels(
    label: str, positive: bool, volume: cs.Volume, tmp_path: Path
) -> None:
    first = points({"P": [4.0, -17.0, 27.0]})
    content = markups(first, points({label: [10.0, -5.0, 7.0]}))
    clicks = cs.read_clicks(written(tmp_path / "marks.mrk.json", content), volume)
    assert clicks[1].positive is positive


def test_polarity_of_a_slicer_list(volume: cs.Volume, tmp_path: Path) -> None:
    content = markups(
        points({"F-1": [4.0, -17.0, 27.0]}, name="P"), points({"F-1": [10.0, -5.0, 7.0]}, name="N")
    )
    clicks = cs.read_clicks(written(tmp_path / "marks.mrk.json", content), volume)
    assert [click.positive for click in clicks] == [True, False]


BAD_CLICKS = {
    "not json": "{",
    "a list": [[1, 2, 3]],
    "an empty object": {},
    "unknown keys": {"points": {"a": 1}},
    "unknown schema": own("ijk", [1, 2, 3], schema="clickseg.clicks/99"),
    "unknown space": own("voxels", [1, 2, 3]),
    "outside": own("ijk", [30, 0, 0]),
    "below zero": own("ijk", [0, -1, 0]),
    "outside in mm": own("ras", [1000.0, 0.0, 0.0]),
    "two numbers": own("ijk", [1, 2]),
    "a fraction of a voxel": own("ijk", [1.5, 2, 3]),
    "words": own("ijk", ["a", "b", "c"]),
    "infinity": '{"schema": "clickseg.clicks/1", "space": "ras", '
    '"clicks": [{"position": [Infinity, 0, 0], "positive": true}]}',
    "no polarity": own("ijk", clicks=[{"position": [1, 2, 3]}]),
    "contradiction": own("ijk", [1, 2, 3], [1, 2, 3]),
    "a label without background": {"negative": [[1, 2, 3]]},
    "foreground of words": {"foreground": "here"},
    "the same key twice": '{"foreground": [[1, 2, 3]], "foreground": [[2, 2, 3]]}',
    "nested beyond reason": "[" * 100_000,
    "two objects": own(
        "ijk",
        clicks=[{"position": [n, 2, 3], "positive": True, "object": n} for n in (1, 2)],
    ),
    "markups in centimetres": markups(points({"P": [0.0, 0.0, 7.0]}, coordinateUnits="cm")),
    "two labels": {"liver": [[1, 2, 3]], "spleen": [[2, 2, 3]]},
    "markups without points": {"markups": [{"type": "Fiducial"}]},
    "markups in another system": markups(points({"P": [0.0, 0.0, 0.0]}, coordinateSystem="IJK")),
}


@pytest.mark.parametrize("case", BAD_CLICKS)
def test_bad_click_files_are_refused_by_name(case: str, volume: cs.Volume, tmp_path: Path) -> None:
    path = written(tmp_path / "bad.json", BAD_CLICKS[case])
    with pytest.raises(cs.ClicksegError, match=r"bad\.json"):
        cs.read_clicks(path, volume)


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "a,b,c", "1.5,2,3"])
def test_bad_inline_clicks(text: str, volume: cs.Volume) -> None:
    with pytest.raises(cs.ClickError, match="I,J,K"):
        parse_voxel(text, True, volume)


@pytest.mark.parametrize(
    ("name", "positive"), [("N", False), ("background", False), ("P", True), ("N-0012", True)]
)
def test_a_slicer_files_name_counts_only_as_a_whole(
    name: str, positive: bool, volume: cs.Volume, tmp_path: Path
) -> None:
    marked = points({"F-1": [4.0, -17.0, 27.0], "P-1": [10.0, -5.0, 7.0]})
    path = written(tmp_path / f"{name}.mrk.json", markups(marked))
    assert [c.positive for c in cs.read_clicks(path, volume)] == [positive, True]


def test_a_byte_order_mark_is_no_obstacle(volume: cs.Volume, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(own("ijk", [1, 2, 3])), encoding="utf-8-sig")
    assert cs.read_clicks(tmp_path / "c.json", volume) == (cs.Click((3, 2, 1)),)


@pytest.mark.parametrize(
    "zyx", [(1, 2), (1, 2, 3, 4), (0.5, 1, 1), ("a", 1, 1), None, (True, 1, 1)]
)
def test_a_click_is_three_whole_numbers(zyx: object) -> None:
    with pytest.raises(cs.ClickError, match="three whole"):
        cs.Click(zyx)


def test_a_click_is_normalised() -> None:
    assert cs.Click([np.int64(1), 2, 3]) == cs.Click((1, 2, 3))
    assert hash(cs.Click(np.array([1, 2, 3]))) == hash(cs.Click((1, 2, 3)))


@settings(max_examples=50, deadline=None)
@given(
    polarity=st.dictionaries(
        st.tuples(st.integers(0, 9), st.integers(0, 19), st.integers(0, 29)),
        st.booleans(),
        min_size=1,
    )
)
def test_written_clicks_read_back(polarity: dict, tmp_path_factory: pytest.TempPathFactory) -> None:
    volume = cs.Volume(np.zeros((10, 20, 30), np.int16), np.diag([-1.0, -2.0, 3.0, 1.0]))
    clicks = tuple(cs.Click(zyx, positive) for zyx, positive in polarity.items())
    path = tmp_path_factory.mktemp("clicks") / "c.json"
    cs.write_clicks(path, clicks, volume)
    assert cs.read_clicks(path, volume) == clicks
    if not any(polarity.values()):
        with pytest.raises(cs.ClickError, match="positive"):
            cs.check_clicks(clicks, volume)
