"""`fedgate-gateway init`: commented settings to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.console import OUT, Format, FormatOption, answer, emit_json
from common.errors import RequestError
from common.key_files import write_new
from gateway.settings_draft import SettingsDraft

if TYPE_CHECKING:
    from collections.abc import Sequence


class BudgetUnclear(RequestError):
    """What is to be a budget is no number above 0."""

    field = "epsilon_budget"

    def __init__(self, text: str) -> None:
        super().__init__(f"the budget is {text!r}, it must be a number above 0: e.g. 8")


class DataUnclear(RequestError):
    """Data were named in no way, or in two."""

    field = "data"

    def __init__(self) -> None:
        super().__init__("name the data in one way: --path FILE, or --corpus NAME, with --site")


def init(  # noqa: PLR0913 - options of a command line
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("gateway.toml"),
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Of the orchestrator.")
    ] = None,
    keys: Annotated[Path, typer.Option(help="The folder that enrolling fills.")] = Path("keys"),
    plan_keys: Annotated[
        Path, typer.Option(help="Keys of those whose plans are obeyed, one a line.")
    ] = Path("plan-keys"),
    label: Annotated[
        list[str] | None, typer.Option(help="A label that the data carry; once for each.")
    ] = None,
    path: Annotated[str | None, typer.Option(help="The data, JSONL or CoNLL.")] = None,
    corpus: Annotated[str | None, typer.Option(help="A corpus by name, instead.")] = None,
    site: Annotated[str | None, typer.Option(help="Whose rows of the data.")] = None,
    data_set: Annotated[str, typer.Option(help="The ledger's name for the data.")] = "default",
    epsilon_budget: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="For all that is ever trained on them.")
    ] = None,
    state: Annotated[Path, typer.Option(help="The folder for the ledger.")] = SettingsDraft.state,
    reference: Annotated[str, typer.Option(help="The task.")] = SettingsDraft.reference,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write commented settings, by asking or by options; see them through with `check`.

    Examples:
        fedgate-gateway init

        fedgate-gateway init --address fl.example:8443 --label Drug --path notes.jsonl
    """
    draft = SettingsDraft(
        address=answer(address, "--address", "Where is the orchestrator (HOST:PORT)"),
        keys=keys,
        plan_keys=plan_keys,
        labels=_labels(label),
        data=_data(path, corpus, site),
        data_set=data_set,
        epsilon_budget=_budget(
            answer(epsilon_budget, "--epsilon-budget", "Most epsilon ever spent on the data", "8")
        ),
        state=state,
        reference=reference,
    )
    _write(draft, out)
    if output is Format.JSON:
        emit_json({"file": out})
        return
    say = f"made {out}: see what would go wrong with `fedgate-gateway check --config {out}`"
    OUT.print(say, markup=False)


def _labels(given: Sequence[str] | None) -> tuple[str, ...]:
    question = "Which labels do the data carry (parted by spaces)"
    told = given or answer(None, "--label", question).replace(",", " ").split()
    return tuple(dict.fromkeys(told))


def _data(path: str | None, corpus: str | None, site: str | None) -> tuple[tuple[str, str], ...]:
    if path is not None and corpus is not None:
        raise DataUnclear
    if corpus is None:
        path = answer(path, "--path", "Where are the data (a .jsonl or .conll file)")
    named = {"path": path, "corpus": corpus, "site": site}
    return tuple((name, value) for name, value in named.items() if value is not None)


def _budget(text: str) -> float:
    try:
        budget = float(text)
    except ValueError:
        raise BudgetUnclear(text) from None
    if not 0 < budget < float("inf"):
        raise BudgetUnclear(text)
    return budget


def _write(draft: SettingsDraft, out: Path) -> None:
    """Write the file once it is known to hold settings; raise SettingsInvalid."""
    import tomllib

    from common.config import parse_settings
    from gateway.config import GatewayConfig

    text = draft.text()
    parse_settings(GatewayConfig, tomllib.loads(text), out)
    write_new(out.parent, {out.name: text.encode()})
