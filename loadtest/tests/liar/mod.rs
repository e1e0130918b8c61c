//! A server of events that does one thing wrong, now and then: what a load test that never lies must find.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    Loses,
    Doubles,
    Reorders,
    Alters,
    Misdirects,
}

/// The events that are done wrong: one of so many.
const EVERY: usize = 5;

/// A server that lies.
pub(crate) struct Liar {
    port: u16,
}

struct State {
    lie: Lie,
    subscribers: Vec<TcpStream>,
    events: usize,
    /// What is told later than it should be.
    held: Option<String>,
}

impl Liar {
    /// Starts it, on threads that end with the test.
    pub(crate) fn start(lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let state = Arc::new(Mutex::new(State { lie, subscribers: Vec::new(), events: 0, held: None }));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = state.clone();
                thread::spawn(move || serve(&state, stream));
            }
        });
        Self { port }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn serve(state: &Mutex<State>, stream: TcpStream) {
    let mut writer = stream.try_clone().expect("it stands");
    let mut reader = BufReader::new(stream);
    loop {
        let (mut is_post, mut length) = (false, 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).is_ok_and(|count| count == 0) || line == "\r\n" {
                break;
            }
            is_post |= line.starts_with("POST ");
            if let Some((_, value)) = line.split_once("Content-Length: ") {
                length = value.trim().parse().expect("a length");
            }
        }
        if !is_post {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: connected\ndata: {}\n\n";
            _ = writer.write_all(head.as_bytes());
            state.subscribers.push(writer);
            return;
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let body = String::from_utf8(body).expect("JSON");
        for line in body.lines() {
            let data = line.split_once(r#""data":""#).expect("an event").1.trim_end_matches("\"}");
            tell(state, &format!("data: {data}\n\n"));
        }
        let answers = r#"{"success":true}"#.to_owned() + "\n";
        let answers = answers.repeat(body.lines().count());
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answers}", answers.len());
        if writer.write_all(head.as_bytes()).is_err() {
            return;
        }
    }
}

/// Tells everybody an event; the first of them hears the lies.
fn tell(state: &Mutex<State>, frame: &str) {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let State { lie, subscribers, events, held } = &mut *state;
    *events += 1;
    let is_lie = *events % EVERY == 0;
    for (number, subscriber) in subscribers.iter_mut().enumerate() {
        let text = match *lie {
            _ if number > 0 => frame.to_owned(),
            Lie::Loses if is_lie => String::new(),
            Lie::Doubles if is_lie => frame.repeat(2),
            Lie::Alters if is_lie => frame.replacen("xx\n", "xy\n", 1),
            // Behind the mark and the run stands whom it is for: channel 0 becomes channel 1.
            Lie::Misdirects if is_lie => frame.replacen("aaaaaaab", "aaaaaaac", 1),
            Lie::Reorders if is_lie => {
                *held = Some(frame.to_owned());
                String::new()
            }
            _ => frame.to_owned() + &held.take().unwrap_or_default(),
        };
        _ = subscriber.write_all(text.as_bytes());
    }
}
