"""One command for each claim; each prints one JSON line per configuration."""
