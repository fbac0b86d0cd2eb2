"""Messages on their way to one client: numbered, bounded, and kept a while for one that comes back."""

import itertools
from collections import deque

import numpy as np
import torch

from inf_stream.base.errors import SessionError, StateError
from inf_stream.base.state import State

_MOST_BYTES = 1 << 24
_SECRET = "\0"
"""Stands for the secret in messages that are kept; no JSON holds it."""


class Outbox:
    """The latest messages of a session: first those that were sent, then those that wait.

        number   5 6 7 8 9 | 10 11 12      next to send: 10; a client that has seen 6 can still come back
                 sent        waiting

    Numbers rise by one, but for a leap where nobody knows what was sent. At most `most` messages, and 16 MiB, are held.
    Sent ones make room for new ones; when all wait, the box overflows, and no message is taken any more: the client has
    lost something.
    """

    def __init__(self, most: int):
        self._most = most
        self._held: deque[tuple[int, str]] = deque()
        self._held_bytes = 0
        self._forgotten = 0
        self._last = 0
        self._sent = 0
        self.overflowed = False

    @property
    def last_number(self) -> int:
        """Of the message put last; 0 before the first."""
        return self._last

    @property
    def last_sent(self) -> int:
        """Of the message taken last; 0 before the first."""
        return self._held[self._sent - 1][0] if self._sent else self._forgotten

    @property
    def waiting(self) -> int:
        """Messages that were not taken yet."""
        return len(self._held) - self._sent

    def put(self, text: str) -> None:
        """Add the message with the number `last_number + 1`."""
        if self.overflowed:
            return
        self._last += 1
        self._held.append((self._last, text))
        self._held_bytes += len(text)
        while len(self._held) > self._most or self._held_bytes > _MOST_BYTES:
            if not self._sent:
                self.overflowed = True
                return
            self._forgotten, oldest = self._held.popleft()
            self._held_bytes -= len(oldest)
            self._sent -= 1

    def take(self) -> str | None:
        """The next message to send, or None if there is none."""
        if not self.waiting:
            return None
        self._sent += 1
        return self._held[self._sent - 1][1]

    def rewind(self, seen: int) -> None:
        """Send again all that came after the message number `seen`.

        Raises:
            SessionError: some of that is not held any more, or there never was such a message.
        """
        if not self._forgotten <= seen <= self._last or self.overflowed:
            raise SessionError(
                f"the client has seen message {seen}; messages {self._forgotten + 1} to {self._last} are held, so what "
                "it missed cannot be sent: open a new session"
            )
        self._sent = sum(number <= seen for number, _ in self._held)

    # ---- kept on disk ------------------------------------------------------------------------------

    def state(self, secret: str, *, all_sent: bool) -> State:
        """The messages that are held, without a text that nobody else may read; `all_sent`: none will wait."""
        texts = "\n".join(text for _, text in self._held).replace(secret, _SECRET)
        tensors = {
            "texts": torch.from_numpy(np.frombuffer(texts.encode(), np.uint8).copy()),
            "numbers": torch.tensor([number for number, _ in self._held], dtype=torch.int64),
        }
        facts = {"forgotten": self._forgotten, "last": self._last, "sent": len(self._held) if all_sent else self._sent}
        return State(tensors, facts)

    def restore(self, state: State, secret: str) -> None:
        """Hold what another outbox held, with the secret in its place again.

        Raises:
            StateError: it is not what `state` gives.
        """
        numbers = state.tensor("numbers", (len(state.tensors.get("numbers", ())),), torch.int64).tolist()
        encoded = state.tensor("texts", (len(state.tensors.get("texts", ())),), torch.uint8)
        texts = encoded.numpy().tobytes().decode().replace(_SECRET, secret).split("\n") if numbers else []
        self._forgotten, self._last, self._sent = state.count("forgotten"), state.count("last"), state.count("sent")
        known = [self._forgotten, *numbers]
        rises = all(before < after for before, after in itertools.pairwise(known))
        if len(texts) != len(numbers) or not rises or known[-1] > self._last or self._sent > len(numbers):
            raise StateError("the saved session has messages that were never sent so; it cannot be used")
        self._held = deque(zip(numbers, texts, strict=True))
        self._held_bytes = sum(map(len, texts))

    def leap(self, number: int) -> None:
        """Whatever was sent meanwhile: the next message is number `number + 1` at least."""
        self._last = max(self._last, number)
