"""What a property of values spreads to, from value to value."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def spread(values: Iterable[str], groups: Iterable[Collection[str]]) -> set[str]:
    """The values, and all others of the groups that one of them is in, and so on."""
    waiting = dict(enumerate(groups))
    member_of: dict[str, list[int]] = {}
    for number, group in waiting.items():
        for name in group:
            member_of.setdefault(name, []).append(number)
    found = set(values)
    reached = list(found)
    while reached:
        for number in member_of.get(reached.pop(), []):
            new = set(waiting.pop(number, ())) - found
            found |= new
            reached += new
    return found
