"""The program's way in: Ctrl-C ends it cleanly from here on, while everything else is still being loaded."""

import sys


def main() -> int:
    """Run the command line; returns the exit status (see `inf_stream.cli.main.main`)."""
    try:
        from inf_stream.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
