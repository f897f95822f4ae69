"""Asking a model in the terminal: what is shown, remembered and stopped. The last part runs in a real terminal."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pexpect
import pytest
import sample_sft
import torch
from conftest import Terminal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain_tokens.evaluation.replies import reply_to, tokenize_prompts
from domain_tokens.evaluation.sampling import Sampling
from domain_tokens.evaluation.streaming import ReplyStream, fit_context, stream_reply
from domain_tokens.models.folder import open_model
from domain_tokens.prompt import prompt_text, question_conversation
from domain_tokens.runs.errors import InputError

ROOT = Path(__file__).parents[2]
QUESTION = "What is 7 times 8?"


@pytest.fixture(scope="module")
def checkpoint(toy_base):
    return open_model(str(toy_base["mul_tokens"]), None)


def ids_of(checkpoint, text):
    return checkpoint.tokenizer.encode(text, add_special_tokens=False)


def streamed(checkpoint, ids, finish=True):
    """The pieces a stream shows for these ids, given one by one after a prompt."""
    pieces = []
    stream = ReplyStream(checkpoint, pieces.append)
    stream.put(torch.tensor([[1, 2, 3]]))
    for token in ids:
        stream.put(torch.tensor([token]))
    if finish:
        stream.end()
    return pieces, stream.reply()


def sampled(checkpoint, text, sampling=None, seed=1, tokens=12):
    sampling = sampling or Sampling(1.0)
    return stream_reply(
        checkpoint, question_conversation(text), tokens, sampling, seed, ReplyStream(checkpoint, lambda text: None)
    ).text


def record_prompts(monkeypatch):
    """The conversations that a model is asked with from here on, in order."""
    asked = []

    def tokenize(checkpoint, conversations):
        asked.extend(map(list, conversations))
        return tokenize_prompts(checkpoint, conversations)

    monkeypatch.setattr("domain_tokens.evaluation.streaming.tokenize_prompts", tokenize)
    return asked


class TestStream:
    def test_pieces_come_as_tokens_come_and_a_fact_comes_whole(self, checkpoint):
        ids = ids_of(checkpoint, " The product is <MUL_7_8_56>.<|endoftext|>")
        pieces, reply = streamed(checkpoint, ids)
        assert "".join(pieces) == reply.text == "The product is <MUL_7_8_56>."
        assert " <MUL_7_8_56>" in pieces
        assert len(pieces) > 3
        assert (reply.mul_tokens, reply.finished) == (1, True)

    @pytest.mark.parametrize("label", ["\nUser:", "\nUser: What is 3 times 4?"])
    def test_the_next_turns_label_is_never_shown_not_even_its_first_letters(self, checkpoint, label):
        pieces, reply = streamed(checkpoint, ids_of(checkpoint, f" yes{label}"))
        assert "".join(pieces) == reply.text == "yes"
        assert not reply.finished

    def test_what_only_looks_like_the_label_is_shown_in_the_end(self, checkpoint):
        assert "".join(streamed(checkpoint, ids_of(checkpoint, " yes\nUse it"))[0]) == "yes\nUse it"
        assert "".join(streamed(checkpoint, ids_of(checkpoint, " yes\nUse"))[0]) == "yes\nUse"
        assert "".join(streamed(checkpoint, ids_of(checkpoint, " yes\nUse"), finish=False)[0]) == "yes"

    def test_half_a_character_waits_for_its_other_half(self, checkpoint):
        ids = ids_of(checkpoint, " é")
        assert len(ids) > 1, "the toy vocabulary spells it in bytes"
        pieces, _ = streamed(checkpoint, ids)
        assert pieces == ["é"]

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_the_pieces_joined_are_the_reply_whatever_the_tokens(self, checkpoint, data):
        special = ids_of(checkpoint, "\nUser: <MUL_7_8_56> <|endoftext|>")
        tokens = st.integers(0, len(checkpoint.tokenizer) - 1) | st.sampled_from(special)
        pieces, reply = streamed(checkpoint, data.draw(st.lists(tokens, max_size=20)))
        assert "".join(pieces) == reply.text


def evaluated_reply(checkpoint, max_new_tokens):
    """The reply to QUESTION in an evaluation."""
    prompts = tokenize_prompts(checkpoint, [question_conversation(QUESTION)])
    return dict(reply_to(checkpoint, prompts, max_new_tokens, batch_size=1))[0]


class TestSampling:
    def test_greedy_is_what_the_evaluations_do(self, checkpoint):
        evaluated = evaluated_reply(checkpoint, 12)
        assert sampled(checkpoint, QUESTION, Sampling(None)) == evaluated.text
        assert sampled(checkpoint, QUESTION, Sampling(0.7, top_k=1)) == evaluated.text

    def test_the_seed_decides_and_nothing_else(self, checkpoint):
        first = sampled(checkpoint, QUESTION, seed=5)
        assert sampled(checkpoint, QUESTION, seed=6) != first
        assert sampled(checkpoint, QUESTION, seed=5) == first

    def test_top_p_of_one_and_no_top_k_leave_every_token_in(self):
        assert Sampling(0.7).settings() == {"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 1.0}
        assert Sampling(0.5, 5, 0.9).settings() == {"do_sample": True, "temperature": 0.5, "top_k": 5, "top_p": 0.9}

    def test_the_coldest_and_hottest_temperatures_still_draw(self, checkpoint):
        greedy = sampled(checkpoint, QUESTION, Sampling(None))
        assert sampled(checkpoint, QUESTION, Sampling(0.01)) == greedy != sampled(checkpoint, QUESTION, Sampling(100.0))

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"temperature": 0.0}, "temperature is 0.0, expected 0.01 to 100; greedy takes the likeliest"),
            ({"temperature": 1e-40}, "temperature is 1e-40, expected 0.01"),
            ({"temperature": float("nan")}, "temperature is nan"),
            ({"temperature": float("inf")}, "temperature is inf"),
            ({"top_k": 0}, "top-k is 0, expected at least 1"),
            ({"top_p": 1.5}, "top-p is 1.5, expected more than 0 and at most 1"),
        ],
    )
    def test_impossible_settings_are_refused(self, wrong, message):
        with pytest.raises(InputError, match=message):
            Sampling(**wrong)


class TestContext:
    """The toy model has 1,024 positions."""

    def turns(self, n, words=40):
        return [
            {"role": role, "content": f"{i} " + "red " * words} for i in range(n) for role in ("user", "assistant")
        ] + question_conversation("last")

    def test_a_conversation_that_fits_is_left_alone(self, checkpoint):
        messages = [{"role": "system", "content": "Be kind."}, *self.turns(2)]
        length = len(ids_of(checkpoint, prompt_text(messages, "<|endoftext|>")))
        assert fit_context(checkpoint, messages, 64) == (messages, 0, 64)
        assert fit_context(checkpoint, messages, 10_000) == (messages, 0, 1024 - length)

    def test_the_oldest_turns_drop_first_and_the_system_message_stays(self, checkpoint):
        messages = [{"role": "system", "content": "Be kind."}, *self.turns(20)]
        left, dropped, room = fit_context(checkpoint, messages, 64)
        assert dropped > 0
        assert left == [messages[0], *messages[1 + 2 * dropped :]]
        assert room == 64
        one_more = [messages[0], *messages[1 + 2 * (dropped - 1) :]]
        assert len(ids_of(checkpoint, prompt_text(one_more, "<|endoftext|>"))) + 64 > 1024

    def test_a_question_too_long_by_itself_is_refused(self, checkpoint):
        with pytest.raises(InputError, match="the question has 1.* positions for the reply; make it shorter"):
            fit_context(checkpoint, question_conversation("red " * 1000), 64)


class TestCommand:
    def run(self, toy_base, capsys, *arguments):
        flags = ["--model-path", str(toy_base["mul_tokens"]), "--max-new-tokens", "12", *arguments]
        sample_sft.main(flags)
        return capsys.readouterr()

    def test_stdout_holds_the_reply_and_nothing_else(self, toy_base, checkpoint, capsys):
        shown = self.run(toy_base, capsys, "--question", QUESTION, "--greedy")
        assert shown.out == sampled(checkpoint, QUESTION, Sampling(None)) + "\n"
        assert "mul_tokens, 1.0M parameters, on cpu; greedy, seed 42" in shown.err

    def test_several_samples_have_seeds_counted_up(self, toy_base, checkpoint, capsys):
        arguments = ["--question", QUESTION, "--num-samples", "3", "--temperature", "1.0", "--seed", "7"]
        shown = self.run(toy_base, capsys, *arguments)
        replies = [sampled(checkpoint, QUESTION, Sampling(1.0), seed) for seed in (7, 8, 9)]
        assert len(set(replies)) == 3
        expected = [f"[{i} of 3, seed {6 + i}]\n{reply}\n" for i, reply in enumerate(replies, start=1)]
        assert shown.out == "\n".join(expected)

    def test_json_holds_replies_settings_and_question(self, toy_base, checkpoint, capsys):
        arguments = ["--question", QUESTION, "--num-samples", "2", "--top-k", "5", "--system-prompt", "Be kind."]
        shown = json.loads(self.run(toy_base, capsys, *arguments, "--json").out)
        assert shown["question"] == QUESTION
        assert shown["system_prompt"] == "Be kind."
        assert shown["condition"] == "mul_tokens"
        assert shown["settings"] == {
            "greedy": False, "seed": 42, "max_new_tokens": 12, "temperature": 0.7, "top_k": 5, "top_p": None,
        }  # fmt: skip
        assert [reply.pop("seed") for reply in shown["replies"]] == [42, 43]
        assert [set(reply) for reply in shown["replies"]] == [{"reply", "tokens", "mul_tokens", "finished"}] * 2

    def test_the_system_prompt_stands_in_front(self, toy_base, capsys, monkeypatch):
        prompts = record_prompts(monkeypatch)
        self.run(toy_base, capsys, "--question", QUESTION, "--system-prompt", "Be kind.")
        assert prompts[-1] == [{"role": "system", "content": "Be kind."}, *question_conversation(QUESTION)]

    @pytest.mark.parametrize("device", ["cuda", "abacus", "meta"])
    def test_a_device_that_is_not_there_is_named(self, toy_base, capsys, device):
        with pytest.raises(InputError, match=f"device {device} cannot be used"):
            self.run(toy_base, capsys, "--question", QUESTION, "--device", device)

    def test_a_folder_that_does_not_exist_is_not_loaded_and_the_nearest_is_named(self, toy_base, tmp_path, capsys):
        shutil.copytree(toy_base["baseline"], tmp_path / "toy/sft_tulu_baseline")
        wanted = tmp_path / "sft_tulu_baseline"
        with pytest.raises(InputError) as raised:
            sample_sft.main(["--model-path", str(wanted), "--question", QUESTION])
        assert str(raised.value) == (
            f"model folder {wanted} does not exist (did you mean {tmp_path}/toy/sft_tulu_baseline?); "
            "scripts/load_from_hf.py --list shows what can be fetched, scripts/run_experiment.py makes the "
            "quickstart's models in outputs/toy, scripts/prepare_base.py a start model"
        )
        file = toy_base["baseline"] / "config.json"
        with pytest.raises(InputError, match=r"config\.json is a file; give the folder that holds config\.json"):
            sample_sft.main(["--model-path", str(file), "--question", QUESTION])
        assert "Loading" not in capsys.readouterr().err

    def test_a_question_longer_than_the_context_is_refused(self, toy_base, capsys):
        with pytest.raises(InputError, match="make it shorter"):
            self.run(toy_base, capsys, "--question", "red " * 1100)


class TestScreen:
    TEXT = "<MUL_7_8_56> \x1b]0;title\x07\x1b[31m red \u202eback\r<MUL_7_8_57>"

    def shown(self, monkeypatch, stdout, raw=False, **environment):
        monkeypatch.setattr(sys, "stdout", stdout)
        for name in ("NO_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        sample_sft.Screen(raw).show(self.TEXT)
        return stdout.getvalue()

    def test_a_terminal_shows_equations_in_colour_and_control_characters_as_text(self, monkeypatch):
        expected = r"\x1b]0;title\x07\x1b[31m red \u202eback\r<MUL_7_8_57>"
        assert self.shown(monkeypatch, Terminal()) == f"\x1b[36m7×8=56\x1b[0m {expected}"
        assert self.shown(monkeypatch, Terminal(), NO_COLOR="1") == f"7×8=56 {expected}"
        assert self.shown(monkeypatch, Terminal(), TERM="dumb") == f"7×8=56 {expected}"
        assert self.shown(monkeypatch, Terminal(), raw=True) == f"<MUL_7_8_56> {expected}"

    def test_a_fact_that_follows_its_mark_is_shown_once(self, monkeypatch):
        stdout = Terminal()
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setenv("NO_COLOR", "1")
        screen = sample_sft.Screen(raw=False)
        for piece in ("So <MUL_6_9_54>", "6", "*9", "=54, <MUL_6_9_54>", "6*9", "0 and", " <MUL_7_8_56>", "."):
            screen.show(piece)
        assert stdout.getvalue() == "So ▸6*9=54, 6×9=546*90 and 7×8=56."
        screen.show(" <MUL_1_2_2>")
        screen.finish()
        assert stdout.getvalue().endswith(" 1×2=2\n"), "what no text follows is no mark"

    def test_a_pipe_gets_the_reply_as_it_is(self, monkeypatch):
        assert self.shown(monkeypatch, io.StringIO()) == self.TEXT


class TestChat:
    @pytest.fixture
    def chat(self, checkpoint, monkeypatch):
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        return sample_sft.Chat(checkpoint, Sampling(1.0), 7, 8, None, sample_sft.Screen(raw=False))

    def test_earlier_turns_are_part_of_the_prompt_until_reset(self, chat, monkeypatch):
        prompts = record_prompts(monkeypatch)
        first = chat.ask("One?").text
        chat.ask("Two?")
        conversation = [
            *question_conversation("One?"),
            {"role": "assistant", "content": first},
            *question_conversation("Two?"),
        ]
        assert prompts[-1] == conversation
        sample_sft.command(chat, "/reset")
        chat.ask("Three?")
        assert prompts[-1] == question_conversation("Three?")

    def test_retry_replaces_the_last_reply_with_the_next_seeds(self, chat, checkpoint):
        first = chat.ask(QUESTION).text
        sample_sft.command(chat, "/retry")
        assert [turn["role"] for turn in chat.turns] == ["user", "assistant"]
        assert chat.turns[0]["content"] == QUESTION
        assert first == sampled(checkpoint, QUESTION, seed=7, tokens=8)
        assert chat.turns[1]["content"] == sampled(checkpoint, QUESTION, seed=8, tokens=8) != first
        sample_sft.command(chat, "/seed 7")
        sample_sft.command(chat, "/retry")
        assert chat.turns[1]["content"] == first

    def test_settings_change_from_the_next_reply_on(self, chat):
        sample_sft.command(chat, "/temp 0.3")
        assert chat.sampling == Sampling(0.3)
        sample_sft.command(chat, "/greedy")
        assert chat.sampling == Sampling(None)
        sample_sft.command(chat, "/system Be kind.")
        assert chat.messages == [{"role": "system", "content": "Be kind."}]
        sample_sft.command(chat, "/system")
        assert chat.messages == []

    def test_save_writes_the_conversation_and_never_over_a_file(self, chat, tmp_path):
        reply = chat.ask(QUESTION).text
        sample_sft.command(chat, f"/save {tmp_path}/chat.json")
        saved = json.loads((tmp_path / "chat.json").read_text())
        assert saved["messages"] == [*question_conversation(QUESTION), {"role": "assistant", "content": reply}]
        with pytest.raises(InputError, match="exists already"):
            sample_sft.command(chat, f"/save {tmp_path}/chat.json")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("/rest", r"/rest is no command \(did you mean /reset\?\)"),
            ("/temp", "expected a number, such as /temp 0.7"),
            ("/temp 0", "temperature is 0.0, expected 0.01 to 100"),
            ("/seed 1e3", "/seed 1e3: expected a whole number, such as /seed 1"),
            ("/seed -1", "/seed is -1, expected 0 to"),
            ("/retry", "nothing was asked yet"),
            ("/save", "needs the name of a file"),
            ("/save chat.json", "/save: nothing was asked yet, so there is no conversation to write"),
            ("/system " + "red " * 1100, "the question and the system message have"),
            ("/reset now", "/reset stands alone; leave out 'now'"),
        ],
    )
    def test_a_wrong_command_says_what_is_wrong(self, chat, line, message):
        with pytest.raises(InputError, match=message):
            sample_sft.command(chat, line)

    @pytest.mark.parametrize("name", ["/nowhere/chat.json", "~nosuchuser/chat.json", "x" * 300, "a\0b"])
    def test_a_file_that_cannot_be_written_is_named(self, chat, name):
        chat.turns = [*question_conversation("One?"), {"role": "assistant", "content": "1"}]
        with pytest.raises(InputError, match="/save .*: cannot be written"):
            sample_sft.command(chat, f"/save {name}")

    def test_oldest_turns_are_left_out_with_a_word(self, chat, capsys):
        for i in range(6):
            chat.ask(f"{i} " + "red " * 300)
        assert "left out: with room for a reply, the conversation is longer than the model's 1,024 tokens" in (
            capsys.readouterr().err
        )
        assert chat.turns[0]["content"][0] != "0"
        assert chat.turns[-2]["content"][0] == "5"

    def test_a_question_that_does_not_fit_is_forgotten(self, chat):
        chat.ask("One?")
        before = list(chat.turns)
        with pytest.raises(InputError, match="make it shorter"):
            chat.ask("red " * 1100)
        assert chat.turns == before

    def test_a_retry_that_fails_leaves_the_conversation_as_it_was(self, chat):
        chat.ask("One?")
        before = list(chat.turns)
        chat.system = "red " * 1100
        with pytest.raises(InputError, match="the question and the system message have"):
            chat.retry()
        assert chat.turns == before

    @pytest.fixture
    def interrupt_after_three(self, monkeypatch):
        original = ReplyStream.put

        def put(stream, value):
            original(stream, value)
            if len(stream.ids) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(ReplyStream, "put", put)

    def test_ctrl_c_keeps_and_shows_what_had_come(self, chat, checkpoint, interrupt_after_three, capsys):
        chat.keeps_stopped = True
        chat.sampling = replace(chat.sampling, temperature=None)
        reply = chat.ask(QUESTION)
        expected = evaluated_reply(checkpoint, 3).text
        assert expected
        assert reply.text == expected
        assert chat.turns == [*question_conversation(QUESTION), {"role": "assistant", "content": expected}]
        assert sys.stdout.getvalue() == f"{expected}\n"
        assert "[stopped]" in capsys.readouterr().err

    def test_ctrl_c_ends_a_single_question(self, toy_base, interrupt_after_three, capsys):
        command = ["--model-path", str(toy_base["mul_tokens"]), "--question", QUESTION, "--num-samples", "3"]
        with pytest.raises(KeyboardInterrupt):
            sample_sft.main(command)
        assert "[2 of 3" not in capsys.readouterr().out


class TestTerminal:
    """The whole program in a pseudo-terminal. The model is random, so its replies go on until they are cut."""

    @pytest.fixture
    def start(self, toy_base, tmp_path):
        environment = os.environ | {"XDG_STATE_HOME": str(tmp_path / "state"), "TERM": "xterm", "INPUTRC": os.devnull}
        sessions = []

        def start(*arguments):
            command = ["sample/sample_sft.py", "--model-path", str(toy_base["mul_tokens"]), "--interactive", *arguments]
            session = pexpect.spawn(
                sys.executable,
                command,
                cwd=ROOT,
                env=environment,
                encoding="utf-8",
                codec_errors="replace",
                timeout=600,  # a busy machine takes minutes to import torch
                dimensions=(24, 500),
            )
            sessions.append(session)
            session.expect("\nUser: ")
            return session

        yield start
        for session in sessions:
            session.close(force=True)

    def ask(self, session, text):
        """The reply to a question, as the terminal shows it."""
        session.sendline(text)
        session.expect_exact("Assistant: ")
        session.expect("\r\n\r\nUser: ")
        return session.before

    def test_a_conversation(self, start, tmp_path):
        session = start("--greedy", "--max-new-tokens", "30")
        first = self.ask(session, QUESTION)
        assert "[cut at 30 tokens]" in first
        second = self.ask(session, QUESTION)
        assert second != first, "the second prompt holds the first turn"
        session.sendline("/reset")
        session.expect_exact("[The conversation is forgotten.]")
        session.expect_exact("User: ")
        assert self.ask(session, QUESTION) == first
        os.write(session.child_fd, b"What \xff is\r")  # no UTF-8
        session.expect_exact("Assistant: ")
        session.expect_exact("User: ")
        session.sendline("/retry")
        session.expect_exact("Assistant: ")
        session.expect_exact("User: ")
        session.sendline("/nonsense")
        session.expect_exact("error: /nonsense is no command")
        session.expect_exact("User: ")
        session.sendline(f"/save {tmp_path}/chat.json")
        session.expect_exact("[wrote ")
        assert len(json.loads((tmp_path / "chat.json").read_text())["messages"]) == 4
        session.sendline("/quit")
        session.expect(pexpect.EOF)
        session.wait()
        assert session.exitstatus == 0

        session = start("--max-new-tokens", "900")
        session.send("\x1b[A")  # the up-arrow: /quit; five more to the question
        session.expect_exact("/quit")
        session.send("\x1b[A" * 5)
        session.expect_exact("is 7 times 8?")  # only what differs from the line before is drawn
        started = time.monotonic()
        session.send("\r")
        session.expect(r"Assistant: \S")
        first_text = time.monotonic() - started
        session.expect(r"\[cut at \d+ tokens\]")
        assert first_text < (time.monotonic() - started) / 2, "the reply came in pieces"
        session.expect_exact("User: ")

        session.sendline(QUESTION)
        session.expect(r"Assistant: \S+")
        session.sendintr()
        session.expect_exact("[stopped]")
        session.expect_exact("User: ")
        session.sendintr()
        session.expect_exact("(Ctrl-D or /quit leaves.)")
        session.expect_exact("User: ")
        session.sendeof()
        session.expect(pexpect.EOF)
        session.wait()
        assert session.exitstatus == 0

    @pytest.mark.parametrize(("number", "during_a_reply"), [(signal.SIGTERM, True), (signal.SIGHUP, False)])
    def test_a_signal_other_than_ctrl_c_ends_it(self, start, number, during_a_reply):
        session = start("--max-new-tokens", "900")
        if during_a_reply:
            session.sendline(QUESTION)
            session.expect(r"Assistant: \S+")
        session.kill(number)
        session.expect_exact("error: interrupted")
        session.expect(pexpect.EOF)
        session.wait()
        assert session.exitstatus == 1

    def test_what_is_typed_during_a_reply_appears_at_the_next_prompt_only(self, start):
        session = start("--greedy", "--max-new-tokens", "300")
        session.sendline(QUESTION)
        session.expect(r"Assistant: \S")
        session.send("What is 9")
        session.send(" plus 9?")
        session.expect(r"\[cut at 300 tokens\]")
        assert "plus 9?" not in session.before
        session.expect_exact("User: ")
        session.expect_exact("What is 9 plus 9?")
        session.send("\r")
        session.expect_exact("Assistant: ")
        session.expect_exact("User: ")
        session.send("/res\t\r")
        session.expect_exact("/reset")
        session.expect_exact("[The conversation is forgotten.]")
        session.expect_exact("User: ")
        session.sendline("/save chat.json")
        session.expect_exact("error: /save: nothing was asked yet")

    def test_questions_from_a_pipe(self, toy_base, checkpoint):
        command = [sys.executable, "sample/sample_sft.py", "--model-path", str(toy_base["mul_tokens"])]
        shown = subprocess.run(
            [*command, "--interactive", "--greedy", "--max-new-tokens", "12"],
            cwd=ROOT, input=f"{QUESTION}\n\n/reset\n//help \udcff\n/reset\n{QUESTION}\n/nonsense\n{QUESTION}",
            errors="surrogateescape", capture_output=True, text=True, check=False,
        )  # fmt: skip
        reply, other = (sampled(checkpoint, text, Sampling(None)) for text in (QUESTION, "/help \ufffd"))
        assert (shown.returncode, shown.stdout) == (2, f"{reply}\n{other}\n{reply}\n")
        assert shown.stderr.splitlines()[-1] == "error: /nonsense is no command; /help lists them"
