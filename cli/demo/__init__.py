"""`fedgate demo`: a whole federation on this machine, from the real commands."""
