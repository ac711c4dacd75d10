//! How many jobs a second does an http worker complete, against a load generator on the same endpoint?
//!
//! The endpoint is a child of this program: one thread, HTTP/1.1, reads 200 bytes, answers 200 with none. In turns: `wrk`
//! with one thread (where it is installed), a plain loop of requests with the same client library, and a pool whose jobs
//! wait already: from `resume` to the last completion, payloads read from the log, every end synced. The same number of
//! connections for all.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use biotope::clock::{Clock, RealClock};
use biotope::worker::native::Natives;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use crate::setup::{drained, fresh, median, payload};

const ROUNDS: usize = 3;
const SECONDS: u32 = 3;

pub(crate) fn run(connections: usize, jobs: usize) {
    let (mut child, address) = endpoint();
    let (mut wrks, mut plains, mut signed, mut bare) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        wrks.extend(wrk(address, connections));
        plains.push(plain(address, connections, jobs));
        bare.push(ours(address, connections, jobs, ""));
        signed.push(ours(address, connections, jobs, "secret = { file = \"secret\" }"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let id = format!("services/http/00200B_c{connections:03}");
    let plain = median(plains);
    let limit = if wrks.is_empty() { plain } else { median(wrks) };
    println!(
        "{id}  wrk          {limit:>7.0} requests/s{}",
        if limit == plain { " (not installed: the plain loop)" } else { "" }
    );
    println!("{id}  plain loop   {plain:>7.0} requests/s  {:.2} of wrk", plain / limit);
    for (name, rates) in [("jobs", bare), ("jobs, signed", signed)] {
        let rate = median(rates);
        println!(
            "{id}  {name:<12} {rate:>7.0} /s  {:.2} of wrk, {:.2} of the plain loop  (at least 0.60)",
            rate / limit,
            rate / plain
        );
    }
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

fn wrk(address: SocketAddr, connections: usize) -> Option<f64> {
    let dir = fresh();
    let script = dir.path().join("post.lua");
    let body = String::from_utf8(payload()).unwrap();
    let text =
        format!("wrk.method = \"POST\"\nwrk.headers[\"content-type\"] = \"application/json\"\nwrk.body = [[{body}]]\n");
    std::fs::write(&script, text).unwrap();
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{SECONDS}s"), "-s"])
        .arg(&script)
        .arg(format!("http://{address}/jobs"))
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("Non-2xx"), "{text}");
    text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")).map(|rate| rate.trim().parse().unwrap())
}

fn plain(address: SocketAddr, connections: usize, requests: usize) -> f64 {
    one_thread().block_on(async {
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
    })
}

fn ours(address: SocketAddr, connections: usize, jobs: usize, more: &str) -> f64 {
    let dir = fresh();
    let config = format!(
        "[history]\nindex = \"off\"\n[workers.hook]\nversion = \"v1\"\nhttp = \"http://{address}/jobs\"\n\
         allow_private = true\nconcurrency = {connections}\n{more}\n"
    );
    let path = dir.path().join("biotope.toml");
    std::fs::write(&path, config).unwrap();
    std::fs::write(dir.path().join("secret"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let spec = biotope::generation::load(&path, &Natives::none()).unwrap();
    drained(spec, "hook", jobs, 0)
}
