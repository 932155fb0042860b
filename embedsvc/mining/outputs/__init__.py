"""Files of scored pairs: TSV, JSON Lines, Parquet, Moses, TMX and XLIFF."""

from embedsvc.mining.outputs.info import OutputInfo
from embedsvc.mining.outputs.kinds import OUTPUT_FORMATS, OutputFormat, output_kind
from embedsvc.mining.outputs.read import read_pairs
from embedsvc.mining.outputs.write import check_output, output_files, write_pairs

__all__ = [
    "OUTPUT_FORMATS",
    "OutputFormat",
    "OutputInfo",
    "check_output",
    "output_files",
    "output_kind",
    "read_pairs",
    "write_pairs",
]
