"""Names of the files beside the page of a study: from names of metrics and estimators, no two
equal."""

import re
from collections.abc import Iterable


class FileNames:
    """Names of files (without ending) that are given out once each, in the order asked for.

    The same names in the same order give the same files; tables and pictures share the names.
    """

    def __init__(self, taken: Iterable[str] = ()):
        self.taken = set(taken)

    def claim(self, *parts: str) -> str:
        """The parts as one name, with a number after it where that name is taken."""
        name = "-".join(map(slug, parts))
        free, number = name, 1
        while free in self.taken:
            number += 1
            free = f"{name}-{number}"
        self.taken.add(free)
        return free


def slug(name: str) -> str:
    """A name as part of the name of a file: small letters, for disks that see no capitals."""
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-") or "metric"
