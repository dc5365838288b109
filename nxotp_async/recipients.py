"""Lists of recipients, for the demonstration and the benchmark."""

from pathlib import Path

from .bulk.files import FileFormat, open_messages
from .errors import InputFileError
from .messages import OtpMessage

__all__ = ["default_recipients", "read_recipients"]


def default_recipients() -> Path:
    """Return the file of made-up recipients that comes with the package, or with a checkout of the project."""
    package = Path(__file__).parent
    installed = package / "recipients.csv"
    return installed if installed.exists() else package.parent / "examples" / "recipients.csv"


def read_recipients(path: Path) -> list[OtpMessage]:
    """Read messages from a CSV file with the columns to, content, language_code and category; others are ignored.

    Raises:
        InputFileError: The file cannot be read, or a row is not a valid message; the text names the line.
    """
    messages = []
    with open_messages(str(path), FileFormat.CSV) as file:
        for row in file:
            message = row.message
            if message is None:
                raise InputFileError(f"{file.name}, line {row.line}: {row.problem}", line=row.line)
            # Each message may be sent several times, so that an id of its own would be refused.
            messages.append(
                OtpMessage(message.to, message.content, language_code=message.language_code, category=message.category)
            )
    if not messages:
        raise InputFileError(f"{file.name} holds no recipients")
    return messages
