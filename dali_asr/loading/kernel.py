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


@triton.jit
def plan_windows(
    plan,
    offsets,
    row_labels,
    frames,
    labels,
    first_rows,
    bands,
    SHUFFLE: tl.constexpr,
    SUBSET: tl.constexpr,
    CHUNKS: tl.constexpr,
    CHUNK_DEPTH: tl.constexpr,
    UTTERANCES: tl.constexpr,
    UTTERANCE_DEPTH: tl.constexpr,
    GAP: tl.constexpr,
    LEFT: tl.constexpr,
    LABELLED: tl.constexpr,
    MASKS: tl.constexpr,
    SCOPE: tl.constexpr,
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
        SHUFFLE: whether the order of a group is a bijection.
        SUBSET: every such frame is read.
        CHUNKS: C, chunks of a group.
        CHUNK_DEPTH: halvings that find one of C.
        UTTERANCES: U.
        UTTERANCE_DEPTH: halvings that find one of U.
        GAP: rows of zeros after an utterance.
        LEFT: frames of a window before its own.
        LABELLED: whether there are labels.
        MASKS: None, or for time and frequency each: fewest and most bands, least and largest width, size.
        SCOPE: what is added to the streams of draws.
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
    record = plan + HEADER + in_second.to(tl.int64) * (TABLES + 3 * CHUNKS)
    place = position - tl.load(record + GROUP_START)
    if SHUFFLE:
        place = _permute(place, record)
    chunk = _find(record + TABLES, place, CHUNKS, CHUNK_DEPTH)
    tables = record + TABLES + chunk
    frame = (tl.load(tables + CHUNKS) + place - tl.load(tables)) * SUBSET
    utterance = _find(offsets + tl.zeros_like(frame), frame, UTTERANCES, UTTERANCE_DEPTH)
    row = frame + utterance * GAP + tl.load(tables + 2 * CHUNKS)
    tl.store(frames + window, frame, mask=there)
    tl.store(first_rows + window, row, mask=there)
    if LABELLED:
        tl.store(labels + window, tl.load(row_labels + row + LEFT, mask=there, other=0).to(tl.int64), mask=there)
    if MASKS is not None:
        counter = position
        epoch = tl.load(plan + EPOCH)
        if BY_STEP:
            counter = tl.load(plan + STEP) + counted // size
            epoch = tl.zeros_like(epoch)
        _draw_masks(bands, window, there, counter, epoch, tl.load(plan + SEED), MASKS, SCOPE)


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
def _find(starts, value, COUNT: tl.constexpr, DEPTH: tl.constexpr):
    """Return the last of COUNT ascending `starts` that is not above `value`, by DEPTH halvings."""
    low = tl.zeros_like(value)
    high = low + COUNT
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
def _draw_masks(bands, window, there, counter, epoch, seed, MASKS: tl.constexpr, SCOPE: tl.constexpr):
    """Draw and write bands, `masking.draw_masks`."""
    low, high = counter.to(tl.uint32), (counter >> 32).to(tl.uint32)
    epochs = tl.zeros_like(low) + epoch.to(tl.uint32)
    in_frequency, in_time, _, _ = philox(seed, low, high, epochs, tl.zeros_like(low) + (SCOPE + MASK_COUNTS))
    edges = bands + window * ((MASKS[1] + MASKS[6]) * 2)
    _draw_bands(edges, there, low, high, epochs, seed, in_time, SCOPE + TIME, *MASKS[:5])
    _draw_bands(edges + 2 * MASKS[1], there, low, high, epochs, seed, in_frequency, SCOPE + FREQUENCY, *MASKS[5:])


@triton.jit
def _draw_bands(
    edges,
    there,
    low,
    high,
    epochs,
    seed,
    word,
    STREAM: tl.constexpr,
    LEAST: tl.constexpr,
    MOST: tl.constexpr,
    NARROWEST: tl.constexpr,
    WIDEST: tl.constexpr,
    PLACES: tl.constexpr,
):
    count = LEAST + _multiply_high(word, tl.full((), MOST - LEAST + 1, tl.uint32))
    for band in tl.static_range(MOST):
        stream = tl.zeros_like(low) + (STREAM + (band // 2) * 256)
        words = philox(seed, low, high, epochs, stream)
        width = NARROWEST + _multiply_high(words[2 * (band % 2)], tl.full((), WIDEST - NARROWEST + 1, tl.uint32))
        first = _multiply_high(words[2 * (band % 2) + 1], PLACES - width + 1)
        drawn = band < count
        tl.store(edges + 2 * band, tl.where(drawn, first, 0).to(tl.int32), mask=there)
        tl.store(edges + 2 * band + 1, tl.where(drawn, first + width, 0).to(tl.int32), mask=there)
