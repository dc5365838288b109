"""Something that answers as the vendor does, quickly enough to leave the client as what is measured."""

import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from nxotp_async import OtpClient
from nxotp_async.sandbox import SANDBOX_CREDENTIALS

_PORT = 18099
_ANSWER = '{"code":0,"data":{"messaging_product":"whatsapp","messages":[{"id":"m"}]},"message":"Request successful"}'
_CONFIGURATION = f"""
daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000; default_type application/json;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{ listen 127.0.0.1:{_PORT}; location / {{ return 200 '{_ANSWER}'; }} }}
}}
"""


@contextmanager
def server(kind: str) -> Iterator[str]:
    """Run nginx, or the sandbox, in a process of its own, and yield its URL."""
    with _nginx() if kind == "nginx" else _sandbox() as url:
        yield url


@contextmanager
def _nginx() -> Iterator[str]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        sys.exit("nginx is not installed: apt-get install nginx-light, or --server sandbox")
    with tempfile.TemporaryDirectory() as directory:
        configuration = Path(directory, "nginx.conf")
        configuration.write_text(_CONFIGURATION)
        process = subprocess.Popen([program, "-p", directory, "-c", str(configuration)])
        url = f"http://127.0.0.1:{_PORT}"
        try:
            _wait_for(url)
            yield url
        finally:
            process.terminate()
            process.wait()


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


def new_client(url: str, concurrency: int) -> OtpClient:
    """Return a client of whatever answers at the URL."""
    keys = SANDBOX_CREDENTIALS
    return OtpClient(
        access_key=keys.access_key,
        access_secret=keys.access_secret,
        appkey=keys.appkey,
        base_url=url,
        max_concurrency=concurrency,
    )


def write_messages(path: Path, count: int) -> None:
    """Write a file of messages."""
    with path.open("w") as file:
        file.write("to,content,name\n")
        for number in range(count):
            file.write(f"9995{number:07},Your code is {number % 1_000_000:06},name {number}\n")
