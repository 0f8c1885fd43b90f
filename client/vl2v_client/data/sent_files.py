"""Which view an image file stands for that was sent to the teacher as it is."""

from pathlib import Path

from vl2v_client.data.images import is_plain, load_rgb_bytes
from vl2v_client.data.rendering import render_view
from vl2v_client.data.views import canonical_view
from vl2v_contract.identity import rgb8_sha, sha256_hex

_POLICY = "safe-1"  # the vendor's treatment of files, by its name on the wire: upright, RGB, then scaled by Pillow


def sent_content(data: bytes, name: Path, size: int, preprocessing_id: str) -> tuple[str, bool]:
    """Return the content hash of a file as it was sent, and whether that is the canonical view's.

    A file at the teacher's input size is the canonical view itself. So is any other of which the vendor makes the same
    pixels: its `preprocessing_id` says that it scales with the same filter, and to a square without cutting anything
    off. Else the bytes name it, and no plan asks about it.

    Args:
        data: The file.
        name: What to call it in a message.
        size: Input size of the teacher in pixels.
        preprocessing_id: What the vendor does with image files.

    Raises:
        DataError: It is no image.
    """
    image = load_rgb_bytes(data, name)
    policy, _, rest = preprocessing_id.partition("/")
    scaling = rest.partition("/")[0]
    is_whole = scaling == f"squash-bicubic-{size}" or (
        scaling == f"shortest-bicubic-{size}" and image.width == image.height
    )
    if is_plain(data, name) and (image.size == (size, size) or (policy == _POLICY and is_whole)):
        pixels = render_view(image, canonical_view(), size)
        return rgb8_sha(pixels.tobytes(), width=size, height=size), True
    return sha256_hex(data), False
