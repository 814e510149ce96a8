"""A server on this machine that speaks the protocol of the Hugging Face Hub, as far as downloads and commits go.

What it answers is what huggingface_hub asks: resolve, repository info, creation, preupload, LFS batches, commits, the
check of a card's head. Contents live in memory: commits by repository, each a dictionary of paths to bytes.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
from urllib.parse import unquote, urlsplit

from servers import running


def oid(data):
    """The git hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub:
    """Repositories and who may do what.

    Attributes:
        commits: by (kind, "owner/name"), the commits in their order: (hash, {path: bytes}).
        lfs: uploaded blobs by sha256.
        token: needed where it is not empty.
        asked: (method, path, token sent, body).
        trouble: a function of the request, called first; true where it has answered.
        elsewhere: base URL of another server that serves the files, or empty.
    """

    def __init__(self):
        self.commits, self.lfs, self.token, self.asked = {}, {}, "", []
        self.trouble, self.elsewhere = (lambda _: False), ""

    def commit(self, kind, name, files, *, base=True):
        """Add a commit and give its hash."""
        there = self.commits.setdefault((kind, name), [])
        whole = (dict(there[-1][1]) if there and base else {}) | files
        listing = json.dumps([len(there), sorted((p, oid(d)) for p, d in whole.items())]).encode()
        there.append((hashlib.sha1(listing).hexdigest(), whole))
        return there[-1][0]

    def at(self, kind, name, revision):
        """(hash, files) at a revision, or None."""
        there = self.commits.get((kind, name), [])
        if revision == "main" and there:
            return there[-1]
        return next((c for c in there if c[0] == revision), None)


class _Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def give(self, status=200, body=b"", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _handle(self):
        hub, self.close_connection = self.server.hub, False
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        path = unquote(urlsplit(self.path).path)
        sent = self.headers.get("Authorization", "").removeprefix("Bearer ")
        hub.asked.append((self.command, path, sent, body))
        with contextlib.suppress(ConnectionError):
            if hub.trouble(self):
                return
            if hub.token and sent != hub.token and not path.startswith("/lfs/"):
                self.give(401, {"error": "Invalid credentials"}, X_Error_Message="Invalid username or password.")
                return
            for pattern, answer in _ROUTES:
                if found := re.fullmatch(pattern, f"{self.command} {path}"):
                    answer(self, hub, body, *found.groups())
                    return
            self.give(404, {"error": f"no {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815

    def _chunks(self):
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data


def _kind(plural):
    return {"datasets": "dataset", None: "model", "models": "model"}[plural]


def _resolve(request, hub, _body, plural, name, revision, file):
    found = hub.at(_kind(plural), name, revision)
    if (_kind(plural), name) not in hub.commits:
        return request.give(404, b"", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
    if found is None:
        return request.give(404, b"", X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
    if file not in found[1]:
        return request.give(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=found[0], X_Error_Message="Not found")
    data = found[1][file]
    headers = {"X_Repo_Commit": found[0], "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
    if hub.elsewhere:
        hub.lfs[hashlib.sha256(data).hexdigest()] = data
        headers |= {"X_Linked_Size": len(data), "X_Linked_Etag": headers.pop("ETag")}
        where = f"{hub.elsewhere}/lfs/{hashlib.sha256(data).hexdigest()}"
        return request.give(302, b"", Location=where, **headers)
    return request.give(200, data, **headers)


def _blob(request, hub, _body, sha256):
    request.give(200, hub.lfs[sha256], ETag=f'"{sha256}"')


def _upload(request, hub, body, sha256):
    hub.lfs[sha256] = body
    request.give(200)


def _create(request, hub, body):
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
    key = (asked.get("type", "model"), name)
    url = f"{request.server.url}/{key[0]}s/{name}"
    status = 409 if key in hub.commits else 200
    if status == 200:
        hub.commit(*key, {".gitattributes": b"*.h5 filter=lfs\n"})
    request.give(status, {"url": url, "name": name, "error": "exists"} if status == 409 else {"url": url, "name": name})


def _info(request, hub, _body, plural, name, revision):
    found = hub.at(_kind(plural), name, revision or "main")
    if found is None:
        return request.give(404, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
    siblings = [{"rfilename": path} for path in found[1]]
    return request.give(200, {"id": name, "sha": found[0], "siblings": siblings, "tags": [], "private": False})


def _preupload(request, hub, body, plural, name, revision):
    found = hub.at(_kind(plural), name, revision)
    if found is None:
        return request.give(404, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
    files = []
    for asked in json.loads(body)["files"]:
        path, there = asked["path"], found[1].get(asked["path"])
        mode = "lfs" if path.endswith(".h5") else "regular"
        known = None if there is None else hashlib.sha256(there).hexdigest() if mode == "lfs" else oid(there)
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known})
    return request.give(200, {"files": files})


def _batch(request, hub, body, _plural, _name):
    objects = []
    for asked in json.loads(body)["objects"]:
        there = asked["oid"] in hub.lfs
        href = {"upload": {"href": f"{request.server.url}/lfs/{asked['oid']}", "header": {}}}
        objects.append({"oid": asked["oid"], "size": asked["size"]} | ({} if there else {"actions": href}))
    request.give(200, {"transfer": "basic", "objects": objects})


def _commit(request, hub, body, plural, name, _revision):
    files = {}
    for line in body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif item["key"] == "lfsFile":
            files[value["path"]] = hub.lfs[value["oid"]]
    made = hub.commit(_kind(plural), name, files)
    url = f"{request.server.url}/{plural}/{name}/commit/{made}"
    request.give(200, {"success": True, "commitOid": made, "commitUrl": url, "hookOutput": ""})


_ROUTES = (
    (r"(?:GET|HEAD) /(?:(datasets)/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", _resolve),
    (r"(?:GET|HEAD) /lfs/(\w+)", _blob),
    (r"PUT /lfs/(\w+)", _upload),
    (r"POST /api/repos/create", _create),
    (r"POST /api/validate-yaml", lambda r, _hub, _body: r.give(200, {"errors": [], "warnings": []})),
    (r"GET /api/(models|datasets)/([\w.-]+/[\w.-]+?)(?:/revision/([^/]+))?", _info),
    (r"POST /api/(models|datasets)/([\w.-]+/[\w.-]+)/preupload/([^/]+)", _preupload),
    (r"POST /(datasets)/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", _batch),
    (r"POST /api/(models|datasets)/([\w.-]+/[\w.-]+)/commit/([^/]+)", _commit),
)


@contextlib.contextmanager
def serving_hub():
    """A running hub: `hub.url`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Request)
    server.daemon_threads = True  # clients keep their connections
    server.hub = hub = Hub()
    with running(server):
        hub.url = server.url
        yield hub
