"""`fedgate plan check`: what a plan costs, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.plan_key_commands import app
from common.accounting import rounded_up
from common.console import OUT, Format, FormatOption, emit_json, emit_table, working

if TYPE_CHECKING:
    from cli.plan_check import PlanCheck


@app.command("check")
def check(
    plan: Annotated[Path, typer.Argument(help="The plan, TOML.")],
    target_epsilon: Annotated[
        float | None, typer.Option(help="Another target than the plan's own.", min=0.0)
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show each gateway's epsilon, the noise beside the signal, and what reaches a target.

    The exit code is 1 if the plan could spend more than the target.

    Examples:
        fedgate plan check plan.toml

        fedgate plan check plan.toml --target-epsilon 3 --format json
    """
    from cli.plan_check import check_plan
    from tasks.plan_file import draft_plan

    with working("reckoning what each gateway spends"):
        found = check_plan(draft_plan(plan)[0], target_epsilon)
    if output is Format.JSON:
        emit_json(found)
    else:
        _show(found)
    if not found.is_within_target:
        raise typer.Exit(1)


def _show(found: PlanCheck) -> None:
    emit_table(
        f"epsilon at delta {found.delta}, unit: {found.unit}",
        ("gateway", "noise", "rate", f"{found.relation}, PLD", "RDP", "replace_one, PLD"),
        [
            (
                each.gateway,
                each.noise_multiplier,
                each.sampling_rate,
                rounded_up(each.epsilon),
                rounded_up(each.epsilon_rdp),
                rounded_up(each.epsilon_replace_one),
            )
            for each in found.gateways
        ],
    )
    emit_table(
        f"epsilon after each round, {found.relation}, PLD",
        ("round", *(each.gateway for each in found.gateways)),
        [
            (count, *(rounded_up(each.epsilon_after_round[count], 2) for each in found.gateways))
            for count in found.gateways[0].epsilon_after_round
        ],
    )
    kept = ", KEPT by the orchestrator" if found.keep_updates else ""
    OUT.print(f"one update: {found.update_bytes:,} bytes in {found.wire_format}{kept}")
    OUT.print(_guards(found), markup=False)
    OUT.print(f"noise to signal in one averaged update: {found.noise_to_signal:.3g}")
    verdict = "within" if found.is_within_target else "ABOVE"
    OUT.print(
        f"at the plan's bounds: epsilon {rounded_up(found.epsilon_at_bounds)}, "
        f"{verdict} the target of {found.target_epsilon}"
    )
    change = found.to_reach_target
    OUT.print(
        f"the target alone by: noise of at least {_or_none(change.noise_multiplier)}, a sampling "
        f"rate of at most {_or_none(change.sampling_rate)}, or at most {_or_none(change.rounds)} "
        "rounds"
    )


def _guards(found: PlanCheck) -> str:
    """Say what bounds the updates' norms, how far that holds, and whom it will meet."""
    norm = found.update_norm
    if norm.is_off:
        return "updates of any norm are averaged: one bad gateway can undo the model"
    median = f"{norm.factor:g} times the median of rounds before"
    bound = median if norm.bound is None else f"{norm.bound:g}"
    many = ", ".join(found.expected_clipped)
    meets = f"; expected above it for their noise alone: {many}" if many else ""
    return (
        f"updates are scaled down to an L2 norm of {bound}, which holds against one bad gateway "
        f"in five and against no backdoor{meets}"
    )


def _or_none(value: float | None) -> str:
    return "(nothing)" if value is None else str(value)
