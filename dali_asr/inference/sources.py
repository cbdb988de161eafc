"""Opening what a model is applied to: a partition of a corpus, or single files of features, part by part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dali_asr.build import corpus_path
from dali_asr.corpus import Corpus, PackSettings
from dali_asr.corpus.archive import is_archive
from dali_asr.corpus.archive_names import archive_partitions
from dali_asr.corpus.cache import is_cached
from dali_asr.corpus.features import is_npy_name, read_features, read_features_shape, refuse_audio
from dali_asr.corpus.layouts import layout_title, partition_names
from dali_asr.corpus.packed import is_packed
from dali_asr.corpus.packing import quiet
from dali_asr.errors import CheckpointError, DataError, SymbolError, UsageError
from dali_asr.inventory import is_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from dali_asr.config import DataConfig
    from dali_asr.corpus import Partition
    from dali_asr.corpus.packing import Progress
    from dali_asr.runs.description import ModelDescription


_MAX_SHOWN = 6  # symbols in a message
_ZEROED = (
    "repair the file, or write zeros there with numpy.nan_to_num(frames, posinf=0, neginf=0), as training with "
    "data.zero_nonfinite does"
)
FILES = "files"  # the name of the partition that single files make up
_PART = 1 << 17  # frames of single files that are in memory at once


@dataclass(frozen=True, eq=False)
class Source:
    """What a model is applied to.

    Attributes:
        name: of the partition.
        utterances: names of all utterances.
        frame_count: number of all frames.
        parts: partitions of consecutive utterances, which together hold all. Those of single files are read as they
            are asked for, so that memory does not grow with the number of files.
    """

    name: str
    utterances: tuple[str, ...]
    frame_count: int
    parts: Iterable[Partition]

    @classmethod
    def of(cls, partition: Partition) -> Source:
        """Return a source of one part."""
        return cls(partition.name, partition.utterances, partition.frame_count, (partition,))


def open_source(
    sources: Sequence[str | Path],
    partition: str | None,
    description: ModelDescription,
    data: DataConfig,
    progress: Progress = quiet,
) -> Source:
    """Open a source, normalized as the features that the model was trained on.

    Args:
        sources: `.npy` files of features `[T, D]`; or one folder: a packed corpus, source files in any layout, an
            archive of a course folder, or a folder of such files; or `demo`.
        partition: name of the corpus's partition; by default `data.test` if the corpus has it, or its only one.
        description: description of the model.
        data: the section of the run's configuration that says how features are stored.
        progress: called with the progress of packing source files.

    Raises:
        DataError: files are missing, damaged or of another D; or the corpus has another normalization.
        UsageError: an unclear or unknown partition, or sources that cannot be combined.
        CheckpointError: the corpus and the model have different inventories.
    """
    paths = [corpus_path(str(source), progress) for source in sources]
    for path in paths:
        refuse_audio(path)
    if len(paths) == 1 and paths[0].is_dir() and not (is_packed(paths[0]) or layout_title(paths[0])):
        paths = sorted(path for path in paths[0].iterdir() if is_npy_name(path.name)) or paths
    if all(path.suffix == ".npy" for path in paths):
        if partition:
            raise UsageError(f"partition {partition}: single files have no partitions; leave it out")
        return _open_files(paths, description, data)
    if len(paths) > 1:
        raise UsageError(f"{paths[0]}: several sources must all be .npy files; give one corpus at a time")
    return Source.of(_open_corpus(paths[0], partition, description, data, progress))


def _open_files(paths: Sequence[Path], description: ModelDescription, data: DataConfig) -> Source:
    lengths = []
    for path in paths:
        length, feature_dim = read_features_shape(path)
        _check_feature_dim(path, feature_dim, description, data.root)
        if not is_text(path.stem):
            raise DataError(f"{path.stem!r}.npy: its name is not UTF-8; rename it")
        lengths.append(length)
    names = tuple(path.stem for path in paths)
    return Source(FILES, names, sum(lengths), _parts(paths, lengths, description, data))


def _parts(
    paths: Sequence[Path], lengths: Sequence[int], description: ModelDescription, data: DataConfig
) -> Iterator[Partition]:
    """Yield partitions of consecutive files, each of at most `_PART` frames unless one file has more."""
    first = 0
    while first < len(paths):
        end, frames = first + 1, lengths[first]
        while end < len(paths) and frames + lengths[end] <= _PART:
            frames += lengths[end]
            end += 1
        corpus = Corpus.from_arrays(
            [read_features(path, zero_nonfinite=data.zero_nonfinite, remedy=_ZEROED) for path in paths[first:end]],
            inventory=description.inventory,
            normalization=description.normalization,
            dtype=data.dtype or "float32",
            names=[path.stem for path in paths[first:end]],
            partition=FILES,
        )
        yield corpus.partition(FILES)
        first = end


def _open_corpus(
    path: Path,
    partition: str | None,
    description: ModelDescription,
    data: DataConfig,
    progress: Progress,
) -> Partition:
    names = _partition_names(path)
    chosen = partition or _choose(path, names, data.test)
    if is_packed(path):
        corpus = Corpus.open(path)
        _check_corpus(path, corpus, description)
    else:
        corpus = _open_unpacked(path, names, chosen, description, data, progress)
    _check_feature_dim(path, corpus.feature_dim, description, data.root)
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


def _partition_names(path: Path) -> list[str]:
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
    if corpus.normalization != description.normalization:
        raise DataError(
            f"{path}: normalized by {corpus.normalization.kind}, the checkpoint was trained on features "
            f"normalized by {description.normalization.kind}, or by other statistics; give the source files "
            "instead, or pack it again"
        )


def _check_feature_dim(path: Path, feature_dim: int, description: ModelDescription, root: str) -> None:
    if feature_dim != description.feature_dim:
        raise DataError(
            f"{path}: {feature_dim} features per frame, the checkpoint was trained on {description.feature_dim}; "
            f"compute them as those of {root}, on which it was trained"
        )
