"""A chat server that knows what an expert wrote: what it answers to each conversation, streamed where asked."""

from __future__ import annotations

import json

from steppo_gym.actions import Invalid, parse_tool_calls


def scripted(episodes, conversation):
    """The response of the episode whose first observation is in the conversation, at the place it has got to."""
    said = [(m["role"], m.get("content") or "") for m in conversation]
    first = next(text for role, text in said if role == "user")
    episode = next(e for e in episodes if first.endswith(e.first))
    return episode.responses[sum(role == "assistant" for role, _ in said)]


def chat_answer(text, *, calls):
    """A response as a chat server gives it; its calls as calls where `calls` says so."""
    message = {"role": "assistant", "content": text}
    found = parse_tool_calls(text, max_calls=8) if calls else Invalid("")
    if not isinstance(found, Invalid):
        message["content"] = text.partition("<tool_call>")[0] or None
        message["tool_calls"] = [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
            }
            for number, call in enumerate(found)
        ]
    reason = "tool_calls" if "tool_calls" in message else "stop"
    return {
        "id": "answer", "object": "chat.completion", "created": 0, "model": "expert",
        "choices": [{"index": 0, "finish_reason": reason, "message": message}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }  # fmt: skip


def expert_answer(episodes, *, calls=False):
    """The `answer` of a `json_server.Server` that plays these episodes."""

    def answer(number, body):
        whole = chat_answer(scripted(episodes, body["messages"]), calls=calls)
        if not body.get("stream"):
            return 200, {"Content-Type": "application/json"}, whole
        choice = whole["choices"][0]
        chunk = whole | {"object": "chat.completion.chunk"}
        chunk["choices"] = [{"index": 0, "delta": choice["message"], "finish_reason": choice["finish_reason"]}]
        return 200, {"Content-Type": "text/event-stream"}, f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"

    return answer
