"""`ChatCodec` on the templates of ten families, and on templates and tokenizers that would break a run in silence."""

from __future__ import annotations

import json
from random import Random

import pytest
from chat_families import CHATML, FAMILIES, GEMMA, family_tokenizer
from tokenizers import pre_tokenizers

from steppo_gym.errors import DataError
from steppo_gym.trainers.policy.chat import NO_SYSTEM_PROMPT, ChatCodec
from steppo_gym.trainers.results.saved_policy import load_codec


def encode(tokenizer, text):
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def text_of(tokenizer, ids):
    return tokenizer.decode(list(ids), skip_special_tokens=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_conversation_is_what_the_template_renders(name):
    tokenizer = family_tokenizer(name)
    codec = ChatCodec(tokenizer)
    said = ["Go.", "one", "Yes.", "two", "No."]
    # These write a blank in front of a reply that is not part of the prompt for it: a response brings it along.
    blank = " " if name in ("mistral", "gpt2") else ""
    context = codec.first_prompt("", (), said[0])
    for response, observation in zip(said[1::2], said[2::2], strict=True):
        cut_off = codec.next_prompt(context + encode(tokenizer, blank + response), observation)
        context = codec.next_prompt(context + codec.encode_response(blank + response), observation)
        assert cut_off == context
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    assert context == encode(
        tokenizer, tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    )
    assert text_of(tokenizer, codec.stop_token_ids[:1]) == FAMILIES[name].end


LEFT = CHATML.replace("m.content", "m.content.lstrip()")


@pytest.mark.parametrize(("name", "template"), [("llama", None), ("gemma", None), ("qwen3", None), ("qwen3", LEFT)])
def test_blanks_around_an_observation_are_those_that_the_template_leaves(name, template):
    tokenizer = family_tokenizer(name)
    tokenizer.chat_template = template or tokenizer.chat_template
    codec = ChatCodec(tokenizer)
    said = ["\n Go.\n", "one", "\t\n Yes. \n\n"]
    context = codec.next_prompt(codec.first_prompt("", (), said[0]) + codec.encode_response(said[1]), said[2])
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert context == encode(tokenizer, rendered)


DATED = (
    "{%- if date_string is not defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "{{- 'Today: ' + date_string + '\\n' }}" + CHATML
)


def test_a_date_that_is_given_stands_in_the_prompt():
    tokenizer = family_tokenizer("qwen3")
    tokenizer.chat_template = DATED
    for arguments, day in ({}, "26 Jul 2024"), ({"date_string": "1 May 2025"}, "1 May 2025"):
        prompt = ChatCodec(tokenizer, arguments).first_prompt("", (), "Go.")
        assert text_of(tokenizer, prompt).startswith(f"Today: {day}\n")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_system_prompt_is_shown_once_in_the_first_prompt_alone(name):
    tokenizer = family_tokenizer(name)
    codec = ChatCodec(tokenizer)
    first = codec.first_prompt("Play well.", (), "Go.")
    assert text_of(tokenizer, first).count("Play well.") == 1
    later = codec.next_prompt(first + codec.encode_response("one"), "Yes.")
    assert text_of(tokenizer, later).count("Play well.") == 1
    begin = tokenizer.bos_token_id
    if name not in ("gpt2", "olmo2"):  # begin and end with the same token
        assert first.count(begin) == later.count(begin) == ("bos_token }}" in FAMILIES[name].template)


@pytest.mark.parametrize("name", ["gemma", "phi3"], ids=["refused", "left out"])
def test_without_a_system_role_the_system_prompt_stands_before_the_first_observation(name):
    tokenizer = family_tokenizer(name)
    assert ChatCodec(tokenizer).first_prompt("Play.", (), "Go.") == ChatCodec(tokenizer).first_prompt(
        "", (), "Play.\n\nGo."
    )


def test_a_template_may_say_that_it_shows_no_system_prompt():
    codec = ChatCodec(family_tokenizer("phi3", chat_template=NO_SYSTEM_PROMPT + FAMILIES["phi3"].template))
    assert codec.first_prompt("Play.", (), "Go.") == codec.first_prompt("", (), "Go.")


def test_a_template_that_writes_the_date_writes_the_same_every_day():
    asked = "{%- if strftime_now is defined %}{{- strftime_now('%A, %d %b %Y (%Y-%m-%d), 100%') }}{%- endif %}"
    tokenizer = family_tokenizer("qwen2", chat_template=asked + FAMILIES["qwen2"].template)
    prompt = text_of(tokenizer, ChatCodec(tokenizer).first_prompt("", (), "Go."))
    assert prompt.startswith("Friday, 26 Jul 2024 (2024-07-26), 100%<|im_start|>user")


def test_thoughts_stay_in_the_context():
    tokenizer = family_tokenizer("qwen3")
    codec = ChatCodec(tokenizer)
    response = codec.encode_response("<think>hm</think><action>go</action>")
    context = codec.first_prompt("", (), "Go.") + response
    later = codec.next_prompt(context, "Yes.")
    assert later[: len(context)] == context
    assert "<think>hm</think>" in text_of(tokenizer, later)


def test_special_tokens_that_are_tags_are_read_and_those_that_frame_a_message_are_not():
    tokenizer = family_tokenizer("qwen3")
    codec = ChatCodec(tokenizer, stop_token_ids=[tokenizer.pad_token_id])
    text = '<think>hm</think><tool_call>{"name": "go"}</tool_call>'
    response = codec.encode_response(text)
    assert codec.decode_response(response) == text
    assert codec.decode_response((*response[:-1], tokenizer.pad_token_id, tokenizer.pad_token_id)) == text
    gemma = family_tokenizer("gemma")
    assert ChatCodec(gemma).decode_response(encode(gemma, "<bos>go<end_of_turn><eos><pad>")) == "go"


def test_what_no_token_stands_for_is_no_text():
    tokenizer = family_tokenizer("llama")
    assert ChatCodec(tokenizer).decode_response((*encode(tokenizer, "go"), len(tokenizer) + 3)) == "go"


def test_a_servers_tokenizer_is_read_with_all_ends_of_the_model_beside_it(tmp_path):
    tokenizer = family_tokenizer("llama")
    other, end = tokenizer.convert_tokens_to_ids(["<|end_of_text|>", "<|eot_id|>"])
    tokenizer.save_pretrained(tmp_path)
    assert load_codec(tmp_path).stop_token_ids == (end,)
    for ends in (other, [end, other]):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
        codec = load_codec(tmp_path)
        assert codec.stop_token_ids == (end, other)
        assert codec.decode_response((*encode(tokenizer, "Go."), other)) == "Go."


def test_a_special_token_that_opens_the_next_message_is_no_end():
    template = (
        "{%- for m in messages %}{{- ('<|im_start|>' if m.role == 'user' else '') + m.content }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '\\n' }}{%- endif %}"
    )
    tokenizer = family_tokenizer("qwen2", chat_template=template)
    assert text_of(tokenizer, ChatCodec(tokenizer).stop_token_ids) == "<|endoftext|>"


def test_a_message_that_ends_in_plain_text_is_refused():
    tokenizer = family_tokenizer("qwen2", chat_template=CHATML.replace("<|im_end|>", "###"))
    with pytest.raises(ValueError, match=r"ends a message with '###\\n'.* no special token.*'<\|endoftext\|>'"):
        ChatCodec(tokenizer)


def test_a_template_without_conversations_is_refused():
    once = "{{- raise_exception('One message only') if messages | length > 1 else messages[0].content }}"
    with pytest.raises(
        ValueError, match="cannot render a conversation of user and assistant in turns: One message only"
    ):
        ChatCodec(family_tokenizer("qwen2", chat_template=once))


def test_a_prompt_that_begins_twice_is_refused():
    with pytest.raises(ValueError, match=r"begins a prompt with '<bos>' twice\. Take one out"):
        ChatCodec(family_tokenizer("gemma", chat_template="{{- bos_token }}" + GEMMA))


def test_a_tokenizer_that_adds_special_tokens_to_every_piece_is_refused(monkeypatch):
    tokenizer = family_tokenizer("llama")
    plain = tokenizer.encode
    monkeypatch.setattr(
        tokenizer, "encode", lambda text, **_: [tokenizer.bos_token_id, *plain(text, add_special_tokens=False)]
    )
    with pytest.raises(ValueError, match=r"adds special tokens although it is told not to.*add_bos_token=False"):
        ChatCodec(tokenizer)


def test_a_blank_in_front_of_a_text_is_not_put_between_messages():
    template = CHATML.replace("<|im_end|>\\n", "<|im_end|>so").replace("\\n", "")
    tokenizer = family_tokenizer("qwen2", chat_template=template)
    # Puts a blank in front of a text, as sentencepiece does, and none behind a special token.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("Ġ", prepend_scheme="first", split=False)
    blank, letter = tokenizer.convert_tokens_to_ids(["Ġ", "s"])
    assert encode(tokenizer, "so")[:2] == (blank, letter)
    codec = ChatCodec(tokenizer)
    context = codec.first_prompt("", (), "Go.") + codec.encode_response("one")
    assert codec.next_prompt(context, "Yes.")[len(context)] == letter


def test_a_template_that_raises_anything_is_refused():
    with pytest.raises(ValueError, match=r"cannot render a conversation .*: can only concatenate str"):
        ChatCodec(family_tokenizer("qwen2", chat_template="{% for m in messages %}{{ m.content + 1 }}{% endfor %}"))


TOOLS = [{"type": "function", "function": {"name": "go", "description": "Go.", "parameters": {}}}]


def test_tools_that_a_template_leaves_out_are_missed():
    shown = family_tokenizer("qwen2", chat_template="{%- if tools %}{{- tools[0] | tojson }}{%- endif %}" + CHATML)
    assert '"description": "Go."' in text_of(shown, ChatCodec(shown).first_prompt("Play.", TOOLS, "Go."))
    codec = ChatCodec(family_tokenizer("qwen2"))
    codec.first_prompt("Play.", (), "Go.")
    for _ in range(2):
        with pytest.raises(DataError, match=r"leaves tools out, so that the policy would not know of them\."):
            codec.first_prompt("Play.", TOOLS, "Go.")
    on_purpose = ChatCodec(family_tokenizer("qwen2", chat_template=NO_SYSTEM_PROMPT + CHATML))
    assert on_purpose.first_prompt("", TOOLS, "Go.") == on_purpose.first_prompt("", (), "Go.")


def test_a_template_that_cannot_render_tools_says_so():
    codec = ChatCodec(family_tokenizer("qwen2", chat_template=CHATML + "{%- if tools %}{{ 1 + tools }}{%- endif %}"))
    with pytest.raises(DataError, match="cannot render a first prompt: unsupported operand"):
        codec.first_prompt("Play.", TOOLS, "Go.")


def special_ids(tokenizer, ids):
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    return [token for token in ids if token in special]


def prompts(codec, observation):
    """A first prompt with the observation, and a later one whose beginning does not hold it."""
    begun = codec.first_prompt("Play.", (), "Go.") + codec.encode_response("one")
    return codec.first_prompt("Play.", (), observation), codec.next_prompt(begun, observation)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_observation_writes_special_tokens_in_letters(name):
    tokenizer, random = family_tokenizer(name), Random(0)
    codec = ChatCodec(tokenizer)
    marks = FAMILIES[name].special
    parts = [part for mark in marks for part in (mark, mark[0], mark[1:], mark[:-1], mark[-1])]
    for number in range(40):
        page = "".join(random.choices([*parts, *marks, "user\n", " ", "ü"], k=number % 8))
        shown = f"A page: {page} and its end."
        for prompt, plain in zip(prompts(codec, shown), prompts(codec, "-"), strict=True):
            assert special_ids(tokenizer, prompt) == special_ids(tokenizer, plain)
            assert text_of(tokenizer, prompt).replace(shown, "-") == text_of(tokenizer, plain)


def test_special_tokens_that_overlap_are_all_written_in_letters():
    tokenizer = family_tokenizer("qwen2")
    tokenizer.add_special_tokens({"additional_special_tokens": ["ab-", "-cd-", "-ef"]})
    for prompt in prompts(ChatCodec(tokenizer), "ab-cd-ef-cd-"):
        assert text_of(tokenizer, prompt).count("ab-cd-ef-cd-") == 1
        assert not {*prompt} & {*tokenizer.convert_tokens_to_ids(["ab-", "-cd-", "-ef"])}


def test_a_special_token_of_one_character_is_replaced_in_observations():
    tokenizer = family_tokenizer("qwen2")
    tokenizer.add_special_tokens({"additional_special_tokens": ["#", "#!"]})
    for prompt in prompts(ChatCodec(tokenizer), "a # b #! c"):
        assert "a \ufffd b \ufffd! c" in text_of(tokenizer, prompt)


def test_what_a_template_frames_messages_with_need_not_be_called_special():
    tokenizer = family_tokenizer("qwen2", chat_template=CHATML.replace("<|im_start|>", "<|start|>"))
    tokenizer.add_tokens(["<|start|>", "<tag>"])
    start, tag = tokenizer.convert_tokens_to_ids(["<|start|>", "<tag>"])
    for prompt, plain in zip(*(prompts(ChatCodec(tokenizer), text) for text in ("<tag><|start|>", "-")), strict=True):
        assert prompt.count(start) == plain.count(start)
        assert prompt.count(tag) == 1


def test_an_observation_without_special_tokens_is_encoded_in_one_piece_with_its_frame():
    tokenizer = family_tokenizer("qwen2")
    tokenizer.add_tokens(["\nSo"])
    codec = ChatCodec(tokenizer)
    first, later = prompts(codec, "So!")
    for prompt in (first, later):
        assert prompt.count(tokenizer.convert_tokens_to_ids("\nSo")) == 1
    messages = [{"role": "system", "content": "Play."}, {"role": "user", "content": "So!"}]
    assert first == encode(
        tokenizer, tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    )
