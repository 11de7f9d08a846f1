"""A run is started from the page: by an order that was made where the operator's key lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse

from common import wire
from common.audit import Action
from common.ids import RunId
from common.run_order import order_from_text
from orchestrator.operations import PlanNotSigned
from orchestrator.web.guard import START_RUN
from orchestrator.web.pages import shown

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from orchestrator.four_eyes import FourEyes
    from orchestrator.orchestrator import Orchestrator
    from orchestrator.web.guard import Guard

LONGEST_ORDER = 2 << 20  # bytes of a form: a plan of thousands of gateways


@dataclass
class Starting:
    """Answers operators who start a run; nothing of a plan can be changed here, it is signed."""

    guard: Guard
    orchestrator: Orchestrator
    four_eyes: FourEyes

    async def ask(self, request: Request) -> Response:
        """Ask for an order."""
        async with self.guard.call(request, START_RUN) as visit:
            return shown(visit, "start")

    async def start(self, request: Request) -> Response:
        """Show what an order would start; once somebody is sure, start it as StartRun does."""
        async with self.guard.call(request, START_RUN) as visit:
            fields = await self.guard.signed_form(request, visit.session, longest=LONGEST_ORDER)
            order = order_from_text(fields.get("order", ""))
            signature = wire.signature_from_proto(order)
            if signature is None:
                raise PlanNotSigned
            if "sure" not in fields:
                plan = wire.plan_from_bytes(order.plan)
                facts = {"plan": plan, "run_id": order.run_id, "order": fields["order"]}
                digest, key = wire.plan_id(order.plan), signature.public_key
                return shown(visit, "start_sure", **facts, digest=digest, key=key)
            run_id, actor = RunId(order.run_id), visit.caller.uri
            self.four_eyes.look_at(visit.caller, START_RUN, order)
            with self.orchestrator.refused_calls.noted(actor, Action.START_RUN, {"run": run_id}):
                operations = self.orchestrator.operations
                await operations.start_run(run_id, order.plan, signature, actor)
            return RedirectResponse(f"/runs/{run_id}", 303)
