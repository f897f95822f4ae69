"""Which evaluation questions stand in training text: many words in a row in common. Text in, word n-grams out.

Thirteen words are what Brown et al., Language Models are Few-Shot Learners (2020), appendix C, took to filter GPT-3's
training text, in lower case and without punctuation. Numbers are one word here, whatever they are, so a problem that
was given other numbers is still the same problem. Questions and training text are normalised alike.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

NGRAM = 13  # words in a row that are not shared by chance
_NUMBER_WORD = "#"

# Within a word and of no weight: apostrophes of all shapes, and marks nobody sees (soft hyphen, joiners, byte order).
_DROPPED = {ord(mark): None for mark in "'’‘ʼ\u00ad\u200c\u200d\u2060\ufeff"}

# A digit and all up to the next letter: 1,234.50 and 3/4, but also a list or a calculation, which would otherwise be
# thirteen "words" that any other calculation shares.
_NUMBERS = re.compile(r"\d[\W\d_]*")
_WORD = re.compile(rf"[^\W\d_]+|{_NUMBER_WORD}")
_WORD_OR_NUMBER = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*")


def words(text: str) -> list[str]:
    """The text's words in lower case, without punctuation, each run of numbers as one `#`.

    `words("Don't pay $1,234.50: a 3/4-inch pipe!") == ["dont", "pay", "#", "a", "#", "inch", "pipe"]`. Only digits are
    numbers, "three" is a word. Where a script has no spaces, all up to the next punctuation is one word.
    """
    return _WORD.findall(_NUMBERS.sub(f" {_NUMBER_WORD} ", _plain(text).replace(_NUMBER_WORD, " ")))


def words_and_numbers(text: str) -> list[str]:
    """The same words, with the numbers between them as they are, but for the commas: `["pay", "1234.50"]`."""
    return [word.replace(",", "") for word in _WORD_OR_NUMBER.findall(_plain(text))]


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().translate(_DROPPED)


class Questions:
    """The n-grams of some questions, to look them up in any amount of text.

    A question of at least n words is shared where n of its words stand in a row in a text. A shorter one is shared
    where a text has all of it, with the same numbers: in "What is 6 times 9?" they are what is asked. (GPT-3's check
    compares short ones as a whole, too.) One without a word or number is never shared.
    """

    def __init__(self, texts: Sequence[str], n: int = NGRAM):
        self.n = n
        self.count = len(texts)
        self.short = 0  # how many questions are compared as a whole
        self._ngrams = _Ngrams(n)
        self._whole: dict[int, _Ngrams] = {}  # by their number of words
        for i, text in enumerate(texts):
            if len(found := words(text)) >= n:
                self._ngrams.add(found, i)
                continue
            self.short += 1
            if found := words_and_numbers(text):
                self._whole.setdefault(len(found), _Ngrams(len(found))).add(found, i)

    def shared(self, texts: Iterable[str]) -> dict[int, str]:
        """Number of each question that shares words with one of the texts, and the first words it shares.

        Words in a row are those of one text: nothing is shared across the end of a message.
        """
        shared: dict[int, str] = {}
        for text in texts:
            self._ngrams.look_up(words(text), shared)
            if self._whole:
                found = words_and_numbers(text)
                for ngrams in self._whole.values():
                    ngrams.look_up(found, shared)
        return shared


class _Ngrams:
    """n-grams of questions, and which questions they stand in."""

    def __init__(self, n: int):
        self.n = n
        self.questions: dict[str, list[int]] = {}
        self.vocabulary: set[str] = set()

    def add(self, words: list[str], question: int) -> None:
        for end in range(self.n, len(words) + 1):
            in_row = self.questions.setdefault(" ".join(words[end - self.n : end]), [])
            if in_row[-1:] != [question]:  # once for each question, however often it has them
                in_row.append(question)
        self.vocabulary.update(words)

    def look_up(self, words: list[str], shared: dict[int, str]) -> None:
        known = 0  # words in a row that any question has: joining all others would take most of the time
        for end, word in enumerate(words, start=1):
            known = known + 1 if word in self.vocabulary else 0
            if known >= self.n:
                ngram = " ".join(words[end - self.n : end])
                for question in self.questions.get(ngram, ()):
                    shared.setdefault(question, ngram)
