"""What the demo trains: its corpus, its sites, and a plan whose values were chosen on dev data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import tomli_w

from cli.demo.local import LocalFederation
from common.errors import RequestError
from common.ids import RunId
from common.plan import Unit
from tasks.ner.corpora import corpus_labels, corpus_sites, site_sizes

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = "tasks.ner:TASK"
RUN = RunId("demo")


class TooManyGateways(RequestError):
    """The demo is asked for more gateways than the corpus has sites."""

    def __init__(self, *, asked: int, corpus: str, sites: tuple[str, ...]) -> None:
        super().__init__(
            f"{asked} gateways asked for, {corpus} has {len(sites)} sites ({', '.join(sites)}): "
            "each gateway holds one site's data"
        )


@dataclass(frozen=True)
class Recipe:
    """The values of a plan that suit a corpus."""

    gateways: int | None  # None: one for each site
    rounds: int
    sampling_rate: float
    clipping_norm: float
    learning_rate: float  # at the gateways
    server_momentum: float
    final_fraction: float  # of the server's learning rate, at the end of its linear schedule
    tail_average: float


_DEFAULT = Recipe(
    gateways=None,
    rounds=60,
    sampling_rate=0.5,
    clipping_norm=1.0,
    learning_rate=20.0,
    server_momentum=0.9,
    final_fraction=0.3,
    tail_average=0.3,
)
_LETTERS = replace(_DEFAULT, gateways=3, rounds=40, learning_rate=25.0)
_LETTERS_WHOLE = replace(  # fewer units: more of them in a step, smaller steps, and more of them
    _LETTERS, rounds=60, sampling_rate=0.8, clipping_norm=0.5, server_momentum=0.5
)
_ABSTRACTS = replace(  # of a large corpus, all of it: the least noise for the same epsilon
    _DEFAULT, rounds=100, sampling_rate=1.0, learning_rate=6.0, tail_average=0.2
)
RECIPES = {  # the first of a corpus is its own
    ("letters", Unit.DOCUMENT): _LETTERS_WHOLE,
    ("letters", Unit.PERSON): _LETTERS_WHOLE,
    ("letters", Unit.EXAMPLE): _LETTERS,
    ("bc5cdr", Unit.EXAMPLE): _ABSTRACTS,
}


@dataclass(frozen=True)
class DemoPrivacy:
    """What the user asks to be promised."""

    target_epsilon: float
    delta: float
    unit: Unit | None = None  # None: the corpus' own


@dataclass(frozen=True)
class DemoSettings:
    """What the user asked for."""

    corpus: str
    sites: tuple[str, ...]
    labels: tuple[str, ...]
    unit: Unit
    units: dict[str, int]  # of privacy, in the training split of each site
    recipe: Recipe
    rounds: int
    target_epsilon: float
    delta: float
    data_dir: Path | None

    def federation(self) -> LocalFederation:
        """Return all that has to be known to run it on this machine."""
        public = {"corpus": self.corpus}
        if self.data_dir is not None:
            public["data_dir"] = str(self.data_dir)
        return LocalFederation(
            run=RUN,
            title=self.corpus,
            plan=tomli_w.dumps(self.plan()),
            reference=REFERENCE,
            labels=self.labels,
            data={site: {**public, "site": site} for site in self.sites},
            public=public,
            epsilon_budget=self.target_epsilon,
        )

    def plan(self) -> dict[str, Any]:
        """Return the tables of `plan.toml`; the noise is found from the target."""
        recipe = self.recipe
        return {
            "name": f"demo-{self.corpus}",
            "task": {"reference": REFERENCE, "labels": list(self.labels)},
            "rounds": {"count": self.rounds, "quorum": len(self.sites), "deadline_s": 120.0},
            "privacy": {
                "unit": str(self.unit),
                "delta": self.delta,
                "target_epsilon": self.target_epsilon,
            },
            "hyperparameters": {
                "learning_rate": recipe.learning_rate,
                "clipping_norm": recipe.clipping_norm,
                "sampling_rate": recipe.sampling_rate,
                "local_steps": 1,
            },
            "server": {
                "learning_rate": 1.0,
                "momentum": recipe.server_momentum,
                "schedule": "linear",
                "final_fraction": recipe.final_fraction,
                "tail_average": recipe.tail_average,
            },
            "participants": [
                {"gateway": site, "declared_units": self.units[site]} for site in self.sites
            ],
        }


def demo_settings(
    corpus: str,
    *,
    gateways: int | None,
    rounds: int | None,
    privacy: DemoPrivacy,
    data_dir: Path | None,
) -> DemoSettings:
    """Return what the demo runs.

    Raises:
        TooManyGateways: the corpus has fewer sites.
        UnitNotCarried: the corpus does not say of its sentences to which unit they belong.
        RequestError: the corpus cannot be read.
    """
    unit = privacy.unit or next((own for name, own in RECIPES if name == corpus), Unit.EXAMPLE)
    recipe = RECIPES.get((corpus, unit), _DEFAULT)
    sites = corpus_sites(corpus, data_dir)
    asked = gateways or recipe.gateways or len(sites)
    if asked > len(sites):
        raise TooManyGateways(asked=asked, corpus=corpus, sites=sites)
    return DemoSettings(
        corpus=corpus,
        sites=sites[:asked],
        labels=corpus_labels(corpus, data_dir),
        unit=unit,
        units=site_sizes(corpus, data_dir, unit),
        recipe=recipe,
        rounds=rounds or recipe.rounds,
        target_epsilon=privacy.target_epsilon,
        delta=privacy.delta,
        data_dir=data_dir,
    )
