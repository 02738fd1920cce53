"""DICOM series, as a page sends them: a tar archive of whatever lay in the folder."""

import io
import json
import tarfile
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pytest
from fastapi.testclient import TestClient

import clickseg_infer as cs
from clickseg_infer.errors import FileError
from clickseg_infer.server import dicom
from clickseg_infer.server.opening import Demo
from clickseg_infer.server.refusals import TooLargeError

from .conftest import with_limits

SERIES = "fixtures/totalsegmentator_example_ct_dicom"
LABEL = "fixtures/ts_example_dicom_label.nii.gz"
URL = "/api/sessions/series/upload?name=thorax"


def packed(paths: list[Path], **more: bytes) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path in paths:
            tar.add(path, arcname="../" + path.name)  # a name that must not be used
        for name, data in more.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


@pytest.fixture
def slices(shared_data: Path) -> list[Path]:
    return sorted(p for p in (shared_data / SERIES).iterdir() if p.is_file())


@pytest.fixture
def roomy(demo: Demo) -> None:
    with_limits(demo, upload_bytes=1 << 28, voxels=1 << 26)


def test_a_series_is_opened_and_its_clicks_are_found_again_elsewhere(
    client: TestClient, roomy: None, slices: list[Path], shared_data: Path, tmp_path: Path
) -> None:
    reply = client.post(URL, content=packed(slices, readme=b"not DICOM"))
    assert reply.status_code == 201, reply.text
    state = reply.json()
    assert state["scan"] == "thorax"
    session = f"/api/sessions/{state['session']}"
    (tmp_path / "scan.nii").write_bytes(client.get(f"{session}/scan").content)
    volume = cs.read_volume(tmp_path / "scan.nii")
    # A label that others drew on this series, with their reader and their order.
    label = nib.load(shared_data / LABEL)
    inside = np.argwhere(np.asarray(label.dataobj) > 0)
    ras = (label.affine @ [*inside[len(inside) // 2], 1])[:3]
    zyx = volume.zyx_of_ras(tuple(ras))
    assert volume.contains(zyx)
    np.testing.assert_allclose(volume.ras_of_zyx(zyx), ras, atol=0.51 * max(volume.spacing_mm))
    client.post(f"{session}/clicks", json={"ijk": volume.ijk_of_zyx(zyx)})
    saved = client.get(f"{session}/clicks").content
    assert json.loads(saved)["space"] == "ras"
    (tmp_path / "clicks.json").write_bytes(saved)
    # The same scan in another order, as another converter would leave it.
    turned = nib.load(tmp_path / "scan.nii").as_reoriented([[1, -1], [0, 1], [2, -1]])
    nib.save(turned, tmp_path / "turned.nii")
    other = cs.read_volume(tmp_path / "turned.nii")
    assert cs.read_clicks(tmp_path / "clicks.json", other) == (cs.Click(zyx, True),)


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"not a tar archive" * 100, 400, "thorax: not a tar archive"),
        (packed([], a=b"nothing", b=b""), 400, "thorax: no CT series"),
        (packed([]), 400, "thorax: no CT series"),
    ],
)
def test_what_is_no_series_is_refused(
    client: TestClient, roomy: None, demo: Demo, content: bytes, status: int, words: str
) -> None:
    reply = client.post(URL, content=content)
    assert (reply.status_code, reply.json()["detail"][: len(words)]) == (status, words)
    assert len(demo.registry) == 0


def sparse(promised: int) -> bytes:
    """An archive whose file of no bytes unpacks to so many."""
    member = tarfile.TarInfo("0.dcm")
    member.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "0.dcm",
        "GNU.sparse.realsize": str(promised),
    }
    map_of_nothing = b"0\n".ljust(512, b"\0")
    member.size = len(map_of_nothing)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(map_of_nothing))
    return content.getvalue()


def test_no_archive_unpacks_to_more_than_was_sent(
    client: TestClient, roomy: None, demo: Demo
) -> None:
    reply = client.post(URL, content=sparse(1 << 40))
    assert (reply.status_code, reply.json()["detail"]) == (
        400,
        "thorax: not a tar archive of plain files",
    )
    with pytest.raises(TooLargeError):
        _extract_bytes(packed([], a=b"x" * 600, b=b"x" * 600), 1000)


def _extract_bytes(content: bytes, most: int) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "series.tar").write_bytes(content)
        (Path(folder) / "out").mkdir()
        dicom._extract(Path(folder) / "series.tar", Path(folder) / "out", most)


def test_a_damaged_archive_is_one_line(rng: np.random.Generator) -> None:
    whole = packed([], a=b"x" * 100, b=b"y" * 1000)
    big = bytearray(whole)
    big[124:136] = b"\x80" + b"\xff" * 11  # a size that no file has
    negative = bytearray(whole)
    negative[124:136] = b"\xff" * 12
    damaged = [whole[:700], bytes(big), bytes(negative)]
    for _ in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, 600, 3):
            content[place] = rng.integers(256)
        head = content[:148] + b" " * 8 + content[156:512]
        if rng.random() < 0.8:  # or most would be refused for their checksum
            content[148:156] = b"%06o\0 " % sum(head)
        damaged.append(bytes(content))
    for content in damaged:
        with suppress(FileError, TooLargeError):
            _extract_bytes(content, 10_000)


def test_only_the_scan_is_kept_of_a_series(
    client: TestClient, roomy: None, demo: Demo, slices: list[Path]
) -> None:
    key = client.post(URL, content=packed(slices)).json()["session"]
    scratch = demo.registry.find(key).scratch
    kept = [path for path in Path(scratch.name).rglob("*") if path.is_file()]
    assert [path.name for path in kept] == ["scan.nii"]


def test_a_series_with_a_missing_slice_is_refused(
    client: TestClient, roomy: None, slices: list[Path]
) -> None:
    import SimpleITK

    ordered = SimpleITK.ImageSeriesReader().GetGDCMSeriesFileNames(str(slices[0].parent))
    gap = [Path(name) for n, name in enumerate(ordered) if n != len(ordered) // 2]
    reply = client.post(URL, content=packed(gap))
    assert reply.status_code == 400
    assert "some are missing" in reply.json()["detail"]


def test_a_series_that_is_too_large_is_refused_before_it_is_read(
    client: TestClient, roomy: None, demo: Demo, slices: list[Path]
) -> None:
    with_limits(demo, voxels=1000)
    assert client.post(URL, content=packed(slices)).status_code == 413
