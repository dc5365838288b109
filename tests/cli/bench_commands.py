"""Running ``nxotp bench`` in tests."""

from pathlib import Path

from click.testing import Result
from commands import OTP, Env, invoke

from nxotp_async.sandbox import Sandbox

REAL = "https://api2.nxcloud.com"
ACCOUNT = {"NXOTP_ACCESS_KEY": "key", "NXOTP_ACCESS_SECRET": "s3cr3t-c4n4ry", "NXOTP_APPKEY": "appkey"}
NUMBERS = ("999555017342", "999555017343")


def write_recipients(*further: str) -> str:
    rows = [*(f"{number},Your code is {OTP},en," for number in NUMBERS), *further]
    Path("people.csv").write_text("\n".join(["to,content,language_code,category", *rows, ""]), encoding="utf-8")
    return "people.csv"


def bench(*arguments: str, env: Env | None = None) -> Result:
    result = invoke("bench", *arguments, env=env)
    assert ACCOUNT["NXOTP_ACCESS_SECRET"] not in result.output
    return result


def load(sandbox: Sandbox, *arguments: str, env: Env | None = None) -> Result:
    """Load the sandbox with a few messages, without a warm-up."""
    return bench("--base-url", sandbox.url, "--warm-up", "0", *arguments, env=env)


def assert_clean_file(name: str) -> str:
    text = Path(name).read_text(encoding="utf-8")
    assert not [hidden for hidden in (OTP, ACCOUNT["NXOTP_ACCESS_SECRET"], "999555") if hidden in text]
    return text
