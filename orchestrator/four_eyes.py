"""What one person alone cannot do: the first asks, a second who asks for the same lets it happen.

    (nothing)  -- asked by A -->  A is on record until good_until
    on record  -- asked by A -->  as before
    on record  -- asked by B -->  done; for REPEAT_S both may send it again, as answers get lost
    good_until has passed     -->  (nothing)

People are told apart by name, whatever role they have and whichever way they signed in.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from blake3 import blake3
from google.protobuf.descriptor_pool import Default as Descriptors
from sqlalchemy import and_, delete, func, insert, select

from common.audit import Action, Entry
from common.errors import ConflictError, RequestError
from common.tls import PEOPLE
from orchestrator.auth import PERMISSIONS
from orchestrator.database import CONFIRMATIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.message import Message
    from sqlalchemy import Connection

    from common.clock import Clock
    from common.tls import Identity
    from orchestrator.audit_log import AuditLog
    from orchestrator.fencing import Fence

REPEAT_S = 60
MOST_ASKED = 100  # requests of one person that await a second
# what two people must agree on, where that is not the whole request
_SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "/federation.v1.OperatorService/StartRun": ("run_id", "plan"),
}
_ONCE = frozenset({"/federation.v1.MembershipService/CreateToken"})  # each call makes another one


@dataclass(frozen=True)
class Asked:
    """What was asked for, by whom, and until when that counts (seconds since 1970)."""

    asked_by: str
    confirmed_by: str | None
    good_until: int


class SecondPersonAwaited(ConflictError):
    """Somebody asked for what needs two people; the second has not asked yet."""

    def __init__(self, action: str, asked: Asked) -> None:
        until = datetime.fromtimestamp(asked.good_until, UTC).strftime("%Y-%m-%d %H:%M UTC")
        super().__init__(
            f"{action} needs a second person: {asked.asked_by} has asked for it, and it is done "
            f"when somebody else gives the same command before {until}"
        )


class TooMuchAsked(ConflictError):
    """Somebody has asked for so much that nobody has confirmed."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{MOST_ASKED} requests of {name} await a second person: have some of them confirmed, "
            "or wait until they lapse (four_eyes.within_s)"
        )


class NoSuchAction(RequestError):
    """The settings name something that two people cannot ask for."""

    field = "four_eyes.methods"

    def __init__(self, name: str, possible: Iterable[str]) -> None:
        super().__init__(
            f"four_eyes.methods names {name!r}: it may name {', '.join(sorted(possible))}"
        )


class FourEyes:
    """Lets what is listed happen only when two people have asked for it."""

    def __init__(
        self, names: Iterable[str], *, within_s: int, audit: AuditLog, fence: Fence, clock: Clock
    ) -> None:
        """Watch over the methods called `names`, on record in `audit`; raise NoSuchAction."""
        self._audit = audit
        self.methods = methods_called(names)
        self._within_s = within_s
        self._fence = fence
        self._clock = clock

    def look_at(self, caller: Identity | None, method: str, request: Message) -> None:
        """Raise what `confirm` raises, for what is watched over; nobody without a name does it."""
        if caller is not None and method in self.methods:
            self.confirm(caller, method, request)

    def confirm(self, caller: Identity, method: str, request: Message) -> None:
        """Return if two people have asked for this; that they have is durable.

        Raises:
            SecondPersonAwaited: the caller is the first, or the same again; that is durable, too.
            TooMuchAsked: the caller is the first, once too often.
            Superseded, JournalFailed: it could not be kept.
        """
        now, digest = int(self._clock.wall().timestamp()), _digest(method, request)
        latest = now + max(self._within_s, REPEAT_S)  # what ends later is of a clock since set back
        is_past = ~CONFIRMATIONS.c.good_until.between(now + 1, latest)
        ours = CONFIRMATIONS.c.digest == digest
        with self._fence.writing() as connection:
            connection.execute(delete(CONFIRMATIONS).where(is_past))
            row = connection.execute(select(CONFIRMATIONS).where(ours)).one_or_none()
            before = None if row is None else Asked(row.asked_by, row.confirmed_by, row.good_until)
            asked = after_asking(
                before,
                caller.name,
                now=now,
                within_s=self._within_s,
                repeat_s=0 if method in _ONCE else REPEAT_S,
            )
            if asked != before:
                _refuse_too_much(connection, asked)
                connection.execute(delete(CONFIRMATIONS).where(ours))
                connection.execute(insert(CONFIRMATIONS).values(digest=digest, **asdict(asked)))
                action = Action.ASK if asked.confirmed_by is None else Action.CONFIRM
                facts = {"method": method, "request": digest, "asked_by": asked.asked_by}
                self._audit.append(connection, Entry(caller.uri, action, facts))
        if asked.confirmed_by is None:
            raise SecondPersonAwaited(method.rpartition("/")[2], asked)


def _refuse_too_much(connection: Connection, asked: Asked) -> None:
    if asked.confirmed_by is not None:
        return
    theirs = and_(
        CONFIRMATIONS.c.asked_by == asked.asked_by, CONFIRMATIONS.c.confirmed_by.is_(None)
    )
    count = connection.execute(select(func.count()).select_from(CONFIRMATIONS).where(theirs))
    if count.scalar_one() >= MOST_ASKED:
        raise TooMuchAsked(asked.asked_by)


def after_asking(
    before: Asked | None, name: str, *, now: int, within_s: int, repeat_s: int = REPEAT_S
) -> Asked:
    """Return what stands after `name` has asked; it happens if a second person is in it.

    For `repeat_s` seconds it may happen again: an answer may have been lost.
    """
    match before:
        case Asked(asked_by=first, confirmed_by=None) if first != name:
            return replace(before, confirmed_by=name, good_until=now + repeat_s)
        case Asked(asked_by=first, confirmed_by=second) if name in {first, second}:
            return before
        case _:
            return Asked(name, None, now + within_s)


def methods_called(names: Iterable[str]) -> frozenset[str]:
    """Return the methods of `names`; raise NoSuchAction for what people cannot ask for twice."""
    possible = {path.rpartition("/")[2]: path for path in PERMISSIONS if _is_action(path)}
    for name in names:
        if name not in possible:
            raise NoSuchAction(name, possible)
    return frozenset(possible[name] for name in names)


def _is_action(path: str) -> bool:
    """Whether some people and no gateway may ask for it, with one request that has one answer."""
    roles = PERMISSIONS[path]
    if not roles or not roles < PEOPLE:
        return False
    method = Descriptors().FindMethodByName(path.strip("/").replace("/", "."))
    return not (method.client_streaming or method.server_streaming)


def _digest(method: str, request: Message) -> str:
    """Return the digest of what two people must agree on."""
    subject = request
    if method in _SUBJECTS:
        subject = type(request)(**{name: getattr(request, name) for name in _SUBJECTS[method]})
    said = subject.SerializeToString(deterministic=True)
    return blake3(method.encode() + b"\0" + said).hexdigest()
