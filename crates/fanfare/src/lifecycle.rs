//! Tasks, signals and the drain: the process ends in good order or says why not.
//!
//! Every task is spawned here and waited for here. One that ends before it was told to, even by a panic, takes the
//! whole process into the drain: Kubernetes should replace a pod, not keep half of one.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time for what is left to stop, once there is nothing to wait for.
const STOP_TIMEOUT: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(5) };

/// The process's tasks and where it is in its life.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lifecycle {
    /// Not ready any more.
    drain: CancellationToken,
    /// The goodbyes begin.
    leave: CancellationToken,
    /// Services end.
    stop: CancellationToken,
    services: TaskTracker,
    connections: TaskTracker,
    /// A service ended that should not have.
    broken: Arc<AtomicBool>,
}

/// How long the parts of a drain take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DrainTimes {
    /// From unready to the first goodbye.
    pub(crate) delay: Duration,
    /// From the first goodbye to the last.
    pub(crate) window: Duration,
}

/// What is drained and stopped.
pub(crate) trait Drained {
    /// Lets its clients go over `window`; returns when all are gone, or the window is over.
    async fn drain(&self, window: Duration);
    /// Tells its services to end.
    fn stop(&self);
}

impl Lifecycle {
    /// Cancelled when the process is on its way out.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.drain
    }

    /// Cancelled when the goodbyes begin: what can be told to, should ask elsewhere from now on.
    pub(crate) fn leaving(&self) -> &CancellationToken {
        &self.leave
    }

    /// Cancelled when services are to end.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// The tasks of single connections, which may end whenever they like.
    pub(crate) fn connections(&self) -> &TaskTracker {
        &self.connections
    }

    /// Runs a part of the process that must outlive every connection.
    pub(crate) fn spawn_service(&self, name: impl Into<String>, service: impl Future<Output = ()> + Send + 'static) {
        let ended = Ended { name: name.into(), lifecycle: self.clone() };
        self.services.spawn(async move {
            let _ended = ended;
            service.await;
        });
    }

    /// Waits for a signal or a broken service, then drains and stops everything. A second signal ends that at once.
    pub(crate) async fn run(&self, mut signals: Signals, drained: &impl Drained, times: DrainTimes) -> ExitCode {
        tokio::select! {
            signal = signals.next() => {
                self.drain.cancel(); // Before it is said, so that whoever reads it finds it so.
                tracing::info!(signal = signal.name, "draining");
            }
            () = self.drain.cancelled() => tracing::warn!("draining, because a service has ended"),
        }
        tokio::select! {
            () = self.shut_down(drained, times) => {
                tracing::info!("stopped");
                if self.broken.load(Ordering::Acquire) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
            }
            signal = signals.next() => {
                tracing::warn!(signal = signal.name, "stopped at once by a second signal");
                ExitCode::from(signal.exit_code)
            }
        }
    }

    async fn shut_down(&self, drained: &impl Drained, times: DrainTimes) {
        self.drain.cancel(); // Not ready any more. Who still comes is served until the goodbyes begin.
        sleep(times.delay).await;
        self.leave.cancel();
        drained.drain(times.window).await; // Whoever is left is cut off below.
        self.stop.cancel(); // Listeners close; running requests are answered.
        self.connections.close();
        wait(&self.connections, "connections").await;
        drained.stop(); // Only now what requests lean on.
        self.services.close();
        wait(&self.services, "services").await;
    }
}

async fn wait(tasks: &TaskTracker, what: &str) {
    if timeout(STOP_TIMEOUT, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "some {what} did not end in time and are cut off");
    }
}

/// Dropped when a service ends, however it ends.
struct Ended {
    name: String,
    lifecycle: Lifecycle,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if !self.lifecycle.stop.is_cancelled() {
            tracing::error!(service = self.name, "a service has ended that should not have");
            self.lifecycle.broken.store(true, Ordering::Release);
            self.lifecycle.drain.cancel();
        }
    }
}

/// The signals that end the process. Caught from the moment this exists.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// A signal that was caught.
#[derive(Clone, Copy, Debug)]
struct Caught {
    name: &'static str,
    /// What a shell would report if it had not been caught.
    exit_code: u8,
}

impl Signals {
    /// Catches them. Must be called inside the runtime.
    pub(crate) fn catch() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> Caught {
        tokio::select! {
            _ = self.terminate.recv() => Caught { name: "SIGTERM", exit_code: 143 },
            _ = self.interrupt.recv() => Caught { name: "SIGINT", exit_code: 130 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    const TIMES: DrainTimes = DrainTimes { delay: Duration::from_millis(1), window: Duration::from_millis(1) };

    /// Notes what happens to it, and whether the connections were waited for by then.
    #[derive(Default)]
    struct Recorder(Mutex<Vec<&'static str>>);

    impl Recorder {
        fn note(&self, what: &'static str) {
            self.0.lock().expect("no one panics here").push(what);
        }
    }

    impl Drained for Recorder {
        async fn drain(&self, window: Duration) {
            assert_eq!(window, TIMES.window);
            self.note("goodbyes");
        }

        fn stop(&self) {
            self.note("stop");
        }
    }

    #[tokio::test]
    async fn a_service_that_panics_takes_the_process_into_the_drain_and_it_fails() {
        let lifecycle = Lifecycle::default();
        let recorder = Recorder::default();
        lifecycle.spawn_service("broken", async { panic!("on purpose") });
        let code = lifecycle.run(Signals::catch().expect("signals"), &recorder, TIMES).await;
        assert_eq!(code, ExitCode::FAILURE);
        assert!(lifecycle.draining().is_cancelled());
        assert_eq!(*recorder.0.lock().expect("unpoisoned"), ["goodbyes", "stop"]);
    }

    #[tokio::test]
    async fn services_end_after_connections_and_are_waited_for_within_a_bound() {
        let lifecycle = Lifecycle::default();
        let recorder = Recorder::default();
        let stop = lifecycle.stopping().clone();
        lifecycle.spawn_service("good", async move { stop.cancelled().await });
        lifecycle.spawn_service("stuck", std::future::pending());
        lifecycle.connections().spawn(std::future::pending::<()>());
        lifecycle.shut_down(&recorder, TIMES).await;
        assert_eq!(*recorder.0.lock().expect("unpoisoned"), ["goodbyes", "stop"]);
        assert!(!lifecycle.broken.load(Ordering::Acquire));
        assert_eq!(lifecycle.services.len(), 1, "only the stuck one is left");
    }
}
