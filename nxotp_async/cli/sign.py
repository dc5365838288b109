"""``nxotp sign``."""

import os
import re
import shlex
import time
from typing import Final

import click

from .. import signing
from ..protocol import OTP_PATH
from ..settings import DEFAULT_BASE_URL
from ..signing import Credentials
from .account import ask_credentials
from .output import print_data, print_json, print_note, printable
from .parameters import base_url_option, json_option

__all__ = ["command"]


@click.command("sign")
@click.argument("body", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--ts", type=click.IntRange(min=0), help="Milliseconds since the epoch. Default: now.")
@click.option("--action", default="mt", help="The action header.")
@click.option("--biz-type", default="2", help="The bizType header.")
@base_url_option
@click.option("--reveal", is_flag=True, help="Show the body's digits too: the number and the live code.")
@json_option(help="Print everything as JSON.")
def command(
    body: str, ts: int | None, action: str, biz_type: str, base_url: str | None, reveal: bool, as_json: bool
) -> None:
    """Sign the exact bytes of the file BODY (- is standard input), to debug the vendor's code 1003.

    Prints the text that is signed, with the access secret masked and the body's digits starred; the sign; and a
    curl line that sends that body with it. The sign is good for 60 seconds.
    """
    with click.open_file(body, "rb") as file:
        raw = file.read()
    account = ask_credentials(appkey=False)
    ts = int(time.time() * 1000) if ts is None else ts
    signature = signing.sign(raw, ts=ts, credentials=account, action=action, biz_type=biz_type)
    masked = Credentials(account.access_key, "***")
    shown = _shown(raw, reveal=reveal).encode()
    text = signing.signed_text(shown, ts=ts, credentials=masked, action=action, biz_type=biz_type).decode()
    headers = {
        "accessKey": account.access_key,
        "ts": str(ts),
        "bizType": biz_type,
        "action": action,
        "sign": signature,
        "Content-Type": "application/json",
    }
    url = (base_url or os.environ.get("NXOTP_BASE_URL") or DEFAULT_BASE_URL).rstrip("/") + OTP_PATH
    curl = shlex.join(
        ["curl", url, "--data-binary", f"@{body}"]
        + [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    )
    if raw.endswith(b"\n"):
        print_note("note: the body ends with a newline, which is signed and must be sent, like any other byte")
    if as_json:
        print_json({"signed_text": text, "sign": signature, "ts": ts, "headers": headers, "curl": curl})
    else:
        print_data(f"signed text: {text}\nsign: {signature}\n{curl}")


_DIGITS: Final = re.compile(r"\d(?:[ ().-]{0,2}\d){3,}")


def _shown(body: bytes, *, reveal: bool) -> str:
    """Return the body as one line of text, with control characters escaped, and digits starred unless revealed."""
    text = body.decode(errors="replace")
    if not reveal:
        text = _DIGITS.sub(lambda run: re.sub(r"\d", "*", run.group()), text)
    return printable(text)
