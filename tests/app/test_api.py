"""What programs can ask of `fieldmark serve`; answers are held against the library's own."""

from __future__ import annotations

import io
import re
import threading

import numpy as np
import pytest
from PIL import Image

from fieldmark.gallery import Gallery


def ask(client, data, **query):
    return client.post("/api/predict", files={"image": ("photo", data)}, params=query)


def classes(client):
    return {one["name"]: one for one in client.get("/api/classes").json()}


@pytest.mark.parametrize("name", ["red", "green", "blue"])
def test_an_answer_is_the_one_of_the_library(client, place, photo, name):
    found = ask(client, photo(name), top=2, evidence=True)
    assert found.status_code == 200, found.text
    facts = found.json()
    classifier = Gallery.open(place).classifier(reject=True)
    expected = classifier.predict_detailed([photo(name)])[0]
    assert facts["top"][0]["label"] == expected.top[0][0] == name
    assert facts["answer"] == expected.label
    assert facts["rejected"] is expected.rejected
    assert facts["confidence"] == pytest.approx(expected.confidence, abs=1e-6)
    assert len(facts["top"]) == 2
    evidence = facts["evidence"]["classes"]
    assert [one["label"] for one in evidence] == [one["label"] for one in facts["top"]]
    if facts["evidence"]["additive"]:
        for one in evidence:
            total = sum(p["adds"] for p in one["photos"]) + one["rest"] + one["others"] + one["constant"]
            assert total == pytest.approx(one["score"], abs=1e-3)


def test_what_is_no_class_is_rejected_and_still_named(client):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    noise[::2] = 0
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    facts = ask(client, file.getvalue()).json()
    assert facts["rejected"] is (facts["score"] < facts["line"])
    assert (facts["answer"] == "none of these") is facts["rejected"]
    assert facts["top"][0]["label"] in ("red", "green", "blue")


def test_an_asked_photo_is_held_with_its_evidence(client, photo):
    key = ask(client, photo("red")).json()["photo"]
    assert client.get(f"/api/asked/{key}").json()["photo"] == key
    page = client.get(f"/api/asked/{key}/evidence.html")
    assert page.headers["content-type"].startswith("text/html")
    assert "<script" not in page.text
    assert re.findall(r"(?:src|href)='?(https?:)", page.text) == []
    picture = client.get(f"/api/asked/{key}/evidence.png")
    assert Image.open(io.BytesIO(picture.content)).format == "PNG"
    shown = client.get(f"/api/asked/{key}/image")
    assert Image.open(io.BytesIO(shown.content)).size == (24, 24)
    against = client.get(f"/api/asked/{key}/evidence", params={"against": "blue"}).json()
    assert [one["label"] for one in against["classes"]] == ["red", "blue"]
    wrong = client.get(f"/api/asked/{key}/evidence", params={"against": "bleu"})
    assert (wrong.status_code, "did you mean 'blue'" in wrong.json()["error"]) == (400, True)


def test_a_photo_that_is_not_held_is_asked_for_again(client):
    for path in ("", "/evidence", "/evidence.html", "/evidence.png", "/image"):
        found = client.get(f"/api/asked/nonsense{path}")
        assert (found.status_code, found.json()) == (404, {"error": "this photo is not held any more; send it again"})


def test_a_class_is_made_from_an_asked_photo_and_answers_from_then_on(client, place, photo):
    key = ask(client, photo("grey")).json()["photo"]
    made = client.post("/api/classes", data={"name": " slate ", "asked": key, "licence": "CC0"})
    assert made.status_code == 201, made.text
    assert (made.json()["class_name"], made.json()["licence"], made.json()["new"]) == ("slate", "CC0", True)
    assert "path" not in made.json()
    assert ask(client, photo("grey", 51)).json()["top"][0]["label"] == "slate"
    assert {one.name for one in Gallery.open(place).list()} == {"red", "green", "blue", "slate"}
    again = client.post("/api/classes", data={"name": "slate"}, files={"image": ("x", photo("grey", 52))})
    assert (again.status_code, "already" in again.json()["error"]) == (409, True)


def test_an_answer_is_corrected_by_adding_the_photo_to_its_class(client, photo):
    red = classes(client)["red"]
    first = client.post(f"/api/classes/{red['id']}/photos", files={"image": ("x", photo("red", 60))})
    second = client.post(f"/api/classes/{red['id']}/photos", files={"image": ("x", photo("red", 60))})
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    assert (first.json()["new"], second.json()["new"]) == (True, False)
    assert classes(client)["red"]["photos"] == 5
    blue = classes(client)["blue"]
    both = client.post(f"/api/classes/{blue['id']}/photos", files={"image": ("x", photo("red", 60))})
    assert "this photo is in 2 classes: blue, red" in both.json()["notes"][0]


def test_photos_are_listed_shown_moved_and_removed(client):
    red = classes(client)["red"]
    listed = client.get(f"/api/classes/{red['id']}/photos", params={"offset": 1, "limit": 2}).json()
    assert (listed["total"], len(listed["photos"])) == (4, 2)
    one, two = listed["photos"]
    thumbnail = client.get(one["thumbnail"])
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(thumbnail.content)).size == (32, 32)
    moved = client.patch(f"/api/photos/{one['id']}", json={"class_name": "crimson"})
    assert moved.json()["class_name"] == "crimson"
    assert client.get(f"/api/photos/{one['id']}").json()["class_name"] == "crimson"
    assert client.delete(f"/api/photos/{two['id']}").json() == {"removed": 1}
    assert client.get(two["thumbnail"]).status_code == 404
    assert (classes(client)["red"]["photos"], classes(client)["crimson"]["photos"]) == (2, 1)


def test_classes_are_renamed_and_removed(client):
    found = classes(client)
    renamed = client.patch(f"/api/classes/{found['red']['id']}", json={"name": "rouge"})
    assert (renamed.json()["id"], renamed.json()["name"]) == (found["red"]["id"], "rouge")
    taken = client.patch(f"/api/classes/{found['blue']['id']}", json={"name": "rouge"})
    assert taken.status_code == 409
    assert client.delete(f"/api/classes/{found['blue']['id']}").json() == {"removed": 4}
    assert client.get(f"/api/classes/{found['blue']['id']}").status_code == 404
    assert sorted(classes(client)) == ["green", "rouge"]


def test_an_emptied_gallery_says_so(client, photo):
    for one in classes(client).values():
        client.delete(f"/api/classes/{one['id']}")
    found = ask(client, photo("red"))
    assert (found.status_code, "empty" in found.json()["error"]) == (409, True)
    assert client.post("/api/classes", data={"name": "first"}, files={"image": ("x", photo("red"))}).status_code == 201
    assert ask(client, photo("red", 51)).json()["top"] == [{"label": "first", "probability": 1.0}]


def test_what_another_process_changed_is_seen(client, place, photo):
    ask(client, photo("red"))
    Gallery.open(place).rename("red", "scarlet")
    assert ask(client, photo("red")).json()["top"][0]["label"] == "scarlet"
    assert "scarlet" in classes(client)


def test_writers_at_the_same_time_lose_nothing(client, place, photo):
    green, status = classes(client)["green"], []

    def add(number):
        sent = client.post(f"/api/classes/{green['id']}/photos", files={"image": ("x", photo("green", number))})
        status.append(sent.status_code)

    threads = [threading.Thread(target=add, args=(70 + i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    other = Gallery.open(place)
    other.enroll([photo("green", 90)], ["green"])
    for thread in threads:
        thread.join()
    assert status == [201] * 4
    assert classes(client)["green"]["photos"] == 9


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/api/classes/999", {}, 404, "no class 999"),
        ("GET", "/api/classes/x", {}, 422, "class_id"),
        ("GET", "/api/photos/0", {}, 404, "no photo 0"),
        ("GET", "/api/photos/99999999999999999999999", {}, 404, "no photo"),
        ("DELETE", "/api/classes/-1", {}, 404, "no class -1"),
        ("DELETE", "/api/photos/999", {}, 404, "no photo 999"),
        ("PATCH", "/api/photos/999", {"json": {"class_name": "x"}}, 404, "no photo 999"),
        ("POST", "/api/predict", {}, 422, "image: Field required"),
        ("POST", "/api/predict", {"data": {"image": "a text"}}, 422, "image"),
        ("POST", "/api/classes", {"data": {"name": "x"}}, 422, "either as the file"),
        ("POST", "/api/classes", {"data": {"name": "x", "asked": "gone"}}, 404, "not held any more"),
        ("PUT", "/api/classes", {}, 405, "Not Allowed"),
        ("GET", "/api/nothing", {}, 404, "Not Found"),
    ],
)  # fmt: skip
def test_every_error_is_one_line_with_its_status(client, method, path, body, status, words):
    found = client.request(method, path, **body)
    assert found.status_code == status, found.text
    assert list(found.json()) == ["error"]
    assert words in found.json()["error"]
    assert "\n" not in found.json()["error"]


@pytest.mark.parametrize("name", ["", "  ", "x" * 300, "a\nb", "a\0b"])
def test_bad_names_of_classes_are_refused(client, photo, name):
    sent = client.post("/api/classes", data={"name": name}, files={"image": ("x", photo("grey"))})
    assert sent.status_code == 422, sent.text
    green = classes(client)["green"]
    assert client.patch(f"/api/classes/{green['id']}", json={"name": name}).status_code == 422


def test_the_description_names_every_path_and_nothing_from_elsewhere(client):
    described = client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.")
    assert set(described["paths"]) >= {
        "/api/predict", "/api/asked/{key}/evidence", "/api/classes", "/api/classes/{class_id}/photos",
        "/api/photos/{photo_id}/thumbnail", "/api/health",
    }  # fmt: skip
    for path, methods in described["paths"].items():
        for method, facts in methods.items():
            assert facts.get("summary"), (path, method)
            assert "4XX" in facts["responses"], (path, method)
    assert client.get("/docs").status_code == 404  # FastAPI's page would load scripts from elsewhere


def test_the_gallery_says_what_it_is_and_not_where(client, place):
    facts = client.get("/api/gallery").json()
    assert (facts["name"], facts["classes"], facts["photos"], facts["backbone"]) == ("colours", 3, 12, "conv4")
    assert str(place.parent) not in client.get("/api/gallery").text


@pytest.mark.parametrize("call", ["predict", "explain", "shown", "create", "refused"])
def test_freed_memory_is_bounded_after_every_photo(place, photo, monkeypatch, call):
    from fieldmark import allocation
    from fieldmark.app import Service
    from fieldmark.app.uploads import Held, RefusedError

    service, bounds = Service(place), []
    held = service.hold(photo("red"))
    monkeypatch.setattr(allocation, "give_back_freed_memory", bounds.append)
    if call == "refused":
        with pytest.raises(RefusedError):
            service.predict(Held("", held.data[: len(held.data) // 2]))
    elif call == "create":
        service.create("another", held)
    else:
        getattr(service, call)(held)
    assert bounds == [2**29]
