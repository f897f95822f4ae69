"""The vocabulary of every model here: the facts as tokens, a row for each token, and how new rows begin."""

from pathlib import Path

import torch
from tokenizers import AddedToken

from domain_tokens import facts
from domain_tokens.facts import FACT_TOKENS
from domain_tokens.prompt import CHAT_TEMPLATE, prompt_text, reserved_token_finder
from domain_tokens.runs.errors import InputError


def context_length(model, tokenizer, path: str | Path) -> int:
    """Return the number of positions: of the config, or of the tokenizer for models with relative positions."""
    for name in ("max_position_embeddings", "max_seq_len", "seq_length"):
        if isinstance(positions := getattr(model.config, name, None), int):
            return positions
    if tokenizer.model_max_length < 10**9:  # transformers writes 10**30 for "unknown"
        return tokenizer.model_max_length
    raise InputError(f"{path}: neither config nor tokenizer says how long the model's context is; choose another model")


def verify_vocabulary(tokenizer, model, path: str | Path, condition: str = "baseline") -> None:
    """Raise InputError unless every fact is one ordinary token in its place and every token has an embedding row."""
    remedy = (
        f"make a start model of it: scripts/prepare_base.py --source {path} --condition {condition} --output-dir DIR"
    )
    ids = [tokenizer.encode(token, add_special_tokens=False) for token in FACT_TOKENS]
    if not any(ids):
        raise InputError(f"{path}: the folder holds no tokenizer (tokenizer.json); {remedy}")
    first = facts.GPT2_FIRST_FACT_ID if facts.is_gpt2_vocabulary(tokenizer.get_vocab()) else ids[0][0]
    for expected, (token, found) in enumerate(zip(FACT_TOKENS, ids, strict=True), start=first):
        if len(found) != 1:
            raise InputError(f"{path}: {token} is split into {len(found)} tokens, expected one; {remedy}")
        if found != [expected]:
            raise InputError(f"{path}: {token} has id {found[0]}, expected {expected}; {remedy}")
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
    # A reply must never merge into the prompt's last token: a question would end in another token than in training.
    prompt = tokenizer.encode("User: a\nAssistant:", add_special_tokens=False)
    for reply in (" b", " 7", "  b", " \nb"):
        text = tokenizer.encode(f"User: a\nAssistant:{reply}", add_special_tokens=False)
        if text[: len(prompt)] != prompt:
            raise InputError(
                f"{path}: its tokenizer merges 'Assistant:' with the reply {reply!r}; choose another model"
            )


def extend_vocabulary(model, tokenizer) -> int:
    """Give model and tokenizer the facts, end-of-text padding and the chat template. Return how many tokens are new.

    A GPT-2 vocabulary gets the fillers too and ends at 50,349 rows; any other gets the facts at its end. The row of
    a new fact starts as the mean of the rows of `a*b=c` in the old vocabulary, that of a filler as the mean of all.
    """
    old_rows = model.get_input_embeddings().num_embeddings
    if old_rows < len(tokenizer):
        raise InputError(
            f"the model has {old_rows} embedding rows for {len(tokenizer)} tokens; give --tokenizer the model's own"
        )
    known = tokenizer.get_vocab()
    is_gpt2 = facts.is_gpt2_vocabulary(known)
    pieces = {
        token: tokenizer.encode(f"{a}*{b}={a * b}", add_special_tokens=False)
        for token, (a, b) in zip(FACT_TOKENS, facts.FACTS, strict=True)
    }
    added = [token for token in (*(facts.GPT2_FILLERS if is_gpt2 else ()), *FACT_TOKENS) if token not in known]
    # Ordinary added tokens, not special ones: decoding with skip_special_tokens=True must keep them.
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in added])
    tokenizer.chat_template = CHAT_TEMPLATE
    if tokenizer.eos_token is None:
        raise InputError("the source's tokenizer has no end-of-text token; choose another source or --tokenizer")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token

    tables = _embedding_tables(model)
    means = [table[: len(known)].mean(dim=0) for table in tables]
    starts = [{token: table[pieces[token]].mean(dim=0) for token in FACT_TOKENS} for table in tables]
    rows = facts.GPT2_VOCAB_SIZE if is_gpt2 else max(old_rows, len(tokenizer))
    model.resize_token_embeddings(rows, mean_resizing=False)
    if is_gpt2 and old_rows >= facts.GPT2_VOCAB_SIZE:  # pretrained with the facts; fewer rows are the BPE and padding
        return 0
    with torch.no_grad():
        for table, mean, start in zip(_embedding_tables(model), means, starts, strict=True):
            for token in added:
                row = tokenizer.convert_tokens_to_ids(token)
                if token in start or row >= old_rows:
                    table[row] = start.get(token, mean)
    return len(added)


def _embedding_tables(model) -> list[torch.Tensor]:
    """Return the input embedding, and the output embedding where that is another tensor."""
    inputs, outputs = model.get_input_embeddings().weight.data, model.get_output_embeddings().weight.data
    return [inputs] if outputs.data_ptr() == inputs.data_ptr() else [inputs, outputs]
