"""From configuration to objects: the classes themselves take plain arguments."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dali_asr.config import DEMO, IN_MEMORY, Config, DataConfig, LoaderConfig, ModelConfig
from dali_asr.corpus import Corpus, PackSettings
from dali_asr.corpus.archive import is_archive
from dali_asr.corpus.cache import is_cached
from dali_asr.corpus.dropping import drop_labels, read_dropped
from dali_asr.corpus.folding import read_fold
from dali_asr.corpus.labels import label_counts
from dali_asr.corpus.layouts import find_layout, layout_title, partition_names
from dali_asr.corpus.packed import is_packed
from dali_asr.corpus.packing import quiet
from dali_asr.corpus.partition import join
from dali_asr.corpus.remote import is_at_hand, local_corpus
from dali_asr.demo import DEMO_CORPUS, DEMO_RECORDING, recording_path
from dali_asr.errors import DID_YOU_MEAN, DataError, UsageError, brief
from dali_asr.inventory import ARPABET, resolve_inventory
from dali_asr.model import MLP, PRESETS, HiddenLayer, parameter_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from dali_asr.corpus import Partition
    from dali_asr.corpus.layouts import Layout, SourcePartition
    from dali_asr.corpus.packing import Progress
    from dali_asr.errors import DaliAsrError
    from dali_asr.loading import WindowLoader


def corpus_path(root: str, progress: Progress = quiet) -> Path:
    """Return the path of a root: `demo` is the embedded corpus; what is elsewhere is fetched into the cache.

    `demo.wav` is the embedded recording, unless there is a file of that name.

    Raises:
        DataError, UsageError: as `local_corpus`; or the root is that of a corpus in memory.
    """
    if root == IN_MEMORY:
        raise DataError(
            "data.root: the run was trained on a corpus in memory, which it does not keep; give the corpus "
            "(PackedWriter writes one to a folder)"
        )
    if recording_path(root) == DEMO_RECORDING:
        return DEMO_RECORDING
    return DEMO_CORPUS if root == DEMO else local_corpus(root, progress)


def open_corpus(data: DataConfig, progress: Progress) -> Corpus:
    """Open the corpus of a configuration; source files are packed the first time.

    Raises:
        DataError, UsageError: as `Corpus.open`.
    """
    path = corpus_path(data.root, progress)
    if not path.exists():
        raise DataError(f"data.root: {data.root}: no such folder; set it to the corpus (data.root=FOLDER)")
    if is_packed(path):
        corpus = Corpus.open(path)
        if data.fold:
            raise UsageError(
                f"data.fold: {brief(data.fold)}: {data.root} is packed already; leave it out, or fold while packing"
            )
        corpus.check_settings(
            normalization=data.normalization,
            train=data.train,
            dtype=data.dtype,
            inventory=resolve_inventory(data.inventory) if data.inventory else None,
        )
    else:
        _check_partitions(path, data)
        with _named_by(data, *_partition_keys(data)):
            corpus = Corpus.open(path, pack_settings(data), progress=progress)
    for key, names in _partition_keys(data):
        partition_of(corpus, data, key, *names)
    corpus.inventory.silence(data.silence)
    return corpus


def with_root(data: DataConfig, corpus: Corpus) -> DataConfig:
    """Return a section whose root is where a corpus is, unless it names that corpus already."""
    if corpus.path is None:
        return data.model_copy(update={"root": IN_MEMORY})
    try:
        path = corpus_path(data.root)
        if not is_packed(path) and path.exists() and is_cached(path, pack_settings(data)):
            path = Corpus.open(path, pack_settings(data)).path or path
    except (DataError, UsageError):
        path = None
    if path is not None and path.absolute() == corpus.path.absolute():
        return data
    return data.model_copy(update={"root": str(corpus.path)})


def corpus_mistakes(data: DataConfig) -> list[DaliAsrError]:
    """Return every partition that the corpus of a configuration lacks; if none, the first mistake of `check_corpus`."""
    absent: list[DaliAsrError] = []
    try:
        if is_at_hand(data.root) and (path := corpus_path(data.root)).exists() and not is_archive(path):
            for key, names in _partition_keys(data):
                try:
                    if is_packed(path):
                        partition_of(Corpus.open(path), data, key, *names)
                    else:
                        _check_partitions(path, data, [(key, names)])
                except UsageError as error:
                    absent.append(error)
        if not absent:
            check_corpus(data)
    except (DataError, UsageError) as error:
        return [error]
    return absent


def check_corpus(data: DataConfig) -> bool:
    """Check that the corpus of a configuration is there and has its partitions; nothing is fetched or packed.

    Returns:
        Whether everything is checked: most source files are read when they are packed, and a corpus that is elsewhere
        when it is fetched.

    Raises:
        DataError, UsageError: as `open_corpus`, or a training partition without labels.
    """
    if not is_at_hand(data.root):
        return False
    path = corpus_path(data.root)
    if path.exists() and not is_packed(path):
        settings = pack_settings(data)
        if data.fold:
            read_fold(data.fold)
        if data.drop:
            read_dropped(Path(data.drop).expanduser())
        if is_archive(path):
            return False
        _check_partitions(path, data)
        layout = find_layout(path, settings.partitions)
        (settings.inventory or layout.inventory).silence(data.silence)
        for partition in layout.partitions:
            if partition.name in (*data.train, data.dev) and not partition.labelled:
                key = "data.dev" if partition.name == data.dev else "data.train"
                raise DataError(f"{partition.name}: has no transcripts; name a labelled partition in {key}")
            _read_first(partition, layout, settings)
        return False
    corpus = open_corpus(data, quiet)
    label_counts(training_partition(corpus, data), "data.train")
    if data.dev:
        label_counts(corpus.partition(data.dev), "data.dev")
    return True


def _read_first(partition: SourcePartition, layout: Layout, settings: PackSettings) -> None:
    """Read the first utterance of a partition, which shows most mistakes that all of them have."""
    utterance = partition.source(partition.utterances[0])
    frames = utterance.frames(zero_nonfinite=settings.zero_nonfinite)
    if partition.labelled:
        fold = read_fold(settings.fold) if settings.fold else None
        utterance.labels(len(frames), settings.inventory or layout.inventory, fold)


def pack_settings(data: DataConfig) -> PackSettings:
    """Return how source files are packed."""
    return PackSettings(
        partitions=data.partitions,
        normalization=data.normalization or "utterance",
        train=data.train if data.normalization == "global" else (),
        dtype=data.dtype or "float32",
        inventory=resolve_inventory(data.inventory) if data.inventory else None,
        zero_nonfinite=data.zero_nonfinite,
        fold=data.fold,
    )


def partition_of(corpus: Corpus, data: DataConfig, key: str, *names: str) -> Partition:
    """Return the partitions that a key of a configuration's section names, joined.

    Raises:
        UsageError: the corpus lacks one of them; says which key named it.
    """
    with _named_by(data, (key, names)):
        return corpus.partition(*names)


def training_partition(corpus: Corpus, data: DataConfig) -> Partition:
    """Return the training partitions, joined, without the labels that `data.drop` lists.

    Raises:
        UsageError: the corpus lacks a partition.
        DataError: `data.drop` is missing, invalid or of another corpus.
    """
    partition = partition_of(corpus, data, "data.train", *data.train)
    if data.drop is None:
        return partition
    try:
        dropped = read_dropped(Path(data.drop).expanduser())
        return join([drop_labels(corpus.partition(name), dropped) for name in data.train])
    except DataError as error:
        raise DataError(f"data.drop: {error}") from error


def dropped_partitions(data: DataConfig) -> set[str]:
    """Return the names of the partitions that `data.drop` lists.

    Raises:
        DataError: it is missing or invalid.
    """
    return {line.partition for line in read_dropped(Path(data.drop).expanduser())} if data.drop else set()


def _check_partitions(root: Path, data: DataConfig, keys: Sequence[tuple[str, tuple[str, ...]]] | None = None) -> None:
    """Check that the partitions of all keys, or of some, are there, before work of minutes begins."""
    if layout_title(root) is None:
        if (root / "mfcc").is_dir():
            folder = root.absolute()
            raise DataError(
                f"data.root: {data.root}: is a partition, not the folder of the partitions; "
                f"set data.root to {folder.parent} and data.train to {folder.name}"
            )
        return  # another folder is refused when it is opened
    known = partition_names(root)
    for key, names in keys or _partition_keys(data):
        for name in names:
            if name not in known:
                with _named_by(data, (key, names)):
                    find_layout(root, [name])


def _partition_keys(data: DataConfig) -> list[tuple[str, tuple[str, ...]]]:
    """Return the keys that name partitions, with their names."""
    single = [("data.dev", data.dev), ("data.test", data.test)]
    return [("data.train", data.train), *((key, (name,)) for key, name in single if name is not None)]


@contextmanager
def _named_by(data: DataConfig, *keys: tuple[str, tuple[str, ...]]) -> Iterator[None]:
    """Say which key of the configuration named the partition that the block does not find, and how to set it.

    A similar name is not suggested if another key holds it: it would be trained on and scored, or scored twice.

    Args:
        data: the section of the configuration.
        keys: keys, with the names that they hold.
    """
    try:
        yield
    except UsageError as error:
        for key, names in keys:
            if any(f"no partition {name!r}" in str(error) for name in names):
                problem, _, near = str(error).partition(DID_YOU_MEAN)
                used = {name for other, held in _partition_keys(data) if other != key for name in held}
                remedies = [f"name one of these ({key}=NAME)"]
                if key != "data.train":
                    remedies.append(f"set it to null if there is none ({key}=null)")
                if near.removesuffix("?") in used:
                    remedies, near = remedies[::-1], ""
                suggestion = f"{DID_YOU_MEAN}{near}" if near else ""
                raise UsageError(f"{key}: {problem}; {', or '.join(remedies)}{suggestion}") from error
        raise


def training_loader(
    config: LoaderConfig, partition: Partition, *, seed: int, device: torch.device, rank: int = 0, world_size: int = 1
) -> WindowLoader:
    """Return the loader of a rank's training batches."""
    from dali_asr.loading import WindowLoader  # brings DALI, which takes half a second

    return WindowLoader(
        partition,
        context=config.context,
        batch_size=config.batch_size,
        shuffle=config.shuffle,
        seed=seed,
        masking=config.masking,
        subset=config.subset,
        drop_last=config.drop_last,
        dtype=config.dtype,
        graph=config.graph,
        device=device,
        prefetch=config.prefetch,
        batches_per_iteration=config.batches_per_iteration,
        memory_budget=config.memory_budget,
        rank=rank,
        world_size=world_size,
    )


def complete_loader(
    partition: Partition,
    *,
    context: tuple[int, int],
    batch_size: int,
    device: torch.device,
    memory_budget: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> WindowLoader:
    """Return a loader of every frame, in order and unmasked, for evaluation and prediction."""
    from dali_asr.loading import WindowLoader

    return WindowLoader(
        partition,
        context=context,
        batch_size=batch_size,
        shuffle=False,
        device=device,
        memory_budget=memory_budget,
        rank=rank,
        world_size=world_size,
    )


def build_hidden(config: ModelConfig) -> tuple[HiddenLayer, ...]:
    """Return the hidden layers: the preset's, or as given, with what is set for all or each of them."""
    layers = tuple(HiddenLayer(width) for width in config.hidden) if config.hidden else PRESETS[config.preset or "tiny"]
    depth = len(layers)
    dropout, norm = config.dropout, config.norm
    dropouts = dropout if isinstance(dropout, tuple) else (dropout,) * depth
    norms = norm if isinstance(norm, tuple) else (norm,) * depth
    return tuple(
        HiddenLayer(
            layer.width,
            layer.dropout if d is None else d,
            layer.norm if n is None else n,
        )
        for layer, d, n in zip(layers, dropouts, norms, strict=True)
    )


def check_size(model: nn.Module, config: ModelConfig) -> None:
    """Check a model against `model.max_parameters`.

    Raises:
        UsageError: it has more parameters.
    """
    count = parameter_count(model)
    if config.max_parameters is not None and count > config.max_parameters:
        raise UsageError(
            f"the model has {count:,} parameters, model.max_parameters allows {config.max_parameters:,}; "
            "make model.hidden narrower or loader.context smaller"
        )


def check_parameters(config: Config, corpus: Corpus) -> None:
    """Check the model that a configuration trains on a corpus against `model.max_parameters`.

    Raises:
        UsageError: it has more parameters.
    """
    with torch.device("meta"):
        model = MLP(
            window=sum(config.loader.context) + 1,
            feature_dim=corpus.feature_dim,
            classes=len(corpus.inventory),
            hidden=build_hidden(config.model),
            residual=config.model.residual,
            states=config.model.states,
        )
    check_size(model, config.model)


def check_batches(batches: WindowLoader, partition: Partition, hidden: tuple[HiddenLayer, ...]) -> None:
    """Check that batch norm can train on every batch.

    Raises:
        UsageError: a batch has one window.
    """
    if batches.spec.steps.min_size == 1 and any(layer.norm == "batch" for layer in hidden):
        raise UsageError(
            f"{partition.name}: batches of 1 window cannot train batch norm; "
            "raise loader.batch_size, or set model.norm: none"
        )


SUPPLIED = ("data.inventory", "data.normalization", "data.dtype")  # by the corpus, see `resolved`


def resolved(config: Config, corpus: Corpus) -> Config:
    """Return the configuration with what the corpus supplies: inventory, normalization and dtype."""
    supplied = {
        "inventory": "arpabet" if corpus.inventory == ARPABET else corpus.inventory.symbols,
        "normalization": corpus.normalization.kind,
        "dtype": corpus.dtype.name,
    }
    return config.model_copy(update={"data": config.data.model_copy(update=supplied)})
