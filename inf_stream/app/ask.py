"""`inf-stream ask`: questions about a video, a folder of images, a camera, an address or a recording."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from inf_stream.app.keeping import Keeping
from inf_stream.app.model_names import check_model, with_model
from inf_stream.app.progress import starting
from inf_stream.app.questions import PlannedQuestion, parse_duration
from inf_stream.app.recordings import is_recording
from inf_stream.app.showing import Output
from inf_stream.app.videos import open_video
from inf_stream.base.config import Settings
from inf_stream.base.errors import ConfigError
from inf_stream.sources import NoSource, Source
from inf_stream.sources.recorder import require_empty


@dataclass(frozen=True)
class AskRequest:
    """What the command line asks for.

    Attributes:
        video: address of the video, or folder of a recording; None asks a resumed session about what it has seen.
        planned: what is asked and when (`plan_questions` of the three below).
        question: asked at each time in `at`, or at the end.
        at: stream times as written.
        questions: file of more questions.
        settings: of the run.
        output: what to show and leave behind.
        duration: how much of the stream to take in, as written.
        loop: play the video again and again.
        record: folder for a recording.
        keeping: what the session is saved to, and resumed from.
    """

    video: str | None
    planned: Sequence[PlannedQuestion]
    question: str | None
    at: Sequence[str]
    questions: Path | None
    settings: Settings
    output: Output
    duration: str | None = None
    loop: bool = False
    record: Path | None = None
    keeping: Keeping = field(default_factory=Keeping)


def ask(request: AskRequest) -> int:
    """Run the command; returns the exit status. What can be refused without the model is, before torch is loaded.

    Raises:
        InfStreamError: something is refused.
        KeyboardInterrupt: after Ctrl-C, with everything in order.
    """
    request = replace(request, settings=with_model(request.settings, sees=True))
    until_ns = parse_duration(request.duration)
    request.output.check()
    request.keeping.check(request.record, request.settings.archive.disk_mib)
    if request.record is not None:
        require_empty(request.record)
    if request.video is not None and is_recording(request.video):
        _replay(request, request.video)
        return 0
    if request.video is None and (request.loop or request.duration is not None):
        raise ConfigError(f"--{'loop' if request.loop else 'duration'} needs a VIDEO; add one, or leave it out")
    if not request.planned:
        about = f" about '{request.video}'" if request.video is not None else ""
        raise ConfigError(f"nothing is asked{about}; write: inf-stream ask VIDEO QUESTION, or add --questions FILE")
    check_model(request.settings.model.name, sees=request.video is not None)
    with _source(request, until_ns) as source:
        with starting():
            from inf_stream.app.checking import check_settings

            check_settings(request.settings)
            from inf_stream.app.watching import watch

        watch(request, source, until_ns)
    return 0


def _source(request: AskRequest, until_ns: int | None) -> Source:
    if request.video is None:
        return NoSource()
    return open_video(request.video, request.settings, loop=request.loop, until_ns=until_ns)


def _replay(request: AskRequest, folder: str) -> None:
    _require_nothing_else(request, folder)
    check_model(request.settings.model.name, sees=False)
    with starting():
        from inf_stream.app.checking import check_settings

        check_settings(request.settings)
        from inf_stream.app.watching import replay_recording

    replay_recording(folder, request.settings, request.output)


def _require_nothing_else(request: AskRequest, folder: str) -> None:
    for given, name in (
        (request.question is not None, "QUESTION"),
        (bool(request.at), "--at"),
        (request.questions is not None, "--questions"),
        (request.duration is not None, "--duration"),
        (request.loop, "--loop"),
        (request.record is not None, "--record"),
        (request.keeping.save is not None, "--save"),
        (request.keeping.resume is not None, "--resume"),
    ):
        if given:
            raise ConfigError(
                f"'{folder}' is a recording, which brings its own questions and length along; leave {name} out"
            )
