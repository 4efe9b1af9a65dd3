import errno
import json
import os

import pytest

from fieldmark.errors import FieldmarkError
from fieldmark.files import json_text, read_json, write_beside, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_json(tmp_path / "a.json", {"old": 1})

    def fail(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(FieldmarkError, match="the disk is full"):
        write_beside(path, fail)
    assert read_json(path, "test") == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_beside(tmp_path / "a", stop)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_for_real():
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "wb", buffering=0) as full:

        def fill(file):
            full.write(b"x")

        with pytest.raises(FieldmarkError, match="disk is full"):
            write_beside(os.path.join(os.environ["FIELDMARK_CACHE"], "x"), fill)


def test_broken_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(FieldmarkError, match=r"a\.json is not a readable result file"):
        read_json(tmp_path / "a.json", "result")
    with pytest.raises(FieldmarkError, match="no result file"):
        read_json(tmp_path / "b.json", "result")


def test_a_folder_where_none_can_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FieldmarkError, match="cannot write"):
        write_json(tmp_path / "file" / "a.json", {})


def test_json_holds_no_number_that_json_does_not_know(tmp_path):
    value = {"a": [1.5, float("nan"), (float("-inf"),)], "b": {"c": float("inf"), "d": 2}}
    path = write_json(tmp_path / "a.json", value)
    strict = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert strict == {"a": [1.5, None, [None]], "b": {"c": None, "d": 2}}


def test_long_json_is_indented_and_nothing_is_lost(tmp_path):
    value = {
        "hits": [3, -5, 1.5e-9, True, None], "one": [7], "none": [], "nested": [[1, 2], [3, 4]],
        "texts": ["a", "[\n 1,\n 2\n]"], "mixed": [1, "2"], "rows": [{"a": [1, 2]}], "said": "[\n 1,\n 2\n]",
    }  # fmt: skip
    text = write_json(tmp_path / "a.json", value).read_text()
    assert read_json(tmp_path / "a.json", "test") == value
    assert json.loads(text) == json.loads(json.dumps(value))
    assert text.splitlines() == [
        "{",
        ' "hits": [3,-5,1.5e-09,true,null],',
        ' "one": [7],',
        ' "none": [],',
        ' "nested": [[1,2], [3,4]],',
        r' "texts": ["a", "[\n 1,\n 2\n]"],',
        ' "mixed": [1, "2"],',
        ' "rows": [{"a": [1,2]}],',
        r' "said": "[\n 1,\n 2\n]"',
        "}",
    ]


def test_a_line_of_json_has_up_to_160_columns_unless_it_is_flat():
    def line_of(value):
        text = json_text({"rows": [{"name": value}], "others": "x" * 140})
        assert json.loads(text)["rows"] == [{"name": value}]
        return next(line for line in text.splitlines() if "name" in line)

    assert line_of(["x" * 134]) == ' "rows": [{"name": ["' + "x" * 134 + '"]}],'  # 160 columns
    assert line_of(["x" * 135]) == '  {"name": ["' + "x" * 135 + '"]}'
    assert line_of({"a": "x" * 200}) == '   "name": {'
    for flat in (list(range(500)), ["a name"] * 500, {f"class {number}": number for number in range(500)}):
        assert len(line_of(flat)) > 1000


def test_keys_with_marks_of_json_and_numbers_as_keys(tmp_path):
    value = {
        "classes": {'a "b"': 1.5e-9, "{\n c": -3, "\\": 0}, "none": {}, "mixed": {"a": 1, "b": "2"},
        "deep": {"a": {"b": 1}, "c": 2}, "said": '{\n "a": 1\n}', "rows": [{"a": 1}, {"a": True}], "keys": {3: 1},
    }  # fmt: skip
    text = write_json(tmp_path / "a.json", value).read_text()
    assert read_json(tmp_path / "a.json", "test") == {**value, "keys": {"3": 1}}
    assert text.splitlines() == [
        "{",
        r' "classes": {"a \"b\"": 1.5e-09, "{\n c": -3, "\\": 0},',
        ' "none": {},',
        ' "mixed": {"a": 1, "b": "2"},',
        ' "deep": {"a": {"b": 1}, "c": 2},',
        r' "said": "{\n \"a\": 1\n}",',
        ' "rows": [{"a": 1}, {"a": true}],',
        ' "keys": {"3": 1}',
        "}",
    ]


def test_many_numbers_are_written_at_once():
    """In time that grows with their count: no pattern that tries each split of a long list."""
    assert len(json_text({"hits": list(range(200_000))}).splitlines()) == 3
    assert len(json_text({"hits": [*range(200_000), "a"]}).splitlines()) == 3
    assert len(json_text({"hits": [*range(200_000), ["a"]]}).splitlines()) == 200_005
    named = {f"class {number}": number / 7 for number in range(200_000)}
    assert len(json_text({"classes": named}).splitlines()) == 3
    assert len(json_text({"classes": {**named, "a": "b"}}).splitlines()) == 200_005
