"""`inf-stream chat`: a conversation without end, beside a video or about a text that is piped in."""

import dataclasses
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from inf_stream.app.keeping import Keeping
from inf_stream.app.model_names import check_model, with_model
from inf_stream.app.progress import starting
from inf_stream.app.questions import parse_duration, plan_questions
from inf_stream.app.recordings import is_recording
from inf_stream.app.showing import Output
from inf_stream.app.videos import open_video
from inf_stream.base.config import Settings
from inf_stream.base.errors import ConfigError
from inf_stream.sources import Source
from inf_stream.sources.recorder import require_empty


@dataclass(frozen=True)
class ChatRequest:
    """What the command line asks for.

    Attributes:
        video: address of a video that runs beside the conversation, or None.
        then: questions for the end of the text that is piped in.
        settings: of the run.
        output: what to show and leave behind.
        duration: how much of the video to take in, as written.
        loop: play the video again and again.
        record: folder for a recording.
        keeping: what the session is saved to, and resumed from.
    """

    video: str | None
    then: Sequence[str]
    settings: Settings
    output: Output
    duration: str | None = None
    loop: bool = False
    record: Path | None = None
    keeping: Keeping = field(default_factory=Keeping)


def chat(request: ChatRequest) -> int:
    """Run the command; returns the exit status. What can be refused without the model is, before torch is loaded.

    Raises:
        InfStreamError: something is refused.
        KeyboardInterrupt: after Ctrl-C, with everything in order.
    """
    sees = request.video is not None
    request = dataclasses.replace(request, settings=with_model(request.settings, sees=sees))
    _check(request)
    planned = [q for text in request.then for q in plan_questions(text, (), None)]
    until_ns = parse_duration(request.duration)
    request.output.check()
    request.keeping.check(request.record, request.settings.archive.disk_mib)
    if request.record is not None:
        require_empty(request.record)
    check_model(request.settings.model.name, sees=sees)
    with _video(request, until_ns) as source:
        with starting():
            from inf_stream.app.checking import check_settings

            check_settings(request.settings)
            from inf_stream.app.reading import read_text
            from inf_stream.app.talking import converse

        if planned:
            read_text(request, planned)
        else:
            converse(request, source, until_ns)
    return 0


def _video(request: ChatRequest, until_ns: int | None) -> AbstractContextManager[Source | None]:
    if request.video is None:
        return nullcontext()
    return open_video(request.video, request.settings, loop=request.loop, until_ns=until_ns)


def _check(request: ChatRequest) -> None:
    if request.then and request.video is not None:
        raise ConfigError(
            "--then asks after a text that is piped in; to ask about a video from a script use: inf-stream ask VIDEO"
        )
    if request.then and sys.stdin.isatty():
        raise ConfigError("--then asks after a text that is piped in, e.g. cat book.txt | inf-stream chat --then ...")
    if request.video is not None and is_recording(request.video):
        raise ConfigError(f"'{request.video}' is a recording; it is replayed by: inf-stream ask {request.video}")
    if request.video is None and (request.loop or request.duration is not None):
        raise ConfigError(f"--{'loop' if request.loop else 'duration'} needs --video ADDRESS")
