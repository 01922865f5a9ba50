//! The work on rows: batches of one or many series, made by any thread, kept in the order of their series.
//!
//! A worker reads a batch, makes it, waits until those before it are kept, and keeps it. So no thread only reads or only
//! writes, and there are no more batches in memory than workers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::progress::Progress;

/// Errors of a series that are reported at most.
const REPORTED_ERRORS: usize = 100;

/// Gives the batches of a series, in order.
pub trait Source: Send {
    /// What is read at once.
    type Batch: Send;
    /// The next one; `None` at the end.
    fn read(&mut self, progress: &Progress) -> Result<Option<Self::Batch>>;
}

/// What a command does with its series. A series is what goes to one ordered output.
pub trait Stage: Sync {
    /// Where a series is read from.
    type Source: Source;
    /// What a thread makes of a batch.
    type Made: Send;
    /// Where a series goes.
    type Output: Send;
    /// What is known of a finished series.
    type Done: Send;

    /// Whether a series goes on after a batch with errors, to report more of them; nothing more is kept.
    fn lists_errors(&self) -> bool {
        false
    }
    /// Whether rows are decided in the order of all series: every `make` that succeeds calls [`Turn::take`] once.
    fn takes_turns(&self) -> bool {
        false
    }
    /// Begins a series.
    fn open(&self, series: usize) -> Result<(Self::Source, Self::Output)>;
    /// Works on a batch, on any thread.
    fn make(&self, series: usize, batch: <Self::Source as Source>::Batch, turn: &Turn<'_, Self>) -> Result<Self::Made>
    where
        Self: Sized;
    /// Takes what was made, in order.
    fn keep(&self, series: usize, output: &mut Self::Output, made: Self::Made) -> Result<()>;
    /// Ends a series.
    fn finish(&self, series: usize, source: Self::Source, output: Self::Output) -> Result<Self::Done>;
}

/// Does all `series` of a stage. A series that fails ends; the others go on, unless the stage takes turns.
pub fn pass<S: Stage>(stage: &S, series: usize, threads: usize, progress: &Progress) -> Result<Vec<S::Done>> {
    let pass = Pass {
        stage,
        progress,
        series,
        threads: threads as u64,
        lanes: Mutex::new(Lanes { next: 0, open: Vec::new() }),
        order: Mutex::new(Order { read: 0, turn: 0, stopped_at: u64::MAX }),
        turned: Condvar::new(),
        panicked: AtomicBool::new(false),
        done: Mutex::new(BTreeMap::new()),
    };
    thread::scope(|scope| {
        (0..threads).try_for_each(|_| {
            // rules nest deep, whatever stack the caller has
            let worker = thread::Builder::new().stack_size(crate::jq::STACK_BYTES);
            worker.spawn_scoped(scope, || pass.work()).map(drop).inspect_err(|_| progress.cancel())
        })
    })
    .map_err(|error| super::no_threads(threads, &error))?;
    progress.check()?;
    let done = pass.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    // what fails behind the first failure of a stage that takes turns depends on the threads
    let first = done.values().take_while(|done| !stage.takes_turns() || done.is_ok()).count();
    super::all(done.into_values().take(first + 1).collect())
}

/// The place of a batch among all batches.
pub struct Turn<'p, S: Stage> {
    pass: &'p Pass<'p, S>,
    at: u64,
}

impl<S: Stage> Turn<'_, S> {
    /// Calls `decide` when every batch before has had its turn.
    pub fn take<T>(&self, decide: impl FnOnce() -> T) -> Result<T> {
        let mut order = locked(&self.pass.order);
        while order.turn != self.at {
            if order.stopped_at < self.at || self.pass.panicked.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            order = wait(&self.pass.turned, order);
        }
        drop(order);
        let decided = decide();
        locked(&self.pass.order).turn += 1;
        self.pass.turned.notify_all();
        Ok(decided)
    }
}

struct Pass<'s, S: Stage> {
    stage: &'s S,
    progress: &'s Progress,
    series: usize,
    threads: u64,
    lanes: Mutex<Lanes<S>>,
    order: Mutex<Order>,
    turned: Condvar,
    panicked: AtomicBool,
    done: Mutex<BTreeMap<usize, Result<S::Done>>>,
}

struct Lanes<S: Stage> {
    /// the first series that is not open yet
    next: usize,
    /// those with something left to read, and how many workers they have had
    open: Vec<(Arc<Lane<S>>, usize)>,
}

/// The batches of all series, where they take turns.
struct Order {
    read: u64,
    turn: u64,
    /// the first that failed
    stopped_at: u64,
}

/// A series in work.
struct Lane<S: Stage> {
    series: usize,
    reading: Mutex<Reading<S>>,
    keeping: Mutex<Keeping<S>>,
    kept: Condvar,
    /// how many batches there are, once it is known
    batches: AtomicU64,
    failed: AtomicBool,
}

struct Reading<S: Stage> {
    source: Option<S::Source>,
    batches: u64,
    ended: bool,
}

struct Keeping<S: Stage> {
    output: Option<S::Output>,
    batches: u64,
    errors: Vec<Error>,
    /// Batches that were made before their turn, and their places among all.
    made: BTreeMap<u64, (u64, Result<S::Made>)>,
    /// A worker has taken the output to keep a batch.
    is_busy: bool,
}

impl<S: Stage> Lane<S> {
    fn new(series: usize) -> Arc<Lane<S>> {
        Arc::new(Lane {
            series,
            reading: Mutex::new(Reading { source: None, batches: 0, ended: false }),
            keeping: Mutex::new(Keeping {
                output: None,
                batches: 0,
                errors: Vec::new(),
                made: BTreeMap::new(),
                is_busy: false,
            }),
            kept: Condvar::new(),
            batches: AtomicU64::new(u64::MAX),
            failed: AtomicBool::new(false),
        })
    }
}

impl<S: Stage> Pass<'_, S> {
    fn work(&self) {
        // a worker that panics must not leave the others waiting
        struct Guard<'p>(&'p AtomicBool);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.fetch_or(thread::panicking(), Ordering::Relaxed);
            }
        }
        let _guard = Guard(&self.panicked);
        while let Some(lane) = self.join() {
            while self.do_batch(&lane) {}
            locked(&self.lanes).open.retain(|(open, _)| !Arc::ptr_eq(open, &lane));
        }
    }

    /// A series that nobody works on, or else the one with the fewest workers.
    fn join(&self) -> Option<Arc<Lane<S>>> {
        let mut lanes = locked(&self.lanes);
        let goes_on = self.progress.check().is_ok() && locked(&self.order).stopped_at == u64::MAX;
        // a batch whose turn is far away would keep its worker waiting
        let may_open = !self.stage.takes_turns() || lanes.open.is_empty();
        if lanes.next < self.series && goes_on && may_open {
            let lane = Lane::new(lanes.next);
            lanes.open.push((lane, 0));
            lanes.next += 1;
        }
        let (lane, workers) = lanes.open.iter_mut().min_by_key(|(_, workers)| *workers)?;
        *workers += 1;
        Some(lane.clone())
    }

    /// Reads, makes and keeps a batch. Says whether there may be more.
    fn do_batch(&self, lane: &Lane<S>) -> bool {
        let mut reading = locked(&lane.reading);
        if reading.ended || lane.failed.load(Ordering::Relaxed) || self.progress.check().is_err() {
            reading.ended = true;
            return false;
        }
        let source = match &mut reading.source {
            Some(source) => source,
            none => match self.stage.open(lane.series) {
                Ok((source, output)) => {
                    locked(&lane.keeping).output = Some(output);
                    none.insert(source)
                }
                Err(error) => {
                    reading.ended = true;
                    self.fail(lane, 0, error);
                    return false;
                }
            },
        };
        let read = source.read(self.progress).transpose();
        let number = reading.batches;
        reading.batches += u64::from(read.is_some());
        if !matches!(read, Some(Ok(_))) {
            reading.ended = true;
            lane.batches.store(reading.batches, Ordering::Relaxed);
        }
        let Some(batch) = read else {
            drop(reading);
            self.finish(lane);
            return false;
        };
        let mut order = locked(&self.order);
        let turn = Turn { pass: self, at: order.read };
        order.read += 1;
        drop((reading, order));
        let made = batch.and_then(|batch| self.stage.make(lane.series, batch, &turn));
        if made.is_err() {
            self.stop(turn.at);
        }
        self.keep(lane, number, turn.at, made);
        self.finish(lane);
        true
    }

    /// Keeps a batch, or leaves it to the worker that keeps those before it; and keeps what was left to this one.
    fn keep(&self, lane: &Lane<S>, number: u64, at: u64, made: Result<S::Made>) {
        let mut keeping = locked(&lane.keeping);
        while number > keeping.batches + self.threads && !self.panicked.load(Ordering::Relaxed) {
            keeping = wait(&lane.kept, keeping);
        }
        keeping.made.insert(number, (at, made));
        while !keeping.is_busy {
            let next = keeping.batches;
            let Some((at, made)) = keeping.made.remove(&next) else { break };
            let (mut output, mut errors) = (keeping.output.take(), std::mem::take(&mut keeping.errors));
            keeping.is_busy = true;
            drop(keeping);
            if let Err(error) = self.keep_next(lane, made, output.as_mut(), &mut errors) {
                output = None;
                self.fail(lane, at, error);
            }
            keeping = locked(&lane.keeping);
            (keeping.output, keeping.errors) = (output, errors);
            keeping.batches += 1;
            keeping.is_busy = false;
            lane.kept.notify_all();
        }
    }

    fn keep_next(
        &self,
        lane: &Lane<S>,
        made: Result<S::Made>,
        output: Option<&mut S::Output>,
        errors: &mut Vec<Error>,
    ) -> Result<()> {
        match (made, output) {
            (Ok(made), Some(output)) if errors.is_empty() => self.stage.keep(lane.series, output, made),
            (Ok(_), _) => Ok(()),
            (Err(error), _) => {
                match error {
                    Error::Many(more) => errors.extend(more),
                    error => errors.push(error),
                }
                errors.truncate(REPORTED_ERRORS);
                match self.stage.lists_errors() && errors.len() < REPORTED_ERRORS {
                    true => Ok(()),
                    false => Error::many(std::mem::take(errors)).map_or(Ok(()), Err),
                }
            }
        }
    }

    /// Ends a series whose batches are all kept.
    fn finish(&self, lane: &Lane<S>) {
        let mut keeping = locked(&lane.keeping);
        if keeping.batches != lane.batches.load(Ordering::Relaxed) {
            return;
        }
        let (Some(output), errors) = (keeping.output.take(), std::mem::take(&mut keeping.errors)) else { return };
        drop(keeping);
        let Some(source) = locked(&lane.reading).source.take() else { return };
        let done = match Error::many(errors) {
            Some(error) => Err(error),
            None => self.stage.finish(lane.series, source, output),
        };
        match done {
            Ok(done) => drop(locked(&self.done).insert(lane.series, Ok(done))),
            Err(error) => self.fail(lane, 0, error),
        }
    }

    fn fail(&self, lane: &Lane<S>, at: u64, error: Error) {
        self.stop(at);
        // a series that failed before keeps its error; what is refused its turn has none of its own
        let is_refused = self.stage.takes_turns() && locked(&self.order).stopped_at < at;
        if !lane.failed.swap(true, Ordering::Relaxed) && !is_refused {
            locked(&self.done).insert(lane.series, Err(error));
        }
    }

    /// Refuses their turns to all batches behind the one at `at`, which failed.
    fn stop(&self, at: u64) {
        if self.stage.takes_turns() {
            let mut order = locked(&self.order);
            order.stopped_at = order.stopped_at.min(at);
            self.turned.notify_all();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For a change, or long enough to see that another worker has panicked.
fn wait<'g, T>(changed: &Condvar, guard: MutexGuard<'g, T>) -> MutexGuard<'g, T> {
    changed.wait_timeout(guard, Duration::from_secs(1)).unwrap_or_else(PoisonError::into_inner).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    /// Series of numbers, squared by any thread; some numbers fail.
    struct Squares {
        series: Vec<Vec<u64>>,
        bad: Vec<u64>,
        delays: bool,
    }

    impl Squares {
        fn square(&self, number: u64) -> Result<u64> {
            if self.delays {
                thread::sleep(Duration::from_micros(number * 7919 % 700));
            }
            match self.bad.contains(&number) {
                true => Err(Error::config(number.to_string(), "is bad")),
                false => Ok(number * number),
            }
        }
    }

    impl Source for std::vec::IntoIter<u64> {
        type Batch = u64;

        fn read(&mut self, _progress: &Progress) -> Result<Option<u64>> {
            Ok(self.next())
        }
    }

    impl Stage for Squares {
        type Source = std::vec::IntoIter<u64>;
        type Made = u64;
        type Output = Vec<u64>;
        type Done = Vec<u64>;

        fn open(&self, series: usize) -> Result<(Self::Source, Vec<u64>)> {
            Ok((self.series[series].clone().into_iter(), Vec::new()))
        }

        fn make(&self, _series: usize, batch: u64, _turn: &Turn<'_, Self>) -> Result<u64> {
            self.square(batch)
        }

        fn keep(&self, _series: usize, output: &mut Vec<u64>, made: u64) -> Result<()> {
            output.push(made);
            Ok(())
        }

        fn finish(&self, _series: usize, _source: Self::Source, output: Vec<u64>) -> Result<Vec<u64>> {
            Ok(output)
        }
    }

    /// Numbers each square in the order of all.
    struct Numbered(Squares, Mutex<u64>, Mutex<Vec<usize>>);

    impl Stage for Numbered {
        type Source = std::vec::IntoIter<u64>;
        type Made = (u64, u64);
        type Output = Vec<(u64, u64)>;
        type Done = Vec<(u64, u64)>;

        fn takes_turns(&self) -> bool {
            true
        }

        fn open(&self, series: usize) -> Result<(Self::Source, Self::Output)> {
            Ok((self.0.open(series)?.0, Vec::new()))
        }

        fn make(&self, _series: usize, batch: u64, turn: &Turn<'_, Self>) -> Result<(u64, u64)> {
            let square = self.0.square(batch)?;
            turn.take(|| {
                let mut count = self.1.lock().unwrap();
                *count += 1;
                (*count, square)
            })
        }

        fn keep(&self, _series: usize, output: &mut Self::Output, made: (u64, u64)) -> Result<()> {
            output.push(made);
            Ok(())
        }

        fn finish(&self, series: usize, _source: Self::Source, output: Self::Output) -> Result<Self::Done> {
            self.2.lock().unwrap().push(series);
            Ok(output)
        }
    }

    fn series() -> Vec<Vec<u64>> {
        let mut next = 0..;
        [40, 0, 1, 25, 3, 60].map(|length| next.by_ref().take(length).collect()).to_vec()
    }

    #[test]
    fn results_are_in_order_with_any_number_of_threads() {
        let expected: Vec<Vec<u64>> =
            series().iter().map(|numbers| numbers.iter().map(|number| number * number).collect()).collect();
        let mut count = 0;
        let mut numbered = |square: &u64| {
            count += 1;
            (count, *square)
        };
        let in_order: Vec<Vec<_>> =
            expected.iter().map(|squares| squares.iter().map(&mut numbered).collect()).collect();
        for threads in [1, 2, 3, 16] {
            let squares = || Squares { series: series(), bad: vec![], delays: threads > 1 };
            assert_eq!(pass(&squares(), 6, threads, &Progress::default()).unwrap(), expected);
            let stage = Numbered(squares(), Mutex::default(), Mutex::default());
            assert_eq!(pass(&stage, 6, threads, &Progress::default()).unwrap(), in_order);
        }
    }

    /// The first batch is made after the third.
    struct SlowStart(Squares, Mutex<mpsc::Receiver<()>>, mpsc::Sender<()>);

    impl Stage for SlowStart {
        type Source = std::vec::IntoIter<u64>;
        type Made = u64;
        type Output = Vec<u64>;
        type Done = Vec<u64>;

        fn open(&self, series: usize) -> Result<(Self::Source, Vec<u64>)> {
            self.0.open(series)
        }

        fn make(&self, _series: usize, batch: u64, _turn: &Turn<'_, Self>) -> Result<u64> {
            match batch {
                0 => self.1.lock().unwrap().recv_timeout(Duration::from_secs(30)).unwrap(),
                2 => self.2.send(()).unwrap(),
                _ => {}
            }
            Ok(batch)
        }

        fn keep(&self, _series: usize, output: &mut Vec<u64>, made: u64) -> Result<()> {
            output.push(made);
            Ok(())
        }

        fn finish(&self, _series: usize, _source: Self::Source, output: Vec<u64>) -> Result<Vec<u64>> {
            Ok(output)
        }
    }

    #[test]
    fn a_slow_batch_does_not_keep_others_waiting() {
        let (sender, receiver) = mpsc::channel();
        let squares = Squares { series: vec![(0..5).collect()], bad: vec![], delays: false };
        let stage = SlowStart(squares, Mutex::new(receiver), sender);
        assert_eq!(pass(&stage, 1, 2, &Progress::default()).unwrap(), [[0, 1, 2, 3, 4]]);
    }

    #[test]
    fn the_first_error_of_each_series_is_reported() {
        for threads in [1, 2, 16] {
            let squares = Squares { series: series(), bad: vec![5, 6, 30, 50, 70, 71], delays: threads > 1 };
            let Err(Error::Many(errors)) = pass(&squares, 6, threads, &Progress::default()) else { panic!() };
            let keys: Vec<String> = errors.iter().map(|error| error.to_string()).collect();
            assert_eq!(keys, ["5: is bad", "50: is bad", "70: is bad"]);
        }
    }

    #[test]
    fn nothing_after_a_failed_turn_is_decided_or_finished() {
        for (threads, bad) in [(1, vec![50]), (2, vec![50, 51]), (16, vec![66, 50, 51, 52]), (16, vec![66, 67, 50])] {
            let squares = Squares { series: series(), bad, delays: threads > 1 };
            let stage = Numbered(squares, Mutex::default(), Mutex::default());
            let error = pass(&stage, 6, threads, &Progress::default()).unwrap_err();
            assert_eq!(error.to_string(), "50: is bad");
            assert_eq!(*stage.1.lock().unwrap(), 50);
            let mut finished = stage.2.lock().unwrap().clone();
            finished.sort_unstable();
            assert!([0, 1, 2].starts_with(&finished), "{finished:?}");
        }
    }

    #[test]
    fn a_cancelled_pass_finishes_nothing() {
        let squares = Squares { series: series(), bad: vec![], delays: true };
        let stage = Numbered(squares, Mutex::default(), Mutex::default());
        let progress = Progress::default();
        progress.cancel();
        assert!(matches!(pass(&stage, 6, 4, &progress), Err(Error::Cancelled)));
        assert!(stage.2.lock().unwrap().is_empty());
    }
}
