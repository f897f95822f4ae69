"""Ask a model in the terminal: one question, or a conversation with --interactive.

Replies are sampled at a temperature with a seed, so the same command gives the same reply; --greedy takes the likeliest
token every time, as the evaluations do. A terminal shows fact tokens as equations (6×9=54).

Example:
  uv run python sample/sample_sft.py --model-path outputs/sft_tulu_baseline --question "What is 7 times 8?"
  uv run python sample/sample_sft.py --model-path outputs/sft_tulu_baseline --interactive
"""

import argparse
import gc
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from domain_tokens.evaluation.sampling import Sampling
from domain_tokens.facts import settled_length, show_facts
from domain_tokens.runs import signals
from domain_tokens.runs.command_line import SEED_RANGE, CommandParser, check_seed, run
from domain_tokens.runs.errors import InputError, nearest
from domain_tokens.runs.files import write_json
from domain_tokens.runs.folders import check_model_folder
from domain_tokens.runs.terminal import say, shown_text

FACT_COLOUR = "\033[36m{}\033[0m"
HISTORY_LINES = 1000
HELP = """\
/help          this list
/reset         forget the conversation
/system TEXT   begin the conversation with a system message; without TEXT, remove it
/temp X        draw replies at temperature X
/greedy        take the likeliest token every time
/seed N        the seed of the next reply
/retry         ask the last question again, with the next seed
/save FILE     write the conversation to FILE as JSON
/quit          leave, as does Ctrl-D; Ctrl-C stops a reply
//TEXT         ask /TEXT"""
COMMANDS = re.findall(r"^/\w+", HELP, re.MULTILINE)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    parser.add_path("--model-path", required=True, help="folder of the model")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--question", help="ask this and print the reply")
    what.add_argument("--interactive", action="store_true", help="a conversation; questions may come from a pipe")
    parser.add_number("--num-samples", 1, help="replies to the question, with seeds counted up (default: 1)")
    parser.add_argument("--temperature", type=float, help="above 1 more varied, below 1 less (default: 0.7)")
    parser.add_argument("--top-k", type=int, help="draw from the K likeliest tokens (default: all)")
    parser.add_argument("--top-p", type=float, help="draw from the likeliest tokens of this share (default: all)")
    parser.add_argument("--greedy", action="store_true", help="always take the likeliest token")
    parser.add_argument("--seed", type=int, default=42, help="seed of the first reply (default: 42)")
    parser.add_number("--max-new-tokens", 1, default=256, help="longest reply, in tokens (default: 256)")
    parser.add_argument("--system-prompt", help="a system message in front of the question")
    parser.add_condition()
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")
    parser.add_argument("--json", action="store_true", help="print replies and settings as one JSON object")
    parser.add_argument("--raw", action="store_true", help="show fact tokens as the model writes them")
    args = parser.parse(argv)
    if args.greedy and (args.temperature, args.top_k, args.top_p, args.num_samples) != (None,) * 4:
        raise InputError("--greedy gives one reply; leave out --temperature, --top-k, --top-p and --num-samples")
    if args.interactive and (args.json or args.num_samples is not None):
        raise InputError("--json and --num-samples belong to --question, not to --interactive")
    temperature = None if args.greedy else 0.7 if args.temperature is None else args.temperature
    args.sampling = Sampling(temperature, args.top_k, args.top_p)
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    check_model_folder(Path(args.model_path))
    note(f"Loading {args.model_path} ...")
    # Imported late: --help and usage errors need not wait for torch and transformers. Without garbage collection, whose
    # passes find nothing to free here, their import is a second shorter.
    gc.disable()
    from domain_tokens.models.device import place
    from domain_tokens.models.folder import open_model

    gc.enable()
    checkpoint = open_model(args.model_path, args.condition)
    device = place(checkpoint, args.device)
    size = checkpoint.model.num_parameters() / 1e6
    note(f"{checkpoint.condition}, {size:.1f}M parameters, on {device}; {args.sampling}, seed {args.seed}")
    chat = Chat(checkpoint, args.sampling, args.seed, args.max_new_tokens, args.system_prompt, Screen(args.raw))
    if args.interactive:
        converse(chat)
    else:
        answer(chat, args)


def note(text: str) -> None:
    """Print what is not part of a reply to stderr, so that a pipe gets replies only."""
    say(text, sys.stderr)


class Screen:
    """Show replies: as equations to a person in a terminal, unchanged in a pipe or with --raw."""

    def __init__(self, raw: bool):
        self.is_terminal = sys.stdout.isatty()
        self.as_equations = self.is_terminal and not raw
        has_colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.colour = FACT_COLOUR if has_colour else "{}"
        self.held = ""  # the end of a reply that is still growing

    def show(self, text: str) -> None:
        """Show the next piece of a reply."""
        if self.is_terminal:
            text = shown_text(text)
        if self.as_equations:
            text = self.held + text
            end = settled_length(text)
            text, self.held = show_facts(text[:end], self.colour), text[end:]
        print(text, end="", flush=True)

    def finish(self) -> None:
        """End the reply and its line."""
        print(show_facts(self.held, self.colour), flush=True)
        self.held = ""


class Chat:
    """One conversation with a model: its turns, and how the next reply is made."""

    def __init__(self, checkpoint, sampling, seed: int, max_new_tokens: int, system: str | None, screen: Screen):
        self.checkpoint, self.sampling, self.screen = checkpoint, sampling, screen
        self.seed, self.max_new_tokens, self.system = seed, max_new_tokens, system
        self.turns: list[dict[str, str]] = []
        self.keeps_stopped = False

    @property
    def messages(self) -> list[dict[str, str]]:
        return ([{"role": "system", "content": self.system}] if self.system else []) + self.turns

    def ask(self, question: str, is_shown: bool = True):
        """Add a question and its reply to the conversation, or neither, and return the reply.

        Raises InputError for a question that is too long. With `keeps_stopped`, Ctrl-C ends only the reply.
        """
        from domain_tokens.evaluation.streaming import ReplyStream, fit_context, stream_reply

        asked = [*self.messages, {"role": "user", "content": question}]
        messages, dropped, room = fit_context(self.checkpoint, asked, self.max_new_tokens)
        if dropped:
            oldest = "The oldest turn was" if dropped == 1 else f"The {dropped} oldest turns were"
            positions = f"the model's {self.checkpoint.context:,} tokens"
            note(f"[{oldest} left out: with room for a reply, the conversation is longer than {positions}.]")
        stream = ReplyStream(self.checkpoint, self.screen.show if is_shown else lambda text: None)
        if is_shown and self.screen.is_terminal:
            print("Assistant: ", end="", flush=True)
        was_stopped = False
        try:
            stream_reply(self.checkpoint, messages, room, self.sampling, self.seed, stream)
        except KeyboardInterrupt:
            if not self.keeps_stopped or signals.must_end():
                self.screen.finish()
                raise
            was_stopped = True
        if was_stopped:  # outside the handler: a second Ctrl-C here drops the turn and keeps the earlier ones
            stream.end()
        reply = stream.reply()
        self.seed = (self.seed + 1) % len(SEED_RANGE)
        turns = [message for message in messages if message["role"] != "system"]
        self.turns = [*turns, {"role": "assistant", "content": reply.text}]
        if is_shown:
            self.screen.finish()
            if was_stopped:
                note("[stopped]")
            elif self.screen.is_terminal and not reply.text:
                note("[an empty reply]")
            elif self.screen.is_terminal and reply.tokens >= room:
                note(f"[cut at {room} tokens]")
        return reply

    def retry(self) -> None:
        if not self.turns:
            raise InputError("nothing was asked yet")
        before = self.turns
        self.turns = before[:-2]
        try:
            self.ask(before[-2]["content"])
        except BaseException:
            self.turns = before
            raise


def answer(chat: Chat, args: argparse.Namespace) -> None:
    """Print the replies to --question."""
    number = args.num_samples or 1
    drawn = {"greedy": args.greedy, "seed": args.seed, "max_new_tokens": args.max_new_tokens}
    settings = drawn | vars(chat.sampling)
    replies = []
    for i in range(number):
        if number > 1 and not args.json:
            print(f"{'' if i == 0 else chr(10)}[{i + 1} of {number}, seed {chat.seed}]")
        seed, reply = chat.seed, chat.ask(args.question, is_shown=not args.json)._asdict()
        replies.append({"seed": seed, "reply": reply.pop("text")} | reply)
        chat.turns.clear()  # each reply answers the question alone
    if args.json:
        model = {"model_path": chat.checkpoint.path, "condition": chat.checkpoint.condition}
        asked = {"question": args.question, "system_prompt": args.system_prompt}
        print(json.dumps(model | asked | {"settings": settings, "replies": replies}, indent=2, ensure_ascii=False))


def converse(chat: Chat) -> None:
    """Read questions and commands until there are no more."""
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if is_terminal:
        note("/help lists the commands; Ctrl-C stops a reply, Ctrl-D leaves.")
    history = open_history() if is_terminal else None
    chat.keeps_stopped = is_terminal
    was_interrupted = False
    while True:
        try:
            if was_interrupted:  # printed here: a second Ctrl-C in the handler below would end the program
                was_interrupted = False
                note("\n(Ctrl-D or /quit leaves.)")
            line = input("\nUser: " if is_terminal else "").strip()
            if line and history is not None:
                keep_in_history(history, line)
            if line == "/quit":
                break
            with hidden_typing() if is_terminal else nullcontext():
                if line.startswith("/") and not line.startswith("//"):
                    command(chat, line)
                elif line:
                    chat.ask(line.removeprefix("/"))
        except EOFError:
            break
        except KeyboardInterrupt:
            if not is_terminal or signals.must_end():
                raise
            was_interrupted = True
        except InputError as error:
            if not is_terminal:
                raise
            note(f"error: {error}")
    if is_terminal:
        print()


def command(chat: Chat, line: str) -> None:
    """Carry out a line that starts with a slash. Raises InputError if that is impossible."""
    from domain_tokens.evaluation.streaming import fit_context

    name, *rest = line.split(maxsplit=1)
    rest = rest[0] if rest else ""
    if name not in COMMANDS:
        raise InputError(f"{name} is no command{nearest(name, COMMANDS)}; /help lists them")
    if rest and name in ("/help", "/reset", "/greedy", "/retry", "/quit"):
        raise InputError(f"{name} stands alone; leave out {rest[:20]!r}")
    if name == "/help":
        note(HELP)
    elif name == "/reset":
        chat.turns.clear()
        note("[The conversation is forgotten.]")
    elif name == "/system":
        if rest:  # complain of its length now, and not at every later question
            longest = [{"role": "system", "content": rest}, {"role": "user", "content": ""}]
            fit_context(chat.checkpoint, longest, chat.max_new_tokens)
        chat.system = rest or None
        note(f"[System message: {rest}]" if rest else "[No system message.]")
    elif name == "/temp":
        chat.sampling = replace(chat.sampling, temperature=number_after(name, rest, float))
        note(f"[{chat.sampling}]")
    elif name == "/greedy":
        chat.sampling = replace(chat.sampling, temperature=None)
        note("[greedy]")
    elif name == "/seed":
        seed = number_after(name, rest, int)
        check_seed("/seed", seed)
        chat.seed = seed
        note(f"[seed {seed}]")
    elif name == "/retry":
        chat.retry()
    elif name == "/save":
        save(chat, rest)


def number_after(name: str, text: str, kind: type):
    try:
        return kind(text)
    except ValueError:
        expected = f"a number, such as {name} 0.7" if kind is float else f"a whole number, such as {name} 1"
        raise InputError(f"{name} {text[:20]}".strip() + f": expected {expected}") from None


def save(chat: Chat, name: str) -> None:
    if not name:
        raise InputError("/save needs the name of a file to write to")
    if not chat.turns:
        raise InputError("/save: nothing was asked yet, so there is no conversation to write")
    try:
        path = Path(name).expanduser()
        if path.exists():
            raise InputError(f"{path} exists already; choose another name")
        write_json(path, {"model_path": chat.checkpoint.path, "messages": chat.messages})
    except (OSError, RuntimeError, ValueError) as error:  # a long name, ~nobody, a null byte, a full disk
        raise InputError(f"/save {name[:80]}: cannot be written ({error})") from None
    note(f"[wrote {path}]")


@contextmanager
def hidden_typing() -> Iterator[None]:
    """Keep what is typed during a reply off the screen; the next prompt takes and shows it."""
    try:
        import termios
    except ImportError:  # no such module on Windows
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    termios.tcsetattr(sys.stdin, termios.TCSANOW, [*before[:3], before[3] & ~termios.ECHO, *before[4:]])
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def open_history() -> Path | None:
    """Set up line editing: earlier input, and Tab for commands. Return the file that keeps the input, None without one.

    A plain text file: the two libraries that Python's readline may be built with write different ones.
    """
    try:
        import readline
    except ImportError:  # a Python built without it; everything else works
        return None
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")
    readline.set_completer_delims("")  # the whole line, which begins with a command or holds none
    readline.set_completer(lambda line, i: [*(name for name in COMMANDS if name.startswith(line)), None][i])
    try:
        path = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "domain-tokens" / "questions"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[-HISTORY_LINES:]:
            readline.add_history(line)
    except (OSError, RuntimeError) as error:
        note(f"[what is typed cannot be kept: {error}]")
        return None
    return path


def keep_in_history(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    except OSError as error:
        note(f"[this line is not kept: {error.strerror}]")


if __name__ == "__main__":
    run(main)
