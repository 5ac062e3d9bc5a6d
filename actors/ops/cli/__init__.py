"""The command line: `perdure`. It works on a store while a host runs and while none does, and needs no code of the user's."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; ends the process with status 0, 1 for trouble, or 2 for a mistake in the call."""
    from importlib.util import find_spec

    missing = [name for name in ("typer", "rich", "jsonschema") if find_spec(name) is None]
    if missing:
        sys.stderr.write(f'perdure: {" and ".join(missing)} missing. The command line is an extra: pip install "perdure[cli]"\n')
        sys.exit(1)
    from ._app import app  # here, since it needs them

    app(prog_name="perdure")
