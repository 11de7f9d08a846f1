"""Named-entity recognition: the task that comes with Fedgate, `tasks.ner:TASK`."""

from __future__ import annotations

from tasks.ner.ner import TASK, NerTask

__all__ = ["TASK", "NerTask"]
