"""H.264 behind a lost key frame: slices renumbered so that FFmpeg shows the pictures that it has decoded.

Theory of operation. A picture is shown by its order count, which begins at 0 again with each IDR picture. If that
picture is lost, those behind it seem to lie before what has been shown, and FFmpeg decodes but withholds them: up to 16
(measured: 12 of 29; a frozen half second). In a stream without reordering the order count rises by definition, so
where it would fall although no IDR picture came, the numbers that it is made of are moved on from there to the next IDR
picture: `pic_order_cnt_lsb` (order type 0), or `frame_num` (type 2; FFmpeg forgets that it has wrapped while it fills
the gap). Both have a fixed length, so nothing else of a slice moves. Whatever is not understood passes as it is.

No library rewrites these fields: FFmpeg's bitstream filters leave slice headers alone. Numbers in brackets are sections
of ITU-T H.264 (08/2021).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.media.parameters import nal_units

_NON_IDR, _IDR, _SPS = 1, 5, 7  # nal_unit_type, table 7-1
_WITH_CHROMA_FORMAT = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}  # profiles (7.3.2.1.1)
_ESCAPE = re.compile(rb"\x00\x00(?=[\x00-\x03])")  # (7.4.1.1)
_HEADER_BYTES = 48  # more than the fields that are read can take
_STEP = 2  # from one frame's order count to the next


class _Bits:
    """Reads bits, most significant first (7.2); past the end it raises ValueError."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)
        self._length = self._left

    @property
    def position(self) -> int:
        return self._length - self._left

    def u(self, bits: int) -> int:
        if bits > self._left:
            raise ValueError("the header ends early")
        self._left -= bits
        return self._value >> self._left & (1 << bits) - 1

    def ue(self) -> int:
        """Exp-Golomb, unsigned (9.1)."""
        zeros = 0
        while not self.u(1):
            zeros += 1
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        """Exp-Golomb, signed (9.1.1)."""
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sequence:
    """What a sequence parameter set says of the numbers in slice headers."""

    colour_plane_bits: int
    frame_num_bits: int
    order_type: int
    lsb_bits: int
    frames_only: bool

    @classmethod
    def read(cls, unit: bytes) -> _Sequence:
        """Read `unit`, from its first byte (7.3.2.1.1)."""
        bits = _Bits(_plain(unit[1:]))
        profile = bits.u(8)
        bits.u(16)
        bits.ue()  # its id
        planes = 0
        if profile in _WITH_CHROMA_FORMAT:
            chroma = bits.ue()
            planes = 2 * bits.u(1) if chroma == 3 else 0
            bits.ue(), bits.ue(), bits.u(1)  # depths, transform bypass
            if bits.u(1):
                for i in range(12 if chroma == 3 else 8):
                    if bits.u(1):
                        _skip_scaling_list(bits, 16 if i < 6 else 64)
        frame_num_bits = bits.ue() + 4
        order_type, lsb_bits = bits.ue(), 0
        if order_type == 0:
            lsb_bits = bits.ue() + 4
        elif order_type == 1:
            bits.u(1), bits.se(), bits.se()
            for _ in range(bits.ue()):
                bits.se()
        bits.ue(), bits.u(1), bits.ue(), bits.ue()  # reference frames, gaps allowed, size
        return cls(
            colour_plane_bits=planes,
            frame_num_bits=frame_num_bits,
            order_type=order_type,
            lsb_bits=lsb_bits,
            frames_only=bool(bits.u(1)),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Slice:
    """The numbers of a slice header, and behind how many bits of the unit's content they begin."""

    bidirectional: bool
    field: bool
    frame_num: int
    frame_num_at: int
    lsb: int
    lsb_at: int

    @classmethod
    def read(cls, unit: bytes, sequence: _Sequence) -> _Slice:
        """Read the header of the slice `unit`, from its first byte (7.3.3)."""
        bits = _Bits(_plain(unit[1:_HEADER_BYTES]))
        bits.ue()  # first macroblock
        kind = bits.ue() % 5
        bits.ue()  # picture parameter set
        bits.u(sequence.colour_plane_bits)
        frame_num_at = bits.position
        frame_num = bits.u(sequence.frame_num_bits)
        field = not sequence.frames_only and bool(bits.u(1))
        if unit[0] & 31 == _IDR:
            bits.ue()
        lsb_at = bits.position
        return cls(
            bidirectional=kind == 1,
            field=field,
            frame_num=frame_num,
            frame_num_at=frame_num_at,
            lsb=bits.u(sequence.lsb_bits),
            lsb_at=lsb_at,
        )


class H264Order:
    """Told of every packet (one picture, Annex B) of a stream without reordering, it returns what is to be decoded.

    Args:
        extradata: of the track, with the sequence parameter set; b"": the packets bring it.
    """

    def __init__(self, extradata: bytes = b"") -> None:
        self.lost = 0
        self._sequence: _Sequence | None = None
        self._off = False
        self._frame_num: int | None = None  # of the last picture, as it was given on
        self._order = self._msb = self._lsb = 0  # of the last picture; of the last reference picture (8.2.1.1)
        self._frame_num_shift = self._lsb_shift = 0
        self.mended(extradata)

    def mended(self, data: bytes) -> bytes:
        """Return the packet as it is, or with its slices renumbered; `lost` counts the key frames found missing."""
        if self._off:
            return data
        slices: list[tuple[bytes, _Slice]] = []
        for unit in nal_units(data, 0):
            kind = unit[0] & 31 if unit else 0
            try:
                if kind == _SPS:
                    self._learn(_Sequence.read(unit))
                elif kind in (_NON_IDR, _IDR) and self._sequence is not None:
                    slices.append((unit, _Slice.read(unit, self._sequence)))
            except ValueError:
                self._forget()
                return data
        if not slices or self._sequence is None:
            return data
        first, head = slices[0]
        # With reordering the count may fall; fields count otherwise. Neither has been asked for.
        self._off = any(each.bidirectional or each.field for _, each in slices)
        if self._off:
            return data
        if first[0] & 31 == _IDR:
            self._frame_num, self._order, self._msb, self._lsb = head.frame_num, head.lsb, 0, head.lsb
            self._frame_num_shift = self._lsb_shift = 0
            return data
        self._count(head, reference=bool(first[0] & 0x60))
        return self._renumbered(data, slices) if self._frame_num_shift or self._lsb_shift else data

    def _learn(self, sequence: _Sequence) -> None:
        if sequence != self._sequence:
            self._forget()
        self._sequence = sequence

    def _forget(self) -> None:
        self._frame_num = None
        self._frame_num_shift = self._lsb_shift = 0

    def _count(self, head: _Slice, *, reference: bool) -> None:
        """Bring the counts to this picture; where they would fall behind a gap, shift from now on."""
        sequence, last = self._sequence, self._frame_num
        assert sequence is not None
        turn = 1 << sequence.frame_num_bits
        frame_num = (head.frame_num + self._frame_num_shift) % turn
        gap = last is not None and frame_num not in (last, (last + 1) % turn)
        if sequence.order_type == 2 and last is not None and gap and frame_num < last:
            frame_num = (last + 1) % turn
            self._frame_num_shift = (frame_num - head.frame_num) % turn
            self.lost += 1
        self._frame_num = frame_num
        if sequence.order_type == 0:
            turn = 1 << sequence.lsb_bits
            lsb = (head.lsb + self._lsb_shift) % turn
            msb = self._msb_of(lsb, turn)
            if gap and msb + lsb <= self._order:
                lsb = (self._order + _STEP) % turn
                self._lsb_shift = (lsb - head.lsb) % turn
                msb = self._msb_of(lsb, turn)
                self.lost += 1
            self._order = msb + lsb
            if reference:
                self._msb, self._lsb = msb, lsb

    def _msb_of(self, lsb: int, turn: int) -> int:
        """PicOrderCntMsb, Eq. (8-3)."""
        if lsb < self._lsb and self._lsb - lsb >= turn // 2:
            return self._msb + turn
        if lsb > self._lsb and lsb - self._lsb > turn // 2:
            return self._msb - turn
        return self._msb

    def _renumbered(self, data: bytes, slices: list[tuple[bytes, _Slice]]) -> bytes:
        sequence = self._sequence
        assert sequence is not None
        for unit, head in slices:
            content = _plain(unit[1:])
            whole, bits = int.from_bytes(content, "big"), 8 * len(content)
            for value, shift, at, width in (
                (head.frame_num, self._frame_num_shift, head.frame_num_at, sequence.frame_num_bits),
                (head.lsb, self._lsb_shift, head.lsb_at, sequence.lsb_bits),
            ):
                place = bits - at - width
                whole ^= (value ^ (value + shift) % (1 << width)) << place
            data = data.replace(unit, unit[:1] + _escaped(whole.to_bytes(len(content), "big")), 1)
        return data


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    """(7.3.2.1.1.1)"""
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _plain(content: bytes) -> bytes:
    """Return a unit's content without the bytes that keep start codes out of it."""
    return content.replace(b"\x00\x00\x03", b"\x00\x00")


def _escaped(content: bytes) -> bytes:
    return _ESCAPE.sub(b"\x00\x00\x03", content)
