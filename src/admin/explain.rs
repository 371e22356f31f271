//! `POST /api/v1/explain`: what would become of a request, and why.

use http::{Request, StatusCode};
use hyper::body::Incoming;

use super::body;
use super::respond::{Response, error, json};
use crate::control::Operator;
use crate::proxy::explain::{Question, explain};

/// 200 with the explanation, or 400 with what is wrong with the question and advice.
pub async fn answer(operator: &Operator, request: Request<Incoming>) -> Response {
    let question: Question = match body::json(request).await {
        Ok(question) => question,
        Err(response) => return response,
    };
    let (current, places) = (operator.current.clone(), operator.status.listening());
    // Large upstreams take a while: not on the thread that answers health checks.
    match tokio::task::spawn_blocking(move || explain(&current, &places, &question)).await {
        Ok(Ok(explanation)) => json(StatusCode::OK, &explanation),
        Ok(Err(wrong)) => json(StatusCode::BAD_REQUEST, &wrong),
        Err(e) => error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}
