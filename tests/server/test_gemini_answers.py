"""The Gemini Live protocol without a socket: answers, interruptions, and clients that come back."""

import json
from typing import Any

import pytest
from support.fake_session import STATS
from support.gemini_clients import blob
from support.gemini_listener import GeminiListener

from inf_stream.base.errors import SessionError
from inf_stream.base.events import AnswerStarted, Evidence, FinishReason, FramesIngested, Warned
from inf_stream.server.protocols.adapter import HangUp
from inf_stream.server.protocols.gemini import read_first
from inf_stream.server.protocols.messages import MessageError
from inf_stream.server.protocols.watches import Alert, Watch
from inf_stream.server.sessions.live_session import FrameSettled


@pytest.fixture
def client() -> GeminiListener:
    return GeminiListener({"model": "models/any"})


def test_an_answer_is_told_piece_by_piece_and_what_it_rests_on_at_its_end(client: GeminiListener) -> None:
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


def test_a_question_about_a_time_that_is_not_there_is_answered_with_a_warning(client: GeminiListener) -> None:
    client.asks("what was shown at 12:30?")
    (_, last, _) = client.hears("a", warning="beware")
    assert last["serverContent"]["modelTurn"]["parts"][0]["partMetadata"]["inf_stream"]["warning"] == "beware"


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
def test_who_speaks_ends_the_running_answer(client: GeminiListener, message: dict[str, Any]) -> None:
    client.asks("how?")
    client.adapter.emitted(AnswerStarted(client.session.asked[0][0]))
    assert client.says(**message) == []
    assert client.session.cancelled == ["q1"]
    pieces = client.hears("a", at=0, reason=FinishReason.CANCELLED)
    assert pieces[1:-1] == [{"serverContent": {"interrupted": True}}]
    assert pieces[-1]["serverContent"] == {"turnComplete": True}
    assert pieces[-1]["usageMetadata"]["responseTokenCount"] == 1
    client.asks("and now?")
    assert "how?" not in client.asked[-1], "what was begun is in the memory"


@pytest.mark.parametrize("message", [{"video": blob()}, {"audioStreamEnd": True}, {"activityEnd": {}}])
def test_what_is_shown_does_not_end_it(client: GeminiListener, message: dict[str, Any]) -> None:
    client.asks("how?")
    client.says(realtimeInput=message)
    assert client.session.cancelled == []


def test_what_was_not_begun_is_asked_with_what_comes_then(client: GeminiListener) -> None:
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
    client = GeminiListener({"realtimeInputConfig": {"activityHandling": "NO_INTERRUPTION"}})
    client.asks("one?")
    client.asks("two?")
    assert client.asked == ["one?", "two?"]
    assert client.session.cancelled == []
    for at in (0, 1):
        assert client.hears("a", at=at)[-1]["serverContent"] == {"turnComplete": True}


# ---- answers that fail -------------------------------------------------------------------------------


def test_an_answer_that_cannot_be_given_hangs_up_with_why(client: GeminiListener) -> None:
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


def test_who_asks_a_session_that_ends_is_told_of_no_answer(
    client: GeminiListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(_question_id: str) -> None:
        raise SessionError("closed")

    client.asks("how?")
    client.session.is_closed = True
    monkeypatch.setattr(client.session, "cancel", ended)
    heard = client.says(realtimeInput={"text": "and now?"})
    assert heard == [{"serverContent": {"interrupted": True}}, {"serverContent": {"turnComplete": True}}]
    assert client.hung_up is None, "the answer that runs still comes"


def test_what_becomes_of_frames_is_not_told(client: GeminiListener) -> None:
    for event in (FrameSettled(0, 0, "dropped", "rate"), FramesIngested(1, 5), Warned("1 frames left out", 0)):
        assert client.adapter.emitted(event) == []


# ---- coming back -------------------------------------------------------------------------------------


def test_a_handle_holds_the_message_that_brought_it() -> None:
    client = GeminiListener({"sessionResumption": {}})
    assert client.adapter.may_return(lost=False)
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
    client = GeminiListener(setup | {"historyConfig": {"initialHistoryInClientContent": True}})
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
    client = GeminiListener({"sessionResumption": {}})
    client.checked(client.adapter.resumed())
    assert client.says(realtimeInput={"text": "late"}) == []
    assert client.says(setup={"sessionResumption": {"handle": "handle.2"}}) == []
    assert client.asked == ["late"]


def test_who_keeps_its_messages_is_told_which_count() -> None:
    client = GeminiListener({"sessionResumption": {"transparent": True}})
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
    client = GeminiListener({"sessionResumption": {}})
    assert [client.says(realtimeInput={"video": blob()}) for _ in range(130)] == [[]] * 130, "others keep none"


# ---- what comes by itself ----------------------------------------------------------------------------


def test_watches_are_set_with_the_instructions_and_an_alert_is_a_turn_of_its_own() -> None:
    watch = {"id": "dog", "question": "a dog?", "every_s": 1}
    part = {"text": "be kind", "partMetadata": {"inf_stream": {"watches": [watch]}}}
    client = GeminiListener({"systemInstruction": {"parts": [part]}, "sessionResumption": {}})
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
def test_the_end_is_told_in_whole_seconds(client: GeminiListener, left_s: float, told_s: str) -> None:
    assert client.checked(client.adapter.ending(left_s)) == [{"goAway": {"timeLeft": told_s}}]
