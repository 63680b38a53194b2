"""`python -m stemsplit`."""

from stemsplit.cli.main import main

main()
