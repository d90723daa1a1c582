"""Tables, figures and pages of a run: pure functions of its records, without torch."""

from mibench.report.table import Comparison, comparison
from mibench.report.tiles import remove_cell_images, save_cell_images
from mibench.report.write import write_all, write_grids, write_plots, write_site, write_tables

__all__ = [
    "Comparison",
    "comparison",
    "remove_cell_images",
    "save_cell_images",
    "write_all",
    "write_grids",
    "write_plots",
    "write_site",
    "write_tables",
]
