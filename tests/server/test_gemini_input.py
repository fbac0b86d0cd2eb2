"""The Gemini Live protocol without a socket: the setup, and what the client says and shows."""

import json
from typing import Any

import pytest
from support.fake_session import LIMITS
from support.gemini_clients import blob
from support.gemini_listener import GeminiListener
from support.serving import picture

from inf_stream.server.protocols.adapter import HangUp, TakeFrames
from inf_stream.server.protocols.gemini import read_first
from inf_stream.server.protocols.messages import MessageError
from inf_stream.server.sessions.engines import SessionOptions


@pytest.fixture
def client() -> GeminiListener:
    return GeminiListener({"model": "models/any"})


def frames_of(client: GeminiListener, **message: Any) -> TakeFrames:
    (frames,) = client.adapter.received(json.dumps(message))
    assert isinstance(frames, TakeFrames)
    return frames


# ---- setup -------------------------------------------------------------------------------------------


def test_the_setup_comes_first_and_is_answered() -> None:
    client = GeminiListener({"model": "models/any"})
    assert client.greeting == [{"setupComplete": {"sessionId": "sess_fake"}}]
    assert not client.adapter.may_return(lost=True)


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
    client = GeminiListener(camel if case == "camel" else snake)
    assert client.session.options == SessionOptions("be kind\n\nbe brief", 300)
    client.asks("how?")
    assert client.session.asked[-1][0].max_tokens == 12
    assert client.hears("a")[1]["serverContent"]["modelTurn"]["parts"][0]["partMetadata"]["inf_stream"].keys() == {
        "reason", "stream_time_s", "evidence", "ttft_s", "stats"}  # fmt: skip


def test_more_than_the_server_has_is_cut_to_that(client: GeminiListener) -> None:
    client = GeminiListener(
        {"contextWindowCompression": {"triggerTokens": 10**9}, "generationConfig": {"maxOutputTokens": 999}}
    )
    assert client.session.options.budget_tokens == LIMITS.budget_tokens
    client.asks("how?")
    assert client.session.asked[-1][0].max_tokens == LIMITS.answer_tokens
    assert GeminiListener({"contextWindowCompression": {"slidingWindow": {}}}).session.options.budget_tokens is None


def test_what_a_text_server_has_no_use_for_is_taken_and_named_with_the_answer() -> None:
    client = GeminiListener(
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
    many = {f"field{n:03}": 1 for n in range(900)}
    client = GeminiListener(many | {"generationConfig": many})
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
    assert words in GeminiListener().fails(setup=setup)


def test_out_of_order_is_hung_up_on(client: GeminiListener) -> None:
    assert "came already" in client.fails(setup={})
    for message in (
        {"clientContent": {}},
        {"realtimeInput": {"text": "x"}},
        {"toolResponse": {}},
        {"contextUpdate": {}},
    ):
        new = GeminiListener()
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
    client = GeminiListener()
    (hung_up,) = client.adapter.received(message)
    assert isinstance(hung_up, HangUp)
    assert hung_up.code == 1007
    assert hung_up.reason
    if message != '{"setup": {"generationConfig": {"maxOutputTokens": ' + "9" * 5000 + "}}}":
        with pytest.raises(MessageError):
            read_first(message)


# ---- what the client says ----------------------------------------------------------------------------


def test_turns_are_asked_once_they_are_complete(client: GeminiListener) -> None:
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


def test_frames_go_into_the_stream_and_what_came_with_them_is_asked_after_them(client: GeminiListener) -> None:
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


def test_images_in_the_alphabet_for_urls_are_read(client: GeminiListener) -> None:
    data = bytes(range(256)) * 3
    coded = blob(data)["data"]
    assert set("+/") <= set(coded)
    given = {"mimeType": "image/jpeg", "data": coded.replace("+", "-").replace("/", "_")}
    assert frames_of(client, realtimeInput={"video": given}).images == (data,)


def test_a_frame_that_cannot_be_taken_hangs_up_and_nothing_is_asked(client: GeminiListener) -> None:
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
def test_bad_input_is_hung_up_on_with_the_field(client: GeminiListener, message: dict[str, Any], words: str) -> None:
    assert words in client.fails(**message)
    assert client.session.asked == []


def test_a_blind_model_refuses_frames_at_once() -> None:
    client = GeminiListener({}, sees=False)
    assert "reads text only" in client.fails(realtimeInput={"video": blob()})


def test_text_that_is_never_asked_does_not_pile_up(client: GeminiListener) -> None:
    for _ in range(4):
        client.says(clientContent={"turns": [{"parts": [{"text": "x" * 50}]}]})
    assert "more than 200 characters wait to be asked" in client.fails(
        clientContent={"turns": [{"parts": [{"text": "y"}]}]}
    )


def test_a_history_is_remembered_and_not_answered() -> None:
    client = GeminiListener({"historyConfig": {"initialHistoryInClientContent": True}})
    client.asks("I am Ada")
    assert client.session.asked == []
    client.says(realtimeInput={"text": "who am I?"})
    assert client.asked == ["I am Ada\nwho am I?"]
    client.asks("and now?")
    assert client.asked[-1].endswith("and now?"), "the first content alone was history"


def test_what_an_activity_says_is_asked_at_its_end(client: GeminiListener) -> None:
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


def test_new_instructions_lead_the_questions_once_the_stream_has_begun(client: GeminiListener) -> None:
    client.says(contextUpdate={"systemInstruction": {"parts": [{"text": "be kind"}]}, "tools": {"tools": []}})
    assert client.session.options.instructions == "be kind"
    client.asks("how?")
    client.says(contextUpdate={"systemInstruction": "be sad"})
    client.asks("and now?")
    assert client.asked == ["how?", "be sad\n\nhow?\nand now?"]
    assert client.hung_up is None
