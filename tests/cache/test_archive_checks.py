"""Archives that no stream could have."""

import pytest

from inf_stream.base.config import ArchiveSettings
from inf_stream.base.errors import ConfigError
from inf_stream.cache.archive.checks import check_archive
from inf_stream.cache.policies import make_policy


@pytest.mark.parametrize(
    ("archive", "policy", "message"),
    [
        (ArchiveSettings(disk_mib=9), "inf-mllm", "archive.disk_mib is 9, but archive.host_mib is 0"),
        (ArchiveSettings(host_mib=9), "full", "'full' forgets nothing that could be archived"),
    ],
)
def test_what_no_stream_could_have_is_refused(archive: ArchiveSettings, policy: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_archive(archive, make_policy(policy, {}))


@pytest.mark.parametrize("archive", [ArchiveSettings(), ArchiveSettings(host_mib=9), ArchiveSettings(9, 9)])
def test_what_one_could_have_is_not(archive: ArchiveSettings) -> None:
    check_archive(archive, make_policy("inf-mllm", {}))


def test_a_policy_that_forgets_nothing_needs_no_archive() -> None:
    check_archive(ArchiveSettings(), make_policy("full", {}))
