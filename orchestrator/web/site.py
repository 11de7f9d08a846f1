"""What each page shows: parse, ask, show. The services would answer the same people the same."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from common.audit import Action, RecordBroken
from common.errors import ConflictError
from common.ids import RunId
from common.web.sessions import set_cookie
from common.web.stream import Follow
from orchestrator.audit_log import PAGE
from orchestrator.callers import Unauthenticated
from orchestrator.web.guard import CANCEL_RUN, LIST_RECORDS, LIST_RUNS, START_RUN, WATCH_RUN
from orchestrator.web.model_card import card_of, text_of
from orchestrator.web.pages import page, shown
from protos.federation.v1 import operator_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from common.audit import Line, Record
    from orchestrator.four_eyes import FourEyes
    from orchestrator.orchestrator import Orchestrator
    from orchestrator.web.board import Board
    from orchestrator.web.guard import Guard
    from orchestrator.web.provider import ProviderSignIn


_NUMBER = re.compile(r"[0-9]{1,15}")


class NoModel(ConflictError):
    """A model is asked for, and the run has none."""

    def __init__(self, run_id: RunId) -> None:
        super().__init__(f"run {run_id!r} has no model: it gets one once every round is published")


@dataclass
class Site:
    """Answers requests of people who are signed in, and of those who want to be."""

    guard: Guard
    orchestrator: Orchestrator
    board: Board
    four_eyes: FourEyes
    closing: asyncio.Event  # of the server
    by_provider: ProviderSignIn | None = None  # None: people sign in by links alone

    def signed_out(self, problem: str = "") -> str:
        """Return the page that says how to sign in."""
        issuer = self.by_provider.issuer if self.by_provider else ""
        return page("signed_out", problem=problem, issuer=issuer)

    def refusal(self, request: Request, error: Exception) -> str:
        """Return the page that says why; who is not signed in sees how to be, and no more."""
        try:
            self.guard.session(request)
        except Unauthenticated:
            return self.signed_out(str(error))
        if isinstance(error, Unauthenticated):
            return self.signed_out(str(error))
        return page("problem", problem=str(error))

    async def runs(self, request: Request) -> Response:
        """Show every run, the newest first."""
        async with self.guard.call(request, LIST_RUNS) as visit:
            may_start = visit.may(START_RUN)
            parts = await self.board.list_of_runs()
            return shown(visit, "runs", parts=parts, may_start=may_start)

    async def run(self, request: Request) -> Response:
        """Show a run as it goes."""
        async with self.guard.call(request, WATCH_RUN) as visit:
            live = self.orchestrator.runs.get(_run_id(request))
            parts, run = await self.board.fragments(live), live.run
            may_cancel = not run.has_ended and visit.may(CANCEL_RUN)
            return shown(visit, "run", parts=parts, run=run, may_cancel=may_cancel)

    async def rounds(self, request: Request) -> Response:
        """Show how every round of a run went."""
        async with self.guard.call(request, WATCH_RUN) as visit:
            live = self.orchestrator.runs.get(_run_id(request))
            rows = tuple(reversed(await self.board.rounds(live)))
            paces = self.board.paces.of(live)
            return shown(visit, "rounds", run=live.run, rounds=rows, paces=paces)

    async def card(self, request: Request) -> Response:
        """Hand out what there is to know of a run's model, as JSON or Markdown."""
        async with self.guard.call(request, WATCH_RUN):
            live = self.orchestrator.runs.get(_run_id(request))
            if live.run.model is None:
                raise NoModel(live.run.run_id)
            status = self.orchestrator.operations.status_of(live)
            card = await asyncio.to_thread(card_of, live.run, status)
            kind = "json" if request.url.path.endswith(".json") else "md"
            name = f'attachment; filename="{live.run.run_id}-model.{kind}"'
            headers = {"content-disposition": name}
            if kind == "json":
                return JSONResponse(card, headers=headers)
            return Response(text_of(card), media_type="text/markdown", headers=headers)

    async def ask_to_cancel(self, request: Request) -> Response:
        """Ask once more before a run is cancelled."""
        async with self.guard.call(request, CANCEL_RUN) as visit:
            live = self.orchestrator.runs.get(_run_id(request))
            return shown(visit, "cancel", run=live.run)

    async def cancel(self, request: Request) -> Response:
        """Cancel a run, as CancelRun does."""
        async with self.guard.call(request, CANCEL_RUN) as visit:
            await self.guard.signed_form(request, visit.session)
            run_id, actor = _run_id(request), visit.caller.uri
            self.four_eyes.look_at(visit.caller, CANCEL_RUN, pb.CancelRunRequest(run_id=run_id))
            facts = {"run": run_id}
            with self.orchestrator.refused_calls.noted(actor, Action.CANCEL_RUN, facts):
                self.orchestrator.operations.cancel_run(run_id, actor)
            return RedirectResponse(f"/runs/{run_id}", 303)

    async def records(self, request: Request) -> Response:
        """Show a part of the audit log, the newest unless the request says after which record."""
        async with self.guard.call(request, LIST_RECORDS) as visit:
            audit = self.orchestrator.audit
            newest = max(0, audit.length() - PAGE)
            asked = request.query_params.get("after", "")
            after = min(int(asked), newest) if _NUMBER.fullmatch(asked) else newest
            lines = await asyncio.to_thread(audit.records, after)
            records = tuple(map(_record, reversed(lines)))
            older, newer = max(0, after - PAGE), min(after + PAGE, newest)
            places = {"after": after, "newest": newest, "older": older, "newer": newer}
            return shown(visit, "records", records=records, **places)

    async def ask_to_sign_in(self, request: Request) -> Response:
        """Show whom a link signs in; opening it alone uses nothing up, as others may look first."""
        self.guard.count_stranger()
        token = request.query_params.get("token", "")
        if not token:
            return HTMLResponse(self.signed_out())
        return HTMLResponse(page("sign_in", token=token, person=self.guard.sessions.whose(token)))

    async def sign_in(self, request: Request) -> Response:
        """Use a link up, and begin a session."""
        self.guard.count_stranger()
        fields = await self.guard.form(request)
        secret, lifetime_s = self.guard.sessions.sign_in(fields.get("token", ""))
        response = RedirectResponse("/", 303)
        self._set_cookie(response, secret, lifetime_s)
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        await self.guard.signed_form(request, self.guard.session(request))
        self.guard.sessions.sign_out(request.cookies[self.guard.cookie])
        response = RedirectResponse("/sign-in", 303)
        self._set_cookie(response, "", 0)
        return response

    @asynccontextmanager
    async def following_run(self, request: Request) -> AsyncIterator[Follow]:
        """Lend what follows a run inside the block."""
        async with self.guard.call(request, WATCH_RUN) as visit:
            live = self.orchestrator.runs.get(_run_id(request))
            with visit.session.following():
                yield Follow(
                    look=lambda: self.board.fragments(live),
                    rung=lambda: live.changed.next,
                    has_ended=lambda: live.run.has_ended,
                    goes_on=lambda: self.guard.sessions.goes_on(visit.session),
                    closing=self.closing,
                )

    @asynccontextmanager
    async def following_runs(self, request: Request) -> AsyncIterator[Follow]:
        """Lend what follows the list of runs inside the block."""
        async with self.guard.call(request, LIST_RUNS) as visit:
            with visit.session.following():
                yield Follow(
                    look=self.board.list_of_runs,
                    rung=asyncio.Event,  # nothing rings for all runs: each tick looks
                    has_ended=lambda: False,
                    goes_on=lambda: self.guard.sessions.goes_on(visit.session),
                    closing=self.closing,
                )

    def _set_cookie(self, response: Response, secret: str, lasts_s: float) -> None:
        is_https = self.guard.sessions.url.startswith("https")
        set_cookie(response, self.guard.cookie, secret, lasts_s=lasts_s, secure=is_https)


def _record(line: Line) -> Record:
    try:
        return line.record
    except ValueError as error:
        raise RecordBroken(line.sequence, "it is not a record any more") from error


def _run_id(request: Request) -> RunId:
    return RunId(request.path_params["run_id"])
