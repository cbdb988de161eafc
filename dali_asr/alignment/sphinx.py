"""Forced alignment by pocketsphinx (extra `align`), whose acoustic model is of US English.

Two passes, as its documentation describes: words (`Decoder.set_align_text`), then their phones (`set_alignment`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.audio.recordings import read_blocks, read_header
from dali_asr.errors import DataError, UsageError
from dali_asr.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dali_asr.alignment.dictionary import Dictionary, Entry

_MIN_RATE = 14_000  # Hz; the filters of the model reach up to 6,855 Hz
_FRAMES = 100  # per second
_WIDE = {"beam": 1e-80, "wbeam": 1e-60, "pbeam": 1e-80}  # a narrow beam loses slow or noisy speech


class SphinxAligner:
    """Aligns recordings by pocketsphinx.

    Args:
        dictionary: of words that pocketsphinx does not know.

    Raises:
        UsageError: pocketsphinx is not installed.
    """

    def __init__(self, dictionary: Dictionary) -> None:
        try:
            import pocketsphinx
        except ImportError as error:
            raise UsageError("bootstrap: needs pocketsphinx; pip install 'dali-asr[align]'") from error
        pocketsphinx.set_loglevel("FATAL")
        self._decoder_class = pocketsphinx.Decoder
        self._decoders: dict[int, Any] = {}  # by sample rate
        self._dictionary = dictionary

    def align(self, path: Path, words: Sequence[tuple[str, Entry]]) -> list[Segment]:
        """Return the phones of a recording with their times, in ARPAbet and `[SIL]`.

        Raises:
            DataError: the recording cannot be read, its sample rate is too low, or it cannot be aligned.
        """
        header = read_header(path)
        if header.sample_rate < _MIN_RATE:
            raise DataError(f"{path}: {header.sample_rate:,} Hz; pocketsphinx needs at least {_MIN_RATE:,} Hz")
        decoder = self._decoder(header.sample_rate)
        for word, entry in words:
            if decoder.lookup_word(word) is None:
                decoder.add_word(word, self._dictionary.symbols(entry.pronunciations[0]), True)
        samples = np.concatenate(list(read_blocks(path, header.sample_rate * 60)))
        data = (samples.clip(-1, 1) * 32_767).astype(np.int16).tobytes()
        try:
            decoder.set_align_text(" ".join(word for word, _ in words))
            self._decode(decoder, data)
            if not decoder.hyp():
                raise RuntimeError("no path")
            decoder.set_alignment()
            self._decode(decoder, data)
            phones = [phone for word in decoder.get_alignment() for phone in word]
        except RuntimeError as error:
            raise DataError(f"{path}: pocketsphinx cannot align it ({error})") from error
        return [Segment(p.start / _FRAMES, (p.start + p.duration) / _FRAMES, _symbol(p.name)) for p in phones]

    def _decoder(self, rate: int) -> Any:
        if rate not in self._decoders:
            self._decoders[rate] = self._decoder_class(lm=None, samprate=rate, fwdflat=False, bestpath=False, **_WIDE)
        return self._decoders[rate]

    @staticmethod
    def _decode(decoder: Any, data: bytes) -> None:
        decoder.start_utt()
        decoder.process_raw(data, full_utt=True)
        decoder.end_utt()


def _symbol(name: str) -> str:
    """Return a phone's symbol; noises are silence."""
    return name if name.isalpha() and name != "SIL" else "[SIL]"
