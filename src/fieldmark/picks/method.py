"""What the page says of how its numbers were measured, and of what was not."""

from __future__ import annotations

from collections.abc import Sequence

from fieldmark.picks.catalogue import Listed, find
from fieldmark.picks.verdicts import Contest
from fieldmark.picks.wording import joined, shots_text

_HOW = """## How it was measured

- **Nothing is trained** but what a head fits to the support of an episode. Backbones are frozen: as their weights come,
  or trained before on other classes than those that are tested.
- **Episodes**: {way}-way; {queries}. All heads of a comparison have the same ones, and differences are paired, episode
  by episode. Intervals are 95%, over episodes; *clearly* means that the interval leaves zero out. Where there is no
  difference at all, one comparison in twenty is clear by chance. Each model was trained once here; what another
  training seed changes was measured with Conv-4 on CIFAR-FS and FC100
  ([three seeds](methods/deepemd.md#what-we-measured)).
- **The best pooled head** is not chosen on the episodes that it is compared on: those with even numbers choose for
  those with odd numbers, and the other way round. The same holds for the best aligned head.
- **Options** are the defaults of `fieldmark heads`{options}. {choices}
- **The whitened mean of the places** has its defaults from Grocery Store's validation photos, which show the
  classes that are tested here too (other photos): its lead on that set is flattered. On the
  other sets nothing was tuned for it.
- **Pooled** heads take the mean of an image's map (*global + spatial* also the largest activations in its quarters).
  In *dense fusion* every place votes, and nothing is aligned. **Aligned** heads bring places of the query together
  with places of the support: DN4 each with its nearest, LSC with a weighted mean, EMD and SFC all at once.
- **Milliseconds a query**: processor time of one thread for the head alone, on descriptors that are there; fitting to
  the support is shared by the queries of an episode. *Alone*: an episode with a single query, which pays for the
  fitting. The encoder's time is that of one image.
- **Memory**: the descriptors of a class's support images as the head takes them, and the most that torch held at once
  beyond the descriptors to fit the support and score one query (compiled code's own memory is not in it).
- The centre of the centred prototype is the mean of about {base} training images.

```console
$ python -m fieldmark.picks                 # what was measured, and what can be measured here
$ python -m fieldmark.picks grocery --run   # measure; interrupted, the same command goes on
$ make picks                                # all of it, and this page
```

The list of comparisons is `src/fieldmark/picks/comparisons.yaml`; `--list FILE` takes one of your own, with your own
photos in it (`name: folder`, `root: PATH`, class folders below `train`, `val` and `test`). For a single comparison
there is `fieldmark eval --cost`:

```console
$ fieldmark eval efficientnet_lite0 --data folder --root photos --shot 5 --queries 10 --head prototype,logistic,emd \\
    --cost 5
```
"""


def how_section(listed: Listed) -> str:
    """The protocol, from the list."""
    how = listed.validation
    chosen = [f"{head.title}: {', '.join(head.choose)}" for head in listed.heads.values() if head.choose]
    choices = (
        f"Options without a value that is right for all features were chosen ({'; '.join(chosen)}), on "
        f"{how.episodes} episodes of the validation classes with {shots_text(how.shot)}."
        if chosen
        else ""
    )
    given = [
        f"{head.title}: {', '.join(f'{name} {value}' for name, value in head.options.items())}"
        for head in listed.heads.values()
        if head.options
    ]
    by_queries: dict[int, list[str]] = {}
    for one in listed.data.values():
        by_queries.setdefault(one.queries, []).append(one.title)
    return _HOW.format(
        way=listed.way,
        queries="; ".join(f"{count} queries a class on {joined(names)}" for count, names in by_queries.items()),
        options=f", except {'; '.join(given)}" if given else "",
        choices=choices,
        base=f"{listed.base_images:,}",
    )


def missing_section(listed: Listed, every: Sequence[Contest]) -> str:
    """What was not measured, and what is not compared at all; "" where there is nothing."""
    done = {(one.comparison.address, one.shot) for one in every}
    lines = ["## Not measured", ""]
    for one in find(listed):
        left = [str(shot) for shot in one.episodes if (one.address, shot) not in done]
        if left:
            lines.append(
                f"- {one.data.title} with {one.backbone.title}, shots {joined(left)}: "
                f"`python -m fieldmark.picks {one.address} --run`"
            )
    lines += [f"- {one.what}: {one.why}." for one in listed.left_out]
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""
