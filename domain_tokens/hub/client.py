"""The Hugging Face Hub's client, and what a failure of it means.

The token is taken from where `huggingface_hub` takes it (HF_TOKEN, `hf auth login`) and never shown.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import httpx2
from huggingface_hub import HfApi, constants, get_token, set_client_factory
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import HFValidationError, get_session, validate_repo_id
from huggingface_hub.utils._http import hf_request_event_hook

from domain_tokens.runs.errors import InputError, RunError
from domain_tokens.runs.terminal import shown_text

_AGAIN = "run the same command again"
LOG_IN = "log in with `uv run hf auth login` or set HF_TOKEN"
_WAITS = (1, 5)  # seconds before the second and third try
_SILENCE_LIMIT = 60  # seconds without a byte before a connection counts as lost; the client would wait for ever
_SLOWEST = 1000  # bytes a second; slower than that, nothing of use arrives
_LONGEST_ANSWER = 100_000_000  # bytes of an answer whose size nobody said
_promised: ContextVar[int | None] = ContextVar("promised", default=None)  # bytes of the file that is being fetched


def prepare_client(say: Callable[[str], None]) -> None:
    """Before the first use of the Hub: a limit to its client's patience, and `say` hears of every retry."""
    set_client_factory(_Client)
    logger = logging.getLogger("huggingface_hub")
    logger.handlers = [_Notes(say)]
    logger.propagate = False


def open_hub(say: Callable[[str], None]) -> HfApi:
    prepare_client(say)
    return HfApi()


def require_token() -> None:
    if get_token() is None:
        raise RunError(f"uploading needs a Hugging Face token, and there is none; {LOG_IN}")


def check_repo_id(repo_id: str) -> None:
    """InputError for what the Hub would not take as a repository's full name."""
    expected = "expected OWNER/NAME of letters, digits, -, _ and ."
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise InputError(f"repository {repo_id!r} is no valid name; {expected}") from None
    if "/" not in repo_id:
        raise InputError(f"repository {repo_id!r} has no owner; {expected}")


def require_hub(doing: str) -> None:
    """Raise HubUnreachable within seconds if there is no connection: the libraries would try each file five times."""
    with hub_errors(doing):
        try:
            get_session().head(constants.ENDPOINT, timeout=5)
        except httpx2.HTTPStatusError:  # it answers
            return


class HubUnreachable(RunError):
    """No repository can be reached now: there is no connection, or the token is refused."""


@contextmanager
def hub_errors(doing: str) -> Iterator[None]:
    """Turn whatever the Hub's clients raise into one RunError that names what was being done and the remedy."""
    token = get_token()
    if token is not None and not re.fullmatch(r"[!-~]+", token):  # it would be quoted in an error about the header
        raise HubUnreachable(f"{doing}: the saved token or HF_TOKEN holds characters that no token has; {LOG_IN}")
    try:
        yield
    except (httpx2.HTTPError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        kind = HubUnreachable if _concerns_all_repositories(error) else RunError
        raise kind(f"{doing}: {_explained(error)}") from error


def with_retries(call: Callable, *args, **kwargs):
    """Call again after a busy Hub or a lost connection. The library's client retries most requests, but not these."""
    for wait in _WAITS:
        try:
            return call(*args, **kwargs)
        except httpx2.HTTPError as error:
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
            if status is not None and status != 429 and status < 500:
                raise
            asked = error.response.headers.get("Retry-After", "") if status is not None else ""
            wait = min(int(asked), _SILENCE_LIMIT) if asked.isdigit() else wait
            problem = f"HTTP error {status}" if status is not None else type(error).__name__
            logging.getLogger("huggingface_hub").warning("%s. Retrying in %ss.", problem, wait)
            time.sleep(wait)
    return call(*args, **kwargs)


class BeyondLimit(RuntimeError):
    """The Hub sends more than it promised, or hardly anything."""


class _LimitedBody(httpx2.SyncByteStream):
    """The body of an answer: no longer than was promised, and no slower than `_SLOWEST`."""

    def __init__(self, body: httpx2.SyncByteStream, limit: float):
        self.body, self.limit = body, limit

    def __iter__(self) -> Iterator[bytes]:
        began, received = time.monotonic(), 0
        for chunk in self.body:
            received += len(chunk)
            if received > self.limit:
                raise BeyondLimit(f"the Hub sends more than the {self.limit:,} bytes it promised; check HF_ENDPOINT")
            if time.monotonic() - began > 6 * constants.HF_HUB_DOWNLOAD_TIMEOUT + received / _SLOWEST:
                raise BeyondLimit(f"the Hub sends less than {_SLOWEST:,} bytes a second; {_AGAIN} later")
            yield chunk

    def close(self) -> None:
        self.body.close()


def _limit_body(response: httpx2.Response) -> None:
    """Bound an answer by the size of the file that is fetched, else by its own header, else by what is sensible."""
    has_length = "Content-Length" in response.headers  # the connection itself ends such a body there
    limit = _promised.get() or (float("inf") if has_length else _LONGEST_ANSWER)
    response.stream = _LimitedBody(response.stream, limit)


@contextmanager
def promised(size: int) -> Iterator[None]:
    """Accept answers of at most this many bytes, and some more for headers of parts, while the context lasts."""
    token = _promised.set(size + 4096)
    try:
        yield
    finally:
        _promised.reset(token)


class _Client(httpx2.Client):
    """The library's client with a timeout on every request, and a limit to the size and slowness of every answer."""

    def __init__(self):
        super().__init__(
            event_hooks={"request": [hf_request_event_hook], "response": [_limit_body]},
            follow_redirects=True, timeout=_SILENCE_LIMIT,
        )  # fmt: skip

    def build_request(self, *args, timeout=None, **kwargs):
        return super().build_request(*args, timeout=_SILENCE_LIMIT if timeout is None else timeout, **kwargs)


class _Notes(logging.Handler):
    """The client's log lines, for people: without addresses, one line each."""

    def __init__(self, say: Callable[[str], None]):
        super().__init__(logging.WARNING)
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(re.sub(r"https?://\S+", "the Hub", record.getMessage()).split())
        self.say(f"  {shown_text(_without_token(text))}")


def _chain(error: BaseException) -> list[BaseException]:
    """An error and what it came from: uploads wrap theirs twice."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _concerns_all_repositories(error: BaseException) -> bool:
    answers = [link.response.status_code for link in _chain(error) if isinstance(link, HfHubHTTPError)]
    return answers[0] == 401 if answers else any(isinstance(link, httpx2.HTTPError) for link in _chain(error))


def _explained(error: BaseException) -> str:
    """One sentence: what happened, and what to do."""
    chain = _chain(error)
    for link in chain:
        if isinstance(link, HfHubHTTPError):
            return _without_token(_answer(link))
        if OfflineModeIsEnabled.__name__ in f"{type(link).__name__} {link}":  # datasets cuts the chain there
            return "HF_HUB_OFFLINE is set, so the Hub is not asked; unset it"
    for link in chain:
        if isinstance(link, httpx2.ConnectError):
            return "the Hub cannot be reached; check the network (and HF_ENDPOINT, if it is set)"
        if isinstance(link, httpx2.HTTPError):
            return f"the connection to the Hub failed ({type(link).__name__}); {_AGAIN}"
    if isinstance(error, KeyError | TypeError):
        return f"the Hub's answer is not understood ({type(error).__name__}: {error}); check HF_ENDPOINT, if it is set"
    return _without_token(str(error)) or type(error).__name__


def _answer(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    said = " ".join((error.server_message or "").split())
    said = f" ({said})" if said else ""
    if isinstance(error, GatedRepoError):
        return f"its owner has to grant access first: ask for it on its page, {LOG_IN}, then {_AGAIN}"
    if isinstance(error, RevisionNotFoundError):
        return "there is no such revision; check --revision"
    if isinstance(error, RepositoryNotFoundError):
        return f"it is not on the Hub, or private: check the name, or {LOG_IN} and {_AGAIN}"
    if status == 401:
        refused = "the Hub refuses the token" if get_token() else "the Hub asks for a token"
        return f"{refused}; {LOG_IN}, then {_AGAIN}"
    if status == 403:
        return f"the token does not allow that{said}; {LOG_IN} with one that does, then {_AGAIN}"
    if status == 404:
        return f"there is no such thing on the Hub{said}; check the name"
    if status == 429:
        return f"too many requests; wait a little, then {_AGAIN}"
    if status >= 500:
        return f"the Hub has a problem ({status} {error.response.reason_phrase}); {_AGAIN} later"
    return f"the Hub answered {status} {error.response.reason_phrase}{said}; {_AGAIN}"


def _without_token(text: str) -> str:
    token = get_token()
    return text.replace(token, "<token>") if token else text
