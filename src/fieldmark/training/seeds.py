"""Random choices as functions of where they are made, so that a resumed run makes the same ones."""

from __future__ import annotations

import hashlib


def derive(*parts: int | str) -> int:
    """A seed from 0 to 2^63 - 1 for a place in a run, such as (seed, stage, "batches", epoch).

    Neighbouring places get unrelated seeds, unlike ``seed + step``, where run 1's step 0 would be run 0's step 1.

    Example:
        >>> derive(0, "pretrain", 7) == derive(0, "pretrain", 7), derive(0, 1) == derive(1, 0)
        (True, False)
    """
    text = "/".join(repr(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
