"""Messages on their way to one client: numbered, bounded, and kept a while for one that comes back."""

from collections import deque

from inf_stream.base.errors import SessionError

_MOST_BYTES = 1 << 24


class Outbox:
    """The latest messages of a session: first those that were sent, then those that wait.

        number   5 6 7 8 9 | 10 11 12      next to send: 10; a client that has seen 6 can still come back
                 sent        waiting

    At most `most` messages, and 16 MiB, are held. Sent ones make room for new ones; when all wait, the box overflows,
    and no message is taken any more: the client has lost something.
    """

    def __init__(self, most: int):
        self._most = most
        self._held: deque[str] = deque()
        self._held_bytes = 0
        self._first = 1
        self._next = 1
        self.overflowed = False

    @property
    def last_number(self) -> int:
        """Of the message put last; 0 before the first."""
        return self._first + len(self._held) - 1

    @property
    def last_sent(self) -> int:
        """Of the message taken last; 0 before the first."""
        return self._next - 1

    @property
    def waiting(self) -> int:
        """Messages that were not taken yet."""
        return self.last_number - self.last_sent

    def put(self, text: str) -> None:
        """Add the message with the number `last_number + 1`."""
        if self.overflowed:
            return
        self._held.append(text)
        self._held_bytes += len(text)
        while len(self._held) > self._most or self._held_bytes > _MOST_BYTES:
            if self._first == self._next:
                self.overflowed = True
                return
            self._held_bytes -= len(self._held.popleft())
            self._first += 1

    def take(self) -> str | None:
        """The next message to send, or None if there is none."""
        if self._next > self.last_number:
            return None
        self._next += 1
        return self._held[self._next - 1 - self._first]

    def rewind(self, seen: int) -> None:
        """Send again all that came after the message number `seen`.

        Raises:
            SessionError: some of that is not held any more, or there never was such a message.
        """
        if not self._first - 1 <= seen <= self.last_number or self.overflowed:
            raise SessionError(
                f"the client has seen message {seen}; messages {self._first} to {self.last_number} are held, so what "
                "it missed cannot be sent: open a new session"
            )
        self._next = seen + 1
