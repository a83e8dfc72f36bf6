"""The `tinyalex` command, which is also `python -m tinyalex`."""

import sys


def main() -> int:
    """`tinyalex.cli.main`, and no traceback if Ctrl-C comes while it is being loaded."""
    try:
        from tinyalex import cli
    except KeyboardInterrupt:
        return 130
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
