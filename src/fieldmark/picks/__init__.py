"""What a user would pick: heads on the same frozen features and episodes, what each costs, and the page that shows it.

Example:
    >>> [one.address for one in find(load_list(), ["fc100"])]
    ['fc100/conv4_fc100', 'fc100/conv4_scl_fc100', 'fc100/efficientnet_lite0']
"""

from __future__ import annotations

from fieldmark.picks.catalogue import Comparison, Listed, find, load_list

__all__ = ["Comparison", "Listed", "find", "load_list"]
