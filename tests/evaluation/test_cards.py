"""Cards and docs/models.md are what the model files and the results say."""

import json
import shutil
import statistics
from pathlib import Path

import pytest

from fieldmark.backbones import Encoder, create, save_model
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation import cards
from fieldmark.evaluation.results import load_record
from fieldmark.evaluation.seeds import over_seeds
from fieldmark.files import read_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
FILES = sorted((RESULTS / "models" / "cards").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_card_is_what_the_files_say(path):
    assert read_json(path, "card") == cards.fresh(path, RESULTS, over_seeds(RESULTS)), "run: make results"


def test_the_page_is_what_the_cards_say():
    found = sorted((read_json(path, "card") for path in FILES), key=lambda card: card["name"])
    assert (ROOT / "docs" / "models.md").read_text() == cards.models_page(found), "run: make results"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_measured_rows_are_rows_of_their_results(path):
    card = read_json(path, "card")
    assert card["measured"]
    for one in card["measured"]:
        record = load_record(RESULTS / one["file"])
        same = [
            row
            for row in record["rows"]
            if (row["head"], row["mean"], row["ci95"]) == (one["head"], one["mean"], one["ci95"])
            and row["protocol"]["shot"] == one["shot"]
            and record["models"][row["model"]]["path"].endswith(f"models/{card['file']}")
        ]
        assert same


def test_a_card_tells_of_the_other_seeds_of_its_recipe():
    card = read_json(RESULTS / "models" / "cards" / "glyphs_conv4.json", "card")
    (row,) = [one for one in card["over_seeds"] if (one["shot"], one["head"]) == (1, "prototype")]
    assert row["seeds"] == [0, 1, 2]
    means = [load_record(RESULTS / file)["rows"][0]["mean"] for file in row["files"]]
    assert row["means"] == means
    assert row["mean"] == pytest.approx(sum(means) / 3)
    # Student's factor for three seeds is 4.303.
    assert row["ci95"] == pytest.approx(4.303 * statistics.stdev(means) / 3**0.5, rel=1e-3)
    section = cards.models_page([card])
    assert "The same recipe with several seeds; the interval is over seeds (Student):" in section


@pytest.fixture
def results(tmp_path):
    """A folder of results with one model and one results file that names it, by its file and by its name."""
    (tmp_path / "models" / "cards").mkdir(parents=True)
    shutil.copy(RESULTS / "models" / "glyphs_conv4.safetensors", tmp_path / "models" / "tiny.safetensors")
    record = json.loads((RESULTS / "glyphs_conv4_1shot.json").read_text())
    for name, path in (("tiny_1shot", "results/models/tiny.safetensors"), ("other", "conv4/protonet-glyphs")):
        changed = json.loads(json.dumps(record).replace("results/models/glyphs_conv4.safetensors", path))
        (tmp_path / f"{name}.json").write_text(json.dumps(changed))
    return tmp_path


def test_a_card_is_begun_by_hand_and_filled_in(results):
    begun = results / "models" / "cards" / "tiny.json"
    begun.write_text('{"name": "conv4/protonet-glyphs", "note": "A *note*."}')
    (card,) = cards.refresh(results)
    assert read_json(begun, "card") == card
    record = load_record(results / "tiny_1shot.json")
    heads = [row["head"] for row in record["rows"] if record["models"][row["model"]]["trained"]]
    assert len(heads) > 2
    assert [(row["file"], row["head"]) for row in card["measured"]] == [
        *(("other.json", head) for head in heads), *(("tiny_1shot.json", head) for head in heads),
    ]  # fmt: skip
    assert [row["file"] for row in cards.headlines(card)] == ["tiny_1shot.json"]
    assert (card["data"], card["seed"], card["classes"]) == ("glyphs", 0, 149)
    assert card["objectives"] == ["cross_entropy", "protonet"]
    page = cards.models_page([card])
    assert "A *note*." in page
    assert f"5-way 1-shot {cards.accuracy(card['measured'][len(heads)])}" in page
    before = begun.stat().st_mtime_ns
    cards.refresh(results)
    assert begun.stat().st_mtime_ns == before


@pytest.mark.parametrize(("text", "said"), [("{}", "is no card"), ('{"name": "a/b-c"}', "has no model file")])
def test_bad_cards_are_named(text, said, results):
    (results / "models" / "cards" / "lost.json").write_text(text)
    with pytest.raises(FieldmarkError, match=rf"lost\.json .*{said}"):
        cards.refresh(results)


def test_a_model_of_unknown_origin_has_no_card(results):
    save_model(results / "models" / "own.safetensors", Encoder(create("conv4"), (0.5,) * 3, (0.5,) * 3), {"seed": 0})
    (results / "models" / "cards" / "own.json").write_text('{"name": "conv4/ce-own"}')
    with pytest.raises(FieldmarkError, match="does not say its recipe"):
        cards.refresh(results)
