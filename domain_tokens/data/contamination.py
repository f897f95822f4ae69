"""Which evaluation questions stand in training text: many words in a row in common. Text in, word n-grams out.

Thirteen words in lower case, without punctuation, are what Brown et al., Language Models are Few-Shot Learners (2020),
appendix C, took to filter GPT-3's training text. Here every number is the same word, so that a problem with other
numbers is still the same problem. Questions and training text are normalised alike.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

NGRAM = 13  # words in a row that are not shared by chance
_NUMBER_WORD = "#"

# Dropped from words: apostrophes of all shapes and invisible marks (soft hyphen, joiners, byte order).
_DROPPED = {ord(mark): None for mark in "'’‘ʼ\u00ad\u200c\u200d\u2060\ufeff"}

# From a digit to the next letter: 1,234.50 and 3/4, but also a list or a calculation, which would otherwise be
# thirteen "words" that any other calculation shares.
_NUMBERS = re.compile(r"\d[\W\d_]*")
_WORD = re.compile(rf"[^\W\d_]+|{_NUMBER_WORD}")
_WORD_OR_NUMBER = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*")


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation, each run of numbers as one `#`.

    `words("Don't pay $1,234.50: a 3/4-inch pipe!") == ["dont", "pay", "#", "a", "#", "inch", "pipe"]`. Only digits are
    numbers: "three" is a word. In a script without spaces, everything up to the next punctuation is one word.
    """
    return _WORD.findall(_NUMBERS.sub(f" {_NUMBER_WORD} ", _plain(text).replace(_NUMBER_WORD, " ")))


def words_and_numbers(text: str) -> list[str]:
    """Return the same words with the numbers between them, without commas: `["pay", "1234.50"]`."""
    return [word.replace(",", "") for word in _WORD_OR_NUMBER.findall(_plain(text))]


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().translate(_DROPPED)


class Questions:
    """The n-grams of questions, to be looked up in any amount of text.

    A question of at least n words is shared if n of its words stand in a row in a text. A shorter question is shared
    if a text has all of it with the same numbers, as GPT-3's check does: the numbers of "What is 6 times 9?" are what
    is asked. A question without words or numbers is never shared.
    """

    def __init__(self, texts: Sequence[str], n: int = NGRAM):
        self.n = n
        self.texts = texts
        self.short = 0  # how many questions are compared as a whole
        self._ngrams = _Ngrams(n)
        self._whole: dict[int, _Ngrams] = {}  # by number of words
        for i, text in enumerate(texts):
            if len(found := words(text)) >= n:
                self._ngrams.add(found, i)
                continue
            self.short += 1
            if found := words_and_numbers(text):
                self._whole.setdefault(len(found), _Ngrams(len(found))).add(found, i)

    def shared(self, texts: Iterable[str]) -> dict[int, str]:
        """Return the number of each question that shares words with one of the texts, and the first words it shares.

        No words are joined across the end of a text.
        """
        shared: dict[int, str] = {}
        for text in texts:
            self._ngrams.look_up(words(text), shared)
            found = words_and_numbers(text) if self._whole else []
            for ngrams in self._whole.values():
                ngrams.look_up(found, shared)
        return shared


class _Ngrams:
    """n-grams, and the numbers of the questions that each stands in."""

    def __init__(self, n: int):
        self.n = n
        self.questions: dict[str, dict[int, None]] = {}
        self.vocabulary: set[str] = set()

    def add(self, words: list[str], question: int) -> None:
        for end in range(self.n, len(words) + 1):
            self.questions.setdefault(" ".join(words[end - self.n : end]), {})[question] = None
        self.vocabulary.update(words)

    def look_up(self, words: list[str], shared: dict[int, str]) -> None:
        known = 0  # words in a row that any question has; joining the other words would take most of the time
        for end, word in enumerate(words, start=1):
            known = known + 1 if word in self.vocabulary else 0
            if known >= self.n:
                ngram = " ".join(words[end - self.n : end])
                for question in self.questions.get(ngram, ()):
                    shared.setdefault(question, ngram)
