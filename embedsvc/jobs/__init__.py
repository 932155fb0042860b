"""Long work for HTTP clients: each job in a process of its own, at low priority, resumed after a restart."""
