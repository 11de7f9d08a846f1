"""A backup of all that an orchestrator over SQLite keeps, made while it runs.

    <folder>/journal.db       a snapshot: one moment of the journal, whatever is written meanwhile
    <folder>/weights/<digest> what the snapshot names
    <folder>/signing-key.pem  by which gateways know this federation
    <folder>/backup.json      what it is; written last, so that one without it is none

The snapshot comes first: files of weights are added and never changed, so that all that it names is
there afterwards. Uploads under way are left out: gateways send them again.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import make_url

from common.disk import SYSTEM_DISK
from common.errors import ConflictError, NotFound, RequestError, UnavailableError
from common.reached import unheard
from common.version import SOFTWARE_VERSION
from orchestrator import signing_key
from orchestrator.engines import is_postgresql, url_of
from orchestrator.weight_store import DamagedWeights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.clock import Clock
    from common.reached import Reached
    from orchestrator.config import OrchestratorConfig

JOURNAL, WEIGHTS, MANIFEST = "journal.db", "weights", "backup.json"
BESIDE = ("", "-wal", "-shm")  # a write-ahead log that is left behind would change what is put back
_PIECE = 1 << 20


class NotOfPostgresql(RequestError):
    """The journal is in PostgreSQL, which has better ways to be saved."""

    field = "database"

    def __init__(self) -> None:
        super().__init__(
            "`fedgate backup` and `restore` are for a journal in SQLite, this one is in "
            "PostgreSQL: save it with pg_dump, and after it the weights and the signing key "
            "(docs/how-to/postgresql.md)"
        )


class NoJournal(NotFound):
    """There is nothing to save."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is no journal that can be read: start the orchestrator once, or correct "
            "`state` or `database`"
        )


class FolderTaken(ConflictError):
    """A backup would be mixed with what is there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} holds something already: name a folder that is new or empty")


class KeyNotYetMade(UnavailableError):
    """A gateway's ledger was just seen for the first time, and the key is being made."""

    def __init__(self) -> None:
        super().__init__("the orchestrator is making its signing key just now: back it up again")


class NotABackup(RequestError):
    """A folder is no whole backup."""

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(
            f"{folder} is no whole backup ({why}): nothing was put back that an orchestrator would "
            "start with; take another one"
        )


class AnotherFederation(RequestError):
    """A backup is of another federation than the settings."""

    field = "federation"

    def __init__(self, *, saved: str, configured: str) -> None:
        super().__init__(
            f"the backup is of federation {saved!r}, the settings are of {configured!r}: "
            "take the one that belongs to them"
        )


class StateInTheWay(ConflictError):
    """Restoring would overwrite what is there."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} exists and is left as it is: stop the orchestrator, move its whole state "
            "folder away, then restore into an empty one"
        )


class Manifest(BaseModel):
    """What a backup is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    software: str
    federation: str
    made_at: datetime
    journal: str  # digests of the files
    signing_key: str | None  # None: nothing had been signed yet
    weights: int  # how many; their names are their digests


def make(
    config: OrchestratorConfig, folder: Path, clock: Clock, reached: Reached = unheard
) -> Manifest:
    """Save everything to `folder`, beside an orchestrator that may be running.

    Raises:
        NotOfPostgresql, NoJournal, FolderTaken: nothing was written.
        DamagedWeights: a file that the journal names is damaged or missing; no backup was made.
        KeyNotYetMade: the next one will have it.
    """
    source = _journal(config)
    if folder.exists() and any(folder.iterdir()):
        raise FolderTaken(folder)
    for made in (folder, folder / WEIGHTS):
        SYSTEM_DISK.make_folder(made)
    made_at = clock.wall()
    named, is_signed = _snapshot(source, folder / JOURNAL)
    for done, digest in enumerate(named):
        reached(done, len(named))
        _copy_weights(_shared(config) / WEIGHTS / digest, folder / WEIGHTS / digest)
    key = _shared(config) / signing_key.FILE
    if key.exists():
        _copy(key, folder / signing_key.FILE)
    elif is_signed:
        raise KeyNotYetMade
    manifest = Manifest(
        software=SOFTWARE_VERSION,
        federation=config.federation,
        made_at=made_at,
        journal=_digest(folder / JOURNAL),
        signing_key=_digest(folder / signing_key.FILE) if key.exists() else None,
        weights=len(named),
    )
    for written in (folder / WEIGHTS, folder):
        SYSTEM_DISK.sync_folder(written)
    _write(folder / MANIFEST, manifest.model_dump_json(indent=2).encode())
    return manifest


def restore(config: OrchestratorConfig, folder: Path, reached: Reached = unheard) -> Manifest:
    """Put a backup back where there is no journal; the journal comes last.

    Raises:
        NotOfPostgresql, NotABackup, AnotherFederation, StateInTheWay: the state is as it was, but
            for files of weights that were added to it.
    """
    target, shared = _journal_file(config), _shared(config)
    manifest = _manifest(folder)
    if manifest.federation != config.federation:
        raise AnotherFederation(saved=manifest.federation, configured=config.federation)
    key = shared / signing_key.FILE
    for path in (*(Path(f"{target}{end}") for end in BESIDE), key):
        if path.exists():
            raise StateInTheWay(path)
    for made in (config.state, target.parent, shared, shared / WEIGHTS):
        SYSTEM_DISK.make_folder(made)
    _check(folder, manifest)
    for done, saved in enumerate(sorted((folder / WEIGHTS).iterdir())):
        reached(done, manifest.weights)
        _copy_weights(saved, shared / WEIGHTS / saved.name)
    SYSTEM_DISK.sync_folder(shared / WEIGHTS)
    if manifest.signing_key is not None:
        _copy(folder / signing_key.FILE, key)
        SYSTEM_DISK.sync_folder(shared)
    _copy(folder / JOURNAL, target)
    SYSTEM_DISK.sync_folder(target.parent)
    return manifest


def _journal(config: OrchestratorConfig) -> Path:
    path = _journal_file(config)
    if not path.is_file():
        raise NoJournal(path)
    return path


def _journal_file(config: OrchestratorConfig) -> Path:
    url = url_of(config)
    if is_postgresql(url):
        raise NotOfPostgresql
    return Path(make_url(url).database or "")


def _shared(config: OrchestratorConfig) -> Path:
    return config.shared or config.state


def _snapshot(source: Path, target: Path) -> tuple[list[str], bool]:
    """Write one moment of a journal; return what weights it names, and if any head is signed."""
    SYSTEM_DISK.create(target).close()  # for the owner alone, before SQLite fills it
    url = f"file:{quote(str(source.absolute()))}?mode=ro"
    try:
        with closing(sqlite3.connect(url, uri=True, isolation_level=None)) as journal:
            journal.execute("VACUUM INTO ?", (str(target),))
        with closing(sqlite3.connect(target)) as copy:
            named = [digest for (digest,) in copy.execute("SELECT digest FROM blobs")]
            is_signed = copy.execute("SELECT 1 FROM ledger_heads").fetchone() is not None
    except sqlite3.DatabaseError as error:
        raise NoJournal(source) from error
    with SYSTEM_DISK.open(target) as file:
        file.sync()
    return named, is_signed


def _manifest(folder: Path) -> Manifest:
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise NotABackup(folder, f"{MANIFEST}: {error.strerror}") from error
    except ValidationError as error:
        raise NotABackup(folder, f"{MANIFEST} is of another version, or damaged") from error


def _check(folder: Path, manifest: Manifest) -> None:
    """Raise NotABackup unless every file is there and what it was, but for weights' content."""
    files = {JOURNAL: manifest.journal, signing_key.FILE: manifest.signing_key}
    try:
        for name, digest in files.items():
            if digest is not None and _digest(folder / name) != digest:
                raise NotABackup(folder, f"{name} is damaged")
        count = len(SYSTEM_DISK.names(folder / WEIGHTS))
    except OSError as error:
        raise NotABackup(folder, f"{error.filename}: {error.strerror}") from error
    if count != manifest.weights:
        raise NotABackup(folder, f"{count} of {manifest.weights} files of weights are there")


def _copy_weights(source: Path, target: Path) -> None:
    """Copy a file whose name is its digest; raise DamagedWeights if it does not hold that."""
    try:
        digest = _copy(source, target)
    except FileNotFoundError as error:
        raise DamagedWeights(source.name) from error
    if digest != source.name:
        SYSTEM_DISK.unlink(target)
        raise DamagedWeights(source.name)


def _copy(source: Path, target: Path) -> str:
    """Make `target` hold what `source` holds, on the disk when this returns; return its digest."""
    hasher, fresh, length = blake3(), target.with_name(f"{target.name}.new"), 0
    with SYSTEM_DISK.create(fresh) as file:
        for piece in _pieces(source):
            hasher.update(piece)
            file.write(piece, length)
            length += len(piece)
        file.sync()
    SYSTEM_DISK.rename(fresh, target)
    return hasher.hexdigest()


def _digest(path: Path) -> str:
    hasher = blake3()
    for piece in _pieces(path):
        hasher.update(piece)
    return hasher.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _write(path: Path, data: bytes) -> None:
    with SYSTEM_DISK.create(path) as file:
        file.write(data, 0)
        file.sync()
    SYSTEM_DISK.sync_folder(path.parent)
