"""Uploads that are too much, names that are paths, strangers at the door, pages of other sites."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from fieldmark.app import Access, Limits
from fieldmark.app.guard import Guard
from fieldmark.errors import FieldmarkError

sys.path.insert(0, str(Path(__file__).parents[1] / "gallery"))
from mutants import mutant

TOKEN = "a token that nobody guesses"


def bomb(width, height):
    """A PNG file of a few bytes that says it has so many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def send(client, data, name="photo", **more):
    return client.post("/api/predict", files={"image": (name, data)}, **more)


def refused(found, status, words):
    assert found.status_code == status, found.text
    assert list(found.json()) == ["error"]
    assert words in found.json()["error"]
    assert "\n" not in found.json()["error"]


# Too much


def test_more_bytes_than_allowed_are_refused_whether_announced_or_not(open_client, photo):
    client = open_client(limits=Limits(bytes=5000))
    assert send(client, photo("red")).status_code == 200
    refused(send(client, photo("red") + bytes(5000)), 413, "at most 5,000 are taken")
    refused(send(client, bytes(50_000)), 413, "too large")

    def in_pieces():  # no length is announced
        for _ in range(100):
            yield bytes(1000)

    found = client.post(
        "/api/predict", content=in_pieces(), headers={"content-type": "multipart/form-data; boundary=x"}
    )
    refused(found, 413, "too large")


def test_pixels_are_bounded_before_they_are_decoded(open_client, photo, monkeypatch):
    client = open_client(limits=Limits(pixels=24 * 24))
    assert send(client, photo("red")).status_code == 200
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    refused(send(client, photo("red", side=25)), 413, "25 x 25 pixels; at most 576")
    refused(send(client, bomb(60_000, 60_000)), 413, "pixels")


@pytest.mark.parametrize("options", [{"bytes": 0}, {"pixels": 0}, {"pixels": 10**12}])
def test_bounds_that_bound_nothing_are_refused(options):
    with pytest.raises(FieldmarkError, match="expected"):
        Limits(**options)


def test_formats_that_start_other_programs_are_not_opened(client, monkeypatch):
    """Pillow would hand EPS to Ghostscript."""
    import subprocess

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started a program"))
    file = io.BytesIO()
    Image.new("RGB", (30, 30), (200, 30, 30)).save(file, "eps")
    refused(send(client, file.getvalue()), 415, "no image of a format that is taken")


# Paths


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..\\..\\x.png", "a\0b.png", "x" * 5000, "$(id).png"]
)
def test_the_name_of_an_upload_is_never_used(client, photo, tmp_path, name):
    before = sorted(tmp_path.rglob("*"))
    found = send(client, photo("red"), name)
    assert found.status_code in (200, 400, 422), found.text
    assert sorted(tmp_path.rglob("*")) == before
    if found.status_code == 200:
        assert name not in found.text


@pytest.mark.parametrize(
    "path",
    ["/api/photos/..%2f..%2fm.safetensors/thumbnail", "/api/photos/1/../../../m.safetensors",
     "/assets/..%2f..%2f..%2fetc/passwd", "/static/%2e%2e/%2e%2e/secret", "/api/asked/..%2f..%2fx/image",
     "/gradio_api/file=/etc/passwd", "/file=/etc/passwd", "/gradio_api/proxy=http://127.0.0.1/", "/gradio_api/upload",
     "/gradio_api/api/predict", "/gradio_api/call/x", "/gradio_api/component_server", "/monitoring", "/etc/passwd"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_path_leads_to_a_file_or_to_what_is_closed(client, method, path):
    assert client.request(method, path).status_code in (404, 405, 422)


# Who may come in


def test_without_the_token_nothing_is_told(open_client, photo):
    client = open_client(Access(TOKEN, ()))
    for headers in (
        {}, {"authorization": b"Bearer wrong"}, {"authorization": f"Basic {TOKEN}".encode()},
        {"cookie": b"fieldmark=x"}, {"authorization": b"Bearer "}, {"authorization": b"Bearer \xe9"},
        {"cookie": f"fieldmark={TOKEN}".encode()},
    ):  # fmt: skip
        for path in ("/api/gallery", "/api/photos/1/thumbnail", "/openapi.json", "/", "/api/classes"):
            refused(client.get(path, headers=headers), 401, "token is needed")
        refused(send(client, photo("red"), headers=headers), 401, "token is needed")
    assert client.get("/api/health").json()["status"] == "ok"


def test_with_the_token_everything_is(open_client, photo):
    client = open_client(Access(TOKEN, ()), base="http://birds.example.org")
    assert send(client, photo("red"), headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_browsers_log_in_by_a_form_and_keep_a_cookie_that_is_not_the_token(open_client):
    client = open_client(Access(TOKEN, ()), base="http://birds.example.org")
    asked = client.get("/", headers={"accept": "text/html"})
    assert (asked.status_code, "<form" in asked.text) == (401, True)
    wrong = client.post("/login", data={"token": "wrong"}, follow_redirects=False)
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    assert "That is not the token" in wrong.text
    right = client.post("/login", data={"token": TOKEN}, follow_redirects=False)
    assert (right.status_code, right.headers["location"]) == (303, "/")
    kept = right.headers["set-cookie"]
    assert "HttpOnly" in kept
    assert "SameSite=Lax" in kept
    assert TOKEN not in kept
    assert client.get("/api/gallery").status_code == 200


def test_tokens_are_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr("fieldmark.app.guard.hmac.compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    access = Access(TOKEN)
    assert access.matches(TOKEN)
    assert not access.matches(TOKEN[:-1])
    assert [len(one) for pair in compared for one in pair] == [32] * 4  # digests: even the length tells nothing


def test_off_this_machine_there_is_always_a_token():
    assert Access.for_host("127.0.0.1").token == Access.for_host("::1").token == ""
    for host in ("0.0.0.0", "192.168.1.2", "::", "birds.example.org"):
        assert len(Access.for_host(host).token) >= 32
        assert Access.for_host(host).token != Access.for_host(host).token
    behind = Access.for_host("127.0.0.1", proxied_as=["Birds.example.org"])
    assert behind.token
    assert "birds.example.org" in behind.names
    assert TOKEN not in repr(Access(TOKEN))
    with pytest.raises(FieldmarkError, match="at least 16"):
        Access.for_host("0.0.0.0", "secret")


# Other sites


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", ""]
)
def test_other_names_for_this_machine_are_refused(client, host):
    """DNS rebinding: a name of somebody else that is made to point here."""
    refused(client.get("/api/classes", headers={"host": host}), 421, "not served here")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:99", "[::1]:8000"])
def test_names_of_this_machine_are_served(client, host):
    assert client.get("/api/classes", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"origin": ""}, {"origin": "http://127.0.0.1:9999"},
     {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
     {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}],
)  # fmt: skip
def test_requests_of_other_sites_change_nothing(client, photo, headers):
    refused(send(client, photo("red"), headers=headers), 403, "other sites")
    refused(client.delete("/api/classes/1", headers=headers), 403, "other sites")
    assert len(client.get("/api/classes").json()) == 3


def test_the_own_page_and_followed_links_come_in(client, photo):
    own = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
    assert send(client, photo("red"), headers=own).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/api/health", headers=link).status_code == 200


def test_answers_may_not_be_read_or_framed_by_others(client):
    headers = client.get("/api/classes").headers
    assert "access-control-allow-origin" not in headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"].replace("http-equiv", "")


def test_calls_of_the_page_that_carry_files_or_addresses_are_refused():
    """Gradio would read or fetch them; a stand-in for it shows what comes through."""
    from starlette.testclient import TestClient

    async def page(scope, receive, send):
        message = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})

    client = TestClient(Guard(page, Access(), 1000), base_url="http://localhost")
    plain = {"data": ["key", 3, None, ["x"]], "fn_index": 2}
    assert client.post("/gradio_api/queue/join", json=plain).json() == plain
    for bad in ({"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, {"url": "http://10.0.0.1/"}):
        refused(client.post("/gradio_api/queue/join", json={"data": [[{"x": bad}]]}), 403, "/api/predict alone")
    refused(client.post("/gradio_api/queue/join", content=b"{"), 403, "/api/predict alone")
    refused(client.post("/gradio_api/queue/join", content=b" " * 2_000_000), 413, "too large")


# Read-only


def test_read_only_answers_and_refuses_every_change(open_client, photo):
    client = open_client(read_only=True)
    key = send(client, photo("red")).json()["photo"]
    for found in (
        client.post("/api/classes", data={"name": "x", "asked": key}),
        client.post("/api/classes/1/photos", data={"asked": key}),
        client.patch("/api/classes/1", json={"name": "x"}),
        client.delete("/api/classes/1"),
        client.patch("/api/photos/5", json={"class_name": "x"}),
        client.delete("/api/photos/5"),
    ):
        refused(found, 403, "read-only")
    assert client.get("/api/gallery").json()["photos"] == 12


# Broken files


def check_mutants(client, numbers):
    for number in numbers:
        kind, name, content = mutant(7, number)
        found = send(client, content, name)
        assert found.status_code in (200, 413, 415, 422), (number, kind, found.text)
        if found.status_code != 200:
            line = found.json()["error"]
            assert 0 < len(line) < 400, (number, kind, line)
            assert line.isprintable(), (number, kind, line)


def test_broken_files_are_answered_or_named_in_one_line(client):
    check_mutants(client, range(200))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_ten_thousand_broken_files(client, part):
    check_mutants(client, range(200 + 490 * part, 200 + 490 * (part + 1)))
