"""What is asked about URLs."""

import pytest
from yarl import URL

from nxotp_async.checks import InvalidValueError
from nxotp_async.urls import (
    host_and_port,
    is_http_url,
    is_loopback,
    listening_url,
    mask_proxy,
    mask_url,
    parse_url,
    plain_http_host,
)


@pytest.mark.parametrize(
    "url",
    ["https://example.com", "HTTP://EXAMPLE.COM:8080/a?b#c", "http://[::1]:8099", "https://me:pass@bücher.example/"],
)
def test_http_urls(url: str) -> None:
    assert is_http_url(url)


@pytest.mark.parametrize(
    "text",
    ["", "example.com", "//example.com/", "ftp://example.com", "https://", "https://:443/", "https://example.com:0"],
)
def test_other_schemes_and_hosts_are_no_http_urls(text: str) -> None:
    assert not is_http_url(text)


@pytest.mark.parametrize(
    "text", ["https://a:65536", "https://[::1/", "https://[::1]x/", "https://a b/", "https://a/\n", "https://a\\@b/"]
)
def test_what_cannot_be_parsed_is_no_http_url(text: str) -> None:
    assert not is_http_url(text)


def test_a_url_is_checked_and_kept_as_it_is() -> None:
    assert parse_url("HTTPS://EXAMPLE.COM/") == "HTTPS://EXAMPLE.COM/"
    for value in ("example.com", 8080, None):
        with pytest.raises(InvalidValueError, match="must be an absolute http or https URL"):
            parse_url(value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_this_machine_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "192.168.0.1", "::2", "127.0.0.1.example", "localhost.example", "127.1"]
)
def test_nothing_else_is_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://sandbox:8099/a", "sandbox"),
        ("http://10.0.0.7", "10.0.0.7"),
        ("http://127.0.0.1:8099", None),
        ("http://[::1]", None),
        ("https://sandbox", None),
        ("nonsense", None),
        ("http://[", None),
    ],
)
def test_plain_http_that_leaves_this_machine_is_known(url: str, host: str | None) -> None:
    assert plain_http_host(url) == host


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("192.0.2.1", "http://192.0.2.1:80"),
        ("a.example", "http://a.example:80"),
    ],
)
def test_what_listens_on_all_addresses_is_reached_on_loopback(host: str, url: str) -> None:
    assert listening_url(host, 80) == url


@pytest.mark.parametrize(
    ("host", "text"), [("::1", "[::1]:80"), ("127.0.0.1", "127.0.0.1:80"), ("a.example", "a.example:80")]
)
def test_an_ipv6_address_has_brackets_before_a_port(host: str, text: str) -> None:
    assert host_and_port(host, 80) == text
    assert URL(f"http://{text}").host == host


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com/", "https://example.com"),
        ("https://example.com:8443/hook/TOKEN", "https://example.com:8443/..."),
        ("https://user:PASSWORD@example.com", "https://example.com"),
        ("https://example.com?TOKEN", "https://example.com/..."),
        ("https://example.com#TOKEN", "https://example.com/..."),
        ("http://user:PASSWORD@[::1]:8080/a?b#c", "http://[::1]:8080/..."),
    ],
)
def test_a_masked_url_shows_where_it_leads_only(url: str, shown: str) -> None:
    assert mask_url(url) == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("http://user:PASSWORD@proxy.example:3128/", "http://proxy.example:3128, with a user name"),
    ],
)
def test_a_masked_proxy_tells_whether_it_has_a_user_name(url: str, shown: str) -> None:
    assert mask_proxy(url) == shown
