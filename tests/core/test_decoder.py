"""The decoder against `generate`, against prefilling again, and against itself with other batches."""

from __future__ import annotations

import pytest
import torch

from tasks.core.engine import decoder as decoder_module
from tasks.core.engine.decoder import Continuation, Decoder, Draw, Live
from tasks.core.engine.proposer import Proposer, spread_temperatures
from tasks.core.text import split_sentences

GREEDY = Draw(0.0, 1.0, ())
LIMIT = 90


def answers(decoder: Decoder, pictures, prompts, draws, limit: int = LIMIT) -> list[Continuation]:
    said, _ = decoder.extend(decoder.prefill(pictures, prompts), draws, max_new_tokens=limit, sentence=False)
    return said


def next_logits(decoder: Decoder, live: Live) -> torch.Tensor:
    """[B, V]: what the model says after everything in `live`, which is used up."""
    mask = torch.cat([live.mask, torch.ones_like(live.mask[:, :1])], dim=1)
    with torch.inference_mode():
        out = decoder.policy.model(
            input_ids=live.pending[:, None],
            attention_mask=mask,
            position_ids=live.position[:, None],
            past_key_values=live.cache,
        )
    return out.logits[:, -1]


def prefilled_logits(decoder: Decoder, picture, prompt: str, tokens: list[int]) -> torch.Tensor:
    """[V]: the same from a plain forward over image, prompt and tokens, without any cache."""
    inputs = decoder.policy.inputs([picture], [prompt])
    ids = torch.cat([inputs["input_ids"], torch.tensor([tokens], dtype=torch.long)], dim=1)
    with torch.inference_mode():
        out = decoder.policy.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=inputs["pixel_values"], use_cache=False
        )
    return out.logits[0, -1]


def test_greedy_is_what_generate_gives_token_for_token(policy, pictures, prompts) -> None:
    inputs = policy.inputs(pictures, prompts)
    assert (inputs["attention_mask"][:, 0] == 0).any(), "nothing is padded on the left"
    with torch.inference_mode():
        out = policy.model.generate(**inputs, do_sample=False, max_new_tokens=LIMIT)
    expected = []
    for row in out[:, inputs["input_ids"].shape[1] :].tolist():
        end = next((at for at, token in enumerate(row) if token in policy.end_ids), len(row))
        expected.append(tuple(row[:end]))
    said = answers(Decoder(policy), pictures, prompts, [GREEDY] * len(pictures))
    assert [one.tokens for one in said] == expected
    assert [one.drawn for one in said] == [len(tokens) + one.ended for tokens, one in zip(expected, said, strict=True)]
    assert len({len(tokens) for tokens in expected}) > 2


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_batch_of_16_says_what_16_batches_of_one_say(policy, pictures, prompts, temperature: float) -> None:
    draws = [Draw(temperature, 0.9, ("test", i)) for i in range(16)]
    together = answers(Decoder(policy), pictures, prompts, draws)
    alone = [answers(Decoder(policy), [pictures[i]], [prompts[i]], [draws[i]])[0] for i in range(16)]
    assert together == alone


def test_other_seeds_say_something_else_and_the_same_seed_the_same(policy, pictures, prompts) -> None:
    def draw(seed: int) -> list[Continuation]:
        return answers(Decoder(policy), pictures, prompts, [Draw(1.0, 1.0, (seed, i)) for i in range(16)])

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


def test_forks_of_a_prompt_say_what_the_prompt_alone_says(policy, pictures, prompts) -> None:
    decoder = Decoder(policy)
    live = decoder.prefill(pictures[:3], prompts[:3])
    forked = decoder.fork(live, [2, 0, 0, 1])
    assert forked.rows == 4
    draws = [GREEDY, GREEDY, Draw(0.9, 0.9, ("a",)), GREEDY]
    said, _ = decoder.extend(forked, draws, max_new_tokens=LIMIT, sentence=False)
    alone = [answers(decoder, [pictures[i]], [prompts[i]], [d])[0] for i, d in zip([2, 0, 0, 1], draws, strict=True)]
    assert said == alone
    assert torch.equal(live.mask, decoder.prefill(pictures[:3], prompts[:3]).mask), "the fork changed its source"


def test_sentence_by_sentence_from_the_cache_is_the_whole_answer(policy, pictures, prompts) -> None:
    decoder = Decoder(policy)
    whole = answers(decoder, pictures, prompts, [GREEDY] * 16)
    prefills = decoder.counters["prefill_tokens"]
    live = decoder.prefill(pictures, prompts)
    prefills = decoder.counters["prefill_tokens"] - prefills
    tokens: list[list[int]] = [[] for _ in range(16)]
    texts: list[list[str]] = [[] for _ in range(16)]
    rows = list(range(16))
    while rows:
        said, live = decoder.extend(live, [GREEDY] * len(rows), max_new_tokens=40, sentence=True)
        going = []
        for at, (row, one) in enumerate(zip(rows, said, strict=True)):
            tokens[row] += one.tokens
            texts[row].append(one.text)
            assert len(split_sentences(one.text)) == 1
            if not one.ended:
                going.append(at)
        rows = [rows[at] for at in going]
        live = decoder.fork(live, going) if going else live
    assert [tuple(one) for one in tokens] == [one.tokens for one in whole]
    assert [[s.text for s in split_sentences(one.text)] for one in whole] == texts
    assert decoder.counters["prefill_tokens"] == 2 * prefills, "a step prefilled again"


def test_logits_after_cut_sentences_are_those_of_a_fresh_prefill(policy, pictures, prompts) -> None:
    decoder = Decoder(policy)
    live = decoder.prefill(pictures[:4], prompts[:4])
    kept: list[list[int]] = [[] for _ in range(4)]
    for step in range(3):
        forked = decoder.fork(live, [row for row in range(4) for _ in range(3)])
        draws = [Draw(0.0 if i % 3 == 0 else 1.3, 1.0, ("cut", step, i)) for i in range(12)]
        said, live = decoder.extend(forked, draws, max_new_tokens=30, sentence=True)
        assert any(one.drawn > len(one.tokens) for one in said), "nothing was cut"
        chosen = [3 * row + (row + step) % 3 for row in range(4)]
        for row, at in enumerate(chosen):
            kept[row] += said[at].tokens
        live = decoder.fork(live, chosen)
    logits = next_logits(decoder, live)
    for row in range(4):
        expected = prefilled_logits(decoder, pictures[row], prompts[row], kept[row])
        assert torch.allclose(logits[row], expected, atol=2e-4), (logits[row] - expected).abs().max()


def test_a_sentence_is_cut_where_the_splitter_ends_it(policy, pictures, prompts) -> None:
    decoder = Decoder(policy)
    live = decoder.prefill(pictures, prompts)
    draws = [Draw(0.8, 1.0, ("sentence", i)) for i in range(16)]
    said, _ = decoder.extend(live, draws, max_new_tokens=40, sentence=True)
    for one in said:
        assert [s.text for s in split_sentences(one.text)] == [one.text]
        assert decoder.text(one.tokens).strip() == one.text
        assert one.text.endswith(".") or one.drawn == 40
        # A token of look-ahead: it proves that the sentence is over, and is not kept.
        assert one.ended or one.drawn == 40 or one.drawn > len(one.tokens)


class Scripted:
    """Stands for the drawing of tokens: row i says `script[i]`, token by token."""

    def __init__(self, scripts: list[list[int]]) -> None:
        self.scripts, self.at = scripts, 0

    def __call__(self, logits, temperature, top_p, uniform) -> torch.Tensor:
        drawn = torch.tensor([script[min(self.at, len(script) - 1)] for script in self.scripts])
        self.at += 1
        return drawn


def scripted(monkeypatch, policy, texts: list[str], limit: int, *, sentence: bool = True) -> list[Continuation]:
    """What the decoder makes of rows that say `texts`; a "|" ends the answer."""
    (end,) = policy.end_ids
    scripts = []
    for text in texts:
        ids = policy.tokenizer(text.removesuffix("|"), add_special_tokens=False).input_ids
        scripts.append([*ids, end] if text.endswith("|") else ids)
    monkeypatch.setattr(decoder_module, "draw_tokens", Scripted(scripts))
    decoder = Decoder(policy)
    from PIL import Image

    live = decoder.prefill([Image.new("RGB", (96, 96))] * len(texts), ["Go."] * len(texts))
    said, _ = decoder.extend(live, [GREEDY] * len(texts), max_new_tokens=limit, sentence=sentence)
    return said


def test_ends_are_sentences_ends_not_full_stops(monkeypatch, policy) -> None:
    texts = [
        "There is a dog. There is a cat.|",
        "It is 3.5 m wide. A dog.|",
        "Mr. Smith has a dog. A cat.|",
        "Is it a dog? Yes.|",
        "There is a dog.|",
        "|",
    ]
    said = scripted(monkeypatch, policy, texts, 60)
    assert [one.text for one in said] == [
        "There is a dog.", "It is 3.5 m wide.", "Mr. Smith has a dog.", "Is it a dog?", "There is a dog.", "",
    ]  # fmt: skip
    assert [one.ended for one in said] == [False, False, False, False, True, True]
    assert said[-1].tokens == ()
    for one in said:
        assert policy.tokenizer.decode(list(one.tokens)).strip() == one.text, "surplus tokens were kept"


def test_an_answer_that_ends_just_after_a_second_sentence_began_is_not_over(monkeypatch, policy) -> None:
    (one,) = scripted(monkeypatch, policy, ["A dog. A|"], 60)
    assert (one.text, one.ended) == ("A dog.", False)


def test_at_the_limit_a_sentence_is_what_there_is(monkeypatch, policy) -> None:
    long, whole = scripted(monkeypatch, policy, ["There is a dog and a cat and", "There is a dog. There is a"], 7)
    assert (long.text, long.ended, long.drawn) == ("There is a dog and a cat", False, 7)
    assert (whole.text, whole.ended) == ("There is a dog.", False)


def test_at_the_limit_a_whole_answer_has_not_ended(monkeypatch, policy) -> None:
    texts = [*["There is a dog. A cat"] * 4, "A dog.|"]
    long, *_, short = scripted(monkeypatch, policy, texts, 5, sentence=False)
    assert (long.text, long.ended, len(long.tokens)) == ("There is a dog.", False, 5)
    assert (short.text, short.ended, short.drawn) == ("A dog.", True, 4)


def test_an_empty_answer_can_be_gone_on_from(policy, pictures, prompts) -> None:
    """A row that kept nothing stands where it stood."""
    decoder = Decoder(policy)
    live = decoder.prefill(pictures[:2], prompts[:2])
    before = next_logits(decoder, decoder.fork(live, [0, 1]))
    said, _ = decoder.extend(live, [GREEDY] * 2, max_new_tokens=20, sentence=True)
    assert all(one.tokens for one in said)
    rows = decoder_module._Rows(decoder, decoder.prefill(pictures[:2], prompts[:2]), [GREEDY] * 2, 3, True)
    rows.run()
    nothing = rows._cut([Continuation((), "", True, 3), rows_said := Continuation(tuple(rows.tokens[1]), "", False, 3)])
    logits = next_logits(decoder, nothing)
    assert torch.allclose(logits[0], before[0], atol=2e-4)
    expected = prefilled_logits(decoder, pictures[1], prompts[1], list(rows_said.tokens))
    assert torch.allclose(logits[1], expected, atol=2e-4)


def test_as_many_draws_as_rows(policy, pictures, prompts) -> None:
    decoder = Decoder(policy)
    with pytest.raises(ValueError, match="1 draws for 2 rows"):
        decoder.extend(decoder.prefill(pictures[:2], prompts[:2]), [GREEDY], max_new_tokens=3, sentence=True)


def test_work_is_counted(policy, pictures, prompts) -> None:
    decoder = Decoder(policy)
    said = answers(decoder, pictures[:5], prompts[:5], [GREEDY] * 5)
    assert decoder.counters["vision_encodes"] == 5
    assert decoder.counters["prefill_tokens"] == int(policy.inputs(pictures[:5], prompts[:5])["attention_mask"].sum())
    assert decoder.counters["decode_tokens"] == sum(one.drawn for one in said)
    assert decoder.counters["forwards"] == 1 + max(one.drawn for one in said)


def test_positions_that_can_not_be_continued_are_refused(policy) -> None:
    class Qwen:
        config = type("Config", (), {"to_dict": lambda self: {"rope_scaling": {"mrope_section": [1, 2]}}})()

    with pytest.raises(ValueError, match="Qwen has multi-axis rotary positions"):
        Decoder(type(policy)(Qwen(), policy.processor, "x"))


# The decoder as a search's callables


def test_one_candidate_is_greedy_and_the_others_are_dealt_over_the_temperatures() -> None:
    temperatures = (0.1, 0.3, 0.5, 0.7, 0.9)
    assert spread_temperatures(1, temperatures) == [0.0]
    assert spread_temperatures(6, temperatures) == [0.0, *temperatures]
    assert spread_temperatures(8, temperatures) == [0.0, *temperatures, 0.1, 0.3]
    for count in (2, 3, 4, 5):
        some = spread_temperatures(count, temperatures)
        assert len(some) == count
        assert some[-1] == 0.9
        assert len(set(some)) == count


def propose(policy, pictures, prompts, slots, batch) -> dict[int, list[str]]:
    """Three greedy-guided steps for `slots`, `batch` at a time: slot -> candidates of all steps."""
    texts: dict[int, list[str]] = {}
    for start in range(0, len(slots), batch):
        part = slots[start : start + batch]
        proposer = Proposer(
            Decoder(policy), [pictures[s] for s in part], [prompts[s] for s in part], [("s", 0, s) for s in part],
            temperatures=[0.0, 0.7, 1.1], top_p=0.9,
        )  # fmt: skip
        kept = dict.fromkeys(range(len(part)))
        for step in range(3):
            found = proposer.sentences(kept, max_new_tokens=30)
            for slot, candidates in found.items():
                texts.setdefault(part[slot], []).extend(one.text for one in candidates)
            # Different slots finish at different steps and keep different candidates.
            kept = {slot: c[(part[slot] + step) % 3] for slot, c in found.items() if (part[slot] + step) % 4}
            if not kept:
                break
    return texts


def test_proposals_do_not_depend_on_what_is_searched_beside_them(policy, pictures, prompts) -> None:
    together = propose(policy, pictures, prompts, list(range(9)), 9)
    assert propose(policy, pictures, prompts, list(range(9)), 1) == together
    assert propose(policy, pictures, prompts, [6, 1, 3], 2) == {slot: together[slot] for slot in (6, 1, 3)}
    assert {len(texts) for texts in together.values()} == {3, 6, 9}
    assert any(len(set(texts)) > 3 for texts in together.values())


def test_after_the_first_step_every_slot_needs_what_it_kept(policy, pictures, prompts) -> None:
    proposer = Proposer(Decoder(policy), pictures[:1], prompts[:1], [("s",)], temperatures=[0.0], top_p=1.0)
    proposer.sentences({0: None}, max_new_tokens=20)
    with pytest.raises(ValueError, match="without a kept candidate"):
        proposer.sentences({0: None}, max_new_tokens=20)
