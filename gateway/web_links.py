"""One-time links to the gateway's page: a file each, named by the hash of the link's secret.

The command makes the file, the process that serves the page uses it up. Whoever may write into the
state folder may sign in, and nobody else: they could change the ledger as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.disk import SYSTEM_DISK
from common.errors import ConflictError
from common.web.sessions import fresh_secret, hash_of

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from common.disk import Disk

FOLDER = "web-links"
ADDRESS = "web-address"  # a file in the state folder
LINK_S = 300
MOST_LINKS = 8  # unused: the oldest goes


class NoSitePage(ConflictError):
    """A link was asked for, and this gateway serves no page now."""

    field = "web.address"

    def __init__(self) -> None:
        super().__init__(
            "this gateway serves no page now: add a table [web] to gateway.toml, and start "
            "`fedgate-gateway run`"
        )


class Links:
    """The links of one state folder."""

    def __init__(self, state: Path, disk: Disk = SYSTEM_DISK) -> None:
        self._folder = state / FOLDER
        self._address = state / ADDRESS
        self._disk = disk

    def create(self, now: datetime) -> str:
        """Return a link that signs in once, within LINK_S seconds; raise NoSitePage."""
        try:
            url = self._disk.read(self._address).decode()
        except OSError:
            raise NoSitePage from None
        self._disk.make_folder(self._folder)
        held = sorted((self._made(name), name) for name in self._disk.names(self._folder))
        for _, name in held[: max(0, len(held) - MOST_LINKS + 1)]:
            self._disk.unlink(self._folder / name)
        secret = fresh_secret()
        with self._disk.create(self._folder / hash_of(secret)) as file:
            file.write(str(now.timestamp()).encode(), 0)
        return f"{url}/sign-in?token={secret}"

    def is_good(self, token: str, now: datetime) -> bool:
        """Whether a link signs in, without using it up."""
        return 0 <= now.timestamp() - self._made(hash_of(token)) < LINK_S

    def use(self, token: str, now: datetime) -> bool:
        """Use a link up; return whether it was good."""
        was_good = self.is_good(token, now)
        self._disk.unlink(self._folder / hash_of(token))
        return was_good

    def _made(self, name: str) -> float:
        """Return when a link was made, in seconds since 1970; 0: it is none."""
        try:
            return float(self._disk.read(self._folder / name))
        except (OSError, ValueError):
            return 0.0
