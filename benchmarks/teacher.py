"""Score recordings by pocketsphinx' acoustic model, as a teacher of `english-small`.

    python benchmarks/teacher.py RECORDINGS corpus teacher
    dali-asr train english-small --set data.root=corpus --set training.teacher.folder=teacher

RECORDINGS and corpus are what `dali-asr prepare` read and wrote. Writes `NAME.npy` for each utterance of the training
partitions: log likelihoods of the three states of each phone, up to a constant per frame, float16 `[T, 3·C]`, C
labels. They are those of the model's context-independent states, of which its tied states are refinements. Silence has
one state; start and end symbols have none.

pocketsphinx says of its frame n what is said from n to n + 1 hundredths of a second. A frame of the corpus takes what
is said at its center, as its label is chosen.
"""

from __future__ import annotations

import os
import re
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import parser

from dali_asr import Corpus
from dali_asr.audio.recordings import find_recordings, read_blocks, read_header
from dali_asr.audio.settings import FeatureSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr import Inventory

STATES = 3
NATS = 1024 * np.log(1.0001)  # of one unit of a score, which is a logarithm to the base 1.0001, shifted by 10 bits
LOWEST = -60.0  # of states that are never said, in nats below the best
SIL = "SIL"


class Teacher:
    """Scores the states of phones of recordings.

    Args:
        inventory: the labels.
        sample_rate: of the recordings, in Hz.
    """

    def __init__(self, inventory: Inventory, sample_rate: int) -> None:
        import pocketsphinx

        pocketsphinx.set_loglevel("FATAL")
        self._folder = tempfile.TemporaryDirectory()  # where scores are written in passing
        # Without a language model, and with all senones computed, whatever the search looks at.
        self._decoder = pocketsphinx.Decoder(
            lm=None, samprate=sample_rate, compallsen=True, senlogdir=self._folder.name, fwdflat=False, bestpath=False
        )
        definition = Path(pocketsphinx.get_model_path(), "en-us", "en-us", "mdef")
        self._phones, self._inventory = phones_of(definition.read_bytes()), inventory

    def scores(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return log likelihoods, up to a constant per frame, `[T, 3·C]`."""
        decoder = self._decoder
        decoder.reinit_feat()  # its noise tracking goes on from one recording to the next
        decoder.set_align_text("a")  # something to search for; the scores do not depend on it
        decoder.start_utt()
        decoder.process_raw((samples.clip(-1, 1) * 32_767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        (path,) = Path(self._folder.name).iterdir()
        found = -NATS * read_senones(path)[:, : STATES * len(self._phones)].astype(np.float32)
        path.unlink()
        of_phones = dict(zip(self._phones, np.split(found, len(self._phones), axis=1), strict=True))
        scores = np.full((len(found), len(self._inventory), STATES), LOWEST, np.float32)
        for label, symbol in enumerate(self._inventory.symbols):
            if symbol in of_phones:
                scores[:, label] = of_phones[symbol]
        silence = self._inventory.silence()
        if silence is not None:
            scores[:, silence, 0] = of_phones[SIL].max(axis=1)
            scores[:, silence, 1:] = LOWEST
        return scores.reshape(len(found), -1)


def phones_of(definition: bytes) -> list[str]:
    """Return the phones of a binary model definition, in the order of their states."""
    start = definition.index(b"END FILE FORMAT DESCRIPTION")
    length = int.from_bytes(definition[8:12], "little")
    assert start < 12 + length, "another format of the model definition"
    count = int.from_bytes(definition[12 + length : 16 + length], "little")
    return [name.decode() for name in definition[12 + length + 40 :].split(b"\0")[:count]]


def read_senones(path: Path) -> NDArray[np.int16]:
    """Return the scores of all senones from a file that pocketsphinx wrote, `[T, S]`: 0 for the best of a frame."""
    content = path.read_bytes()
    header = re.search(rb"n_sen (\d+)\n.*?endhdr\n", content, re.DOTALL)
    assert header
    count = int(header[1])
    rows = np.frombuffer(content, np.int16, offset=header.end() + 4).reshape(-1, 1 + count)  # after a byte order mark
    assert (rows[:, 0] == count).all()
    return rows[:, 1:]


def at_centers(scores: NDArray[np.float32], settings: FeatureSettings, frames: int) -> NDArray[np.float32]:
    """Return the scores of what is said at the center of each frame of a corpus."""
    centers = (settings.timing.hop * np.arange(frames) + settings.timing.window / 2) / settings.sample_rate
    return scores[np.minimum((100 * centers).astype(np.int64), len(scores) - 1)]


@cache
def teacher_of(inventory: Inventory, sample_rate: int) -> Teacher:
    """Return the teacher for recordings of a sample rate; one per process."""
    return Teacher(inventory, sample_rate)


def write_scores(
    path: Path,
    frames: int,
    *,
    inventory: Inventory,
    settings: FeatureSettings,
    dest: Path,
) -> None:
    """Write the scores of a recording that has so many frames."""
    samples = np.concatenate(list(read_blocks(path, 1 << 20)))
    scores = teacher_of(inventory, read_header(path).sample_rate).scores(samples)
    np.save(dest / f"{path.stem}.npy", at_centers(scores, settings, frames).astype(np.float16))


def main() -> None:
    """Run from the command line."""
    made = parser(__doc__)
    made.add_argument("recordings", type=Path)
    made.add_argument("corpus", type=Path)
    made.add_argument("teacher", type=Path, help="folder to write to")
    given: Any = made.parse_args()
    corpus = Corpus.open(given.corpus)
    partition = corpus.partition("train")
    paths = {recording.name: recording.path for recording in find_recordings(given.recordings)[0]}
    given.teacher.mkdir(parents=True, exist_ok=True)
    write = partial(
        write_scores,
        inventory=corpus.inventory,
        settings=FeatureSettings.from_json(corpus.features or {}),
        dest=given.teacher,
    )
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(write, map(paths.__getitem__, partition.utterances), np.diff(partition.offsets).tolist()))
    print(f"{len(partition.utterances):,} utterances: {given.teacher}")


if __name__ == "__main__":
    main()
