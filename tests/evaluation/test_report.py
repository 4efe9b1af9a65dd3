"""The page of an evaluation: what it says of results that are made by hand."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from fieldmark import data
from fieldmark.backbones import Encoder, create
from fieldmark.evaluation import evaluate_few_shot, report


@pytest.fixture(scope="module")
def glyphs():
    test = data.load("glyphs", split="test", progress=False)
    whole = test.select_classes(test.class_names[:6])
    return whole.subset(np.concatenate([np.flatnonzero(whole.labels == c)[:6] for c in range(6)]))


@pytest.fixture(scope="module")
def result_of(glyphs):
    torch.manual_seed(0)
    encoder = Encoder(create("conv4"), (0.5,) * 3, (0.25,) * 3)
    return lambda episodes: evaluate_few_shot(encoder, glyphs, way=3, shot=1, queries=2, episodes=episodes)


def error_bars(page):
    """From where to where each interval is drawn; the chart has no other collection of lines."""
    (lines,) = re.findall(r'<g id="LineCollection_1">.*?</g>', page, re.S)
    return re.findall(r'd="(M [^"]+)"', lines)


def test_a_page_is_whole_by_itself_and_takes_no_text_for_markup(tmp_path):
    sections = [("a < b", "<i>kept</i>")]
    path = report.write_report(tmp_path / "report.html", "apples & <pears>", "lead <b>", sections, "<foot>")
    page = path.read_text()
    assert "<h1>apples &amp; &lt;pears&gt;</h1>" in page
    assert "<h2>a &lt; b</h2><i>kept</i>" in page
    assert "lead &lt;b&gt;" in page
    assert "&lt;foot&gt;" in page
    assert "http" not in page
    assert "src=" not in page


def test_accuracies_stand_with_their_intervals_and_paired_differences(result_of):
    first = result_of(20)
    better = replace(first, accuracy=first.accuracy + 0.05, episode_accuracies=first.episode_accuracies + 0.05)
    page = report.accuracy_table({"one": first, "<two>": better})
    for text in (first.estimate.percent(), better.estimate.percent(), "<td class='number'>+5.00 ± 0.00</td>"):
        assert page.count(text) == 1
    assert "&lt;two&gt;" in page
    assert "<two>" not in page
    assert len(error_bars(page)) == 2


def test_results_on_other_episodes_have_no_paired_difference(result_of):
    page = report.accuracy_table({"one": result_of(20), "other": result_of(21)})
    assert page.count("<td class='number'></td>") == 2


def test_an_unknown_interval_is_no_bar(result_of):
    single = result_of(1)
    assert single.ci95 == float("inf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = report.accuracy_table({"known": result_of(20), "unknown": single})
    assert len(error_bars(page)) == 1
    assert "nan" not in page.lower()
    assert "inf" not in re.sub("(?i)info", "", page).lower()


def test_the_pair_that_is_most_often_confused_comes_first(glyphs, result_of):
    result = result_of(400)
    result.confusion[:] = 0
    np.fill_diagonal(result.confusion, 10)
    result.confusion[1, 4] = result.confusion[4, 1] = 9
    result.confusion[0, 2] = 1
    page = report.confusions(result, glyphs)
    names = [f"{glyphs.class_names[a]} and {glyphs.class_names[b]}" for a, b in ((1, 4), (0, 2))]
    assert [page.index(name) for name in names] == sorted(page.index(name) for name in names)
    assert page.count("<tr>") == 3  # the heading, and these two


def test_example_episodes_frame_hits_and_misses(glyphs, result_of):
    result = result_of(20)
    result.predicted[:] = result.episodes.query_labels
    assert report.MISS not in report.example_episodes(result, glyphs)
    result.predicted[:] = (result.episodes.query_labels + 1) % 3
    page = report.example_episodes(result, glyphs)
    assert report.HIT not in page
    assert page.count(report.MISS) == 2 * 3 * 6
