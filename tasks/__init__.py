"""What a federation trains: the `Task` protocol and the tasks that come with Fedgate."""

from __future__ import annotations

from tasks.loading import NotATask, TaskNotFound, load_task

__all__ = ["NotATask", "TaskNotFound", "load_task"]
