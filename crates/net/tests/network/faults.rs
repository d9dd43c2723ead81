//! Peers in processes of their own: killed, stopped, unplugged, and found by
//! multicast from another network namespace.
//!
//! The other process is this test binary itself, told by an environment
//! variable to be a peer ([`peer_process`]).

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::common::{PROTOCOL, WAIT, keypair, node, soon, start};
use peerproof_net::{
    Address, Event, FrameError, FrameLimits, FrameStream, Handle, NetConfig, Source, Transport,
};

const ROLE: &str = "PEERPROOF_NET_TEST_ROLE";
const KEY: [u8; 32] = [0x5A; 32];

/// Not a test: the other process. Lives until its input closes.
#[test]
#[ignore = "a helper process of the other tests"]
fn peer_process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = match role.as_str() {
            "loopback" => NetConfig::loopback(),
            _ => NetConfig { listen: NetConfig::at_port(0).listen, ..NetConfig::default() },
        };
        // Another key than any of the tests'.
        let keypair = peerproof_identity::Keypair::from_seed(&[0xCC; 32]);
        let (node, _events) = peerproof_net::Network::start(&keypair, config).await.unwrap();
        node.provide(KEY).await.unwrap();
        let mut incoming = node.accept(PROTOCOL, FrameLimits::default()).unwrap();
        for address in node.listen_addresses().await.unwrap() {
            println!("ADDRESS {}", address.with_peer(node.local_peer()));
        }
        println!("READY");
        let mut held = Vec::new();
        let serve = async {
            while let Some((_, mut stream)) = incoming.next().await {
                stream.send(b"hello").await.unwrap();
                held.push(stream);
            }
        };
        let orphaned = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
        tokio::select! { () = serve => {}, _ = orphaned => {} }
    });
}

/// Another process; killed when the test ends.
struct Other {
    child: Child,
    addresses: Vec<Address>,
}

impl Other {
    fn spawn(mut command: Command, role: &str) -> Self {
        let mut child = command
            .args(["--exact", "network::faults::peer_process", "--ignored", "--nocapture"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut addresses = Vec::new();
        for line in output.lines() {
            let line = line.unwrap();
            if let Some((_, address)) = line.split_once("ADDRESS ") {
                addresses.push(address.parse().unwrap());
            }
            if line.contains("READY") {
                break;
            }
        }
        Self { child, addresses }
    }

    fn on_loopback() -> Self {
        let this = std::env::current_exe().unwrap();
        Self::spawn(Command::new(this), "loopback")
    }

    fn address(&self, transport: Transport) -> Address {
        let mut addresses = self.addresses.iter();
        addresses.find(|a| a.transport() == transport).unwrap().clone()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Gone already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A stream to the other process on which one frame has come, and whose own
/// deadline is too far away to help.
async fn patient_stream(here: &Handle, other: &Other, transport: Transport) -> FrameStream {
    let peer = here.dial(other.address(transport)).await.unwrap();
    let limits = FrameLimits { read_timeout: 10 * WAIT, ..FrameLimits::default() };
    let mut stream = here.open(peer, PROTOCOL, WAIT, limits).await.unwrap();
    assert_eq!(stream.recv().await.unwrap().unwrap(), b"hello");
    stream
}

async fn breaks_on(signal: &str, transport: Transport) {
    let here = node().await;
    let other = Other::on_loopback();
    let mut stream = patient_stream(&here, &other, transport).await;
    other.signal(signal);
    let began = std::time::Instant::now();
    let ended = soon(stream.recv()).await;
    println!("{signal} over {transport}: noticed after {:?}", began.elapsed());
    assert!(matches!(ended, Ok(None) | Err(FrameError::Broken { .. })), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_peer_breaks_its_streams() {
    tokio::join!(breaks_on("-KILL", Transport::Quic), breaks_on("-KILL", Transport::Tcp));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_peer_breaks_its_streams() {
    tokio::join!(breaks_on("-STOP", Transport::Quic), breaks_on("-STOP", Transport::Tcp));
}

#[tokio::test]
async fn a_stopped_peer_is_dropped_at_the_frame_deadline_before_that() {
    let here = node().await;
    let other = Other::on_loopback();
    let mut stream = patient_stream(&here, &other, Transport::Quic).await;
    stream.set_read_timeout(Duration::from_millis(200));
    other.signal("-STOP");
    let error = soon(stream.recv()).await.unwrap_err();
    assert!(matches!(error, FrameError::Idle { .. }), "{error}");
}

/// Two namespaces joined by a cable; removed when the test ends.
struct Cable {
    here: String,
    there: String,
}

impl Cable {
    fn plug() -> Self {
        let tag = std::process::id() % 10_000;
        let cable = Self { here: format!("ppa{tag}"), there: format!("ppb{tag}") };
        let (a, b) = (&cable.here, &cable.there);
        ip(&format!("netns add {a}"));
        ip(&format!("netns add {b}"));
        ip(&format!("link add veth0 netns {a} type veth peer name veth0 netns {b}"));
        for (name, host) in [(a, 1), (b, 2)] {
            ip(&format!("-n {name} address add 10.111.0.{host}/24 dev veth0"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link set veth0 up multicast on"));
            ip(&format!("-n {name} route add 224.0.0.0/4 dev veth0"));
        }
        cable
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in [&self.here, &self.there] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn in_namespace(name: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", name]);
    command.arg(std::env::current_exe().unwrap());
    command
}

/// A provider in one namespace, a seeker in another that knows no address.
#[test]
#[ignore = "needs root and iproute2"]
fn peers_on_a_cable_find_each_other_by_multicast() {
    let cable = Cable::plug();
    let _provider = Other::spawn(in_namespace(&cable.there), "lan");
    let status = in_namespace(&cable.here)
        .args(["--exact", "network::faults::seeker_process", "--ignored", "--nocapture"])
        .env(ROLE, "seeker")
        .status()
        .unwrap();
    assert!(status.success());
}

/// Not a test: the seeker of the test above, in its own namespace.
#[tokio::test]
#[ignore = "a helper process of the other tests"]
async fn seeker_process() {
    if std::env::var(ROLE).as_deref() != Ok("seeker") {
        return;
    }
    let began = std::time::Instant::now();
    let (node, mut events) = start(NetConfig::default()).await;
    println!("started after {:?}", began.elapsed());
    let found = node.find_providers(KEY, WAIT).await.unwrap();
    println!("first provider after {:?}", began.elapsed());
    assert_eq!(found.len(), 1);
    let open = node.open(found[0], PROTOCOL, WAIT, FrameLimits::default());
    let mut stream = open.await.unwrap();
    assert_eq!(stream.recv().await.unwrap().unwrap(), b"hello");
    println!("first frame after {:?}", began.elapsed());
    let by_multicast = async {
        while let Some(event) = events.next().await {
            if let Event::PeerFound { source, .. } = event {
                return source;
            }
        }
        unreachable!("the network runs")
    };
    assert_eq!(soon(by_multicast).await, Source::Mdns);
    assert_ne!(found[0], keypair().public().peer_id());
    println!("{:#?}", node.diagnose().await.unwrap());
}
