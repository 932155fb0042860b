"""Train and evaluate cross-lingual sentence encoders. Imports `embedsvc` and `indexing`, never the server."""

import os

# Before torch allocates anything: large tensors in huge pages, as those of numpy. Rows of a table are
# gathered into new tensors in every step, and bringing in small pages takes a third of that step's time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
