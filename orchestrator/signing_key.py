"""The orchestrator's own Ed25519 key: made when it first signs, kept in its state folder.

`cryptography` takes 7 MiB of memory, so it is not loaded before it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.disk import SYSTEM_DISK
from common.errors import RequestError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FILE = "signing-key.pem"
PEM = b"-----BEGIN PRIVATE KEY-----"


class SigningKeyUnreadable(RequestError):
    """The file of the signing key does not hold one."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} holds no Ed25519 key: restore it from a backup of the state folder; without "
            "it every gateway must be told to trust a new one (`fedgate-gateway ledger trust`)"
        )


def refuse_unreadable(state: Path) -> None:
    """Raise SigningKeyUnreadable if the state folder has a key's file that begins like none."""
    path = state / FILE
    if path.exists() and not path.read_bytes().startswith(PEM):
        raise SigningKeyUnreadable(path)


def load_or_make(state: Path) -> Ed25519PrivateKey:
    """Return the key in the state folder; a new one is on the disk, name and all, on return.

    Raises:
        SigningKeyUnreadable: the file holds something else.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_pem_private_key,
    )

    path = state / FILE
    if not path.exists():
        _write(path, Ed25519PrivateKey.generate())
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise SigningKeyUnreadable(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningKeyUnreadable(path)
    return key


def _write(path: Path, key: Ed25519PrivateKey) -> None:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    fresh = path.with_suffix(".new")
    with SYSTEM_DISK.create(fresh) as file:
        file.write(pem, 0)
        file.sync()
    SYSTEM_DISK.rename(fresh, path)
    SYSTEM_DISK.sync_folder(path.parent)
