"""How many bits a model needs for each token of texts that it reads once."""

from collections.abc import Iterator, Sequence
from math import log

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from domain_tokens.models.batching import logits_at_once, split_by_length, tokens_at_once
from domain_tokens.models.decoding import whole_logits
from domain_tokens.models.folder import OpenModel


@torch.inference_mode()
def token_bits(checkpoint: OpenModel, texts: Sequence[Sequence[int]]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index, -log2 of the probability of each token but the first) for each text, in float32.

    Texts of similar length go through the model together, padded at their ends, which no earlier token sees. A model
    that padding would disturb reads them one by one.
    """
    model, pad_id = checkpoint.model.eval(), checkpoint.tokenizer.pad_token_id
    vocabulary = model.get_output_embeddings().weight.shape[0]
    limit = min(tokens_at_once(model.device), logits_at_once(model.device, vocabulary))
    lengths = np.array([len(text) for text in texts], np.int64)
    for group in split_by_length(lengths, limit, None if checkpoint.decoding == "batched" else 1):
        ids = torch.full((len(group), lengths[group[0]]), pad_id)
        for row, i in enumerate(group):
            ids[row, : lengths[i]] = torch.tensor(texts[i])
        ids = ids.to(model.device)
        logits = whole_logits(model, ids)[:, :-1]
        nats = cross_entropy(logits.float().transpose(1, 2), ids[:, 1:], reduction="none").cpu().numpy()
        for row, i in enumerate(group):
            yield i, nats[row, : lengths[i] - 1] / log(2)
