"""What is read by code of our own and by libraries, without a server: pictures, and texts."""

from __future__ import annotations

import random
import re
import struct
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from support.fuzz.mutation import mutate_bytes, odd_text
from support.fuzz.subject import Fault, OneByOne
from support.vendor.image_fixtures import image_files
from vl2v_client.core.errors import DataError
from vl2v_client.data.images import image_size, load_rgb_bytes
from vl2v_contract.texts import format_micro, is_image_address, printable
from vl2v_vendor.domain.encoder import Limits
from vl2v_vendor.domain.errors import ItemFailure
from vl2v_vendor.engine.models.open_clip_files import ModelSpec
from vl2v_vendor.engine.models.tokenizer import OpenClipTokenizer
from vl2v_vendor.images.image_decoding import PillowImageDecoder
from vl2v_vendor.images.preprocessing import REFERENCE, SAFE, SAFE_DRAFT, Preprocessing

ALLOWED = frozenset({"JPEG", "PNG", "WEBP", "GIF", "BMP"})
IMAGE_CODES = {"empty_item", "unsupported_image_format", "image_too_large", "undecodable_image"}
TEXT_CODES = {"empty_item", "invalid_encoding", "text_too_long"}
MOST_SECONDS = 5.0
"""Of processor time for one input."""
_SIDE = 32
_PNG = b"\x89PNG\r\n\x1a\n"


class Pictures(OneByOne):
    """Pictures of every allowed format, changed: the vendor's decoder by each policy, and the client's reader.

    Args:
        folder: Pictures to change, beside those that are made here.
    """

    def __init__(self, folder: Path | None = None) -> None:
        made = list(image_files().values())
        given = [] if folder is None else [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]
        self._sources = [*made, *given]
        self._decoders = [
            PillowImageDecoder(Preprocessing(_SIDE, policy=policy), max_item_bytes=2_000_000, max_pixels=5_000_000)
            for policy in (SAFE, SAFE_DRAFT, REFERENCE)
        ]

    def make(self, dice: random.Random) -> bytes:
        source = dice.choice(self._sources)
        if dice.random() < 0.02:
            return source
        changed = mutate_bytes(source, dice, others=self._sources)
        return _mend_png(changed) if changed.startswith(_PNG) and dice.random() < 0.6 else changed

    def check(self, case: bytes) -> str:
        """Decode a file by both sides.

        Raises:
            Fault: A pixel array of another form, a code that is not declared, or too much processor time.
        """
        began = time.process_time()
        outcomes = [_decode(decoder, case) for decoder in self._decoders]
        outcomes.append(_read_by_the_client(case))
        if (spent := time.process_time() - began) > MOST_SECONDS:
            raise Fault(f"{spent:.1f} seconds of processor time")
        return outcomes[0]


def _decode(decoder: PillowImageDecoder, case: bytes) -> str:
    try:
        item = decoder.decode(case)
    except ItemFailure as failure:
        if failure.code not in IMAGE_CODES:
            raise Fault(f"the code {failure.code}: {failure.detail}") from failure
        return failure.code
    pixels, is_named = item.model_input, re.fullmatch("[0-9a-f]{64}", item.content_sha)
    if pixels.shape != (_SIDE, _SIDE, 3) or pixels.dtype != np.uint8 or not is_named:
        raise Fault(f"pixels {pixels.shape} {pixels.dtype}, content {item.content_sha[:80]}")
    return "decoded"


def _read_by_the_client(case: bytes) -> str:
    path = Path("some.png")
    try:
        size = image_size(case, path)
        image = load_rgb_bytes(case, path)
    except DataError as error:
        if "some.png" not in str(error):
            raise Fault(f"an error that names no file: {error}") from error
        return "broken"
    if image.mode != "RGB" or image.size != size:
        raise Fault(f"the header says {size}, and the picture is {image.mode} {image.size}")
    return "read"


def _mend_png(data: bytes) -> bytes:
    """Make every chunk's checksum right again, so that what was changed is read."""
    mended, place = bytearray(data), len(_PNG)
    while place + 12 <= len(mended):
        (length,) = struct.unpack_from(">I", mended, place)
        end = place + 8 + length
        if end + 4 > len(mended):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(mended[place + 4 : end]))
        place = end + 4
    return bytes(mended)


_PIECES = (
    "&amp;", "&", "amp;", "&#x26;", "&lt;", "&#0;", "&#xD800;", "a", "ab ", "\u0301", "\u200d", "😂", "日本語", "é",
    "\x00", "\x1b[2J", "\n", "\t", "\u2028", "\ufdfa", "'s", "don't", "<|startoftext|>", "<|endoftext|>", "[UNK]",
    "http://a/b.jpg", "data:image/png;base64,", "0", "1234567890", "!?", "\ud800", "\udc00", "İ", "ß", "ﬁ", "Ã©",
    "\u00e2\u20ac\u2122", "\U0010ffff", " ",
)  # fmt: skip


class Texts(OneByOne):
    """Texts of every kind: the vendor's checks and CLIP's tokenizer, and what both sides write out of them."""

    def __init__(self) -> None:
        self._tokenizer = OpenClipTokenizer(ModelSpec(model_id="", name="ViT-B-32"), context_length=77)
        self._limits = Limits()

    def make(self, dice: random.Random) -> bytes:
        pieces: Sequence[str] = [dice.choice(_PIECES), *(dice.choice((*_PIECES, odd_text(dice))) for _ in range(5))]
        longest = dice.choice((1, 3, 30, 300, 3000))
        text = "".join(dice.choice(pieces) for _ in range(dice.randint(0, longest)))
        if dice.random() < 0.2:
            text += dice.choice(pieces) * dice.choice((10, 1000, 10_000))
        return text.encode(errors="surrogatepass")

    def check(self, case: bytes) -> str:
        """Tokenize a text and write it out.

        Raises:
            Fault: Ids of another form, a code that is not declared, letters that steer, or too much processor time.
        """
        text, began = case.decode(errors="surrogatepass"), time.process_time()
        written = printable(text)
        if any(ord(letter) < 32 or 127 <= ord(letter) < 160 or 0xD800 <= ord(letter) < 0xE000 for letter in written):
            raise Fault("what is written out steers")
        is_image_address(text)
        format_micro(len(case), written[:3])
        outcome = self._tokenize(text)
        if (spent := time.process_time() - began) > MOST_SECONDS:
            raise Fault(f"{spent:.1f} seconds of processor time")
        return outcome

    def _tokenize(self, text: str) -> str:
        outcome = ""
        for truncate in (False, True):
            try:
                item = self._read(text, truncate)
            except ItemFailure as failure:
                if failure.code not in TEXT_CODES:
                    raise Fault(f"the code {failure.code}: {failure.detail}") from failure
                outcome += f"{failure.code} "
                continue
            if item.dtype != np.int64 or not 2 <= len(item) <= 77 or item.min() < 0 or item.max() > 49_407:
                raise Fault(f"token ids {item.dtype} {item.shape}")
            outcome += "read "
        return outcome.strip()

    def _read(self, text: str, truncate: bool) -> np.ndarray:
        try:
            size_bytes = len(text.encode())
        except UnicodeEncodeError:
            raise ItemFailure("invalid_encoding", "") from None
        if size_bytes > self._limits.max_text_bytes or not text.strip():
            raise ItemFailure("text_too_long" if text.strip() else "empty_item", "")
        return np.asarray(self._tokenizer.tokenize(text, truncate=truncate).model_input)
