"""`python -m latchgate_server` is `latchgate`."""

from latchgate_server.cli import main

main()
