"""The orchestrator's page: what its services answer, for people with a browser."""
