//! Joins a session to a local stream, each direction ending by itself.

use std::io;
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};

use crate::error::{Error, Result};
use crate::session::{Session, cut_off};

/// The size of the buffer that each direction has.
const BUFFER_BYTES: usize = 64 * 1024;

/// How many bytes went which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes that went to the endpoint.
    pub sent: u64,
    /// Bytes that came from the endpoint.
    pub received: u64,
}

/// Which end of a direction failed.
enum Failure {
    Session(io::Error),
    Local(Error),
}

/// Copies both ways until both directions have ended.
///
/// The end of `input` becomes close_notify, close_notify the shutdown of `output`. Where the session is cut
/// off, everything that came before is delivered, `output` is not shut down, and the error says so. Where a
/// local end fails, the session is dropped without close_notify, which the endpoint sees as cut off.
pub async fn join(
    session: Session,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin,
) -> Result<Totals> {
    let (peer, policy) = (session.peer().to_owned(), session.policy());
    let watch = session.reset_watch();
    let (reader, writer) = split(session);
    let mut upload = pin!(upload(input, writer));
    let mut download = pin!(download(reader, output));
    let (sent, received) = tokio::select! {
        sent = &mut upload => match sent {
            Err(Failure::Local(error)) => return Err(error),
            // The reading side tells why, and may still have something to deliver.
            sent => (sent, download.await),
        },
        received = &mut download => match received {
            Ok(received) => {
                let sent = tokio::select! {
                    biased;
                    sent = &mut upload => sent,
                    error = watch.reset() => Err(Failure::Session(error)),
                };
                (sent, Ok(received))
            }
            failed => (Ok(0), failed),
        },
    };
    let total = |direction| match direction {
        Ok(bytes) => Ok(bytes),
        Err(Failure::Session(error)) => Err(cut_off(&peer, policy, &error)),
        Err(Failure::Local(error)) => Err(error),
    };
    let received = total(received)?;
    Ok(Totals { sent: total(sent)?, received })
}

async fn upload(
    mut input: impl AsyncRead + Unpin,
    mut session: impl AsyncWrite + Unpin,
) -> Result<u64, Failure> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut sent = 0;
    loop {
        let read = input
            .read(&mut buffer)
            .await
            .map_err(|source| Failure::Local(Error::Local { what: "reading what is to be sent", source }))?;
        if read == 0 {
            session.shutdown().await.map_err(Failure::Session)?;
            return Ok(sent);
        }
        session.write_all(&buffer[..read]).await.map_err(Failure::Session)?;
        // Records that the socket did not take at once wait in the TLS session until it is flushed.
        session.flush().await.map_err(Failure::Session)?;
        sent += read as u64;
    }
}

async fn download(
    mut session: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> Result<u64, Failure> {
    let local = |source| Failure::Local(Error::Local { what: "delivering what was received", source });
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut received = 0;
    loop {
        let read = session.read(&mut buffer).await.map_err(Failure::Session)?;
        if read == 0 {
            output.shutdown().await.map_err(local)?;
            return Ok(received);
        }
        output.write_all(&buffer[..read]).await.map_err(local)?;
        output.flush().await.map_err(local)?;
        received += read as u64;
    }
}
