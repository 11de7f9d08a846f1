"""The packages that only some of Fedgate needs, and what `pip install` brings them with."""

from __future__ import annotations

from common.errors import RequestError

EXTRAS = {  # by the name that is imported
    "absl": "gateway",
    "dp_accounting": "gateway",
    "huggingface_hub": "ner",
    "llvmlite": "gateway",
    "scipy": "gateway",
    "seqeval": "ner",
    "tokenizers": "ner",
    "torch": "gateway",
    "transformers": "ner",
}


class PackageMissing(RequestError):
    """A command needs a package of an extra that was not installed."""

    def __init__(self, module: str) -> None:
        super().__init__(
            f"this needs the package {module!r}, which is not installed here: "
            f"pip install 'fedgate[demo]' for all that trains and scores, or "
            f"'fedgate[{EXTRAS[module]}]' for that part alone"
        )


def missing_package(error: ModuleNotFoundError) -> PackageMissing | None:
    """Return what to say of an import that failed, None if no extra brings the module."""
    module = (error.name or "").partition(".")[0]
    return PackageMissing(module) if module in EXTRAS else None


class ExtraMissing(RequestError):
    """An option, or a command that needs little else, has an extra of its own, which is missing."""

    def __init__(self, what: str, extra: str, error: ImportError) -> None:
        super().__init__(
            f"{what} needs a package that is not here ({error}): pip install 'fedgate[{extra}]'"
        )
