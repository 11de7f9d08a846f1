"""A member's certificate and key replaced by their successors, in the files of its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.certificates import certificate_of, check_chain, read_chain, to_pem
from common.enrolment import make_request
from common.issuing import SLACK, new_key, private_pem
from common.joining import WrongCertificate, check_answer
from common.key_files import read_file, read_pair, replace_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from common.certificates import Certificate
    from common.tls import TlsFiles

SHARE_LEFT = 3  # of a certificate's life: it is renewed when one part in so many is left


def present(files: TlsFiles) -> Certificate:
    """Return the certificate in the files; raise what `read_pair` does."""
    chain, _ = read_pair(files.certificate, files.key)
    return certificate_of(read_chain(chain)[0])


def due(certificate: Certificate) -> datetime:
    """Return when a certificate should be renewed: at two thirds of the life it was given."""
    life = certificate.ends - certificate.begins - SLACK
    return certificate.ends - life / SHARE_LEFT


async def renew_files(files: TlsFiles, ask: Callable[[bytes], Awaitable[bytes]]) -> datetime:
    """Put a new key and its certificate in the files; return when it ends.

    Args:
        files: where the present ones are, and the root.
        ask: sends a signing request, DER, and returns the chain that answers it, PEM.

    Raises:
        FederationError: nothing was signed, or what came is of no use, or the disk does not take
            it; the present certificate stays.
    """
    before, key = present(files), new_key()
    chain = read_chain(await ask(make_request(key, before.identity)))
    check_chain(chain, read_chain(read_file(files.authority))[0])
    check_answer(chain, before.identity)
    _check_times(before, certificate_of(chain[0]))
    replace_pair(files.certificate, files.key, (to_pem(chain), private_pem(key)))
    return certificate_of(chain[0]).ends


def _check_times(before: Certificate, after: Certificate) -> None:
    """Raise WrongCertificate for one that would not be good where the present one is."""
    if after.ends < before.ends or after.begins > before.ends:
        raise WrongCertificate(
            f"it is good from {after.begins} to {after.ends}, the present one until {before.ends}"
        )
