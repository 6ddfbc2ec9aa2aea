"""``python -m mmgen``."""

from mmgen.cli import main

main()
