"""What a user would pick: heads on the same frozen features and episodes, what each costs, and the page that shows it.

Example:
    >>> (one,) = find(load_list(), ["fc100/conv4_scl_fc100"])
    >>> one.data.title, one.backbone.title
    ('FC100', 'Conv-4 (FC100, SCL)')
"""

from __future__ import annotations

from fieldmark.picks.catalogue import Comparison, Listed, find, load_list

__all__ = ["Comparison", "Listed", "find", "load_list"]
