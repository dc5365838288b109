import inspect
import re
from typing import Any

import attrs
import pytest

from nxotp_async import ConfigurationError, Credentials, Language, OtpClient, RetryPolicy
from nxotp_async.settings import SETTINGS, Settings
from nxotp_async.signing import SANDBOX_CREDENTIALS
from nxotp_async.stores import store_from_url

ACCOUNT = {"access_key": "key", "access_secret": "secret", "appkey": "app"}


def resolve(environment: dict[str, str] | None = None, **arguments: Any) -> Settings:
    return Settings.resolve({**ACCOUNT, **arguments}, environment or {})


def test_the_defaults() -> None:
    settings = resolve()
    assert settings.url == "https://api2.nxcloud.com/api/wa/otp"
    assert (settings.timeout, settings.deadline) == (10.0, 30.0)
    assert (settings.max_concurrency, settings.rate_limit) == (64, None)
    assert (settings.business_phone, settings.dr_webhook) == (None, None)
    assert settings.language_code is Language.EN
    assert settings.retry == RetryPolicy()


def test_all_that_is_missing_is_named_with_its_variable() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.resolve({"access_key": "key", "access_secret": None}, {"NXOTP_APPKEY": ""})
    text = str(caught.value)
    for expected in ("access_secret=...", "NXOTP_ACCESS_SECRET", "appkey=...", "NXOTP_APPKEY"):
        assert expected in text
    assert "NXOTP_ACCESS_KEY" not in text


def test_every_setting_is_read_from_its_variable() -> None:
    settings = Settings.resolve(
        {},
        {
            "NXOTP_ACCESS_KEY": "key",
            "NXOTP_ACCESS_SECRET": "secret",
            "NXOTP_APPKEY": "app",
            "NXOTP_BASE_URL": "http://localhost:8099/",
            "NXOTP_BUSINESS_PHONE": "+999 555 00000",
            "NXOTP_DR_WEBHOOK": "https://example.com/status",
            "NXOTP_LANGUAGE_CODE": "pt-br",
            "NXOTP_MAX_CONCURRENCY": "8",
            "NXOTP_RATE_LIMIT": "12.5",
            "NXOTP_TIMEOUT": "3",
            "NXOTP_DEADLINE": "9",
            "NXOTP_KEEPALIVE_TIMEOUT": "5",
            "NXOTP_PROXY": "http://proxy.example:3128",
        },
    )
    assert settings.insecure_sandbox_host is None  # refused beside these keys; a test of its own is below
    assert settings.credentials.access_secret == "secret"
    assert settings.url == "http://localhost:8099/api/wa/otp"
    assert settings.business_phone == "99955500000"
    assert settings.dr_webhook == "https://example.com/status"
    assert settings.language_code is Language.PT_BR
    assert (settings.max_concurrency, settings.rate_limit) == (8, 12.5)
    assert (settings.timeout, settings.deadline, settings.keepalive_timeout) == (3.0, 9.0, 5.0)
    assert settings.proxy == "http://proxy.example:3128"


def test_every_setting_is_an_argument_of_the_client_and_is_told_of() -> None:
    signature = inspect.signature(OtpClient).parameters
    assert [*signature] == [*SETTINGS, "tracker", "on_attempt", "on_result"]
    assert {parameter.default for parameter in signature.values()} == {None}
    documented = inspect.getdoc(OtpClient) or ""  # Python 3.13 itself takes the common indent away
    assert re.findall(r"^    (\w+): ", documented, re.MULTILINE)[: len(signature)] == [*signature]


def test_what_a_view_may_change_are_the_arguments_of_with_options() -> None:
    _, *arguments = inspect.signature(OtpClient.with_options).parameters
    assert arguments == [name for name, setting in SETTINGS.items() if setting.in_views]


def test_a_view_changes_what_is_given_for_it_and_nothing_else() -> None:
    settings = resolve(timeout=3, business_phone="99955500000")
    changed = settings.replace({"timeout": 4, "deadline": None, "max_concurrency": 1, "self": "no setting"})
    assert changed == attrs.evolve(settings, timeout=4)
    with pytest.raises(ConfigurationError, match=r"^deadline \(or NXOTP_DEADLINE\) must be more than 0"):
        settings.replace({"deadline": 0})


def test_a_variable_named_like_a_setting_without_one_is_ignored() -> None:
    assert resolve({"NXOTP_RETRY": "1"}).retry == RetryPolicy()


def test_an_argument_wins_over_its_variable() -> None:
    assert resolve({"NXOTP_TIMEOUT": "3"}, timeout=4).timeout == 4.0


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("access_key", "", "is missing"),
        ("access_key", "key\n", "copied whole"),
        ("access_secret", 5, "must be a str"),
        ("appkey", "ключ", "printable ASCII"),
        ("base_url", "http://api2.nxcloud.com", "must be https"),
        ("base_url", "http://127.0.0.1.evil.example", "must be https"),
        *(
            ("insecure_sandbox_host", host, "name of a host without a scheme and a port")
            for host in (
                "http://sandbox",
                "sandbox:8099",
                "sandbox/x",
                "me@sandbox",
                "a b",
                "",
                " sandbox",
                "*",
                "[::1]",
            )
        ),
        ("insecure_sandbox_host", 5, "must be a str"),
        ("base_url", "ftp://api2.nxcloud.com", "plain https URL"),
        ("base_url", "api2.nxcloud.com", "plain https URL"),
        ("base_url", "https://user:password@api2.nxcloud.com", "plain https URL"),
        ("base_url", "https://api2.nxcloud.com/?a=1", "plain https URL"),
        ("base_url", "https://api2.nxcloud.com?", "plain https URL"),
        ("base_url", "https://api2.nxcloud.com#", "plain https URL"),
        ("base_url", " https://api2.nxcloud.com", "plain https URL"),
        ("base_url", "https://api2 nxcloud.com", "plain https URL"),
        ("base_url", "https://api2.nxcloud.com:99999", "plain https URL"),
        ("base_url", "https://api2.nxcloud.com:abc", "plain https URL"),
        ("base_url", 5, "plain https URL"),
        ("business_phone", "123", "7 to 15"),
        ("dr_webhook", "example.com", "absolute http or https URL"),
        ("language_code", "german", "did you mean de"),
        ("language_code", 5, "must be a str"),
        ("max_concurrency", 0, "1 at least"),
        ("max_concurrency", 2.5, "integer"),
        ("max_concurrency", True, "integer, not bool"),
        ("max_concurrency", "many", "must be a number"),
        ("rate_limit", 0, "must be 0.001 at least"),
        ("rate_limit", float("nan"), "must be 0.001 at least"),
        ("rate_limit", 1e-320, "0.001"),
        ("timeout", -1, "more than 0"),
        ("timeout", 10**400, "finite"),
        ("proxy", "bob:password@proxy:3128", "absolute http or https URL"),
        ("timeout", None.__class__, "must be a number"),
        ("deadline", float("inf"), "finite"),
    ],
)
def test_a_wrong_setting_is_named_with_its_variable(name: str, value: object, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        Settings.resolve({**ACCOUNT, name: value}, {})
    assert name in str(caught.value)
    assert f"NXOTP_{name.upper()}" in str(caught.value)


SANDBOX = attrs.asdict(SANDBOX_CREDENTIALS)


@pytest.mark.parametrize(
    ("base_url", "host"),
    [
        ("http://sandbox:8099", "sandbox"),
        ("http://Sandbox:8099/", "SANDBOX"),
        ("http://10.0.0.7", "10.0.0.7"),
        ("http://[fd00::7]:8099", "fd00::7"),
        ("http://127.0.0.1:8099", "sandbox"),
        ("https://sandbox", "sandbox"),
    ],
)
def test_plain_http_may_go_to_the_one_host_of_a_sandbox(base_url: str, host: str) -> None:
    assert Settings.resolve({**SANDBOX, "base_url": base_url, "insecure_sandbox_host": host}, {}).url
    variables = {"NXOTP_BASE_URL": base_url, "NXOTP_INSECURE_SANDBOX_HOST": host}
    assert Settings.resolve(SANDBOX, variables).insecure_sandbox_host == host.lower()


@pytest.mark.parametrize(
    "base_url", ["http://sandbox.example", "http://other", "http://sandbox@other", "http://xsandbox", "http://10.0.0.7"]
)
def test_plain_http_may_go_to_no_other_host(base_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"must be https|plain https URL"):
        Settings.resolve({**SANDBOX, "base_url": base_url, "insecure_sandbox_host": "sandbox"}, {})


def test_without_the_opt_in_the_sandboxs_keys_are_told_of_it() -> None:
    with pytest.raises(ConfigurationError, match=r"set NXOTP_INSECURE_SANDBOX_HOST=sandbox\)"):
        Settings.resolve({**SANDBOX, "base_url": "http://sandbox:8099"}, {})
    with pytest.raises(ConfigurationError) as caught:
        resolve(base_url="http://sandbox:8099")
    assert "INSECURE" not in str(caught.value)


@pytest.mark.parametrize("base_url", ["http://sandbox:8099", "https://api2.nxcloud.com", "http://127.0.0.1:8099"])
@pytest.mark.parametrize("name", ["access_key", "access_secret", "appkey"])
def test_an_accounts_keys_never_go_over_plain_http(base_url: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match="must not be set with an account's keys") as caught:
        Settings.resolve(
            {**SANDBOX, name: "s3cr3t-c4n4ry", "base_url": base_url}, {"NXOTP_INSECURE_SANDBOX_HOST": "sandbox"}
        )
    assert "NXOTP_INSECURE_SANDBOX_HOST" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("retry", "RetryPolicy"), ("session", "ClientSession"), ("clock", "Clock")],
)
def test_a_setting_without_a_variable_is_named_without_one(name: str, expected: str) -> None:
    wrong: dict[str, Any] = {name: 3}
    with pytest.raises(ConfigurationError, match=rf"^{name} must be a {expected}, not int$"):
        resolve(**wrong)


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://127.0.0.1", "http://127.8.9.10:1", "http://[::1]:1", "https://example.com/a/"]
)
def test_https_and_loopback_are_allowed(url: str) -> None:
    assert resolve(base_url=url).url == url.rstrip("/") + "/api/wa/otp"


def test_the_repr_shows_no_secret_and_no_number() -> None:
    settings = resolve(
        access_key="k3y",
        business_phone="99955500000",
        dr_webhook="https://example.com/t0ken",
        proxy="http://me:pass@a:1",
    )
    shown = repr(settings)
    for hidden in ("k3y", "secret", "99955500000", "t0ken", "pass"):
        assert hidden not in shown


@pytest.mark.parametrize("function", [OtpClient, Credentials.from_env, Settings.resolve, store_from_url])
def test_no_signature_shows_the_environment(function: Any) -> None:
    """Editors and ``help()`` show the defaults of arguments."""
    assert "environ(" not in str(inspect.signature(function))
