"""`fedgate init`: a commented plan to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.plan_draft import PlanDraft, site, words
from common.console import OUT, Format, FormatOption, answer, emit_json, working
from common.key_files import write_new
from common.plan import Unit

if TYPE_CHECKING:
    from collections.abc import Sequence


def init(  # noqa: PLR0913 - options of a command line
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("plan.toml"),
    name: Annotated[str | None, typer.Option(help="What the plan is called.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="A label of the task; once for each.")
    ] = None,
    gateway: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:UNITS", help="Who takes part, and how large the site is."),
    ] = None,
    reference: Annotated[str, typer.Option(help="The task.")] = PlanDraft.reference,
    unit: Annotated[Unit, typer.Option(help="Whom the promise is for.")] = PlanDraft.unit,
    rounds: Annotated[
        int, typer.Option(min=1, max=100_000, help="Rounds to publish.")
    ] = PlanDraft.rounds,
    target_epsilon: Annotated[
        float, typer.Option(min=0.01, help="Most that may be spent.")
    ] = PlanDraft.target_epsilon,
    sampling_rate: Annotated[
        float, typer.Option(min=1e-6, max=1, help="Chance of each unit to be in a step.")
    ] = PlanDraft.sampling_rate,
    learning_rate: Annotated[
        float, typer.Option(min=1e-9, help="Of a site's steps.")
    ] = PlanDraft.learning_rate,
    clipping_norm: Annotated[
        float, typer.Option(min=1e-9, help="What one unit can move a step by.")
    ] = PlanDraft.clipping_norm,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write a commented plan, by asking or by options; it passes `fedgate plan check`.

    Examples:
        fedgate init

        fedgate init --name reports --label Drug --label Disease --gateway north:320 --unit document
    """
    draft = PlanDraft(
        name=answer(name, "--name", "What is the plan called", "plan"),
        labels=_several(label, "--label", "Which labels has the task (parted by spaces)"),
        sites=tuple(
            map(site, _several(gateway, "--gateway", "Who takes part (NAME:UNITS for each site)"))
        ),
        reference=reference,
        unit=unit,
        rounds=rounds,
        target_epsilon=target_epsilon,
        sampling_rate=sampling_rate,
        learning_rate=learning_rate,
        clipping_norm=clipping_norm,
    )
    _write(draft, out)
    if output is Format.JSON:
        emit_json({"file": out})
    else:
        OUT.print(f"made {out}: see what it costs with `fedgate plan check {out}`", markup=False)


def _several(given: Sequence[str] | None, option: str, question: str) -> tuple[str, ...]:
    return tuple(given) if given else words(answer(None, option, question))


def _write(draft: PlanDraft, out: Path) -> None:
    """Write the file once it is known to be a plan; raise what is wrong with it."""
    import tomllib

    from pydantic import ValidationError

    from common.config import SettingsInvalid, problems_of
    from tasks.loading import load_task
    from tasks.plan_file import check_target, complete

    text = draft.text()
    fields = tomllib.loads(text)
    fields.pop("task")
    try:
        with working("looking for the least noise that meets the target"):
            plan, _ = complete(fields, load_task(draft.reference), draft.labels)
    except ValidationError as error:
        raise SettingsInvalid(out, problems_of(error)) from error
    check_target(plan)
    write_new(out.parent, {out.name: text.encode()})
