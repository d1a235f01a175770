"""Prompts through a tokenizer's chat template, token in and token out.

A first prompt is the template applied to system prompt and observation. A later prompt of the append context is never
rendered again from text: the sampled ids stay as they are, thoughts that the template would leave out of earlier
messages included, and only the template's tokens between the end of a response and the start of the next are added.
They are found once, by rendering a short conversation and taking what follows the assistant's message.

Templates differ in what they know. Where one has no system role, the system prompt stands in front of the first
observation; where a message ends with another token than the end of the sequence, that token ends responses. All this
is found out when a codec is made, and what cannot be served is refused there. Blanks that a template takes from around
a message are taken from later observations too, and today's date is one that stays.

What an environment shows is text that others may have written, a passage or a product's description. Where it holds
the text of a special token, "<|im_end|>", the policy reads these letters and not the token, so that no observation ends
its message or speaks in another role. `split_special_tokens` of transformers does the same for a whole text, which
here would hit the template's own tokens; so the text is cut inside of each of them and encoded piece by piece. An
observation without any is encoded in one piece with what is around it. What a template writes in plain letters
("user: ") is no token and cannot be told from an observation that writes the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from steppo_gym.errors import DataError
from steppo_gym.trainers.policy.prefill import common_prefix

NO_SYSTEM_PROMPT = "{#- no system prompt -#}"
"""In a template, says that system prompts, and with them tools, are left out on purpose."""

DAY = datetime(2024, 7, 26)
"""What templates write that ask for today's date, so that a run reads the same prompts whenever it goes on. Llama's
templates write this one where they cannot ask.
"""
_OF_DATES = ("-d", "-m", *"aAbBcdDeFHIjmMpSTxXyY")
"""What they ask for, as `strftime` has it."""
_TOLD = "".join(f" | replace('%{code}', '{DAY.strftime(f'%{code}')}')" for code in _OF_DATES)
_ON_THAT_DAY = f"{{%- macro strftime_now(format) -%}}{{{{- format{_TOLD} -}}}}{{%- endmacro -%}}"
"""Goes in front of a template, and in the place of what transformers calls by this name."""

_FAULTS = (TemplateError, TypeError, ValueError)
"""What a template raises: on purpose, or by an operation on what it does not expect."""

_SYSTEM, _REPLY, _NEXT = "steppo gym system marker", "steppo gym reply marker", "steppo gym observation marker"
_CUT = "\ud800"
"""Where an observation is cut: half of a surrogate pair, which no text that can be encoded holds."""


class ChatCodec:
    """Codec of a tokenizer that has a chat template.

    Args:
        tokenizer: the policy's tokenizer.
        template_arguments: extra variables of the template, for example `{"enable_thinking": False}`.
        stop_token_ids: further tokens that end a response, beside the end of a message.

    Raises:
        ValueError: the tokenizer has no chat template or end-of-sequence token, or its template cannot hold a
            conversation; the message says why.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template_arguments: dict[str, Any] | None = None,
        stop_token_ids: Sequence[int] = (),
    ) -> None:
        self.tokenizer, self.template_arguments = tokenizer, template_arguments or {}
        self._name = repr(tokenizer.name_or_path)
        if not tokenizer.chat_template:
            raise ValueError(
                f"The tokenizer {self._name} has no chat template. Use a chat model, or set tokenizer.chat_template."
            )
        if tokenizer.eos_token_id is None:
            raise ValueError(f"The tokenizer {self._name} has no end-of-sequence token.")
        template = tokenizer.chat_template
        dated = isinstance(template, str) and "strftime_now" in template
        self._template = f"{_ON_THAT_DAY}{template}" if dated else None
        """None for the tokenizer's own."""
        frame: list[Any] = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
        if set(frame[:2]) & set(self._encode("-")):
            raise ValueError(
                f"The tokenizer {self._name} adds special tokens although it is told not to, so a conversation cannot "
                "be put together from pieces. Load it with add_bos_token=False and add_eos_token=False."
            )
        self._special = {*tokenizer.all_special_ids}
        self._special |= {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}  # type: ignore[attr-defined]
        self._mark(self._special)
        self._shows_tools = NO_SYSTEM_PROMPT in str(tokenizer.chat_template)
        """Or leaves them out on purpose; False as long as that is not known."""
        self._system_in_observation = self._lacks_system_role()
        self._keeps_blanks = self._blanks_kept()
        end, self._after = self._end_of_message(stop_token_ids)
        self._end = str(self.tokenizer.decode([end]))
        self.stop_token_ids: tuple[int, ...] = (end, *(token for token in stop_token_ids if token != end))
        """Tokens that end a response; the first is the template's own."""
        self._silent = {end, *frame} | (self._special & set(stop_token_ids))
        # Some tokenizers do not call special what their templates frame messages with.
        frames = {*self._encode(self._end + self._after.replace(_NEXT, ""))} & {*tokenizer.added_tokens_decoder}  # type: ignore[attr-defined]
        self._mark(self._special | frames)
        self._check_beginning()

    def first_prompt(self, system_prompt: str, tools: Sequence[dict[str, Any]], observation: str) -> tuple[int, ...]:
        """System prompt, tools and observation, up to where the response begins.

        Raises:
            DataError: the template cannot render them, or leaves the tools out.
        """
        messages = self._first_messages(system_prompt, self._cut(observation))
        try:
            text = self._render(messages, tools)
        except _FAULTS as error:
            raise DataError(f"The chat template of {self._name} cannot render a first prompt: {error}.") from error
        if tools and not self._shows_tools:
            self._shows_tools = text != self._render(messages, ())
            if not self._shows_tools:
                raise DataError(
                    f"The chat template of {self._name} leaves tools out, so that the policy would not know of them. "
                    "Use --action_format tag, or another template."
                )
        return tuple(self._encode(text))

    def next_prompt(self, context: tuple[int, ...], observation: str) -> tuple[int, ...]:
        """The context as it is, the end of its last message unless sampled already, and the observation."""
        text, (before, behind) = self._cut(observation), self._keeps_blanks
        text = text if before else text.lstrip()
        text = text if behind else text.rstrip()
        # Encoded together with the token it follows: some tokenizers put a blank in front of a text's beginning.
        message = self._encode(self._end + self._after.replace(_NEXT, text))
        # A response that stopped at the end-of-message token has sampled it.
        return (*context, *message[context[-1:] == (self.stop_token_ids[0],) :])

    def encode_response(self, text: str) -> tuple[int, ...]:
        """The tokens of a response written by a script, with the token that ends it."""
        tokens = self._encode(text)
        return tuple(tokens) if tokens and tokens[-1] in self.stop_token_ids else (*tokens, self.stop_token_ids[0])

    def decode_response(self, token_ids: Sequence[int]) -> str:
        """The text without the tokens that end, begin or pad it; tags stay, even where they are special tokens."""
        shown = [token for token in token_ids if token not in self._silent]
        # Some tokenizers take blanks in front of punctuation away, unless they are told not to.
        return str(self.tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _first_messages(self, system_prompt: str, observation: str) -> list[dict[str, str]]:
        if system_prompt and self._system_in_observation:
            return [{"role": "user", "content": f"{system_prompt}\n\n{observation}"}]
        system = [{"role": "system", "content": system_prompt}] if system_prompt else []
        return [*system, {"role": "user", "content": observation}]

    def _lacks_system_role(self) -> bool:
        """Whether the template refuses a system message, or leaves it out without saying so."""
        if NO_SYSTEM_PROMPT in str(self.tokenizer.chat_template):
            return False
        messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _NEXT}]
        try:
            return _SYSTEM not in self._render(messages, ())
        except _FAULTS:
            return True

    def _blanks_kept(self) -> tuple[bool, bool]:
        """Whether the template keeps blanks before an observation, and behind it; Llama's and Gemma's do not."""
        try:
            shown = self._render([{"role": "user", "content": f"\n {_NEXT} \n"}], ())
        except _FAULTS:
            return True, True  # refused further on, with its reason
        return f"\n {_NEXT}" in shown, f"{_NEXT} \n" in shown

    def _end_of_message(self, stop_token_ids: Sequence[int]) -> tuple[int, str]:
        """The token that ends a response, and what the template writes between it and the next response."""
        asked = [{"role": "user", "content": "-"}, {"role": "assistant", "content": _REPLY}]
        try:
            going_on = self._render([*asked, {"role": "user", "content": _NEXT}], ())
        except _FAULTS as error:
            raise ValueError(
                f"The chat template of {self._name} cannot render a conversation of user and assistant in turns: "
                f"{error}. Use another template."
            ) from error
        if going_on.count(_REPLY) != 1 or going_on.count(_NEXT) != 1:
            raise ValueError(
                f"The chat template of {self._name} does not print each message once, so a conversation cannot be "
                "continued. Use another template."
            )
        rest = going_on.split(_REPLY)[1]
        ending = self._encode(rest.lstrip())
        try:
            # What follows a reply whether it is the last message or not; the next message's own opening does not.
            over = self._render(asked, (), add_generation_prompt=False).split(_REPLY)[-1]
            ending = ending[: common_prefix(tuple(ending), tuple(self._encode(over.lstrip())))]
        except _FAULTS:
            pass  # a template that has no conversation end with a reply
        if not ending:
            return int(self.tokenizer.eos_token_id), rest  # type: ignore[arg-type]
        if ending[0] not in {*self._special, *stop_token_ids}:
            raise ValueError(
                f"The chat template of {self._name} ends a message with {self.tokenizer.decode(ending)!r}, which "
                "begins with no special token, so a response would not stop there. Use a template whose messages end "
                f"with one, such as {self.tokenizer.eos_token!r}."
            )
        text = str(self.tokenizer.decode(ending[:1]))
        return ending[0], rest[rest.index(text) + len(text) :]

    def _check_beginning(self) -> None:
        """Refuse prompts that begin twice."""
        begin = self.tokenizer.bos_token_id
        try:
            prompt = self.first_prompt(_SYSTEM, (), _NEXT)
        except DataError as error:
            raise ValueError(str(error)) from error
        if begin is not None and prompt[:2] == (begin, begin):
            raise ValueError(
                f"The chat template of {self._name} begins a prompt with {self.tokenizer.bos_token!r} twice. Take one "
                "out of the template."
            )

    def _render(
        self,
        messages: list[dict[str, str]],
        tools: Sequence[dict[str, Any]],
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        text = self.tokenizer.apply_chat_template(
            messages,  # type: ignore[arg-type]
            tools=list(tools) or None,  # type: ignore[arg-type]
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
            chat_template=self._template,
            **self.template_arguments,
        )
        return str(text)

    def _mark(self, token_ids: Iterable[int]) -> None:
        """Have these tokens cut wherever an observation holds their texts."""
        self._marks = {*map(str, self.tokenizer.convert_ids_to_tokens([*token_ids]))}
        rests: dict[str, list[str]] = {}
        for mark in sorted(self._marks):
            rests.setdefault(mark[0], []).append(re.escape(mark[1:]))
        # By first characters, which are searched for quickly: there may be thousands of tokens.
        starts = (f"{re.escape(first)}(?={'|'.join(others)})" for first, others in rests.items())
        self._starts = re.compile("|".join(starts))

    def _cut(self, observation: str) -> str:
        """The observation, cut behind the first character of each mark; one of a single character becomes U+FFFD."""
        return self._starts.sub(lambda found: ("\ufffd" if found[0] in self._marks else found[0]) + _CUT, observation)

    def _encode(self, text: str) -> list[int]:
        """The tokens of a text, piece by piece where there are cuts in it."""
        pieces = text.split(_CUT)
        return [token for piece in pieces for token in self.tokenizer.encode(piece, add_special_tokens=False)]
