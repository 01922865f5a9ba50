"""Several conversations in one sequence: best-fit decreasing over the whole data set.

Each item goes into the fullest sequence that still has room for it (Ding et al. 2024, arXiv:2404.10830,
section 3); nothing is cut.
"""

from bisect import bisect_left, insort

__all__ = ["pack_lengths"]


def pack_lengths(lengths: list[int], capacity: int) -> list[list[int]]:
    """Assign items of given `lengths` (each 1 up to `capacity`) to bins; return the items' positions, bin by bin.

    Deterministic: equal lengths keep their order, and of equally full bins the older one is taken.
    """
    order = sorted(range(len(lengths)), key=lambda item: (-lengths[item], item))
    bins: list[list[int]] = []
    open_bins: list[tuple[int, int]] = []  # (room, bin), sorted; only bins with room
    for item in order:
        position = bisect_left(open_bins, (lengths[item], 0))
        if position == len(open_bins):
            bins.append([])
            room, chosen = capacity, len(bins) - 1
        else:
            room, chosen = open_bins.pop(position)
        bins[chosen].append(item)
        if room > lengths[item]:
            insort(open_bins, (room - lengths[item], chosen))
    return bins
