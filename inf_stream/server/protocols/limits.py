"""What a server allows of each client, whatever its protocol."""

from dataclasses import dataclass, field

from inf_stream.base.config import Settings
from inf_stream.server.protocols.image_urls import AllowedAddresses
from inf_stream.server.protocols.watches import WatchLimits
from inf_stream.server.sessions.engines import EngineMaker


@dataclass(frozen=True)
class ClientLimits:
    """What a server allows of a session.

    Attributes:
        model: name of the model, whatever the client calls it.
        instructions: of a session that gives none.
        budget_tokens: of the cache, at most and by default.
        answer_tokens: of an answer, at most.
        text_characters: of one question or instruction.
        message_bytes: of one image.
        watches: of the session.
        sees: whether frames can be taken in.
        addresses: from which images may be fetched.
    """

    model: str
    instructions: str
    budget_tokens: int
    answer_tokens: int
    text_characters: int
    message_bytes: int
    watches: WatchLimits
    sees: bool = True
    addresses: AllowedAddresses = field(default_factory=AllowedAddresses)

    @classmethod
    def from_settings(cls, settings: Settings, maker: EngineMaker) -> "ClientLimits":
        """As the settings and the model have them.

        Raises:
            ConfigError: addresses that cannot be allowed.
        """
        server = settings.server
        return cls(
            model=maker.name,
            instructions=maker.instructions,
            budget_tokens=maker.budget_tokens,
            answer_tokens=server.answer_tokens,
            text_characters=server.text_characters,
            message_bytes=server.message_bytes,
            watches=WatchLimits(server.watches, server.watch_interval_s, server.text_characters),
            sees=maker.sees,
            addresses=AllowedAddresses.from_settings(server),
        )

    def tokens(self, asked: int | str | None) -> int | None:
        """Tokens of an answer for `max_output_tokens`; None takes the server's default."""
        return min(asked, self.answer_tokens) if isinstance(asked, int) else None
