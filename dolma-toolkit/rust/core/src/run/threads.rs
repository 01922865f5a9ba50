//! Threads of a run: as many as requested, but no more than there is work for.

/// Stored bytes of rows that are worth one more thread.
const BYTES_PER_THREAD: u64 = 16 << 10;

/// More threads per core only wait for each other.
const THREADS_PER_CORE: usize = 4;
const LEAST_LIMIT: usize = 16;

/// How many of the `wanted` threads (`processes`) to start for so many pieces of work.
pub fn useful(wanted: usize, pieces: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    wanted.min(pieces).min((cores * THREADS_PER_CORE).max(LEAST_LIMIT)).max(1)
}

/// Pieces of work in so many stored bytes of rows.
pub fn pieces(stored_bytes: u64) -> usize {
    usize::try_from(stored_bytes.div_ceil(BYTES_PER_THREAD)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_threads_than_work() {
        assert_eq!(useful(10_000, 1), 1);
        assert_eq!(useful(8, 3), 3);
        assert_eq!(useful(8, 100), 8);
        assert_eq!(useful(0, 0), 1);
        assert!(useful(1_000_000, 1_000_000) <= 4 * std::thread::available_parallelism().unwrap().get().max(4));
        assert_eq!((pieces(0), pieces(1), pieces(16 << 10), pieces((16 << 10) + 1)), (0, 1, 1, 2));
    }
}
