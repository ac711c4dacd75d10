//! `POST /v1/backup`: all of the log up to now, as one stream; see [`crate::log::stream`].

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::channel;

use super::problem::Problem;
use super::{App, answer};
use crate::log::stream::broken_off;

/// Pieces that may wait for a slow reader.
const PIECES_AHEAD: usize = 4;

/// What is copied stays on disk until it is sent, or the reader is gone.
pub(super) async fn backup(State(app): State<App>) -> Result<Response, Problem> {
    let held = answer(&app.handle, |then| app.handle.hold_for_backup(then)).await??;
    let (mut pieces, channel) = channel::Channel::<Bytes, std::io::Error>::new(PIECES_AHEAD);
    let runtime = tokio::runtime::Handle::current();
    let send_all = move || {
        tracing::info!(segments = held.segments(), "a backup begins");
        let mut send = |piece: Bytes| runtime.block_on(pieces.send_data(piece)).is_ok();
        match held.send(&mut send) {
            Ok(()) => tracing::info!("a backup is sent, or its reader is gone"),
            Err(error) => {
                tracing::error!(%error, "a backup cannot be whole");
                send(broken_off(&error.to_string()));
            }
        }
    };
    // A reader may take as long as it likes: not on one of the threads that others wait for.
    let thread = std::thread::Builder::new().name("backup".to_owned()).spawn(send_all);
    thread.map_err(|error| {
        let detail = format!("no thread for a backup: {error}; ask again when others have ended");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
    })?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::new(channel)).into_response())
}
