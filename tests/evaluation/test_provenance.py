import subprocess
import sys
from pathlib import Path

import pytest

from fieldmark.evaluation.provenance import commit, hardware, provenance

# The package offers the function of the same name, so the module is reached by this way.
made = sys.modules["fieldmark.evaluation.provenance"]
TOP = Path(__file__).resolve().parents[2]


def test_commit_says_whether_the_tree_was_changed(tmp_path, monkeypatch):
    """In a small repository of the same layout, before and after an edit."""
    here = tmp_path / "src" / "fieldmark" / "evaluation"
    here.mkdir(parents=True)
    (here / "provenance.py").write_text("a = 1\n")

    def git(*arguments):
        options = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        done = subprocess.run(["git", *options, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(made, "__file__", str(here / "provenance.py"))
    assert commit() == git("rev-parse", "HEAD")
    (here / "provenance.py").write_text("a = 2\n")
    assert commit() == git("rev-parse", "HEAD") + "+changes"


def test_commit_outside_a_checkout_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "__file__", str(tmp_path / "provenance.py"))
    assert commit() == "unknown"


def test_paths_of_a_machine_are_left_out():
    command = provenance(["fieldmark", "eval", str(TOP / "model.safetensors"), "--name", "two words"])["command"]
    assert command == "fieldmark eval model.safetensors --name 'two words'"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_hardware_is_named():
    assert hardware()["processor"]
    assert hardware()["memory_gib"] > 0
