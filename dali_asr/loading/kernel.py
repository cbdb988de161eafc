"""The fused kernels: a plan computed and carried out on the GPU, by Triton.

`plan_windows` computes what `plan.planner` and the row layout compute, equal to the bit: one thread per window finds
its frame, row and label and draws its masks. `cut_windows` then cuts, pads, masks and converts each window in one pass.

What changes from step to step comes in one small array, the description, whose layout is that of `description.py`.

Shape letters: `R` rows, `N` windows, `W` frames of a window, `D` features, `M` bands per window, `U` utterances,
`C` chunks of a group.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.random import philox

from dali_asr.loading import description
from dali_asr.plan import masking, order

# Triton reads globals only if they are declared constants.
EPOCH: tl.constexpr = tl.constexpr(description.EPOCH)
FIRST: tl.constexpr = tl.constexpr(description.FIRST)
SIZE: tl.constexpr = tl.constexpr(description.SIZE)
STRIDE: tl.constexpr = tl.constexpr(description.STRIDE)
COUNT: tl.constexpr = tl.constexpr(description.COUNT)
STEP: tl.constexpr = tl.constexpr(description.STEP)
BOUNDARY: tl.constexpr = tl.constexpr(description.BOUNDARY)
SEED: tl.constexpr = tl.constexpr(description.SEED)
HEADER: tl.constexpr = tl.constexpr(description.HEADER)
GROUP_START: tl.constexpr = tl.constexpr(description.GROUP_START)
GROUP_SIZE: tl.constexpr = tl.constexpr(description.GROUP_SIZE)
GRID_ROWS: tl.constexpr = tl.constexpr(description.GRID_ROWS)
GRID_COLUMNS: tl.constexpr = tl.constexpr(description.GRID_COLUMNS)
KEYS: tl.constexpr = tl.constexpr(description.KEYS)
TABLES: tl.constexpr = tl.constexpr(description.TABLES)
ROUNDS: tl.constexpr = tl.constexpr(order.ROUNDS)
HASH_1: tl.constexpr = tl.constexpr(order.HASH_MULTIPLIERS[0])
HASH_2: tl.constexpr = tl.constexpr(order.HASH_MULTIPLIERS[1])
MASK_COUNTS: tl.constexpr = tl.constexpr(order.Stream.MASK_COUNTS)
FREQUENCY: tl.constexpr = tl.constexpr(order.Stream.FREQUENCY)
TIME: tl.constexpr = tl.constexpr(order.Stream.TIME)
PAIR: tl.constexpr = tl.constexpr(1 << masking.PAIR_SHIFT)


@triton.jit
def probe(found):
    """Write 1: shows that Triton can compile and launch a kernel."""
    tl.store(found, 1)


# Numbers that depend on the corpus are not constants, so that the kernel is compiled once for all corpora.
@triton.jit(do_not_specialize=["subset", "chunks", "utterances", "gap", "left", "scope"])
def plan_windows(
    plan,
    offsets,
    row_labels,
    frame_ids,
    labels,
    first_rows,
    edges,
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
    TIME_MIN_COUNT: tl.constexpr,
    TIME_MAX_COUNT: tl.constexpr,
    TIME_MIN_WIDTH: tl.constexpr,
    TIME_MAX_WIDTH: tl.constexpr,
    FRAMES: tl.constexpr,
    FREQUENCY_MIN_COUNT: tl.constexpr,
    FREQUENCY_MAX_COUNT: tl.constexpr,
    FREQUENCY_MIN_WIDTH: tl.constexpr,
    FREQUENCY_MAX_WIDTH: tl.constexpr,
    FEATURES: tl.constexpr,
    BY_STEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Plan windows: their frame numbers, labels, first rows `[N]` and masked bands `[N, M, 2]`, time before frequency.

    Args:
        plan: description.
        offsets: first frame of each utterance, and the number of frames; int64 `[U + 1]`.
        row_labels: label of each row, `[R]`.
        frame_ids: int64 `[N]`, written.
        labels: int64 `[N]`, written.
        first_rows: int64 `[N]`, written.
        edges: first and end of each band, int32 `[N, M, 2]`, written.
        subset: every `subset`-th frame is read.
        chunks: maximum number of chunks per group, C.
        utterances: number of utterances, U.
        gap: zero rows after an utterance.
        left: frames before the window's own.
        scope: added to the streams of mask draws.
        CHUNK_DEPTH: number of bisections that find one of C chunks.
        UTTERANCE_DEPTH: number of bisections that find one of U utterances.
        SHUFFLE: whether a bijection orders each group.
        LABELLED: whether rows have labels.
        MASKED: whether masks are drawn.
        TIME_MIN_COUNT: minimum number of spans.
        TIME_MAX_COUNT: maximum number of spans.
        TIME_MIN_WIDTH: minimum width of a span.
        TIME_MAX_WIDTH: maximum width of a span.
        FRAMES: number of frames per window, W.
        FREQUENCY_MIN_COUNT: minimum number of bands.
        FREQUENCY_MAX_COUNT: maximum number of bands.
        FREQUENCY_MIN_WIDTH: minimum width of a band.
        FREQUENCY_MAX_WIDTH: maximum width of a band.
        FEATURES: number of features per frame, D.
        BY_STEP: whether masks are drawn per step instead of per position.
        BLOCK: windows per program.
    """
    window = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    count = tl.load(plan + COUNT)
    there = window < count
    counted = tl.where(there, window, tl.maximum(count - 1, 0))  # beyond the end, repeat the last window
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
    tl.store(frame_ids + window, frame, mask=there)
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
        own_edges = edges + window * ((TIME_MAX_COUNT + FREQUENCY_MAX_COUNT) * 2)
        _draw_bands(
            own_edges,
            there,
            low,
            high,
            epochs,
            seed,
            in_time,
            scope + TIME,
            TIME_MIN_COUNT,
            TIME_MAX_COUNT,
            TIME_MIN_WIDTH,
            TIME_MAX_WIDTH,
            FRAMES,
        )
        _draw_bands(
            own_edges + 2 * TIME_MAX_COUNT,
            there,
            low,
            high,
            epochs,
            seed,
            in_frequency,
            scope + FREQUENCY,
            FREQUENCY_MIN_COUNT,
            FREQUENCY_MAX_COUNT,
            FREQUENCY_MIN_WIDTH,
            FREQUENCY_MAX_WIDTH,
            FEATURES,
        )


@triton.jit
def cut_windows(
    plan,
    rows,
    first_rows,
    edges,
    windows,
    FRAMES: tl.constexpr,
    FEATURES: tl.constexpr,
    TIME_BANDS: tl.constexpr,
    FREQUENCY_BANDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Cut windows `[N, W, D]` from rows `[R, D]`, one per program; masked values are +0.0.

    Args:
        plan: description.
        rows: frames on the device.
        first_rows: first row of each window, int64 `[N]`.
        edges: first and end of each band, int32 `[N, M, 2]`.
        windows: written.
        FRAMES: number of frames per window, W.
        FEATURES: number of features per frame, D.
        TIME_BANDS: maximum number of masked spans per window.
        FREQUENCY_BANDS: maximum number of masked bands per window.
        BLOCK: values copied at once.
    """
    window = tl.program_id(0).to(tl.int64)
    if window < tl.load(plan + COUNT):
        source = rows + tl.load(first_rows + window) * FEATURES
        target = windows + window * (FRAMES * FEATURES)
        own_edges = edges + window * ((TIME_BANDS + FREQUENCY_BANDS) * 2)
        for start in tl.static_range(0, FRAMES * FEATURES, BLOCK):
            at = start + tl.arange(0, BLOCK)
            inside = at < FRAMES * FEATURES
            values = tl.load(source + at, mask=inside, other=0.0)
            frame, feature = at // FEATURES, at % FEATURES
            masked = frame < 0
            for band in tl.static_range(TIME_BANDS):
                masked |= _within(frame, own_edges + 2 * band)
            for band in tl.static_range(TIME_BANDS, TIME_BANDS + FREQUENCY_BANDS):
                masked |= _within(feature, own_edges + 2 * band)
            kept = tl.where(masked, 0.0, values)
            tl.store(target + at, kept.to(windows.dtype.element_ty), mask=inside)


@triton.jit
def _within(places, edges):
    """Return which places are inside a band."""
    return (places >= tl.load(edges)) & (places < tl.load(edges + 1))


@triton.jit
def _find(starts, value, count, DEPTH: tl.constexpr):
    """Return the index of the last of `count` ascending starts that is not above `value`, by DEPTH bisections."""
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
    """Return each place's image under the bijection, as `order.permute`."""
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
    mixed *= HASH_1
    mixed ^= mixed >> 15
    mixed *= HASH_2
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
    MIN_COUNT: tl.constexpr,
    MAX_COUNT: tl.constexpr,
    MIN_WIDTH: tl.constexpr,
    MAX_WIDTH: tl.constexpr,
    PLACES: tl.constexpr,
):
    """Draw and write the bands of one kind, as `masking.draw_masks`."""
    count = MIN_COUNT + _multiply_high(word, tl.full((), MAX_COUNT - MIN_COUNT + 1, tl.uint32))
    for band in tl.static_range(MAX_COUNT):
        words = philox(seed, low, high, epochs, tl.zeros_like(low) + (stream + (band // 2) * PAIR))
        width = MIN_WIDTH + _multiply_high(words[2 * (band % 2)], tl.full((), MAX_WIDTH - MIN_WIDTH + 1, tl.uint32))
        first = _multiply_high(words[2 * (band % 2) + 1], PLACES - width + 1)
        drawn = band < count
        tl.store(edges + 2 * band, tl.where(drawn, first, 0).to(tl.int32), mask=there)
        tl.store(edges + 2 * band + 1, tl.where(drawn, first + width, 0).to(tl.int32), mask=there)
