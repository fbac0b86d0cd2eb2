"""`inf-stream serve`: many sessions on one model, each with its own bounded cache, for clients on sockets."""
