"""Archives that no stream could have, told before there is one."""

from inf_stream.base.config import ArchiveSettings
from inf_stream.base.errors import ConfigError
from inf_stream.cache.policies.base import Policy


def check_archive(archive: ArchiveSettings, policy: Policy) -> None:
    """Refuse an archive that no stream could have.

    Raises:
        ConfigError: a disk without memory in front of it, or a policy that forgets nothing.
    """
    if archive.disk_mib and not archive.host_mib:
        raise ConfigError(
            f"archive.disk_mib is {archive.disk_mib}, but archive.host_mib is 0; blocks go through memory to the "
            "disk: give the former some too (--archive MIB)"
        )
    if archive.host_mib and not policy.bounded:
        raise ConfigError(
            f"archive.host_mib is {archive.host_mib}, but '{policy.name}' forgets nothing that could be archived; "
            "leave out one of the two"
        )
