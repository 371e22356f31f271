//! A small authoritative name server over UDP and TCP, which lies and fails as told.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record};

/// What it does with every question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
    /// Says what its zone says.
    Honest,
    /// Answers UDP with "too long", so that TCP is asked.
    Truncates,
    /// Knows no name.
    Denies,
    /// Knows every name, and no record.
    Empty,
    /// Answers what is no DNS.
    Garbage,
    Fails,
    Silent,
}

/// Listens on one port over UDP and TCP, for as long as the tests run.
#[derive(Clone)]
pub struct NameServer {
    pub addr: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    mood: Mood,
    ttl: u32,
    zone: HashMap<String, Vec<RData>>,
    asked: usize,
}

impl NameServer {
    pub fn start() -> Self {
        let (udp, tcp) = sockets();
        let shared = Arc::new(Mutex::new(Shared {
            mood: Mood::Honest,
            ttl: 0,
            zone: HashMap::new(),
            asked: 0,
        }));
        let server = Self {
            addr: udp.local_addr().unwrap(),
            shared,
        };
        let this = server.clone();
        std::thread::spawn(move || {
            let mut packet = [0; 4096];
            while let Ok((len, from)) = udp.recv_from(&mut packet) {
                if let Some(answer) = this.answer(&packet[..len], true) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        let this = server.clone();
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let this = this.clone();
                std::thread::spawn(move || this.serve(stream?));
            }
        });
        server
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let mut len = [0; 2];
            stream.read_exact(&mut len)?;
            let mut packet = vec![0; u16::from_be_bytes(len).into()];
            stream.read_exact(&mut packet)?;
            if let Some(answer) = self.answer(&packet, false) {
                stream.write_all(&(answer.len() as u16).to_be_bytes())?;
                stream.write_all(&answer)?;
            }
        }
    }

    fn answer(&self, packet: &[u8], udp: bool) -> Option<Vec<u8>> {
        let mut shared = self.shared.lock().unwrap();
        shared.asked += 1;
        let asked = Message::from_vec(packet).unwrap();
        let query = asked.queries[0].clone();
        let name = query.name().to_string();
        let mut answer = Message::response(asked.metadata.id, OpCode::Query);
        answer.metadata.authoritative = true;
        answer.add_query(query.clone());
        let records = shared.zone.get(&name).cloned();
        match shared.mood {
            Mood::Silent => return None,
            Mood::Garbage => return Some(vec![0xff; 40]),
            Mood::Fails => answer.metadata.response_code = ResponseCode::ServFail,
            Mood::Denies => answer.metadata.response_code = ResponseCode::NXDomain,
            Mood::Empty => {}
            Mood::Truncates if udp => answer.metadata.truncation = true,
            Mood::Honest | Mood::Truncates => match records {
                None => answer.metadata.response_code = ResponseCode::NXDomain,
                Some(records) => {
                    let fitting = records
                        .into_iter()
                        .filter(|data| data.record_type() == query.query_type());
                    let ttl = shared.ttl;
                    answer.add_answers(fitting.map(|data| Record::from_rdata(query.name().clone(), ttl, data)));
                }
            },
        }
        Some(answer.to_vec().unwrap())
    }

    pub fn mood(&self, mood: Mood) {
        self.shared.lock().unwrap().mood = mood;
    }

    /// Of every answer from now on, in seconds. At first 0.
    pub fn ttl(&self, ttl: u32) {
        self.shared.lock().unwrap().ttl = ttl;
    }

    /// Questions so far.
    pub fn asked(&self) -> usize {
        self.shared.lock().unwrap().asked
    }

    /// The addresses of `name`, which ends with a dot.
    pub fn addresses(&self, name: &str, addrs: &[&str]) {
        let addrs = addrs.iter().map(|a| RData::from(a.parse::<IpAddr>().unwrap()));
        self.shared
            .lock()
            .unwrap()
            .zone
            .insert(name.to_owned(), addrs.collect());
    }

    /// The SRV records of `name`: priority, weight, port, target.
    pub fn services(&self, name: &str, records: &[(u16, u16, u16, &str)]) {
        let records = records.iter().map(|(priority, weight, port, target)| {
            RData::SRV(SRV::new(*priority, *weight, *port, Name::from_ascii(target).unwrap()))
        });
        self.shared
            .lock()
            .unwrap()
            .zone
            .insert(name.to_owned(), records.collect());
    }
}

/// One free port for both.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}
