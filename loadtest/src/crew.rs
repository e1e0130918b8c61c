//! The worker processes of a run, as the program that started them sees them.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::Nanos;
use crate::crowd::Expected;
use crate::keeper::see_off;
use crate::machine::CLIENTS_MAX;
use crate::words::{Heard, Order, Place, Setup, WireSum, Word};
use crate::worker::WORKER;

/// How long a worker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long all of them together may take to end before they are killed.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest pause between two looks at whether something has changed.
const TICK: Duration = Duration::from_millis(50);

/// All workers.
#[derive(Debug)]
pub(crate) struct Crew {
    workers: Vec<Worker>,
    board: Board,
    expectation: u32,
}

#[derive(Debug)]
struct Worker {
    child: Child,
    /// `None` once it is to end.
    orders: Option<ChildStdin>,
    first: u32,
    clients: u32,
}

/// What the workers last said, for whoever waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Board(Arc<(Mutex<Vec<Said>>, Condvar)>);

#[derive(Debug, Default)]
struct Said {
    place: Place,
    sum: Option<WireSum>,
    failed: Option<String>,
}

/// Where all workers are together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    pub(crate) connected: u32,
    pub(crate) subscribed: u64,
    pub(crate) last_subscribed: Nanos,
    pub(crate) deliveries: u64,
    pub(crate) heartbeats: u64,
    pub(crate) lost: u64,
    pub(crate) refusals: BTreeMap<String, u64>,
    pub(crate) last_error: Option<String>,
    /// Clients that lack something of what was expected last; `None`: not all workers have counted yet.
    pub(crate) incomplete: Option<u32>,
    /// When the last of them had it all.
    pub(crate) complete_at: Option<Nanos>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Vec<Said>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is so, or the time is over; tells whether it is.
    fn wait(&self, until: Instant, mut is_so: impl FnMut(&mut Vec<Said>) -> bool) -> io::Result<bool> {
        let mut said = self.lock();
        loop {
            if let Some(error) = said.iter().find_map(|said| said.failed.as_ref()) {
                return Err(io::Error::other(format!("a worker process failed: {error}")));
            }
            if is_so(&mut said) {
                return Ok(true);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let waited = self.0.1.wait_timeout(said, left.min(TICK));
            said = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the clients have so many events, or the time is over; tells how many they have.
    ///
    /// # Errors
    /// A worker failed.
    pub(crate) fn wait_for_deliveries(&self, count: u64, until: Instant) -> io::Result<u64> {
        let mut deliveries = 0;
        self.wait(until, |said| {
            deliveries = said.iter().map(|said| said.place.deliveries).sum();
            deliveries >= count
        })?;
        Ok(deliveries)
    }
}

impl Crew {
    /// Starts as many workers as the clients ask for, and one more for the last so many of them.
    ///
    /// # Errors
    /// A process can't be started.
    pub(crate) fn start(setup: &Setup, workers: u32, apart: u32) -> io::Result<Self> {
        let together = setup.clients - apart;
        let workers = workers.max(together.div_ceil(CLIENTS_MAX)).max(1);
        let end_of = |number: u32| (u64::from(together) * u64::from(number) / u64::from(workers)) as u32;
        let ends = (1..=workers).map(end_of).chain((apart > 0).then_some(setup.clients)).collect::<Vec<_>>();
        let said = ends.iter().map(|_| Said::default()).collect();
        let board = Board(Arc::new((Mutex::new(said), Condvar::new())));
        let mut crew = Self { workers: Vec::new(), board, expectation: 0 };
        let program = std::env::current_exe()?;
        for (number, end) in ends.into_iter().enumerate() {
            let first = crew.workers.last().map_or(0, |worker| worker.first + worker.clients);
            let mut command = Command::new(&program);
            let mut child = command.arg(WORKER).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let words = child.stdout.take().expect("it is piped");
            let board = crew.board.clone();
            thread::spawn(move || listen(&board, number, words));
            let orders = child.stdin.take();
            crew.workers.push(Worker { child, orders, first, clients: end - first });
            // All of them together are what the server's listeners queue.
            let opening_max = (setup.opening_max / workers as usize).max(1);
            let setup = Setup { first, clients: end - first, opening_max, ..setup.clone() };
            crew.workers[number].tell(&setup)?;
        }
        Ok(crew)
    }

    /// What the workers say, for another thread.
    pub(crate) fn board(&self) -> Board {
        self.board.clone()
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.workers.iter().map(|worker| worker.child.id()).collect()
    }

    /// Tells all workers the same.
    pub(crate) fn order(&mut self, order: &Order) -> io::Result<()> {
        self.workers.iter_mut().try_for_each(|worker| worker.tell(order))
    }

    /// The last so many clients read nothing any more.
    pub(crate) fn stall(&mut self, mut count: u32) -> io::Result<()> {
        for worker in self.workers.iter_mut().rev() {
            let share = count.min(worker.clients);
            worker.tell(&Order::Stall { count: share })?;
            count -= share;
        }
        Ok(())
    }

    /// Tells everybody what there is to have; `users` by number of the client.
    pub(crate) fn expect(&mut self, expected: &Expected) -> io::Result<()> {
        self.expectation += 1;
        for worker in &mut self.workers {
            let range = worker.first as usize..(worker.first + worker.clients) as usize;
            let users = expected.users.get(range).unwrap_or_default().to_vec();
            let expected = Expected { users, all: expected.all, channels: expected.channels.clone() };
            worker.tell(&Order::Expect { id: self.expectation, expected })?;
        }
        Ok(())
    }

    pub(crate) fn places(&self) -> Places {
        add_up(&self.board.lock(), self.expectation)
    }

    /// Waits until something is so, or the time is over; tells where everybody is, and whether it is so.
    ///
    /// # Errors
    /// A worker failed.
    pub(crate) fn wait(&self, timeout: Duration, mut is_so: impl FnMut(&Places) -> bool) -> io::Result<(Places, bool)> {
        let mut places = Places::default();
        let so = self.board.wait(Instant::now() + timeout, |said| {
            places = add_up(said, self.expectation);
            is_so(&places)
        })?;
        Ok((places, so))
    }

    /// What all have heard since the last time.
    ///
    /// # Errors
    /// A worker failed, or doesn't answer.
    pub(crate) fn sum(&mut self) -> io::Result<Heard> {
        self.order(&Order::Sum)?;
        let mut heard = Heard::new();
        let all = self.board.wait(Instant::now() + ANSWER_TIMEOUT, |said| {
            let all = said.iter().all(|said| said.sum.is_some());
            if all {
                said.iter_mut().filter_map(|said| said.sum.take()).for_each(|sum| heard.add(&sum));
            }
            all
        })?;
        if all { Ok(heard) } else { Err(io::Error::other("a worker process does not answer")) }
    }
}

fn add_up(said: &[Said], expectation: u32) -> Places {
    let mut places = Places { incomplete: Some(0), complete_at: Some(0), ..Places::default() };
    for Said { place, .. } in said {
        places.connected += place.connected;
        places.subscribed += place.subscribed;
        places.last_subscribed = places.last_subscribed.max(place.last_subscribed);
        places.deliveries += place.deliveries;
        places.heartbeats += place.heartbeats;
        places.lost += place.lost;
        for (how, count) in &place.refusals {
            *places.refusals.entry(how.clone()).or_default() += count;
        }
        places.last_error = places.last_error.or(place.last_error.clone());
        let counted = place.expectation == expectation;
        places.incomplete = places.incomplete.filter(|_| counted).map(|count| count + place.incomplete);
        let complete_at = place.complete_at.filter(|_| counted);
        places.complete_at = places.complete_at.zip(complete_at).map(|(one, other)| one.max(other));
    }
    places
}

fn listen(board: &Board, number: usize, words: ChildStdout) {
    for line in BufReader::new(words).lines() {
        let word = line.map_err(|error| error.to_string());
        let word = word.and_then(|line| serde_json::from_str::<Word>(&line).map_err(|error| error.to_string()));
        let said = &mut board.lock()[number];
        match word {
            Ok(Word::Place(place)) => said.place = place,
            Ok(Word::Sum(sum)) => said.sum = Some(*sum),
            Ok(Word::Failed(error)) | Err(error) => said.failed = Some(error),
        }
        board.0.1.notify_all();
    }
    board.lock()[number].failed.get_or_insert("it ended".to_owned());
    board.0.1.notify_all();
}

impl Worker {
    fn tell(&mut self, what: &impl serde::Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(what).map_err(io::Error::other)?;
        line.push(b'\n');
        self.orders.as_mut().map_or(Ok(()), |orders| orders.write_all(&line))
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // They end at the end of their input, unless they hang, and then they have nothing to lose.
        self.workers.iter_mut().for_each(|worker| worker.orders = None);
        let killed = see_off(self.workers.iter_mut().map(|worker| &mut worker.child), END_TIMEOUT);
        if killed > 0 {
            eprintln!("fanfare-loadtest: {killed} workers did not end when they were to, and were killed");
        }
    }
}
