"""Responses that a parser must survive: what a confused, cut-off or malicious model may write."""

from __future__ import annotations

from collections.abc import Iterator

from steppo_gym.actions import format_tag, format_tool_call

_MILLION = 1_000_000

_ARGUMENTS = {
    "nothing": "",
    "blanks": " \t\r\n\u00a0\u2003\u2028",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x85",
    "null byte": "look\x00look",
    "lone surrogate": "look \ud800 at \udfff",
    "combining and invisible characters": "l\u0301o\u200bo\u202ek\ufeff \U000e0041",
    "other alphabets": "打开 冰箱 1 и ключ مفتاح 🗝\ufe0f",
    "format strings": "{} {0} {self.__class__} %s %(x)n ${HOME} \\N{DIGIT ONE} `id`",
    "code": "__import__('os').system('true')",
    "line breaks": "look\nlook\r\nlook",
    "markup": "<b>look</b> <!-- --> </action> </tool_call> <|im_end|>",
    "very long word": "a" * _MILLION,
    "very many words": "go " * (_MILLION // 3),
}

_TAGS = {
    "nested tags": "<TAG><TAG>look</TAG></TAG>",
    "tags in the wrong order": "</TAG>look<TAG>",
    "tag never closed": "<TAG>look",
    "two tags": "<TAG>look</TAG><TAG>look</TAG>",
    "many opening tags": "<TAG>" * (_MILLION // 5),
    "many thoughts": "<think></think>" * (_MILLION // 15),
    "thought never closed": "<think>" + "so " * 1000,
    "other case": "<Tag>look</Tag>",
}

_JSON = {
    "deep list": "[" * 100_000,
    "deep object": '{"name":' * 50_000,
    "closed deep list": "[" * 50_000 + "]" * 50_000,
    "huge number": "1" * 100_000,
    "no finite number": '{"name": "TOOL", "arguments": {"ARGUMENT": NaN}}',
    "escaped lone surrogate": '{"name": "TOOL", "arguments": {"ARGUMENT": "\\ud800"}}',
    "name is a list": '{"name": ["TOOL"], "arguments": {}}',
    "arguments are a list": '{"name": "TOOL", "arguments": ["look"]}',
    "arguments are null": '{"name": "TOOL", "arguments": null}',
    "argument is an object": '{"name": "TOOL", "arguments": {"ARGUMENT": {"ARGUMENT": "look"}}}',
    "argument is missing": '{"name": "TOOL"}',
    "argument too many": '{"name": "TOOL", "arguments": {"ARGUMENT": "look", "self": 1, "__class__": 2}}',
    "same name twice": '{"name": "TOOL", "name": "look", "arguments": {"ARGUMENT": "look", "ARGUMENT": 1}}',
    "text after the object": '{"name": "TOOL", "arguments": {"ARGUMENT": "look"}} and more',
    "single quotes": "{'name': 'TOOL'}",
}


def adversarial_texts(tag: str, tool: str, argument: str) -> Iterator[tuple[str, str]]:
    """Descriptions and texts; most of them are no valid action, some may be.

    Args:
        tag: the tag of an action.
        tool: the tool that takes an action.
        argument: the tool's argument.
    """
    for label, text in _ARGUMENTS.items():
        yield label, text
        yield f"{label} in a tag", format_tag(tag, text)
        yield f"{label} in a tool call", format_tool_call(tool, {argument: text})
    for label, text in _TAGS.items():
        yield label, text.replace("TAG", tag)
    for label, text in _JSON.items():
        yield f"{label} as JSON", f"<tool_call>{text.replace('TOOL', tool).replace('ARGUMENT', argument)}</tool_call>"
