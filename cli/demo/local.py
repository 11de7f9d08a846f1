"""A federation on one machine: all that has to be known to start it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.config import read_toml
from common.errors import RequestError
from common.ids import RunId
from gateway.choices import GradientsBy
from gateway.functional import check_functional
from gateway.one_backward import OneBackward
from tasks.loading import load_task
from tasks.plan_file import TaskTable, draft_plan
from tasks.task import DataConfig, UnitNotCarried

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from common.plan import Unit
    from tasks.task import DataReport, Task


class NotASiteAndItsData(RequestError):
    """What is to name a site and its data does not."""

    field = "sites"

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text!r} is not NAME=FILE: a participant of the plan, and the data that it holds: "
            "e.g. north-clinic=north.jsonl"
        )


class SitesDiffer(RequestError):
    """The sites with data are not those that take part in the plan."""

    field = "sites"

    def __init__(self, *, given: Iterable[str], planned: Iterable[str]) -> None:
        super().__init__(
            f"data are given for {', '.join(given)}, and [[participants]] of the plan are "
            f"{', '.join(planned)}: name each of these once, as NAME=FILE"
        )


@dataclass(frozen=True)
class LocalFederation:
    """A plan, each site's data, and the public data that its models are scored on."""

    run: RunId
    title: str
    plan: str  # plan.toml
    reference: str  # of the task
    labels: tuple[str, ...]
    data: Mapping[str, Mapping[str, str]]  # the [data] table of each site
    public: Mapping[str, str]
    epsilon_budget: float  # at each site
    gradients: GradientsBy = GradientsBy.ONE_BACKWARD
    is_compared: bool = True  # with training that is not private: the built-in task only


def own_federation(
    plan_file: Path,
    sites: Sequence[str],
    test: Path,
    gradients: GradientsBy = GradientsBy.ONE_BACKWARD,
) -> LocalFederation:
    """Return the federation of a plan's file, `NAME=FILE` for each site, and public data.

    All data and the model are checked, so that what is wrong is said before anything starts.

    Raises:
        SettingsInvalid: the plan's file is none.
        NotASiteAndItsData, SitesDiffer: `sites` are not the plan's participants with their data.
        RequestError: data cannot be read, or do not fit the plan; the model cannot be trained so.
    """
    plan, _ = draft_plan(plan_file)
    table = TaskTable.model_validate(read_toml(plan_file)["task"])
    named = [_site(each) for each in sites]
    if sorted(name for name, _ in named) != sorted(plan.gateways):
        raise SitesDiffer(given=[name for name, _ in named], planned=plan.by_gateway)
    paths = dict(named)
    task = load_task(table.reference)
    _check_model(task, table.labels, gradients)
    for path in paths.values():
        _check_carried(plan.privacy.unit, task.check(DataConfig(path=path), table.labels))
    for split in ("dev", "test"):
        task.check(DataConfig(path=test, split=split), table.labels)
    return LocalFederation(
        run=RunId(plan.name),
        title=plan.name,
        plan=plan_file.read_text(encoding="utf-8"),
        reference=table.reference,
        labels=table.labels,
        data={site: {"path": str(paths[site].resolve())} for site in plan.by_gateway},
        public={"path": str(test.resolve())},
        epsilon_budget=plan.privacy.target_epsilon,
        gradients=gradients,
        is_compared=False,
    )


def _site(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise NotASiteAndItsData(text)
    return name, Path(file)


def _check_model(task: Task, labels: Sequence[str], gradients: GradientsBy) -> None:
    """Raise, as a gateway would, what keeps a model's gradients from being clipped one by one."""
    model, specimens = task.build_model(labels), task.specimens(labels)
    if gradients is GradientsBy.FUNCTIONAL:
        check_functional(model, task.loss, specimens)
    else:
        OneBackward(model, task.loss, lambda _: specimens, specimens, len(specimens[0]))


def _check_carried(unit: Unit, found: DataReport) -> None:
    """Raise UnitNotCarried where a report of data counts units, and none of the plan's kind."""
    if found.per_unit and unit not in found.per_unit:
        raise UnitNotCarried(unit, where=found.source, mend=f"name the {unit} of every record")
