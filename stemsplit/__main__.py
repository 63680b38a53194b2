"""The program, as `stemsplit` and as `python -m stemsplit`: signals are handled before anything else is imported."""

import sys

from stemsplit.signals import Stopped, raise_on_signals


def main() -> None:
    """Run the program. A signal ends it with one line, at any time."""
    raise_on_signals()
    try:
        from stemsplit.cli.main import main as run

        run()
    except Stopped as stop:
        lines = [f"stemsplit: stopped by {stop.name}", *([f"hint: {stop.hint}"] if stop.hint else [])]
        print(*lines, sep="\n", file=sys.stderr)
        sys.exit(stop.exit_code)


if __name__ == "__main__":
    main()
