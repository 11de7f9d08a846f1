"""The `fedgate-gateway ledger` commands.

Each imports what it needs when it is called: a probe, which imports this module too, loads neither
SQL nor torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.config import load_settings
from common.console import OUT, Format, FormatOption, emit_json, emit_table, working
from common.plan import Relation, Unit
from gateway.config import GatewayConfig
from gateway.options import ConfigOption, DeltaOption, SeedOption, desk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.accounting import Epsilon
    from gateway.ledger_desk import Account, Proof

SEVERAL_UNITS = "charged under several units by several images: the figure holds for none of them"
app = typer.Typer(
    no_args_is_help=True,
    help="See and prove what was charged here. Exit code 0: all is well; 1: it is not, and one "
    "sentence says why; 2: the command itself was wrong.",
)

FileOption = Annotated[
    Path | None, typer.Option("--file", help="An export, instead of this gateway's ledger.")
]
ImageOption = Annotated[
    Path | None,
    typer.Option("--image", help="Another image of this ledger: a newer backup."),
]
AssumeOption = Annotated[
    list[str] | None,
    typer.Option("--assume-rounds", help="RUN:N, N rounds of a run whose records are lost."),
]
NothingOption = Annotated[
    bool, typer.Option("--nothing-missing", help="Answer for it that nothing more was charged.")
]
NoiseOption = Annotated[float | None, typer.Option(help="Of a run that the ledger does not know.")]


@app.command("show")
def show(
    config: ConfigOption = Path("gateway.toml"),
    delta: DeltaOption = 1e-5,
    seed: SeedOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show everything that was ever charged on this gateway's data, and what it adds up to.

    It only reads, and may be asked while the gateway runs.

    Example:
        fedgate-gateway ledger show --config gateway.toml
    """
    from gateway.ledger import epsilon_of

    name = load_settings(GatewayConfig, config).data_set
    with working("adding up what was charged"), desk(config, seed).ledger() as ledger:
        charges = [c for c in ledger.charges() if c.terms.data.name == name]
        merged = [s for s in ledger.spent() if s.data_set == name and not s.is_own]
        spent, head = epsilon_of(ledger, name, delta), ledger.head
        units = sorted(ledger.units_charged(name))
    if output is Format.JSON:
        privacy = {"units": units, "relation": Relation.ADD_OR_REMOVE_ONE, "delta": delta}
        found = {"data_set": name, "epsilon": spent, "charges": charges, "merged": merged}
        emit_json({**found, **privacy, "head": head})
        return
    rows = [(c.terms.run, c.round, c.terms.unit, c.event, "") for c in charges]
    origins = {True: "stated", False: "merged"}
    rows += [(s.run, s.round, s.unit, s.event, origins[s.is_assumed]) for s in merged]
    columns = ("run", "round", "unit", "noise multiplier", "sampling rate", "steps", "")
    cells = [
        (run, number, unit, event.noise_multiplier, event.sampling_rate, event.steps, origin)
        for run, number, unit, event, origin in rows
    ]
    emit_table(f"charges on {name!r}", columns, cells)
    OUT.print(f"head: record {head.sequence}, {head.hash}")
    _print_spent(spent, delta, units)


@app.command("verify")
def verify(
    config: ConfigOption = Path("gateway.toml"),
    file: FileOption = None,
    delta: DeltaOption = 1e-5,
    seed: SeedOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Recompute the chain of records, and epsilon by a second accountant.

    The first bad record is named, if there is one. It only reads.
    """
    from gateway import ledger_desk

    with working("recomputing the chain, and epsilon by two accountants"):
        if file is None:
            proof = ledger_desk.verify(desk(config, seed), delta)
        else:
            proof = ledger_desk.verify_export(file, delta)
    if output is Format.JSON:
        emit_json(proof)
    else:
        _print_proof(proof, delta)


@app.command("export")
def export(config: ConfigOption = Path("gateway.toml"), seed: SeedOption = None) -> None:
    """Print every record with its hash, one JSON object a line; no secret is in them."""
    import json

    with desk(config, seed).ledger() as ledger:
        for record in ledger.records():
            sys.stdout.write(json.dumps(record.to_json()) + "\n")


@app.command("merge")
def merge(  # noqa: PLR0913  # options
    config: ConfigOption = Path("gateway.toml"),
    image: ImageOption = None,
    assume_rounds: AssumeOption = None,
    *,
    nothing_missing: NothingOption = False,
    noise_multiplier: NoiseOption = None,
    sampling_rate: NoiseOption = None,
    steps: Annotated[int | None, typer.Option(help="Of one round of such a run.")] = None,
    unit: Annotated[
        Unit | None, typer.Option(help="Of such a run, if no charge on its data is known.")
    ] = None,
    seed: SeedOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Take in what another image of the ledger holds, or what is stated to be missing.

    Nothing is ever lowered. The gateway must be stopped. Rounds that come in this way count and
    are never trained again.
    """
    from common.accounting import PrivacyEvent
    from gateway import ledger_desk
    from gateway.identity import gateway_name
    from gateway.merging import Statement

    settings = load_settings(GatewayConfig, config)
    event = None
    if noise_multiplier is not None and sampling_rate is not None and steps is not None:
        event = PrivacyEvent(noise_multiplier, sampling_rate, steps)
    stated = ledger_desk.assumptions(assume_rounds or ())
    statement = Statement(settings.data_set, stated, event, nothing_missing, unit)
    name = gateway_name(settings.tls.certificate)
    with working("taking records in"):
        merged = ledger_desk.take_in(desk(config, seed), name, image, statement)
    if output is Format.JSON:
        emit_json(merged)
        return
    OUT.print(f"merged: {merged.taken} records taken in, {len(merged.assumed)} rounds stated")
    OUT.print(f"head: record {merged.head.sequence}, {merged.head.hash}")


@app.command("trust")
def trust(
    public_key: Annotated[str, typer.Argument(help="64 hexadecimal digits, from its operator.")],
    config: ConfigOption = Path("gateway.toml"),
    seed: SeedOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Take another key for the orchestrator's; ask its operator over another channel first."""
    from gateway import ledger_desk

    is_known = ledger_desk.trust(desk(config, seed), public_key)
    if output is Format.JSON:
        emit_json({"trusted": is_known})
    elif is_known:
        OUT.print("the orchestrator is known by this key from now on")
    else:
        OUT.print("no key is known yet: the first one that signs will be")


def _print_spent(spent: Epsilon | None, delta: float, units: Sequence[Unit]) -> None:
    from common.accounting import rounded_up

    named = " and ".join(units) or "none yet"
    if spent is None:
        OUT.print("epsilon: none, the randomness was seeded: nothing is private")
        return
    OUT.print(f"epsilon {rounded_up(spent.pld, 8)} (PLD), {rounded_up(spent.rdp, 8)} (RDP)")
    OUT.print(f"at delta {delta}, {spent.relation} neighbours, unit: {named}")
    if len(units) > 1:
        OUT.print(SEVERAL_UNITS)


def _print_proof(proof: Proof, delta: float) -> None:
    OUT.print(f"the chain is whole: record {proof.head.sequence}, {proof.head.hash}")
    word = proof.countersigned
    if word is not None:
        OUT.print(f"record {word.head.sequence} is countersigned by {word.public_key}")
    rows = [
        (each.data_set, " and ".join(each.units), each.charges, *_three(each))
        for each in proof.accounts
    ]
    columns = ("data set", "unit", "charges", "PLD", "RDP", "second accountant")
    promise = f"at delta {delta}, {Relation.ADD_OR_REMOVE_ONE} neighbours"
    emit_table(f"epsilon {promise}, by three computations", columns, rows)
    if any(len(each.units) > 1 for each in proof.accounts):
        OUT.print(SEVERAL_UNITS)


def _three(account: Account) -> tuple[float | str | None, ...]:
    """Return epsilon by three computations, or that there is none."""
    if account.spent is None:
        return "none: seeded", "", ""
    return account.spent.pld, account.spent.rdp, account.second
