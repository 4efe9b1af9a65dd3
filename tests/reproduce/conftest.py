"""A made-up paper whose rows train in a second, on the built-in characters."""

from __future__ import annotations

import pytest
import yaml

RECIPE = {
    "name": "tiny_row",
    "data": {"name": "glyphs", "size": 16},
    "backbone": {"name": "conv4", "options": {"channels": 8}},
    "stages": [
        {"name": "classify", "objective": "cross_entropy", "epochs": 1, "batch_size": 16, "steps_per_epoch": 2},
        {"name": "again", "objective": "cross_entropy", "epochs": 1, "batch_size": 16, "steps_per_epoch": 2},
    ],
    "trainer": {"accelerator": "cpu"},
    "quick": {"stages.again.steps_per_epoch": 1, "evaluations": [{"episodes": 5, "queries": 2}]},
}


@pytest.fixture
def papers(tmp_path):
    """The folder of a paper `made_up` with one table of three own rows and a quoted one."""
    recipe = tmp_path / "tiny_row.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    folder = tmp_path / "papers"
    folder.mkdir()
    folder.joinpath("made_up.yaml").write_text(f"""
title: Made up
authors: Nobody
venue: Nowhere
year: 2000
variant: code
tables:
  '1':
    caption: two heads on one model
    measure: accuracy
    recipe: {recipe}
    evaluation: {{way: 5, queries: 3, episodes: 20, head: prototype}}
    columns:
      1-shot: {{label: 1-shot, data: glyphs, evaluation: {{shot: 1}}}}
      5-shot: {{label: 5-shot, data: glyphs, evaluation: {{shot: 5}}}}
    rows:
      - id: theirs
        label: Theirs
        published: {{1-shot: [30.0, null]}}
        quoted: true
      - id: ours
        label: Ours
        published: {{1-shot: [40.00, 0.5], 5-shot: [50.25, null]}}
      - id: ours-matching
        label: Ours, matching
        published: {{1-shot: [41.0, 0.5]}}
        evaluation: {{head: matching}}
      - id: ours-distilled
        label: Ours, distilled
        published: {{1-shot: [42.0, 0.5]}}
        options: {{stages.classify.objective: distillation}}
        teacher: {{stages.classify.teacher: ours}}
      - id: ours-elsewhere
        label: Ours, on CUB
        published: {{1-shot: [43.0, 0.5]}}
        options: {{data.name: cub-feat}}
""")
    return folder


@pytest.fixture
def row(papers):
    """A function: a row of the made-up paper by its name."""
    from fieldmark.reproduce import find

    return lambda name: find(f"made_up/1/{name}", papers)[0]
