"""How the agent tells of its work to whoever looks on: this site's own figures and traces."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from common.ids import PlanId, RunId
    from common.plan import Plan
    from common.protocol import Train, UpdateKey
    from gateway.policy import Verdict


class Phase(StrEnum):
    """What a gateway spends a round's time on."""

    FETCH = "fetch"
    TRAIN = "train"
    SEND = "send"


class Outcome(StrEnum):
    """What became of a round here."""

    COUNTED = "counted"
    SET_ASIDE = "set_aside"
    DECLINED = "declined"
    TOO_LATE = "too_late"


@dataclass(frozen=True)
class Answered:
    """A plan that was offered, and what this gateway answers."""

    run: RunId
    plan_digest: PlanId
    verdict: Verdict
    signer: str = ""  # as the trust file names them; empty: nobody whose plans are obeyed
    plan: Plan | None = None  # None: it was not read


class Watcher(Protocol):
    """Is told of rounds as they go: never of data, batches or losses."""

    def connected(self, connected: bool, /) -> None:  # noqa: FBT001 - as the agent tells it
        """Note that the orchestrator's stream opened or broke."""

    def answered(self, answered: Answered) -> None:
        """Note how a plan was answered."""

    def round(self, key: UpdateKey, train: Train) -> AbstractContextManager[object]:
        """Stand around all that is done for a round at one go."""

    def phase(self, phase: Phase) -> AbstractContextManager[object]:
        """Stand around one phase of it."""

    def moved(self, phase: Phase, byte_length: int) -> None:
        """Note that so many bytes were fetched, or taken by the orchestrator."""

    def ended(self, outcome: Outcome) -> None:
        """Note what became of the round."""


class Several:
    """Lets several look on, or nobody."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def connected(self, connected: bool, /) -> None:  # noqa: FBT001
        """Tell each."""
        for each in self._watchers:
            each.connected(connected)

    def answered(self, answered: Answered) -> None:
        """Tell each."""
        for each in self._watchers:
            each.answered(answered)

    @contextmanager
    def round(self, key: UpdateKey, train: Train) -> Iterator[None]:
        """Let each stand around the block."""
        with ExitStack() as stack:
            for each in self._watchers:
                stack.enter_context(each.round(key, train))
            yield

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Let each stand around the block."""
        with ExitStack() as stack:
            for each in self._watchers:
                stack.enter_context(each.phase(phase))
            yield

    def moved(self, phase: Phase, byte_length: int) -> None:
        """Tell each."""
        for each in self._watchers:
            each.moved(phase, byte_length)

    def ended(self, outcome: Outcome) -> None:
        """Tell each."""
        for each in self._watchers:
            each.ended(outcome)
