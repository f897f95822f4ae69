"""A small Hugging Face Hub on 127.0.0.1, so that tests can watch the real clients upload and download.

The clients find it through the variables of `LoopbackHub.environment`. Everything lives in memory. As with the real
Hub, large files come from another host than the rest (here a second port), where clients send no token. What is
asked for but not supported is answered with 404 and kept in `LoopbackHub.unsupported`.
"""

import base64
import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import NamedTuple, NoReturn
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

BLOCK = 4096
LARGE = 10_000_000  # from here on files of any name are stored as LFS objects
LFS_SUFFIXES = (".safetensors", ".bin", ".parquet")
GIT_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()


class Exchange(NamedTuple):
    """A request and the status it was answered with, 0 where the connection was cut instead."""

    method: str
    path: str
    status: int
    range: str | None
    authorization: str | None


@dataclass
class Fault:
    """What goes wrong with the requests whose "METHOD /path?query" the regular expression `path` is found in.

    Without a status, HEAD requests and redirects are left alone, since only bodies can be cut, slow or corrupt.
    """

    path: str = ""
    times: int | None = None  # how often it strikes; None: for ever
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "the loopback hub was told to fail"
    cut_after: int | None = None  # bytes of the answer's body; for PUT and POST of the request's
    delay: float = 0.0  # seconds before every 4 KB
    corrupt: bool = False  # the byte in the middle
    longer: int = 0  # bytes after the body's end, promised by the answer's headers
    trickle: float = 0.0  # seconds before every single byte
    in_place_of: tuple[bytes, bytes] = (b"", b"")  # what the body says, and what it says instead
    next_page: bool = False  # a listing goes on with itself


class User(NamedTuple):
    name: str
    write: bool
    namespaces: tuple[str, ...]


class File(NamedTuple):
    content: bytes
    lfs: bool
    oid: str  # what clients compare: the SHA-256 of an LFS object, git's SHA-1 of any other file
    blob_id: str


class Commit(NamedTuple):
    sha: str
    title: str
    date: str
    files: dict[str, File]


@dataclass
class Repo:
    id: str
    kind: str
    private: bool
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, Commit] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"datasets/{self.id}" if self.kind == "dataset" else self.id

    def commit(self, title: str, files: Mapping[str, File]) -> Commit:
        files = dict(sorted(files.items()))
        seed = repr([self.place, len(self.commits), title, [(path, file.oid) for path, file in files.items()]])
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        self.commits.append(Commit(hashlib.sha1(seed.encode()).hexdigest(), title, date, files))
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        by_sha = {commit.sha: commit for commit in self.commits}
        return self.commits[-1] if revision == "main" else self.tags.get(revision) or by_sha.get(revision)


class Reply(Exception):
    """An answer, returned or raised."""

    def __init__(self, value: object, status: int = 200, headers: Mapping[str, object] | None = None):
        self.status = status
        self.body = value if isinstance(value, bytes) else json.dumps(value).encode()
        kind = "application/octet-stream" if isinstance(value, bytes) else "application/json"
        self.headers = {"Content-Type": kind, "Content-Length": len(self.body)} | dict(headers or {})


def refuse(status: int, message: str, code: str | None = None, **headers: str) -> NoReturn:
    known = {"X-Error-Message": ascii(message)[1:-1]} | ({"X-Error-Code": code} if code else {})
    raise Reply({"error": message}, status, known | headers)


def is_lfs(path: str, size: int) -> bool:
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size > LARGE)


def make_file(content: bytes, lfs: bool) -> File:
    oid = hashlib.sha256(content).hexdigest()
    in_git = f"oid sha256:{oid}\nsize {len(content)}\n".encode() if lfs else content
    blob_id = hashlib.sha1(b"blob %d\0" % len(in_git) + in_git).hexdigest()
    return File(content, lfs, oid if lfs else blob_id, blob_id)


def lfs_info(file: File, name: str) -> dict:
    """The "lfs" entry of a file, if it has one; what its SHA-256 is called depends on the API."""
    return {"lfs": {name: file.oid, "size": len(file.content), "pointerSize": 134}} if file.lfs else {}


def with_folders(commit: Commit) -> list[str]:
    folders = {str(folder) for path in commit.files for folder in PurePosixPath(path).parents[:-1]}
    return sorted(folders | set(commit.files))


def tree_entry(commit: Commit, path: str, expand: bool) -> dict:
    """A file or folder; `expand` names this commit as the last one, which it need not be."""
    last = {"lastCommit": {"id": commit.sha, "title": commit.title, "date": commit.date}} if expand else {}
    file = commit.files.get(path)
    if file is None:
        return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path} | last
    entry = {"type": "file", "oid": file.blob_id, "size": len(file.content), "path": path}
    return entry | lfs_info(file, "oid") | last


REPO = r"(?P<repo_id>[^/]+(?:/[^/]+)?)"
API = rf"/api/(?P<kind>model|dataset)s/{REPO}"
PAGES = rf"/(?:(?P<kind>dataset)s/)?{REPO}"
ROUTES: list[tuple[str, re.Pattern, Callable[..., Reply]]] = []


def route(method: str, path: str) -> Callable:
    def register(function: Callable[..., Reply]) -> Callable[..., Reply]:
        ROUTES.append((method, re.compile(path), function))
        return function

    return register


class Handler(BaseHTTPRequestHandler):
    """Answers one request after another of a connection; the first route that fits decides."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else headers and body, sent apart, wait 40 ms for each other
    server: "Server"

    def serve(self) -> None:
        self.hub = self.server.hub
        request = f"{self.command} {self.path}"
        size = int(self.headers.get("Content-Length", 0))
        fault = self.hub.strike(request, arriving=True)
        cut = fault is not None and fault.status is None
        self.body = self.rfile.read(min(size, fault.cut_after) if cut else size)
        if fault and fault.status:
            self.send(Reply({"error": fault.message}, fault.status, fault.headers), fault)
            return
        reply = self.reply(request) if len(self.body) == size else None
        if cut:  # a body that was short enough to come whole is acted upon, but the client is never told
            self.remember(0)
            self.close_connection = True
        else:
            has_body = reply.status in (200, 206) and reply.body and self.command != "HEAD"
            self.send(reply, self.hub.strike(request, arriving=False) if has_body else None)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = serve

    def reply(self, request: str) -> Reply:
        address = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        for method, pattern, function in ROUTES:
            match = pattern.fullmatch(address.path)
            if match and method == ("GET" if self.command == "HEAD" else self.command):
                found = {name: value and unquote(value) for name, value in match.groupdict().items()}
                try:
                    with self.hub.lock:
                        return function(self, **found)
                except Reply as refusal:
                    return refusal
                except Exception as error:  # a body in a form that is not known here
                    self.hub.unsupported.append(f"{request}: {error!r}")
                    return Reply({"error": repr(error)}, 501)
        self.hub.unsupported.append(request)
        return Reply({"error": "The loopback hub does not know this path"}, 404)

    def send(self, reply: Reply, fault: Fault | None) -> None:
        fault = fault or Fault()
        self.remember(reply.status)
        self.send_response(reply.status)
        body = bytearray() if self.command == "HEAD" else bytearray(reply.body.replace(*fault.in_place_of))
        body += b"x" * fault.longer
        changed = {"Content-Length": len(body)} if fault.longer or fault.in_place_of[0] else {}
        changed |= {"Link": f'<{self.hub.url}{self.path}>; rel="next"'} if fault.next_page else {}
        for name, value in (dict(reply.headers) | changed).items():
            self.send_header(name, str(value))
        self.end_headers()
        if fault.corrupt and body:
            body[len(body) // 2] ^= 0xFF
        kept = body[: fault.cut_after]
        for start in range(0, len(kept), BLOCK):
            time.sleep(fault.delay)
            for byte in kept[start : start + BLOCK] if fault.trickle else ():
                time.sleep(fault.trickle)
                self.wfile.write(bytes([byte]))
            if not fault.trickle:
                self.wfile.write(kept[start : start + BLOCK])
        if len(kept) < len(body):
            self.close_connection = True

    def remember(self, status: int) -> None:
        asked = self.headers.get("Range"), self.headers.get("Authorization")
        self.hub.requests.append(Exchange(self.command, self.path, status, *asked))

    def log_message(self, format: str, *args: object) -> None:
        pass

    def user(self) -> User | None:
        authorization = self.headers.get("Authorization")
        if authorization is None:
            return None
        known = self.hub.users.get(authorization.removeprefix("Bearer "))
        return known or refuse(401, "Invalid credentials in Authorization header")

    def check_writer(self, user: User, namespace: str) -> None:
        if not user.write:
            refuse(403, "This token can only read")
        if namespace not in user.namespaces:
            refuse(403, f"You don't have the rights to write under the namespace {namespace!r}")

    def repo(self, kind: str | None, repo_id: str, write: bool = False) -> Repo:
        """The repository, for who may read (or `write`) it; for others a private one is as good as none."""
        repo = self.hub.repos.get((kind or "model", repo_id))
        user = self.user()
        namespace = repo_id.split("/")[0]
        hidden = repo is None or (repo.private and (user is None or namespace not in user.namespaces))
        if hidden or (write and user is None):
            refuse(404 if user else 401, "Repository not found", "RepoNotFound")
        if write:
            self.check_writer(user, namespace)
        return repo

    def at(self, repo: Repo, revision: str) -> Commit:
        return repo.at(revision) or refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def part(self, content: bytes, headers: Mapping[str, object]) -> Reply:
        """The whole content, or the range that was asked for."""
        headers = {"Accept-Ranges": "bytes"} | dict(headers)
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return Reply(content, 200, headers)
        size = len(content)
        first, last = asked.groups()
        start = int(first) if first else max(size - int(last), 0)
        end = min(int(last) + 1, size) if first and last else size
        if start >= end:
            return Reply(b"", 416, headers | {"Content-Range": f"bytes */{size}"})
        return Reply(content[start:end], 206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{size}"})

    @route("GET", r"/api/whoami-v2")
    def whoami(self) -> Reply:
        user = self.user() or refuse(401, "Invalid username or password.")
        role = "write" if user.write else "read"
        organizations = [{"type": "org", "name": name, "roleInOrg": role} for name in user.namespaces[1:]]
        access = {"type": "access_token", "accessToken": {"displayName": "loopback", "role": role}}
        return Reply({"type": "user", "name": user.name, "orgs": organizations, "auth": access})

    @route("POST", r"/api/validate-yaml")
    def validate_yaml(self) -> Reply:
        self.user()
        front_matter = re.match(r"\ufeff?---\s*\n(.*?)\n---", json.loads(self.body)["content"], re.DOTALL)
        try:
            yaml.safe_load(front_matter[1] if front_matter else "")
        except yaml.YAMLError as error:
            return Reply({"errors": [{"message": str(error)}], "warnings": []}, 400)
        return Reply({"errors": [], "warnings": []})

    @route("POST", r"/api/repos/create")
    def create(self) -> Reply:
        user = self.user() or refuse(401, "Invalid username or password.")
        wanted = json.loads(self.body)
        namespace = wanted.get("organization") or user.name
        self.check_writer(user, namespace)
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        repo = Repo(f"{namespace}/{wanted['name']}", wanted.get("type") or "model", private)
        url = {"url": f"{self.hub.url}/{repo.place}"}
        if (repo.kind, repo.id) in self.hub.repos:
            return Reply({"error": f"You already created this {repo.kind} repo"} | url, 409)
        repo.commit("initial commit", {".gitattributes": make_file(GIT_ATTRIBUTES, lfs=False)})
        self.hub.repos[repo.kind, repo.id] = repo
        return Reply({"name": repo.id} | url)

    @route("POST", rf"{API}/preupload/(?P<revision>[^/]+)")
    def preupload(self, kind: str, repo_id: str, revision: str) -> Reply:
        present = self.at(self.repo(kind, repo_id, write=True), revision).files
        answers = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            mode = "lfs" if is_lfs(path, file["size"]) else "regular"
            oid = present[path].oid if path in present else None
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return Reply({"files": answers})

    @route("POST", rf"{PAGES}\.git/info/lfs/objects/batch")
    def lfs_batch(self, kind: str | None, repo_id: str) -> Reply:
        repo = self.repo(kind, repo_id, write=True)
        objects, step = [], self.hub.part_size
        for wanted in json.loads(self.body)["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            place = f"{self.hub.storage_url}/lfs/{oid}"
            upload = {"href": place, "header": {}}
            if step and size > step:
                parts = range(1, -(-size // step) + 1)
                upload["header"] = {"chunk_size": str(step)} | {str(i): f"{place}/{i}" for i in parts}
            verify = {"href": f"{self.hub.url}/{repo.place}.git/info/lfs/objects/verify", "header": {}}
            missing = {} if oid in self.hub.objects else {"actions": {"upload": upload, "verify": verify}}
            objects.append({"oid": oid, "size": size} | missing)
        return Reply({"transfer": "multipart" if step else "basic", "objects": objects})

    @route("POST", rf"{PAGES}\.git/info/lfs/objects/verify")
    def lfs_verify(self, kind: str | None, repo_id: str) -> Reply:
        self.repo(kind, repo_id, write=True)
        if json.loads(self.body)["oid"] not in self.hub.objects:
            refuse(404, "The object was not uploaded")
        return Reply({})

    @route("PUT", r"/lfs/(?P<oid>\w+)(?:/(?P<number>\d+))?")
    def lfs_upload(self, oid: str, number: str | None) -> Reply:
        if number:
            self.hub.parts[oid, int(number)] = self.body
            return Reply(b"", 200, {"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'})
        return self.store(oid, self.body)

    @route("POST", r"/lfs/(?P<oid>\w+)")
    def lfs_complete(self, oid: str) -> Reply:
        numbers = [part["partNumber"] for part in json.loads(self.body)["parts"]]
        return self.store(oid, b"".join(self.hub.parts.pop((oid, number), b"") for number in numbers))

    def store(self, oid: str, content: bytes) -> Reply:
        if hashlib.sha256(content).hexdigest() != oid:
            refuse(400, "The SHA-256 of what was uploaded is another")
        self.hub.objects[oid] = content
        return Reply({})

    @route("GET", r"/lfs/(?P<oid>\w+)(?:/(?P<name>.*))?")
    def lfs_download(self, oid: str, name: str | None) -> Reply:
        if oid not in self.hub.objects:
            refuse(404, "No such object")
        return self.part(self.hub.objects[oid], {"ETag": f'"{oid}"'})

    @route("POST", rf"{API}/commit/(?P<revision>[^/]+)")
    def commit(self, kind: str, repo_id: str, revision: str) -> Reply:
        repo = self.repo(kind, repo_id, write=True)
        head = self.at(repo, revision)
        if revision != "main" or "create_pr" in self.query:
            raise ValueError("only main can be committed to")
        files, title = dict(head.files), ""
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            path = value.get("path", "").rstrip("/")
            match entry["key"]:
                case "header":
                    title = value["summary"]
                    if value.get("parentCommit", head.sha) != head.sha:
                        refuse(412, "A commit has happened since. Please refresh and try again.")
                case "file":
                    files[path] = make_file(base64.b64decode(value["content"]), lfs=False)
                case "lfsFile":
                    if value["oid"] not in self.hub.objects:
                        refuse(400, f"LFS pointer pointed to a file that does not exist: {path}")
                    files[path] = make_file(self.hub.objects[value["oid"]], lfs=True)
                case "deletedFile" | "deletedFolder" as key:
                    gone = [name for name in files if f"{name}/".startswith(f"{path}/")]
                    if not gone or (key == "deletedFile" and gone != [path]):
                        refuse(404, "A file with this name doesn't exist", "EntryNotFound")
                    files = {name: file for name, file in files.items() if name not in gone}
                case key:
                    raise ValueError(f"unknown operation {key}")
        sha = repo.commit(title, files).sha
        return Reply({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{repo.place}/commit/{sha}"})

    @route("GET", rf"{API}/refs")
    def refs(self, kind: str, repo_id: str) -> Reply:
        repo = self.repo(kind, repo_id)
        tags = [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit.sha} for name, commit in repo.tags.items()
        ]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.commits[-1].sha}
        return Reply({"branches": [main], "tags": tags, "converts": [], "pullRequests": []})

    @route("GET", rf"{API}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?")
    def tree(self, kind: str, repo_id: str, revision: str, folder: str | None) -> Reply:
        commit = self.at(self.repo(kind, repo_id), revision)
        start = f"{folder}/" if folder else ""
        paths = [path for path in with_folders(commit) if path.startswith(start)]
        if folder and not paths:
            refuse(404, f"{folder} does not exist", "EntryNotFound")
        if self.query.get("recursive") != "true":
            paths = [path for path in paths if "/" not in path.removeprefix(start)]
        return Reply([tree_entry(commit, path, self.query.get("expand") == "true") for path in paths])

    @route("POST", rf"{API}/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, kind: str, repo_id: str, revision: str) -> Reply:
        commit = self.at(self.repo(kind, repo_id), revision)
        form = parse_qs(self.body.decode())
        paths = [path for path in with_folders(commit) if path in form.get("paths", [])]
        return Reply([tree_entry(commit, path, form.get("expand") == ["true"]) for path in paths])

    @route("GET", "/")
    def home(self) -> Reply:
        return Reply(b"")

    @route("GET", rf"{API}/revision/(?P<revision>[^/]+)")
    @route("GET", API)
    def info(self, kind: str, repo_id: str, revision: str = "main") -> Reply:
        repo = self.repo(kind, repo_id)
        commit = self.at(repo, revision)
        siblings = [{"rfilename": path} for path in commit.files]
        if self.query.get("blobs") == "true":
            for sibling, file in zip(siblings, commit.files.values(), strict=True):
                sibling |= {"size": len(file.content), "blobId": file.blob_id} | lfs_info(file, "sha256")
        dates = {"createdAt": repo.commits[0].date, "lastModified": commit.date}
        known = {"id": repo.id, "author": repo.id.split("/")[0], "sha": commit.sha, "private": repo.private} | dates
        rest = {"gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings}
        return Reply(known | rest)

    @route("GET", rf"{PAGES}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def resolve(self, kind: str | None, repo_id: str, revision: str, path: str) -> Reply:
        commit = self.at(self.repo(kind, repo_id), revision)
        headers = {"X-Repo-Commit": commit.sha}
        if path not in commit.files:
            refuse(404, "Entry not found", "EntryNotFound", **headers)
        file = commit.files[path]
        etag = f'"{file.oid}"'
        if not file.lfs:
            return self.part(file.content, headers | {"ETag": etag})
        linked = {"X-Linked-Etag": etag, "X-Linked-Size": len(file.content), "Accept-Ranges": "bytes"}
        location = {"Location": f"{self.hub.storage_url}/lfs/{file.oid}/{quote(path)}"}
        return Reply(b"", 302, headers | linked | location)


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, hub: "LoopbackHub"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients may hang up when they like
            super().handle_error(request, client_address)


class LoopbackHub:
    """The hub while the `with` block lasts. With a `part_size`, larger LFS objects are uploaded in such parts."""

    def __init__(self, part_size: int | None = None):
        self.part_size = part_size
        self.lock = threading.RLock()
        self.requests: list[Exchange] = []
        self.unsupported: list[str] = []
        self.faults: list[Fault] = []
        self.users: dict[str, User] = {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}

    def __enter__(self) -> "LoopbackHub":
        self.servers = Server(self), Server(self)
        self.url, self.storage_url = (server.url for server in self.servers)
        return self

    def __exit__(self, *error: object) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def add_user(self, token: str, name: str, *, write: bool = True, organizations: Sequence[str] = ()) -> None:
        self.users[token] = User(name, write, (name, *organizations))

    def add_repo(self, repo_id: str, files: Mapping[str, bytes], *, kind: str = "model", private: bool = False) -> None:
        repo = Repo(repo_id, kind, private)
        made = {path: make_file(content, is_lfs(path, len(content))) for path, content in files.items()}
        repo.commit("initial commit", made)
        with self.lock:
            self.objects |= {file.oid: file.content for file in made.values() if file.lfs}
            self.repos[kind, repo_id] = repo

    def add_revision(self, repo_id: str, name: str, *, kind: str = "model") -> None:
        """A tag at the present head."""
        repo = self.repos[kind, repo_id]
        repo.tags[name] = repo.commits[-1]

    def files(self, repo_id: str, *, kind: str = "model", revision: str = "main") -> dict[str, bytes]:
        commit = self.repos[kind, repo_id].at(revision)
        if commit is None:
            raise KeyError(revision)
        return {path: file.content for path, file in commit.files.items()}

    def commits(self, repo_id: str, *, kind: str = "model") -> list[str]:
        """The titles, oldest first."""
        return [commit.title for commit in self.repos[kind, repo_id].commits]

    def is_private(self, repo_id: str, *, kind: str = "model") -> bool:
        return self.repos[kind, repo_id].private

    def fail(self, fault: Fault) -> None:
        self.faults.append(replace(fault))

    def mend(self) -> None:
        self.faults.clear()

    def strike(self, request: str, *, arriving: bool) -> Fault | None:
        """The first fault for this request: for its arrival, or else for the body of the answer."""
        with self.lock:
            for fault in self.faults:
                cuts_upload = fault.cut_after is not None and request.startswith(("PUT ", "POST "))
                early = fault.status is not None or cuts_upload
                if early == arriving and fault.times != 0 and re.search(fault.path, request):
                    fault.times = fault.times and fault.times - 1
                    return fault
        return None

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """What a client process needs, so that it asks this hub and nobody else."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "DISABLE_SAFETENSORS_CONVERSION": "1",
            "NO_PROXY": "127.0.0.1",
        } | ({"HF_TOKEN": token} if token else {})


def clean_environment() -> dict[str, str]:
    """Return this process's environment without a person's own settings of the Hub, such as a token."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HF_")}


def parquet(rows: Sequence[Mapping]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    return file.getvalue()


def card(configs: list[dict]) -> bytes:
    return f"---\n{yaml.safe_dump({'configs': configs}, sort_keys=False)}---\n".encode()


def tulu_dataset(rows: Sequence[Mapping]) -> dict[str, bytes]:
    data_files = [{"split": "train", "path": "data/train-*"}]
    readme = card([{"config_name": "default", "data_files": data_files}])
    return {"README.md": readme, "data/train-00000-of-00001.parquet": parquet(rows)}


def gsm8k_dataset(train_rows: Sequence[Mapping], test_rows: Sequence[Mapping]) -> dict[str, bytes]:
    """Both configs are named, so that a subset has to be, but only the files of main are there."""
    splits = ("train", "test")
    configs = [
        {"config_name": name, "data_files": [{"split": split, "path": f"{name}/{split}-*"} for split in splits]}
        for name in ("main", "socratic")
    ]
    rows = dict(zip(splits, (train_rows, test_rows), strict=True))
    return {"README.md": card(configs)} | {
        f"main/{split}-00000-of-00001.parquet": parquet(rows[split]) for split in splits
    }
