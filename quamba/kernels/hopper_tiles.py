"""How the kernels in Gluon divide a product on Hopper; chosen by measurements on an H100."""

from dataclasses import dataclass

# Programs that run at once, two a multiprocessor, and so few that others are faster.
_TOGETHER = 264
_LEAST_PROGRAMS = 100
# Of a workspace what counts the parts that are there, one for each tile.
COUNTERS = 1024


@dataclass(frozen=True, slots=True)
class HopperTile:
    """How the work is divided where rows are many.

    Attributes:
        consumers: 2 or 3 groups of warps, of 64 rows each.
        columns: of a tile, a power of two up to 256.
        inner: columns of x and w that a tile has.
        stages: tiles on their way at once.
        group: tiles of rows before the next columns.
        width: columns that are scaled and written at once.
        staged: results are written, or added, by the tensor memory accelerator where their rows are whole 16 bytes.
    """

    consumers: int = 2
    columns: int = 256
    inner: int = 128
    stages: int = 4
    group: int = 8
    width: int = 64
    staged: bool = True


@dataclass(frozen=True, slots=True)
class FewTile:
    """How the work is divided where rows are few.

    Attributes:
        rows: of the weight that a program takes, 64 or 128.
        inner: columns of x and w that a tile has.
        stages: tiles on their way at once.
        parts: programs that share rows.
    """

    rows: int = 64
    inner: int = 128
    stages: int = 4
    parts: int = 1

    def registers(self, block_m: int) -> int:
        """Of a thread, so that two programs fit a multiprocessor; more where sums do not fit otherwise."""
        if block_m == 128:
            return 128 if self.rows == 64 else 168
        return 96 if self.rows == 64 else 80


def few_tile(rows: int, columns: int, inner: int, *, shared: bool) -> FewTile | None:
    """For a product of few rows; None: `triton_gemm` is faster.

    Args:
        rows: up to 128.
        columns: N.
        inner: K.
        shared: programs can share rows.
    """
    tiles, blocks = -(-columns // 64), -(-inner // 128)
    most = 6 if rows <= 16 else 3 if rows <= 32 else 1
    parts = max(1, min(_TOGETHER // tiles, most, blocks)) if shared else 1
    if tiles * parts < _LEAST_PROGRAMS:
        return None
    return FewTile(64, 128, 6 if rows <= 64 else 4, parts)


# Consumers, columns and stages of a tile, with the time that a multiprocessor takes for it, next to the first.
_TILES = ((2, 256, 4, 1.0), (3, 256, 3, 1.5), (3, 128, 4, 0.79), (2, 128, 5, 0.57), (2, 64, 6, 0.42))


def many_tile(rows: int, columns: int, processors: int, *, codes: bool) -> HopperTile:
    """For a product of more rows: the tile with the least time for the multiprocessor that has most."""

    def time(tile: tuple[int, int, int, float]) -> float:
        consumers, width, _, each = tile
        return -(-(-(-rows // (64 * consumers)) * -(-columns // width)) // processors) * each

    consumers, width, stages, _ = min(_TILES, key=time)
    return HopperTile(
        consumers,
        width,
        128,
        stages,
        16 if codes else 8,
        (min(width, 128) if consumers == 2 else 64) if codes else 32,
    )


__all__ = ["COUNTERS", "FewTile", "HopperTile", "few_tile", "many_tile"]
