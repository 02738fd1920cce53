"""What a page can do, over HTTP, and that it is what a session or the command line would do."""

import io
import json
import threading
import zipfile
import zlib
from base64 import b64decode
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from clickseg_cli.main import main
from fastapi.testclient import TestClient
from stand_ins import ORIENTATIONS

import clickseg_infer as cs
from clickseg_infer.recording import read_recording, replay
from clickseg_infer.server.app import create_app
from clickseg_infer.server.guard import Guard
from clickseg_infer.server.opening import Demo

from .conftest import BESIDE, ON_BALL, URL, with_limits


def patched(labels: np.ndarray, changed: dict | None) -> np.ndarray:
    """Labels (i, j, k) of the file after a reply, as a page would have them."""
    if changed is not None:
        box = tuple(slice(low, high) for low, high in changed["box"])
        flat = np.frombuffer(zlib.decompress(b64decode(changed["labels"])), np.uint8)
        labels[box] = flat.reshape(labels[box].shape, order="F")
    return labels


def saved_mask(client: TestClient, session: str, folder: Path) -> nib.Nifti1Image:
    reply = client.get(f"{session}/mask")
    assert reply.status_code == 200
    path = folder / "saved.nii.gz"
    path.write_bytes(reply.content)
    return nib.load(path)


@pytest.mark.parametrize("number", [0, 13, 22, 31, 47])
def test_a_page_that_patches_boxes_has_the_saved_mask_in_any_file_order(
    client: TestClient, ball_file: Path, tmp_path: Path, number: int
) -> None:
    image = nib.load(ball_file)
    turned = image.as_reoriented(ORIENTATIONS[number])
    path = tmp_path / "turned.nii.gz"
    nib.save(turned, path)
    volume = cs.read_volume(path)
    state = client.post("/api/sessions", json={"scan": "turned.nii.gz"}).json()
    session = f"/api/sessions/{state['session']}"
    assert tuple(state["shape"]) == turned.shape
    labels = np.zeros(turned.shape, np.uint8)
    on_ball = volume.ijk_of_zyx((20, 40, 50))
    near, beside = volume.ijk_of_zyx((22, 40, 50)), volume.ijk_of_zyx((5, 10, 10))
    for method, what, body in (
        ("POST", "clicks", {"ijk": on_ball}),
        ("POST", "clicks", {"ijk": near, "positive": False}),
        ("POST", "undo", None),
        ("POST", "redo", None),
        ("POST", "clicks", {"ijk": beside, "positive": False}),
        ("DELETE", "clicks/1", None),
        ("POST", "objects", None),
        ("POST", "clicks", {"ijk": beside}),
    ):
        reply = client.request(method, f"{session}/{what}", json=body)
        assert reply.status_code == 200, reply.text
        labels = patched(labels, reply.json()["changed"])
        saved = saved_mask(client, session, tmp_path)
        np.testing.assert_array_equal(labels, np.asarray(saved.dataobj))
    assert labels[on_ball] == 1
    np.testing.assert_allclose(saved.affine, turned.affine)


def test_only_what_changed_is_sent(client: TestClient, session: str) -> None:
    first = client.post(f"{session}/clicks", json={"ijk": ON_BALL})
    (i0, i1), (j0, j1), (k0, k1) = first.json()["changed"]["box"]
    sent = zlib.decompress(b64decode(first.json()["changed"]["labels"]))
    assert len(sent) == (i1 - i0) * (j1 - j0) * (k1 - k0) < 320_000 / 4
    assert len(first.content) < len(sent) / 5
    assert first.json()["ms"]["total"] > 0
    assert first.json()["state"]["p50_ms"] > 0
    nothing = client.post(f"{session}/redo")
    assert nothing.json()["changed"] is None
    assert len(nothing.content) < 700


def test_undo_redo_reset_and_removing(client: TestClient, session: str) -> None:
    for ijk, positive in ((ON_BALL, True), (BESIDE, False)):
        client.post(f"{session}/clicks", json={"ijk": ijk, "positive": positive})
    state = client.post(f"{session}/undo").json()["state"]
    assert (len(state["objects"][0]["clicks"]), state["can_undo"], state["can_redo"]) == (
        1,
        True,
        True,
    )
    state = client.post(f"{session}/redo").json()["state"]
    assert state["objects"][0]["clicks"][1] == {"ijk": BESIDE, "positive": False}
    state = client.delete(f"{session}/clicks/1").json()["state"]
    assert len(state["objects"][0]["clicks"]) == 1
    assert client.delete(f"{session}/clicks/1").status_code == 400
    state = client.post(f"{session}/reset").json()["state"]
    assert state["objects"][0]["voxels"] == 0
    nothing = client.post(f"{session}/undo").json()
    assert nothing["changed"] is None


def test_objects_are_named_activated_and_removed(client: TestClient, session: str) -> None:
    client.post(f"{session}/clicks", json={"ijk": ON_BALL})
    state = client.post(f"{session}/objects").json()["state"]
    assert (state["active"], [o["number"] for o in state["objects"]]) == (2, [1, 2])
    changed = client.put(f"{session}/objects/1", json={"name": " left\tkidney ", "active": True})
    state = changed.json()["state"]
    assert (state["active"], state["objects"][0]["name"]) == (1, "left kidney")
    assert client.put(f"{session}/objects/5", json={"active": True}).status_code == 404
    assert client.put(f"{session}/objects/1", json={"name": "x" * 61}).status_code == 400
    gone = client.delete(f"{session}/objects/1").json()
    assert gone["changed"] is not None
    assert [o["number"] for o in gone["state"]["objects"]] == [2]


def test_a_reply_says_how_clicks_came_to_be_obeyed(
    client: TestClient, session: str, demo: Demo
) -> None:
    plain = client.post(f"{session}/clicks", json={"ijk": ON_BALL}).json()
    assert plain["state"]["refinement"] is None
    served = Demo(cs.load_model(refine="fbrs-c").shared(), demo.scans, demo.registry)
    with served.model, TestClient(Guard(create_app(served)), base_url=URL) as refining:
        key = f"/api/sessions/{refining.post('/api/sessions', json={}).json()['session']}"
        for shift, positive in ((0, True), (1, False), (2, True)):
            ijk = [ON_BALL[0] + shift, *ON_BALL[1:]]
            sent = refining.post(f"{key}/clicks", json={"ijk": ijk, "positive": positive})
            assert sent.status_code == 200
        told = sent.json()["state"]["refinement"]
        assert set(told) == {"patches", "evaluations", "corrected", "far_voxels"}
        assert told["patches"] + told["corrected"] > 0


def test_saved_files_are_those_of_the_command_line(
    demo: Demo, tmp_path: Path, ball_file: Path
) -> None:
    served = Demo(cs.load_model(), demo.scans, demo.registry)
    with served.model, TestClient(Guard(create_app(served)), base_url=URL) as client:
        session = f"/api/sessions/{client.post('/api/sessions', json={}).json()['session']}"
        for ijk, positive in ((ON_BALL, True), ([50, 52, 22], False), ([55, 34, 20], True)):
            sent = client.post(f"{session}/clicks", json={"ijk": ijk, "positive": positive})
            assert sent.status_code == 200
        voxels = np.asarray(saved_mask(client, session, tmp_path).dataobj)
        for axis in range(3):  # a mirrored mask would be another one
            assert (voxels != np.flip(voxels, axis)).any()
        clicks = client.get(f"{session}/clicks")
        assert clicks.headers["content-disposition"] == "attachment; filename=ball_clicks.json"
        (tmp_path / "clicks.json").write_bytes(clicks.content)
        out = tmp_path / "out.nii.gz"
        arguments = [ball_file, "--clicks", tmp_path / "clicks.json", "-o", out]
        with pytest.raises(SystemExit) as end:
            main(["segment", *map(str, arguments)])
        assert end.value.code in (0, None)
        assert out.read_bytes() == (tmp_path / "saved.nii.gz").read_bytes()
        volume = cs.read_volume(ball_file)
        recording = read_recording(tmp_path / "clicks.json", volume)
        assert len(list(replay(served.model, volume, recording, expect=True))) == 3


def test_several_objects_save_one_click_file_each(
    client: TestClient, session: str, demo: Demo, tmp_path: Path, ball_file: Path
) -> None:
    assert client.get(f"{session}/clicks").status_code == 400
    client.post(f"{session}/clicks", json={"ijk": ON_BALL})
    client.put(f"{session}/objects/1", json={"name": "the / ball"})
    client.post(f"{session}/objects")
    client.post(f"{session}/clicks", json={"ijk": BESIDE})
    client.put(f"{session}/threshold", json={"threshold": 0.25})
    reply = client.get(f"{session}/clicks")
    archive = zipfile.ZipFile(io.BytesIO(reply.content))
    assert archive.namelist() == ["ball_1_the_ball.json", "ball_2_object_2.json"]
    first, second = (json.loads(archive.read(name)) for name in archive.namelist())
    assert first["object"] == {"number": 1, "name": "the / ball"}
    assert "expect" in first
    # What another threshold led to is not what a replay would lead to.
    assert "expect" not in second
    assert second["threshold"] == 0.25
    archive.extractall(tmp_path)
    clicks = cs.read_clicks(tmp_path / "ball_2_object_2.json", cs.read_volume(ball_file))
    assert clicks == (cs.Click((5, 10, 10), True),)


def test_a_mask_is_continued_and_comes_back_as_it_was(
    client: TestClient, session: str, ball_file: Path, tmp_path: Path
) -> None:
    volume = cs.read_volume(ball_file)
    labels = np.zeros(volume.shape, np.uint8)
    labels[10:15, 30:50, 30:60], labels[2:4, 5:9, 5:9] = 1, 4
    cs.write_mask(tmp_path / "m.nii.gz", labels, like=volume)
    reply = client.post(
        f"{session}/mask/upload?name=m.nii.gz", content=(tmp_path / "m.nii.gz").read_bytes()
    )
    state = reply.json()["state"]
    assert [(o["number"], o["began_with_mask"]) for o in state["objects"]] == [(1, True), (4, True)]
    found = np.asarray(saved_mask(client, session, tmp_path).dataobj)
    np.testing.assert_array_equal(found, np.asarray(nib.load(tmp_path / "m.nii.gz").dataobj))
    taken = client.post(f"{session}/clicks", json={"ijk": [45, 40, 12], "positive": False}).json()
    assert taken["state"]["objects"][0]["voxels"] < state["objects"][0]["voxels"]


def test_a_mask_of_another_scan_is_refused(
    client: TestClient, session: str, tmp_path: Path
) -> None:
    other = cs.Volume(np.zeros((5, 6, 7), np.int16), np.eye(4))
    cs.write_mask(tmp_path / "m.nii", np.ones((5, 6, 7), np.uint8), like=other)
    content = (tmp_path / "m.nii").read_bytes()
    reply = client.post(f"{session}/mask/upload?name=m.nii", content=content)
    assert reply.status_code == 400
    assert "m.nii: the mask's shape" in reply.json()["detail"]


def test_the_scan_comes_as_the_file_is(client: TestClient, session: str, ball_file: Path) -> None:
    assert client.get(f"{session}/scan").content == ball_file.read_bytes()


def test_scans_too_large_are_refused_before_they_are_read(
    client: TestClient, demo: Demo, ball_file: Path
) -> None:
    with_limits(demo, voxels=1000)
    reply = client.post("/api/sessions/upload?name=b.nii.gz", content=ball_file.read_bytes())
    assert reply.status_code == 413
    assert reply.json()["detail"] == "b.nii.gz: a scan may have 1000 voxels, this one has 320000"
    assert client.post("/api/sessions", json={}).status_code == 413


def test_tabs_on_one_scan_share_its_voxels_and_nothing_else(client: TestClient, demo: Demo) -> None:
    keys = [client.post("/api/sessions", json={}).json()["session"] for _ in range(2)]
    one, two = (demo.registry.find(key).labelling for key in keys)
    assert one.volume is two.volume
    client.post(f"/api/sessions/{keys[0]}/clicks", json={"ijk": ON_BALL})
    assert one.labels.any()
    assert not two.labels.any()


def test_several_tabs_clicking_at_once_get_what_each_would_get_alone(
    client: TestClient, tmp_path: Path
) -> None:
    places = [[50, 40, 20], [55, 40, 20], [50, 44, 22]]
    keys = [client.post("/api/sessions", json={}).json()["session"] for _ in places]
    replies = {}

    def work(key: str, ijk: list) -> None:
        for _ in range(3):
            client.post(f"/api/sessions/{key}/reset")
            replies[key] = client.post(f"/api/sessions/{key}/clicks", json={"ijk": ijk}).json()

    threads = [threading.Thread(target=work, args=pair) for pair in zip(keys, places, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for key, ijk in zip(keys, places, strict=True):
        session = f"/api/sessions/{key}"
        assert client.get(session).json()["objects"][0]["clicks"][0]["ijk"] == ijk
        client.post(f"{session}/reset")
        alone = client.post(f"{session}/clicks", json={"ijk": ijk}).json()
        assert replies[key]["changed"] == alone["changed"] is not None


def test_a_page_that_missed_replies_gets_all_labels_at_once(
    client: TestClient, session: str, tmp_path: Path
) -> None:
    nothing = client.get(f"{session}/labels").json()
    assert (nothing["changed"], nothing["state"]["actions"]) == (None, 0)
    client.post(f"{session}/clicks", json={"ijk": ON_BALL})
    client.post(f"{session}/objects")
    client.post(f"{session}/clicks", json={"ijk": BESIDE})
    reply = client.get(f"{session}/labels").json()
    assert reply["state"]["actions"] == 3
    labels = patched(np.zeros((100, 80, 40), np.uint8), reply["changed"])
    saved = np.asarray(saved_mask(client, session, tmp_path).dataobj)
    np.testing.assert_array_equal(labels, saved)
    assert set(np.unique(labels)) == {0, 1, 2}


def test_the_affine_is_sent_that_the_masks_have(client: TestClient, ball_file: Path) -> None:
    image = nib.load(ball_file).as_reoriented(ORIENTATIONS[13])
    nib.save(image, ball_file.parent / "turned.nii.gz")
    state = client.post("/api/sessions", json={"scan": "turned.nii.gz"}).json()
    np.testing.assert_allclose(state["affine"], image.affine)


def test_objects_are_put_back_as_they_were(
    client: TestClient, session: str, tmp_path: Path
) -> None:
    client.post(f"{session}/clicks", json={"ijk": ON_BALL})
    client.post(f"{session}/objects")
    client.post(f"{session}/clicks", json={"ijk": BESIDE})
    client.post(f"{session}/clicks", json={"ijk": [50, 40, 22], "positive": False})
    client.put(f"{session}/threshold", json={"threshold": 0.25})
    client.post(f"{session}/objects")
    client.delete(f"{session}/objects/1")
    made = client.put(f"{session}/objects/2", json={"name": "spleen", "active": True}).json()
    saved = client.get(f"{session}/mask").content
    again = f"/api/sessions/{client.post('/api/sessions', json={}).json()['session']}"
    for known in made["state"]["objects"]:
        body = {key: known[key] for key in ("name", "clicks", "threshold")}
        reply = client.put(f"{again}/objects/{known['number']}/clicks", json=body)
        assert reply.status_code == 200, reply.text
    client.delete(f"{again}/objects/1")
    state = client.put(f"{again}/objects/2", json={"active": True}).json()["state"]
    assert [o["number"] for o in state["objects"]] == [2, 3]
    assert state["objects"] == made["state"]["objects"]
    assert client.get(f"{again}/mask").content == saved
    assert client.post(f"{again}/undo").json()["state"]["objects"][0]["clicks"] == [
        {"ijk": BESIDE, "positive": True}
    ]
    for number in (0, 256):
        reply = client.put(f"{again}/objects/{number}/clicks", json={"name": "x", "clicks": []})
        assert reply.status_code == 400


def test_a_closed_session_is_gone(client: TestClient, session: str) -> None:
    assert client.delete(session).status_code == 204
    for reply in (client.get(session), client.delete(session), client.post(f"{session}/undo")):
        assert reply.status_code == 404
