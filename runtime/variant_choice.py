"""Which variants of an artifact a load may use, and in which order.

Only "auto" goes from one engine to another. Asked for the GPU, an artifact that cannot run there
is an error, and not a service that has become twenty times slower.
"""

from __future__ import annotations

from collections.abc import Sequence

from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.engines.loaders import ROWS, rank
from leptonc.runtime.errors import UnsupportedError

DEVICES = ("cpu", "gpu", "auto")


def candidates(
    variants: Sequence[Variant], device: str, name: str | None, where: str
) -> tuple[Variant, ...]:
    """Return the variants to try, in order.

    Several variants of one engine may be for different GPUs or versions: all of them are tried.

    Args:
        variants: Those of the artifact.
        device: "cpu", "gpu", or "auto" for the GPU if it works and else the CPU.
        name: The variant to use and no other, or None.
        where: The artifact.

    Raises:
        UnsupportedError: There is none.
    """
    if name is not None:
        return (_named(variants, name, device, where),)
    ranked = [
        (place, variant)
        for variant in variants
        if device in ("auto", variant.device) and (place := rank(variant)) is not None
    ]
    usable = [variant for _, variant in sorted(ranked, key=lambda entry: entry[0])]
    if not usable:
        # What runs everywhere, when no device was named.
        targets = [row.target for row in ROWS if row.device == device] or [ROWS[-1].target]
        names = ", ".join(variant.name for variant in variants)
        raise UnsupportedError(
            f"the artifact has no variant that this build can run on {device!r}: it has {names}",
            where=where,
            fix=f"compile it with `-t {'` or `-t '.join(targets)}`"
            + _other_device(variants, device),
        )
    if device == "auto":
        return tuple(usable)
    return tuple(variant for variant in usable if variant.backend == usable[0].backend)


def _named(variants: Sequence[Variant], name: str, device: str, where: str) -> Variant:
    for variant in variants:
        if variant.name != name:
            continue
        if device not in ("auto", variant.device):
            raise UnsupportedError(
                f"the variant {name!r} runs on {variant.device!r}, not on {device!r}",
                where=where,
                fix=f'load(path, device="{variant.device}", variant="{name}")',
            )
        if rank(variant) is None:
            break
        return variant
    names = ", ".join(variant.name for variant in variants)
    raise UnsupportedError(
        f"the artifact has no variant {name!r} that this build can run",
        where=where,
        fix=f"it has {names}",
    )


def _other_device(variants: Sequence[Variant], device: str) -> str:
    there = sorted({v.device for v in variants if rank(v) is not None} - {device})
    return f', or load it with device="{there[0]}"' if there and device != "auto" else ""
