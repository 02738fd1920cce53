"""The routes: each finds its labelling, does one thing, and says where the labels changed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from clickseg_infer import __version__
from clickseg_infer.boxes import Box
from clickseg_infer.clicks import Click
from clickseg_infer.errors import ClicksegError, one_line
from clickseg_infer.server import saving, wire
from clickseg_infer.server.labelling import Labelling
from clickseg_infer.server.opening import (
    Demo,
    open_file,
    read_sent_labels,
    receive,
    storing,
    suffix_of,
)
from clickseg_infer.server.refusals import status_of
from clickseg_infer.server.registry import Opened
from clickseg_infer.session import Session

STATIC = Path(__file__).parent / "static"
_LOOK_EVERY_S = 60.0  # for idle sessions
_CHUNK = 1 << 20  # bytes of a scan that are sent at a time


class Problem(BaseModel):
    """Why a request was refused, in one line."""

    detail: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 403, 404, 409, 413, 422, 429, 500, 507)
}
router = APIRouter(prefix="/api", responses=_PROBLEMS)


def create_app(demo: Demo) -> FastAPI:
    """The demo's web application, still without its guard; see `guarded` in `serve`."""

    @asynccontextmanager
    async def while_serving(_: FastAPI) -> AsyncIterator[None]:
        closing = asyncio.create_task(_close_idle(demo))
        yield
        closing.cancel()

    app = FastAPI(
        title="clickseg",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=while_serving,
    )
    app.state.demo = demo
    app.include_router(router)
    app.add_exception_handler(ClicksegError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _failed)
    app.mount("/", StaticFiles(directory=STATIC, html=True))
    return app


async def _close_idle(demo: Demo) -> None:
    """Close idle sessions even if nobody asks for anything."""
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        await run_in_threadpool(demo.registry.close_idle)


def _demo_of(request: Request) -> Demo:
    demo: Demo = request.app.state.demo
    return demo


def _opened_of(session: str, demo: Annotated[Demo, Depends(_demo_of)]) -> Opened:
    return demo.registry.find(session)


TheDemo = Annotated[Demo, Depends(_demo_of)]
TheOpened = Annotated[Opened, Depends(_opened_of)]
_FILE = {  # what FastAPI cannot know of a body that is read as it comes
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
OpenSent = Callable[[TemporaryDirectory[str], Path, str], str]
Name = Annotated[str, Query(min_length=1, max_length=300)]


@router.get("/about")
def about(demo: TheDemo) -> wire.About:
    """What the server offers: its model, its engine, its scans."""
    model = demo.model
    return wire.About(
        version=__version__,
        model=model.spec.name,
        threshold=model.spec.threshold,
        engine=model.engine.name,
        precision=model.engine.precision,
        scans=demo.scans.names(),
        most_upload_bytes=demo.registry.limits.upload_bytes,
    )


@router.post("/sessions", status_code=201)
async def open_scan(asked: wire.OpenRequest, request: Request, demo: TheDemo) -> wire.State:
    """Open a scan that the server has."""
    key = await run_in_threadpool(demo.open_scan, asked.scan)
    return await _opened_for(request, demo, key)


async def _opened_for(request: Request, demo: Demo, key: str) -> wire.State:
    """How a new session stands; none is left for a page that went away while its scan was read."""
    if await request.is_disconnected():
        demo.registry.close(key)
        raise ClientDisconnect
    return wire.state_of(key, demo.registry.find(key).labelling)


@router.post("/sessions/upload", status_code=201, openapi_extra=_FILE)
async def upload_scan(name: Name, request: Request, demo: TheDemo) -> wire.State:
    """Open a scan that the page sends: the body is a NIfTI file."""
    return await _open_sent(request, demo, f"scan{suffix_of(name)}", name, demo.open_upload)


@router.post("/sessions/series/upload", status_code=201, openapi_extra=_FILE)
async def upload_series(name: Name, request: Request, demo: TheDemo) -> wire.State:
    """Open a DICOM series that the page sends: the body is a tar archive of its files."""
    return await _open_sent(request, demo, "series.tar", name, demo.open_series)


async def _open_sent(
    request: Request, demo: Demo, kept_as: str, name: str, open_it: OpenSent
) -> wire.State:
    """Keep what a page sends in a folder of its own, and open it from there."""
    demo.registry.check_room(0)  # before anything is sent
    with storing():
        scratch = TemporaryDirectory(prefix="clickseg-")
        try:
            path = Path(scratch.name) / kept_as
            await receive(request.stream(), path, demo.registry.limits.upload_bytes)
            key = await run_in_threadpool(open_it, scratch, path, name)
        except BaseException:
            scratch.cleanup()
            raise
    return await _opened_for(request, demo, key)


@router.get("/sessions/{session}")
def state(session: str, opened: TheOpened) -> wire.State:
    """How a session stands; also says that somebody is still there."""
    with opened.labelling.lock:
        return wire.state_of(session, opened.labelling)


@router.delete("/sessions/{session}", status_code=204)
def close(session: str, demo: TheDemo) -> None:
    """Close a session, whose page is going away."""
    demo.registry.close(session)


@router.get("/sessions/{session}/scan", response_class=StreamingResponse)
def scan(opened: TheOpened) -> StreamingResponse:
    """The scan's file, as it is."""
    file, size = open_file(opened)
    headers = {"Content-Length": str(size)}
    return StreamingResponse(_chunks(file), 200, headers, "application/octet-stream")


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk


@router.get("/sessions/{session}/labels")
def labels(session: str, request: Request, opened: TheOpened) -> wire.Change:
    """All that is marked, for a page that missed a reply."""
    with opened.labelling.lock:
        labelling = opened.labelling
        return wire.change(session, labelling, labelling.box, request.state.began)


@router.post("/sessions/{session}/clicks")
def click(asked: wire.ClickRequest, request: Request, opened: TheOpened) -> wire.Change:
    """Click the active object."""
    i, j, k = asked.ijk
    reply = _act(request, opened, lambda labelling: labelling.click((i, j, k), asked.positive))
    opened.labelling.click_ms.append(reply.ms["total"])
    reply.state.p50_ms = opened.labelling.p50_ms
    return reply


@router.delete("/sessions/{session}/clicks/{number}")
def remove_click(number: int, request: Request, opened: TheOpened) -> wire.Change:
    """Take back one click of the active object, by its number from 0."""
    return _change(request, opened, lambda session: session.remove(number))


@router.post("/sessions/{session}/undo")
def undo(request: Request, opened: TheOpened) -> wire.Change:
    """Take back what was done last to the active object."""
    return _change(request, opened, Session.undo)


@router.post("/sessions/{session}/redo")
def redo(request: Request, opened: TheOpened) -> wire.Change:
    """Repeat what was taken back last."""
    return _change(request, opened, Session.redo)


@router.post("/sessions/{session}/reset")
def reset(request: Request, opened: TheOpened) -> wire.Change:
    """Forget all clicks on the active object."""
    return _change(request, opened, Session.reset)


@router.put("/sessions/{session}/threshold")
def threshold(asked: wire.ThresholdRequest, request: Request, opened: TheOpened) -> wire.Change:
    """Answer the active object's clicks again with another threshold."""
    return _act(request, opened, lambda labelling: labelling.set_threshold(asked.threshold))


@router.post("/sessions/{session}/objects")
def begin_object(request: Request, opened: TheOpened) -> wire.Change:
    """Finish the active object, and begin the next one."""
    return _act(request, opened, Labelling.begin_object)


@router.put("/sessions/{session}/objects/{number}")
def change_object(
    number: int, asked: wire.ObjectRequest, request: Request, opened: TheOpened
) -> wire.Change:
    """Rename an object, or go on with it."""

    def act(labelling: Labelling) -> None:
        if asked.name is not None:
            labelling.rename(number, asked.name)
        if asked.active:
            labelling.activate(number)

    return _act(request, opened, act)


@router.put("/sessions/{session}/objects/{number}/clicks")
def put_object(
    number: int, asked: wire.PutRequest, request: Request, opened: TheOpened
) -> wire.Change:
    """Have an object with that number and those clicks, as a page remembers it."""
    volume = opened.labelling.volume
    clicks = tuple(
        Click(volume.zyx_of_ijk((c.ijk[0], c.ijk[1], c.ijk[2])), c.positive) for c in asked.clicks
    )
    return _act(
        request,
        opened,
        lambda labelling: labelling.put_object(number, asked.name, clicks, asked.threshold),
    )


@router.delete("/sessions/{session}/objects/{number}")
def remove_object(number: int, request: Request, opened: TheOpened) -> wire.Change:
    """Forget an object."""
    return _act(request, opened, lambda labelling: labelling.remove_object(number))


@router.post("/sessions/{session}/mask/upload", openapi_extra=_FILE)
async def begin_with_mask(
    name: Name, request: Request, opened: TheOpened, demo: TheDemo
) -> wire.Change:
    """Begin anew with the objects of a mask that the page sends: NIfTI, on the scan's grid."""
    with storing(), TemporaryDirectory(prefix="clickseg-") as folder:
        path = Path(folder) / f"mask{suffix_of(name)}"
        await receive(request.stream(), path, demo.registry.limits.upload_bytes)
        volume = opened.labelling.volume
        labels = await run_in_threadpool(read_sent_labels, path, name, volume)
    return await run_in_threadpool(
        _act, request, opened, lambda labelling: labelling.begin_with(labels)
    )


@router.get("/sessions/{session}/mask", response_class=Response)
def mask(opened: TheOpened) -> Response:
    """The label map, .nii.gz on the scan's grid."""
    with opened.labelling.lock:
        content = saving.mask_bytes(opened.labelling)
        name = f"{saving.stem_of(opened.labelling)}_mask.nii.gz"
    return _download(name, content, "application/gzip")


@router.get("/sessions/{session}/clicks", response_class=Response)
def clicks(opened: TheOpened) -> Response:
    """The clicks: a click file, or a zip of one for each object."""
    with opened.labelling.lock:
        name, content = saving.clicks_file(opened.labelling)
    kind = "application/json" if name.endswith(".json") else "application/zip"
    return _download(name, content, kind)


def _change(request: Request, opened: Opened, act: Callable[[Session], Any]) -> wire.Change:
    return _act(request, opened, lambda labelling: labelling.change(act))


def _act(request: Request, opened: Opened, act: Callable[[Labelling], Box | None]) -> wire.Change:
    """Do something to a labelling, and say where labels changed."""
    key: str = request.path_params["session"]
    with opened.labelling.lock:
        box = act(opened.labelling)
        opened.labelling.actions += 1
        return wire.change(key, opened.labelling, box, request.state.began)


def _download(name: str, content: bytes, kind: str) -> Response:
    headers = {"Content-Disposition": f"attachment; filename={quote(name)}"}
    return Response(content, media_type=kind, headers=headers)


def _refused(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": one_line(error)}, status_of(error))


def _gone(_: Request, error: Exception) -> Response:
    """To a page that went away in the middle, which nobody reads."""
    return Response(status_code=400)


def _failed(_: Request, error: Exception) -> JSONResponse:
    """What nobody expected, in one line; the server's log has the rest."""
    return JSONResponse({"detail": "the server failed at this; its log says why"}, 500)


def _malformed(_: Request, error: Exception) -> JSONResponse:
    """What FastAPI found wrong with a request, in one line."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return JSONResponse({"detail": one_line(ValueError(f"{place}: {first['msg']}"))}, 422)
