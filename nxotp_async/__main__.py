"""``python -m nxotp_async`` and the ``nxotp`` command."""

import sys


def main() -> None:
    """Run the command line; say what to install where its extra is missing."""
    try:
        from .cli import nxotp  # noqa: PLC0415 - the extra may not be installed
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f'{error.name} is not installed: the command line needs  pip install "nxotp_async[cli]"')
    nxotp(prog_name="nxotp")


if __name__ == "__main__":
    main()
