"""The run-time type checker of the test suite."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""beartype, where an int will do for a float, as for every static checker."""
