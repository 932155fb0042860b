import faiss
import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small k-means on many threads takes longer, and much longer beside other work."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)
