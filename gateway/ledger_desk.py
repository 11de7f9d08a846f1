"""What an administrator asks of the ledger: to see it, to prove it, to take another image in."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common.accounting import Epsilon, epsilon
from common.errors import RequestError
from common.ids import GatewayId, RunId, is_digest, is_name
from common.plan import Relation, Unit
from common.protocol import Countersignature
from common.randomness import InsecureSeed
from common.second_accountant import agrees, epsilon_second
from gateway import countersignatures
from gateway.charges import LedgerUnreadable
from gateway.config import GatewayConfig
from gateway.identity import gateway_name
from gateway.ledger import Ledger
from gateway.merging import Assumption, Merged, Statement, merge
from gateway.records import Head, Kind, Record, check_chain, flattened
from gateway.spending import Spent, spent_in
from gateway.workshop import open_ledger

# what comes of reading facts that no ledger has written
_NOT_A_RECORDS = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


class AccountantsDisagree(RequestError):
    """Two accountants find different epsilons for one data set."""

    def __init__(self, name: str, spent: Epsilon, second: float) -> None:
        super().__init__(
            f"the epsilon of data set {name!r} is {spent.pld} by PLD and {spent.rdp} by RDP, and "
            f"{second} by the second accountant: one of them is wrong, trust the largest and "
            "report this"
        )


class NotAnAssumption(RequestError):
    """What is stated cannot be read."""

    field = "assume_rounds"

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not RUN:N, a run's name and how many rounds: e.g. first:12")


class NotAKey(RequestError):
    """What is to be trusted is not a key."""

    field = "public_key"

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not a key: it has 64 lower-case hexadecimal digits")


@dataclass(frozen=True)
class Desk:
    """Which ledger: the one in a gateway's folder, of private or of seeded runs."""

    state: Path
    seed: InsecureSeed | None

    @contextmanager
    def ledger(self, *, exclusive: bool = False) -> Iterator[Ledger]:
        """Lend the ledger, its chain verified."""
        ledger = open_ledger(self.state, self.seed, exclusive=exclusive)
        try:
            yield ledger
        finally:
            ledger.close()

    @contextmanager
    def image(self, path: Path) -> Iterator[Ledger]:
        """Lend a copy of another image: what it is may be evidence, and is not touched.

        Raises:
            LedgerUnreadable: there is none, or it is damaged.
        """
        with tempfile.TemporaryDirectory(dir=self.state) as folder:
            copy = Path(folder) / "image.sqlite"
            try:
                shutil.copyfile(path, copy)
                log = path.with_name(f"{path.name}-wal")
                if log.exists():
                    shutil.copyfile(log, copy.with_name(f"{copy.name}-wal"))
            except OSError as error:
                raise LedgerUnreadable(str(error)) from error
            ledger = Ledger.open(f"sqlite:///{copy}", seed=self.seed)
            try:
                yield ledger
            finally:
                ledger.close()


def desk_of(settings: GatewayConfig, seed: int | None) -> Desk:
    """Return the desk of the ledger that `settings` speak of, of private or of seeded runs."""
    if seed is None:
        return Desk(settings.state, None)
    return Desk(settings.state, InsecureSeed(seed, gateway_name(settings.tls.certificate)))


@dataclass(frozen=True)
class Account:
    """What was spent on one data set, by three computations; None where noise is not secret."""

    data_set: str
    units: tuple[Unit, ...]  # that were charged; of several no epsilon holds
    relation: Relation
    delta: float
    charges: int
    spent: Epsilon | None
    second: float | None


@dataclass(frozen=True)
class Proof:
    """A chain that was found whole, and what it adds up to."""

    head: Head
    accounts: tuple[Account, ...]
    countersigned: Countersignature | None = None


def verify(desk: Desk, delta: float) -> Proof:
    """Recompute the chain and each data set's epsilon, by a second accountant too.

    Raises:
        LedgerUnreadable: the chain is broken; the first bad record is named.
        LedgerRolledBack: records are missing that the orchestrator has countersigned.
        AccountantsDisagree: an epsilon is not borne out.
    """
    with desk.ledger() as ledger:
        ledger.check_standing()
        accounts = _accounts(ledger.spent(), delta, is_private=not ledger.insecure_deterministic)
        head = ledger.head
        return Proof(Head(head.sequence, head.hash), accounts, ledger.countersigned())


def verify_export(path: Path, delta: float) -> Proof:
    """Recompute the chain of an export, far from its gateway; raise as `verify`."""
    records: list[Record] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            records.append(Record.from_json(json.loads(line)))  # noqa: PERF401  # its length counts
    except (OSError, *_NOT_A_RECORDS) as error:
        raise LedgerUnreadable(f"line {len(records) + 1} of {path} is not a record") from error
    try:
        head, spent = check_chain(records), spent_in(records)
        charges = (each.content for each in flattened(records) if each.kind == Kind.CHARGE)
        is_private = not any(facts["insecure_deterministic"] for facts in charges)
    except _NOT_A_RECORDS as error:
        problem = f"a record of {path} does not hold what its kind must: it was not written here"
        raise LedgerUnreadable(problem) from error
    return Proof(head, _accounts(spent, delta, is_private=is_private))


def take_in(desk: Desk, gateway: GatewayId, image: Path | None, statement: Statement) -> Merged:
    """Merge an image, or what is stated, or both into the ledger; the gateway must be stopped."""
    with desk.ledger(exclusive=True) as ledger:
        if image is None:
            return merge(ledger, gateway, None, statement)
        with desk.image(image) as other:
            return merge(ledger, gateway, other, statement)


def trust(desk: Desk, public_key: str) -> bool:
    """Take another key for the orchestrator's; False where none is known yet."""
    if not is_digest(public_key):
        raise NotAKey(public_key)
    with desk.ledger(exclusive=True) as ledger, ledger.transaction() as connection:
        return countersignatures.trust(connection, public_key)


def assumptions(texts: Iterable[str]) -> tuple[Assumption, ...]:
    """Return what `RUN:N` says, each."""
    return tuple(map(_assumption, texts))


def _assumption(text: str) -> Assumption:
    run, _, number = text.rpartition(":")
    if not (is_name(run) and number.isdecimal() and int(number) > 0):
        raise NotAnAssumption(text)
    return Assumption(RunId(run), int(number))


def _accounts(spent: Sequence[Spent], delta: float, *, is_private: bool) -> tuple[Account, ...]:
    names = dict.fromkeys(each.data_set for each in spent)
    return tuple(_account(name, spent, delta, is_private=is_private) for name in names)


def _account(name: str, spent: Sequence[Spent], delta: float, *, is_private: bool) -> Account:
    events = [each.event for each in spent if each.data_set == name]
    units = tuple(sorted({each.unit for each in spent if each.data_set == name}))
    account = partial(Account, name, units, Relation.ADD_OR_REMOVE_ONE, delta, len(events))
    if not is_private:
        return account(None, None)
    first, second = epsilon(events, delta), epsilon_second(events, delta)
    if not agrees(first, second):
        raise AccountantsDisagree(name, first, second)
    return account(first, second)
