"""A `uv` for tests: `uv run python script args` in a process forked from one that has imported everything already.

A fresh interpreter spends a dozen seconds on importing torch and transformers, and the documented commands and all
that can fail on the Hub are some two hundred runs. Apart from that a command runs as it stands: with the caller's
arguments, folder, environment and streams. Waiting between two tries on the Hub is cut short.
"""

import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PRELOADED = (
    "datasets", "domain_tokens.comparison.compare", "domain_tokens.comparison.reading",
    "domain_tokens.evaluation.questions", "domain_tokens.evaluation.run", "domain_tokens.evaluation.steps",
    "domain_tokens.evaluation.streaming", "domain_tokens.hub.model_card", "domain_tokens.models.nanogpt",
    "domain_tokens.models.sources", "domain_tokens.training.stage",
)  # fmt: skip
LONGEST_WAIT = 0.05  # seconds, in place of the Hub clients' 1 to 8
CLIENT = """#!{python} -SE
import json, os, socket, sys
if sys.argv[1:3] != ["run", "python"]:
    sys.exit("this uv can only run python")
request = json.dumps([sys.argv[3:], os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(request)
    sys.exit(int(server.recv(16)))
"""


@contextmanager
def fast_uv(folder: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """The path of the `uv` while the block lasts. environment: what is read when libraries are imported."""
    address, uv = folder / "socket", folder / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    uv.chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, str(address)], env=environment, stdout=subprocess.PIPE)
    assert server.stdout.readline() == b"ready\n"
    yield uv
    server.terminate()
    server.wait()


def serve(address: str) -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        length, streams, _, _ = socket.recv_fds(client, 8, 3)
        request = client.makefile("rb").read(int.from_bytes(length, "big"))
        process = os.fork()
        if process == 0:
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            run(*json.loads(request))
        for stream in streams:
            os.close(stream)
        client.sendall(str(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])).encode())
        client.close()


def run(command: list[str], cwd: str, environment: dict[str, str]) -> None:
    """In the forked process; never returns."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    wait = time.sleep
    time.sleep = lambda seconds: wait(min(seconds, LONGEST_WAIT))
    sys.argv = command
    code = 0
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as leaving:
        code = leaving.code or 0
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
