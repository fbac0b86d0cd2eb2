"""The size-bounded key/value cache: slots and positions (integers), planes (tensors), policies (choices)."""
