"""Structured logs on standard error; one event name per line."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Literal

import structlog
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from structlog.typing import Processor


class LogSettings(BaseModel):
    """How the log reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    style: Literal["text", "json"] = "text"  # for people, or one JSON object a line
    verbose: bool = False  # what helps to find a mistake, too


def configure(style: Literal["text", "json"] = "text", *, verbose: bool = False) -> None:
    """Send every event to standard error, as text for people or as one JSON object a line."""
    last: Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if verbose else logging.INFO
        ),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
