from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

from leptonc.compiler.console.chatter import LIMIT, held_back


def test_all_that_is_printed_is_held_back(capfd):
    with held_back() as chatter:
        print("from python")
        print("to stderr", file=sys.stderr)
        os.write(1, b"from C\n")
        subprocess.run(["echo", "from a child"], check=True)
        warnings.warn("a warning", stacklevel=1)
    print("after")
    assert capfd.readouterr() == ("after\n", "")
    for text in ("from python", "to stderr", "from C", "from a child"):
        assert text in chatter.text


def test_it_is_kept_when_the_block_fails(capfd):
    with pytest.raises(ZeroDivisionError), held_back() as chatter:
        print("before the failure")
        _ = 1 / 0
    assert "before the failure" in chatter.text
    assert capfd.readouterr().out == ""


def test_shown_text_goes_to_standard_error(capfd):
    with held_back(show=True):
        print("loud")
    assert capfd.readouterr() == ("", "loud\n")


def test_a_flood_keeps_its_end():
    with held_back() as chatter:
        print("x" * LIMIT)
        print("the end")
    assert len(chatter.text) == LIMIT
    assert chatter.text.endswith("the end\n")
