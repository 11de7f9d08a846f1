"""A plan's file to begin with: every setting that matters, each with a word on what it does."""

from __future__ import annotations

import json
from dataclasses import dataclass

from common.errors import RequestError
from common.ids import is_name
from common.plan import Unit

MOST_UNITS = 1_000_000_000


class NotASite(RequestError):
    """What is to name a site and its size does not."""

    field = "gateway"

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text!r} is not NAME:UNITS: a gateway's name, as in its certificate, and about how "
            "many units its site has, in public: e.g. north-clinic:320"
        )


@dataclass(frozen=True)
class PlanDraft:
    """What has to be said for a plan; the rest has values that do for most."""

    name: str
    labels: tuple[str, ...]
    sites: tuple[tuple[str, int], ...]  # each gateway with its declared units
    reference: str = "tasks.ner:TASK"
    unit: Unit = Unit.EXAMPLE
    rounds: int = 60
    target_epsilon: float = 8.0
    sampling_rate: float = 0.8
    learning_rate: float = 25.0
    clipping_norm: float = 0.5
    delta: float = 1e-5

    def text(self) -> str:
        """Return the file, TOML with comments."""
        sites = "".join(
            f"\n[[participants]]\ngateway = {json.dumps(name)}\ndeclared_units = {units}\n"
            for name, units in self.sites
        )
        return _TEMPLATE.format(
            name=json.dumps(self.name),
            reference=json.dumps(self.reference),
            labels=json.dumps(list(self.labels)),
            rounds=self.rounds,
            quorum=len(self.sites),
            unit=json.dumps(self.unit),
            delta=self.delta,
            target_epsilon=self.target_epsilon,
            sampling_rate=self.sampling_rate,
            learning_rate=self.learning_rate,
            clipping_norm=self.clipping_norm,
            sites=sites,
        )


def site(text: str) -> tuple[str, int]:
    """Return the name and the size in `NAME:UNITS`; raise NotASite."""
    name, _, units = text.partition(":")
    if not (is_name(name) and units.isdecimal() and 0 < int(units) <= MOST_UNITS):
        raise NotASite(text)
    return name, int(units)


def words(text: str) -> tuple[str, ...]:
    """Return what a person lists, parted by commas or spaces, each once."""
    return tuple(dict.fromkeys(text.replace(",", " ").split()))


_TEMPLATE = """\
# A plan: what is trained, by whom, and what it may cost. See what it costs: fedgate plan check FILE
name = {name}

# wire_format = "bfloat16"      # half the bytes of an update; "int8": a quarter
# keep_updates = true           # the orchestrator stores updates; each site has to allow it

[task]
reference = {reference}
labels = {labels}  # all that any site's data may carry

[rounds]
count = {rounds}       # rounds to publish
quorum = {quorum}        # updates without which no round is published
deadline_s = 120.0  # how long a round waits for the last of them

[privacy]
unit = {unit}  # whom the promise is for: "example", "document" or "person"
delta = {delta}
target_epsilon = {target_epsilon}  # no more than this, over all rounds, at each site

[hyperparameters]
# noise_multiplier = 1.0  # unless it is given, the least that meets target_epsilon
learning_rate = {learning_rate}      # large, since clipped gradients are small
clipping_norm = {clipping_norm}       # what one unit can move a step by
sampling_rate = {sampling_rate}       # the chance of each unit to be in a step
local_steps = 1           # private steps in a round; each costs privacy

[server]                  # what follows the average; it costs no privacy
learning_rate = 1.0
momentum = 0.5
schedule = "linear"
final_fraction = 0.3
tail_average = 0.3        # the model is the mean over the last rounds

# [bounds.noise_multiplier]   # what sites may change of the above, and how far
# minimum = 1.0

# Who takes part: the names in the gateways' certificates, and about how many units each has.
# These numbers are public; round them.
{sites}"""
