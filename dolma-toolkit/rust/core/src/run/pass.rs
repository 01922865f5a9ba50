//! The work on rows: batches of one or many series, made by any thread, kept in the order of their series.
//!
//! Every worker takes what can be done next: it keeps, reads, decides, makes or asks a batch. Reading and keeping go on
//! in the order of a series, deciding in that of all series; asking and making have no order. So a worker waits only if
//! every batch in memory is in the hands of another one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::progress::Progress;

/// Errors of a series that are reported at most.
const REPORTED_ERRORS: usize = 100;

/// Batches in memory for each worker: the one that it works on, and others that are read or wait for their turn.
const BATCHES_PER_WORKER: usize = 3;

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
    /// A batch whose rows are not decided yet.
    type Asked: Send;
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
    /// Whether rows are decided in the order of all series.
    fn takes_turns(&self) -> bool {
        false
    }
    /// Begins a series.
    fn open(&self, series: usize) -> Result<(Self::Source, Self::Output)>;
    /// Works on a batch, on any thread, as far as nothing has to be decided.
    fn ask(&self, series: usize, batch: <Self::Source as Source>::Batch) -> Result<Self::Asked>;
    /// Decides the rows of a batch.
    fn decide(&self, _series: usize, _asked: &mut Self::Asked) -> Result<()> {
        Ok(())
    }
    /// Works on a batch that is decided, on any thread.
    fn make(&self, series: usize, asked: Self::Asked) -> Result<Self::Made>;
    /// Takes what was made, in order.
    fn keep(&self, series: usize, output: &mut Self::Output, made: Self::Made) -> Result<()>;
    /// Ends a series.
    fn finish(&self, series: usize, source: Self::Source, output: Self::Output) -> Result<Self::Done>;
}

/// Does all `series` of a stage. A series that fails ends; the others go on, unless the stage takes turns.
pub fn pass<S: Stage>(stage: &S, series: usize, threads: usize, progress: &Progress) -> Result<Vec<S::Done>> {
    let state = State {
        next: 0,
        lanes: BTreeMap::new(),
        done: BTreeMap::new(),
        read: 0,
        turn: 0,
        stopped_at: u64::MAX,
        is_deciding: false,
        batches: 0,
        busy: 0,
        idle: 0,
        panicked: false,
    };
    let pass = Pass { stage, progress, series, threads, state: Mutex::new(state), changed: Condvar::new() };
    thread::scope(|scope| {
        (0..threads).try_for_each(|_| {
            // rules nest deep, whatever stack the caller has
            let worker = thread::Builder::new().stack_size(crate::jq::STACK_BYTES);
            worker.spawn_scoped(scope, || pass.work()).map(drop).inspect_err(|_| progress.cancel())
        })
    })
    .map_err(|error| super::no_threads(threads, &error))?;
    progress.check()?;
    let done = pass.state.into_inner().unwrap_or_else(PoisonError::into_inner).done;
    // what fails behind the first failure of a stage that takes turns depends on the threads
    let first = done.values().take_while(|done| !stage.takes_turns() || done.is_ok()).count();
    super::all(done.into_values().take(first + 1).collect())
}

struct Pass<'s, S: Stage> {
    stage: &'s S,
    progress: &'s Progress,
    series: usize,
    threads: usize,
    state: Mutex<State<S>>,
    changed: Condvar,
}

struct State<S: Stage> {
    /// the first series that is not open yet
    next: usize,
    /// the open ones, by number
    lanes: BTreeMap<usize, Lane<S>>,
    done: BTreeMap<usize, Result<S::Done>>,
    /// batches of all series that were read, and decided
    read: u64,
    turn: u64,
    /// the first batch that failed, of a stage that takes turns
    stopped_at: u64,
    is_deciding: bool,
    /// batches in memory
    batches: usize,
    /// workers with a task, and those that wait for one
    busy: usize,
    idle: usize,
    panicked: bool,
}

/// A series in work. Its source and output are elsewhere while a worker uses them.
struct Lane<S: Stage> {
    source: Option<S::Source>,
    output: Option<S::Output>,
    /// how many batches were read, and kept
    read: u64,
    kept: u64,
    /// nothing is left to read
    ended: bool,
    errors: Vec<Error>,
    unasked: VecDeque<(Place, <S::Source as Source>::Batch)>,
    /// by their turns
    undecided: BTreeMap<u64, (Place, S::Asked)>,
    unmade: VecDeque<(Place, S::Asked)>,
    /// by their numbers in the series
    unkept: BTreeMap<u64, (Place, Result<S::Made>)>,
}

/// The place of a batch in its series, and among all batches.
#[derive(Clone, Copy)]
struct Place {
    number: u64,
    turn: u64,
}

/// What a worker does next.
enum Task<S: Stage> {
    Open,
    Read(S::Source),
    Ask(Place, <S::Source as Source>::Batch),
    Decide(Place, S::Asked),
    Make(Place, S::Asked),
    Keep(Place, Result<S::Made>, S::Output, Vec<Error>),
    Finish(S::Source, S::Output, Vec<Error>),
}

impl<S: Stage> Lane<S> {
    fn new() -> Lane<S> {
        Lane {
            source: None,
            output: None,
            read: 0,
            kept: 0,
            ended: false,
            errors: Vec::new(),
            unasked: VecDeque::new(),
            undecided: BTreeMap::new(),
            unmade: VecDeque::new(),
            unkept: BTreeMap::new(),
        }
    }

    /// Whether all batches are kept.
    fn is_done(&self) -> bool {
        self.ended && self.kept == self.read && self.source.is_some()
    }

    fn batches(&self) -> usize {
        self.unasked.len() + self.undecided.len() + self.unmade.len() + self.unkept.len()
    }
}

impl<S: Stage> Pass<'_, S> {
    fn work(&self) {
        // a worker that panics must not leave the others waiting
        struct Guard<'p, 's, S: Stage>(&'p Pass<'s, S>);
        impl<S: Stage> Drop for Guard<'_, '_, S> {
            fn drop(&mut self) {
                if thread::panicking() {
                    self.0.locked().panicked = true;
                    self.0.changed.notify_all();
                }
            }
        }
        let _guard = Guard(self);
        let mut state = self.locked();
        while !state.panicked && self.progress.check().is_ok() {
            if let Some((series, task)) = self.next(&mut state) {
                state.busy += 1;
                drop(state);
                self.perform(series, task);
                state = self.locked();
                state.busy -= 1;
                if state.idle > 0 {
                    self.changed.notify_all();
                }
            } else if state.busy == 0 {
                return; // nothing is left, and nobody makes more
            } else {
                // or long enough to see that the run was cancelled
                state.idle += 1;
                let waited = self.changed.wait_timeout(state, Duration::from_secs(1));
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                state.idle -= 1;
            }
        }
    }

    /// The next thing to do: what frees memory first, and reading before the batches run out.
    fn next(&self, state: &mut State<S>) -> Option<(usize, Task<S>)> {
        let mut lanes = state.lanes.iter_mut();
        let ready =
            lanes.find(|(_, lane)| lane.output.is_some() && (lane.is_done() || lane.unkept.contains_key(&lane.kept)));
        if let Some((&series, lane)) = ready {
            let output = lane.output.take()?;
            if let Some((place, made)) = lane.unkept.remove(&lane.kept) {
                return Some((series, Task::Keep(place, made, output, std::mem::take(&mut lane.errors))));
            }
            let (source, errors) = (lane.source.take()?, std::mem::take(&mut lane.errors));
            state.lanes.remove(&series);
            return Some((series, Task::Finish(source, output, errors)));
        }
        let unasked: usize = state.lanes.values().map(|lane| lane.unasked.len()).sum();
        if unasked < self.threads && state.batches < BATCHES_PER_WORKER * self.threads {
            if let Some(found) = self.next_to_read(state) {
                return Some(found);
            }
        }
        if !state.is_deciding {
            for (&series, lane) in &mut state.lanes {
                if let Some((place, asked)) = lane.undecided.remove(&state.turn) {
                    state.is_deciding = true;
                    return Some((series, Task::Decide(place, asked)));
                }
            }
        }
        for (&series, lane) in &mut state.lanes {
            if let Some((place, asked)) = lane.unmade.pop_front() {
                return Some((series, Task::Make(place, asked)));
            }
        }
        for (&series, lane) in &mut state.lanes {
            if let Some((place, batch)) = lane.unasked.pop_front() {
                return Some((series, Task::Ask(place, batch)));
            }
        }
        None
    }

    /// A series to begin, or else the one with the fewest batches in memory.
    fn next_to_read(&self, state: &mut State<S>) -> Option<(usize, Task<S>)> {
        let unread = state.lanes.values().filter(|lane| !lane.ended).count();
        // a batch whose turn is far away would only take memory
        let most = if self.stage.takes_turns() { 1 } else { self.threads };
        if unread < most && state.next < self.series && state.stopped_at == u64::MAX {
            let series = state.next;
            state.next += 1;
            state.lanes.insert(series, Lane::new());
            return Some((series, Task::Open));
        }
        let readable = state.lanes.iter_mut().filter(|(_, lane)| !lane.ended && lane.source.is_some());
        let (&series, lane) = readable.min_by_key(|(_, lane)| lane.batches())?;
        lane.source.take().map(|source| (series, Task::Read(source)))
    }

    fn perform(&self, series: usize, task: Task<S>) {
        match task {
            Task::Open => {
                let opened = self.stage.open(series);
                let mut state = self.locked();
                let turn = state.read;
                match (opened, state.lanes.get_mut(&series)) {
                    (Ok((source, output)), Some(lane)) => (lane.source, lane.output) = (Some(source), Some(output)),
                    (Err(error), Some(_)) => self.fail(&mut state, series, turn, error),
                    (_, None) => {}
                }
            }
            Task::Read(mut source) => {
                let read = source.read(self.progress).transpose();
                self.take_in(series, source, read);
            }
            Task::Ask(place, batch) => {
                let asked = self.stage.ask(series, batch);
                if self.stage.takes_turns() {
                    let wait = |lane: &mut Lane<S>, asked| drop(lane.undecided.insert(place.turn, (place, asked)));
                    return self.put(&mut self.locked(), series, place, asked, wait);
                }
                let made = asked.and_then(|mut asked| {
                    self.stage.decide(series, &mut asked)?;
                    self.stage.make(series, asked)
                });
                self.put_made(series, place, made);
            }
            Task::Decide(place, mut asked) => {
                let decided = self.stage.decide(series, &mut asked);
                let mut state = self.locked();
                state.is_deciding = false;
                state.turn += u64::from(decided.is_ok());
                self.put(&mut state, series, place, decided, |lane, ()| lane.unmade.push_back((place, asked)));
            }
            Task::Make(place, asked) => self.put_made(series, place, self.stage.make(series, asked)),
            Task::Keep(place, made, mut output, mut errors) => {
                let kept = self.keep(series, made, &mut output, &mut errors);
                let mut state = self.locked();
                state.batches -= 1;
                match (kept, state.lanes.get_mut(&series)) {
                    (Ok(()), Some(lane)) => {
                        (lane.output, lane.errors) = (Some(output), errors);
                        lane.kept += 1;
                    }
                    (Err(error), Some(_)) => self.fail(&mut state, series, place.turn, error),
                    (_, None) => {}
                }
            }
            Task::Finish(source, output, errors) => {
                let done = match Error::many(errors) {
                    Some(error) => Err(error),
                    None => self.stage.finish(series, source, output),
                };
                let mut state = self.locked();
                let turn = state.turn;
                match done {
                    Ok(done) => drop(state.done.insert(series, Ok(done))),
                    Err(error) => self.fail(&mut state, series, turn, error),
                }
            }
        }
    }

    /// Takes a batch that was read, or the end of a series.
    fn take_in(&self, series: usize, source: S::Source, read: Option<Result<<S::Source as Source>::Batch>>) {
        let mut state = self.locked();
        let turn = state.read;
        let is_refused = turn > state.stopped_at;
        let Some(lane) = state.lanes.get_mut(&series) else { return };
        lane.source = Some(source);
        lane.ended |= !matches!(read, Some(Ok(_)));
        let Some(read) = read.filter(|_| !is_refused) else { return };
        let place = Place { number: lane.read, turn };
        lane.read += 1;
        state.read += 1;
        state.batches += 1;
        self.put(&mut state, series, place, read, |lane, batch| lane.unasked.push_back((place, batch)));
    }

    /// Takes what was made of a batch.
    fn put_made(&self, series: usize, place: Place, made: Result<S::Made>) {
        let wait = |lane: &mut Lane<S>, made| drop(lane.unkept.insert(place.number, (place, Ok(made))));
        self.put(&mut self.locked(), series, place, made, wait);
    }

    /// Puts a batch where it waits for what comes next. One that failed waits to be kept, as an error.
    fn put<T>(
        &self,
        state: &mut State<S>,
        series: usize,
        place: Place,
        result: Result<T>,
        wait: impl FnOnce(&mut Lane<S>, T),
    ) {
        let is_refused = place.turn > state.stopped_at;
        let Some(lane) = state.lanes.get_mut(&series).filter(|_| !is_refused) else {
            state.batches -= 1; // its series has failed, or a batch before it
            return;
        };
        match result {
            Ok(value) => wait(lane, value),
            Err(error) => {
                lane.unkept.insert(place.number, (place, Err(error)));
                self.stop(state, series, place.turn);
            }
        }
    }

    fn keep(
        &self,
        series: usize,
        made: Result<S::Made>,
        output: &mut S::Output,
        errors: &mut Vec<Error>,
    ) -> Result<()> {
        match made {
            Ok(made) if errors.is_empty() => self.stage.keep(series, output, made),
            Ok(_) => Ok(()),
            Err(error) => {
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

    /// Ends a series that failed at the batch with this turn.
    fn fail(&self, state: &mut State<S>, series: usize, turn: u64, error: Error) {
        if let Some(lane) = state.lanes.remove(&series) {
            state.batches -= lane.batches();
        }
        state.done.insert(series, Err(error));
        self.stop(state, series, turn);
    }

    /// Forgets all batches behind the one at `turn`, which failed, if the stage takes turns.
    fn stop(&self, state: &mut State<S>, series: usize, turn: u64) {
        if !self.stage.takes_turns() || turn >= state.stopped_at {
            return;
        }
        state.stopped_at = turn;
        let before: usize = state.lanes.values().map(Lane::batches).sum();
        state.lanes.split_off(&(series + 1));
        if let Some(lane) = state.lanes.get_mut(&series) {
            lane.ended = true;
            lane.unasked.retain(|(place, _)| place.turn <= turn);
            lane.undecided.retain(|_, (place, _)| place.turn <= turn);
            lane.unmade.retain(|(place, _)| place.turn <= turn);
            lane.unkept.retain(|_, (place, _)| place.turn <= turn);
        }
        state.batches -= before - state.lanes.values().map(Lane::batches).sum::<usize>();
    }

    fn locked(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        type Asked = u64;
        type Made = u64;
        type Output = Vec<u64>;
        type Done = Vec<u64>;

        fn open(&self, series: usize) -> Result<(Self::Source, Vec<u64>)> {
            Ok((self.series[series].clone().into_iter(), Vec::new()))
        }

        fn ask(&self, _series: usize, batch: u64) -> Result<u64> {
            self.square(batch)
        }

        fn make(&self, _series: usize, square: u64) -> Result<u64> {
            Ok(square)
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
        type Asked = (u64, u64);
        type Made = (u64, u64);
        type Output = Vec<(u64, u64)>;
        type Done = Vec<(u64, u64)>;

        fn takes_turns(&self) -> bool {
            true
        }

        fn open(&self, series: usize) -> Result<(Self::Source, Self::Output)> {
            Ok((self.0.open(series)?.0, Vec::new()))
        }

        fn ask(&self, _series: usize, batch: u64) -> Result<(u64, u64)> {
            self.0.square(batch).map(|square| (0, square))
        }

        fn decide(&self, _series: usize, asked: &mut (u64, u64)) -> Result<()> {
            let mut count = self.1.lock().unwrap();
            *count += 1;
            asked.0 = *count;
            Ok(())
        }

        fn make(&self, _series: usize, asked: (u64, u64)) -> Result<(u64, u64)> {
            Ok(asked)
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
        type Asked = u64;
        type Made = u64;
        type Output = Vec<u64>;
        type Done = Vec<u64>;

        fn open(&self, series: usize) -> Result<(Self::Source, Vec<u64>)> {
            self.0.open(series)
        }

        fn ask(&self, _series: usize, batch: u64) -> Result<u64> {
            match batch {
                0 => self.1.lock().unwrap().recv_timeout(Duration::from_secs(30)).unwrap(),
                2 => self.2.send(()).unwrap(),
                _ => {}
            }
            Ok(batch)
        }

        fn make(&self, _series: usize, batch: u64) -> Result<u64> {
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
