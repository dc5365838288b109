from nxotp_async import OtpClient, SendStatus
from nxotp_async.sandbox import Sandbox


async def test_a_message_arrives_and_is_paired(client: OtpClient, sandbox: Sandbox) -> None:
    result = await client.send_otp("+999 555 0100", "Your code is 004213", language_code="pt-BR")
    (received,) = sandbox.messages
    assert result.status is SendStatus.ACCEPTED
    assert result.message_id == received.message_id
    assert (received.to, received.otp) == ("9995550100", "004213")
    assert received.fields["language_code"] == "pt_BR"
