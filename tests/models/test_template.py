"""Turns read off chat templates: short equivalents of the ones published with the supported families."""

import pytest
import torch
from support.tiny_models import tiny_tokenizer, tiny_weights

from inf_stream.models.stream_model import StreamModel
from inf_stream.models.template import PLAIN, TurnTemplate, turn_template

CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
QWEN2_VL = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nHelp.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOLVLM = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}"
    "{% if m['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    "{% for line in m['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}<image>{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
LLAVA_ONEVISION = (
    "{% for m in messages %}<|im_start|>{{ m['role'] + ' ' }}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'video') %}<video>{% endfor %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + c['text'] }}{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA3 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{% if messages[0].content is string %}{% set prefix = messages[0].content + '\n\n' %}"
    "{% else %}{% set prefix = messages[0].content[0].text + '\n\n' %}{% endif %}{% set rest = messages[1:] %}"
    "{% else %}{% set prefix = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ prefix if loop.first else '' }}{% if m.content is string %}{{ m.content | trim }}"
    "{% else %}{% for part in m.content %}{{ part.text | trim }}{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)
IGNORES_SYSTEM = (
    "{% for m in messages if m.role != 'system' %}{{ m.role | upper }}: {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
MISTRAL = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}<s>{% for m in rest %}{% if m.role == 'user' %}"
    "[INST] {% if loop.last and system is defined %}{{ system + '\n\n' }}{% endif %}{{ m.content + ' [/INST]' }}"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)


def turns(template: str | None, system: str = "") -> TurnTemplate:
    return turn_template(tiny_tokenizer(template, bos_token="<bos>"), system)


def test_default_system_prompt_of_the_template_opens_the_stream() -> None:
    found = turns(CHATML)
    assert found.opening == "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n"
    assert found.ask == "<|im_end|>\n<|im_start|>assistant\n"
    assert found.again == "<|im_end|>\n<|im_start|>user\n"


def test_own_system_prompt_takes_its_place() -> None:
    found = turns(CHATML, "Watch the door, @first@!")
    assert found.opening == "<|im_start|>system\nWatch the door, @first@!<|im_end|>\n<|im_start|>user\n"
    assert found.again == "<|im_end|>\n<|im_start|>user\n"


def test_qwen3_answers_without_thinking() -> None:
    assert turns(QWEN3).ask == "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


@pytest.mark.parametrize("system", ["", "Look."])
def test_qwen2_vl(system: str) -> None:
    found = turns(QWEN2_VL, system)
    assert found.opening == f"<|im_start|>system\n{system or 'Help.'}<|im_end|>\n<|im_start|>user\n"
    assert (found.ask, found.again) == ("<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n<|im_start|>user\n")


def test_templates_that_take_contents_in_parts() -> None:
    found = turns(SMOLVLM, "Look.")
    assert found.opening == "<|im_start|>System: Look.<end_of_utterance>\nUser: "
    assert (found.ask, found.again) == ("<end_of_utterance>\nAssistant:", "<end_of_utterance>\nUser: ")
    found = turns(LLAVA_ONEVISION)
    assert found.opening == "<|im_start|>user \n"
    assert (found.ask, found.again) == ("<|im_end|><|im_start|>assistant\n", "<|im_end|><|im_start|>user \n")


def test_gemma3_puts_the_system_prompt_into_the_first_user_turn() -> None:
    found = turns(GEMMA3, "Look.")
    assert found.opening == "<bos><start_of_turn>user\nLook.\n\n"
    assert found.ask == "<end_of_turn>\n<start_of_turn>model\n"
    assert found.again == "<end_of_turn>\n<start_of_turn>user\n"


@pytest.mark.parametrize("template", [NO_SYSTEM, IGNORES_SYSTEM])
def test_without_a_system_role_the_prompt_heads_the_first_user_content(template: str) -> None:
    plain, found = turns(template), turns(template, "Look.")
    assert found.opening == plain.opening + "Look.\n\n"
    assert (found.ask, found.again) == (plain.ask, plain.again)


def test_a_system_prompt_repeated_in_the_last_turn_is_said_once() -> None:
    found = turns(MISTRAL, "Look.")
    assert found == TurnTemplate(opening="<s>[INST] Look.\n\n", ask=" [/INST]", again="</s>[INST] ")


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{{ raise_exception('no') }}",
        "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
        "{% for m in messages | reverse %}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{% if m.content is not string %}{{ m.content }}{% endif %}{% endfor %}",
        "{{ messages[7].content }}",
    ],
    ids=["none", "refuses", "repeats", "reverses", "prints parts", "empty"],
)
def test_plain_text_where_there_is_no_template_to_use(template: str | None) -> None:
    assert turns(template) == PLAIN
    assert turns(template, "Look.") == TurnTemplate("Look.\n\n", PLAIN.ask, PLAIN.again)


def model_with(template: str | None, **names: str) -> StreamModel:
    weights = tiny_weights("llama")
    object.__setattr__(weights, "tokenizer", tiny_tokenizer(template, **names))
    return StreamModel(weights)


def test_an_answer_ends_with_the_token_that_closes_its_turn() -> None:
    model = model_with(SMOLVLM)
    assert model.stop_ids == {
        model.tokenizer.convert_tokens_to_ids(t) for t in (model.tokenizer.eos_token, "<end_of_utterance>")
    }


def test_the_stream_opens_with_what_the_template_puts_first() -> None:
    model = model_with(GEMMA3, bos_token="<bos>")
    assert model.tokenizer.decode(model.opening_ids()) == "<bos><start_of_turn>user\n"
    assert model_with(None).opening_ids().dtype == torch.int64
