"""Fuzzing: whatever bytes come in, only our own errors come out, soon and in little memory.

`targets.TARGETS` lists what parses bytes that others wrote. `make test` replays `corpus/` and tries
examples of hypothesis; `make fuzz` lets atheris look for inputs that reach code not reached before.
"""
