"""What can be refused of a server before torch is loaded."""

from inf_stream.app.model_names import check_model, with_model
from inf_stream.base.config import Settings
from inf_stream.server.protocols.image_urls import AllowedAddresses
from inf_stream.server.web.access import read_keys, read_origins, require_safe_place
from inf_stream.server.web.listening import require_free
from inf_stream.server.web.tls import tls_context


def refuse_early(settings: Settings) -> None:
    """Refuse keys, origins, a certificate, addresses or a model that a server cannot have.

    Raises:
        ConfigError, ModelError: naming the setting and the remedy.
    """
    require_safe_place(settings.server, has_keys=bool(read_keys(settings.server)))
    read_origins(settings.server)
    tls_context(settings.server)
    AllowedAddresses.from_settings(settings.server)
    require_free(settings.server.host, settings.server.port)
    check_model(with_model(settings, sees=True).model.name, sees=True)
