"""One file per runtime; `embedsvc.encoder.load_encoder` is the only place that imports them."""
