"""`ChatCodec` on a chat template like Qwen3's: what it builds from tokens equals what the template renders from
text.
"""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from steppo_gym.trainers.policy.chat import ChatCodec

# Qwen3's, shortened: tools in the system message, no thoughts in the history, an empty thought if thinking is off.
TEMPLATE = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n\\nYou are provided with function signatures within <tools></tools> XML tags:\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
        {{- '<|im_start|>assistant\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOOLS = ({"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}},)


def make_tokenizer(template=TEMPLATE, eos_token="<|im_end|>"):
    """Bytes as tokens, and special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: number for number, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token=eos_token, chat_template=template
    )


def encode(tokenizer, text):
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def rendered(tokenizer, *contents, system="Play.", tools=(), **arguments):
    """Token ids of a whole conversation of user and assistant in turns, rendered by the template."""
    messages = [{"role": "system", "content": system}] if system else []
    for position, content in enumerate(contents):
        messages.append({"role": "assistant" if position % 2 else "user", "content": content})
    text = tokenizer.apply_chat_template(
        messages, tools=list(tools) or None, add_generation_prompt=True, tokenize=False, **arguments
    )
    return encode(tokenizer, text)


@pytest.fixture
def qwen():
    return make_tokenizer()


def test_a_first_prompt_is_the_template_of_system_prompt_and_observation(qwen):
    codec = ChatCodec(qwen)
    assert codec.first_prompt("Play.", (), "Go.") == rendered(qwen, "Go.")
    assert codec.first_prompt("", (), "Go.") == rendered(qwen, "Go.", system="")


def test_tools_are_rendered(qwen):
    prompt = ChatCodec(qwen).first_prompt("Play.", TOOLS, "Go.")
    assert prompt == rendered(qwen, "Go.", tools=TOOLS)
    assert '{"type": "function", "function": {"name": "search"' in qwen.decode(list(prompt))


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "cut off"])
@pytest.mark.parametrize(
    "observation", ["Done.", " two\nlines ", "", "ünïcode {{ braces }}", "steppo gym reply marker"]
)
def test_a_conversation_goes_on_as_the_template_would_render_it(qwen, ended, observation):
    codec = ChatCodec(qwen)
    ending = (qwen.convert_tokens_to_ids("<|im_end|>"),) if ended else ()
    context = codec.first_prompt("Play.", (), "Go.")
    said = ["Go."]
    for response in ("one", "two", "<action>three</action>"):
        context += encode(qwen, response) + ending
        prompt = codec.next_prompt(context, observation)
        assert prompt[: len(context)] == context
        said += [response, observation]
        assert prompt == rendered(qwen, *said)
        context = prompt


def test_sampled_ids_stay_even_if_the_tokenizer_would_choose_others():
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["ab"])
    codec = ChatCodec(tokenizer)
    response = tuple(tokenizer.convert_tokens_to_ids(["a", "b"])) + codec.stop_token_ids
    assert response[:2] != encode(tokenizer, "ab")
    context = codec.first_prompt("", (), "Go.") + response
    assert codec.next_prompt(context, "Yes.")[: len(context)] == context


def test_template_arguments_reach_every_prompt(qwen):
    codec = ChatCodec(qwen, {"enable_thinking": False})
    first = codec.first_prompt("", (), "Go.")
    assert first == rendered(qwen, "Go.", system="", enable_thinking=False)
    later = codec.next_prompt(first + codec.encode_response("one"), "Yes.")
    opening = encode(qwen, "<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert later[-len(opening) :] == opening
    assert ChatCodec(qwen).next_prompt(first, "Yes.")[-len(opening) :] != opening


def test_stop_tokens(qwen):
    end, text_end = qwen.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert ChatCodec(qwen).stop_token_ids == (end,)
    assert ChatCodec(qwen, stop_token_ids=[text_end, end]).stop_token_ids == (end, text_end)


def test_the_end_of_a_message_need_not_be_the_end_of_sequence():
    # As in base models whose end-of-sequence token is <|endoftext|>, with <|im_end|> as a stop token of generation.
    tokenizer = make_tokenizer(eos_token="<|endoftext|>")
    text_end, end = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    codec = ChatCodec(tokenizer, stop_token_ids=[text_end, end])
    assert set(codec.stop_token_ids) == {text_end, end}
    context = codec.first_prompt("Play.", (), "Go.") + encode(tokenizer, "one")
    for ending in ((), (end,)):
        assert codec.next_prompt(context + ending, "Yes.") == rendered(tokenizer, "Go.", "one", "Yes.")


def test_responses_of_scripts_end_with_a_stop_token_and_are_read_without_it(qwen):
    codec = ChatCodec(qwen)
    response = codec.encode_response("<action>go</action>")
    assert response[-1] == codec.stop_token_ids[0]
    assert codec.encode_response("go<|im_end|>") == codec.encode_response("go")
    assert codec.decode_response(response) == codec.decode_response(response[:-1]) == "<action>go</action>"


def test_blanks_in_front_of_punctuation_stay():
    words = [(piece, -1.0) for piece in (*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()))]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=None, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    cleaning = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIAL[0], eos_token=SPECIAL[2], chat_template=TEMPLATE,
        clean_up_tokenization_spaces=True,
    )  # fmt: skip
    codec, written = ChatCodec(cleaning), "click[men 's , size 5 . 5]"
    assert codec.decode_response(codec.encode_response(written)) == written


def test_a_template_without_an_end_of_message_gets_the_end_of_sequence():
    tokenizer = make_tokenizer(
        "{%- for message in messages %}{{- message.role + ': ' + message.content + '\\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- 'assistant: ' }}{%- endif %}"
    )
    codec = ChatCodec(tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    context = codec.first_prompt("", (), "Go.") + encode(tokenizer, "one")
    expected = (*context, end, *encode(tokenizer, "\nuser: Yes.\nassistant: "))
    assert codec.stop_token_ids == (end,)
    assert codec.next_prompt(context, "Yes.") == codec.next_prompt((*context, end), "Yes.") == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{- messages[-1].content }}",
        "{%- for message in messages %}{{- message.content + message.content }}{%- endfor %}",
    ],
    ids=["not at all", "twice"],
)
def test_a_template_that_does_not_print_every_message_once_is_refused(template):
    with pytest.raises(ValueError, match=r"does not print each message once.*Use another template"):
        ChatCodec(make_tokenizer(template))


def test_a_tokenizer_without_template_is_refused():
    with pytest.raises(ValueError, match=r"has no chat template\. Use a chat model"):
        ChatCodec(make_tokenizer(template=None))


def test_a_tokenizer_without_end_is_refused():
    with pytest.raises(ValueError, match="has no end-of-sequence token"):
        ChatCodec(make_tokenizer(eos_token=None))
