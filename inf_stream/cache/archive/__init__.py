"""What the cache evicts and what comes back of it for a question."""

from inf_stream.cache.archive.archive import Archive, ArchiveSizes
from inf_stream.cache.archive.recall import Recall

__all__ = ["Archive", "ArchiveSizes", "Recall"]
