"""Something that answers as the vendor does, quickly enough to leave the client as what is measured."""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

CLIENT_CORE, SERVER_CORE = 0, 1

# Each message gets an id of its own: an answer with another message's id is unknown.
_ANSWER = (
    '{"code":0,"data":{"messaging_product":"whatsapp","messages":[{"id":"$request_id"}]},'
    '"message":"Request successful"}'
)
_CONFIGURATION = """
daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
    access_log off; keepalive_requests 1000000000; default_type application/json;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server { listen 127.0.0.1:PORT; location / { return 200 'ANSWER'; } }
}
"""


def pin(core: int) -> None:
    """Keep this process, and those it will start, to one core, where the machine has that many and lets it."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > core:
        os.sched_setaffinity(0, {core})


def peak_kib() -> int:
    """Return this process's peak resident memory; getrusage would count that of the one which started it as well."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def add_server_option(parser: argparse.ArgumentParser) -> None:
    """Let the command line choose what answers."""
    parser.add_argument(
        "--server",
        choices=["nginx", "sandbox"],
        default="nginx" if _nginx_program() else "sandbox",
        help="what answers: nginx, which is quicker than any client here, or the sandbox (default here: %(default)s)",
    )


def _nginx_program() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@contextmanager
def server(kind: str) -> Iterator[str]:
    """Run nginx, or the sandbox, in a process of its own, and yield its URL."""
    with _nginx() if kind == "nginx" else _sandbox() as url:
        yield url


@contextmanager
def _nginx() -> Iterator[str]:
    program = _nginx_program()
    if program is None:
        sys.exit("nginx is not installed: apt-get install nginx-light, or --server sandbox")
    with tempfile.TemporaryDirectory() as directory:
        configuration = Path(directory, "nginx.conf")
        port = _free_port()
        configuration.write_text(_CONFIGURATION.replace("PORT", str(port)).replace("ANSWER", _ANSWER))
        process = subprocess.Popen([program, "-p", directory, "-c", str(configuration)])
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_for(url)
            yield url
        finally:
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def _wait_for(url: str) -> None:
    for _ in range(50):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("nginx does not answer")


@contextmanager
def _sandbox() -> Iterator[str]:
    arguments = ["-m", "nxotp_async", "sandbox", "--port", "0", "--until-eof", "--json"]
    with subprocess.Popen([sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield orjson.loads(process.stdout.readline())["url"]
        process.stdin.close()


def write_messages(path: Path, count: int) -> None:
    """Write a file of messages."""
    with path.open("w") as file:
        file.write("to,content,name\n")
        for number in range(count):
            file.write(f"9995{number:07},Your code is {number % 1_000_000:06},name {number}\n")
