"""The outbox that the commands work with."""

from typing import TYPE_CHECKING, Any

import click

from ...errors import ConfigurationError

if TYPE_CHECKING:
    from ...fleet import Outbox

__all__ = ["outbox_of", "sender_option"]

sender_option = click.option(
    "--sender", default="default", help="Whose messages: the name that the application gives to its Outbox."
)


def outbox_of(sender: str = "default", **options: Any) -> "Outbox":  # noqa: ANN401 - those of Outbox
    """Return the outbox that the environment names, with these options.

    Raises:
        ConfigurationError: A variable is missing or wrong, or the extra is not installed.
    """
    try:
        from ...fleet import Outbox  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        hint = 'pip install "nxotp_async[fleet]"'
        raise ConfigurationError(f"{error.name} is not installed: a fleet needs it", hint=hint) from None
    return Outbox(sender=sender, **options)
