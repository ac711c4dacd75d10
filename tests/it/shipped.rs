//! The one file that is shipped, alone: in a directory that is its whole world, with no /dev, no /proc and no library.
//!
//! `BIOTOPE_SHIPPED` names it; `tests/run` makes it by `deploy.sh build`. Names are looked up at a service of the test's own,
//! on an address of the loopback network that nobody else has.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, Stream};

use crate::support::{Biotope, Home, has_program, program, repository, shipped, shown, skipped};

/// The most that the file may take.
const BYTES_MAX: u64 = 15 << 20;

/// Reads a request and answers that all is well, with its path as the result.
fn serve(mut stream: impl Read + Write) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    stream.read_exact(&mut vec![0; length.parse().unwrap()])?;
    let body = format!("\"{}\"", head.split(' ').nth(1).unwrap());
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    stream.flush()
}

/// A service that is there as long as the test's process; its port.
fn service(speak: impl Fn(TcpStream) -> std::io::Result<()> + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // Who does not trust it goes away in the middle.
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(speak(stream))));
    port
}

/// A service that shows the certificate of `hook.test`; its port.
fn tls_service() -> u16 {
    let fixtures = repository().join("tests/fixtures/tls");
    let chain = CertificateDer::pem_file_iter(fixtures.join("cert.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(fixtures.join("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(chain, key).unwrap());
    service(move |mut stream| {
        let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        serve(Stream::new(&mut connection, &mut stream))
    })
}

/// A name service that knows `names`, all of them on this machine; its address.
fn name_service(names: &'static [&'static str]) -> Ipv4Addr {
    let [low, high, ..] = std::process::id().to_le_bytes();
    let address = Ipv4Addr::new(127, 53, high, low);
    let socket = UdpSocket::bind((address, 53)).unwrap();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            drop(socket.send_to(&name_answer(&query[..length], names), from));
        }
    });
    address
}

/// What a name service answers: an address for those that it knows, nothing else of them, and no such name for others.
fn name_answer(query: &[u8], names: &[&str]) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).into_owned());
        at = end;
    }
    let is_known = names.contains(&labels.join(".").as_str());
    let is_found = is_known && query[at + 1..at + 3] == [0, 1];
    let (code, found) = (if is_known { 0 } else { 3 }, u8::from(is_found));
    let mut answer = [&query[..2], &[0x81, 0x80 | code, 0, 1, 0, found, 0, 0, 0, 0], &query[12..at + 5]].concat();
    if is_found {
        answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

/// A directory that is all there is.
struct World<'a> {
    home: &'a Home,
    root: PathBuf,
}

impl<'a> World<'a> {
    fn new(home: &'a Home, shipped: &Path) -> Self {
        let root = home.path("root");
        std::fs::create_dir(&root).unwrap();
        program(&root.join("biotope"), &std::fs::read(shipped).unwrap());
        Self { home, root }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn configure(&self, workers: &str) {
        let port = self.home.port;
        self.write("biotope.toml", &format!("data_dir = \"/data\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n{workers}"));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.root).arg("/biotope").args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    fn cli(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", shown(&output));
        output
    }

    fn start(&self) -> Biotope<'a> {
        self.home.start_by(self.command(&["run", "/biotope.toml"]))
    }
}

/// Pushes a job of a type, and waits until it is in this state.
fn one(biotope: &Biotope<'_>, worker_type: &str, state: &str) -> Value {
    biotope.until_state(&biotope.push(&json!({ "type": worker_type, "payload": 1, "max_attempts": 1 })), state)
}

/// The table of a type that calls a service.
fn calls(worker_type: &str, version: &str, url: &str) -> String {
    format!("[workers.{worker_type}]\nversion = \"{version}\"\nhttp = \"{url}\"\nallow_private = true\n")
}

#[test]
fn the_shipped_file_needs_nothing_but_itself_and_a_config() {
    let name = "the_shipped_file_needs_nothing_but_itself_and_a_config";
    let Some(shipped) = shipped() else {
        return skipped(name, "BIOTOPE_SHIPPED names no file that deploy.sh build made");
    };
    if !rustix::process::geteuid().is_root() || !has_program("chroot") {
        return skipped(name, "only root may chroot");
    }
    let length = std::fs::metadata(&shipped).unwrap().len();
    assert!(length < BYTES_MAX, "{length} bytes");
    let home = Home::bare();
    let world = World::new(&home, &shipped);
    let (plain, tls) = (service(serve), tls_service());
    let itself = "[workers.itself]\nversion = \"v1\"\nexec = [\"/biotope\", \"--version\"]\n";
    let local = calls("local", "v1", &format!("http://localhost:{plain}/local"));

    // Nothing but the file and its config.
    world.configure(&format!("{itself}{local}"));
    let biotope = world.start();
    assert_eq!(one(&biotope, "local", "completed")["result"], "/local");
    let version = String::from_utf8(world.cli(&["--version"]).stdout).unwrap();
    assert_eq!(one(&biotope, "itself", "completed")["result"], version.trim_end());
    let status = world.cli(&["--url", &format!("http://localhost:{}", home.port), "status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("itself"), "{}", shown(&status));
    biotope.stop();

    // Names come of a file and of a service; authorities are built in.
    world.write("etc/resolv.conf", &format!("nameserver {}\n", name_service(&["dns.test", "hook.test"])));
    world.write("etc/hosts", "127.0.0.1 hosts.test\n");
    // What other systems have in it is nothing that the file could load.
    world.write("etc/nsswitch.conf", "hosts: mymachines resolve [!UNAVAIL=return] myhostname\n");
    let named = calls("dns", "v1", &format!("http://dns.test:{plain}/dns"))
        + &calls("hosts", "v1", &format!("http://hosts.test:{plain}/hosts"))
        + &calls("unknown", "v1", &format!("http://unknown.test:{plain}/"));
    let hook = |version| calls("hook", version, &format!("https://hook.test:{tls}/hook"));
    world.configure(&format!("{itself}{named}{}", hook("v1")));
    let biotope = world.start();
    assert_eq!(one(&biotope, "dns", "completed")["result"], "/dns");
    assert_eq!(one(&biotope, "hosts", "completed")["result"], "/hosts");
    let job = one(&biotope, "unknown", "dead");
    assert!(job.to_string().contains("no address that can be found"), "{job}");
    let job = one(&biotope, "hook", "dead");
    assert!(job.to_string().contains("UnknownIssuer"), "nobody built in has signed it: {job}");

    // The system's own go before those.
    let authority = std::fs::read_to_string(repository().join("tests/fixtures/tls/ca.pem")).unwrap();
    world.write("etc/ssl/certs/ca-certificates.crt", &authority);
    world.configure(&format!("{itself}{named}{}", hook("v2")));
    biotope.signal(Signal::HUP);
    biotope.until_version("hook", "v2", "current");
    assert_eq!(one(&biotope, "hook", "completed")["result"], "/hook");
    biotope.stop();
}
