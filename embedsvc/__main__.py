"""`python -m embedsvc` is the `embedsvc` command."""

from embedsvc.cli import main

main()
