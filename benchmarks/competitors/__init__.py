"""The same round by other systems, each in a virtual environment of its own."""
