"""The `tinyalex` command, which is also `python -m tinyalex`."""

import io
import os
import signal
import sys


def main() -> int:
    """`tinyalex.cli.parser.main`, and no traceback whenever Ctrl-C comes.

    Each line is written when it is complete; letters of a file's name that the terminal does not
    have are written as escapes.
    """
    try:
        from tinyalex.ranks.launch import die_of_interrupts

        die_of_interrupts()
        _open_streams()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace", line_buffering=True)
        from tinyalex.cli import parser

        code = parser.main()
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is done
        return code
    except KeyboardInterrupt:
        return 130


def _open_streams() -> None:
    """Give a process that was begun without some of the three standard streams empty ones.

    Else the next file that it opens would take the place, and get what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


if __name__ == "__main__":
    sys.exit(main())
