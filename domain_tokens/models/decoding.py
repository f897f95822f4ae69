"""Ways to decode prompts step by step, and the trial that finds the fastest one that is right for a model."""

import inspect
from functools import partial

import torch
from transformers import DynamicCache, PreTrainedModel

from domain_tokens.runs.errors import InputError


class PaddedBatch:
    """Prompts side by side: padded on the left, with a mask and the library's own cache."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], pad_id: int, max_new_tokens: int = 0):
        """max_new_tokens: how far the prompts will go on; the library's cache grows by itself."""
        self.model, self.cache = model, DynamicCache(config=model.config)
        self.prompt_ids, self.mask = left_padded(prompts, pad_id, model.device)
        # Some models take no positions, or give only all logits; router logits cannot be computed from the cache.
        accepted = inspect.signature(model.forward).parameters
        settings = {"logits_to_keep": 1, "output_router_logits": False}
        self.settings = {name: value for name, value in settings.items() if name in accepted}
        self.takes_positions = "position_ids" in accepted

    def read(self) -> torch.Tensor:
        """Return the logits after each prompt: (rows, vocabulary)."""
        return self._logits(self.prompt_ids)

    def next(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the logits after one more token of each row: (rows, vocabulary). chosen: these tokens, (rows,)."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(chosen), 1)], dim=1)
        return self._logits(chosen[:, None])

    def _logits(self, input_ids: torch.Tensor) -> torch.Tensor:
        placed = {}
        if self.takes_positions:  # counted from each prompt's own first token
            placed["position_ids"] = (self.mask.cumsum(dim=1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        return self.model(
            input_ids=input_ids, attention_mask=self.mask, past_key_values=self.cache, use_cache=True, **placed,
            **self.settings,
        ).logits[:, -1]  # fmt: skip

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all rows but these."""
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]

    def close(self) -> None:
        """Leave the model as it was."""


class WholeText:
    """One prompt, read again from its beginning at every step: slow, and right for every causal model."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], pad_id: int):
        self.model, self.ids = model, torch.tensor(prompts, device=model.device)

    def read(self) -> torch.Tensor:
        return whole_logits(self.model, self.ids)[:, -1]

    def next(self, chosen: torch.Tensor) -> torch.Tensor:
        self.ids = torch.cat([self.ids, chosen[:, None]], dim=1)
        return self.read()


class OneByOne:
    """As `PaddedBatch`, but each prompt goes through the model alone, for models that padding would disturb."""

    def __init__(self, kind, model: PreTrainedModel, prompts: list[list[int]], pad_id: int, max_new_tokens: int = 0):
        """kind: `PaddedBatch`, which then pads nothing, or `WholeText`."""
        self.rows = [kind(model, [prompt], pad_id) for prompt in prompts]

    def read(self) -> torch.Tensor:
        return torch.cat([row.read() for row in self.rows])

    def next(self, chosen: torch.Tensor) -> torch.Tensor:
        return torch.cat([row.next(token) for row, token in zip(self.rows, chosen.split(1), strict=True)])

    def keep(self, rows: torch.Tensor) -> None:
        self.rows = [self.rows[i] for i in rows.tolist()]

    def close(self) -> None:
        """Leave the model as it was."""


# The fastest first; each takes (model, prompts, pad_id, max_new_tokens).
DECODERS = {"batched": PaddedBatch, "single": partial(OneByOne, PaddedBatch), "uncached": partial(OneByOne, WholeText)}


def whole_logits(model: PreTrainedModel, input_ids: torch.Tensor) -> torch.Tensor:
    """Return all logits of texts without padding and without a cache: (rows, positions, vocabulary)."""
    accepted = inspect.signature(model.forward).parameters
    return model(input_ids=input_ids, **({"use_cache": False} if "use_cache" in accepted else {})).logits


@torch.no_grad()  # not inference_mode: a buffer the model makes here may take part in training later
def find_decoding(model: PreTrainedModel, tokenizer, what: str) -> str:
    """Return the first way of `DECODERS` that gives two short rows the logits of their whole texts.

    Raises InputError, naming `what`, for a model that computes no finite logits, whose logits depend on later tokens,
    or that no way decodes. Leaves the random state and the training mode as they are.
    """
    special = {*tokenizer.all_special_ids}
    ids = torch.tensor([i for i in range(len(tokenizer)) if i not in special][:22], device=model.device)
    long, other_end, short, filler = ids.split([10, 2, 6, 4])
    texts = torch.stack([long, torch.cat([long[:-2], other_end]), torch.cat([short, filler])])
    is_exact = model.dtype == torch.float32
    was_training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            try:
                whole, changed, whole_short = whole_logits(model, texts).float()
            except Exception as error:  # whatever a foreign architecture stumbles over
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                raise InputError(f"{what} cannot compute a text's logits ({reason}); choose another model") from error
            if not torch.stack([whole, changed, whole_short]).isfinite().all():
                raise InputError(f"{what} computes logits that are no finite numbers; check its config and weights")
            if not _agree(changed[:-2], whole[:-2], 1e-5 if is_exact else 1e-2):
                raise InputError(f"{what} lets a token see later ones, so it is no causal model; choose another model")
            wanted = torch.stack([whole_short[3], whole[-3], whole_short[4], *whole[-2:]])
            for way, kind in DECODERS.items():
                found = _decoded(kind, model, tokenizer.pad_token_id, short, long)
                if found is not None and _agree(found, wanted, 1e-4 if is_exact else 3e-2):
                    return way
    finally:
        model.train(was_training)
    raise InputError(f"{what} gives other logits step by step than for the whole text; choose another model")


def _decoded(kind, model, pad_id: int, short: torch.Tensor, long: torch.Tensor) -> torch.Tensor | None:
    """Return logits of the rows' last tokens, one step after the other, or None where the model cannot go this way.

    The short row leaves after one step. Returns (short, long, short, long, long) x vocabulary.
    """
    try:
        batch = kind(model, [short[:-2].tolist(), long[:-2].tolist()], pad_id, 2)
        steps = [batch.read(), batch.next(torch.stack([short[-2], long[-2]]))]
        batch.keep(torch.tensor([1], device=model.device))
        return torch.cat([*steps, batch.next(long[-1:])]).float()
    except Exception:  # each architecture fails in its own way; one that fails in all is reported
        return None


def _agree(found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> bool:
    """Return whether logits differ by at most `tolerance` of their spread."""
    spread = (wanted - wanted.mean(dim=-1, keepdim=True)).abs().max()
    return bool((found - wanted).abs().max() <= tolerance * spread)


def left_padded(prompts: list[list[int]], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input_ids and attention_mask: int64, (prompts, longest prompt)."""
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, width - len(prompt) :] = 1
    return input_ids.to(device), attention_mask.to(device)
