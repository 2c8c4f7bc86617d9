"""Read the size of a JPEG XL picture from its header (ISO/IEC 18181-1, SizeHeader)."""

_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_WIDTHS = (9, 13, 18, 30)


def jpegxl_size(data: bytes) -> tuple[int, int]:
    """Return (height, width) in pixels. Raises ValueError if it is no JPEG XL."""
    bits = _Bits(_codestream(data)[2:34])
    small = bits.take(1)
    height = _side(bits, small)
    ratio = bits.take(3)
    if ratio:
        up, down = _RATIOS[ratio]
        return height, height * up // down
    return height, _side(bits, small)


def _side(bits: "_Bits", small: int) -> int:
    return 8 * (bits.take(5) + 1) if small else bits.take(_WIDTHS[bits.take(2)]) + 1


def _codestream(data: bytes) -> bytes:
    """Return the codestream, bare or inside the first box of a container that holds it."""
    if data[:2] == b"\xff\x0a":
        return data
    at = 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        head = 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if kind in (b"jxlc", b"jxlp"):
            start = at + head + (4 if kind == b"jxlp" else 0)
            if data[start : start + 2] == b"\xff\x0a":
                return data[start:]
        if size < head:
            break
        at += size
    raise ValueError("no JPEG XL codestream")


class _Bits:
    """Bits of bytes, least significant first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise ValueError("the JPEG XL header ends early")
        found = self._value & ((1 << count) - 1)
        self._value, self._left = self._value >> count, self._left - count
        return found
