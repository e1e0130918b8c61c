//! Log lines: text on a terminal, JSON otherwise, always on standard error. Panics are log lines too.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Sets logging up, once per process.
pub(crate) fn start(config: &Config) {
    let filter = EnvFilter::new(&config.log);
    let terminal = std::io::stderr().is_terminal();
    let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = match config.log_format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if text {
        lines.with_ansi(colours).with_target(false).init();
    } else {
        lines.json().flatten_event(true).init();
    }
    std::panic::set_hook(Box::new(log_panic));
}

/// A panic ends its task and the lifecycle deals with that; what it said must not go past the log.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let payload = panic.payload();
    let said = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => Some(backtrace.to_string()),
        _ => None, // Without RUST_BACKTRACE.
    };
    tracing::error!(place, backtrace, "panic: {}", said.unwrap_or("without a message"));
}
