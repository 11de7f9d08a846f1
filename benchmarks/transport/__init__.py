"""How fast models move: a whole round of real processes, and the sockets below it."""
