//! A client that does one operation at a time and says honestly how it ended.
//!
//! It never retries by itself: every attempt is an event of the history. An operation that was not
//! sent, because nobody listens, did not happen; once bytes were written, only an answer tells.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use frazil_history::kafka::{Speaker, frame, request, response};
use frazil_history::{Op, Outcome};
use kafka_protocol::protocol::{HeaderVersion, Request};

/// How long an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What brokers know it by.
const CLIENT_ID: &str = "faults";

/// Why there is no answer.
pub(crate) enum Lost {
    /// Nothing was sent.
    Unsent,
    /// It may have arrived.
    Sent,
}

impl From<Lost> for Outcome {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Unsent => Self::Fail(0),
            Lost::Sent => Self::Info(0),
        }
    }
}

/// One connection at a time to one broker.
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
    correlation: i32,
    /// The name of topic n.
    topics: Vec<String>,
    /// As which member of a group it commits under a generation.
    pub(crate) member: String,
}

impl Client {
    /// A client of a broker, for these topics.
    pub(crate) fn new(address: SocketAddr, topics: &[&str]) -> Self {
        Self {
            address,
            stream: None,
            correlation: 0,
            topics: topics.iter().map(|&name| name.to_owned()).collect(),
            member: String::new(),
        }
    }

    /// Does one operation.
    pub(crate) fn call(&mut self, op: &Op) -> Outcome {
        self.correlation += 1;
        let speaker = Speaker {
            client_id: CLIENT_ID,
            topics: &self.topics,
            member: &self.member,
            partitions: 1,
            settings: &[],
        };
        let ask = request(op, speaker, self.correlation);
        match self.exchange(&ask.frame()) {
            Ok(answer) => ask.outcome(answer),
            Err(lost) => lost.into(),
        }
    }

    /// Sends a request and receives its answer; the connection is given up if there is none.
    pub(crate) fn ask<R: Request + HeaderVersion>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, Lost>
    where
        R::Response: HeaderVersion,
    {
        self.correlation += 1;
        let correlation = self.correlation;
        let answer = self.exchange(&frame(request, version, correlation, CLIENT_ID))?;
        Ok(response::<R>(answer, version, correlation))
    }

    fn exchange(&mut self, frame: &[u8]) -> Result<Bytes, Lost> {
        if self.stream.is_none() {
            let stream =
                TcpStream::connect_timeout(&self.address, TIMEOUT).map_err(|_| Lost::Unsent)?;
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            stream.set_write_timeout(Some(TIMEOUT)).unwrap();
            stream.set_nodelay(true).unwrap();
            self.stream = Some(stream);
        }
        let stream = self.stream.as_mut().expect("connected above");
        let mut exchange = || {
            stream.write_all(frame)?;
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let mut answer = vec![0; i32::from_be_bytes(length) as usize];
            stream.read_exact(&mut answer)?;
            std::io::Result::Ok(answer)
        };
        let Ok(answer) = exchange() else {
            self.stream = None;
            return Err(Lost::Sent);
        };
        Ok(answer.into())
    }
}
