"""`fieldmark bench ssanet` runs, and says where a target was missed."""

import json

import pytest
import torch

from fieldmark.benchmarks import ssanet
from fieldmark.cli import main as cli

SMALL = {"cases": ((1, 3, 8), (16, 33, 8)), "model": ("conv4", 32, 16, 3)}


def test_bench_writes_rows(monkeypatch, tmp_path, capsys):
    plain = ssanet.run
    monkeypatch.setattr(ssanet, "run", lambda **given: plain(**given, **SMALL))
    monkeypatch.setattr(ssanet, "REGIONS", (2, 8, 7, 3, 32))
    target = tmp_path / "ssanet.json"
    assert cli.main(["bench", "ssanet", "--repeats", "1", "--json", str(target)]) == 0
    assert "S = 33, K = 8, 16 images: fft against direct" in capsys.readouterr().out
    rows = json.loads(target.read_text())["benchmarks"]["ssanet"]["rows"]
    assert [row["clock"] for row in rows] == ["wall", "wall", "wall", "cpu", "wall", "cpu"]
    assert [row.get("chosen") for row in rows[:2]] == ["direct", "fft"]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
        assert row["target"] in (ssanet.TARGET_CHOICE, 1.0, ssanet.TARGET_SHARED)


@pytest.mark.parametrize(("ratio", "word"), [(0.5, "FAIL"), (1.5, "")])
def test_a_row_below_its_target_says_so(monkeypatch, capsys, ratio, word):
    row = {"what": "x", "ours": 1.0, "peer": 1.0, "unit": "images/s", "ratio": ratio, "target": 1.0}
    monkeypatch.setattr(ssanet, "run", lambda **_: {"rows": [row]})
    assert cli.main(["bench", "ssanet"]) == 0
    assert ("FAIL" in capsys.readouterr().out) == bool(word)


def test_both_ways_of_inference_look_at_the_same_boxes():
    with torch.no_grad():
        sides = [ssanet.Inference(features, ("conv4", 64, 32, 3)) for features in ("shared", "reextract")]
        found = [one.classifier.look(one.encoder, one.images) for one in sides]
    torch.testing.assert_close(found[0].candidates, found[1].candidates)
    assert not torch.equal(found[0].logits, found[1].logits)
