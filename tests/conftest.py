"""What the tests of several packages share: distributions with plugins."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

# What tests of several folders share stands in material/ (graphs, artifacts, doubles of engines),
# and the tiny models of 38 architectures in theirs; in pytest's importlib mode neither is on the path.
sys.path.extend(str(Path(__file__).with_name(name)) for name in ("material", "architectures"))

# What every pass of the tests begins with.
HEAD = """\
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from leptonc.passes.base import Firing, PassStats, Refusal


def stats(name, count=1):
    return PassStats(name, (("changes", count),) if count else (), 0, 0)


"""


@pytest.fixture
def install_plugin(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Install a distribution as pip would leave it, for the length of a test."""

    def install(
        code: str,
        entry_points: Mapping[str, str],
        *,
        group: str = "leptonc.passes",
        distribution: str = "acme-passes",
        version: str = "1.2.0",
    ) -> Path:
        folder = tmp_path_factory.mktemp("site")
        module = distribution.replace("-", "_")
        head = HEAD if group == "leptonc.passes" else ""
        (folder / f"{module}.py").write_text(head + textwrap.dedent(code))
        info = folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        lines = [f"{name} = {module}:{attribute}" for name, attribute in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(folder)
        return folder

    return install
