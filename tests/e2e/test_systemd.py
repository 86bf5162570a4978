"""jand below a real systemd: installed as an administrator would, killed, hung, reloaded, stopped; one boot, looked at by all tests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import gguf_files, guest

pytestmark = [pytest.mark.needs("systemd-nspawn", "unshare", "mounts"), pytest.mark.timeout(300)]

PROBE = Path(guest.__file__).with_name("guest_probe.py")


class Seen:
    """What the probe saw, step by step."""

    def __init__(self, results: dict[str, Any]) -> None:
        self._results = results

    def __call__(self, step: str) -> dict[str, Any]:
        found: dict[str, Any] = self._results.get(step, {"failed": "the guest ended before it"})
        assert "failed" not in found, f"{found['failed']}\n{found.get('journal', '')}"
        return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    model = tmp_path_factory.mktemp("guest") / "tiny.gguf"
    gguf_files.tiny_llama(model)
    return Seen(guest.boot(PROBE, **{"tiny.gguf": model}))


def whats(ran: dict[str, Any]) -> list[str]:
    assert ran["status"] == 0, ran["err"]
    return [did["what"] for did in json.loads(ran["out"])["data"]]


def test_it_is_installed_with_one_command_and_a_second_one_changes_nothing(seen: Seen) -> None:
    step = seen("install")

    assert whats(step["first"]) == ["written"] * 4 + ["ran"] * 4
    assert whats(step["second"]) == ["unchanged"] * 4 + ["ran"] * 4
    assert "ExecStart=/opt/jand/bin/jand serve --root /janroot" in step["unit"]


def test_it_is_ready_as_its_own_user_with_a_socket_for_its_group(seen: Seen) -> None:
    step = seen("first_start")

    assert step["ready"] == [200, {"status": "ready"}]
    assert step["show"]["StatusText"] == "0 models"
    assert step["daemon"] == "jand"
    assert (step["socket mode"], step["socket group"]) == (0o660, "jand")
    assert step["models"] == [0o2775, "jand", "jand"]
    assert step["sockets of its own"] == []


def test_what_a_member_of_the_group_drops_is_adopted_and_answers_within_the_walls(seen: Seen) -> None:
    step = seen("inference")

    assert step["dropped"]["status"] == 0, step["dropped"]["err"]
    assert step["written by"] == "jand"
    status, answer = step["answer"]
    assert (status, answer["usage"]["completion_tokens"]) == (200, 4)
    assert step["status text"] == "1 model, 1 running"
    assert step["sandbox"]["network"] != "not available", "the unit takes nothing from the worker's own walls"
    assert step["sandbox"]["privileges"] != "not available"


def test_the_group_may_and_others_may_not(seen: Seen) -> None:
    step = seen("peers")

    assert step["alice"]["status"] == 0, step["alice"]["err"]
    assert "PermissionError" in step["mallory"]["err"]
    assert step["told"]["status"] == 69
    assert "no permission" in step["told"]["err"]


def test_after_a_kill_the_socket_is_the_same_and_the_next_request_is_answered(seen: Seen) -> None:
    step = seen("killed")

    assert len(step["workers"]) == 1
    assert step["answered"][0] == 200
    assert step["same socket"]
    assert (step["restarts"], step["new pid"]) == (1, True)


def test_a_daemon_that_hangs_is_restarted_and_one_that_does_not_is_left_alone(seen: Seen) -> None:
    step = seen("hanging")

    assert step["fed"]
    assert step["restarts"] == 1
    assert "Watchdog timeout" in step["logged"]
    assert step["answered"][0] == 200


def test_reload_applies_what_it_can_and_a_bad_file_is_an_error_in_the_journal(seen: Seen) -> None:
    step = seen("reload")

    assert (step["good"]["status"], step["bad"]["status"]) == (0, 0)
    (applied,) = step["applied"]
    assert (applied["JAND_KEY"], applied["JAND_AFTER"], applied["PRIORITY"]) == ("keep_alive", "7.0", "6")
    (refused,) = step["refused"]
    assert refused["PRIORITY"] == "3"
    assert "/janroot/jand.toml, line 1" in refused["JAND_REASON"]
    assert step["same pid"]
    assert step["state"]["ActiveState"] == "active"


def test_a_wrong_setting_is_said_and_not_tried_again_and_again(seen: Seen) -> None:
    step = seen("wrong_setting")

    assert step["started"]["status"] != 0
    assert (step["state"]["ActiveState"], step["state"]["ExecMainStatus"]) == ("failed", "78")
    assert step["state"]["NRestarts"] == "0"
    assert [entry["PRIORITY"] for entry in step["journal"]] == ["3"]


def test_a_key_comes_as_a_credential_and_is_seen_by_nobody_else(seen: Seen) -> None:
    step = seen("credentials")

    assert step["known"][0] == 200, step["known"]
    assert step["heard"] == ["Bearer sk-of-the-guest-0123456789"]
    assert step["keys"] == [0o700, "root"]
    assert step["of others"] == [1]
    assert not step["in its environment"]
    assert "sk-of-the-guest" not in json.dumps(step["known"])
    status, error = step["missing"]
    assert status == 409
    assert "credential:key_nothing" in error["error"]["message"]
    assert not seen("journal")["key in it"]


def test_what_runs_in_the_unit_can_do_little_else(seen: Seen) -> None:
    step = seen("hardening")
    attempts = step["attempts"]

    assert step["ran"]["status"] == 0, step["journal"]
    done = {name for name, outcome in attempts.items() if outcome == "done"}
    assert done == {"/janroot/models/x", "/var/lib/jand/x", "/run/jand/x", "/tmp/x", "read /proc/meminfo"}
    assert {attempts[f"/{name}/x"] for name in ("etc", "usr", "var", "opt")} == {"EROFS"}
    assert step["daemon"] == {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
    found = re.search(r"exposure level for jand.service: ([0-9.]+)", step["score"])
    assert found
    assert float(found[1]) <= 2.0
    assert step["listed"] == 200


def test_stop_is_quick_and_whole_and_the_next_request_starts_it_again(seen: Seen) -> None:
    step = seen("stop_and_activate")

    assert step["stopped"]["status"] == 0
    assert step["workers"] >= 1
    assert step["left"] == []
    assert step["seconds"] < 10
    assert (step["state"]["ActiveState"], step["state"]["Result"]) == ("inactive", "success")
    assert step["listening"]["SubState"] == "listening"
    assert step["activated"] == 200
    assert step["state after"]["ActiveState"] == "active"


def test_a_user_s_own_service_beside_the_system_s(seen: Seen) -> None:
    step = seen("user_service")

    assert whats(step["installed"]) == ["written"] * 2 + ["ran"] * 2
    assert (step["ready"][0], step["again"][0]) == (200, 200)
    assert step["before"]["StatusText"] == "0 models"
    assert (step["after"]["NRestarts"], step["mode"]) == ("1", [0o600, True])
    assert step["root"]
    assert "removed" in whats(step["removed"])
    assert step["system's still there"] == 200


def test_the_journal_has_levels_and_fields(seen: Seen) -> None:
    step = seen("journal")

    assert set(step["priorities"]) <= {"2", "3", "4", "6"}
    (started,) = step["started"]
    assert started["JAND_MODEL"] == "dropped"
    assert started["SYSLOG_IDENTIFIER"] == "jand"
    assert started["JAND_REQUEST_ID"].startswith("req-")
    assert step["of the model"] >= 2
    assert step["with fields"] > 20
    assert [line for line in step["without"] if not line.startswith(("jand: ", "hint: "))] == []


def test_uninstall_leaves_the_models(seen: Seen) -> None:
    step = seen("uninstall")

    assert whats(step["first"]).count("removed") == 4
    assert step["units"] == []
    assert "dropped.gguf" in step["models"]
    assert not step["socket"]
    assert step["active"] == "inactive"
