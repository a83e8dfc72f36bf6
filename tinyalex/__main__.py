"""The `tinyalex` command, which is also `python -m tinyalex`."""

import io
import sys


def main() -> int:
    """`tinyalex.cli.parser.main`, and no traceback if Ctrl-C comes while it is being loaded.

    Letters of a file's name that the terminal does not have are written as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        from tinyalex.cli import parser
    except KeyboardInterrupt:
        return 130
    return parser.main()


if __name__ == "__main__":
    sys.exit(main())
