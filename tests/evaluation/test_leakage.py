"""The same birds under the names of CUB and of NABirds."""

import pytest

from fieldmark.data.splits import class_split
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.leakage import _CALLED, require_new_classes, species_of


class Images:
    def __init__(self, name, classes):
        self.class_names = classes
        self.manifest = type("Manifest", (), {"name": name})()


# Real names of both data sets.
SAME = [
    ("001.Black_footed_Albatross", "0295.Black-footed Albatross (Adult)"),
    ("009.Brewer_Blackbird", "0971.Brewer's Blackbird (Male)"),
    ("022.Chuck_will_Widow", "Chuck-will's-widow"),
    ("023.Brandt_Cormorant", "Brandt's Cormorant"),
    ("034.Gray_crowned_Rosy_Finch", "Gray-crowned Rosy-Finch"),
    ("036.Northern_Flicker", "Northern Flicker (Red-shafted)"),
    ("017.Cardinal", "Northern Cardinal (Female/Juvenile)"),
    ("044.Frigatebird", "Magnificent Frigatebird (Adult Male)"),
    ("047.American_Goldfinch", "American Goldfinch (Female/Nonbreeding Male)"),
    ("087.Mallard", "0314.Mallard (Breeding male)"),
    ("091.Mockingbird", "Northern Mockingbird"),
    ("103.Sayornis", "Say\u2019s Phoebe"),
    ("110.Geococcyx", "Greater Roadrunner"),
    ("120.Fox_Sparrow", "Fox Sparrow (Sooty)"),
    ("123.Henslow_Sparrow", "Henslow's Sparrow"),
    ("122.Harris_Sparrow", "Harris's Sparrow (Immature)"),
    ("141.Artic_Tern", "Arctic Tern"),
    ("146.Forsters_Tern", "Forster's Tern"),
    ("172.Myrtle_Warbler", "Yellow-rumped Warbler (Breeding Myrtle)"),
    ("160.Black_and_white_Warbler", "Black-and-white Warbler"),
]
OTHER = [
    ("136.Tree_Swallow", "American Tree Sparrow"),
    ("073.Blue_Jay", "Green Jay"),
    ("145.Elegant_Tern", "Royal Tern"),
    ("119.Field_Sparrow", "Fox Sparrow (Red)"),
]


@pytest.mark.parametrize(("cub", "nabirds"), SAME)
def test_a_bird_is_known_in_both_directions(cub, nabirds):
    for trained, learned, tested, asked in (("cub-feat-cropped", cub, "nabirds-fieldmark", nabirds),
                                            ("nabirds-fieldmark", nabirds, "cub-feat", cub)):  # fmt: skip
        facts = {"training_classes": {trained: [learned]}}
        with pytest.raises(FieldmarkError, match="1 of 2 test classes were in the model's training"):
            require_new_classes(facts, Images(tested, [asked, "Rock Pigeon"]))


@pytest.mark.parametrize(("cub", "nabirds"), OTHER)
def test_other_birds_are_not(cub, nabirds):
    facts = {"training_classes": {"cub-feat": [cub]}}
    assert require_new_classes(facts, Images("nabirds", [nabirds]), allow=True) == []


def test_two_plumages_are_two_classes_within_nabirds():
    facts = {"training_classes": {"nabirds-fieldmark": ["0314.Mallard (Breeding male)"]}}
    images = Images("nabirds-fieldmark", ["0315.Mallard (Female/Eclipse male)"])
    assert require_new_classes(facts, images) == []


def test_brackets_mean_plumage_for_birds_alone():
    facts = {"training_classes": {"omniglot": ["alpha (left)"]}}
    assert require_new_classes(facts, Images("omniglot_runs", ["alpha (right)"]), allow=True) == []


def test_the_table_of_names_speaks_of_classes_that_cub_has():
    cub = {name for species in class_split("cub-feat", "all") for name in [species.split(".")[1].replace("_", " ")]}
    known = {name.lower().replace("grey", "gray") for name in cub}
    assert set(_CALLED) - known == {"leconte sparrow"}  # a spelling of NABirds
    assert len({frozenset(species_of(name)) for name in class_split("cub-feat", "all")}) == 200


def test_classes_of_the_grocery_store_are_known_in_both_splits():
    facts = {"training_classes": {"grocery": ["Royal-Gala"]}}
    assert require_new_classes(facts, Images("grocery-fieldmark", ["Royal-Gala", "Kiwi"]), allow=True) == ["Royal-Gala"]
