"""`inf-stream serve`: its flags."""

import argparse

from inf_stream.cli.command import Command
from inf_stream.cli.settings import (
    ENGINE_FLAGS,
    add_configuration_flags,
    add_engine_flags,
    add_setting_flags,
    merge,
    overrides,
)

ADDRESS_FLAGS = {"--host": "server.host", "--port": "server.port", "--sessions": "server.sessions"}
ACCESS_FLAGS = {
    "--keys-file": "server.keys_file",
    "--open-to-all": "server.open_to_all",
    "--certificate": "server.certificate",
    "--certificate-key": "server.certificate_key",
    "--self-signed": "server.self_signed",
    "--origins": "server.origins",
}
STATE_FLAGS = {"--state": "server.state_folder"}
LOG_FLAGS = {"--log-format": "server.log_format"}
SERVE_FLAGS = ADDRESS_FLAGS | ACCESS_FLAGS | STATE_FLAGS | LOG_FLAGS
"""Flag -> the setting of the server it overrides."""

_EXAMPLES = """\
examples:
  inf-stream serve
  inf-stream serve --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct --sessions 8
  inf-stream serve --host 0.0.0.0 --keys-file keys.txt --self-signed
  inf-stream serve --state sessions/

A page for people is at http://127.0.0.1:8765/. Clients of OpenAI's Realtime interface connect to
ws://127.0.0.1:8765/v1/realtime as they are, those of Gemini Live (with TLS) to the server's address;
/v1/chat/completions, /v1/models, /v1/stream (binary frames), /v1/sessions, /metrics and /health are beside it. Every
session has a memory of its own, on one model. Ctrl-C and SIGTERM let answers end; a second one stops at once. With
--state, clients come back to their sessions after that, and after a crash. API keys come from --keys-file and from the
environment variable INF_STREAM_API_KEYS; beyond this machine the server asks for one. configs/deploy/ runs it in a
container or as a service: images, a systemd unit, logs as JSON (--log-format json) and a dashboard for /metrics.
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add_setting_flags(parser.add_argument_group("server"), ADDRESS_FLAGS)
    add_setting_flags(parser.add_argument_group("who may connect"), ACCESS_FLAGS)
    add_setting_flags(parser.add_argument_group("sessions on disk"), STATE_FLAGS)
    add_setting_flags(parser.add_argument_group("log"), LOG_FLAGS)
    add_engine_flags(parser)
    add_configuration_flags(parser)


def _run(arguments: argparse.Namespace) -> int:
    settings = merge(arguments.config, overrides(arguments, SERVE_FLAGS | ENGINE_FLAGS))
    from inf_stream.app.progress import starting
    from inf_stream.server.early import refuse_early

    refuse_early(settings)
    with starting():
        from inf_stream.server.serve import serve

    return serve(settings)


COMMAND = Command(
    "serve",
    "a server that many clients stream video to and ask, on one model",
    "[flags]",
    _add_flags,
    _run,
    _EXAMPLES,
)
