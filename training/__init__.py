"""Train and evaluate cross-lingual sentence encoders. Imports `embedsvc` and `indexing`, never the server."""
