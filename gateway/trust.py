"""Whose plans this gateway obeys: the keys in its own trust file, and no others.

One key a line, `NAME ed25519 KEY`, as `fedgate plan keygen` writes it; what follows a `#` is for
people. The file is read for each plan, so a key that is taken out orders nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from common.errors import UnavailableError
from common.ids import RunId, is_digest, is_name
from common.plan_signature import PlanSignatureRefused, check
from common.protocol import Config, RefusalReason
from common.wire import plan_id

ALGORITHM = "ed25519"


class TrustSettings(BaseModel):
    """Where the keys of those are that may order something here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan_keys: Path  # one a line: NAME ed25519 KEY


class TrustFileUnusable(UnavailableError):
    """The trust file cannot be read, or a line of it is no key: no plan is judged until it can."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"{path}: {problem}; put the public keys there of those whose plans this gateway is to "
            "obey, one a line, as `fedgate plan keygen` writes them: NAME ed25519 KEY"
        )


class PlanUnsigned(PlanSignatureRefused):
    """The orchestrator sends no signature with a plan."""

    reason = RefusalReason.PLAN_UNTRUSTED

    def __init__(self) -> None:
        super().__init__(
            "the plan is not signed: this gateway obeys only what an operator has signed whose key "
            "is in its trust file; ask the operator to start the run with `fedgate run start`"
        )


class SignerUnknown(PlanSignatureRefused):
    """A plan is signed by somebody whom this gateway does not obey."""

    reason = RefusalReason.PLAN_UNTRUSTED

    def __init__(self, public_key: str) -> None:
        super().__init__(
            f"the plan is signed with key {public_key[:64]!r}, which is not in this gateway's "
            "trust file: ask its operator, over another channel, whether the key is theirs, before "
            "you add it"
        )


@dataclass(frozen=True)
class PlanTrust:
    """Judges who has ordered a plan, before anything else of it is looked at."""

    federation: str  # as this gateway's own certificate names it
    read_keys: Callable[[], Mapping[str, str]]  # public key -> name

    def signer(self, run: RunId, config: Config) -> str:
        """Return the name of the trusted key that has signed this plan for this run.

        Raises:
            PlanSignatureRefused: it is not signed, or by an unknown key, or for something else.
            TrustFileUnusable: that cannot be said now.
        """
        signature = config.signature
        if signature is None:
            raise PlanUnsigned
        name = self.read_keys().get(signature.public_key)
        if name is None:
            raise SignerUnknown(signature.public_key)
        check(signature, self.federation, run, plan_id(config.plan))
        return name


def read_plan_keys(path: Path) -> dict[str, str]:
    """Return the name of each public key in a trust file; raise TrustFileUnusable."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TrustFileUnusable(path, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise TrustFileUnusable(path, "is not text") from error
    keys: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        name, key = _entry(path, number, words)
        keys[key] = name
    if not keys:
        raise TrustFileUnusable(path, "holds no key, so no plan would ever be obeyed")
    return keys


def _entry(path: Path, number: int, words: list[str]) -> tuple[str, str]:
    match words:
        case [name, algorithm, key] if algorithm == ALGORITHM:
            if is_name(name) and is_digest(key):
                return name, key
    raise TrustFileUnusable(path, f"line {number} is not NAME {ALGORITHM} KEY of 64 digits")
