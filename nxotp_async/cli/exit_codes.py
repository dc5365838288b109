"""The exit codes of the command, and the paragraph of a help text that lists them."""

from enum import IntEnum

from .. import errors

__all__ = ["ExitCode", "exit_codes"]


class ExitCode(IntEnum):
    """The exit codes that commands end with."""

    SUCCESS = 0
    FAILURE = 1
    USAGE = 2
    CONFIGURATION = 3
    AWAY = 4
    UNKNOWN = 6
    INTERRUPTED = 130

    @classmethod
    def of(cls, error: errors.NxOtpError) -> "ExitCode":
        """Return the exit code for an error."""
        match error:
            case errors.InvalidMessageError() | errors.InputFileError():
                return cls.USAGE
            case errors.ConfigurationError() | errors.LedgerError():
                return cls.CONFIGURATION
            case errors.AccountError() | errors.AuthenticationError():
                return cls.CONFIGURATION
            case errors.OutcomeUnknownError():
                return cls.UNKNOWN
        return cls.FAILURE

    @classmethod
    def of_pause(cls, error: errors.NxOtpError) -> "ExitCode":
        """Return the exit code of a bulk run that was paused: whether to mend something, or to try again later."""
        match error:
            case errors.NotSentError() if not error.temporary:  # its certificate is wrong
                return cls.CONFIGURATION
            case errors.TransportError() | errors.StoreError() | errors.TransientApiError():
                return cls.AWAY
            case errors.ApiError(code=None):  # something in between has answered
                return cls.AWAY
        return cls.CONFIGURATION


def exit_codes(
    *,
    success: str = "accepted",
    failure: str | None = "rejected, or not sent",
    usage: str = "wrong usage, message or file",
    configuration: str = "configuration, account or ledger",
    away: str | None = None,
    unknown: str | None = "unknown: it may have been accepted",
    interrupted: str = "interrupted",
) -> str:
    """Return the paragraph that lists the exit codes, for the end of a command's help."""
    meanings = zip(ExitCode, (success, failure, usage, configuration, away, unknown, interrupted), strict=True)
    return "\n".join(["\b\nExit codes:", *(f"  {code:<4} {meaning}" for code, meaning in meanings if meaning)])
