"""A gRPC server's port."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.listening import AddressTaken

if TYPE_CHECKING:
    import grpc
    import grpc.aio


def bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> str:
    """Let `server` listen on host:port; return the same with the port that it took.

    Raises:
        AddressTaken: it cannot.
    """
    try:
        port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise AddressTaken(address) from error
    return f"{address.rpartition(':')[0]}:{port}"
