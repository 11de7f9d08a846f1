"""Makes the site of `docs/`: what `mkdocs.yml` hooks in, and the reference from the code."""
