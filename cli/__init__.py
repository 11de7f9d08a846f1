"""The `fedgate` command: orchestrator, operator and demo; above both sides.

Modules import torch and tasks only inside the commands that need them: the orchestrator's image
has neither.
"""
