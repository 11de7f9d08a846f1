"""What earlier versions have left behind, and the task that they trained."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
TASK = f"{FOLDER / 'task.py'}:TASK"  # a copy that stays as it is: plans name it by its digest
