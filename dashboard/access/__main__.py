"""``python -m slimfed.dashboard.access FILE NAME``: add somebody to a password file."""

import argparse
import getpass
import sys
from collections.abc import Sequence
from pathlib import Path

from slimfed.dashboard.access.users import AccessError, write_user


def main(arguments: Sequence[str] | None = None) -> int:
    """Add somebody to a password file; the password is read from the terminal, or from standard input."""
    parser = argparse.ArgumentParser(prog="python -m slimfed.dashboard.access", description=main.__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("name")
    parser.add_argument("--operator", action="store_true", help="may start, stop and resume runs")
    given = parser.parse_args(arguments)
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    try:
        write_user(given.file, given.name, "operator" if given.operator else "viewer", password)
    except (AccessError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
