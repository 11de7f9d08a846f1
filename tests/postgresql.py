"""A real PostgreSQL server of the tests' own, from the package of the distribution."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time  # noqa: TID251 - waits for a real process
from itertools import count
from pathlib import Path

import psycopg
import pytest

PACKAGED = Path("/usr/lib/postgresql")  # Debian's; its commands are not on the path
USER, PASSWORD = "fedgate", "correct-horse"
PATIENCE_S = 60.0


def binaries() -> Path | None:
    """Return the folder of initdb and postgres, of the newest version that is installed."""
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    versions = [path for path in PACKAGED.glob("*/bin") if (path / "postgres").exists()]
    return max(versions, key=lambda path: float(path.parent.name), default=None)


class Server:
    """A server with a folder of its own: a Unix socket for all, a loopback port with password."""

    def __init__(self, *, fsync: bool = False) -> None:
        """Make an empty cluster; without fsync where no test kills it."""
        bin_folder = binaries()
        if bin_folder is None:
            pytest.skip("needs a PostgreSQL server: apt-get install postgresql")
        self.bin = bin_folder
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = count(1)
        self._as: list[str] = []
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            account = _account()
            # subprocess' own user= makes it fork, which kills a child while gRPC's threads run.
            ids = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
            self._as = ["setpriv", *ids]
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self.port = free_port()
        settings = {"fsync": "on", "full_page_writes": "on"} if fsync else _UNSAFE
        self._settings = {**settings, **_SMALL, "unix_socket_directories": str(self.folder)}
        self._initdb()

    def _initdb(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        options = ["--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync", "--locale=C"]
        self._call("initdb", "-U", USER, f"--pwfile={secret}", "--encoding=UTF8", *options)

    def _call(self, program: str, *arguments: str) -> None:
        command = [*self._as, self.bin / program, "-D", self.folder / "data", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=self.folder)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Return once it answers."""
        settings = [f"-c{name}={value}" for name, value in self._settings.items()]
        data = ["-D", self.folder / "data"]
        command = [*self._as, self.bin / "postgres", *data, "-p", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *settings], stdout=log, stderr=log, cwd=self.folder
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def stop(self) -> None:
        """End it, its clients' sessions too; what was committed is kept."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # PostgreSQL's "fast" shutdown
            self._process.wait(PATIENCE_S)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def make_database(self) -> str:
        """Make an empty database; return its name."""
        name = f"test_{next(self._databases)}"
        with self._connect("postgres") as connection:
            connection.execute(f"create database {name}")
        return name

    def url(self, name: str) -> str:
        """Return the URL of a database by the Unix socket, which asks for no password."""
        return f"postgresql+psycopg://{USER}@/{name}?host={self.folder}&port={self.port}"

    def tcp_url(self, name: str, password: str = PASSWORD) -> str:
        """Return the URL of a database by the loopback port."""
        return f"postgresql+psycopg://{USER}:{password}@127.0.0.1:{self.port}/{name}"

    def ask(self, name: str, question: str) -> list[tuple]:
        """Return the rows that a database answers with."""
        with self._connect(name) as connection:
            return connection.execute(question).fetchall()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def _connect(self, name: str) -> psycopg.Connection:
        return psycopg.connect(
            dbname=name, user=USER, host=str(self.folder), port=self.port, autocommit=True
        )

    def _answers(self) -> bool:
        try:
            self._connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True


_UNSAFE = {"fsync": "off", "full_page_writes": "off"}
_SMALL = {"listen_addresses": "127.0.0.1", "shared_buffers": "16MB", "max_connections": "60"}


def _account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("needs a user that PostgreSQL runs as: postgres or nobody")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
