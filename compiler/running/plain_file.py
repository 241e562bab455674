"""An .onnx file on the plain engine; unlike `engine`, this needs nothing of the extra `compile`."""

from leptonc.backends.ort.plain_file import open_plain_file

__all__ = ["open_plain_file"]
