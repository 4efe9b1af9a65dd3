"""Heads: support sets and queries in, class scores out; all take many episodes at once."""

from fieldmark.heads.base import HEADS, Head, check_episodes
from fieldmark.heads.prototype import Prototype

create = HEADS.create
names = HEADS.names

__all__ = ["HEADS", "Head", "Prototype", "check_episodes", "create", "names"]
