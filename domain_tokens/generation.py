"""Replies from a model: greedy ones in batches, the same whatever the batch, and sampled ones as they come.

Both end at end-of-text or before the next `User:` line, and are cut there by the same rule.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from transformers import DynamicCache
from transformers.generation.streamers import BaseStreamer

from domain_tokens.checkpoints import Checkpoint
from domain_tokens.errors import InputError, RunError
from domain_tokens.prompt import STOP_STRING, USER_LABEL, Message, cut_reply, prompt_text
from domain_tokens.sampling import Sampling
from domain_tokens.tokens import count_facts

CPU_BATCH, LARGEST_GPU_BATCH = 32, 1024  # sequences side by side; more keys and values than fit a CPU's cache slow it
_STOP_TOKENS = 16  # more than the stop string can be spelled in


class Reply(NamedTuple):
    text: str  # the assistant's text, fact tokens as written
    tokens: int  # in that text, end-of-text not counted
    mul_tokens: int  # of them, counted from ids
    finished: bool  # ended by end-of-text, not by the length limit or a further "User:"


def generate_replies(
    checkpoint: Checkpoint, conversations: Sequence[Sequence[Message]], max_new_tokens: int, batch_size: int | None
) -> Iterator[tuple[int, Reply]]:
    """Yield (index, reply) for each conversation as its reply ends, greedy, in batches of similar prompt length.

    batch_size: prompts side by side, None for as many as the device has room for. Raises InputError for a prompt that
    leaves less than `max_new_tokens` of the model's context: cutting it would change the question.
    """
    tokenizer = checkpoint.tokenizer
    texts = [prompt_text(messages, tokenizer.eos_token) for messages in conversations]
    prompts = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    if prompts and len(prompts[order[0]]) + max_new_tokens > checkpoint.context:
        raise InputError(
            f"prompt {order[0]} has {len(prompts[order[0]])} tokens and max_new_tokens is {max_new_tokens}, but the "
            f"model has {checkpoint.context} positions; lower max_new_tokens"
        )
    checkpoint.model.eval()
    while order:
        size = batch_size or _batch_size(checkpoint.model, len(prompts[order[0]]) + max_new_tokens)
        batch, order = order[:size], order[size:]
        for place, ids in _generate_batch(checkpoint, [prompts[i] for i in batch], max_new_tokens):
            yield batch[place], cut_to_reply(checkpoint, ids)


def _batch_size(model, positions: int) -> int:
    """How many sequences of so many positions may be generated side by side.

    On a GPU what half of the free memory holds of keys and values; the rest is for activations and logits.
    """
    if model.device.type != "cuda":
        return CPU_BATCH
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_sequence = 2 * config.num_hidden_layers * heads * width * positions * model.dtype.itemsize
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(1, min(LARGEST_GPU_BATCH, free // 2 // per_sequence))


def _generate_batch(
    checkpoint: Checkpoint, prompts: list[list[int]], max_new_tokens: int
) -> Iterator[tuple[int, list[int]]]:
    """Yield (place, new ids) as each sequence ends: at end-of-text, behind the stop string, or at the limit.

    Left-padded, with positions counted from each prompt's own first token. What has ended leaves the batch, once it
    is an eighth of it: copying the others' keys and values costs as much as a few steps with them.
    """
    tokenizer, model = checkpoint.tokenizer, checkpoint.model
    accepted = inspect.signature(model.forward).parameters
    only_last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
    colons = _ids_with_colon(tokenizer)
    new_ids: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # in the batch, by their place in `prompts`
    ended: set[int] = set()
    cache = DynamicCache(config=model.config)
    input_ids, attention_mask = left_padded(prompts, tokenizer.pad_token_id, model.device)
    for step in range(max_new_tokens):
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        placed = {"position_ids": positions} if "position_ids" in accepted else {}
        try:
            with torch.inference_mode():
                output = model(
                    input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True,
                    **placed, **only_last,
                )  # fmt: skip
                chosen = output.logits[:, -1].argmax(dim=-1)
        except torch.OutOfMemoryError as error:
            raise RunError(f"the GPU's memory is full; give batch_size, less than {len(prompts)} ({error})") from error
        for row, token in zip(rows, chosen.tolist(), strict=True):
            if row in ended:
                continue
            ids = new_ids[row]
            ids.append(token)
            # The stop string ends in a colon, so only a token with one can complete it.
            stops = token in colons and STOP_STRING in tokenizer.decode(ids[-_STOP_TOKENS:])
            if token == tokenizer.eos_token_id or stops or step == max_new_tokens - 1:
                ended.add(row)
                yield row, ids
        left = [place for place, row in enumerate(rows) if row not in ended]
        if not left:
            return
        if len(left) <= len(rows) * 7 // 8:
            kept = torch.tensor(left, device=model.device)
            cache.batch_select_indices(kept)
            chosen, attention_mask = chosen[kept], attention_mask[kept]
            rows = [rows[place] for place in left]
        input_ids = chosen[:, None]
        attention_mask = torch.cat([attention_mask, attention_mask.new_ones(len(rows), 1)], dim=1)


def left_padded(prompts: list[list[int]], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """input_ids, attention_mask: int64, (prompts, longest prompt)."""
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, width - len(prompt) :] = 1
    return input_ids.to(device), attention_mask.to(device)


def _ids_with_colon(tokenizer) -> frozenset[int]:
    return frozenset(i for token, i in tokenizer.get_vocab().items() if ":" in token or token == "<0x3A>")


class ReplyStream(BaseStreamer):
    """A reply while it is made. `on_text` gets it in pieces, each as soon as no later token can change it.

    The pieces joined are exactly the text of `reply()`, which can be asked for at any time: a reply that was stopped
    is what had come until then.
    """

    def __init__(self, checkpoint: Checkpoint, on_text: Callable[[str], None]):
        self.checkpoint, self.on_text = checkpoint, on_text
        self.ids: list[int] = []
        self.shown = ""
        self.is_prompt = True

    def put(self, value: torch.Tensor) -> None:
        """value: the prompt's ids (1, tokens) at first, then one new id at a time (1,)."""
        if self.is_prompt:
            self.is_prompt = False
            return
        self.ids += value.tolist()
        self._show(_settled(cut_to_reply(self.checkpoint, self.ids).text))

    def end(self) -> None:
        self._show(self.reply().text)

    def reply(self) -> Reply:
        return cut_to_reply(self.checkpoint, self.ids)

    def _show(self, text: str) -> None:
        if new := text[len(self.shown) :]:
            self.shown = text
            self.on_text(new)


def _settled(text: str) -> str:
    """The part of an unfinished reply that stays: no half of a character, no beginning of the next turn's label."""
    text = text.rstrip("\N{REPLACEMENT CHARACTER}")
    before, line_break, last_line = text.rpartition("\n")
    if USER_LABEL.startswith(last_line):
        text = before if line_break else ""
    return text.rstrip()


def fit_context(
    checkpoint: Checkpoint, messages: Sequence[Message], max_new_tokens: int
) -> tuple[list[Message], int, int]:
    """Drop the oldest turns of a conversation until it leaves room for a reply.

    Room is `max_new_tokens`, or half the context where that is less. Returns what is left, the number of user turns
    dropped, and how many tokens the reply may have. System messages stay. Raises InputError where the last question
    alone is too long.
    """
    reserved = min(max_new_tokens, checkpoint.context // 2)
    system = [message for message in messages if message["role"] == "system"]
    turns = [message for message in messages if message["role"] != "system"]
    dropped = 0
    while True:
        left = [*system, *turns]
        length = len(_prompt_ids(checkpoint, left))
        if length + reserved <= checkpoint.context:
            return left, dropped, min(max_new_tokens, checkpoint.context - length)
        later = [i for i, message in enumerate(turns) if message["role"] == "user" and i > 0]
        if not later:
            what = "the question and the system message have" if system else "the question has"
            raise InputError(
                f"{what} {length} tokens with the prompt, which leaves less than {reserved} of the model's "
                f"{checkpoint.context} positions for the reply; make it shorter"
            )
        turns = turns[later[0] :]
        dropped += 1


def stream_reply(
    checkpoint: Checkpoint,
    messages: Sequence[Message],
    max_new_tokens: int,
    sampling: Sampling,
    seed: int,
    stream: ReplyStream,
) -> Reply:
    """Generate one reply into `stream`. The same seed gives the same reply, whatever was generated before."""
    model = checkpoint.model
    torch.manual_seed(seed)
    model.eval()
    prompt = torch.tensor([_prompt_ids(checkpoint, messages)], device=model.device)
    try:
        with torch.inference_mode():
            model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=max_new_tokens,
                stop_strings=STOP_STRING,
                tokenizer=checkpoint.tokenizer,
                streamer=stream,
                **sampling.settings(),
            )
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"the GPU's memory is full ({str(error).splitlines()[0]}); start anew or on --device cpu"
        ) from error
    return stream.reply()


def _prompt_ids(checkpoint: Checkpoint, messages: Sequence[Message]) -> list[int]:
    text = prompt_text(messages, checkpoint.tokenizer.eos_token)
    return checkpoint.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def cut_to_reply(checkpoint: Checkpoint, ids: list[int]) -> Reply:
    """Cut generated ids where the reply ends. Padding behind the end looks like end-of-text, so find the first."""
    tokenizer = checkpoint.tokenizer
    finished = tokenizer.eos_token_id in ids
    if finished:
        ids = ids[: ids.index(tokenizer.eos_token_id)]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    reply = cut_reply(text, tokenizer.eos_token)
    if reply != text:
        finished = False
        while ids and len(tokenizer.decode(ids[:-1], skip_special_tokens=True)) >= len(reply):
            ids = ids[:-1]
    return Reply(reply.strip(), len(ids), count_facts(ids, checkpoint.fact_ids), finished)
