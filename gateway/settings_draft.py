"""A gateway's settings to begin with: every one that matters, each with a word on what it does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SettingsDraft:
    """What has to be said for a gateway; the rest has values that do for most."""

    address: str
    keys: Path  # the folder that enrolling has filled
    plan_keys: Path
    labels: tuple[str, ...]
    data: tuple[tuple[str, str], ...]  # of the [data] table: path, or corpus and site
    data_set: str
    epsilon_budget: float
    state: Path = Path("state/gateway")
    reference: str = "tasks.ner:TASK"

    def text(self) -> str:
        """Return the file, TOML with comments."""
        return _TEMPLATE.format(
            address=json.dumps(self.address),
            state=json.dumps(str(self.state)),
            data_set=json.dumps(self.data_set),
            authority=json.dumps(str(self.keys / "ca.pem")),
            certificate=json.dumps(str(self.keys / "cert.pem")),
            key=json.dumps(str(self.keys / "key.pem")),
            plan_keys=json.dumps(str(self.plan_keys)),
            reference=json.dumps(self.reference),
            labels=json.dumps(list(self.labels)),
            data="\n".join(f"{name} = {json.dumps(value)}" for name, value in self.data),
            epsilon_budget=self.epsilon_budget,
        )


_TEMPLATE = """\
# One site's settings. What would go wrong with them: fedgate-gateway check --config FILE
address = {address}  # of the orchestrator
state = {state}  # the ledger and all else that is kept: never lose it
data_set = {data_set}  # the ledger counts under this name what was spent on the data

# device = "cpu"    # where it trains; "auto" takes a GPU where there is one
# threads = 4       # for training
# micro_batch = 64  # records that are worked on at once: bounds memory

[tls]               # from `fedgate-gateway enroll`
authority = {authority}
certificate = {certificate}
key = {key}

[trust]
plan_keys = {plan_keys}  # of those whose plans are obeyed, one a line: NAME ed25519 KEY

[task]
reference = {reference}  # "module:NAME" or "file.py:NAME"
labels = {labels}  # all that the data may carry

[data]
{data}

[policy]            # whatever a plan asks for
epsilon_budget = {epsilon_budget}           # for everything ever trained on this data set
delta_ceiling = 1e-5
# noise_multiplier_floor = 0.8  # refuse plans with less
allow_kept_updates = false      # refuse plans that have updates kept

# [hyperparameters]             # this site's own values, within the plan's bounds
# noise_multiplier = 1.2
"""
