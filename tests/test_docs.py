"""What README and documentation say holds: Python runs, command lines parse, every registered name has a place."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fieldmark import backbones, data, descriptors, heads, methods
from fieldmark.cli.main import COMMANDS, Parser
from fieldmark.cli.values import heads_in, options_by_head
from fieldmark.data.augment import AUGMENTATIONS
from fieldmark.errors import FieldmarkError
from fieldmark.functional.transport import SOLVERS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FETCHED = re.compile(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=\"?(https?:[^\" >]+)")
FENCE = re.compile(r"^( *)```(\w+)?[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
PROMISED = re.compile(r"`fieldmark ([a-z]+)[^`]*`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)|<img src=\"([^\":]+)\"")
# Packages whose modules are all on an API page; and modules without an API of their own: how pictures are laid out, and
# commands.
PACKAGES = (
    "functional", "heads", "backbones", "descriptors", "alignment", "methods", "explain", "evaluation", "gallery",
    "reproduce", "picks",
)  # fmt: skip
NO_API = ("explain.sheet", "explain.panels", "evaluation.cards", "evaluation.table", "picks.__main__")


def blocks(page: Path, *languages: str) -> list[str]:
    """Fenced code of a page in any of the languages, without its indentation."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [
        "\n".join(line.removeprefix(indent) for line in code.splitlines())
        for indent, language, code in found
        if language in languages
    ]


def commands(page: Path) -> list[list[str]]:
    """The ``fieldmark ...`` lines of console blocks, as words; lines that end in a backslash go on."""
    out = []
    for block in blocks(page, "console", "bash", "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0] == "fieldmark":
                out.append(words[1:])
    return out


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


COMMAND_LINES = [
    pytest.param(words, id=f"{name_of(page)}: {' '.join(words)[:60]}") for page in PAGES for words in commands(page)
]
WITH_PYTHON = [pytest.param(page, id=name_of(page)) for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("words", COMMAND_LINES)
def test_commands_parse(words):
    assert words, "a bare `fieldmark` shows nothing"
    if words[0].startswith("--"):
        assert words[0] in ("--help", "--version")
        return
    assert words[0] in COMMANDS
    command = importlib.import_module(f"fieldmark.cli.{COMMANDS[words[0]][0]}")
    parser = Parser(prog=f"fieldmark {words[0]}", allow_abbrev=False)
    command.add_arguments(parser)
    if "--help" in words:
        return
    options, unknown = parser.parse_known_args(words[1:])
    if getattr(command, "TAKES_OVERRIDES", False):
        if not options.recipe.endswith(".yaml") or (ROOT / options.recipe).exists():
            from fieldmark.training import load_recipe

            load_recipe(options.recipe, overrides=unknown, quick=options.quick)
        unknown = []
    assert not unknown
    known = command.VIEWS if words[0] == "explain" else heads.HEADS
    named = heads_in(options.head) if getattr(options, "head", None) else {}
    for label, name in named.items():
        assert name in known
        if words[0] == "eval":
            heads.create(name, **options_by_head(named, options.head_option)[label])
    if hasattr(options, "data"):
        assert options.data in data.DATASETS


def test_a_misspelt_option_would_be_noticed():
    """The check above can fail."""
    with pytest.raises((FieldmarkError, AssertionError)):
        test_commands_parse(["eval", "conv4", "--shots", "3"])
    with pytest.raises((FieldmarkError, AssertionError)):
        test_commands_parse(["trian", "baseline/glyphs_conv4"])


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_runs(page, tmp_path, monkeypatch):
    """All Python of a page, in order, as one program in an empty folder."""
    program = "\n\n".join(blocks(page, "python"))
    monkeypatch.chdir(tmp_path)
    if ".add(" not in program:
        exec(compile(program, name_of(page), "exec"), {"__name__": "page"})
        return
    # What registers names does so in a process of its own.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("page", [pytest.param(page, id=name_of(page)) for page in PAGES if blocks(page, "yaml")])
def test_recipes_of_a_page_are_valid(page):
    from fieldmark.training import make_recipe
    from fieldmark.training.typed import parse_yaml

    for block in blocks(page, "yaml"):
        make_recipe(parse_yaml(block, page.name))


@pytest.mark.parametrize("name", heads.names())
def test_every_head_has_its_page(name):
    page = ROOT / "docs" / "heads" / f"{name}.md"
    assert page.exists(), f"write docs/heads/{name}.md: equation, source, options"
    assert f"heads/{name}.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_on_the_api_page(package):
    page = (ROOT / "docs" / "api" / f"{package}.md").read_text(encoding="utf-8").splitlines()
    modules = sorted((ROOT / "src" / "fieldmark" / package).glob("*.py"))
    names = [m.stem for m in modules if m.stem != "__init__" and f"{package}.{m.stem}" not in NO_API]
    assert [name for name in names if f"::: fieldmark.{package}.{name}" not in page] == []


@pytest.mark.parametrize(
    "name", sorted({path.parent.name for path in (ROOT / "recipes").glob("*/*.yaml")} - {"baseline"})
)
def test_every_method_has_a_page_that_names_its_recipes(name):
    page = ROOT / "docs" / "methods" / f"{name}.md"
    assert page.exists(), f"write docs/methods/{name}.md: equations, options, paper and code, recipes by table row"
    assert f"methods/{name}.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    recipes = [f"{name}/{path.stem}" for path in sorted((ROOT / "recipes" / name).glob("*.yaml"))]
    assert [recipe for recipe in recipes if f"`{recipe}`" not in text] == []


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("docs/objectives.md", methods.names()),
        ("docs/backbones.md", backbones.names()),
        ("docs/descriptors.md", descriptors.names()),
        ("docs/datasets.md", data.names()),
        ("docs/augmentation.md", AUGMENTATIONS.names()),
        ("README.md", [*heads.names(), *methods.names(), *backbones.names(), *descriptors.names(), *SOLVERS.names()]),
        ("docs/transport.md", SOLVERS.names()),
    ],
)
def test_every_registered_name_is_in_the_documentation(page, names):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in text] == []


def test_pages_promise_no_command_that_does_not_exist():
    found = {(name_of(page), name) for page in PAGES for name in PROMISED.findall(page.read_text(encoding="utf-8"))}
    assert {pair for pair in found if pair[1] not in COMMANDS} == set()


def test_links_between_files_lead_somewhere():
    """Relative links of README and CONTRIBUTING; those of docs/ are checked by `mkdocs build --strict`."""
    for page in PAGES[:2]:
        for target, image in LINK.findall(page.read_text(encoding="utf-8")):
            assert (page.parent / (target or image)).exists(), f"{page.name} links to {target or image}"


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocstrings", reason="the documentation's packages are not installed (extra: docs)")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for page in tmp_path.rglob("*.html"):
        loaded = FETCHED.findall(page.read_text(encoding="utf-8"))
        assert loaded == [], page.name
