"""What type checkers see of `sms`. Nothing here is ever run."""

from typing import assert_type

from nxotp_async import OtpClient, OtpMessage, SendResult
from nxotp_async.results import Outcome
from nxotp_async.signing import Credentials
from nxotp_async.sms import SMS_PATH, SmsFallback, decode_sms, encode_sms, sms_headers
from nxotp_async.stores import Store
from nxotp_async.verification import Verifier


async def a_fallback(client: OtpClient, store: Store, message: OtpMessage) -> None:
    sms = SmsFallback(client, appkey="key", text="{code}", source_address="EXAMPLE", rate_limit=5)
    assert_type(await SmsFallback(client)(message), SendResult)
    Verifier(client, store=store, countries="any", fallback=sms, fallback_after=20)


def the_protocol(message: OtpMessage, credentials: Credentials) -> None:
    SMS_PATH.encode()
    assert_type(encode_sms(message, "key", "{code}", None), bytes)
    assert_type(sms_headers(b"{}", ts=1, credentials=credentials), dict[str, str])
    assert_type(decode_sms(200, {}, b"{}", hide=("482913",)), Outcome)
