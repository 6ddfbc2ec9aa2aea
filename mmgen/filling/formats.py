"""Fills a table of either format."""

from pathlib import Path

from mmgen.errors import ConfigError
from mmgen.filling.csv import fill_csv
from mmgen.filling.tables import Report, Request
from mmgen.registry.loading import Registry
from mmgen.run import Run
from mmgen.tabular import parquet


def fill_table(run: Run, registry: Registry, request: Request) -> Report:
    """Fills a table, CSV or Parquet by the suffix of its name, whole or not at all.

    Raises:
        MmgenError: As :func:`mmgen.filling.csv.fill_csv`.
    """
    check_formats(request.table, request.out)
    if parquet.is_parquet(request.table):
        from mmgen.filling.parquet import fill_parquet

        return fill_parquet(run, registry, request)
    return fill_csv(run, registry, request)


def check_formats(table: Path, out: Path) -> None:
    """Checks that both files are of one format, and can be read and written here.

    Raises:
        ConfigError: If not.
    """
    if parquet.is_parquet(table) != parquet.is_parquet(out):
        raise ConfigError(
            f"--out {out}: a table is written in the format that it was read in, {table.suffix}: "
            "what was there is kept as it is"
        )
    if parquet.is_parquet(table):
        parquet.check_installed(table)
