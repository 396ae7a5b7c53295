"""``python -m receiver`` is ``dc09-receiver``."""

from receiver.cli import main

main()
