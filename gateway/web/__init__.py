"""The gateway's own page, for the people of its site: on loopback, and nowhere else."""
