"""What the fields of our settings mean, in the words that stand beside them in the code."""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from functools import cache
from typing import TYPE_CHECKING

from common.hyperparameters import Bounds, Hyperparameters, Overrides

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel


def meaning(model: type[BaseModel], name: str) -> str:
    """Return what a field means: the comment at the end of its line, or the string below it.

    A field that is inherited, or of a model that restates another's, has the other's words.
    """
    said_by = (*model.__mro__, *([Hyperparameters] if model in {Overrides, Bounds} else []))
    stated = (_stated(kind).get(name, "") for kind in said_by if "__annotations__" in vars(kind))
    return next(filter(None, stated), "")


@cache
def _stated(model: type) -> Mapping[str, str]:
    """Return the words beside each field that a class itself declares."""
    source = textwrap.dedent(inspect.getsource(model))
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and "noqa" not in token.string
    }
    (tree,) = ast.parse(source).body
    found: dict[str, str] = {}
    below = ""  # the field on whose next line a string would speak of it
    for statement in getattr(tree, "body", ()):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            below = statement.target.id
            found[below] = comments.get(statement.end_lineno or 0, "")
        elif (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and below
        ):
            found[below] = str(statement.value.value)
        else:
            below = ""
    return found
