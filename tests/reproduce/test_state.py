"""Data is found by the names it goes by; what was measured is found in the row's file, or where the entry says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.statistics import Estimate
from fieldmark.files import read_json, write_json
from fieldmark.reproduce import find
from fieldmark.reproduce.numbers import difference_text, ours_text, seeds_text
from fieldmark.reproduce.state import Measured, Places, measured, missing_data, require_data, result_path, taken

RESULTS = Path(__file__).resolve().parents[2] / "results"


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("cifar100.zip", "cifar_fs"), ("cifar-100-python", "fc100"), ("CUB_200_2011", "cub-feat-cropped"),
        ("mini_imagenet", "mini_imagenet"), ("fgvc-aircraft-2013b", "aircraft"), ("grocery.zip", "grocery-fieldmark"),
        ("NABirds", "nabirds"), ("Stanford-Cars", "stanford_cars-dn4"),
    ],
)  # fmt: skip
def test_data_is_found_by_name(entry, name, tmp_path):
    places = Places({}, [tmp_path / "nowhere", tmp_path])
    assert places.find(name) is None
    path = tmp_path / entry
    path.touch() if path.suffix == ".zip" else path.mkdir()
    assert places.find(name) == str(path)
    assert missing_data([name, "glyphs", "plantae"], places) == ["plantae"]


def test_archives_that_belong_together_are_found_together(tmp_path):
    places = Places({}, [tmp_path])
    (tmp_path / "omniglot_small1.zip").touch()
    assert places.find("omniglot") is None
    assert "omniglot_small1 with omniglot_small2" in places.looked_for("omniglot")
    (tmp_path / "omniglot_small2.zip").touch()
    assert places.find("omniglot") == f"{tmp_path / 'omniglot_small1.zip'}:{tmp_path / 'omniglot_small2.zip'}"
    (tmp_path / "omniglot").mkdir()
    assert places.find("omniglot") == str(tmp_path / "omniglot")


def test_built_in_data_needs_no_place():
    assert Places().find("glyphs") == ""


def test_given_paths_come_first_and_must_exist(tmp_path):
    (tmp_path / "cub").mkdir()
    (tmp_path / "mine").mkdir()
    folders = [tmp_path]
    assert Places({"cub": str(tmp_path / "mine")}, folders).find("cub-feat") == str(tmp_path / "mine")
    assert Places({"": str(tmp_path / "mine")}, folders).find("cub-feat") == str(tmp_path / "mine")
    assert Places({"nabirds": str(tmp_path / "mine")}, folders).find("cub-feat") == str(tmp_path / "cub")
    with pytest.raises(FieldmarkError, match="given as the root of data set 'cub'"):
        Places({"cub": str(tmp_path / "gone")}, folders).find("cub")


def test_the_environment_names_the_folders(tmp_path, monkeypatch):
    (tmp_path / "b" / "cub").mkdir(parents=True)
    monkeypatch.setenv("FIELDMARK_DATA", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert Places.here().find("cub") == str(tmp_path / "b" / "cub")
    monkeypatch.delenv("FIELDMARK_DATA")
    assert Places.here().folders == [Path("data")]


def test_missing_data_is_named_with_where_it_was_looked_for(tmp_path):
    with pytest.raises(FieldmarkError, match="needs data set 'cub-feat-cropped'") as error:
        require_data(["glyphs", "cub-feat-cropped"], Places({}, [tmp_path]), "lssa/3/all")
    text = str(error.value)
    assert str(tmp_path) in text
    assert "CUB_200_2011" in text
    assert "--root cub-feat-cropped=PATH" in text
    assert "\n" not in text


def test_older_results_are_linked_to_their_row():
    (row,) = find("scl/B.1/conv4")
    found = measured(row, RESULTS)
    assert set(found) == {"cifar_fs-1shot", "cifar_fs-5shot", "fc100-1shot", "fc100-5shot"}
    one = found["cifar_fs-1shot"][0]
    assert one.linked
    assert (one.seed, one.file) == (0, "scl_cifar_fs_conv4_1shot.json")
    assert ours_text([one]) == "61.10 ± 0.90"
    assert difference_text([one], row.cells["cifar_fs-1shot"]) == "+0.79"
    assert difference_text(found["cifar_fs-5shot"][:1], row.cells["cifar_fs-5shot"]) == "-0.27"


def test_other_seeds_stand_beside_an_older_result(tmp_path):
    (row,) = find("scl/B.1/conv4")
    record = read_json(RESULTS / "scl_cifar_fs_conv4_1shot.json", "result")
    write_json(tmp_path / "scl_cifar_fs_conv4_1shot.json", record)
    record["rows"][0]["mean"] += 0.02
    for model in record["models"].values():
        model["seed"] = 7
        model["recipe_yaml"] = model["recipe_yaml"].replace("\nseed: 0\n", "\nseed: 7\n")
    write_json(tmp_path / "seeds" / "again.json", record)
    found = measured(row, tmp_path)["cifar_fs-1shot"]
    assert [(one.seed, one.file) for one in found] == [(0, "scl_cifar_fs_conv4_1shot.json"), (7, "seeds/again.json")]
    assert found[1].estimate.mean == pytest.approx(found[0].estimate.mean + 0.02)
    assert seeds_text(found) == "0, 7"
    assert ours_text(found) == "62.10 ± 0.90 over episodes, ± 12.71 over seeds"  # t of one degree of freedom


def test_other_seeds_are_found_where_the_same_test_stands_in_two_files(tmp_path):
    (row,) = find("scl/B.1/conv4")
    name = "scl_cifar_fs_conv4_1shot.json"
    record = read_json(RESULTS / name, "result")
    write_json(tmp_path / name, record)
    record["rows"][0]["seconds"] = {"encode": 1.0}  # measured again, before the linked file in the files' order
    write_json(tmp_path / "alignment.json", record)
    for model in record["models"].values():
        model["seed"] = 7
        model["recipe_yaml"] = model["recipe_yaml"].replace("\nseed: 0\n", "\nseed: 7\n")
    write_json(tmp_path / "seeds" / "again.json", record)
    found = measured(row, tmp_path)["cifar_fs-1shot"]
    assert [(one.seed, one.file) for one in found] == [(0, name), (7, "seeds/again.json")]


def test_seeds_of_a_linked_model_of_an_earlier_stage_are_found_whatever_comes_later(tmp_path):
    (row,) = find("scl/B.1/conv4")
    name = "scl_cifar_fs_conv4_1shot.json"
    record = read_json(RESULTS / name, "result")
    for seed, file in ((0, name), (7, "seeds/again.json")):
        for model in record["models"].values():
            recipe = yaml.safe_load(model["recipe_yaml"])
            assert [stage["stage"] for stage in model["stages"]] == [recipe["stages"][0]["name"]]
            later = {**recipe["stages"][0], "name": "later", "epochs": 30 + seed}
            recipe |= {"seed": seed, "stages": [recipe["stages"][0], later]}
            model |= {"seed": seed, "recipe_yaml": yaml.safe_dump(recipe)}
        write_json(tmp_path / file, record)
    assert [one.seed for one in measured(row, tmp_path)["cifar_fs-1shot"]] == [0, 7]


@pytest.mark.parametrize("other", ["training", "test"])
def test_seeds_of_another_training_or_test_do_not_stand_beside_a_result(tmp_path, other):
    (row,) = find("scl/B.1/conv4")
    name = "scl_cifar_fs_conv4_1shot.json"
    record = read_json(RESULTS / name, "result")
    write_json(tmp_path / name, record)
    for model in record["models"].values():
        model["seed"] = 7
        model["recipe_yaml"] = model["recipe_yaml"].replace("\nseed: 0\n", "\nseed: 7\n")
        if other == "training":
            assert "epochs: 24" in model["recipe_yaml"]
            model["recipe_yaml"] = model["recipe_yaml"].replace("epochs: 24", "epochs: 25")
    if other == "test":
        for one in record["rows"]:
            one["support_copies"] += 1
    write_json(tmp_path / "seeds" / "again.json", record)
    assert [one.seed for one in measured(row, tmp_path)["cifar_fs-1shot"]] == [0]


def test_rows_never_run_have_no_numbers(tmp_path):
    (row,) = find("lssa/3/all")
    assert measured(row, tmp_path) == {}
    assert ours_text([]) == difference_text([], row.cells["cub"]) == seeds_text([]) == ""
    assert result_path(row, tmp_path) == tmp_path / "lssa" / "3-all.json"


def test_several_seeds_show_both_intervals():
    each = [
        Measured(seed, Estimate(mean, 0.01, 600, "episodes", "normal"), "c", "m", None, "t", "f")
        for seed, mean in enumerate((0.50, 0.52, 0.54))
    ]
    # Student's t with two degrees of freedom: 4.303 * 0.02 / sqrt(3)
    assert ours_text(each) == "52.00 ± 1.00 over episodes, ± 4.97 over seeds"
    assert seeds_text(each) == "0, 1, 2"


def test_a_column_takes_its_number():
    numbers = {"mean": 0.5, "ci95": 0.1, "count": 9, "over": "images", "interval": "normal"}
    row = {"task": "robustness", **numbers, "columns": {"rotated": {**numbers, "mean": 0.25}}}
    assert taken(row, None).mean == 0.5
    assert taken(row, "rotated").mean == 0.25
    with pytest.raises(FieldmarkError, match="has no 'reduced'; expected one of rotated"):
        taken(row, "reduced")
