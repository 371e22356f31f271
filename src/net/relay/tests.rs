//! Relaying between real sockets, and where there are none.

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

impl Side for tokio::io::DuplexStream {
    fn plain<R>(&self, _: impl FnOnce(&Stream) -> R) -> Option<R> {
        None
    }
}

const LIMITS: Limits = Limits {
    idle: Duration::from_secs(5),
    half_close: Duration::from_millis(50),
};
/// A busy machine may leave a direction without a byte for longer than that.
const PATIENT: Limits = Limits {
    half_close: Duration::from_secs(5),
    ..LIMITS
};

#[tokio::test]
async fn carries_both_ways_and_keeps_a_half_close() {
    let (client, mut a) = duplex(1024);
    let (mut b, mut origin) = duplex(1024);
    let (mut read, mut write) = tokio::io::split(client);
    let relay = async {
        let mut bytes = (0, 0);
        let end = relay(
            &mut a,
            &mut b,
            BytesMut::new(),
            &Shared::default(),
            LIMITS,
            |d, n| match d {
                Direction::Up => bytes.0 += n,
                Direction::Down => bytes.1 += n,
            },
        )
        .await;
        (end, bytes)
    };
    let talk = async {
        write.write_all(b"ping").await.unwrap();
        write.shutdown().await.unwrap();
        let mut got = Vec::new();
        origin.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"ping");
        origin.write_all(&[7; 100_000]).await.unwrap();
        origin.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let ((end, bytes), (), n) = tokio::join!(relay, talk, read.read_to_end(&mut got));
    assert!(matches!(end, End::Closed), "{end:?}");
    assert_eq!((bytes, n.unwrap()), ((4, 100_000), 100_000));
}

impl Side for Stream {
    fn plain<R>(&self, f: impl FnOnce(&Stream) -> R) -> Option<R> {
        Some(f(self))
    }
}

async fn tcp() -> (Stream, Stream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (Stream::Tcp(near.unwrap()), Stream::Tcp(far.unwrap().0))
}

fn unix() -> (Stream, Stream) {
    let (near, far) = tokio::net::UnixStream::pair().unwrap();
    (Stream::Unix(near), Stream::Unix(far))
}

/// Sends `data` in pieces of many sizes, then ends.
async fn send(mut to: impl AsyncWrite + Unpin, mut data: &[u8]) {
    let mut size = 1;
    while !data.is_empty() {
        let (now, later) = data.split_at(size.min(data.len()));
        to.write_all(now).await.unwrap();
        (data, size) = (later, size * 7 % 300_007);
    }
    to.shutdown().await.unwrap();
}

/// Reads to the end, now and then a little late.
async fn receive(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
    let (mut got, mut room) = (Vec::new(), vec![0; 100_000]);
    loop {
        let n = from.read(&mut room).await.unwrap();
        if n == 0 {
            return got;
        }
        got.extend_from_slice(&room[..n]);
        if got.len() % 5 == 0 {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = crate::base::rng::Rng::new(seed);
    (0..len / 8).flat_map(|_| rng.next_u64().to_ne_bytes()).collect()
}

async fn bulk_both_ways(client: (Stream, Stream), origin: (Stream, Stream)) {
    let shared = Shared::default();
    let ((near, mut a), (mut b, far)) = (client, origin);
    // The first direction ends long before the second.
    let (there, back) = (noise(1, 10 << 20), noise(2, 24 << 20));
    let (near_read, near_write) = tokio::io::split(near);
    let (far_read, far_write) = tokio::io::split(far);
    let ahead = &there[..1000];
    let mut bytes = (0, 0);
    let ((end, _), sent, _, got) = tokio::join!(
        async {
            let end = relay(&mut a, &mut b, ahead.into(), &shared, PATIENT, |d, n| match d {
                Direction::Up => bytes.0 += n,
                Direction::Down => bytes.1 += n,
            });
            (end.await, drop((a, b)))
        },
        receive(far_read),
        async { tokio::join!(send(near_write, &there[1000..]), send(far_write, &back)) },
        receive(near_read),
    );
    assert!(matches!(end, End::Closed), "{end:?}");
    assert!(sent == there && got == back, "bytes are lost, or others");
    assert_eq!(bytes, (there.len(), back.len()));
    assert!(shared.pipes.idle() > 0, "nothing was spliced");
}

#[tokio::test]
async fn bulk_is_spliced_unharmed() {
    bulk_both_ways(tcp().await, tcp().await).await;
    bulk_both_ways(tcp().await, unix()).await;
    bulk_both_ways(unix(), tcp().await).await;
}

#[tokio::test]
async fn a_slow_reader_holds_the_writer_back_and_at_rest_nothing_is_held() {
    let shared = Shared::default();
    let ((mut client, mut a), (mut b, mut origin)) = (tcp().await, tcp().await);
    let mut relaying = std::pin::pin!(relay(&mut a, &mut b, BytesMut::new(), &shared, LIMITS, |_, _| {}));
    let data = noise(3, 1 << 20);
    let mut sent = 0;
    // Until nothing moves for a while: the sockets are full, and a pipe.
    let quiet = Duration::from_millis(100);
    loop {
        tokio::select! {
            end = &mut relaying => panic!("{end:?}"),
            wrote = tokio::time::timeout(quiet, client.write(&data[sent % data.len()..])) => match wrote {
                Ok(n) => sent += n.unwrap(),
                Err(_) => break,
            },
        }
    }
    assert_eq!(shared.pipes.at_work(), 1);
    let mut got = vec![0; sent];
    tokio::select! {
        end = &mut relaying => panic!("{end:?}"),
        read = origin.read_exact(&mut got) => { read.unwrap(); }
    }
    assert!(got.chunks(data.len()).all(|part| data.starts_with(part)));
    // The answer makes sure that the relay has seen that there is no more.
    origin.write_all(b"thanks").await.unwrap();
    tokio::select! {
        end = &mut relaying => panic!("{end:?}"),
        read = client.read_exact(&mut got[..6]) => { read.unwrap(); }
    }
    assert_eq!((shared.pipes.at_work(), shared.pipes.idle()), (0, 1));
}

#[tokio::test]
async fn a_reset_amid_a_splice_breaks_it_and_its_pipe_is_not_used_again() {
    let shared = Shared::default();
    let ((mut client, mut a), (mut b, origin)) = (tcp().await, tcp().await);
    let data = noise(4, 1 << 20);
    let mut passed = 0;
    let relaying = relay(&mut a, &mut b, BytesMut::new(), &shared, LIMITS, |_, n| passed += n);
    let talk = async {
        while !matches!(
            tokio::time::timeout(Duration::from_millis(100), client.write_all(&data)).await,
            Err(_) | Ok(Err(_))
        ) {}
        origin.reset_on_close();
        drop(origin);
    };
    let (end, ()) = tokio::join!(relaying, talk);
    assert!(matches!(end, End::Broken(..)), "{end:?}");
    assert!(passed > 0);
    assert_eq!((shared.pipes.at_work(), shared.pipes.idle()), (0, 0));
}

#[tokio::test]
async fn silence_after_a_half_close_ends_it() {
    let (mut client, mut a) = duplex(64);
    let (mut b, _origin) = duplex(64);
    client.shutdown().await.unwrap();
    let end = relay(&mut a, &mut b, BytesMut::new(), &Shared::default(), LIMITS, |_, _| {}).await;
    assert!(matches!(end, End::TimedOut), "{end:?}");
}
