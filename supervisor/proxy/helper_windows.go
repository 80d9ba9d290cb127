package proxy

// Helper returns at once: on Windows, sockets can't be passed to a helper yet.
func Helper() {}
