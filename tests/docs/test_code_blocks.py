"""Every code block of every page outside of the tutorials is run, or held to the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from pydantic import BaseModel, ValidationError

from cli.config import OperatorConfig
from common.config import read_toml
from gateway.config import GatewayConfig
from orchestrator.config import OrchestratorConfig
from tasks.plan_file import complete
from tests.docs import command_lines
from tests.docs.pages import ROOT, checked_blocks, checked_pages, named
from tests.tiny_task import TASK

EXAMPLES = ROOT / "examples" / "letters"
FILES: dict[str, type[BaseModel]] = {
    "orchestrator.toml": OrchestratorConfig,
    "gateway.toml": GatewayConfig,
    "operator.toml": OperatorConfig,
}
LANGUAGES = {"sh", "console", "python", "toml", "text"}
SITES = [{"gateway": f"site-{n}", "declared_units": 100} for n in range(12)]
INLINE = re.compile(r"^(fedgate|fedgate-gateway|make) [a-z]")


def _of(block) -> str:
    return f"{named(block.page)}:{block.line}"


@pytest.mark.parametrize("page", checked_pages(), ids=named)
def test_every_block_says_what_it_is_written_in(page):
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    indented = [token.map[0] + 1 for token in tokens if token.type == "code_block"]
    assert not indented, f"indented blocks, in lines {indented}: fence them"
    found = {token.info.split(" ")[0] for token in tokens if token.type == "fence"}
    assert found <= LANGUAGES


@pytest.mark.parametrize(
    "page",
    [page for page in checked_pages() if any(b.page == page for b in checked_blocks("python"))],
    ids=named,
)
def test_the_python_of_a_page_runs_from_top_to_bottom(page):
    names: dict[str, object] = {"__name__": "page"}
    for block in checked_blocks("python"):
        if block.page == page:
            exec(compile(block.text, _of(block), "exec", dont_inherit=True), names)  # noqa: S102


@pytest.mark.parametrize("block", checked_blocks("sh"), ids=_of)
def test_the_commands_of_a_page_are_there_and_take_what_they_are_given(block):
    for words in command_lines.simple_commands(block.text):
        command_lines.check(words)


@pytest.mark.parametrize("block", checked_blocks("text"), ids=_of)
def test_output_on_a_page_is_not_a_command_that_goes_unchecked(block):
    assert not [line for line in block.text.splitlines() if INLINE.match(line)]


@pytest.mark.parametrize("block", checked_blocks("console"), ids=_of)
def test_a_session_on_a_page_begins_with_commands_that_are_there(block):
    typed = [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
    assert typed
    for line in typed:
        for words in command_lines.simple_commands(line):
            command_lines.check(words)


@pytest.mark.parametrize("block", checked_blocks("toml"), ids=_of)
def test_settings_of_a_page_are_taken_where_they_are_said_to_belong(block):
    tables = tomllib.loads(block.text)
    problems = []
    for laid_over in (_table_by_table, _field_by_field):  # a page may show part of a table
        try:
            _validate(block.title, laid_over(_whole(block.title), tables))
        except ValidationError as error:
            problems.append(str(error))
        else:
            return
    pytest.fail("\n".join(problems))


def _whole(title: str) -> dict:
    """Return a whole file of that name, which a page's tables go into."""
    assert title in {*FILES, "plan.toml"}, f'say title="plan.toml" or such, not {title!r}'
    example = {"gateway.toml": "gateway-1.toml"}.get(title, title)
    tables = read_toml(EXAMPLES / example)
    if title == "plan.toml":
        tables["participants"] = SITES
        tables["hyperparameters"]["noise_multiplier"] = 4.0
    return tables


def _table_by_table(whole: dict, tables: dict) -> dict:
    return {**whole, **tables}


def _field_by_field(whole: dict, tables: dict) -> dict:
    merged = dict(whole)
    for name, value in tables.items():
        both = isinstance(value, dict) and isinstance(whole.get(name), dict)
        merged[name] = _field_by_field(whole[name], value) if both else value
    return merged


def _validate(title: str, tables: dict) -> None:
    if title == "plan.toml":
        fields = dict(tables)
        complete(fields, TASK, tuple(fields.pop("task")["labels"][:2]))
    else:
        FILES[title](**tables)


# a decision may name what a later one took away
@pytest.mark.parametrize(
    "page", [page for page in checked_pages() if page.parent.name != "adr"], ids=named
)
def test_a_command_that_a_sentence_names_is_there(page):
    for words in _named_commands(page):
        if words[0] == "make":
            command_lines.check(words[:2])
            continue
        command, rest = command_lines.resolved(words, group_will_do=True)
        known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert given <= known | {"--help"}, " ".join(words)


def _named_commands(page: Path) -> list[list[str]]:
    inline = (
        child.content
        for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))
        for child in token.children or ()
        if child.type == "code_inline"
    )
    texts = (text for text in inline if INLINE.match(text))
    words = (words for text in texts for words in command_lines.simple_commands(text))
    return [each for each in words if each[0] in {*command_lines.APPS, "make"}]
