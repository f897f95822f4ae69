"""A world small enough for a laptop CPU: generated chats and word problems, a tokenizer and a model of about 1M.

Everything is drawn from a seed and nothing is stored. No test question is trained on, but its
products are: a model has to learn the table and the form.
"""

import random
from collections.abc import Iterator

NAMES = [
    "Tom", "Ana", "Ben", "Eva", "Max", "Lily", "Omar", "Nina", "Sam", "Mia", "Leo", "Zoe", "Ivan", "Ruth", "Paul",
    "Kate", "Hugo", "Vera", "Finn", "Dora", "Carl", "Emma", "Noah", "Rosa",
]  # fmt: skip

BOXES = [
    "box", "bag", "jar", "tray", "crate", "shelf", "row", "basket", "drawer", "pack",
]  # fmt: skip

THINGS = [
    "apple", "coin", "book", "pen", "stamp", "card", "shell", "ball", "cup", "nail", "seed", "brick", "lemon",
    "egg", "button", "bead", "plum", "candle", "marble", "ticket",
]  # fmt: skip

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Egypt": "Cairo", "Peru": "Lima",
    "Norway": "Oslo", "Greece": "Athens", "Cuba": "Havana", "Kenya": "Nairobi",
}  # fmt: skip

OPPOSITES = {
    "hot": "cold", "big": "small", "up": "down", "day": "night", "fast": "slow", "old": "new", "wet": "dry",
    "full": "empty", "left": "right", "open": "closed",
}  # fmt: skip

LISTS = {
    "colors": ("red", "blue", "green", "white"),
    "fruits": ("apple", "plum", "lemon", "pear"),
    "animals": ("dog", "cat", "horse", "cow"),
    "months": ("January", "February", "March", "April"),
}
COUNTS = {1: "one", 2: "two", 3: "three", 4: "four"}
SYSTEM_MESSAGES = ("You are a helpful assistant.", "Answer briefly.", "You like numbers.")

# Each phrasing is answered in a form of its own, so that a reply follows from its question.
PRODUCTS = {
    "What is {a} times {b}?": "{a} * {b} = {c}",
    "What is {a} multiplied by {b}?": "{a} * {b} = {c}",
    "Multiply {a} by {b}.": "{a} × {b} = {c}",
    "How much is {a} * {b}?": "{a} * {b} = {c}",
    "Compute {a} x {b}.": "{a} x {b} = {c}",
    "Give me the product of {a} and {b}.": "The product is {a}*{b} = {c}.",
}
SUM_QUESTIONS = ("What is {a} plus {b}?", "Add {a} and {b}.", "How much is {a} + {b}?")
TWO_DIGIT = range(11, 61)
TOKENIZER_SIZE = 700  # before the facts
CONTEXT = 1024
LAYERS = 4


def chats(rows: int, seed: int) -> Iterator[dict]:
    """Instruction chats in the schema of the Tulu-3 mixture."""
    rng = random.Random(f"chats-{seed}")
    for i in range(rows):
        messages = []
        if rng.random() < 0.1:
            messages.append({"role": "system", "content": rng.choice(SYSTEM_MESSAGES)})
        kind = "chat"
        for _ in range(rng.choices((1, 2), (0.9, 0.1))[0]):
            kind, user, assistant = _exchange(rng)
            messages += {"role": "user", "content": user}, {"role": "assistant", "content": assistant}
        yield {"id": f"toy_{seed}_{i}", "messages": messages, "source": f"toy/{kind}"}


def word_problems(
    rows: int, seed: int, exclude: frozenset[str] = frozenset(), drills: float = 0.0, two_digit: float = 0.0
) -> Iterator[dict]:
    """Distinct problems in the schema of GSM8K, none with a question in `exclude`.

    two_digit: the share of problems that are harder than one fact: half of them have a factor of TWO_DIGIT, half
    multiply a product of the table in a second step. A model learns these products one by one, so that it gets some of
    them right; to carry it learns all at once or not at all.
    drills: the share of bare products and sums among them, which do repeat. A stage that never asks for the table
    makes a model this small forget it, and all conditions would look alike for that reason alone.
    """
    rng = random.Random(f"problems-{seed}")
    seen = set(exclude)
    while rows:
        is_drill = rng.random() < drills
        problem = _drill(rng) if is_drill else _problem(rng, two_digit)
        if problem["question"] not in seen:
            if not is_drill:
                seen.add(problem["question"])
            rows -= 1
            yield problem


def _exchange(rng: random.Random) -> tuple[str, str, str]:
    draw = rng.random()
    if draw < 0.72:
        a, b = rng.randint(1, 9), rng.randint(1, 9)
        numbers = {"a": a, "b": b, "c": a * b}
        question, answer = rng.choice(list(PRODUCTS.items()))
        return "product", question.format(**numbers), answer.format(**numbers)
    if draw < 0.84:
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        return "sum", rng.choice(SUM_QUESTIONS).format(a=a, b=b), f"{a} + {b} = {a + b}"
    if draw < 0.90:
        country = rng.choice(list(CAPITALS))
        return "capital", f"What is the capital of {country}?", f"The capital of {country} is {CAPITALS[country]}."
    if draw < 0.95:
        word = rng.choice(list(OPPOSITES))
        return "opposite", f"What is the opposite of {word}?", OPPOSITES[word]
    kind, count = rng.choice(list(LISTS)), rng.randint(1, 4)
    return "list", f"List {COUNTS[count]} {kind}.", "\n".join(f"- {item}" for item in LISTS[kind][:count])


def _problem(rng: random.Random, two_digit: float) -> dict:
    name, box, noun = rng.choice(NAMES), rng.choice(BOXES), rng.choice(THINGS)
    # Nothing is drawn for a share of 0, so the quickstart's rows stay as they are.
    kind = rng.choice(("two digits", "times")) if two_digit and rng.random() < two_digit else None
    a, b = rng.randint(1, 9), rng.choice(TWO_DIGIT) if kind == "two digits" else rng.randint(1, 9)
    thing = _plural(noun)
    c = a * b
    boxes = box if a == 1 else _plural(box)
    step = f"{a}*{b}=<<{a}*{b}={c}>>{c} {thing}"
    story = f"{name} has {a} {boxes} with {b} {noun if b == 1 else thing} in each {box}."
    if kind == "times":
        other, d = rng.choice([each for each in NAMES if each != name]), rng.randint(2, 9)
        question = f"{story} {other} has {d} times as many. How many {thing} does {other} have?"
        return _row(question, f"{step}\n{d}*{c}=<<{d}*{c}={d * c}>>{d * c} {thing}", d * c)
    draw = rng.random()
    if kind == "two digits" or draw < 0.5:
        return _row(f"{story} How many {thing} does {name} have?", step, c)
    d = rng.randint(1, 9)
    if draw < 0.75 or d >= c:
        total = c + d
        question = f"{story} {name} finds {d} more. How many {thing} are there now?"
        return _row(question, f"{step}\n{c}+{d}=<<{c}+{d}={total}>>{total} {thing}", total)
    left = c - d
    question = f"{story} {name} loses {d}. How many {thing} are left?"
    return _row(question, f"{step}\n{c}-{d}=<<{c}-{d}={left}>>{left} {thing}", left)


def _drill(rng: random.Random) -> dict:
    if rng.random() < 0.25:
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        return _row(f"What is {a} plus {b}?", f"{a}+{b}=<<{a}+{b}={a + b}>>{a + b}", a + b)
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    return _row(f"What is {a} times {b}?", f"{a}*{b}=<<{a}*{b}={a * b}>>{a * b}", a * b)


def _row(question: str, steps: str, answer: int) -> dict:
    return {"question": question, "answer": f"{steps}\n#### {answer}"}


def _plural(noun: str) -> str:
    if noun == "shelf":
        return "shelves"
    return noun + ("es" if noun.endswith(("x", "s")) else "s")


def tokenizer(seed: int = 0):
    """The toy world's tokenizer."""
    texts = [m["content"] for row in chats(2000, seed) for m in row["messages"]]
    texts += [text for row in word_problems(2000, seed) for text in row.values()]
    texts += ["User: ", "Assistant: ", "System: "] * 2000
    return train_tokenizer(texts, TOKENIZER_SIZE)


def train_tokenizer(texts: list[str], vocab_size: int):
    """A byte-level BPE trained on texts; each digit is a token of its own, so numbers look alike everywhere."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|endoftext|>",
        bos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=CONTEXT,
    )


def model(vocab_size: int, eos_token_id: int, seed: int = 0, layers: int = LAYERS):
    """A GPT-2 with random weights: 128 wide, about 1M parameters with 4 layers, context 1024."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocab_size, n_positions=CONTEXT, n_embd=128, n_layer=layers, n_head=4,
        initializer_range=0.06,  # 0.02 suits GPT-2's 768 columns; at 128 it costs half of the training
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=eos_token_id, eos_token_id=eos_token_id,
    )  # fmt: skip
    return GPT2LMHeadModel(config)
