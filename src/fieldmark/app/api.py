"""The HTTP API of a gallery, with its description at ``/openapi.json``, and the page beside it."""

import io
import sys
from typing import TYPE_CHECKING, Annotated, Any

from fieldmark._version import __version__
from fieldmark.app.guard import Access, Guard
from fieldmark.app.service import Added, Service
from fieldmark.app.uploads import Held, RefusedError
from fieldmark.errors import FieldmarkError, MissingExtraError
from fieldmark.gallery.records import ClassSummary, Photo

if TYPE_CHECKING:
    from fastapi import FastAPI

_ABOUT = """Recognise photos by the classes of a gallery, with the reasons, and look after the gallery.

A photo is sent to `/api/predict`; the answer holds a key under which it stays in memory for a while, so that its
evidence can be had, and it can be added to a class, without sending it again. Classes and photos have numbers that
never change. Every error is `{"error": "one line"}`."""

_MAX_TOP = 1000


def make_app(service: Service, access: Access | None = None, page: bool = True) -> Any:
    """The application as ASGI: the API, the page at ``/``, and the guard around both.

    Args:
        service: The gallery.
        access: Who may come in; default: whoever is on this machine.
        page: Whether there is a page as well.

    Raises:
        MissingExtraError: FastAPI or Gradio is not installed.
    """
    try:
        from fastapi import FastAPI
    except ImportError:
        raise MissingExtraError("fastapi", "app", "the web page and API") from None
    wrong: dict[str, Any] = {"description": "What is wrong, in one line", "content": {"application/json": {"schema": {
        "type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}}}}  # fmt: skip
    app = FastAPI(
        title=f"fieldmark: {service.name}", version=__version__, description=_ABOUT, openapi_url="/openapi.json",
        # Their pages load scripts from elsewhere; the description itself is what tools need.
        docs_url=None, redoc_url=None,
        # By name as well: FastAPI would put in an answer of its own form, which is never given.
        responses={"4XX": wrong, 422: wrong},
    )  # fmt: skip
    _add_errors(app)
    _add_asking(app, service)
    _add_classes(app, service)
    _add_photos(app, service)
    if page:
        from fieldmark.app.page import add_page

        app = add_page(app, service)
    return Guard(app, access or Access(), service.limits.bytes)


def _add_asking(app: "FastAPI", service: Service) -> None:
    from fastapi import File, Query, Response, UploadFile
    from fastapi.responses import HTMLResponse

    asking: dict[str, Any] = {"tags": ["asking"]}

    @app.get("/api/health", tags=["gallery"], summary="Whether the server runs; needs no token")
    def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get("/api/gallery", tags=["gallery"], summary="What is served, and how large uploads may be")
    def gallery() -> dict[str, Any]:
        return service.describe()

    @app.post("/api/predict", **asking, summary="What a photo shows, how sure that is, or none of the classes")
    def predict(
        image: Annotated[UploadFile, File(description="the photo")],
        top: Annotated[int, Query(ge=1, le=_MAX_TOP, description="classes to list")] = 5,
        evidence: Annotated[bool, Query(description="with the reasons as well")] = False,
    ) -> dict[str, Any]:
        held = service.hold(_read(image, service))
        facts = answer(service, held, top)
        return facts | ({"evidence": service.explain(held).to_dict()} if evidence else {})

    @app.get("/api/asked/{key}", **asking, summary="The answer to a photo that was sent before")
    def asked(key: str, top: Annotated[int, Query(ge=1, le=_MAX_TOP)] = 5) -> dict[str, Any]:
        return answer(service, service.held(key), top)

    @app.get("/api/asked/{key}/image", **asking, summary="The photo itself, as JPEG of at most 1024 pixels a side")
    def asked_image(key: str) -> Response:
        return Response(service.shown(service.held(key)), media_type="image/jpeg", headers=_no_store())

    @app.get("/api/asked/{key}/evidence", **asking, summary="The reasons: what matched what, in numbers")
    def evidence_json(key: str, against: str | None = None) -> dict[str, Any]:
        return service.explain(service.held(key), against).to_dict()

    @app.get("/api/asked/{key}/evidence.html", **asking, summary="The reasons as one page that needs nothing else")
    def evidence_html(key: str, against: str | None = None) -> HTMLResponse:
        return HTMLResponse(service.explain(service.held(key), against).to_html(), headers=_no_store())

    @app.get("/api/asked/{key}/evidence.png", **asking, summary="The reasons as a picture")
    def evidence_png(key: str, against: str | None = None) -> Response:
        buffer = io.BytesIO()
        service.explain(service.held(key), against).figure().savefig(buffer, format="png", dpi=110)
        return Response(buffer.getvalue(), media_type="image/png", headers=_no_store())


def _add_classes(app: "FastAPI", service: Service) -> None:
    from fastapi import Body, File, Form, Query, UploadFile
    from fastapi.responses import JSONResponse

    here: dict[str, Any] = {"tags": ["classes"]}
    photo_file = Annotated[UploadFile | None, File(description="the photo; or give `asked`")]
    asked_key = Annotated[str, Form(description="key of a photo that was asked about")]
    licence_text = Annotated[str, Form(max_length=200, description="licence of the photo, kept with it")]

    @app.get("/api/classes", **here, summary="The classes by name")
    def classes() -> list[dict[str, Any]]:
        return [class_facts(one) for one in service.classes()]

    @app.post("/api/classes", **here, status_code=201, summary="A new class, with its first photo")
    def create(
        name: Annotated[str, Form()], image: photo_file = None, asked: asked_key = "", licence: licence_text = ""
    ) -> dict[str, Any]:
        return _added(service.create(name, _photo_of(image, asked, service), licence))

    @app.get("/api/classes/{class_id}", **here, summary="A class")
    def one_class(class_id: int) -> dict[str, Any]:
        return class_facts(service.class_of(class_id))

    @app.patch("/api/classes/{class_id}", **here, summary="Give a class another name")
    def rename(class_id: int, name: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
        return class_facts(service.rename(class_id, name))

    @app.delete("/api/classes/{class_id}", **here, summary="Remove a class with its photos")
    def remove(class_id: int) -> dict[str, int]:
        return {"removed": service.remove_class(class_id)}

    @app.get("/api/classes/{class_id}/photos", **here, summary="The photos of a class")
    def photos(
        class_id: int,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> dict[str, Any]:
        found = service.photos(class_id)
        return {"total": len(found), "photos": [photo_facts(one) for one in found[offset : offset + limit]]}

    @app.post("/api/classes/{class_id}/photos", **here, summary="Add a photo to a class (also: correct an answer)")
    def add(class_id: int, image: photo_file = None, asked: asked_key = "", licence: licence_text = "") -> JSONResponse:
        done = service.add(class_id, _photo_of(image, asked, service), licence)
        return JSONResponse(_added(done), 201 if done.new else 200)


def _add_photos(app: "FastAPI", service: Service) -> None:
    from fastapi import Body, Response

    here: dict[str, Any] = {"tags": ["photos"]}

    @app.get("/api/photos/{photo_id}", **here, summary="An enrolled photo, without its pixels")
    def photo(photo_id: int) -> dict[str, Any]:
        return photo_facts(service.photo(photo_id))

    @app.get("/api/photos/{photo_id}/thumbnail", **here, summary="The photo as the model saw it, as JPEG")
    def thumbnail(photo_id: int) -> Response:
        data = service.thumbnail(photo_id)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})

    @app.patch("/api/photos/{photo_id}", **here, summary="Put a photo into another class, old or new")
    def move(photo_id: int, class_name: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
        return photo_facts(service.move(photo_id, class_name))

    @app.delete("/api/photos/{photo_id}", **here, summary="Remove a photo; a class ends with its last one")
    def remove(photo_id: int) -> dict[str, int]:
        service.remove_photo(photo_id)
        return {"removed": 1}


def answer(service: Service, held: Held, top: int) -> dict[str, Any]:
    """The answer to a photo as plain JSON types."""
    found, line = service.predict(held)
    facts = found.to_dict()
    return {
        "photo": held.key, "answer": facts["label"], "confidence": facts["confidence"], "rejected": facts["rejected"],
        "score": facts["score"], "line": line, "top": facts["top"][:top],
    }  # fmt: skip


def class_facts(one: ClassSummary) -> dict[str, Any]:
    """A class as plain JSON types."""
    return one.to_dict()


def photo_facts(one: Photo) -> dict[str, Any]:
    """A photo as plain JSON types, without the place where its file was: that concerns nobody outside."""
    facts = one.to_dict()
    del facts["path"]
    return {**facts, "thumbnail": f"/api/photos/{one.id}/thumbnail"}


def _added(done: Added) -> dict[str, Any]:
    return photo_facts(done.photo) | {"new": done.new, "notes": done.notes}


def _photo_of(image: Any, asked: str, service: Service) -> Held:
    if (image is None) == (not asked):
        raise RefusedError(422, "give the photo either as the file 'image' or as the key 'asked' of one that was sent")
    return service.held(asked) if asked else service.hold(_read(image, service))


def _read(image: Any, service: Service) -> bytes:
    # One byte more than may be, so that what is too large is seen without reading all of it.
    return image.file.read(service.limits.bytes + 1)


def _no_store() -> dict[str, str]:
    return {"Cache-Control": "no-store"}


def _add_errors(app: "FastAPI") -> None:
    """Whatever goes wrong comes out as ``{"error": line}`` with its status."""
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    def said(status: int, text: str) -> JSONResponse:
        return JSONResponse({"error": " ".join(text.split())}, status)

    async def known(_: Any, error: Exception) -> JSONResponse:
        return said(getattr(error, "status", 422), str(error))

    async def invalid(_: Any, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
        return said(422, f"{where[:80]}: {first['msg'][:200]}")

    async def http(_: Any, error: HTTPException) -> JSONResponse:
        return said(error.status_code, str(error.detail)[:300])

    async def unexpected(_: Any, error: Exception) -> JSONResponse:
        print(f"fieldmark: unexpected {type(error).__name__}: {error!s:.300}", file=sys.stderr)
        return said(500, f"unexpected {type(error).__name__} on the server; its terminal says more")

    app.add_exception_handler(FieldmarkError, known)
    app.add_exception_handler(RequestValidationError, invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, http)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, unexpected)
