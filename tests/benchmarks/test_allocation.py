"""The benchmark of kept memory: one process a side and repeat."""

import pytest

from fieldmark import allocation
from fieldmark.benchmarks.allocation import WORK, run
from fieldmark.errors import FieldmarkError

SMALL = "forward and backward, conv4, 32 px, batch 64"


@pytest.mark.skipif(not allocation.is_glibc(), reason="the C library is not glibc")
def test_rows_of_time_and_memory():
    rows = run(repeats=1, work=[SMALL])["rows"]
    assert [row["unit"] for row in rows] == ["images/s", "images/s", "MB"]
    assert all(row["ours"] > 0 and row["peer"] > 0 for row in rows)
    assert rows[0]["target"] == WORK[SMALL].target
    assert len(rows[1]["repeats"]["ours"]) == 1
    assert rows[2]["ratio"] == pytest.approx(rows[2]["peer"] / rows[2]["ours"])


def test_where_memory_cannot_be_kept_it_says_so(monkeypatch):
    monkeypatch.setattr("fieldmark.benchmarks.allocation.is_glibc", lambda: False)
    with pytest.raises(FieldmarkError, match="freed memory cannot be kept here: the C library is not glibc"):
        run(repeats=1, work=[SMALL])
