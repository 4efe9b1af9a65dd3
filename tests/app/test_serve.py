"""`fieldmark serve` as a program: it says where it is, answers, and ends cleanly."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from fieldmark.app import server
from fieldmark.cli import main as cli


def run(capsys, *arguments):
    status = cli.main(["serve", *map(str, arguments)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return status, captured.out, captured.err


@pytest.fixture
def installed():
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("the web page's package is not installed (extra: app)")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--port", "99999"), "expected 0 (any that is free) to 65535"),
        (("--host", "203.0.113.7", "--port", "0"), "cannot listen on 203.0.113.7"),
        (("--token", "short"), "expected at least 16"),
        (("--max-bytes", "5"), "expected at least 1,000"),
        (("--max-pixels", "0"), "expected 1 to"),
        (("--max-bites", "5"), "did you mean '--max-bytes'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(installed, capsys, place, options, words):
    status, _, err = run(capsys, "--gallery", place, *options)
    assert (status, err.count("\n")) == (2, 1), err
    assert words in err


def test_a_port_that_is_taken_is_named(installed, capsys, place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, _, err = run(capsys, "--gallery", place, "--port", taken.getsockname()[1])
    assert status == 2
    assert "give another --port" in err


def test_a_gallery_that_is_not_there_is_named(installed, capsys, tmp_path):
    status, _, err = run(capsys, "--gallery", tmp_path / "none", "--port", 0)
    assert (status, "no gallery at" in err) == (2, True)


@pytest.mark.parametrize("package", ["gradio", "fastapi", "uvicorn", "python_multipart"])
def test_without_a_package_the_extra_is_named(monkeypatch, capsys, place, package):
    found = server.find_spec
    monkeypatch.setattr(server, "find_spec", lambda name: None if name == package else found(name))
    status, _, err = run(capsys, "--gallery", place, "--port", 0)
    assert status == 2
    assert "pip install 'fieldmark[app]'" in err


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_with_a_token_it_made_and_ends_when_interrupted(installed, place, how, tmp_path):
    command = [sys.executable, "-m", "fieldmark", "serve", "--gallery", str(place), "--port", "0",
               "--proxied-as", "birds.example.org"]  # fmt: skip
    log = tmp_path / "log"
    with log.open("wb") as out:
        program = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        for _ in range(1200):
            text = log.read_text()
            if "token: " in text or program.poll() is not None:
                break
            time.sleep(0.25)
        address, token = re.search(r"http://127.0.0.1:\d+", text), re.search("token: (.+)", text)
        assert address, text
        assert token, text
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{address[0]}/api/gallery", timeout=120)
        asked = urllib.request.Request(
            f"{address[0]}/api/gallery", headers={"Authorization": f"Bearer {token[1]}", "Host": "birds.example.org"}
        )
        with urllib.request.urlopen(asked, timeout=120) as answer:
            assert json.load(answer)["classes"] == 3
        program.send_signal(how)
        assert program.wait(120) == 130
    finally:
        program.kill()
    text = log.read_text()
    assert "stopped; nothing is half-written" in text
    assert "Traceback" not in text
