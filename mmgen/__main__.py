"""The start of the process: ``python -m mmgen``, and the script ``mmgen``."""

from mmgen import stopping
from mmgen.cli import streams


def main() -> None:
    """Runs the command line, ready for Ctrl-C before the first library is imported."""
    stopping.handle(stopping.leave)
    streams.outlast()
    from mmgen.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
