import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_gym import ByteCodec

CODEC = ByteCodec()
TEXT = st.text()
ANY_TEXT = st.text(st.characters())


@given(TEXT)
def test_response_round_trip(text):
    assert CODEC.decode_response(CODEC.encode_response(text)) == text


@given(ANY_TEXT, ANY_TEXT, st.lists(st.integers(0, 256)).map(tuple))
def test_ids_are_in_the_vocabulary_and_a_conversation_only_grows(system_prompt, observation, sampled):
    prompt = CODEC.first_prompt(system_prompt, [], observation)
    context = prompt + sampled
    longer = CODEC.next_prompt(context, observation)
    assert longer[: len(context)] == context
    assert len(longer) > len(context)
    assert set(longer) <= set(range(CODEC.vocab_size))


@given(st.lists(st.integers(-10, 10**6)))
def test_decoding_never_raises(token_ids):
    assert isinstance(CODEC.decode_response(token_ids), str)


def test_first_prompt_tells_prompts_and_observations_apart():
    assert CODEC.first_prompt("ab", [], "c") != CODEC.first_prompt("a", [], "bc")
    assert CODEC.first_prompt("a", [{"type": "function"}], "b") == CODEC.first_prompt("a", [], "b")


@pytest.mark.parametrize("sampled", ["open", "open\u0100"], ids=["ended", "cut off"])
def test_next_prompt_ends_a_response_that_was_cut_off(sampled):
    prompt = CODEC.first_prompt("s", [], "o")
    response = CODEC.encode_response(sampled)
    ended = CODEC.next_prompt(prompt + response, "next")
    assert CODEC.next_prompt(prompt + response[:-1], "next") == ended
    assert ended == (*prompt, *sampled.encode(), 256, *b"next", 256)


def test_a_response_stops_at_its_end_token():
    assert CODEC.decode_response([*b"open", 256, *b"door"]) == "open"
    assert CODEC.decode_response([300, *b"op", -1, *b"en"]) == "open"


def test_half_a_character_becomes_a_replacement():
    assert CODEC.decode_response("é".encode()[:1]) == "\ufffd"
    assert CODEC.decode_response(CODEC.encode_response("a\ud800b")) == "a?b"
