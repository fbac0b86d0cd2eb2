"""What every room shares: errors, events, stream time, token tags, shapes, configuration."""
