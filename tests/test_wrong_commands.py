"""Requests that make no sense end in one sentence and exit code 2, before anything is trained or written."""

import json


def test_every_wrong_command_ends_in_one_sentence(cli):
    found = cli("tests.refusals", timeout=600)
    assert found.returncode == 0, found.stderr
    ended = json.loads(found.stdout)
    assert len(ended) > 250
    assert not [(each["command"], wrong) for each in ended if (wrong := _wrong(each))]


def _wrong(ended):
    """Return how a command line ended otherwise than it should; nothing if it did."""
    *before, last = ended["err"].strip().splitlines() or [""]
    if ended["code"] != 2 or "Traceback" in ended["err"] or "enough memory" in ended["err"]:
        return ended["err"] or f"exit code {ended['code']}, and not a word"
    if before and not before[0].startswith("usage:"):
        return before
    return f"no {ended['words']} in: {last}" if ended["words"] not in last else ended["written"]
