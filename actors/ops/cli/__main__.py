"""`python -m perdure.actors.ops.cli`, where the installed command is not at hand."""

from . import main

main()
