"""Headers that contradict their file: corrected where it shows the truth, refused where it is cut.

libsndfile believes the sizes in a header. In files as they are found, sizes are missing (streams),
wrap round at 4 GiB (WAV), or were never more than an estimate (MP3).
"""

from __future__ import annotations

import io
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from emodarts.errors import AudioError

_WRAP = 1 << 32
"""Sizes in a WAV header are numbers below this one."""

_PCM = frozenset({1, 3, 6, 7, 0xFFFE})
"""Formats of WAV files in which every frame has the same number of bytes."""

_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
"""Bytes of a sample in the encodings of AU files that do not compress over time."""

_AIFF_PLAIN = (b"NONE", b"sowt", b"twos", b"fl32", b"FL32", b"fl64", b"ulaw", b"alaw")
"""Of AIFF-C, where every frame has the same number of bytes."""

_NO_MP3 = (b"RIFF", b"RF64", b"riff", b"fLaC", b"FORM", b".snd", b"caff")

_RESYNC = 1024
"""Bytes between two MP3 frames over which mpg123 looks for the next one."""

_BITRATES = {
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2
    0: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2.5
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


@dataclass(frozen=True)
class Corrected:
    """An audio file as libsndfile shall see it.

    Attributes
    ----------
    file : with a header that tells the truth.
    frames : samples of each channel, where libsndfile would count too many.
    exact : whether the number of frames is that of the samples; for MP3 only decoding shows it.
    note : what the header stated wrongly, or ``""``.
    """

    file: BinaryIO
    frames: int | None = None
    exact: bool = True
    note: str = ""


def corrected(file: BinaryIO, name: Path | str) -> Corrected:
    """Look at the header of an open file that is not empty.

    Raises
    ------
    AudioError
        If an Ogg or MP3 file is cut off.
    """
    file.seek(0)
    magic = file.read(4)
    found = Corrected(file)
    if magic == b"OggS":
        if not _ogg_ends(file):
            raise AudioError(
                f"{name}: is truncated: the last Ogg page does not end the stream; "
                "use the whole file"
            )
    elif magic == b"RIFF":
        found = _wav(file)
    elif magic == b".snd":
        found = _au(file)
    elif magic in (b"FORM", b"caff"):
        found = _big_endian_chunks(file)
    elif magic not in _NO_MP3:
        found = _mp3(file, name)
    found.file.seek(0)
    return found


def promised_ratio(log: str) -> float:
    """Size of the audio data by its header, divided by the size in the file, from libsndfile's log.

    libsndfile reads what exists of an uncompressed file and only logs the difference:
    ``data : 64000 (should be 31978)``; ``SSND`` in AIFF, ``Data Size`` in AU, ``riff`` in W64.
    """
    note = re.search(r"^ *(?:data|SSND|Data Size|riff) *: (\d+) \(should be (\d+)\)", log, re.M)
    if note is None:
        return 1.0
    promised, held = int(note[1]), int(note[2])
    return promised / held if held and not _means_unknown(promised) else 1.0


class _Spliced(io.RawIOBase):
    """Other bytes in place of the first ``skip`` of a file."""

    def __init__(self, head: bytes, file: BinaryIO, skip: int) -> None:
        self._head, self._file, self._skip = head, file, skip
        self._size = len(head) + file.seek(0, io.SEEK_END) - skip
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = origin + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        behind = self._place - len(self._head)
        if behind < 0:
            data = self._head[self._place :][: len(buffer)]
        else:
            self._file.seek(self._skip + behind)
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _spliced(head: bytes, file: BinaryIO, skip: int) -> BinaryIO:
    return io.BufferedReader(_Spliced(head, file, skip))


def _ogg_ends(file: BinaryIO) -> bool:
    """Whether the last Ogg page is complete and marked as the end of the stream (RFC 3533).

    libsndfile accepts any page as the last one and silently reads what precedes it.
    """
    file.seek(max(0, file.seek(0, io.SEEK_END) - (1 << 17)))  # a page has less than 64 KiB
    data = file.read()
    page = data[data.rfind(b"OggS") :]
    if len(page) < 27:
        return False
    flags, segments = page[5], page[26]
    return bool(flags & 4) and len(page) >= 27 + segments + sum(page[27 : 27 + segments])


def _wav(file: BinaryIO) -> Corrected:
    """A WAV file whose data have the size that they have."""
    size = file.seek(0, io.SEEK_END)
    file.seek(4)
    riff = int.from_bytes(file.read(4), "little")
    place, frame_bytes, rate = 12, 0, 0
    while True:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return Corrected(file)
        stated = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            break
        if head[:4] == b"fmt " and len(body := file.read(16)) == 16:
            kind, _, rate, _, frame_bytes, _ = struct.unpack("<HHIIHH", body)
            frame_bytes *= kind in _PCM
        place += 8 + stated + stated % 2
    first = place + 8
    held = size - first

    def to_the_end() -> BinaryIO:
        # libsndfile reads a file whose sizes are those of an empty one up to its end.
        file.seek(0)
        data = bytearray(file.read(first))
        data[4:8], data[place + 4 : first] = struct.pack("<I", 8), bytes(4)
        return _spliced(bytes(data), file, first)

    # A recorder that writes to a pipe cannot fill in the sizes: that of the data stays 0, and that
    # of the file 0 or that of the header. If that is larger, the data really have the size 0.
    piped = stated == 0 and (riff in (0, place) or _means_unknown(riff))
    if held and (piped or (_means_unknown(stated) and held != stated)):
        return Corrected(to_the_end())
    if held - stated >= _WRAP:
        whole = held - (held - stated) % _WRAP
        if not frame_bytes or not rate:
            return Corrected(to_the_end())
        return Corrected(
            to_the_end(),
            whole // frame_bytes,
            note=f"the header states {stated / frame_bytes / rate:.0f} s, the file holds "
            f"{whole / frame_bytes / rate:.0f} s; all of it was read",
        )
    note = _unread(file, first, stated + stated % 2, frame_bytes * rate)
    advice = "; to read them, write the header anew: ffmpeg -ignore_length 1 -i FILE NEW.wav"
    return Corrected(file, note=note and note + advice)


def _au(file: BinaryIO) -> Corrected:
    """An AU file; its data end with it or where the header states."""
    head = file.read(20)
    if len(head) < 20:
        return Corrected(file)
    first, stated, encoding, rate, channels = struct.unpack(">5I", head)
    second = _AU_BYTES.get(encoding, 0) * channels * rate
    return Corrected(file, note=_unread(file, first, stated, second))


def _big_endian_chunks(file: BinaryIO) -> Corrected:
    """An AIFF or CAF file: chunks, one of the format and then one of the samples."""
    file.seek(0)
    caf = file.read(4) == b"caff"
    place, second = 8 if caf else 12, 0.0
    while True:
        file.seek(place)
        kind, body = file.read(4), file.read(8 if caf else 4)
        if len(body) < (8 if caf else 4):
            return Corrected(file)
        stated, place = int.from_bytes(body, "big", signed=caf), place + 4 + len(body)
        if kind in (b"data", b"SSND"):
            return Corrected(file, note=_unread(file, place, stated, second))
        if stated < 0:
            return Corrected(file)
        facts = file.read(32)
        if kind == b"desc" and len(facts) == 32:
            rate, _, _, packet_bytes, packet_frames, _, _ = struct.unpack(">d4sIIIII", facts)
            second = rate * packet_bytes / max(1, packet_frames)
        plain = stated == 18 or facts[18:22] in _AIFF_PLAIN
        if kind == b"COMM" and len(facts) >= 18 and plain:
            channels, _, bits = struct.unpack(">hIh", facts[:8])
            exponent, fraction = struct.unpack(">HQ", facts[8:18])
            if exponent < 16383 + 32:  # a rate below 2^32 Hz
                second = fraction * 2.0 ** (exponent - 16383 - 63) * channels * ((bits + 7) // 8)
        place += stated if caf else stated + stated % 2


def _unread(file: BinaryIO, first: int, stated: int, second: float) -> str:
    """A note of what is behind the samples, if that is a second of sound or more.

    Parameters
    ----------
    first, stated : where the samples begin, and how many bytes they have by the header.
    second : bytes of a second of sound; 0 if not known.
    """
    rest = file.seek(0, io.SEEK_END) - first - stated
    known = stated >= 0 and not _means_unknown(stated) and 0 < second < math.inf
    if not known or rest < second or _is_chunk(file, first + stated):
        return ""
    return (
        f"the header states {stated / second:.1f} s; behind them are {rest} bytes that were not "
        f"read, perhaps {rest / second:.1f} s of sound"
    )


def _means_unknown(size: int) -> bool:
    """Whether a header that was written to a pipe has this size for one that is unknown."""
    return 0x7FFF0000 <= size <= 0x8000FFFF or size >= 0xFFFF0000


def _is_chunk(file: BinaryIO, place: int) -> bool:
    """Whether a further chunk of a WAV file begins here rather than samples."""
    file.seek(place)
    head = file.read(8)
    return head[:4].isascii() and head[:4].decode("ascii").isprintable()


def _mp3(file: BinaryIO, name: Path | str) -> Corrected:
    """An MP3 file whose header states the number of frames that it has.

    Without such a header, libsndfile takes the first frame for a typical one and stops where the
    file should end by that. A file that states more frames than it has is cut if it also has fewer
    bytes than it states, or ends within a frame.
    """
    size = file.seek(0, io.SEEK_END)
    first = _find_frame(file, _behind_tags(file, 0), 3)
    if first is None:
        return Corrected(file)
    file.seek(first)
    head = file.read(4)
    length = _frame_length(head)
    side = _side_end(head)
    info = head + file.read(length - 4)
    stated = stated_bytes = 0
    audio = first
    if info[side : side + 4] in (b"Xing", b"Info"):
        audio += length
        (flags,) = struct.unpack(">I", info[side + 4 : side + 8])
        numbers = iter(struct.unpack(">II", info[side + 8 : side + 16]))
        stated = next(numbers) if flags & 1 else 0
        stated_bytes = next(numbers) if flags & 2 else 0
    elif info[36:40] == b"VBRI":
        audio += length
    count, end = _count_frames(file, audio, head)
    if end > size or (count < stated and stated_bytes > size - first):
        missing = (
            f"its header states {stated} frames, the file holds {count}"
            if count < stated
            else "its last frame is incomplete"
        )
        raise AudioError(f"{name}: is truncated: {missing}; use the whole file")
    if count == stated:
        return Corrected(file, exact=False)
    return Corrected(_spliced(_info_frame(head, count), file, audio), exact=False)


def _frame_length(head: bytes, like: bytes = b"") -> int:
    """Bytes of the layer III frame with this header, which is like another; 0 if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version, bitrate, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return 0
    if like and (head[1] ^ like[1]) & 0xFE | (head[2] ^ like[2]) & 0x0C:
        return 0
    bits = (144 if version == 3 else 72) * 1000 * _BITRATES[version][bitrate - 1]
    return bits // _RATES[version][rate] + (head[2] >> 1 & 1)


def _side_end(head: bytes) -> int:
    """Where the side information of a frame ends: a header that states sizes follows it."""
    mono, mpeg_1 = head[3] >> 6 == 3, bool(head[1] & 8)
    return 4 + (17 if mono else 32) if mpeg_1 else 4 + (9 if mono else 17)


def _find_frame(file: BinaryIO, place: int, least: int, like: bytes = b"") -> int | None:
    """Where the next MP3 frames begin, at least so many in a row (fewer at the end of the file)."""
    file.seek(place)
    data = file.read(_RESYNC + 4 * 1441)  # the longest frame has 1441 bytes
    for start in (m.start() for m in re.finditer(rb"\xff[\xe2-\xff]", data[:_RESYNC])):
        at, found, kind = start, 0, like or data[start : start + 4]
        while found < least and (length := _frame_length(data[at : at + 4], kind)):
            at, found = at + length, found + 1
        if found == least or (found and at == len(data)):
            return place + start
    return None


def _behind_tags(file: BinaryIO, place: int) -> int:
    """Where the ID3v2 tags that begin here end."""
    while True:
        file.seek(place)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3":
            return place
        a, b, c, d = head[6:]
        size = a << 21 | b << 14 | c << 7 | d
        place += 10 + size + (10 if head[5] & 0x10 else 0)


def _count_frames(file: BinaryIO, place: int, like: bytes) -> tuple[int, int]:
    """Number of MP3 frames from here on, and where the last one ends."""
    count, end = 0, place
    while True:
        file.seek(place)
        if length := _frame_length(file.read(4), like):
            count, place = count + 1, place + length
            end = place
            continue
        behind = _find_frame(file, _behind_tags(file, place), 2, like)
        if behind is None:
            return count, end
        place = behind


def _info_frame(head: bytes, count: int) -> bytes:
    """A frame that states how many follow it."""
    for bitrate in range(1, 15):
        start = bytes([0xFF, head[1] | 1, bitrate << 4 | head[2] & 0x0C, head[3]])
        length = _frame_length(start)
        if length >= 64:
            break
    side = _side_end(head)
    frame = start + bytes(side - 4) + b"Xing" + struct.pack(">II", 1, count)
    return frame + bytes(length - len(frame))
