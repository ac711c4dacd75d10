//! A request's body, gathered: within its bound in bytes, in time, and in what all bodies may take together.

use axum::body::Body;
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;

use super::App;
use super::buffers::Share;
use super::problem::Problem;

/// Reads all of a body of at most `max` bytes. The share goes with what is made of it.
///
/// # Errors
/// 413 as soon as it is certain, 408, 429 while the others take too much; or why it could not be read. The rest is not read.
pub(super) async fn collect(app: &App, mut body: Body, max: usize) -> Result<(Bytes, Share), Problem> {
    let most = app.handle.serving().body_timeout;
    let mut share = app.buffers.share();
    if body.size_hint().lower() > max as u64 {
        return Err(too_long(app, max));
    }
    let gather = async {
        let mut all = Bytes::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Problem::bad_request(format!("the body could not be read: {error}")))?;
            let Ok(piece) = frame.into_data() else { continue };
            if all.len() + piece.len() > max {
                return Err(too_long(app, max));
            }
            share.hold(all.len() + piece.len())?;
            all = together(all, piece);
        }
        Ok(all)
    };
    let gathered = tokio::time::timeout(most, gather).await;
    let late = |_| {
        let detail = format!("the body did not arrive within {most:?} (`http.body_timeout`)");
        Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail)
    };
    Ok((gathered.map_err(late)??, share))
}

/// One after the other; the first alone, as most bodies come, is not copied.
fn together(all: Bytes, piece: Bytes) -> Bytes {
    if all.is_empty() {
        return piece;
    }
    // What nobody else holds is gone on with.
    let mut all = all.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
    all.extend_from_slice(&piece);
    all.freeze()
}

fn too_long(app: &App, max: usize) -> Problem {
    // How much longer it would have been is not waited for.
    let detail = format!(
        "the request body is longer than {max} bytes: no payload of at most {} bytes (`log.payload_max`) needs so many",
        app.handle.limits().payload_max
    );
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
}
