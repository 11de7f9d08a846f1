"""The page as an ASGI application: which address leads where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from common.web.app import Refusals, page_app
from common.web.stream import Events
from orchestrator.callers import Unauthenticated
from orchestrator.web.pages import page
from orchestrator.web.provider import DONE
from orchestrator.web.starting import Starting

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from orchestrator.web.site import Site

STATUS: dict[type[Exception], int] = {Unauthenticated: 401}
BUG = "the orchestrator has a bug; its log says more"


def app_of(site: Site) -> ASGIApp:
    """Return the application that shows `site`."""
    starting = Starting(site.guard, site.orchestrator, site.four_eyes)
    routes = [
        Route("/", site.runs),
        Route("/events", Events(site.following_runs, Unauthenticated)),
        Route("/runs/{run_id}", site.run),
        Route("/runs/{run_id}/events", Events(site.following_run, Unauthenticated)),
        Route("/runs/{run_id}/rounds", site.rounds),
        Route("/runs/{run_id}/model.json", site.card),
        Route("/runs/{run_id}/model.md", site.card),
        Route("/runs/{run_id}/cancel", site.ask_to_cancel),
        Route("/runs/{run_id}/cancel", site.cancel, methods=["POST"]),
        Route("/start", starting.ask),
        Route("/start", starting.start, methods=["POST"]),
        Route("/records", site.records),
        Route("/sign-in", site.ask_to_sign_in),
        Route("/sign-in", site.sign_in, methods=["POST"]),
        Route("/sign-out", site.sign_out, methods=["POST"]),
    ]
    if (provider := site.by_provider) is not None:
        routes += [Route("/sign-in/provider", provider.begin), Route(DONE, provider.end)]
    refusals = Refusals(site.guard.session, site.refusal, STATUS)
    return page_app(routes, refusals, bug=page("signed_out", problem=BUG, issuer=""))
