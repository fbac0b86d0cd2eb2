"""`inf-stream serve`: from settings to a server that runs until it is told to end."""

import asyncio
import contextlib
import gc
import logging
import signal
import ssl
import sys
from collections.abc import Iterator, Sequence

from inf_stream.app.checking import check_settings
from inf_stream.app.loading import load_shown_weights
from inf_stream.app.model_names import check_model, with_model
from inf_stream.app.piped_console import PipedConsole
from inf_stream.app.reports import Screen
from inf_stream.base.config import ServerSettings, Settings
from inf_stream.base.errors import ConfigError
from inf_stream.server.connections.state_folder import StateFolder
from inf_stream.server.log import fields, log_to_stderr
from inf_stream.server.room import require_room
from inf_stream.server.running import running_server
from inf_stream.server.sessions.engines import EngineMaker, SharedModel
from inf_stream.server.web.access import Access, is_loopback, read_keys, read_origins, require_safe_place
from inf_stream.server.web.metrics import Metrics
from inf_stream.server.web.tls import tls_context

_LOG = logging.getLogger(__name__)
_MIB = 1 << 20


def serve(settings: Settings) -> int:
    """Run the command; returns the exit status.

    Raises:
        InfStreamError: something is refused before the first client comes.
        KeyboardInterrupt: after Ctrl-C, with everything in order.
    """
    screen = _screen(settings.server.log_format)
    keys = read_keys(settings.server)
    require_safe_place(settings.server, has_keys=bool(keys))
    origins = read_origins(settings.server)
    tls = tls_context(settings.server)
    settings = with_model(settings, sees=True)
    check_model(settings.model.name, sees=True)
    check_settings(settings)
    with _state_folder(settings) as folder:
        log_to_stderr(settings.server.log_format)
        metrics = Metrics()
        maker = SharedModel(settings, load_shown_weights(settings, screen), metrics.timed)
        require_room(maker, settings)
        if folder is not None:
            folder.require_room(maker.session_bytes)
        access = Access(keys, origins)
        _keep_what_is_loaded()
        if asyncio.run(_serve(maker, settings, access, tls, metrics, screen, folder)):
            raise KeyboardInterrupt
    return 0


def _keep_what_is_loaded() -> None:
    """Python's search for garbage would go through modules and weights again and again, while every session waits."""
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def _state_folder(settings: Settings) -> Iterator[StateFolder | None]:
    """The folder the settings name, for this server alone."""
    server, archive = settings.server, settings.archive
    if not server.state_folder:
        yield None
        return
    if archive.disk_mib:
        raise ConfigError(
            f"--state saves whole sessions, and archive.disk_mib is {archive.disk_mib}: too much to be copied while "
            "streams go on; leave out one of the two"
        )
    with contextlib.closing(StateFolder.from_settings(server)) as folder:
        yield folder


def _screen(log_format: str) -> Screen:
    """Where people are told things: nowhere, if standard error is for programs."""
    if log_format == "text":
        return Screen.standard()
    return Screen(sys.stdout, PipedConsole(stderr=True, quiet=True, force_terminal=False))


async def _serve(
    maker: EngineMaker,
    settings: Settings,
    access: Access,
    tls: ssl.SSLContext | None,
    metrics: Metrics,
    screen: Screen,
    folder: StateFolder | None,
) -> bool:
    """Serve until a signal comes; returns whether it was Ctrl-C. A second signal stops at once."""
    received: list[int] = []
    ending = asyncio.Event()
    async with running_server(maker, settings, access, tls, metrics, folder) as server:

        def interrupt(number: int) -> None:
            received.append(number)
            ending.set()
            if len(received) > 1:
                for session in server.hub.sessions:
                    session.stop()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C cancels instead
                loop.add_signal_handler(number, interrupt, number)
        room = server.hub.admission.most_sessions
        screen.note(
            f"{maker.name} at {server.address}/ (a page) and /v1, for {room} session{'s' if room > 1 else ''} of "
            f"{maker.session_bytes / _MIB:.0f} MiB each{'' if access.has_keys else ', without any key'}; Ctrl-C ends it"
        )
        if folder is not None:
            screen.note(f"sessions outlive it in '{folder.path}', which holds {folder.sessions}")
        advice = advice_elsewhere(settings.server, server.addresses_elsewhere, has_tls=tls is not None)
        if advice:
            screen.note(advice)
        _LOG.info("listening", extra=fields(address=server.address, model=maker.name, sessions_most=room))
        await ending.wait()
        if server.hub.sessions:
            screen.note("letting answers end; press Ctrl-C again to stop at once")
    return received[:1] == [signal.SIGINT]


def advice_elsewhere(settings: ServerSettings, addresses: Sequence[str], *, has_tls: bool) -> str:
    """What those on other machines, a phone say, have to know of the page at these addresses; empty if there are none,
    or if the operator's certificate says by what name they find it.
    """
    if is_loopback(settings.host) or settings.certificate:
        return ""
    where = " or ".join(f"{address}/" for address in addresses) or "this machine's address"
    if has_tls:
        return f"on other machines open {where}; browsers there warn of the certificate once"
    return (
        f"on other machines open {where}; browsers there give the page no camera without TLS: "
        "add --self-signed or --certificate"
    )
