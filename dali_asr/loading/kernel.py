"""The fused kernels: a plan drawn and carried out on the GPU, by Triton.

`plan_windows` is the twin of `plan.py` and of the row layout, equal to them to the bit: one thread a window finds its
frame, row and label and draws its masks. `cut_windows` then cuts, pads, masks and converts each window in one pass.

Everything that changes from step to step comes in one small array, the description; its layout is below.

Shape letters: `R` rows, `N` windows, `W` frames of a window, `D` features, `M` bands of a window, `U` utterances,
`C` chunks of a group.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.random import philox

# The description: header, then a record for each of two groups: first position, positions, rows and columns and keys
# of the bijection, then first position, frames before and shift of each chunk.
EPOCH: tl.constexpr = tl.constexpr(0)
FIRST: tl.constexpr = tl.constexpr(1)  # position of the first window
SIZE: tl.constexpr = tl.constexpr(2)  # windows of this rank in a step
STRIDE: tl.constexpr = tl.constexpr(3)  # positions from step to step
COUNT: tl.constexpr = tl.constexpr(4)  # windows in all
STEP: tl.constexpr = tl.constexpr(5)  # steps since the first epoch
BOUNDARY: tl.constexpr = tl.constexpr(6)  # first position of the second group
SEED: tl.constexpr = tl.constexpr(7)
HEADER: tl.constexpr = tl.constexpr(8)
GROUP_START: tl.constexpr = tl.constexpr(0)
GROUP_SIZE: tl.constexpr = tl.constexpr(1)
GRID_ROWS: tl.constexpr = tl.constexpr(2)
GRID_COLUMNS: tl.constexpr = tl.constexpr(3)
KEYS: tl.constexpr = tl.constexpr(4)
ROUNDS: tl.constexpr = tl.constexpr(24)
TABLES: tl.constexpr = tl.constexpr(28)

# Streams of the draws, as in philox.py and masking.py.
MASK_COUNTS: tl.constexpr = tl.constexpr(1)
FREQUENCY: tl.constexpr = tl.constexpr(2)
TIME: tl.constexpr = tl.constexpr(3)


# Numbers that follow from the corpus are no constants, so that a kernel is compiled once for all of them.
@triton.jit(do_not_specialize=["subset", "chunks", "utterances", "gap", "left", "scope"])
def plan_windows(
    plan,
    offsets,
    row_labels,
    frames,
    labels,
    first_rows,
    bands,
    subset,
    chunks,
    utterances,
    gap,
    left,
    scope,
    CHUNK_DEPTH: tl.constexpr,
    UTTERANCE_DEPTH: tl.constexpr,
    SHUFFLE: tl.constexpr,
    LABELLED: tl.constexpr,
    MASKED: tl.constexpr,
    TIME_LEAST: tl.constexpr,
    TIME_MOST: tl.constexpr,
    TIME_NARROWEST: tl.constexpr,
    TIME_WIDEST: tl.constexpr,
    FRAMES: tl.constexpr,
    FREQUENCY_LEAST: tl.constexpr,
    FREQUENCY_MOST: tl.constexpr,
    FREQUENCY_NARROWEST: tl.constexpr,
    FREQUENCY_WIDEST: tl.constexpr,
    FEATURES: tl.constexpr,
    BY_STEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Plan windows: their frames, labels and first rows `[N]`, and bands `[N, M, 2]` of time, then of frequency.

    Args:
        plan: the description.
        offsets: of the utterances, `[U + 1]` int64.
        row_labels: `[R]`.
        frames: `[N]` int64, written.
        labels: `[N]` int64, written.
        first_rows: `[N]` int64, written.
        bands: `[N, M, 2]` int32, written.
        subset: every such frame is read.
        chunks: C, of a group.
        utterances: U.
        gap: rows of zeros after an utterance.
        left: frames of a window before its own.
        scope: what is added to the streams of draws.
        CHUNK_DEPTH: halvings that find one of C.
        UTTERANCE_DEPTH: halvings that find one of U.
        SHUFFLE: whether the order of a group is a bijection.
        LABELLED: whether there are labels.
        MASKED: whether there are masks; what follows describes them, first of time, then of frequency.
        TIME_LEAST: fewest bands.
        TIME_MOST: most.
        TIME_NARROWEST: least width.
        TIME_WIDEST: largest.
        FRAMES: W, among which a band lies.
        FREQUENCY_LEAST: as of time.
        FREQUENCY_MOST: as of time.
        FREQUENCY_NARROWEST: as of time.
        FREQUENCY_WIDEST: as of time.
        FEATURES: D.
        BY_STEP: whether masks are drawn for steps instead of positions.
        BLOCK: windows of a program.
    """
    window = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    count = tl.load(plan + COUNT)
    there = window < count
    counted = tl.where(there, window, tl.maximum(count - 1, 0))  # what is not there repeats the last
    size = tl.load(plan + SIZE)
    position = tl.load(plan + FIRST) + counted // size * tl.load(plan + STRIDE) + counted % size
    in_second = position >= tl.load(plan + BOUNDARY)
    record = plan + HEADER + in_second.to(tl.int64) * (TABLES + 3 * chunks)
    place = position - tl.load(record + GROUP_START)
    if SHUFFLE:
        place = _permute(place, record)
    chunk = _find(record + TABLES, place, chunks, CHUNK_DEPTH)
    tables = record + TABLES + chunk
    frame = (tl.load(tables + chunks) + place - tl.load(tables)) * subset
    utterance = _find(offsets + tl.zeros_like(frame), frame, utterances, UTTERANCE_DEPTH)
    row = frame + utterance * gap + tl.load(tables + 2 * chunks)
    tl.store(frames + window, frame, mask=there)
    tl.store(first_rows + window, row, mask=there)
    if LABELLED:
        tl.store(labels + window, tl.load(row_labels + row + left, mask=there, other=0).to(tl.int64), mask=there)
    if MASKED:
        counter = position
        epoch = tl.load(plan + EPOCH)
        if BY_STEP:
            counter = tl.load(plan + STEP) + counted // size
            epoch = tl.zeros_like(epoch)
        seed = tl.load(plan + SEED)
        low, high = counter.to(tl.uint32), (counter >> 32).to(tl.uint32)
        epochs = tl.zeros_like(low) + epoch.to(tl.uint32)
        in_frequency, in_time, _, _ = philox(seed, low, high, epochs, tl.zeros_like(low) + (scope + MASK_COUNTS))
        edges = bands + window * ((TIME_MOST + FREQUENCY_MOST) * 2)
        _draw_bands(
            edges,
            there,
            low,
            high,
            epochs,
            seed,
            in_time,
            scope + TIME,
            TIME_LEAST,
            TIME_MOST,
            TIME_NARROWEST,
            TIME_WIDEST,
            FRAMES,
        )
        _draw_bands(
            edges + 2 * TIME_MOST,
            there,
            low,
            high,
            epochs,
            seed,
            in_frequency,
            scope + FREQUENCY,
            FREQUENCY_LEAST,
            FREQUENCY_MOST,
            FREQUENCY_NARROWEST,
            FREQUENCY_WIDEST,
            FEATURES,
        )


@triton.jit
def cut_windows(
    plan,
    rows,
    first_rows,
    bands,
    windows,
    FRAMES: tl.constexpr,
    FEATURES: tl.constexpr,
    TIME_BANDS: tl.constexpr,
    FREQUENCY_BANDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Cut windows `[N, W, D]` from rows `[R, D]`, one a program; what is masked is +0.0.

    Args:
        plan: the description.
        rows: resident frames.
        first_rows: `[N]` int64.
        bands: `[N, M, 2]` int32.
        windows: written.
        FRAMES: W.
        FEATURES: D.
        TIME_BANDS: of each window.
        FREQUENCY_BANDS: of each window.
        BLOCK: values that are copied at once.
    """
    window = tl.program_id(0).to(tl.int64)
    if window < tl.load(plan + COUNT):
        source = rows + tl.load(first_rows + window) * FEATURES
        target = windows + window * (FRAMES * FEATURES)
        edges = bands + window * ((TIME_BANDS + FREQUENCY_BANDS) * 2)
        for start in tl.static_range(0, FRAMES * FEATURES, BLOCK):
            at = start + tl.arange(0, BLOCK)
            inside = at < FRAMES * FEATURES
            values = tl.load(source + at, mask=inside, other=0.0)
            frame, feature = at // FEATURES, at % FEATURES
            masked = frame < 0
            for band in tl.static_range(TIME_BANDS):
                masked |= _within(frame, edges + 2 * band)
            for band in tl.static_range(TIME_BANDS, TIME_BANDS + FREQUENCY_BANDS):
                masked |= _within(feature, edges + 2 * band)
            kept = tl.where(masked, 0.0, values)
            tl.store(target + at, kept.to(windows.dtype.element_ty), mask=inside)


@triton.jit
def _within(places, edges):
    """Say which places lie in a band."""
    return (places >= tl.load(edges)) & (places < tl.load(edges + 1))


@triton.jit
def _find(starts, value, count, DEPTH: tl.constexpr):
    """Return the last of `count` ascending starts that is not above `value`, by DEPTH halvings."""
    low = tl.zeros_like(value)
    high = low + count
    for _ in range(DEPTH):
        middle = (low + high) // 2
        above = tl.load(starts + middle) > value
        high = tl.where(above, middle, high)
        low = tl.where(above, low, middle)
    return low


@triton.jit
def _permute(place, record):
    """Return the bijection of each place, `order.permute`."""
    count = tl.load(record + GROUP_SIZE).to(tl.uint32)
    rows = tl.load(record + GRID_ROWS).to(tl.uint32)
    columns = tl.load(record + GRID_COLUMNS).to(tl.uint32)
    value = place.to(tl.uint32)
    outside = value >= 0
    while tl.max(outside.to(tl.int32), axis=0) > 0:
        value = tl.where(outside, _feistel(value, rows, columns, record), value)
        outside = value >= count
    return value.to(tl.int64)


@triton.jit
def _feistel(value, rows, columns, record):
    row, column = value // columns, value % columns
    for at in range(0, ROUNDS, 2):
        row += _hash(column, tl.load(record + KEYS + at).to(tl.uint32), rows)
        row = tl.where(row >= rows, row - rows, row)
        column += _hash(row, tl.load(record + KEYS + at + 1).to(tl.uint32), columns)
        column = tl.where(column >= columns, column - columns, column)
    return row * columns + column


@triton.jit
def _hash(value, key, size):
    mixed = value ^ key
    mixed ^= mixed >> 16
    mixed *= 0x7FEB352D
    mixed ^= mixed >> 15
    mixed *= 0x846CA68B
    mixed ^= mixed >> 16
    return _multiply_high(mixed, size)


@triton.jit
def _multiply_high(word, size):
    return (word.to(tl.uint64) * size.to(tl.uint64) >> 32).to(tl.uint32)


@triton.jit
def _draw_bands(
    edges,
    there,
    low,
    high,
    epochs,
    seed,
    word,
    stream,
    LEAST: tl.constexpr,
    MOST: tl.constexpr,
    NARROWEST: tl.constexpr,
    WIDEST: tl.constexpr,
    PLACES: tl.constexpr,
):
    """Draw and write the bands of one kind, `masking.draw_masks`."""
    count = LEAST + _multiply_high(word, tl.full((), MOST - LEAST + 1, tl.uint32))
    for band in tl.static_range(MOST):
        words = philox(seed, low, high, epochs, tl.zeros_like(low) + (stream + (band // 2) * 256))
        width = NARROWEST + _multiply_high(words[2 * (band % 2)], tl.full((), WIDEST - NARROWEST + 1, tl.uint32))
        first = _multiply_high(words[2 * (band % 2) + 1], PLACES - width + 1)
        drawn = band < count
        tl.store(edges + 2 * band, tl.where(drawn, first, 0).to(tl.int32), mask=there)
        tl.store(edges + 2 * band + 1, tl.where(drawn, first + width, 0).to(tl.int32), mask=there)
