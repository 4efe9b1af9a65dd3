"""The list: what comes with fieldmark is whole, and a wrong one is refused in a line."""

from pathlib import Path

import pytest

from fieldmark import data, heads
from fieldmark.errors import FieldmarkError
from fieldmark.picks import find, load_list

ROOT = Path(__file__).resolve().parents[2]


def test_every_head_of_the_list_can_be_made_without_training():
    for spec in load_list().heads.values():
        choices = {name: values[0] for name, values in spec.choose.items()}
        head = heads.create(spec.head, **spec.options, **choices)
        assert not head.learned, spec.title


def test_data_and_models_of_the_list_are_known():
    listed = load_list()
    for spec in listed.data.values():
        splits = {*data.DATASETS.get(spec.name).facts["splits"], "all"}
        assert {spec.test, spec.base, spec.val} <= splits
        assert spec.test not in (spec.base, spec.val)  # nothing is chosen, or centred, on what is tested
    for spec in listed.backbones.values():
        path = ROOT / spec.model
        assert path.exists() if path.suffix else spec.model == "efficientnet_lite0"


def test_every_comparison_has_its_files():
    every = find(load_list())
    files = {one.file(shot, "x").name for one in every for shot in one.episodes}
    assert len(files) == sum(len(one.episodes) for one in every)
    assert {one.address.split("/")[0] for one in every} == {"glyphs", "omniglot", "cifar_fs", "fc100", "grocery"}


def test_addresses_choose(tree, write):
    _, listed = write(tree)
    assert [one.address for one in find(listed)] == ["elsewhere/pixels", "bars/pixels"]
    assert [one.address for one in find(listed, ["bars"])] == ["bars/pixels"]
    assert [one.address for one in find(listed, ["bars/pixels"])] == ["bars/pixels"]
    with pytest.raises(FieldmarkError, match="unknown comparison 'bar'; did you mean 'bars'"):
        find(listed, ["bar"])


def test_settings_are_all_that_decides_the_numbers(tree, write):
    _, listed = write(tree)
    before = find(listed, ["bars"])[0].settings(1)
    tree["heads"] = {**tree["heads"], "prototype": {**tree["heads"]["prototype"], "title": "another name"}}
    assert find(write(tree)[1], ["bars"])[0].settings(1) == before
    for key, value in (("seed", 1), ("way", 3), ("base_images", 20)):
        assert find(write({**tree, key: value})[1], ["bars"])[0].settings(1) != before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ways": 5}, "list.yaml: unknown key 'ways'; did you mean 'way'"),
        ({"shots": "five"}, "list.yaml: key shots is 'five'; expected a list of a whole number"),
        ({"shots": [1]}, "elsewhere/pixels has 2 numbers of episodes; expected 1"),
        ({"backbones": {}}, "unknown backbone of a comparison in list.yaml 'pixels'"),
        ({"data": {}}, "unknown data set of a comparison in list.yaml 'elsewhere'"),
    ],
)
def test_a_wrong_list_is_refused(change, said, tree, write):
    with pytest.raises(FieldmarkError) as error:
        write({**tree, **change})
    assert said in str(error.value)
    assert "\n" not in str(error.value)
