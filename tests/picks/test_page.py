"""What the page says follows from the files: who is ahead, by how much, and at what cost."""

import numpy as np
import pytest

from fieldmark.evaluation.results import estimate_of
from fieldmark.evaluation.statistics import estimate
from fieldmark.picks import find, load_list
from fieldmark.picks.page import page, readme_section, write_page
from fieldmark.picks.run import measure
from fieldmark.picks.verdicts import Contest, best_of, cheapest_as_good, contests, tally, to_pooled
from fieldmark.picks.wording import number
from fieldmark.reproduce.state import Places

QUERIES = 20


def contest(tree, write, hits, costs, shot=1):
    """A contest with hits and milliseconds by head."""
    comparison = find(write(tree)[1], ["bars"])[0]
    rows = {}
    for key, values in hits.items():
        shares = np.asarray(values) / QUERIES
        local = comparison.heads[key].family != "pooled"
        rows[key] = {
            **estimate(shares).to_dict(), "pick": key, "hits_per_episode": list(values), "queries_per_episode": QUERIES,
            "descriptors": {"name": "dense" if local else "pooled", "options": {}},
            "manifest": {"size": [8, 8]},
            "cost": {
                "milliseconds_per_query": costs[key], "milliseconds_one_query": 10 * costs[key],
                "support_bytes_per_class": 4000, "peak_bytes_one_query": 2_000_000,
                "descriptors": [16 if local else 1, 3], "encoder_milliseconds_per_image": 2.0,
            },
        }  # fmt: skip
    made = {"commit": "0" * 40, "hardware": {"processor": "P", "cores": 2}}
    return Contest(comparison, shot, {"provenance": made, "pick": {"chosen": {}}}, "file.json", rows)


def assert_same(found, expected):
    assert (found.mean, found.ci95) == pytest.approx((expected.mean, expected.ci95))


@pytest.fixture
def hits():
    """Twelve episodes: even ones favour the mean, odd ones the centred mean; places are ahead of both."""
    even = np.arange(12) % 2 == 0
    return {
        "prototype": np.where(even, 12, 8),
        "centred": np.where(even, 8, 11),
        "fusion": np.full(12, 10),
        "local_knn": np.full(12, 14),
        "lsc": np.full(12, 9),
    }


COSTS = {"prototype": 0.001, "centred": 0.002, "fusion": 0.01, "local_knn": 0.5, "lsc": 0.3}


def test_no_head_is_chosen_on_the_episodes_it_is_compared_on(tree, write, hits):
    one = contest(tree, write, hits, COSTS)
    found = best_of(one, one.family("aligned"), one.family("pooled"))
    # Odd episodes prefer "centred", so it stands for the pooled heads on the even ones; and the other way round.
    expected = [14 - hits["centred"][e] if e % 2 == 0 else 14 - hits["prototype"][e] for e in range(12)]
    assert_same(found.difference, estimate(np.array(expected) / QUERIES))
    assert found.first == ("local_knn",)
    assert set(found.second) == {"prototype", "centred"}
    assert found.verdict == "better"
    assert best_of(one, [], ["prototype"]) is None


def test_a_pooled_head_is_compared_with_the_other_pooled_ones(tree, write, hits):
    one = contest(tree, write, hits, COSTS)
    found = to_pooled(one, "prototype")
    assert_same(found.difference, estimate((hits["prototype"] - hits["centred"]) / QUERIES))
    assert found.second == ("centred",)


def test_the_cheapest_of_those_that_are_as_good(tree, write, hits):
    assert cheapest_as_good(contest(tree, write, hits, COSTS)) == "local_knn"
    close = {**hits, "fusion": hits["local_knn"] + np.tile([1, -1, 0], 4)}
    assert cheapest_as_good(contest(tree, write, close, COSTS)) == "fusion"


def test_verdicts_are_counted(tree, write, hits):
    one = contest(tree, write, hits, COSTS)
    pairs = [(one, to_pooled(one, key)) for key in one.rows]
    counted = tally(pairs)
    assert counted.count == 5
    assert [pair[1].first for pair in counted.better] == [("fusion",), ("local_knn",), ("lsc",)]
    assert [pair[1].first for pair in counted.open] == [("prototype",), ("centred",)]
    assert counted.mean == pytest.approx(np.mean([pair[1].difference.mean for pair in pairs]))


def test_the_page_of_nothing_says_so(tmp_path):
    text = page(load_list(), tmp_path)
    assert "Nothing has been measured yet" in text
    assert "FC100 with EfficientNet-Lite0 (ImageNet), shots 1, 5 and 10: `python -m fieldmark.picks fc100/" in text
    assert readme_section(tmp_path) == ""


def test_the_page_of_some_files_has_their_numbers_and_pictures(tree, write, tmp_path):
    _, listed = write(tree)
    measure(find(listed, ["bars"])[0], Places(), tmp_path, say=lambda _: None)
    (tmp_path / "bars-pixels-3shot.json").unlink()
    one, *others = contests(listed, tmp_path)
    assert others == []
    target = write_page(tmp_path / "docs" / "what.md", listed, tmp_path)
    text = target.read_text()
    assert text == page(listed, tmp_path)
    for key, row in one.rows.items():
        line = next(
            part for part in text.split("## bars with")[1].splitlines() if part.startswith(f"| {one.spec(key).title} ")
        )
        assert estimate_of(row).percent() in line
        assert number(row["cost"]["milliseconds_per_query"]) in line
    assert "- bars with pixels (8 x 8), shots 3: `python -m fieldmark.picks bars/pixels --run`" in text
    assert "- others with pixels (8 x 8), shots 1 and 3" in text
    assert "- the rest: nobody asked." in text
    assert (target.parent / "images" / "what_to_pick" / "bars-pixels.webp").exists()


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (14, "At 1 shot alignment pays in more than half of the comparisons."),
        (2, "At 1 shot alignment does not pay: it is clearly ahead no more often than clearly behind."),
    ],
)
def test_the_plain_answer_turns_with_the_numbers(ahead, said, tree, write, hits, monkeypatch):
    from fieldmark.picks import page as module

    hits = {**hits, "local_knn": np.full(12, ahead), "lsc": np.full(12, 2)}
    one = contest(tree, write, hits, COSTS)
    monkeypatch.setattr(module, "contests", lambda listed, out: [one])
    text = page(one.comparison.listed, "anywhere")
    assert f"**{said} {said.replace('At 1 shot', 'With pixels')}**" in text
    assert ("Where it is clearly ahead, the aligned head takes 0.5 ms a query" in text) == (ahead == 14)
    assert ("0.25 times what encoding the image takes" in text) == (ahead == 14)


def test_maps_of_one_place_have_nothing_to_align(tree, write, hits, monkeypatch):
    from fieldmark.picks import page as module

    one = contest(tree, write, hits, COSTS)
    for row in one.rows.values():
        row["cost"]["descriptors"][0] = 1
    monkeypatch.setattr(module, "contests", lambda listed, out: [one])
    assert "No comparison of aligned with pooled heads" in page(one.comparison.listed, "anywhere")
