"""Opening what a model is applied to: a partition of a corpus, or recordings and files of features, part by part."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dali_asr.audio.recordings import DECODED
from dali_asr.build import corpus_path
from dali_asr.config import IN_MEMORY
from dali_asr.corpus import Corpus, PackSettings
from dali_asr.corpus.archive import is_archive
from dali_asr.corpus.archive_names import archive_partitions
from dali_asr.corpus.cache import is_cached
from dali_asr.corpus.layouts import layout_title, partition_names, refuse_partition
from dali_asr.corpus.packed import is_packed
from dali_asr.corpus.packing import quiet
from dali_asr.corpus.regular import reading
from dali_asr.errors import CheckpointError, DataError, SymbolError, UsageError
from dali_asr.inference.files import FILES, Files, check_feature_dim, files_in, is_recording_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dali_asr.config import DataConfig
    from dali_asr.corpus import Partition
    from dali_asr.corpus.packing import Progress
    from dali_asr.inference.files import Sound
    from dali_asr.runs.description import ModelDescription


_MAX_SHOWN = 6  # symbols in a message


@dataclass(frozen=True, eq=False)
class Source:
    """What a model is applied to.

    Attributes:
        name: of the partition.
        utterances: names of all utterances.
        frame_count: number of all frames.
        parts: partitions of consecutive utterances, which together hold all. Those of single files are read as they
            are asked for, so that memory does not grow with the number of files.
        sounds: the recordings of the utterances of the part under way, None for those without; empty if all are.
        has_recordings: whether there are any.
    """

    name: str
    utterances: tuple[str, ...]
    frame_count: int
    parts: Iterable[Partition]
    sounds: Sequence[Sound | None] = field(default_factory=list)
    has_recordings: bool = False

    @classmethod
    def of(cls, partition: Partition) -> Source:
        """Return a source of one part."""
        return cls(partition.name, partition.utterances, partition.frame_count, (partition,))


def open_source(
    sources: Sequence[str | Path | Corpus],
    partition: str | None,
    description: ModelDescription,
    data: DataConfig,
    progress: Progress = quiet,
    *,
    failed: Callable[[Sequence[DataError]], None] | None = None,
    gpu: int | None = None,
) -> Source:
    """Open a source, normalized as the features that the model was trained on.

    Args:
        sources: recordings, `.npy` files of features `[T, D]`, and folders of such files; or one corpus: a packed
            corpus, an opened one, source files in any layout, an archive of a course folder, or `demo`.
        partition: name of the corpus's partition; by default `data.test` if the corpus has it, or its only one. Or the
            folder `train`, `dev` or `test` of a folder of recordings.
        description: description of the model.
        data: the section of the run's configuration that says how features are stored.
        progress: called with the progress of packing source files.
        failed: called with the errors of files that cannot be used, which are then left out; by default the first is
            raised.
        gpu: number of the GPU that computes the features of recordings; by default the CPU does.

    Raises:
        DataError: files are missing, damaged or of another D; or the corpus has another normalization.
        UsageError: an unclear or unknown partition, or sources that cannot be combined.
        CheckpointError: the corpus and the model have different inventories, or there are recordings and the model
            does not know how its features were computed.
    """
    if len(sources) == 1 and isinstance(sources[0], Corpus):
        return Source.of(_partition_of(sources[0], partition, description, data))
    paths = [corpus_path(str(source), progress) for source in sources]
    report = failed or _raise
    refused: list[DataError] = []
    if len(paths) > 1:
        paths, refused = _by_kind(paths)
        if not paths:
            report(refused)
            raise DataError(f"{sources[0]}: none of the files can be used; see the errors above")
    given = [_files_of(path, partition, report) for path in paths]
    if all(given):
        files = [file for of_path in given for file in of_path or ()]
        if partition and (any(map(Path.is_file, paths)) or any(path.suffix == ".npy" for path in files)):
            raise UsageError(f"partition {partition}: single files have no partitions; leave it out")
        return _source_of(Files(files, description, data, report, gpu, refused))
    if len(sources) > 1:
        corpus = paths[given.index(None)]
        raise UsageError(
            f"{corpus}: several sources must all be recordings, .npy files, or folders of them; "
            "give one corpus at a time"
        )
    return Source.of(_open_corpus(paths[0], partition, description, data, progress))


def _by_kind(paths: Sequence[Path]) -> tuple[list[Path], list[DataError]]:
    """Return the paths that can be used, as far as their kind shows, and the errors of the others."""
    kept, errors = [], []
    for path in paths:
        try:
            _check_kind(path)
            kept.append(path)
        except DataError as error:
            errors.append(error)
    return kept, errors


def _check_kind(path: Path) -> None:
    """Check that a path is there, and that a file is of a kind that can be used.

    Raises:
        DataError: it is not.
    """
    if _is_file(path):
        return
    with reading(path):
        if path.is_dir() or is_archive(path):
            return
        path.stat()
    raise DataError(
        f"{path}: is neither a recording ({', '.join(DECODED)}) nor a .npy file of features, nor an archive or folder "
        "of a corpus; give one of these"
    )


def _raise(errors: Sequence[DataError]) -> None:
    if len(errors) == 1:
        raise errors[0]
    raise DataError(f"{errors[0]} ({len(errors) - 1:,} more cannot be used)") from errors[0]


def holds_files(path: Path) -> bool:
    """Return whether a path stands for recordings and `.npy` files of features, not for a corpus.

    Raises:
        DataError: it cannot be read.
    """
    if _is_file(path):
        return True
    with reading(path):
        return path.is_dir() and not is_packed(path) and not _has_layout(path)


def _is_file(path: Path) -> bool:
    return path.suffix == ".npy" or (is_recording_name(path) and not path.is_dir())


def _files_of(path: Path, partition: str | None, failed: Callable[[Sequence[DataError]], None]) -> list[Path] | None:
    """Return the recordings and `.npy` files that a path stands for; None if it is that of a corpus."""
    if not holds_files(path):
        return None
    if _is_file(path):
        return [path]
    with reading(path):
        files = files_in(path, partition, failed)
    if not files:
        refuse_partition(path, "partition=NAME")
        raise DataError(
            f"{path}: holds neither recordings ({', '.join(sorted(DECODED))}) nor .npy files of features, and is no "
            "corpus; give another folder"
        )
    return files


def _has_layout(path: Path) -> bool:
    """Return whether a folder has a layout of source files. One in which a folder cannot be read counts as none."""
    try:
        return layout_title(path) is not None
    except DataError as error:
        if isinstance(error.__cause__, PermissionError):
            return False  # said when its files are looked for
        raise


def _source_of(files: Files) -> Source:
    has_recordings = any(is_recording_name(path) for path in files.paths)
    return Source(FILES, files.names, files.frame_count, files.parts(), files.sounds, has_recordings)


def _partition_of(corpus: Corpus, partition: str | None, description: ModelDescription, data: DataConfig) -> Partition:
    """Return the partition of a corpus that is open."""
    path = corpus.path or Path(IN_MEMORY)
    _check_corpus(path, corpus, description)
    check_feature_dim(path, corpus.feature_dim, description, data.root)
    return corpus.partition(partition or _choose(path, list(corpus.partitions), data.test))


def _open_corpus(
    path: Path,
    partition: str | None,
    description: ModelDescription,
    data: DataConfig,
    progress: Progress,
) -> Partition:
    names = source_partitions(path)
    chosen = partition or _choose(path, names, data.test)
    if is_packed(path):
        corpus = Corpus.open(path)
        _check_corpus(path, corpus, description)
    else:
        corpus = _open_unpacked(path, names, chosen, description, data, progress)
    check_feature_dim(path, corpus.feature_dim, description, data.root)
    return corpus.partition(chosen)


def _open_unpacked(
    path: Path,
    names: Sequence[str],
    chosen: str,
    description: ModelDescription,
    data: DataConfig,
    progress: Progress,
) -> Corpus:
    """Open the cached corpus of the training if these are its source files; otherwise pack the chosen partition."""
    normalization = description.normalization
    settings = PackSettings(
        data.partitions,
        normalization.kind,
        train=normalization.partitions,
        dtype=data.dtype or "float32",
        inventory=description.inventory,
        zero_nonfinite=data.zero_nonfinite,
        fold=data.fold,
    )
    if chosen in data.partitions and set(data.partitions) <= set(names) and is_cached(path, settings):
        corpus = Corpus.open(path, settings, progress=progress)
        if corpus.normalization == normalization:
            return corpus
    alone = replace(settings, partitions=(chosen,), normalization=normalization, train=())
    try:
        return Corpus.open(path, alone, progress=progress)
    except SymbolError as error:
        shown = " ".join(description.inventory.symbols[:_MAX_SHOWN])
        raise SymbolError(
            f"{str(error).partition('; ')[0]}; the checkpoint knows {len(description.inventory)} symbols "
            f"({shown}, ...): give a corpus with its labels, or features without transcripts to predict"
        ) from error


def source_partitions(path: Path) -> list[str]:
    """Return the names of the partitions of a corpus: packed, source files in any layout, or an archive.

    Raises:
        DataError: it is missing, cannot be read, or is no corpus.
    """
    _check_kind(path)
    if is_archive(path):
        return archive_partitions(path)
    return list(Corpus.open(path).partitions) if is_packed(path) else partition_names(path)


def _choose(path: Path, names: Sequence[str], default: str | None) -> str:
    if default in names:
        return str(default)
    if len(names) == 1:
        return names[0]
    raise UsageError(f"{path}: which partition? It has {', '.join(names)}; name one (partition=NAME)")


def _check_corpus(path: Path, corpus: Corpus, description: ModelDescription) -> None:
    if corpus.inventory != description.inventory:
        raise CheckpointError(
            f"{path}: has an inventory of {len(corpus.inventory)} symbols, the checkpoint one of "
            f"{len(description.inventory)} that differs; give a corpus packed with the checkpoint's inventory"
        )
    ours, theirs = corpus.normalization, description.normalization
    if ours != theirs:
        kind = f"{theirs.kind} statistics that differ" if ours.kind == theirs.kind else theirs.kind
        raise DataError(
            f"{path}: normalized by {ours.kind}, the checkpoint was trained on features normalized by {kind}; give the "
            "source files instead, or pack it again"
        )
