"""What a stand-in hub answers, as values: its API, `resolve`, and the storage behind it. Knows no sockets."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.fakes.hub_faults import Fault, Request
from tests.fakes.hub_files import FakeRepo, HubFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass
class Reply:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: HubFile | None = None
    start: int = 0
    count: int = 0


class HubAnswers:
    """All of it may be changed between and during requests."""

    def __init__(self, *, page: int = 1000) -> None:
        self.repos: dict[str, FakeRepo] = {}
        self.plain: dict[str, HubFile] = {}
        """Files that the storage serves under a plain path, as any web server would."""
        self.tokens: set[str] = set()
        self.page = page
        self.accept_ranges = True
        self.etags = True
        self.endpoint = ""
        self.storage = ""
        self._valid: set[str] = set()
        self._count = itertools.count(1)

    def add(self, repo: str, files: Mapping[str, bytes | Path | HubFile]) -> FakeRepo:
        """Offer *files* under the name *repo*; the answer may be changed at any time."""
        contents = {name: file if isinstance(file, HubFile) else HubFile(file) for name, file in files.items()}
        self.repos[repo] = FakeRepo(contents)
        return self.repos[repo]

    def expire_urls(self) -> None:
        """Let every signed URL given out so far be refused."""
        self._valid.clear()

    def reply(self, request: Request, fault: Fault) -> Reply:
        if fault.redirect is not None:
            return Reply(302, {"Location": fault.redirect, **self._hub_headers(request)})
        if fault.status is not None:
            return Reply(fault.status, {"Content-Type": "text/html"}, fault.body or b"")
        if fault.body is not None:
            return Reply(200, {"Content-Type": "text/html"}, fault.body)
        if request.at == "api":
            return self._api(request)
        if request.at == "hub":
            return self._resolve(request)
        return self._stored(request, fault)

    def _hub_headers(self, request: Request) -> dict[str, str]:
        bucket = "api" if request.at == "api" else "resolvers"
        return {"RateLimit": f'"{bucket}";r=2999;t=55', "RateLimit-Policy": f'"fixed window";"{bucket}";q=3000;w=300'}

    def _error(self, request: Request, status: int, code: str, message: str) -> Reply:
        headers = {**self._hub_headers(request), "X-Error-Message": message, "Content-Type": "application/json"}
        if code:
            headers["X-Error-Code"] = code
        return Reply(status, headers, json.dumps({"error": message}).encode())

    def _token(self, request: Request) -> str | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        return token if kind == "Bearer" else None

    def _refusal(self, request: Request, name: str, *, content: bool) -> Reply | None:
        """Return what keeps *request* from the repository *name*, as the hub words it; *content* is stricter than a listing."""
        token = self._token(request)
        if token is not None and token not in self.tokens:
            return self._error(request, 401, "", "Invalid credentials in Authorization header")
        repo = self.repos.get(name)
        if repo is None or (repo.private and token not in repo.granted):
            return self._error(request, 404 if token else 401, "RepoNotFound", "Repository not found")
        if repo.gated and content and token not in repo.granted:
            message = (
                f"Access to model {name} is restricted. You must have access to it and be authenticated to access it."
            )
            return self._error(request, 403 if token else 401, "GatedRepo", message)
        return None

    def _api(self, request: Request) -> Reply:
        query = parse_qs(urlsplit(request.target).query)
        if request.path == "/api/models":
            return self._search(request, query)
        found = re.fullmatch(
            r"/api/models/([^/]+/[^/]+)(?:/(tree|revision|refs)(?:/(.+))?)?", urlsplit(request.target).path
        )
        if found is None:
            return self._error(request, 404, "", "Not Found")
        name, what, revision = found[1], found[2], unquote(found[3] or "main")
        if (refusal := self._refusal(request, name, content=False)) is not None:
            return refusal
        repo = self.repos[name]
        if what == "refs":
            names = ["main", *repo.revisions]
            branches = [
                {"name": each, "ref": f"refs/heads/{each}", "targetCommit": repo.commit_of(each)} for each in names
            ]
            return self._json(request, {"branches": branches, "tags": [], "converts": []})
        files = repo.files_at(revision)
        if files is None:
            return self._error(request, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if what == "tree":
            return self._tree(request, name, revision, files, query)
        return self._json(request, self._info(name, repo, revision, files, blobs="blobs" in query))

    def _json(self, request: Request, content: object, headers: Mapping[str, str] | None = None) -> Reply:
        found = {**self._hub_headers(request), "Content-Type": "application/json; charset=utf-8", **(headers or {})}
        return Reply(200, found, json.dumps(content).encode())

    def _info(
        self, name: str, repo: FakeRepo, revision: str, files: dict[str, HubFile], *, blobs: bool
    ) -> dict[str, object]:
        siblings: list[dict[str, object]] = []
        for path, file in files.items():
            entry: dict[str, object] = {"rfilename": path}
            if blobs:
                entry |= {"size": file.size, "blobId": file.git_oid}
                if file.lfs:
                    entry["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": 135}
            siblings.append(entry)
        return {
            "id": name,
            "sha": repo.commit_of(revision),
            "private": repo.private,
            "gated": "auto" if repo.gated else False,
            "downloads": repo.downloads,
            "likes": 7,
            "tags": ["gguf"],
            "siblings": siblings,
        }

    def _search(self, request: Request, query: dict[str, list[str]]) -> Reply:
        words = query.get("search", [""])[0].lower()
        names = [name for name, repo in self.repos.items() if words in name.lower() and not repo.private]
        names.sort(key=lambda name: -self.repos[name].downloads)
        found = [
            self._info(name, self.repos[name], "main", {}, blobs=False)
            for name in names[: int(query.get("limit", ["1000"])[0])]
        ]
        return self._json(request, found)

    def _tree(
        self, request: Request, name: str, revision: str, files: dict[str, HubFile], query: dict[str, list[str]]
    ) -> Reply:
        entries: list[dict[str, object]] = []
        folders: set[str] = set()
        for path, file in files.items():
            parts = path.split("/")
            for depth in range(1, len(parts)):
                folder = "/".join(parts[:depth])
                if folder not in folders:
                    folders.add(folder)
                    entries.append(
                        {
                            "type": "directory",
                            "oid": hashlib.sha1(folder.encode()).hexdigest(),
                            "size": 0,
                            "path": folder,
                        }
                    )
            entry: dict[str, object] = {"type": "file", "oid": file.git_oid, "size": file.size, "path": path}
            if file.lfs:
                entry |= {"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 135}, "xetHash": file.sha256}
            entries.append(entry)
        if query.get("recursive", ["false"])[0] not in {"true", "1"}:
            entries = [entry for entry in entries if "/" not in str(entry["path"])]
        start = int(query.get("cursor", ["0"])[0])
        headers = {}
        if start + self.page < len(entries):
            following = f"{self.endpoint}/api/models/{name}/tree/{quote(revision, safe='')}?recursive=true&cursor={start + self.page}"
            headers["Link"] = f'<{following}>; rel="next"'
        return self._json(request, entries[start : start + self.page], headers)

    def _resolve(self, request: Request) -> Reply:
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", urlsplit(request.target).path)
        if found is None:
            return self._error(request, 404, "", "Not Found")
        name, revision, path = found[1], unquote(found[2]), unquote(found[3])
        if (refusal := self._refusal(request, name, content=True)) is not None:
            return refusal
        repo = self.repos[name]
        files = repo.files_at(revision)
        if files is None:
            return self._error(request, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
        file = files.get(path)
        headers = {
            **self._hub_headers(request),
            "X-Repo-Commit": repo.commit_of(revision) or "",
            "Accept-Ranges": "bytes",
        }
        if file is None:
            missing = self._error(request, 404, "EntryNotFound", "Entry not found")
            missing.headers |= headers
            return missing
        if not file.lfs:
            headers["ETag"] = f'"{file.git_oid}"'
            return self._ranged(request, file, headers, Fault(times=0))
        headers |= {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(file.size), "ETag": f'"{file.git_oid}"'}
        headers["X-Xet-Hash"] = file.sha256
        headers["Location"] = self._sign(name, path, file)
        return Reply(302, headers, b"Found. Redirecting")

    def _sign(self, name: str, path: str, file: HubFile) -> str:
        # The percent signs matter: a client that quotes the query anew breaks the signature.
        signature = f"Expires={1700000000 + next(self._count)}&Policy=eyJ%7E%2F%3D&Signature=a%2Bb~c%2F{next(self._count)}__&Key-Pair-Id=K%3D%3D"
        self._valid.add(signature)
        target = f"/repos/{quote(name)}/{quote(path)}/{file.sha256}"
        return f"{self.storage}{target}?{signature}"

    def _stored(self, request: Request, fault: Fault) -> Reply:
        parts = urlsplit(request.target)
        path = unquote(parts.path)
        if (plain := self.plain.get(path)) is not None:
            return self._ranged(request, plain, {}, fault)
        found = re.fullmatch(r"/repos/([^/]+/[^/]+)/(.+)/([0-9a-f]{64})", path)
        if found is None:
            return Reply(404, {"Content-Type": "text/html"}, b"<html>not here</html>")
        if parts.query not in self._valid:
            return Reply(403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")
        repo = self.repos[found[1]]
        for files in (repo.files, *repo.revisions.values()):
            file = files.get(found[2])
            if file is not None and file.sha256 == found[3]:
                return self._ranged(request, file, {}, fault)
        return Reply(404, {"Content-Type": "application/xml"}, b"<Error><Code>NoSuchKey</Code></Error>")

    def _ranged(self, request: Request, file: HubFile, headers: dict[str, str], fault: Fault) -> Reply:
        etag = f'"{hashlib.md5(file.sha256.encode()).hexdigest()}"'
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
        if self.etags:
            headers.setdefault("ETag", etag)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        condition = request.headers.get("if-range")
        fresh = condition is None or condition == headers.get("ETag")
        if fault.gzip:
            headers["Content-Encoding"] = "gzip"
        if asked is None or fault.ignore_range or not self.accept_ranges or not fresh:
            return Reply(200, headers, file=file, start=0, count=file.size)
        start = int(asked[1]) + fault.shift
        end = min(int(asked[2]) if asked[2] else file.size - 1, file.size - 1)
        if start >= file.size:
            return Reply(416, {**headers, "Content-Range": f"bytes */{file.size}"}, b"")
        headers["Content-Range"] = f"bytes {start}-{end}/{fault.wrong_total or file.size}"
        return Reply(206, headers, file=file, start=start, count=end - start + 1)
