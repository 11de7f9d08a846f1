"""The contract between the two sides; its modules are built by `make protos`."""
