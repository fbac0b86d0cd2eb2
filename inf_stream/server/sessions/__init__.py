"""Streams on one model: engines, fair turns on their thread, promised memory; no protocol, no socket."""
