"""The page in a headless browser: a photo is dropped, answered, explained, made a class, and seen in the gallery."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time

import pytest

pytest.importorskip("gradio", reason="the web page's package is not installed (extra: app)")
browsers = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
WAIT = 300_000  # milliseconds; the machine may be busy
ODD = "grey <i>&amp;</i> ${1+1} {{this}} `x`"


@pytest.fixture
def address(place, tmp_path, request):
    """Where the gallery is served; extra options by parametrisation."""
    command = [sys.executable, "-m", "fieldmark", "serve", "--gallery", str(place), "--port", "0"]
    log = tmp_path / "log"
    with log.open("wb") as out:
        program = subprocess.Popen(
            [*command, *getattr(request, "param", ())],
            stdout=out,
            stderr=out,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    found = None
    for _ in range(1200):
        found = re.search(r"is at (http://\S+)", log.read_text())
        if found or program.poll() is not None:
            break
        time.sleep(0.25)
    assert found, log.read_text()
    yield found[1]
    program.terminate()
    program.wait(60)


@pytest.fixture
def page():
    with browsers.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        found = browser.new_page(viewport={"width": 1240, "height": 1000})
        found.set_default_timeout(WAIT)
        found.asked, found.problems = [], []
        found.on("request", lambda request: found.asked.append(request.url))
        found.on("pageerror", lambda error: found.problems.append(str(error)))
        found.on(
            "response", lambda answer: answer.status >= 400 and found.problems.append(f"{answer.status} {answer.url}")
        )
        yield found
        browser.close()


def drop(page, data):
    page.set_input_files("#drop input[type=file]", {"name": "../../photo.png", "mimeType": "image/png", "buffer": data})


def test_a_photo_is_answered_explained_and_becomes_a_class(page, address, photo):
    page.goto(address)
    page.wait_for_selector("#drop .fm-drop")
    drop(page, photo("grey"))
    page.wait_for_selector("#answer .fm-card h2")
    page.wait_for_selector("#yes")
    evidence = page.frame_locator("#why iframe").locator("body")
    evidence.locator("svg.photo").first.wait_for()
    names = evidence.locator(".both h2").all_inner_texts()
    assert len(names) == 2
    assert set(names) < {"red", "green", "blue"}
    page.fill("#name input, #name textarea", ODD)
    page.click("#create")
    page.wait_for_selector("#told .fm-note")
    assert f"Added to {ODD!r} as photo" in page.inner_text("#told")
    page.get_by_role("tab", name="Gallery").click()
    page.wait_for_function("document.querySelectorAll('#classes button').length === 4")
    shown = [text.split("\n")[0] for text in page.locator("#classes button").all_inner_texts()]
    assert sorted(shown) == sorted(["red", "green", "blue", ODD])
    page.locator("#classes button").filter(has_text="grey").click()
    page.wait_for_selector("#photos button img")
    page.wait_for_function("document.querySelector('#photos img').naturalWidth === 32")
    page.fill("#new_name input, #new_name textarea", "slate")
    page.click("#rename")
    page.locator("#classes button").filter(has_text="slate").wait_for()
    page.click("#ask_remove")
    page.click("#really")
    page.wait_for_function("document.querySelectorAll('#classes button').length === 3")
    assert [url for url in page.asked if not url.startswith((address, "data:", "blob:", "about:"))] == []
    assert page.problems == []


def test_what_is_no_photo_is_said_on_the_page(page, address):
    page.goto(address)
    page.wait_for_selector("#drop .fm-drop")
    drop(page, b"#!/bin/sh")
    page.wait_for_selector("#told .fm-bad")
    assert "no image of a format that is taken" in page.inner_text("#told")


@pytest.mark.parametrize("address", [("--read-only",)], indirect=True)
def test_read_only_shows_no_way_to_change(page, address, photo):
    page.goto(address)
    page.wait_for_selector("#drop .fm-drop")
    drop(page, photo("red"))
    page.wait_for_selector("#why iframe")
    assert not page.locator("#yes").is_visible()
    page.get_by_role("tab", name="Gallery").click()
    page.click("#classes button")
    page.click("#photos button")
    page.wait_for_selector("#photos [aria-pressed=true]")
    assert not page.locator("#rename").is_visible()
    assert not page.locator("#drop_photos").is_visible()
