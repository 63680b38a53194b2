"""`python -m stemsplit`."""

from stemsplit.cli import main

main()
