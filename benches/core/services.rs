//! How many jobs a second does an http worker complete, against a load generator on the same endpoint?
//!
//! The endpoint is a child of this program: one thread, HTTP/1.1, reads 200 bytes, answers 200 with none. In turns: `wrk`
//! with one thread (where it is installed), bare and with all headers that a job's request has, a plain loop of requests with the same
//! client library, and a pool whose jobs wait already: from `resume` to the last completion, payloads read from the log, every end synced. The same number of
//! connections for all. Beside each rate the processor time of a request, here and at the endpoint, which the machine's other
//! load changes little: two cores have twice a second's worth of it.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};

use biotope::clock::{Clock, RealClock};
use biotope::worker::native::Natives;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use crate::setup::{drained_between, fresh, median, payload};

const ROUNDS: usize = 5;
const SECONDS: u32 = 3;
/// What signs a job's request.
const SECRET: &str = "secret = { file = \"secret\" }";

/// How many requests a second, and the microseconds of processor time of one: of who asks, and of the endpoint.
#[derive(Clone, Copy)]
struct Rate {
    per_second: f64,
    here: f64,
    there: f64,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { per_second, here, there } = self;
        write!(f, "{per_second:>7.0} /s, {here:>4.1} + {there:>4.1} us")
    }
}

pub(crate) fn run(connections: usize, jobs: usize) {
    let (mut child, address) = endpoint();
    let cpu = || Cpu::now(child.id());
    let headers = headers_of_a_job();
    let (mut wrks, mut alike) = (Vec::new(), Vec::new());
    let (mut plains, mut signed, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        wrks.extend(wrk(address, connections, &[("content-type".to_owned(), "application/json".to_owned())], &cpu));
        alike.extend(wrk(address, connections, &headers, &cpu));
        plains.push(plain(address, connections, jobs, &cpu));
        bare.push(ours(address, connections, jobs, "", &cpu));
        signed.push(ours(address, connections, jobs, SECRET, &cpu));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let id = format!("services/http/00200B_c{connections:03}");
    let is_plain = wrks.is_empty();
    let limits = if is_plain { plains.clone() } else { wrks };
    println!(
        "{id}  wrk          {}{}",
        middle(&limits),
        if is_plain { " (not installed: the plain loop)" } else { "" }
    );
    println!("{id}  plain loop   {}  {:.2} of wrk", middle(&plains), ratio(&plains, &limits));
    for (name, rates) in [("jobs", &bare), ("jobs, signed", &signed)] {
        println!(
            "{id}  {name:<12} {}  {:.2} of wrk, {:.2} of the plain loop  (at least 0.60)",
            middle(rates),
            ratio(rates, &limits),
            ratio(rates, &plains)
        );
    }
    if !is_plain {
        let (wrk, many) = (middle(&alike), headers.len());
        println!(
            "{id}  wrk with the {many} headers of a signed job {wrk}; signed jobs {:.2} of that",
            ratio(&signed, &alike)
        );
    }
}

/// The ratio in the middle of those of each round: what slows a round down slows both.
fn ratio(rates: &[Rate], limits: &[Rate]) -> f64 {
    median(rates.iter().zip(limits).map(|(rate, limit)| rate.per_second / limit.per_second).collect())
}

/// The one in the middle, by requests a second.
fn middle(rates: &[Rate]) -> Rate {
    let mut rates = rates.to_vec();
    rates.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    rates.into_iter().nth(ROUNDS / 2).unwrap()
}

/// Processor time up to now, in microseconds.
#[derive(Clone, Copy)]
struct Cpu {
    own: f64,
    children: f64,
    there: f64,
}

impl Cpu {
    fn now(endpoint: u32) -> Self {
        let ([own, children], [there, _]) = (spent("self"), spent(&endpoint.to_string()));
        Self { own, children, there }
    }

    /// What became of so many requests since.
    fn rate(self, now: Self, per_second: f64, requests: f64) -> Rate {
        let here = (now.own + now.children - self.own - self.children) / requests;
        Rate { per_second, here, there: (now.there - self.there) / requests }
    }
}

/// Processor time of a process, and of those children of it that it has waited for; in microseconds.
fn spent(pid: &str) -> [f64; 2] {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name: fields 14 to 17, in hundredths of a second.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at - 3).unwrap().parse::<f64>().unwrap() * 10_000.0;
    [ticks(14) + ticks(15), ticks(16) + ticks(17)]
}

/// Starts the endpoint; it lives until it is killed, or this process is gone.
fn endpoint() -> (Child, SocketAddr) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut child = command.arg("endpoint").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().parse().unwrap())
}

/// The endpoint itself.
pub(crate) fn serve() {
    // Ends with whoever started it.
    std::thread::spawn(|| {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        std::process::exit(0);
    });
    one_thread().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            drop(stream.set_nodelay(true));
            let answer = hyper::service::service_fn(|request: Request<Incoming>| async {
                request.into_body().collect().await.map(|_| Response::new(Empty::<Bytes>::new()))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
}

fn one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Names and values of the headers that a job's request has, signed, but for those that a client makes itself.
fn headers_of_a_job() -> Vec<(String, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let one = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        let headers = lines.by_ref().skip(1).take_while(|line| !line.is_empty());
        let headers: Vec<(String, String)> = headers
            .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())))
            .filter(|(name, _)| !["host", "content-length"].contains(&name.as_str()))
            .collect();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        headers
    });
    ours(address, 1, 1, SECRET, &|| Cpu { own: 0.0, children: 0.0, there: 0.0 });
    one.join().unwrap()
}

fn wrk(address: SocketAddr, connections: usize, headers: &[(String, String)], cpu: &dyn Fn() -> Cpu) -> Option<Rate> {
    let dir = fresh();
    let script = dir.path().join("post.lua");
    let body = String::from_utf8(payload()).unwrap();
    let headers: String =
        headers.iter().map(|(name, value)| format!("wrk.headers[\"{name}\"] = [[{value}]]\n")).collect();
    let text = format!("wrk.method = \"POST\"\n{headers}wrk.body = [[{body}]]\n");
    std::fs::write(&script, text).unwrap();
    let before = cpu();
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{SECONDS}s"), "-s"])
        .arg(&script)
        .arg(format!("http://{address}/jobs"))
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("Non-2xx"), "{text}");
    let after = cpu();
    let number = |line: &str| line.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
    let requests = text.lines().find(|line| line.contains(" requests in ")).and_then(number)?;
    let per_second = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")).and_then(number)?;
    Some(before.rate(after, per_second, requests))
}

fn plain(address: SocketAddr, connections: usize, requests: usize, cpu: &dyn Fn() -> Cpu) -> Rate {
    let before = cpu();
    let per_second = one_thread().block_on(async {
        let body = Bytes::from(payload());
        let mut loops = tokio::task::JoinSet::new();
        let began = RealClock.mono();
        for _ in 0..connections {
            let body = body.clone();
            loops.spawn(async move {
                let stream = tokio::net::TcpStream::connect(address).await.unwrap();
                drop(stream.set_nodelay(true));
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                for _ in 0..requests / connections {
                    sender.ready().await.unwrap();
                    let request = Request::post("/jobs")
                        .header("host", address.to_string())
                        .header("content-type", "application/json")
                        .body(Full::new(body.clone()))
                        .unwrap();
                    let response = sender.send_request(request).await.unwrap();
                    assert!(response.status().is_success());
                    response.into_body().collect().await.unwrap();
                }
            });
        }
        while let Some(ended) = loops.join_next().await {
            ended.unwrap();
        }
        requests as f64 / (RealClock.mono() - began).as_secs_f64()
    });
    before.rate(cpu(), per_second, requests as f64)
}

fn ours(address: SocketAddr, connections: usize, jobs: usize, more: &str, cpu: &dyn Fn() -> Cpu) -> Rate {
    let dir = fresh();
    let config = format!(
        "[history]\nindex = \"off\"\n[workers.hook]\nversion = \"v1\"\nhttp = \"http://{address}/jobs\"\n\
         allow_private = true\nconcurrency = {connections}\n{more}\n"
    );
    let path = dir.path().join("biotope.toml");
    std::fs::write(&path, config).unwrap();
    let mut secret =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.path().join("secret")).unwrap();
    secret.write_all(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let spec = biotope::generation::load(&path, &Natives::none()).unwrap();
    let (per_second, [before, after]) = drained_between(spec, "hook", jobs, 0, cpu);
    before.rate(after, per_second, jobs as f64)
}
