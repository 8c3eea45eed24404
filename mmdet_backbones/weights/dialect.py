"""How another source names the parameters of the same net."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

Renumber = Callable[[str, Collection[str]], str]


@dataclass(frozen=True)
class Dialect:
    """A table that turns the key names of one source into those of a backbone.

    Attributes:
        name: What a report calls the dialect.
        marker: Regular expression that some key of such a checkpoint matches from
            its start and no key of another dialect does.
        rules: Pairs of a regular expression and its replacement. Each key is
            rewritten by every rule in turn; a rule that does not match leaves it.
        heads: Regular expression of keys that belong to the classifier and have
            no place in a backbone.
        renumber: For a source that counts its blocks differently: takes a key
            and the backbone's own keys, before the rules, and returns the key.
    """

    name: str
    marker: str
    rules: tuple[tuple[str, str], ...] = ()
    heads: str = r'(?:fc|head|classifier)\.'
    renumber: Renumber | None = None

    def fits(self, keys: Iterable[str]) -> bool:
        """Tell whether some key carries the marker of this dialect."""
        return any(re.match(self.marker, key) for key in keys)

    def translate(self, key: str, target_keys: Collection[str]) -> str:
        """Rewrite one key of the source into the backbone's name for it."""
        if self.renumber is not None:
            key = self.renumber(key, target_keys)
        for pattern, replacement in self.rules:
            key = re.sub(pattern, replacement, key)
        return key

    def is_head(self, key: str) -> bool:
        """Tell whether a key of the source belongs to its classifier."""
        return re.match(self.heads, key) is not None


OWN = Dialect('own names', marker='')
