"""``python -m nxotp_async`` and the ``nxotp`` command."""

import os
import signal
import sys


def main() -> None:
    """Run the command line; say what to install where its extra is missing."""
    _open_closed_streams()  # before the imports: rich looks at standard error then
    try:
        import click  # noqa: PLC0415 - the extra may not be installed

        from .cli import nxotp  # noqa: PLC0415
        from .cli.exit_codes import ExitCode  # noqa: PLC0415
        from .cli.output import print_data  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f'{error.name} is not installed: the command line needs  pip install "nxotp_async[cli]"')
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C; an event loop has handlers of its own
    try:
        nxotp.main(prog_name="nxotp", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:  # Ctrl-C at a prompt
        sys.exit(ExitCode.INTERRUPTED)
    except OSError:
        if print_data(""):  # standard output can be written: click did not fail to print a help text or the version
            raise
        sys.exit(ExitCode.USAGE)


def _open_closed_streams() -> None:
    """Put the null device in the place of each standard stream that was closed when this process began.

    Under its own number: otherwise the next file or socket would get it, and a child process would write into that.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - a number, for as long as it runs


if __name__ == "__main__":
    main()
