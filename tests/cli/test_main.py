import json
import subprocess
import sys

import pytest

from fieldmark.cli import main as cli
from fieldmark.errors import FieldmarkError


def run(capsys, *arguments):
    status = cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_overview_lists_every_command(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert all(f"  {name}" in out for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    assert f"example:  fieldmark {name}" in capsys.readouterr().out


def test_unknown_command_suggests_the_nearest(capsys):
    status, _, err = run(capsys, "evla")
    assert status == cli.EXIT_BAD_INPUT
    assert "did you mean 'eval'?" in err
    assert err.count("\n") == 1


def test_unknown_option_suggests_the_nearest(capsys):
    status, _, err = run(capsys, "eval", "conv4", "--shots", "1")
    assert status == cli.EXIT_BAD_INPUT
    assert "did you mean '--shot'?" in err


def test_version(capsys):
    assert run(capsys, "--version")[1].startswith("fieldmark ")


@pytest.mark.parametrize("name", ["heads", "backbones", "data", "recipes"])
def test_lists_are_tables_or_json(name, capsys):
    assert run(capsys, name)[0] == 0
    status, out, _ = run(capsys, name, "--json", "-")
    assert status == 0
    rows = json.loads(out)
    assert rows
    assert all(row["name"] for row in rows)


def test_our_own_errors_are_one_line_too(capsys, monkeypatch):
    def fail(_):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(cli, "run", fail)
    status, _, err = run(capsys, "demo")
    assert status == cli.EXIT_INTERNAL
    assert err.count("\n") == 1
    assert "RuntimeError: two lines" in err


def test_debug_shows_the_traceback():
    with pytest.raises(FieldmarkError):
        cli.main(["evla", "--debug"])


def test_interrupt_is_status_130(capsys, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", stop)
    status, _, err = run(capsys, "demo")
    assert status == 130
    assert "interrupted" in err


def test_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "fieldmark", "evla"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
