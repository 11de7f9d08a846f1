"""The reference of the settings files, from the models that read them."""

from __future__ import annotations

from inspect import cleandoc
from typing import TYPE_CHECKING, get_args, get_origin

from pydantic import BaseModel

from cli.config import OperatorConfig
from common.hyperparameters import Range
from common.markdown import row, table
from common.plan import Plan
from gateway.config import GatewayConfig
from orchestrator.config import OrchestratorConfig
from tasks.plan_file import TaskTable
from website.fields import NEEDED, TABLE_DEFAULT, alternatives, bounds, default, kind
from website.meanings import meaning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

FILES: dict[str, tuple[type[BaseModel], str]] = {
    "orchestrator.toml": (OrchestratorConfig, "`fedgate serve` reads it."),
    "gateway.toml": (
        GatewayConfig,
        "`fedgate-gateway run` and the other commands of a site read it.",
    ),
    "operator.toml": (
        OperatorConfig,
        "Every `fedgate` command that calls an orchestrator reads it.",
    ),
    "plan.toml": (
        Plan,
        "`fedgate run start` makes a plan of it, with what only the task knows.",
    ),
}
FROM_THE_TASK = {"initial_weights"}  # of a plan; its file cannot say them
INSTEAD: dict[tuple[type, str], type[BaseModel]] = {(Plan, "task"): TaskTable}
OTHERWISE = {  # where reading a file gives something else than the model alone says
    ("plan.toml", "update_norm"): TABLE_DEFAULT,
    ("plan.toml", "reputation"): TABLE_DEFAULT,
    ("plan.toml", "rounds.maximum"): "twice `count`",
    ("plan.toml", "hyperparameters.noise_multiplier"): "the least that meets `target_epsilon`",
    ("gateway.toml", "trust"): NEEDED,
}


def pages() -> dict[str, tuple[str, str]]:
    """Return a page for each file: title and text by file name."""
    return {f"{name}.md".replace(".toml", "-toml"): (name, _page(name)) for name in FILES}


def _page(name: str) -> str:
    model, words = FILES[name]
    over = (
        " A variable in the environment lies over it: `FEDGATE__`, then tables and field in "
        "capitals, parted by `__`, such as `FEDGATE__LOG__STYLE=json`."
        if name != "plan.toml"
        else ""
    )
    sections = "".join(_section(path, each, name) for path, each in tables(model))
    return f"# {name}\n\n{words}{over} A field that is not listed here is refused.\n{sections}"


def tables(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield each table of a file with its model: the file itself first, by the empty name."""
    yield path, model
    for name, _ in fields(model):
        inner, many = table_of(model, name)
        if inner is not None:
            below = f"{path}.{name}".lstrip(".")
            yield from tables(inner, f"{below}{many}")


def fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the fields that a file may have."""
    for name, field in model.model_fields.items():
        if name not in FROM_THE_TASK:
            yield name, field


def table_of(model: type[BaseModel], name: str) -> tuple[type[BaseModel] | None, str]:
    """Return the model of a field that is a table, and how its name goes on; else None."""
    if (model, name) in INSTEAD:
        return INSTEAD[model, name], ""
    for each in alternatives(model.model_fields[name].annotation):
        goes_on = {dict: ".NAME", tuple: "[]"}.get(get_origin(each), "")
        for inner in (each, *get_args(each)):
            if isinstance(inner, type) and issubclass(inner, BaseModel) and inner is not Range:
                return inner, goes_on
    return None, ""


def _section(path: str, model: type[BaseModel], file: str) -> str:
    name = f"[[{path[:-2]}]]" if path.endswith("[]") else f"[{path}]"
    words = cleandoc(model.__doc__ or "").partition("\n\nSource:")[0].replace("None", "not given")
    heading = f"\n## `{name}`\n\n{words}\n\n" if path else "\n## At the top\n\n"
    rows = [_row(path, model, each, file) for each, _ in fields(model)]
    return heading + table(("field", "type", "bounds", "default", "meaning"), rows)


def _row(path: str, model: type[BaseModel], name: str, file: str) -> str:
    field = model.model_fields[name]
    inner, many = table_of(model, name)
    said = meaning(model, name).replace("None:", "not given:")
    if inner is not None and (not said or said.startswith("not given:")):
        said = f"{cleandoc(inner.__doc__ or '').partition(chr(10))[0]} {said}"
    return row(
        f"`{name}`",
        f"[table]({_anchor(path, name, many)})" if inner else kind(field),
        bounds(field),
        OTHERWISE.get((file, f"{path}.{name}".lstrip(".")), default(field)),
        said,
    )


def _anchor(path: str, name: str, many: str) -> str:
    words = f"{path}.{name}".lstrip(".") + many
    return "#" + words.lower().replace(".", "").replace("[]", "")
