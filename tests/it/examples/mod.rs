//! The examples as programs: usage, exit codes, closed pipes, logs and the answers of M1 and M2.
//! `.ci/three-processes` has the cases that need several tools.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::time::timeout;
use tower_m2m::EmbeddedCore;
use tower_m2m::testing::{RecordingServer, TestAuthority};

use crate::client_credentials::{JSON, response};
use crate::support::{DeadPort, TIMEOUT, example, serve};

mod chain;
mod grpc;
mod metrics;
mod mint;
mod servers;
mod usage;

const API_KEY: &str = "key-one-0123456789abcdef";

fn run(name: &str, flags: &[&str]) -> Output {
    example(name).args(flags).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a program while this thread drives the test's servers, which the program calls.
async fn run_on_a_thread(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// A running server, killed on drop.
struct Server {
    process: Child,
    url: String,
    log: Option<BufReader<ChildStderr>>,
}

impl Server {
    fn start(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").expect(&line).to_owned();
        let log = process.stderr.take().map(BufReader::new);
        Self { process, url, log }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// The exit code and the log, once the process has ended.
    async fn ended(&mut self) -> (Option<i32>, String) {
        let mut stderr = self.log.take().unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).unwrap();
            log
        });
        let log = timeout(TIMEOUT, read).await.expect("the server does not stop").unwrap();
        (self.process.wait().unwrap().code(), log)
    }

    async fn status(&self, path: &str) -> u16 {
        reqwest::get(format!("{}{path}", self.url)).await.unwrap().status().as_u16()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An `m2` with the keys of `jwks`.
fn m2(jwks: &str, flags: &[&str]) -> Server {
    let mut command = example("m2");
    command.args(["--listen", "127.0.0.1:0", "--jwks", jwks]).args(flags);
    Server::start(command)
}
