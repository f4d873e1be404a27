"""Which positions of an epoch make up a batch, and which of them are whose."""

from collections.abc import Iterator

from utils.errors import UserError


class EpochSampler:
    """Keys (epoch, position) of this rank's share of every batch."""

    def __init__(self, n: int, batch: int, rank: int = 0, world_size: int = 1):
        if batch < world_size:
            raise UserError(
                f"batch {batch} leaves some of {world_size} processes without a picture. Use --batch {world_size} or "
                "more, or fewer processes."
            )
        self.n, self.batch, self.rank, self.world_size = n, batch, rank, world_size
        self.epoch, self.start_batch = 0, 0

    def __len__(self) -> int:
        return -(-self.n // self.batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch  # as it is now: batches are asked for ahead of time
        for b in range(self.start_batch, len(self)):
            yield [(epoch, position) for position in self.share(b)]

    @property
    def fewest(self) -> int:
        """Pictures in the smallest share of the smallest batch, which is the last one; the same for all ranks."""
        return max((self.n - (len(self) - 1) * self.batch) // self.world_size, 1)

    @property
    def most(self) -> int:
        """Pictures in the largest share of a whole batch."""
        return -(-self.batch // self.world_size)

    def share(self, b: int) -> list[int]:
        """Positions of this rank in batch b of any epoch; shares differ by one picture at most, the first are larger.

        A rank for which none is left gets the batch's first one, which does not count: see `pictures`.
        """
        first, (mine, of_all) = b * self.batch, self.pictures(b)
        before = self.rank * (of_all // self.world_size) + min(self.rank, of_all % self.world_size)
        return list(range(first + before, first + before + mine)) or [first]

    def pictures(self, b: int) -> tuple[int, int]:
        """How many pictures of batch b count: of this rank, and of all."""
        of_all = min(self.batch, self.n - b * self.batch)
        return of_all // self.world_size + (self.rank < of_all % self.world_size), of_all
