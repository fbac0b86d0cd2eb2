"""What lies between a protocol and a socket: what the client is told, whether it is connected or not."""
