"""How a program beside ``./lab`` ends: a maintainer's command, a benchmark."""

from __future__ import annotations

import sys

import click

from hoplab.core.errors import LabError


def main(command: click.Command) -> None:
    """Run the command of a program beside ``./lab``; show a LabError as `./lab` does."""
    try:
        code = command.main(standalone_mode=False)
    except LabError as error:
        print(f"error: {error.whole()}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
