"""A certificate and its key in two files, replaced by newer ones as if they were one.

Both new files are on the disk before either is renamed, the key first. A crash in between leaves
the new key beside the old certificate, and the new certificate beside them: whoever reads the pair
next finds that it fits, and finishes.
"""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from common.disk import OWNER_ONLY, SYSTEM_DISK
from common.errors import RequestError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

READABLE = 0o644


class CertificateFileMissing(RequestError):
    """A file of the TLS settings cannot be read."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"cannot read {path} ({why}): enrol with a token, make development keys with `fedgate "
            "pki init` and `fedgate pki issue`, or correct the [tls] settings"
        )


class KeyDoesNotFit(RequestError):
    """A key and a certificate of the TLS settings do not belong to each other."""

    def __init__(self, certificate: Path, key: Path) -> None:
        super().__init__(
            f"the key in {key} does not belong to the certificate in {certificate}, or one of them "
            "cannot be read: put both of one enrolment there"
        )


class AlreadyThere(RequestError):
    """Making keys would overwrite a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists and is left as it is: name another folder, or delete it")


class KeysNotWritten(UnavailableError):
    """A new certificate and key cannot be put in place of the old ones."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"cannot write beside {path} ({why}): a renewed certificate needs to")


def read_file(path: Path) -> bytes:
    """Return what a file holds; raise CertificateFileMissing."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateFileMissing(path, error.strerror or str(error)) from error


def read_pair(certificate: Path, key: Path) -> tuple[bytes, bytes]:
    """Return the certificate, with what lies behind it, and its key; both PEM.

    Raises:
        CertificateFileMissing: a file cannot be read.
        KeyDoesNotFit: they do not belong to each other.
    """
    pair = read_file(certificate), read_file(key)
    if _fit(certificate, key):
        return pair
    if not _fit(_fresh(certificate), key):
        raise KeyDoesNotFit(certificate, key)
    SYSTEM_DISK.rename(_fresh(certificate), certificate)
    SYSTEM_DISK.sync_folder(certificate.parent)
    return read_file(certificate), pair[1]


def replace_pair(certificate: Path, key: Path, pair: tuple[bytes, bytes]) -> None:
    """Put a newer pair, (certificate, key), in place of the older; it is durable on return.

    Raises:
        KeyDoesNotFit: they do not belong to each other; the older pair stays.
        KeysNotWritten: the disk does not take it; the older pair is there, or the newer.
    """
    try:
        for path, content in zip((certificate, key), pair, strict=True):
            with SYSTEM_DISK.create(_fresh(path)) as file:
                file.write(content, 0)
                file.sync()
        if not _fit(_fresh(certificate), _fresh(key)):
            raise KeyDoesNotFit(_fresh(certificate), _fresh(key))
        for path in (key, certificate):
            SYSTEM_DISK.rename(_fresh(path), path)
            SYSTEM_DISK.sync_folder(path.parent)
    except OSError as error:
        raise KeysNotWritten(certificate, error.strerror or str(error)) from error


def write_new(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files that are not there yet, private keys for their owner's eyes only.

    Raises:
        AlreadyThere: one of them is; none is written.
    """
    refuse_present(folder, files)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        mode = OWNER_ONLY if name.endswith(("key", "key.pem")) else READABLE
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


def refuse_present(folder: Path, names: Mapping[str, bytes] | tuple[str, ...]) -> None:
    """Raise AlreadyThere if one of the files is in the folder."""
    for name in names:
        if (folder / name).exists():
            raise AlreadyThere(folder / name)


def _fresh(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _fit(certificate: Path, key: Path) -> bool:
    """Whether a certificate and a private key belong to each other, and both can be read."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=_refuse)
    except (OSError, ValueError):  # SSLError is one of the former
        return False
    return True


def _refuse() -> str:
    """Answer the question for a password, which OpenSSL would ask on the terminal."""
    raise ValueError
