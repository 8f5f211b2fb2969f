"""Published tables, measured again: what each cell needs, running it, and what came out."""

from mmclipdis.apis.reproduction.cells import Cell, Row, Table
from mmclipdis.apis.reproduction.tables import find_table, tables

__all__ = ["Cell", "Row", "Table", "find_table", "tables"]
