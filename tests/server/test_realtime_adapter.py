"""The Realtime protocol without a socket: what comes in, what is told, each event by the client's own schema."""

import dataclasses
import json
from typing import Any

import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from support.fake_session import LIMITS, WATCH_LIMITS, FakeSession, answer, say, told
from support.realtime_clients import data_uri, image_item, text_item
from support.serving import picture

from inf_stream.base.errors import StateError
from inf_stream.base.events import Evidence, FinishReason, FramesIngested, Warned
from inf_stream.base.state import State
from inf_stream.server.protocols.adapter import DurableAdapter, TakeFrames
from inf_stream.server.protocols.messages import MessageError
from inf_stream.server.protocols.realtime import RealtimeAdapter
from inf_stream.server.protocols.watches import Alert, Watch, Watchman
from inf_stream.server.sessions.engines import SessionOptions
from inf_stream.server.sessions.live_session import FrameSettled
from inf_stream.session.answer import unanswered

ORACLE: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


class Client:
    """A client that checks all it is told."""

    def __init__(self) -> None:
        self.session = FakeSession()
        self.watchman = Watchman(WATCH_LIMITS)
        self.adapter = RealtimeAdapter(self.session, LIMITS, self.watchman, "handle")
        self.told = 0

    def checked(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for message in messages:
            self.told += 1
            numbered = self.adapter.numbered(message, self.told)
            assert numbered["event_id"] == f"event_{self.told}"
            ORACLE.validate_json(json.dumps(numbered))
        return messages

    def says(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        return self.checked(say(self.adapter, {"type": kind, **fields}))

    def fails(self, kind: str, **fields: Any) -> tuple[str, str | None]:
        (error,) = self.says(kind, **fields)
        assert error["type"] == "error", error
        assert error["error"]["message"]
        return error["error"]["code"], error["error"]["param"]

    def updates(self, **session: Any) -> dict[str, Any]:
        (updated,) = self.says("session.update", session=session)
        assert updated["type"] == "session.updated", updated
        found: dict[str, Any] = updated["session"]
        return found

    def asks(self, **response: Any) -> str:
        (created,) = self.says("response.create", response=response)
        assert created["type"] == "response.created", created
        response_id: str = created["response"]["id"]
        return response_id

    def hears(self, *pieces: str, reason: FinishReason = FinishReason.STOP, **more: Any) -> list[dict[str, Any]]:
        question, _ = self.session.asked[-1]
        return self.checked(answer(self.adapter, question, reason, *pieces, **more))


@pytest.fixture
def client() -> Client:
    return Client()


# ---- session -----------------------------------------------------------------------------------------


def test_the_session_is_told_first_and_again_to_who_comes_back(client: Client) -> None:
    for replies in (client.adapter.opened(), client.adapter.resumed()):
        (created,) = client.checked(told(replies))
        session = created["session"]
        assert created["type"] == "session.created"
        assert (session["model"], session["instructions"], session["output_modalities"]) == (
            "lists",
            "be brief",
            ["text"],
        )
        assert session["truncation"]["token_limits"]["post_instructions"] == 1000
        assert session["inf_stream"]["handle"] == "handle"
        assert session["inf_stream"]["stats"] == {"frames": {"received": 0}}


def test_an_update_changes_the_fields_present_and_tells_all(client: Client) -> None:
    client.updates(type="realtime", instructions="be kind", max_output_tokens=12)
    session = client.updates(truncation={"type": "retention_ratio", "retention_ratio": 0.5,
                                         "token_limits": {"post_instructions": 300}})  # fmt: skip
    assert (session["instructions"], session["max_output_tokens"]) == ("be kind", 12)
    assert session["truncation"]["token_limits"]["post_instructions"] == 300
    assert client.session.options == SessionOptions("be kind", 300)
    assert client.updates(truncation="auto", max_output_tokens=None)["max_output_tokens"] == "inf"
    assert client.session.options == SessionOptions("be kind", None)
    over = {"type": "retention_ratio", "retention_ratio": 1, "token_limits": {"post_instructions": 10**9}}
    assert client.updates(truncation=over)["truncation"]["token_limits"]["post_instructions"] == 1000
    assert client.updates(truncation={"type": "retention_ratio"})["truncation"]["retention_ratio"] == 1.0


def test_what_a_text_server_has_no_use_for_is_named_not_pretended(client: Client) -> None:
    session = client.updates(
        output_modalities=["audio"],
        tools=[{"type": "function", "name": "f"}],
        tool_choice="auto",
        audio={"output": {"voice": "marin"}},
        tracing=None,
    )
    assert session["inf_stream"]["ignored"] == ["audio", "output_modalities.audio", "tool_choice", "tools"]
    assert (session["tools"], session["output_modalities"]) == ([], ["text"])
    client.updates(**session)


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"type": "transcription"}, "session.type"),
        ({"instructions": 5}, "session.instructions"),
        ({"instructions": "x" * 201}, "session.instructions"),
        ({"max_output_tokens": 0}, "session.max_output_tokens"),
        ({"max_output_tokens": True}, "session.max_output_tokens"),
        ({"max_output_tokens": 10**30}, "session.max_output_tokens"),
        ({"output_modalities": ["smell"]}, "session.output_modalities"),
        ({"output_modalities": "text"}, "session.output_modalities"),
        ({"truncation": "disabled"}, "session.truncation"),
        ({"truncation": 7}, "session.truncation"),
        ({"truncation": {"type": "x"}}, "session.truncation.type"),
        ({"truncation": {"type": "retention_ratio", "retention_ratio": 2}}, "session.truncation.retention_ratio"),
        ({"truncation": {"type": "retention_ratio", "token_limits": {"post_instructions": -1}}},
         "session.truncation.token_limits.post_instructions"),
        ({"inf_stream": {"colour": 1}}, "session.inf_stream"),
        ({"inf_stream": []}, "session.inf_stream"),
        ({"inf_stream": {"watches": [{"id": "a"}]}}, "session.inf_stream.watches[0].question"),
        ({"inf_stream": {"watches": [{"id": "a", "question": "?", "often": 1}]}},
         "session.inf_stream.watches[0].often"),
        ({"inf_stream": {"watches": [{"id": "a", "question": "?", "every_s": 0.1}]}},
         "session.inf_stream.watches[0].every_s"),
        ({"inf_stream": {"watches": [{"id": "a", "question": "?"}] * 2}}, "session.inf_stream.watches"),
        ({"inf_stream": {"watches": [{"id": "a", "question": "?"}] * 4}}, "session.inf_stream.watches"),
        ({"colour": "red"}, "session.colour"),
        (5, "session"),
    ],
)  # fmt: skip
def test_a_bad_session_is_refused_by_field_and_changes_nothing(client: Client, session: Any, param: str) -> None:
    before = client.updates()
    assert client.fails("session.update", session=session)[1] == param
    assert client.updates() == before


def test_once_the_stream_has_begun_the_memory_is_settled_and_new_instructions_lead_the_questions(
    client: Client,
) -> None:
    client.asks()
    client.hears("a")
    smaller = {"type": "retention_ratio", "token_limits": {"post_instructions": 50}}
    refused = client.fails("session.update", session={"truncation": smaller})
    assert refused == ("session_begun", "session.truncation")
    assert client.updates(instructions="be sad")["instructions"] == "be sad"
    client.says("conversation.item.create", item=text_item("how?"))
    client.asks()
    assert client.session.asked[-1][0].text == "be sad\n\nhow?"


# ---- items -------------------------------------------------------------------------------------------


def test_an_item_is_added_and_done_behind_the_one_before(client: Client) -> None:
    first = client.says("conversation.item.create", item=text_item("one") | {"id": "i1"})
    assert [m["type"] for m in first] == ["conversation.item.added", "conversation.item.done"]
    assert (first[0]["previous_item_id"], first[0]["item"]["id"]) == (None, "i1")
    second = client.says("conversation.item.create", item=image_item(detail="low"))
    assert second[1]["previous_item_id"] == "i1"
    assert second[1]["item"]["content"] == [{"type": "input_image", "detail": "low"}], "images are not sent back"
    assert second[1]["item"]["id"].startswith("item_")


def test_frames_go_to_the_session_with_their_times(client: Client) -> None:
    item = image_item(timestamp_ms=1500)
    item["content"] += [{"type": "input_image", "image_url": data_uri()}, {"type": "input_text", "text": "look"}]
    event = {"type": "conversation.item.create", "item": item}
    (frames,) = client.adapter.received(json.dumps(event))
    assert isinstance(frames, TakeFrames)
    assert frames.images == (picture(), picture())
    assert frames.timestamps_ms == (1500.0, None)
    refused = MessageError("too dark", code="invalid_image", param="image_url")
    (error,) = client.checked(told(client.adapter.frames_refused(frames.tag, refused)))
    assert error["error"]["code"] == "invalid_image"
    client.asks()
    assert client.session.asked[-1][0].text == "", "a refused item says nothing"
    client.hears()
    taken = client.checked(told(client.adapter.frames_taken(frames.tag, [0, 1])))
    assert [m["type"] for m in taken] == ["conversation.item.added", "conversation.item.done"]


@pytest.mark.parametrize(
    ("item", "code", "param"),
    [
        (None, "missing_required_parameter", "item"),
        ([], "invalid_type", "item"),
        ({}, "missing_required_parameter", "item.type"),
        ({"type": "function_call_output"}, "unsupported_item", "item.type"),
        ({"type": "message", "role": "king"}, "invalid_value", "item.role"),
        ({"type": "message", "role": ["user"]}, "invalid_value", "item.role"),
        ({"type": "message", "role": "user"}, "missing_required_parameter", "item.content"),
        ({"type": "message", "role": "user", "content": "text"}, "invalid_type", "item.content"),
        ({"type": "message", "role": "user", "content": [5]}, "invalid_type", "item.content[0]"),
        ({"type": "message", "role": "user", "content": [{"type": "x"}]}, "invalid_value", "item.content[0].type"),
        ({"type": "message", "role": "user", "content": [{"type": "input_text"}]}, "missing_required_parameter",
         "item.content[0].text"),
        ({"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": ""}]}, "unsupported_content",
         "item.content[0]"),
        ({"type": "message", "role": "system", "content": [{"type": "input_image"}]}, "invalid_value",
         "item.content[0].type"),
        (text_item("x" * 201), "string_above_max_length", "item.content[0].text"),
        (text_item("x") | {"content": [{"type": "input_text", "text": "y" * 150}] * 2}, "string_above_max_length",
         "item.content"),
        (text_item("x") | {"content": [{"type": "input_text", "text": "y"}] * 17}, "invalid_value", "item.content"),
        (text_item("x") | {"id": ""}, "invalid_value", "item.id"),
        (text_item("x") | {"id": 5}, "invalid_type", "item.id"),
        (image_item(image_url="https://a.example/cat.jpg"), "invalid_image_url", "image_url"),
        (image_item(image_url="file:///etc/passwd"), "invalid_image_url", "image_url"),
        (image_item(image_url="data:text/html;base64,AAAA"), "invalid_image_url", "image_url"),
        (image_item(image_url="data:image/jpeg;base64,%%%"), "invalid_image", "image_url"),
        (image_item(image_url="data:image/jpeg;base64," + "A" * 6000), "image_too_large", "image_url"),
        (image_item(image_url=7), "invalid_type", "image_url"),
        (image_item(image_url=None), "missing_required_parameter", "item.content[0].image_url"),
        (image_item(timestamp_ms=-1), "invalid_value", "item.content[0].timestamp_ms"),
        (image_item(timestamp_ms="now"), "invalid_type", "item.content[0].timestamp_ms"),
        (image_item(detail="huge"), "invalid_value", "item.content[0].detail"),
    ],
)  # fmt: skip
def test_a_bad_item_is_refused_by_field(client: Client, item: Any, code: str, param: str) -> None:
    assert client.fails("conversation.item.create", item=item, event_id="e1") == (code, param)


def test_a_blind_model_refuses_frames_at_once() -> None:
    client = Client()
    client.adapter = RealtimeAdapter(client.session, dataclasses.replace(LIMITS, sees=False), client.watchman, "h")
    assert client.fails("conversation.item.create", item=image_item())[0] == "unsupported_content"


def test_items_are_found_until_deleted_or_forgotten(client: Client) -> None:
    client.says("conversation.item.create", item=text_item("one") | {"id": "i1"})
    assert client.fails("conversation.item.create", item=text_item("two") | {"id": "i1"})[0] == "item_id_in_use"
    (found,) = client.says("conversation.item.retrieve", item_id="i1")
    assert found["item"]["content"] == [{"type": "input_text", "text": "one"}]
    (gone,) = client.says("conversation.item.delete", item_id="i1")
    assert (gone["type"], gone["item_id"]) == ("conversation.item.deleted", "i1")
    for kind in ("retrieve", "delete", "truncate"):
        assert client.fails(f"conversation.item.{kind}", item_id="i1")[0] == "item_not_found"
    client.asks()
    assert client.session.asked[-1][0].text == "", "what was deleted is not asked"
    client.hears()
    for number in range(600):
        client.says("conversation.item.create", item=image_item() | {"id": f"f{number}"})
    assert client.fails("conversation.item.retrieve", item_id="f0")[0] == "item_not_found"
    assert client.says("conversation.item.retrieve", item_id="f599")[0]["item"]["id"] == "f599"


def test_only_answers_can_be_truncated(client: Client) -> None:
    client.says("conversation.item.create", item=text_item("one") | {"id": "i1"})
    assert client.fails("conversation.item.truncate", item_id="i1")[0] == "item_truncate_invalid_item_id"
    client.asks()
    item_id = client.hears("a")[-1]["response"]["output"][0]["id"]
    (cut,) = client.says("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=5)
    assert (cut["item_id"], cut["audio_end_ms"]) == (item_id, 0)


def test_texts_gather_within_limits_until_they_are_asked(client: Client) -> None:
    client.says("conversation.item.create", item=text_item("x" * 150))
    assert client.fails("conversation.item.create", item=text_item("y" * 60))[0] == "string_above_max_length"
    client.says("conversation.item.create", item=text_item("be exact", "system"))
    client.says("conversation.item.create", item=text_item("yes", "assistant"))
    client.asks(instructions="in French")
    question, in_order = client.session.asked[-1]
    assert question.text == f"in French\n\n{'x' * 150}\nbe exact\n(You said earlier: yes)"
    assert in_order
    client.hears("oui")
    client.asks()
    assert client.session.asked[-1][0].text == "", "asked once"


# ---- responses ---------------------------------------------------------------------------------------


def test_an_answer_is_told_in_the_order_of_the_protocol(client: Client) -> None:
    client.says("conversation.item.create", item=text_item("what?") | {"id": "i1"})
    (created,) = client.says("response.create", response={"metadata": {"k": "v"}, "max_output_tokens": 500})
    assert created["response"]["metadata"] == {"k": "v"}
    assert client.session.asked[-1][0].max_tokens == 64, "at most what the server gives"
    messages = client.hears("a ", "cat")
    assert [m["type"] for m in messages] == [
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert messages[1]["previous_item_id"] == "i1"
    done = messages[-1]["response"]
    assert done["usage"] == {
        "total_tokens": 42,
        "input_tokens": 40,
        "output_tokens": 2,
        "input_token_details": {"cached_tokens": 30, "text_tokens": 20, "image_tokens": 20, "audio_tokens": 0},
        "output_token_details": {"text_tokens": 2, "audio_tokens": 0},
    }
    assert done["metadata"]["k"] == "v"
    assert json.loads(done["metadata"]["evidence"]) == [{"at_s": 3.0, "share": 0.75}, {"at_s": 1.5, "share": 0.125}]
    assert done["metadata"]["stream_time_s"] == "7.000"
    assert done["inf_stream"]["ttft_s"] == 0.25
    assert done["output"][0]["content"][0]["text"] == "a cat"
    assert "warning" not in done["metadata"]


def test_a_question_about_a_time_that_is_not_there_is_answered_with_a_warning(client: Client) -> None:
    client.says("response.create")
    messages = answer(client.adapter, client.session.asked[-1][0], FinishReason.STOP, "a", warning="beware")
    assert messages[-1]["response"]["metadata"]["warning"] == "beware"


@pytest.mark.parametrize(
    ("reason", "started", "status", "detail"),
    [
        (FinishReason.STOP, True, "completed", {"type": "completed"}),
        (FinishReason.LENGTH, True, "incomplete", {"type": "incomplete", "reason": "max_output_tokens"}),
        (FinishReason.CANCELLED, True, "cancelled", {"type": "cancelled", "reason": "client_cancelled"}),
        (FinishReason.CANCELLED, False, "cancelled", {"type": "cancelled", "reason": "client_cancelled"}),
        (FinishReason.REFUSED, False, "failed", None),
        (FinishReason.FAILED, True, "failed", None),
        (FinishReason.FAILED, False, "failed", None),
    ],
)
def test_every_answer_ends_with_done_and_says_how(
    client: Client, reason: FinishReason, started: bool, status: str, detail: Any
) -> None:
    client.asks()
    assert not client.adapter.emitted(Warned("frames left out: too long", 0))
    assert not client.adapter.emitted(Warned("answer to question 'q1' failed: too long", 0))
    done = client.hears(*(["a"] if started else []), reason=reason, started=started)[-1]
    assert (done["type"], done["response"]["status"]) == ("response.done", status)
    details = done["response"]["status_details"]
    assert bool(done["response"]["output"]) == started
    if detail is not None:
        assert details == detail
    else:
        code = "rate_limit_exceeded" if reason is FinishReason.REFUSED else "server_error"
        assert details["error"]["code"] == code
        assert ("too long" in details["error"]["message"]) == (reason is FinishReason.FAILED)
    client.asks()


def test_a_broken_engine_says_no_more_than_that(client: Client) -> None:
    client.asks()
    done = client.hears(reason=FinishReason.FAILED, started=False)[-1]["response"]
    assert done["status_details"]["error"]["message"] == "the engine failed; the server's log says more"


def test_one_answer_writes_the_conversation_and_others_run_beside_it(client: Client) -> None:
    client.says("conversation.item.create", item=text_item("context") | {"id": "i1"})
    first = client.asks()
    assert client.fails("response.create", event_id="x")[0] == "conversation_already_has_active_response"
    aside = client.asks(conversation="none", input=[text_item("who?"), {"type": "item_reference", "id": "i1"}])
    question = client.session.asked[-1][0]
    assert (question.aside, question.text) == (True, "who?\ncontext")
    messages = client.hears("me")
    assert not [m for m in messages if m["type"].startswith("conversation")]
    assert messages[-1]["response"]["id"] == aside
    assert messages[-1]["response"]["conversation_id"] is None
    client.says("response.cancel", response_id=first)
    client.says("response.cancel")
    assert client.session.cancelled == ["q1", "q1"]
    assert client.fails("response.cancel", response_id=aside)[0] == "response_cancel_not_active"


def test_an_aside_without_input_asks_what_waits_and_leaves_it_waiting(client: Client) -> None:
    client.says("conversation.item.create", item=text_item("what?"))
    client.asks(conversation="none")
    client.hears("a")
    client.asks()
    assert [q.text for q, _ in client.session.asked] == ["what?", "what?"]


@pytest.mark.parametrize(
    ("response", "param"),
    [
        (7, "response"),
        ({"conversation": "theirs"}, "response.conversation"),
        ({"conversation": {}}, "response.conversation"),
        ({"colour": "red"}, "response.colour"),
        ({"metadata": []}, "response.metadata"),
        ({"metadata": {"k": 5}}, "response.metadata.k"),
        ({"metadata": {"k": "v" * 513}}, "response.metadata.k"),
        ({"metadata": {"k" * 65: "v"}}, "response.metadata"),
        ({"metadata": {str(i): "v" for i in range(17)}}, "response.metadata"),
        ({"max_output_tokens": "many"}, "response.max_output_tokens"),
        ({"output_modalities": [5]}, "response.output_modalities"),
        ({"instructions": 5}, "response.instructions"),
        ({"input": {}}, "response.input"),
        ({"input": [image_item()]}, "response.input[0]"),
        ({"input": [{"type": "item_reference", "id": "nothing"}]}, "item_id"),
        ({"input": [text_item("x" * 150)] * 2}, "response.input"),
    ],
)
def test_a_bad_response_is_refused_by_field(client: Client, response: Any, param: str) -> None:
    assert client.fails("response.create", response=response)[1] == param
    assert not client.session.asked


def test_tools_of_one_response_are_named_as_ignored(client: Client) -> None:
    client.asks(tools=[{"type": "function", "name": "f"}], tool_choice="auto", audio=None)
    assert client.updates()["inf_stream"]["ignored"] == ["response.tool_choice", "response.tools"]


def test_a_closed_session_refuses_in_one_error(client: Client) -> None:
    client.session.is_closed = True
    assert client.fails("response.create") == ("invalid_request", None)
    client.session.is_closed = False
    client.asks()


# ---- the rest ----------------------------------------------------------------------------------------


def test_audio_is_not_taken_and_said_so_where_it_matters(client: Client) -> None:
    assert client.says("input_audio_buffer.append", audio="AAAA") == []
    assert client.fails("input_audio_buffer.commit")[0] == "input_audio_buffer_commit_empty"
    assert client.says("input_audio_buffer.clear")[0]["type"] == "input_audio_buffer.cleared"
    response_id = client.asks()
    assert client.says("output_audio_buffer.clear")[0]["response_id"] == response_id


def test_errors_name_the_event_that_caused_them(client: Client) -> None:
    (error,) = client.says("make.coffee", event_id="e7")
    assert (error["error"]["code"], error["error"]["event_id"]) == ("unknown_event_type", "e7")
    for data in (
        "{",
        "[]",
        "5",
        '"x"',
        "null",
        "{}",
        '{"type": 5}',
        '{"type": null}',
        "[" * 100_000,
        b"\xff\xd8",
        r'{"type": "response.create", "event_id": "\ud800"}',
    ):
        (error,) = client.checked(told(client.adapter.received(data)))
        assert error["type"] == "error"


def test_dropped_frames_are_no_errors(client: Client) -> None:
    for event in (FrameSettled(0, 0, "dropped", "rate"), FrameSettled(1, 0, "error", "failed"), FramesIngested(1, 0)):
        assert client.adapter.emitted(event) == []


def test_watches_are_set_by_the_session_and_speak_unasked(client: Client) -> None:
    watches = [{"id": "dog", "question": "Is there a dog?", "every_s": 5}]
    session = client.updates(inf_stream={"watches": watches})
    assert session["inf_stream"]["watches"][0]["cooldown_s"] == 30.0
    assert client.watchman.watches == [Watch("dog", "Is there a dog?", every_s=5.0)]
    client.updates(instructions="x")
    assert client.watchman.watches, "an update changes only what it names"
    alert = Alert(client.watchman.watches[0], "Yes, a dog.", 9_500_000_000, 4, (Evidence(9_000_000_000, 0.5),), {})
    messages = client.checked(told(client.adapter.alerted(alert)))
    assert messages[0]["type"] == "response.created"
    assert messages[0]["response"]["metadata"] == {"trigger": "dog", "stream_time_s": "9.500"}
    done = messages[-1]["response"]
    assert (done["status"], done["output"][0]["content"][0]["text"]) == ("completed", "Yes, a dog.")
    assert done["metadata"]["trigger"] == "dog"
    assert client.updates(inf_stream={"watches": []})["inf_stream"]["watches"] == []


# ---- kept on disk --------------------------------------------------------------------------------------


def test_a_restored_client_has_its_settings_items_and_open_responses(client: Client) -> None:
    client.updates(instructions="be kind", max_output_tokens=7, tools=[{"type": "function", "name": "f"}])
    client.says("conversation.item.create", item=text_item("one") | {"id": "first"})
    client.asks()
    client.hears("an ", "answer")
    client.session.has_begun = True
    client.updates(instructions="be rude")
    client.says("conversation.item.create", item=text_item("two") | {"id": "second"})
    response_id = client.asks(metadata={"mine": "yes"}, max_output_tokens=5)
    (question, _) = client.session.asked[-1]
    client.says("conversation.item.create", item=text_item("three") | {"id": "third"})
    kept = json.dumps(client.adapter.state().facts)
    assert "handle" not in kept
    assert isinstance(client.adapter, DurableAdapter)
    again = Client()
    again.session.has_begun = True
    again.adapter.restore(State(facts=json.loads(kept)))
    assert told(again.adapter.opened()) == told(client.adapter.opened())
    assert again.fails("response.create")[0] == "conversation_already_has_active_response"
    assert again.fails("conversation.item.create", item=text_item("x") | {"id": "first"})[0] == "item_id_in_use"
    for adapter in (client.adapter, again.adapter):
        adapter.emitted(Warned("answer is lost", 0))
    messages, twin = (told(one.adapter.emitted(unanswered(question, FinishReason.FAILED))) for one in (client, again))
    assert again.checked(messages) == twin
    assert (messages[-1]["response"]["id"], messages[-1]["response"]["status"]) == (response_id, "failed")
    assert messages[-1]["response"]["status_details"]["error"]["message"] == "answer is lost"
    again.asks()
    question, _ = again.session.asked[-1]
    assert question.text == "be rude\n\nthree"
    client.says("conversation.item.delete", item_id="third")
    client.adapter.state()
    assert json.loads(kept)["unasked"][0]["id"] == "third", "what was kept shares nothing with what goes on"


@pytest.mark.parametrize(
    "broken",
    [
        {"config": None},
        {"items": [{"id": "x"}]},
        {"unasked": None},
        {"responses": []},
        {"conversation_id": 1},
        {"late_instructions": None},
    ],
)
def test_a_state_that_no_client_had_is_refused(client: Client, broken: dict[str, Any]) -> None:
    kept = client.adapter.state().facts
    with pytest.raises(StateError):
        Client().adapter.restore(State(facts=kept | broken))
