"""How many files and connections this process may have open at a time."""

from __future__ import annotations

import resource
from contextlib import suppress


def allow_many() -> int:
    """Raise this process's limit on descriptors as far as the system lets it; return the limit.

    Many systems begin with 1,024, and each connection takes one.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # then it stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
