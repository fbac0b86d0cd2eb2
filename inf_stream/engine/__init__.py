"""Synchronous: frames, text and questions become cache entries and tokens, one bounded step a call."""
