"""Settings that can be refused without the model."""

from inf_stream.base.config import Settings
from inf_stream.cache.archive.checks import check_archive
from inf_stream.cache.policies import make_policy
from inf_stream.models.weights.placement import machine_facts, resolve_device, resolve_dtype


def check_settings(settings: Settings) -> None:
    """Refuse a policy or its options, an archive, or a device or number format that this machine does not have.

    Raises:
        ConfigError, ModelError: naming the setting and the remedy.
    """
    check_archive(settings.archive, make_policy(settings.cache.policy, settings.policy))
    facts = machine_facts()
    resolve_dtype(settings.model.dtype, resolve_device(settings.model.device, facts), facts)
