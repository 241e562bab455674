"""A byte-level language model of 1.4 million parameters that has read Python's own library.

`python models/tiny_gpt.py` trains it again, in about ten minutes on one core, with the same
result each time on the same Python, and writes `tiny_gpt.safetensors` beside this file.

The text is the source of modules of the standard library, which every Python brings: some to
train on, some to calibrate with, others to evaluate on. The modules change a little from one
version of Python to the next, and so does the figure that `evaluate` returns.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from random_weights import seeded
from safetensors.torch import load_file, save_file
from torch import nn

WEIGHTS = Path(__file__).resolve().with_suffix(".safetensors")
BATCH = ("batch", 1, 64)
CONTEXT = 256
SEQUENCE = ("sequence", 1, CONTEXT)
BYTES = 256
WIDTH = 160
LAYERS = 4
HEADS = 5
STEPS = 900
ROWS = 16
LEARNING_RATE = 3e-3

EVALUATED = ("fractions", "heapq", "shlex", "statistics", "textwrap")
EVALUATED_WINDOWS = 64
CALIBRATED = ("bisect", "contextlib", "csv", "string")
CALIBRATED_WINDOWS = 32
TRAINED = (
    *("abc", "ast", "base64", "bdb", "bisect", "bz2", "calendar", "cmd", "code", "codecs"),
    *("codeop", "colorsys", "compileall", "configparser", "contextlib", "contextvars", "copy"),
    *("copyreg", "csv", "dataclasses", "difflib", "dis", "doctest", "enum", "filecmp"),
    *("fileinput", "fnmatch", "ftplib", "functools", "genericpath", "getopt", "getpass"),
    *("gettext", "glob", "graphlib", "gzip", "hashlib", "hmac", "imaplib", "inspect", "io"),
    *("ipaddress", "keyword", "linecache", "locale", "lzma", "mailbox", "mimetypes"),
    *("modulefinder", "netrc", "ntpath", "numbers", "operator", "optparse", "os", "pdb"),
    *("pickle", "pickletools", "pkgutil", "platform", "plistlib", "poplib", "posixpath"),
    *("pprint", "profile", "pstats", "pty", "pyclbr", "pydoc", "queue", "quopri", "random"),
    *("reprlib", "rlcompleter", "runpy", "sched", "secrets", "selectors", "shelve", "shutil"),
    *("site", "smtplib", "socket", "socketserver", "ssl", "stat", "string", "stringprep"),
    *("struct", "subprocess", "symtable", "sysconfig", "tabnanny", "tarfile", "tempfile"),
    *("threading", "timeit", "token", "tokenize", "trace", "traceback", "tracemalloc", "types"),
    *("typing", "uuid", "warnings", "wave", "weakref", "webbrowser", "zipapp", "zipfile"),
    *("zipimport",),
)

Arrays = Mapping[str, np.ndarray]


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each normalised first."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.projection = nn.Linear(WIDTH, WIDTH)
        self.feed_forward_norm = nn.LayerNorm(WIDTH)
        self.widen = nn.Linear(WIDTH, 4 * WIDTH)
        self.narrow = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, hidden: torch.Tensor, hides: torch.Tensor) -> torch.Tensor:
        """Return `hidden` [batch, sequence, 160] after the block; `hides` is added to scores."""
        hidden = hidden + self._attend(self.attention_norm(hidden), hides)
        widened = nn.functional.gelu(self.widen(self.feed_forward_norm(hidden)))
        narrowed: torch.Tensor = self.narrow(widened)
        return hidden + narrowed

    def _attend(self, hidden: torch.Tensor, hides: torch.Tensor) -> torch.Tensor:
        batch, sequence, _ = hidden.shape
        # [batch, sequence, 480] -> three of [batch, heads, sequence, 32]
        query, key, value = (
            part.view(batch, sequence, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in self.query_key_value(hidden).split(WIDTH, dim=-1)
        )
        scores = query @ key.transpose(2, 3) * (WIDTH // HEADS) ** -0.5 + hides
        seen = torch.softmax(scores, dim=-1) @ value
        merged = seen.transpose(1, 2).reshape(batch, sequence, WIDTH)
        projected: torch.Tensor = self.projection(merged)
        return projected


class TinyGpt(nn.Module):
    """A decoder over bytes: embedding, four blocks, normalisation, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = nn.Embedding(BYTES, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, BYTES)

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Predict the byte after each byte.

        Args:
            input_ids: int64 [batch, sequence], bytes as numbers, at most 256 in a row.

        Returns:
            `logits` float32 [batch, sequence, 256].
        """
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = self.bytes(input_ids) + self.positions(places)
        later = places[None, :] > places[:, None]
        hides = later.to(hidden.dtype) * -1e9
        for block in self.blocks:
            hidden = block(hidden, hides)
        return {"logits": self.head(self.norm(hidden))}


def source_of(modules: Sequence[str]) -> bytes:
    """Return the source of modules of the standard library, one after another.

    Raises:
        ImportError: This Python comes without the source of one of them.
    """
    parts: list[bytes] = []
    for name in modules:
        spec = importlib.util.find_spec(name)
        # The modules that a frozen interpreter holds say where their source lies, too.
        state = None if spec is None else spec.loader_state
        origin = getattr(state, "filename", None) or (spec.origin if spec else None)
        if origin is None or not Path(origin).is_file():
            raise ImportError(f"this Python comes without the source of {name!r}", name=name)
        parts.append(Path(origin).read_bytes().replace(b"\r\n", b"\n"))
    return b"\n".join(parts)


def windows(modules: Sequence[str], count: int) -> np.ndarray:
    """Return stretches of the source of `modules`, evenly spread over each.

    Returns:
        int64 [count, 257]: 256 bytes to read, each with the byte that follows it.
    """
    rows: list[np.ndarray] = []
    for index, name in enumerate(modules):
        share = (count + index) // len(modules)
        text = np.frombuffer(source_of([name]), dtype=np.uint8)
        starts = np.linspace(0, len(text) - CONTEXT - 1, share).astype(int)
        rows += [text[start : start + CONTEXT + 1].astype(np.int64) for start in starts]
    return np.stack(rows)


def build() -> nn.Module:
    """Return the trained model, in eval mode. The weights are stored in half precision."""
    model = TinyGpt()
    stored = load_file(WEIGHTS)
    model.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    return model.eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """Return two lines of 32 bytes."""
    lines = [
        b"def median(values: list[float]):\n"[:32],
        b"import sys\n\nclass Reader(object):\n"[:32],
    ]
    return {"input_ids": torch.tensor([list(line) for line in lines])}


def dynamic_shapes() -> dict[str, dict[int, tuple[str, int, int]]]:
    """Return the dynamic axes: batch and sequence."""
    return {"input_ids": {0: BATCH, 1: SEQUENCE}}


def calibration_data() -> Iterator[dict[str, np.ndarray]]:
    """Yield 32 windows in batches of 8, from modules that are not evaluated on."""
    found = windows(CALIBRATED, CALIBRATED_WINDOWS)
    for start in range(0, len(found), 8):
        yield {"input_ids": found[start : start + 8, :-1]}


def evaluate(predict: Callable[[Arrays], Arrays]) -> dict[str, float]:
    """Predict each byte of the held-out windows from those before it.

    Args:
        predict: From the module's inputs to its outputs, as arrays by name.

    Returns:
        `bits_per_byte`: the mean of `-log2 p(byte | bytes before it in the window)`; lower is
        better, and 8 is knowing nothing.
    """
    found = windows(EVALUATED, EVALUATED_WINDOWS)
    bits = 0.0
    for start in range(0, len(found), ROWS):
        rows = found[start : start + ROWS]
        logits = predict({"input_ids": rows[:, :-1]})["logits"]
        logits = logits - logits.max(axis=-1, keepdims=True)
        total = np.log(np.exp(logits).sum(axis=-1, dtype=np.float64))
        chosen = np.take_along_axis(logits, rows[:, 1:, None], axis=-1)[..., 0]
        bits += float((total - chosen).sum(dtype=np.float64)) / np.log(2)
    return {"bits_per_byte": float(bits / (len(found) * CONTEXT))}


def train(steps: int = STEPS) -> nn.Module:
    """Train on random windows of the source of `TRAINED`.

    Returns:
        The trained model in eval mode: the same bits for the same `steps` and the same Python.
    """
    text = torch.frombuffer(bytearray(source_of(TRAINED)), dtype=torch.uint8)
    with seeded(0):
        model = TinyGpt()
        optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, LEARNING_RATE, total_steps=max(steps, 100), pct_start=0.1
        )
        for _ in range(steps):
            starts = torch.randint(0, len(text) - CONTEXT - 1, (ROWS,)).tolist()
            rows = torch.stack([text[start : start + CONTEXT + 1] for start in starts]).long()
            logits = model(rows[:, :-1])["logits"]
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


def main() -> None:
    """Train, write the weights, and print the bits per byte on the held-out modules."""
    state = {name: tensor.half().contiguous() for name, tensor in train().state_dict().items()}
    save_file(state, WEIGHTS)
    model = build()

    def predict(inputs: Arrays) -> Arrays:
        with torch.no_grad():
            outputs = model(torch.from_numpy(inputs["input_ids"]))
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size} bytes, {evaluate(predict)}")


if __name__ == "__main__":
    main()
