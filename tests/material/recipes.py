"""Recipes in small, written into a folder by the tests that need one."""

from __future__ import annotations

from pathlib import Path

MLP = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(16, 64)
        self.second = torch.nn.Linear(64, 8)

    def forward(self, x):
        print("chatter from the module")
        return {"y": self.second(torch.relu(self.first(x) * 1.0))}

def build():
    torch.manual_seed(0)
    print("chatter from build")
    return Net()

def example_inputs():
    return {"x": torch.linspace(-1, 1, 32).reshape(2, 16)}

def dynamic_shapes():
    return {"x": {0: ("batch", 1, 8)}}
"""


def write_recipe(folder: Path, text: str = MLP, name: str = "mlp.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path
