"""One router per group of routes; `embedsvc.server.app` includes them."""
