"""The Gemini Live protocol without a socket: what comes in, what is told, each message by the client's own schema."""

import dataclasses
import json
from typing import Any

import pytest
from google.genai.types import LiveServerMessage
from support.fake_session import LIMITS, WATCH_LIMITS, FakeSession, answer, told
from support.gemini_clients import blob
from support.serving import picture

from inf_stream.base.errors import SessionError
from inf_stream.base.events import AnswerStarted, Evidence, FinishReason, FramesIngested, Warned
from inf_stream.server.protocols.adapter import HangUp, Reply, TakeFrames
from inf_stream.server.protocols.gemini import GeminiAdapter, read_first
from inf_stream.server.protocols.messages import MessageError
from inf_stream.server.protocols.watches import Alert, Watch, Watchman
from inf_stream.server.sessions.engines import SessionOptions
from inf_stream.server.sessions.live_session import FrameSettled

STATS = {"input_tokens": 40, "cached_tokens": 30, "image_tokens": 20, "tokens_kept": 44}


class Client:
    """A client that checks all it is told."""

    def __init__(self, setup: dict[str, Any] | None = None, **limits: Any) -> None:
        self.session = FakeSession()
        self.watchman = Watchman(WATCH_LIMITS)
        self.adapter = GeminiAdapter(self.session, dataclasses.replace(LIMITS, **limits), self.watchman, "handle")
        self.told = 0
        self.hung_up: HangUp | None = None
        assert self.adapter.opened() == []
        if setup is not None:
            self.greeting = self.says(setup=setup)

    def checked(self, replies: Any) -> list[dict[str, Any]]:
        messages = []
        for message in told(replies):
            self.told += 1
            messages.append(self.adapter.numbered(message, self.told))
            LiveServerMessage.model_validate_json(json.dumps(messages[-1]))
        for reply in replies:
            if isinstance(reply, HangUp):
                self.hung_up = reply
        return messages

    def says(self, **message: Any) -> list[dict[str, Any]]:
        """A message, whose frames are taken."""
        heard = []
        for reply in self.adapter.received(json.dumps(message)):
            replies: Any = [reply]
            if isinstance(reply, TakeFrames):
                replies = self.adapter.frames_taken(reply.tag, range(len(reply.images)))
            heard += self.checked(replies)
        return heard

    def fails(self, **message: Any) -> str:
        assert self.says(**message) == []
        assert self.hung_up is not None, "refused"
        assert self.hung_up.code == 1007
        return self.hung_up.reason

    def asks(self, *texts: str, **more: Any) -> None:
        turn = {"role": "user", "parts": [{"text": text} for text in texts]}
        assert self.says(clientContent={"turns": [turn], "turnComplete": True, **more}) == []

    def hears(self, *pieces: str, at: int = -1, reason: FinishReason = FinishReason.STOP, **more: Any) -> Any:
        question, _ = self.session.asked[at]
        return self.checked(_answer(self.adapter, question, reason, *pieces, **more))

    @property
    def asked(self) -> list[str]:
        return [question.text for question, _ in self.session.asked]


def _answer(adapter: GeminiAdapter, *what: Any, **more: Any) -> list[Reply]:
    """As `support.fake_session.answer`, with what is no message."""
    replies: list[Reply] = []

    class Heard:
        def emitted(self, event: Any) -> Any:
            replies.extend(found := adapter.emitted(event))
            return found

    answer(Heard(), *what, **more)  # type: ignore[arg-type]
    return replies


@pytest.fixture
def client() -> Client:
    return Client({"model": "models/any"})


def frames_of(client: Client, **message: Any) -> TakeFrames:
    (frames,) = client.adapter.received(json.dumps(message))
    assert isinstance(frames, TakeFrames)
    return frames


# ---- setup -------------------------------------------------------------------------------------------


def test_the_setup_comes_first_and_is_answered() -> None:
    client = Client({"model": "models/any"})
    assert client.greeting == [{"setupComplete": {"sessionId": "sess_fake"}}]
    assert not client.adapter.may_return


@pytest.mark.parametrize("case", ["camel", "snake"])
def test_what_can_be_chosen_is_chosen_in_either_case(case: str) -> None:
    camel = {
        "model": "models/any",
        "generationConfig": {"responseModalities": ["TEXT"], "maxOutputTokens": 12, "candidateCount": None},
        "systemInstruction": {"role": "user", "parts": [{"text": "be kind"}, {"text": ""}, {"text": "be brief"}]},
        "contextWindowCompression": {"triggerTokens": "300", "slidingWindow": {"targetTokens": 200}},
    }
    snake = {
        "model": "models/any",
        "generation_config": {"response_modalities": ["text"], "max_output_tokens": "12"},
        "system_instruction": "be kind\n\nbe brief",
        "context_window_compression": {"sliding_window": {"target_tokens": 300}},
    }
    client = Client(camel if case == "camel" else snake)
    assert client.session.options == SessionOptions("be kind\n\nbe brief", 300)
    client.asks("how?")
    assert client.session.asked[-1][0].max_tokens == 12
    assert client.hears("a")[1]["serverContent"]["modelTurn"]["parts"][0]["partMetadata"]["inf_stream"].keys() == {
        "reason", "stream_time_s", "evidence", "ttft_s", "stats"}  # fmt: skip


def test_more_than_the_server_has_is_cut_to_that(client: Client) -> None:
    client = Client(
        {"contextWindowCompression": {"triggerTokens": 10**9}, "generationConfig": {"maxOutputTokens": 999}}
    )
    assert client.session.options.budget_tokens == LIMITS.budget_tokens
    client.asks("how?")
    assert client.session.asked[-1][0].max_tokens == LIMITS.answer_tokens
    assert Client({"contextWindowCompression": {"slidingWindow": {}}}).session.options.budget_tokens is None


def test_what_a_text_server_has_no_use_for_is_taken_and_named_with_the_answer() -> None:
    client = Client(
        {
            "generationConfig": {"responseModalities": ["TEXT", "AUDIO"], "temperature": 0, "speechConfig": {}},
            "tools": [{"functionDeclarations": [{"name": "f"}]}],
            "outputAudioTranscription": {},
            "safetySettings": [],
            "proactivity": None,
            "somethingNew": {"colour": "red"},
            "x" * 500: 1,
        }
    )
    client.asks("how?")
    (_, last, _) = client.hears("a")
    facts = last["serverContent"]["modelTurn"]["parts"][0]["partMetadata"]["inf_stream"]
    assert facts["ignored"] == [
        "tools",
        "outputAudioTranscription",
        "somethingNew",
        "x" * 64,
        "generationConfig.temperature",
        "generationConfig.speechConfig",
        "generationConfig.responseModalities",
    ]
    client = Client({f"field{n:03}": 1 for n in range(900)})
    client.asks("how?")
    facts = client.hears()[0]["serverContent"]["modelTurn"]["parts"][0]["partMetadata"]["inf_stream"]
    assert len(facts["ignored"]) == 32, "however many there are"


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        ({"generationConfig": {"responseModalities": ["AUDIO"]}}, "answers in text alone; ask for ['TEXT']"),
        ({"generationConfig": {"responseModalities": "TEXT"}}, "responseModalities' is 'TEXT'; a list is expected"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "'generationConfig.maxOutputTokens' is 0"),
        ({"generationConfig": {"maxOutputTokens": "9" * 40}}, "'generationConfig.maxOutputTokens'"),
        ({"generationConfig": {"maxOutputTokens": True}}, "'generationConfig.maxOutputTokens' is True"),
        ({"generationConfig": []}, "'generationConfig' is a list"),
        ({"contextWindowCompression": {"triggerTokens": -1}}, "'contextWindowCompression.triggerTokens' is -1"),
        ({"contextWindowCompression": {"triggerTokens": 9, "slidingWindow": {"targetTokens": "x"}}}, "targetTokens"),
        ({"contextWindowCompression": {"slidingWindow": 5}}, "'contextWindowCompression.slidingWindow' is 5"),
        ({"systemInstruction": 5}, "'systemInstruction' is 5; an object"),
        ({"systemInstruction": "x" * 201}, "'systemInstruction' has 201 characters"),
        ({"systemInstruction": {"parts": [{"text": "x" * 150}] * 2}}, "'systemInstruction' has 302 characters"),
        ({"systemInstruction": {"parts": [{"text": 5}]}}, "'systemInstruction.parts[0].text' is 5"),
        ({"systemInstruction": {"parts": ["x"]}}, "'systemInstruction.parts[0]'"),
        ({"systemInstruction": {"parts": [{"partMetadata": {"inf_stream": 5}}]}}, "partMetadata.inf_stream' is 5"),
        ({"systemInstruction": {"parts": [{"partMetadata": {"inf_stream": {"watches": [{"id": "a"}]}}}]}},
         "'watches[0].question' is missing"),
        ({"systemInstruction": {"parts": [{"partMetadata": {"inf_stream": {"watches": []}}}] * 2}}, "put all into one"),
        ({"sessionResumption": "x"}, "'sessionResumption' is 'x'"),
        ({"sessionResumption": {"transparent": "yes"}}, "'sessionResumption.transparent'"),
        ({"historyConfig": {"initialHistoryInClientContent": 1}}, "initialHistoryInClientContent' is 1"),
        ({"realtimeInputConfig": []}, "'realtimeInputConfig' is a list"),
    ],
)  # fmt: skip
def test_a_bad_setup_is_hung_up_on_with_the_field(setup: dict[str, Any], words: str) -> None:
    assert words in Client().fails(setup=setup)


def test_out_of_order_is_hung_up_on(client: Client) -> None:
    assert "came already" in client.fails(setup={})
    for message in (
        {"clientContent": {}},
        {"realtimeInput": {"text": "x"}},
        {"toolResponse": {}},
        {"contextUpdate": {}},
    ):
        new = Client()
        assert "came before the setup" in new.fails(**message)
        assert new.session.asked == []


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xfe",
        "{",
        "[]",
        "null",
        "{}",
        '{"nonsense": {}}',
        '{"setup": null}',
        '{"setup": {}, "clientContent": {}}',
        '{"setup": []}',
        '{"setup": {"a": NaN}}',
        '{"setup": ' + '{"a":' * 40 + "1" + "}" * 40 + "}",
        "[" * 100_000,
        '{"setup": {"generationConfig": {"maxOutputTokens": ' + "9" * 5000 + "}}}",
        '{"setup": {"model": "\\ud800"}}',
    ],
)
def test_what_is_no_message_is_hung_up_on(message: str | bytes) -> None:
    client = Client()
    (hung_up,) = client.adapter.received(message)
    assert isinstance(hung_up, HangUp)
    assert hung_up.code == 1007
    assert hung_up.reason
    if message != '{"setup": {"generationConfig": {"maxOutputTokens": ' + "9" * 5000 + "}}}":
        with pytest.raises(MessageError):
            read_first(message)


# ---- what the client says ----------------------------------------------------------------------------


def test_turns_are_asked_once_they_are_complete(client: Client) -> None:
    assert client.says(clientContent={"turns": [{"role": "user", "parts": [{"text": "one"}]}]}) == []
    turns = [
        {"role": "model", "parts": [{"text": "yes"}, {"text": "hm", "thought": True}, {}]},
        {"parts": [{"text": "two"}]},
        {"role": "user"},
    ]
    assert client.says(client_content={"turns": turns, "turn_complete": False}) == []
    assert client.session.asked == []
    assert client.says(clientContent={"turnComplete": True}) == []
    assert client.asked == ["one\n(You said earlier: yes)\ntwo"]
    assert client.session.asked[0][1], "after the frames that came before it"
    client.hears("a")
    client.says(clientContent={"turns": [], "turnComplete": True})
    assert client.asked[-1] == "", "the frames alone are asked about"


def test_an_answer_is_told_piece_by_piece_and_what_it_rests_on_at_its_end(client: Client) -> None:
    client.asks("how?")
    first, second, last, done = client.hears("a ", "b")
    for message, text in ((first, "a "), (second, "b")):
        assert message == {"serverContent": {"modelTurn": {"role": "model", "parts": [{"text": text}]}}}
    assert last["serverContent"]["generationComplete"] is True
    assert last["serverContent"]["modelTurn"]["parts"][0]["partMetadata"]["inf_stream"] == {
        "reason": "stop",
        "stream_time_s": 7.0,
        "evidence": [{"at_s": 3.0, "share": 0.75}, {"at_s": 1.5, "share": 0.125}],
        "ttft_s": 0.25,
        "stats": STATS,
    }
    assert done == {
        "serverContent": {"turnComplete": True},
        "usageMetadata": {
            "promptTokenCount": 40,
            "cachedContentTokenCount": 30,
            "responseTokenCount": 2,
            "totalTokenCount": 42,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 20}, {"modality": "IMAGE", "tokenCount": 20}],
            "responseTokensDetails": [{"modality": "TEXT", "tokenCount": 2}],
        },
    }
    client.asks("again?")
    assert client.hears("c", reason=FinishReason.LENGTH)[1]["serverContent"]["modelTurn"]["parts"][0]["partMetadata"][
        "inf_stream"]["reason"] == "length"  # fmt: skip


def test_frames_go_into_the_stream_and_what_came_with_them_is_asked_after_them(client: Client) -> None:
    for message in (
        {"realtimeInput": {"video": blob()}},
        {"realtime_input": {"video": {"mime_type": "IMAGE/JPEG", "data": blob()["data"].rstrip("=")}}},
        {"realtimeInput": {"mediaChunks": [blob(kind="image/png")]}},  # what it is shows in the file
    ):
        frames = frames_of(client, **message)
        assert frames.images == (picture(),)
        assert client.adapter.frames_taken(frames.tag, [0]) == []
    assert client.session.asked == []
    stamped = {"inlineData": blob(), "partMetadata": {"inf_stream": {"timestamp_ms": 1500, "colour": "red"}}}
    turn = {"parts": [{"text": "one"}, stamped, {"text": "two"}, {"inlineData": blob(timestamp_ms=2500)}]}
    frames = frames_of(client, clientContent={"turns": [turn], "turnComplete": True})
    assert frames.timestamps_ms == (1500.0, 2500.0)
    assert client.session.asked == []
    assert client.adapter.frames_taken(frames.tag, [1, 2]) == []
    assert client.asked == ["one\ntwo"]


def test_images_in_the_alphabet_for_urls_are_read(client: Client) -> None:
    data = bytes(range(256)) * 3
    coded = blob(data)["data"]
    assert set("+/") <= set(coded)
    given = {"mimeType": "image/jpeg", "data": coded.replace("+", "-").replace("/", "_")}
    assert frames_of(client, realtimeInput={"video": given}).images == (data,)


def test_a_frame_that_cannot_be_taken_hangs_up_and_nothing_is_asked(client: Client) -> None:
    frames = frames_of(client, clientContent={"turns": [{"parts": [{"inlineData": blob()}, {"text": "?"}]}],
                                              "turnComplete": True})  # fmt: skip
    client.checked(client.adapter.frames_refused(frames.tag, MessageError("the image is damaged")))
    assert client.hung_up == HangUp(1007, "the image is damaged")
    assert client.session.asked == []
    assert client.says(clientContent={"turnComplete": True}) == []
    assert client.asked == [""], "a refused message says nothing"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"realtimeInput": {"audio": blob(b"x", "audio/pcm;rate=16000")}}, "takes no audio"),
        ({"realtimeInput": {"video": blob(b"x", "audio/pcm")}}, "takes no audio"),
        ({"realtimeInput": {"mediaChunks": [blob(b"x", "audio/pcm")]}}, "takes no audio"),
        ({"realtimeInput": {"mediaChunks": {}}}, "'mediaChunks' is an object"),
        ({"realtimeInput": {"mediaChunks": [blob()] * 17}}, "at most 16"),
        ({"realtimeInput": {"video": blob(kind="video/mp4")}}, "'video.mimeType' is 'video/mp4'; image/jpeg"),
        ({"realtimeInput": {"video": {"data": "AAAA"}}}, "'video.mimeType' is missing"),
        ({"realtimeInput": {"video": {"mimeType": "image/png"}}}, "'video.data' is missing"),
        ({"realtimeInput": {"video": {"mimeType": 5, "data": ""}}}, "'video.mimeType' is 5"),
        ({"realtimeInput": {"video": {"mimeType": "image/png", "data": 5}}}, "'video.data' is no text"),
        ({"realtimeInput": {"video": {"mimeType": "image/png", "data": "%%%"}}}, "not valid base64"),
        ({"realtimeInput": {"video": {"mimeType": "image/png", "data": "A" * 6000}}}, "more than 4096 bytes"),
        ({"realtimeInput": {"video": blob(timestamp_ms=-5)}}, "'timestamp_ms' is -5"),
        ({"realtimeInput": {"video": []}}, "'video' is a list"),
        ({"realtimeInput": {"text": 5}}, "'text' is 5"),
        ({"realtimeInput": {"text": "x" * 201}}, "'text' has 201 characters"),
        ({"clientContent": {"turns": {}}}, "turns"),
        ({"clientContent": {"turns": ["x"]}}, "'turns[0]'"),
        ({"clientContent": {"turns": [{"role": "king"}]}}, "'turns[0].role' is 'king'"),
        ({"clientContent": {"turns": [{"role": ["user"]}]}}, "'turns[0].role' is a list"),
        ({"clientContent": {"turns": [{"parts": "x"}]}}, "'turns[0].parts' is 'x'"),
        ({"clientContent": {"turns": [{"parts": [{"text": "x"}] * 65}]}}, "at most 64"),
        ({"clientContent": {"turns": [{}] * 257}}, "at most 256"),
        ({"clientContent": {"turns": [{"parts": [{"text": "x" * 101}] * 2}]}}, "more than 200 characters wait"),
        ({"clientContent": {"turns": [{"parts": [{"fileData": {"fileUri": "file:///etc/passwd"}}]}]}}, "not fetched"),
        ({"clientContent": {"turns": [{"parts": [{"functionCall": {}}]}]}}, "tools are not supported"),
        ({"clientContent": {"turns": [{"role": "model", "parts": [{"inlineData": blob()}]}]}}, "an image of the model"),
        ({"clientContent": {"turnComplete": "yes"}}, "'turnComplete' is 'yes'"),
        ({"toolResponse": {"functionResponses": [{"id": "1"}]}}, "no tool was called"),
        ({"contextUpdate": {"systemInstruction": 5}}, "'systemInstruction' is 5"),
    ],
)
def test_bad_input_is_hung_up_on_with_the_field(client: Client, message: dict[str, Any], words: str) -> None:
    assert words in client.fails(**message)
    assert client.session.asked == []


def test_a_blind_model_refuses_frames_at_once() -> None:
    client = Client({}, sees=False)
    assert "reads text only" in client.fails(realtimeInput={"video": blob()})


def test_text_that_is_never_asked_does_not_pile_up(client: Client) -> None:
    for _ in range(4):
        client.says(clientContent={"turns": [{"parts": [{"text": "x" * 50}]}]})
    assert "more than 200 characters wait to be asked" in client.fails(
        clientContent={"turns": [{"parts": [{"text": "y"}]}]}
    )


def test_a_history_is_remembered_and_not_answered() -> None:
    client = Client({"historyConfig": {"initialHistoryInClientContent": True}})
    client.asks("I am Ada")
    assert client.session.asked == []
    client.says(realtimeInput={"text": "who am I?"})
    assert client.asked == ["I am Ada\nwho am I?"]
    client.asks("and now?")
    assert client.asked[-1].endswith("and now?"), "the first content alone was history"


def test_what_an_activity_says_is_asked_at_its_end(client: Client) -> None:
    client.says(realtimeInput={"activityStart": {}})
    client.says(realtimeInput={"text": "is it"})
    client.says(realtimeInput={"text": "red?"})
    assert client.session.asked == []
    client.says(realtimeInput={"activityEnd": {}})
    assert client.asked == ["is it\nred?"]
    client.hears("yes")
    client.says(realtimeInput={"activityStart": {}})
    client.says(realtimeInput={"activityEnd": {}})
    client.says(realtimeInput={"audioStreamEnd": True})
    client.says(realtimeInput={})
    assert len(client.asked) == 1, "nothing was said"
    client.says(realtimeInput={"text": "alone"})
    assert len(client.asked) == 2


def test_new_instructions_lead_the_questions_once_the_stream_has_begun(client: Client) -> None:
    client.says(contextUpdate={"systemInstruction": {"parts": [{"text": "be kind"}]}, "tools": {"tools": []}})
    assert client.session.options.instructions == "be kind"
    client.asks("how?")
    client.says(contextUpdate={"systemInstruction": "be sad"})
    client.asks("and now?")
    assert client.asked == ["how?", "be sad\n\nhow?\nand now?"]
    assert client.hung_up is None


# ---- barge-in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {"clientContent": {"turns": [{"parts": [{"text": "stop"}]}]}},
        {"clientContent": {}},
        {"realtimeInput": {"text": "stop"}},
        {"realtimeInput": {"activityStart": {}}},
    ],
)
def test_who_speaks_ends_the_running_answer(client: Client, message: dict[str, Any]) -> None:
    client.asks("how?")
    client.adapter.emitted(AnswerStarted(client.session.asked[0][0]))
    assert client.says(**message) == []
    assert client.session.cancelled == ["q1"]
    pieces = client.hears("a", at=0, reason=FinishReason.CANCELLED)
    assert pieces[1:-1] == [{"serverContent": {"interrupted": True}}]
    assert pieces[-1]["serverContent"] == {"turnComplete": True}
    assert pieces[-1]["usageMetadata"]["responseTokenCount"] == 1
    assert "how?" not in client.asked[1:], "what was begun is in the memory"


@pytest.mark.parametrize("message", [{"video": blob()}, {"audioStreamEnd": True}, {"activityEnd": {}}])
def test_what_is_shown_does_not_end_it(client: Client, message: dict[str, Any]) -> None:
    client.asks("how?")
    client.says(realtimeInput=message)
    assert client.session.cancelled == []


def test_what_was_not_begun_is_asked_with_what_comes_then(client: Client) -> None:
    for text in ("look at the dog", "no, the cat", "what colour is it?"):
        client.says(realtimeInput={"text": text})
    assert client.asked[-1] == "look at the dog\nno, the cat\nwhat colour is it?"
    assert client.session.cancelled == ["q1", "q2"]
    for at in (0, 1):
        *_, cut, done = client.hears(at=at, reason=FinishReason.CANCELLED, started=False)
        assert cut == {"serverContent": {"interrupted": True}}
        assert done["serverContent"] == {"turnComplete": True}
    assert client.hears("black")[-1]["serverContent"] == {"turnComplete": True}


def test_a_client_may_want_no_interruption() -> None:
    client = Client({"realtimeInputConfig": {"activityHandling": "NO_INTERRUPTION"}})
    client.asks("one?")
    client.asks("two?")
    assert client.asked == ["one?", "two?"]
    assert client.session.cancelled == []
    for at in (0, 1):
        assert client.hears("a", at=at)[-1]["serverContent"] == {"turnComplete": True}


# ---- answers that fail -------------------------------------------------------------------------------


def test_an_answer_that_cannot_be_given_hangs_up_with_why(client: Client) -> None:
    client.asks("how?")
    client.checked(client.adapter.emitted(Warned("answer to question 'q1' failed: no memory", 0)))
    (*_, done) = client.hears(reason=FinishReason.FAILED)
    assert done["serverContent"] == {"turnComplete": True}
    assert client.hung_up == HangUp(1011, "answer to question 'q1' failed: no memory")
    client.asks("again?")
    client.hears(reason=FinishReason.FAILED)
    assert client.hung_up == HangUp(1011, "the engine failed; the server's log says more")
    client.asks("again?")
    client.hears(reason=FinishReason.REFUSED, started=False)
    assert client.hung_up == HangUp(1013, "too many questions wait; ask again when one is answered")


def test_who_asks_a_session_that_ends_is_told_of_no_answer(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(_question_id: str) -> None:
        raise SessionError("closed")

    client.asks("how?")
    client.session.is_closed = True
    monkeypatch.setattr(client.session, "cancel", ended)
    heard = client.says(realtimeInput={"text": "and now?"})
    assert heard == [{"serverContent": {"interrupted": True}}, {"serverContent": {"turnComplete": True}}]
    assert client.hung_up is None, "the answer that runs still comes"


def test_what_becomes_of_frames_is_not_told(client: Client) -> None:
    for event in (FrameSettled(0, 0, "dropped", "rate"), FramesIngested(1, 5), Warned("1 frames left out", 0)):
        assert client.adapter.emitted(event) == []


# ---- coming back -------------------------------------------------------------------------------------


def test_a_handle_holds_the_message_that_brought_it() -> None:
    client = Client({"sessionResumption": {}})
    assert client.adapter.may_return
    assert client.greeting[1] == {"sessionResumptionUpdate": {"newHandle": "handle.2", "resumable": True}}
    client.asks("how?")
    assert client.hears("a")[-1] == {"sessionResumptionUpdate": {"newHandle": "handle.6", "resumable": True}}
    client.asks("how?")
    cut = client.hears(reason=FinishReason.CANCELLED)
    assert cut[-1]["sessionResumptionUpdate"]["newHandle"] == f"handle.{client.told}"
    assert read_first(json.dumps({"setup": {"sessionResumption": {"handle": "handle.6"}}})) == ("handle", 6)
    for no_handle in (
        {},
        {"sessionResumption": {}},
        {"sessionResumption": {"handle": ""}},
        {"sessionResumption": None},
    ):
        assert read_first(json.dumps({"setup": no_handle})) is None


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"clientContent": {}}, MessageError),
        ({"setup": {"sessionResumption": 5}}, MessageError),
        ({"setup": {"sessionResumption": {"handle": 5}}}, MessageError),
        ({"setup": {"sessionResumption": {"handle": "x" * 300}}}, MessageError),
        ({"setup": {"sessionResumption": {"handle": "handle"}}}, SessionError),
        ({"setup": {"sessionResumption": {"handle": "handle.-1"}}}, SessionError),
        ({"setup": {"sessionResumption": {"handle": "handle." + "9" * 30}}}, SessionError),
        ({"setup": {"sessionResumption": {"handle": "../x.5"}}}, SessionError),
        ({"setup": {"sessionResumption": {"handle": "handle.٣"}}}, SessionError),
    ],
)
def test_a_first_message_that_leads_nowhere(message: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        read_first(json.dumps(message))


def test_who_comes_back_is_greeted_first_and_may_change_what_can_still_be_changed() -> None:
    setup = {
        "sessionResumption": {},
        "systemInstruction": "be kind",
        "contextWindowCompression": {"triggerTokens": 300},
    }
    client = Client(setup | {"historyConfig": {"initialHistoryInClientContent": True}})
    client.asks("I am Ada")
    client.asks("how?")
    client.hears("a")
    client.says(realtimeInput={"activityStart": {}})
    told_before = client.told
    setup_complete, update = client.checked(client.adapter.resumed())
    assert setup_complete == {"setupComplete": {"sessionId": "sess_fake"}}
    assert update["sessionResumptionUpdate"]["newHandle"] == f"handle.{told_before + 2}"
    back = setup | {
        "sessionResumption": {"handle": "handle.2"},
        "historyConfig": {"initialHistoryInClientContent": True},
    }
    assert client.says(setup=back) == []
    client.says(realtimeInput={"text": "and now?"})
    assert client.asked[-1] == "and now?", "no history again, no activity, and the same instructions"
    client.checked(client.adapter.resumed())
    assert client.says(setup={"sessionResumption": {"handle": "handle.2"}, "systemInstruction": "be sad"}) == []
    client.asks("why?")
    assert client.asked[-1].startswith("be sad\n\n")
    client.checked(client.adapter.resumed())
    assert "memory has its size" in client.fails(setup={"contextWindowCompression": {"triggerTokens": 200}})


def test_a_message_of_the_connection_before_may_still_come_when_the_client_is_back() -> None:
    client = Client({"sessionResumption": {}})
    client.checked(client.adapter.resumed())
    assert client.says(realtimeInput={"text": "late"}) == []
    assert client.says(setup={"sessionResumption": {"handle": "handle.2"}}) == []
    assert client.asked == ["late"]


def test_who_keeps_its_messages_is_told_which_count() -> None:
    client = Client({"sessionResumption": {"transparent": True}})
    assert client.greeting[1]["sessionResumptionUpdate"]["lastConsumedClientMessageIndex"] == 0, "the setup"
    client.asks("how?")
    assert client.hears("a")[-1]["sessionResumptionUpdate"]["lastConsumedClientMessageIndex"] == 1
    heard = [client.says(realtimeInput={"video": blob()}) for _ in range(130)]
    updates = [message["sessionResumptionUpdate"]["lastConsumedClientMessageIndex"] for m in heard for message in m]
    assert updates == [65, 129]
    _, update = client.checked(client.adapter.resumed())
    assert update["sessionResumptionUpdate"]["lastConsumedClientMessageIndex"] == 131
    client.says(setup={"sessionResumption": {"handle": "handle.2", "transparent": True}})
    client.asks("how?")
    assert client.hears()[-1]["sessionResumptionUpdate"]["lastConsumedClientMessageIndex"] == 132


# ---- what comes by itself ----------------------------------------------------------------------------


def test_watches_are_set_with_the_instructions_and_an_alert_is_a_turn_of_its_own() -> None:
    watch = {"id": "dog", "question": "a dog?", "every_s": 1}
    part = {"text": "be kind", "partMetadata": {"inf_stream": {"watches": [watch]}}}
    client = Client({"systemInstruction": {"parts": [part]}, "sessionResumption": {}})
    assert client.watchman.watches == [Watch("dog", "a dog?", every_s=1.0)]
    assert client.session.options.instructions == "be kind"
    alert = Alert(client.watchman.watches[0], "Yes.", 5_000_000_000, 2, (Evidence(5_000_000_000, 1.0),), STATS)
    said, last, done, update = client.checked(client.adapter.alerted(alert))
    assert said["serverContent"]["modelTurn"]["parts"] == [{"text": "Yes."}]
    facts = last["serverContent"]["modelTurn"]["parts"][0]["partMetadata"]["inf_stream"]
    assert (facts["trigger"], facts["stream_time_s"], facts["evidence"]) == ("dog", 5.0, [{"at_s": 5.0, "share": 1.0}])
    assert done["serverContent"] == {"turnComplete": True}
    assert done["usageMetadata"]["responseTokenCount"] == 2
    assert "sessionResumptionUpdate" in update
    client.says(contextUpdate={"systemInstruction": {"parts": [{"text": "be kind"}]}})
    assert len(client.watchman.watches) == 1, "those not spoken of stay"
    part["partMetadata"] = {"inf_stream": {"watches": []}}
    client.says(contextUpdate={"systemInstruction": {"parts": [part]}})
    assert client.watchman.watches == []


@pytest.mark.parametrize(("left_s", "told_s"), [(59.999, "59s"), (20.0, "20s"), (0.2, "0s")])
def test_the_end_is_told_in_whole_seconds(client: Client, left_s: float, told_s: str) -> None:
    assert client.checked(client.adapter.ending(left_s)) == [{"goAway": {"timeLeft": told_s}}]
