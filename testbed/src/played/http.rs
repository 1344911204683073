//! An HTTP client for one request.

use crate::Result;
use anyhow::Context;
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// Status and body of the answer to one request on that connection, which ends with it. An empty token is not sent.
pub fn ask(
    mut stream: TcpStream,
    method: &str,
    path: &str,
    token: &str,
    body: Option<&Value>,
) -> Result<(u16, String)> {
    let server = stream.peer_addr()?;
    let token = match token {
        "" => String::new(),
        token => format!("Authorization: Bearer {token}\r\n"),
    };
    let body = body.map(Value::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n{token}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("{path}: no head in {answer:?}"))?;
    let status = head.split(' ').nth(1).unwrap_or_default().parse()?;
    Ok((status, body.to_owned()))
}
