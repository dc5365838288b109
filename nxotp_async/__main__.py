"""``python -m nxotp_async`` and the ``nxotp`` command."""

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command line; say what to install where its extra is missing."""
    try:
        import click  # noqa: PLC0415 - the extra may not be installed

        from .cli import nxotp  # noqa: PLC0415
        from .cli.common import EXIT_INTERRUPTED  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f'{error.name} is not installed: the command line needs  pip install "nxotp_async[cli]"')
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was closed when this process began
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for as long as it runs
    try:
        nxotp.main(prog_name="nxotp", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:  # Ctrl-C at a prompt
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
