"""The `fedgate` command: orchestrator, operator and demo; above both sides.

Modules import torch and tasks only inside the commands that need them: the orchestrator's image
has neither.
"""

from __future__ import annotations

import sys

from common.python import require

require(*sys.version_info[:2])
