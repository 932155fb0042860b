"""Collections of documents: SQLite is the truth, the FAISS index is derived from it and can be lost."""
