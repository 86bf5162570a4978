"""What is done within the guest (see `guest`), step by step, each with what was seen; the tests judge it outside.

Runs as root with the packages that jand has. A step that fails is noted with its traceback, and the next one goes on.
"""

from __future__ import annotations

import contextlib
import grp
import http.client
import http.server
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

OUT = Path("/out")
SOCKET = "/run/jand/jand.sock"
MODELS = Path("/janroot/models")
JAND = "/opt/jand/bin/jand"
KEY = "sk-of-the-guest-0123456789"
RESULTS: dict[str, Any] = {}

HARDENED = """
import errno, json, os, socket
seen = {}
def attempt(name, action):
    try:
        action()
        seen[name] = "done"
    except OSError as error:
        seen[name] = errno.errorcode.get(error.errno, str(error))
def write(path):
    with open(path, "w") as file:
        file.write("x")
for path in ("/etc/x", "/usr/x", "/var/x", "/opt/x", "/root/x", "/home/x", "/janroot/models/x", "/var/lib/jand/x", "/run/jand/x", "/tmp/x", "/proc/sys/kernel/x"):
    attempt(path, lambda path=path: write(path))
attempt("list /home", lambda: os.listdir("/home"))
attempt("list /root", lambda: os.listdir("/root"))
attempt("read /proc/meminfo", lambda: open("/proc/meminfo").read())
attempt("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt("become root", lambda: os.setuid(0))
attempt("chown", lambda: os.chown("/janroot/models", 0, 0))
attempt("new namespace", lambda: os.unshare(0x10000000) if hasattr(os, "unshare") else __import__("ctypes").CDLL(None, use_errno=True).unshare(0x10000000) and (_ for _ in ()).throw(OSError(__import__("ctypes").get_errno(), "")))
attempt("disk", lambda: os.open("/dev/vda", os.O_RDONLY) if os.path.exists("/dev/vda") else os.mknod("/janroot/disk", 0o600 | 0o060000, os.makedev(254, 0)))
attempt("set-uid file", lambda: os.chmod("/janroot/models/x", 0o4755))
with open("/janroot/hardened.json", "w") as file:
    json.dump(seen, file)
"""


def main() -> None:
    for step in (
        install,
        first_start,
        inference,
        peers,
        killed,
        hanging,
        reload,
        wrong_setting,
        credentials,
        hardening,
        stop_and_activate,
        user_service,
        journal,
        uninstall,
    ):
        began = time.monotonic()
        try:
            RESULTS[step.__name__] = step()
        except BaseException:
            RESULTS[step.__name__] = {"failed": traceback.format_exc()}
            RESULTS[step.__name__]["journal"] = run("journalctl", "-n", "40", "--no-pager")["out"][-4000:]
        RESULTS.setdefault("seconds", {})[step.__name__] = round(time.monotonic() - began, 2)
        (OUT / "results.json").write_text(json.dumps(RESULTS))


# -- tools -------------------------------------------------------------------------------------------------------------


def run(*words: str, **how: Any) -> dict[str, Any]:
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, **how)
    return {"status": ended.returncode, "out": ended.stdout, "err": ended.stderr}


def run_as(user: str, *words: str, **environ: str) -> dict[str, Any]:
    found = pwd.getpwnam(user)
    groups = [group.gr_gid for group in grp.getgrall() if user in group.gr_mem]
    return run(
        *words,
        user=found.pw_uid,
        group=found.pw_gid,
        extra_groups=groups,
        cwd="/",
        env={name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        | {"HOME": found.pw_dir, **environ},
    )


def show(unit: str = "jand.service", *manager: str, **how: Any) -> dict[str, str]:
    names = "ActiveState,SubState,Result,StatusText,NRestarts,MainPID,User,InvocationID,ExecMainStatus"
    found = (how.get("run") or run)("systemctl", *manager, "show", unit, "-p", names, **how.get("environ", {}))["out"]
    return dict(line.split("=", 1) for line in found.splitlines())


def until(condition: Callable[[], Any], timeout_s: float = 20.0, what: str = "") -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s for {what or condition}: {value!r}")
        time.sleep(0.01)
    return value


class Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("jand", timeout=40)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(40)
        self.sock.connect(self._path)


def ask(method: str, path: str, body: object = None, *, at: str = SOCKET) -> tuple[int, Any]:
    connection = Connection(at)
    headers = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    with contextlib.closing(connection):
        return answer.status, json.loads(answer.read() or b"null")


def until_listed(name: str) -> None:
    until(lambda: ask("GET", f"/v1/models/{name}")[0] == 200, what=f"{name} to be listed")


def children(pid: int) -> list[int]:
    found = run("ps", "-o", "pid=", "--ppid", str(pid))["out"].split()
    return [int(child) for child in found]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def identity(path: str) -> list[int]:
    found = Path(path).lstat()
    return [found.st_dev, found.st_ino]


# -- steps -------------------------------------------------------------------------------------------------------------


def install() -> dict[str, Any]:
    # The runtime directories of this machine are not the guest's.
    for name in ("alice", "mallory"):
        run("useradd", "--create-home", name)
    first = run(JAND, "service", "install", "--json")
    second = run(JAND, "service", "install", "--json")
    run("usermod", "-aG", "jand", "alice")
    return {
        "first": first,
        "second": second,
        "unit": Path("/etc/systemd/system/jand.service").read_text(),
    }


def first_start() -> dict[str, Any]:
    until(lambda: show()["ActiveState"] == "active", what="the service to be active")
    mode = Path(SOCKET).stat()
    models = MODELS.stat()
    return {
        "ready": ask("GET", "/ready"),
        "show": show(),
        "socket mode": mode.st_mode & 0o7777,
        "socket group": grp.getgrgid(mode.st_gid).gr_name,
        "models": [models.st_mode & 0o7777, pwd.getpwuid(models.st_uid).pw_name, grp.getgrgid(models.st_gid).gr_name],
        "daemon": pwd.getpwuid(Path(f"/proc/{show()['MainPID']}").stat().st_uid).pw_name,
        "sockets of its own": [str(path) for path in Path("/var/lib/jand").rglob("*.sock")],
    }


def inference() -> dict[str, Any]:
    """Let a member of the group drop a bare GGUF, which is adopted, started and asked."""
    dropped = run_as("alice", "/bin/sh", "-c", "umask 002; cp /out/tiny.gguf /janroot/models/dropped.gguf")
    until(
        lambda: "dropped" in [model["id"] for model in ask("GET", "/v1/models")[1]["data"]],
        what="the drop to be listed",
    )
    until((MODELS / "dropped.json").exists, what="the drop to be adopted")
    written = (MODELS / "dropped.json").stat()
    body = {"model": "dropped", "messages": [{"role": "user", "content": "a"}], "max_tokens": 4}
    status, answer = ask("POST", "/v1/chat/completions", body)
    _, model = ask("GET", "/v1/models/dropped")
    return {
        "dropped": dropped,
        "written by": pwd.getpwuid(written.st_uid).pw_name,
        "answer": [status, answer],
        "sandbox": model["details"]["sandbox"],
        "status text": until(
            lambda: show()["StatusText"] if "running" in show()["StatusText"] else "", what="the status"
        ),
    }


def peers() -> dict[str, Any]:
    connect = ("/opt/jand/bin/python", "-S", "-c", f"import socket; socket.socket(socket.AF_UNIX).connect({SOCKET!r})")
    return {
        "alice": run_as("alice", *connect),
        "mallory": run_as("mallory", *connect),
        "told": run_as("mallory", JAND, "list", "--socket", SOCKET),
    }


def killed() -> dict[str, Any]:
    before = show()
    pid = int(before["MainPID"])
    workers = children(pid)
    socket_before = identity(SOCKET)
    # The next start has a watchdog that `hanging` need not wait for long.
    drop_in("[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\nLimitCORE=0\n")
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    answered = ask("GET", "/v1/models")
    seconds = time.monotonic() - began
    until(lambda: not any(map(alive, workers)), what="the workers' end")
    until(lambda: show()["ActiveState"] == "active", what="the restart")
    return {
        "workers": workers,
        "answered": answered,
        "seconds": seconds,
        "same socket": identity(SOCKET) == socket_before,
        "restarts": int(show()["NRestarts"]) - int(before["NRestarts"]),
        "new pid": int(show()["MainPID"]) != pid,
    }


def drop_in(text: str) -> None:
    directory = Path("/etc/systemd/system/jand.service.d")
    directory.mkdir(exist_ok=True)
    (directory / "test.conf").write_text(text)
    run("systemctl", "daemon-reload")


def hanging() -> dict[str, Any]:
    """Stop the daemon, which stands for an event loop that hangs: nobody feeds the watchdog."""
    before = show()
    time.sleep(2.5)  # longer than the watchdog waits
    fed = show()["MainPID"] == before["MainPID"]
    os.kill(int(before["MainPID"]), signal.SIGSTOP)
    until(
        lambda: show()["MainPID"] not in {before["MainPID"], "0"} and show()["ActiveState"] == "active",
        what="the restart",
    )
    after = show()
    shutil.rmtree("/etc/systemd/system/jand.service.d")
    run("systemctl", "daemon-reload")
    restarts = int(after["NRestarts"]) - int(before["NRestarts"])
    logged = run("journalctl", "-u", "jand.service", "--no-pager", "-g", "Watchdog timeout")["out"]
    return {"fed": fed, "restarts": restarts, "logged": logged, "answered": ask("GET", "/ready")}


def reload() -> dict[str, Any]:
    toml = Path("/janroot/jand.toml")
    pid = show()["MainPID"]
    toml.write_text("keep_alive = 7\n")
    good = run("systemctl", "reload", "jand.service")
    until(lambda: entries("setting applied"), what="the reload")
    toml.write_text("keep_alive = never\n")
    bad = run("systemctl", "reload", "jand.service")
    until(lambda: entries("settings not read again"), what="the refusal")
    state = show()
    toml.unlink()
    return {
        "good": good,
        "bad": bad,
        "applied": entries("setting applied"),
        "refused": entries("settings not read again"),
        "same pid": state["MainPID"] == pid,
        "state": state,
    }


def entries(message: str) -> list[dict[str, Any]]:
    """Return the entries of the journal whose message begins so, as the journal has them."""
    found = run("journalctl", "-u", "jand.service", "-o", "json", "--no-pager")["out"].splitlines()
    parsed = [json.loads(line) for line in found]
    return [entry for entry in parsed if str(entry.get("MESSAGE", "")).startswith(message)]


def credentials() -> dict[str, Any]:
    heard: list[str] = []

    class Provider(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers.get("Authorization", ""))
            body = json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, *words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    keys = Path("/etc/jand/keys")
    (keys / "openai").write_text(KEY + "\n")
    (keys / "openai").chmod(0o600)
    mend_and_start()
    for name, key in (("known", "credential:key_openai"), ("missing", "credential:key_nothing")):
        init = {"API-KEY": key, "DEPLOYMENT-NAME": "m"}
        spec = {
            "origin": f"http://127.0.0.1:{server.server_port}/v1",
            "import_format": "openai",
            "parameters": {"init": init},
        }
        (MODELS / f"{name}.json").write_text(json.dumps(spec))
        until_listed(name)
    pid = show()["MainPID"]
    found = list(Path("/run/credentials").rglob("key_openai"))
    result = {
        "known": ask("PUT", "/v1/models/known/start"),
        "missing": ask("PUT", "/v1/models/missing/start"),
        "heard": heard,
        "keys": [keys.stat().st_mode & 0o7777, pwd.getpwuid(keys.stat().st_uid).pw_name],
        "of others": [run_as("alice", "cat", str(path))["status"] for path in found],
        "in its environment": KEY in Path(f"/proc/{pid}/environ").read_text(errors="replace"),
    }
    server.shutdown()
    return result


def hardening() -> dict[str, Any]:
    """Other code under the same unit tries what it may not."""
    unit = Path("/etc/systemd/system/jand.service").read_text()
    (Path("/opt/jand") / "attempts.py").write_text(HARDENED)
    lines = [
        line
        for line in unit.splitlines()
        if not line.startswith(("Requires=", "After=", "Watchdog", "Restart", "NotifyAccess", "WantedBy", "Also"))
    ]
    text = "\n".join(
        "Type=oneshot"
        if line.startswith("Type=")
        else "ExecStart=/opt/jand/bin/python /opt/jand/attempts.py"
        if line.startswith("ExecStart=")
        else line
        for line in lines
    )
    Path("/etc/systemd/system/attempts.service").write_text(text)
    run("systemctl", "daemon-reload")
    ran = run("systemctl", "start", "attempts.service")
    pid = show()["MainPID"]
    status = Path(f"/proc/{pid}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return {
        "ran": ran,
        "journal": "" if ran["status"] == 0 else run("journalctl", "-u", "attempts.service", "--no-pager")["out"],
        "attempts": json.loads(Path("/janroot/hardened.json").read_text()),
        "daemon": {name: facts[name].strip() for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")},
        "score": run("systemd-analyze", "security", "--no-pager", "--threshold=20", "jand.service")["out"][-200:],
        "listed": ask("GET", "/v1/models")[0],
    }


def wrong_setting() -> dict[str, Any]:
    toml = Path("/janroot/jand.toml")
    toml.write_text("rescan = soon\n")
    started = run("systemctl", "restart", "jand.service")
    return {"started": started, "state": show(), "journal": entries("jand: cannot read /janroot/jand.toml")}


def mend_and_start() -> None:
    Path("/janroot/jand.toml").unlink()
    run("systemctl", "stop", "jand.socket", "jand.service")
    run("systemctl", "reset-failed", "jand.service", "jand.socket")
    run("systemctl", "start", "jand.socket", "jand.service")


def stop_and_activate() -> dict[str, Any]:
    ask("PUT", "/v1/models/dropped/start")
    pid = int(show()["MainPID"])
    workers = children(pid)
    began = time.monotonic()
    stopped = run("systemctl", "stop", "jand.service")
    seconds = time.monotonic() - began
    state, listening = show(), show("jand.socket")
    left = [worker for worker in workers if alive(worker)]
    activated = ask("GET", "/v1/models")
    return {
        "stopped": stopped,
        "seconds": seconds,
        "workers": len(workers),
        "left": left,
        "state": state,
        "listening": listening,
        "activated": activated[0],
        "state after": until(lambda: show() if show()["ActiveState"] == "active" else None, what="the activated one"),
    }


def user_service() -> dict[str, Any]:
    """Use a user's own manager, without a login: what linger gives."""
    uid = pwd.getpwnam("alice").pw_uid
    run("systemctl", "start", f"user@{uid}.service")
    environ = {"XDG_RUNTIME_DIR": f"/run/user/{uid}"}
    at = f"/run/user/{uid}/jand/jand.sock"

    def as_alice(*words: str, **more: str) -> dict[str, Any]:
        return run_as("alice", *words, **environ, **more)

    installed = as_alice(JAND, "service", "install", "--user", "--json")
    until(lambda: Path(at).exists(), what="the user's socket")
    ready = ask("GET", "/v1/models", at=at)
    before = show("jand.service", "--user", run=as_alice)
    os.kill(int(before["MainPID"]), signal.SIGKILL)
    again = ask("GET", "/v1/models", at=at)
    after = until(
        lambda: (found := show("jand.service", "--user", run=as_alice)) and found["ActiveState"] == "active" and found,
        what="the restart",
    )
    found = Path(at).stat()
    removed = as_alice(JAND, "service", "uninstall", "--user", "--json")
    return {
        "installed": installed,
        "ready": ready,
        "before": before,
        "again": again,
        "after": after,
        "mode": [found.st_mode & 0o7777, found.st_uid == uid],
        "root": (Path(pwd.getpwnam("alice").pw_dir) / "janroot" / "models").is_dir(),
        "removed": removed,
        "system's still there": ask("GET", "/ready")[0],
    }


def journal() -> dict[str, Any]:
    raw = run("journalctl", "-o", "json", "--no-pager", "_SYSTEMD_UNIT=jand.service")["out"]
    parsed = [json.loads(line) for line in raw.splitlines()]
    of_model = run("journalctl", "-o", "json", "--no-pager", "JAND_MODEL=dropped")["out"].splitlines()
    return {
        "key in it": KEY in raw,
        "priorities": sorted({entry.get("PRIORITY") for entry in parsed if "JAND_LOGGER" in entry}),
        "with fields": sum("JAND_LOGGER" in entry for entry in parsed),
        "without": [entry.get("MESSAGE") for entry in parsed if "JAND_LOGGER" not in entry][:20],
        "started": [entry for entry in parsed if str(entry.get("MESSAGE", "")).startswith("model started")][:1],
        "of the model": len(of_model),
    }


def uninstall() -> dict[str, Any]:
    first = run(JAND, "service", "uninstall", "--json")
    return {
        "first": first,
        "units": [str(path) for path in Path("/etc/systemd/system").glob("jand.*")],
        "models": sorted(path.name for path in MODELS.iterdir()),
        "socket": Path(SOCKET).exists(),
        "active": show()["ActiveState"],
    }


if __name__ == "__main__":
    main()
