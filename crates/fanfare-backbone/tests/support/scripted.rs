//! A server that confirms one subscription and then says what it is told to: what no real Redis would. Its clock is
//! ahead of ours: at first by [`AHEAD`], and by twice that where scripts ask.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, BytesMut};
use fanfare_backbone::resp::Reader;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How far its clock is ahead.
pub(crate) const AHEAD: Duration = Duration::from_secs(3600);

/// A running one.
pub(crate) struct Scripted {
    pub(crate) url: String,
    _connections: JoinSet<()>,
}

impl Scripted {
    pub(crate) async fn start(surprise: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("redis://{}", listener.local_addr().expect("its address"));
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(serve(stream, surprise));
            }
        });
        Self { url, _connections: connections }
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

async fn serve(mut stream: TcpStream, surprise: &str) {
    let (mut buffer, mut reader) = (BytesMut::new(), Reader::new());
    while stream.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
        while let Some(length) = reader.read(&buffer).expect("a command") {
            let command: Vec<_> = reader.reply(&buffer).words().flatten().map(String::from_utf8_lossy).collect();
            let answer = match &*command[0] {
                "INFO" => "$10\r\nrun_id:abc\r\n".to_owned(),
                "SUBSCRIBE" => {
                    let name = &command[1];
                    format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{name}\r\n:1\r\n{surprise}", name.len())
                }
                "PING" => "+PONG\r\n".to_owned(),
                "TIME" => {
                    let now = now() + AHEAD;
                    let (seconds, micros) = (now.as_secs().to_string(), now.subsec_micros().to_string());
                    format!("*2\r\n${}\r\n{seconds}\r\n${}\r\n{micros}\r\n", seconds.len(), micros.len())
                }
                "EVALSHA" => {
                    let now = (now() + 2 * AHEAD).as_micros().to_string();
                    format!("*1\r\n${}\r\n{now}\r\n", now.len())
                }
                _ => "+OK\r\n".to_owned(),
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            buffer.advance(length);
        }
    }
}
