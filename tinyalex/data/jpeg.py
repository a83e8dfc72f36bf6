"""True if the data of a JPEG's picture are as long as the picture needs them.

libjpeg decodes what is damaged to some picture and only warns, which Pillow does not pass on. But
behind a damaged place it mostly reads on out of step, and comes to the last pixel long before the
data end, or lacks some. So the file is handed out in three parts, and how many of them are asked
for tells: all but the last bytes, which must not be enough; these and some more, which must; the
end. The pixels are those that a decoder makes of the whole.
"""

import io

_TAIL = 64  # bytes that some encoders leave unused at the end
_MORE = b"\x55" * 16  # decoders look a few bytes ahead
_END = b"\xff\xd9"
_HUFFMAN = (0xC0, 0xC1)  # baseline and extended; of others, and of several scans, it cannot be told
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA


class Parts(io.RawIOBase):
    """A JPEG that is read from the beginning, in three parts.

    scan, end: where the data of the picture begin, and where the marker behind them stands.
    """

    def __init__(self, data: bytes, scan: int, end: int) -> None:
        self._data, self._scan, self._end = data, scan, end
        self._at, self._given = 0, 1

    def seek(self, offset: int, whence: int = 0) -> int:
        """Nothing: a decoder does so once, before it begins."""
        return offset

    def read(self, size: int = -1) -> bytes:
        """The next bytes of a part, or the next part."""
        tail = self._end - _TAIL
        if self._at < tail:
            block = self._data[self._at : min(tail, self._at + size)]
            self._at += len(block)
            return block
        self._given += 1
        last = self._data[self._at : self._end] + _MORE
        return {2: last, 3: _END}.get(self._given, b"")

    @property
    def fault(self) -> str | None:
        """Fault of the data, once the picture is decoded."""
        if self._given == 1 and self._data.find(_END, self._scan) == self._end:
            return "its data go on behind its last pixel"  # else another picture may follow
        return "its data end before its last pixel" if self._given > 2 else None


def in_parts(data: bytes) -> Parts | None:
    """`data` in parts, or None for a JPEG of which they would not tell."""
    frame, components, at = 0, 0, 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fills
            at += 1
            continue
        if marker in _FRAMES:
            frame, components = marker, data[at + 9]
        if marker == _SCAN:
            end = data.rfind(_END)
            all_in_one = frame in _HUFFMAN and data[at + 4] == components
            return Parts(data, at, end) if all_in_one and end > at else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
