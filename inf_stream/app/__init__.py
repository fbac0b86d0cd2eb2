"""What each command does: the only place where sources, sessions and engines are put together."""
