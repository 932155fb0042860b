"""One file per runtime; `embedsvc.runtime.open_runtime` is the only place that imports them."""
