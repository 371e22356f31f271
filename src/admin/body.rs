//! What a request to the admin listener carries, bounded in size and time.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::respond::{Response, error};

/// A purge names some thousand URLs at most, a configuration is smaller.
const MAX: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);

/// The whole body, or the response that says why not.
pub async fn whole(request: Request<Incoming>) -> Result<Bytes, Response> {
    let body = Limited::new(request.into_body(), MAX).collect();
    match tokio::time::timeout(TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(error(
            StatusCode::BAD_REQUEST,
            "the body cannot be read, or is larger than 1 MiB",
        )),
        Err(_) => Err(error(StatusCode::REQUEST_TIMEOUT, "the body does not come in time")),
    }
}

/// The same, read as JSON.
pub async fn json<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Response> {
    let body = whole(request).await?;
    serde_json::from_slice(&body).map_err(|e| error(StatusCode::BAD_REQUEST, &e.to_string()))
}
