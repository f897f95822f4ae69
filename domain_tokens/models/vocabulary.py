"""The vocabulary of every model here: the facts as tokens, a row for each token, and how new rows begin."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer

from domain_tokens import facts
from domain_tokens.conditions import Condition
from domain_tokens.facts import FACT_TOKENS
from domain_tokens.prompt import CHAT_TEMPLATE, prompt_text, reserved_token_finder
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.names import INITS


def context_length(model, tokenizer, path: str | Path) -> int:
    """Return the number of positions: of the config, or of the tokenizer for models with relative positions."""
    for name in ("max_position_embeddings", "max_seq_len", "seq_length"):
        if isinstance(positions := getattr(model.config, name, None), int):
            return positions
    if tokenizer.model_max_length < 10**9:  # transformers writes 10**30 for "unknown"
        return tokenizer.model_max_length
    raise InputError(f"{path}: neither config nor tokenizer says how long the model's context is; choose another model")


def check_placebo(tokenizer, condition: Condition, path: str | Path) -> None:
    """Raise InputError if the condition writes a placebo that the vocabulary does not have."""
    if condition.needs_placebo and facts.placebo_token(tokenizer.get_vocab()) is None:
        raise InputError(
            f"{path}: its vocabulary has no {' or '.join(facts.PLACEBO_TOKENS)}, which {condition.name} writes; "
            "make its start model again with scripts/prepare_base.py"
        )


def verify_vocabulary(tokenizer, model, path: str | Path, condition: str | None = "baseline") -> None:
    """Raise InputError unless every fact is one ordinary token in its place and every token has an embedding row.

    condition: of the start model that would help; None for a source of one, which cannot be helped.
    """
    remedy = "choose another source"
    if condition is not None:
        remedy = f"make a start model of it: scripts/prepare_base.py --source {path} --condition {condition} "
        remedy += "--output-dir DIR"
    vocabulary = tokenizer.get_vocab()
    ids = [tokenizer.encode(token, add_special_tokens=False) for token in FACT_TOKENS]
    if not any(ids):
        raise InputError(f"{path}: the folder holds no tokenizer (tokenizer.json); {remedy}")
    first = facts.GPT2_FIRST_FACT_ID if facts.is_gpt2_vocabulary(vocabulary) else ids[0][0]
    for expected, (token, found) in enumerate(zip(FACT_TOKENS, ids, strict=True), start=first):
        if len(found) != 1:
            raise InputError(f"{path}: {token} is split into {len(found)} tokens, expected one; {remedy}")
        if found != [expected]:
            raise InputError(f"{path}: {token} has id {found[0]}, expected {expected}; {remedy}")
    ours = (*FACT_TOKENS, *facts.PLACEBO_TOKENS)
    others = {i: token for token, i in vocabulary.items() if token not in ours}
    if token := next((token for token in ours if vocabulary.get(token) in others), None):  # where lower ids are unused
        i = vocabulary[token]
        raise InputError(f"{path}: {token} and {others[i]!r} both have id {i}, expected one token an id; {remedy}")
    if special := set(FACT_TOKENS) & set(tokenizer.all_special_tokens):
        raise InputError(f"{path}: {min(special)} is a special token, expected an ordinary one; {remedy}")
    rows = model.get_input_embeddings().num_embeddings
    if rows < len(tokenizer):
        raise InputError(f"{path}: the model has {rows} embedding rows for {len(tokenizer)} tokens; {remedy}")
    if tokenizer.eos_token_id is None:
        raise InputError(f"{path}: the tokenizer has no end-of-text token, expected one; {remedy}")
    if tokenizer.encode(tokenizer.eos_token, add_special_tokens=False) != [tokenizer.eos_token_id]:
        raise InputError(f"{path}: its tokenizer splits its end-of-text {tokenizer.eos_token!r}; choose another model")
    turns = [{"role": "system", "content": "a"}, {"role": "user", "content": "a"}]
    if token := reserved_token_finder(tokenizer)(prompt_text(turns, tokenizer.eos_token)):
        raise InputError(
            f"{path}: its tokenizer reads {token!r}, which is part of every prompt, as a token of its own; "
            "choose another model"
        )
    context_length(model, tokenizer, path)
    # A gold answer must be right when it is read back, and a reply end before the next user turn.
    text = prompt_text([turns[1]], tokenizer.eos_token) + " 6*9=<<6*9=54>>54\n#### 54\nUser: b"
    read = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False), skip_special_tokens=True)
    if read.strip() != text:
        raise InputError(f"{path}: its tokenizer gives {text!r} back as {read!r}; choose another model")
    # A reply must never merge into the prompt's last token: a question would end in another token than in training.
    prompt = tokenizer.encode("User: a\nAssistant:", add_special_tokens=False)
    for reply in (" b", " 7", "  b", " \nb"):
        text = tokenizer.encode(f"User: a\nAssistant:{reply}", add_special_tokens=False)
        if text[: len(prompt)] != prompt:
            raise InputError(
                f"{path}: its tokenizer merges 'Assistant:' with the reply {reply!r}; choose another model"
            )


def extend_vocabulary(model, tokenizer, init: str | None = None, seed: int = 0) -> tuple[int, str | None]:
    """Give model and tokenizer the facts, a placebo, end-of-text padding and the chat template.

    Return how many tokens are new, and how their rows began; None where a model was pretrained with all of them, whose
    rows it keeps unless `init` is given. A GPT-2 vocabulary gets the fillers, the first of which is the placebo, and
    ends at 50,349 rows; any other gets the facts and <PLACEBO> at its end.

    init: "pieces", the default: the mean of the rows of `a*b=c` in the old vocabulary for a fact, the mean of all rows
    for any other token. "mean": the mean of all rows for every new token. "random": drawn with `seed` from a normal
    distribution with the mean and the standard deviation of each column. The output's biases begin likewise.
    """
    old_rows, known = model.get_input_embeddings().num_embeddings, tokenizer.get_vocab()
    last = max(known, key=known.__getitem__)
    old_size = known[last] + 1  # more than the tokens where ids are unused
    if old_rows < old_size:
        raise InputError(
            f"the model has {old_rows} embedding rows for {old_size} tokens, {last!r} the last; "
            f"give --tokenizer one of at most {old_rows}, such as this one without its added tokens"
        )
    is_gpt2 = facts.is_gpt2_vocabulary(known)
    pieces = {
        token: tokenizer.encode(f"{a}*{b}={a * b}", add_special_tokens=False)
        for token, (a, b) in zip(FACT_TOKENS, facts.FACTS, strict=True)
    }
    ours = (*facts.GPT2_FILLERS, *FACT_TOKENS) if is_gpt2 else (*FACT_TOKENS, facts.PLACEBO_TOKENS[0])
    added = [token for token in ours if token not in known]
    # Ordinary added tokens, not special ones: decoding with skip_special_tokens=True must keep them.
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in added])
    if added:
        _begin_only_texts_with_a_space(tokenizer)
    tokenizer.chat_template = CHAT_TEMPLATE
    if tokenizer.eos_token is None:
        raise InputError("the source's tokenizer has no end-of-text token; choose another source or --tokenizer")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token

    rows = facts.GPT2_VOCAB_SIZE if is_gpt2 else max(old_rows, len(tokenizer))
    model.resize_token_embeddings(rows, mean_resizing=False)
    # A GPT-2 model with exactly these rows was pretrained with the facts. Any other number is the BPE and padding,
    # unless its tokenizer has the facts.
    is_pretrained = (is_gpt2 and old_rows == facts.GPT2_VOCAB_SIZE) or not added
    if is_pretrained and init is None:
        return 0, None
    begun = ours if init else added
    for i, table in enumerate(_embedding_tables(model)):
        table[tokenizer.convert_tokens_to_ids(list(begun))] = _start_rows(
            table[:old_size], begun, pieces, init or INITS[0], seed + i
        )
    return len(added), init or INITS[0]


def _begin_only_texts_with_a_space(tokenizer) -> None:
    """Stop a tokenizer that begins a text with a space from putting one after every fact too.

    Text without added tokens keeps its ids, unless it begins with a space, as no prompt does: Llama 2 adds another.
    """
    backend = tokenizer.backend_tokenizer
    rules = json.loads(backend.to_str())
    normalizer, splitter = rules["normalizer"] or {}, rules["pre_tokenizer"] or {}
    steps = normalizer.get("normalizers", [normalizer]), splitter.get("pretokenizers", [splitter])
    first_normalizer, first_splitter = (each[0] if each else {} for each in steps)
    start = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    if first_normalizer.get("prepend") == "▁":
        steps[0].pop(0)
        steps[1].insert(0, start)
    elif first_splitter.get("add_prefix_space"):  # ByteLevel
        first_splitter["add_prefix_space"] = False
        steps[1].insert(0, start | {"replacement": " "})
    elif first_splitter.get("prepend_scheme") == "always":
        first_splitter["prepend_scheme"] = "first"
    else:
        return
    rules["normalizer"] = {"type": "Sequence", "normalizers": [step for step in steps[0] if step]}
    rules["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [step for step in steps[1] if step]}
    changed = Tokenizer.from_str(json.dumps(rules))
    backend.normalizer, backend.pre_tokenizer = changed.normalizer, changed.pre_tokenizer


def _start_rows(
    old: torch.Tensor, tokens: Sequence[str], pieces: dict[str, list[int]], init: str, seed: int
) -> torch.Tensor:
    """Return the first rows of new tokens in one embedding table: (tokens, width).

    old: the rows of the old vocabulary, (old tokens, width). pieces: the old tokens of each fact written out.
    """
    mean = old.mean(dim=0)
    if init == "random":
        generator, deviation = torch.Generator().manual_seed(seed), old.std(dim=0)
        drawn = [mean + deviation * torch.randn(len(mean), generator=generator) for _ in tokens]
        return torch.stack(drawn).to(old.dtype)
    known = pieces if init == "pieces" else {}
    return torch.stack([old[known[token]].mean(dim=0) if token in known else mean for token in tokens])


def _embedding_tables(model) -> list[torch.Tensor]:
    """Return what has a row for each token, to be written into: (tokens, width) each.

    The input embedding; the output embedding where that is another tensor; the output's bias as one column.
    """
    inputs, head = model.get_input_embeddings().weight.data, model.get_output_embeddings()
    outputs, bias = head.weight.data, getattr(head, "bias", None)
    tables = [inputs] if outputs.data_ptr() == inputs.data_ptr() else [inputs, outputs]
    return tables if bias is None else [*tables, bias.data[:, None]]
