"""A target's values file at one revision: the image that it holds, and the file with another one."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from bot.core.catalog import DIGEST, Image, Target
from bot.core.errors import Failed
from bot.integrations.values import ValuesFile


class TargetFile:
    """The file as the target's keys see it; every method may raise `Failed` with file, line and reason."""

    def __init__(self, raw: bytes, target: Target) -> None:
        self._target = target
        self._file = ValuesFile(raw, target.path, edit_anchors=target.edit_anchors)

    def images(self) -> tuple[Image, ...]:
        """What each of the target's keys holds, in their order."""
        beside = self._digest_beside()
        return tuple(self._image(key, beside) for key in self._target.keys)

    def image(self) -> Image:
        """What all of the target's keys hold; raises `Failed` where they differ."""
        self._require_named_digests()
        return only(self.images(), self._target)

    def holding(self, image: Image) -> bytes:
        """The file with this image at every key, and every other byte as it was."""
        target = self._target
        self._require_named_digests()
        if target.digests and not image.has_digest:
            raise Failed(
                f"{target.path} holds the image's digest at {', '.join(target.digests)}, and the digest of "
                f"{image.version} is unknown. Give the environment before the same `digests`, or let CI write "
                "version@sha256:… there."
            )
        new = dict.fromkeys(target.keys, image.version)
        for key in target.digests:
            new[key] = str(image) if key in new else image.digest
        return self._file.edited(new)

    def _image(self, key: str, beside: str | None) -> Image:
        image = Image.parse(self._file.value(key))
        if image.has_digest and key not in self._target.digests:
            line = self._file.locate(key).line
            raise Failed(
                f"{self._target.path}:{line}: {key} holds a digest. Please name {key} under `digests` too."
            )
        return Image(version=image.version, digest=beside) if beside else image

    def _digest_beside(self) -> str | None:
        """What the target's keys for a digest alone hold; the first of them speaks for all."""
        for key in self._target.digests:
            if key not in self._target.keys and DIGEST.fullmatch(digest := self._file.value(key)):
                return digest
        return None

    def _require_named_digests(self) -> None:
        """Beside a digest that stays as it was, a new tag would change nothing."""
        named = {self._file.locate(key).start for key in self._target.digests}
        for key in self._target.keys:
            beside = self._file.digest_beside(key)
            if beside and beside.start not in named:
                raise Failed(
                    f"{self._target.path}:{beside.line}: a digest stands beside {key}, and it decides what runs. "
                    "Please name its key under `digests`, or remove it."
                )


def only(images: tuple[Image, ...], target: Target) -> Image:
    """The image that all of the target's keys hold; raises `Failed` where they differ."""
    if len({image.version for image in images}) > 1:
        found = ", ".join(f"{key} is {image.version}" for key, image in zip(target.keys, images, strict=True))
        raise Failed(f"The keys of {target.name} differ in {target.path}: {found}. Please make them equal.")
    return images[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edition:
    """A file before and after: what each key held, and all bytes with the new image."""

    images: tuple[Image, ...]
    content: bytes


@functools.lru_cache(maxsize=16)
def edition(raw: bytes, target: Target, image: Image) -> Edition:
    """The file with the image; what was planned a moment ago is not edited and verified once more."""
    file = TargetFile(raw, target)
    return Edition(images=file.images(), content=file.holding(image))
