//! Requests that are answered by what they carry (QUERY, GraphQL's POST): their content is read, then they are looked up.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::Method;
use tokio::time::Instant;

use super::status::Told;
use super::{Asked, Step, count, find, miss, other, recall};
use crate::cache::apart;
use crate::cache::reason::Reason;
use crate::proxy::error::ProxyError;
use crate::proxy::http::body::{Read, RequestBody};
use crate::proxy::http::request::{Work, send};
use crate::proxy::http::{Request, Response, Scope};
use crate::proxy::record::Record;
use crate::snapshot::Cached;
use crate::telemetry::series::CacheResult;

/// Answers from the store, or asks.
pub async fn answer(
    scope: &Scope<'_>,
    work: &Work<'_>,
    cached: &Arc<Cached>,
    mut asked: Asked,
    record: &mut Record,
) -> Result<Response, ProxyError> {
    let by = &cached.by_content;
    let content = read(&mut asked.request, by.most).await?;
    let request = &mut asked.request;
    let told = content.and_then(|content| Ok((by.tell(&request.method, &request.fields, &content)?, content)));
    let (told, content) = match told {
        Ok(both) => both,
        Err(reason) if request.method == Method::POST => {
            return other::change(scope, work, cached, asked, reason, record).await;
        }
        Err(reason) => {
            let mut response = send(scope, work, asked.request, record).await?;
            Told::forwarded(CacheResult::Bypass, "bypass", Some(reason)).tell(&mut response.fields);
            count(scope, cached, CacheResult::Bypass, record);
            return Ok(response);
        }
    };
    apart::note(&mut request.fields, &cached.cookies);
    apart::note_content(&mut request.fields, &told);
    asked.key = asked.key.with_content(&request.method);
    asked.content = Some(content);
    let mut found = find(scope, work, cached, &mut asked, Instant::now(), record);
    if let Err(Step::Recall { stale }) = found {
        found = recall::find(scope, work, cached, &mut asked, stale, record).await;
    }
    let answered = match found {
        Ok(response) => Ok(response),
        Err(Step::Fetch(missing)) => miss::get(scope, work, cached, &mut asked, missing, record).await,
        // The others are for GET, HEAD and what changes something.
        Err(_) => send(scope, work, asked.request, record).await,
    };
    if answered.is_err() {
        count(scope, cached, CacheResult::Error, record);
    }
    if !told.operation.is_empty() {
        if let Some(result) = record.cache {
            let operations = cached.cache.operations.local(scope.down.worker.id);
            operations.count(&told.operation, &by.operations, result);
        }
        record.note(|line| line.operation = Some(told.operation.into()));
    }
    answered
}

/// Reads what a request carries, which stays where it was for who sends it on. An error is its content's: too much of it,
/// or something behind it.
async fn read(request: &mut Request, most: usize) -> Result<Result<Bytes, Reason>, ProxyError> {
    if request.length.is_some_and(|length| length > most as u64) {
        return Ok(Err(Reason::ContentTooLarge));
    }
    // It is taken whether the endpoint would or not.
    request.expect_continue = false;
    let mut rest = std::mem::replace(&mut request.body, RequestBody::Empty);
    let mut data = BytesMut::new();
    let (result, trailers) = loop {
        let frame = match std::future::poll_fn(|cx| rest.poll_frame(cx)).await {
            None => break (Ok(()), None),
            Some(frame) => frame?,
        };
        match frame.into_data() {
            Ok(part) => data.extend_from_slice(&part),
            Err(frame) => break (Err(Reason::RequestBody), frame.into_trailers().ok()),
        }
        if data.len() > most {
            break (Err(Reason::ContentTooLarge), None);
        }
    };
    let data = data.freeze();
    if result.is_ok() {
        (rest, request.length) = (RequestBody::Empty, Some(data.len() as u64));
    }
    request.body = RequestBody::Read(Box::new(Read {
        data: data.clone(),
        rest,
        trailers,
    }));
    Ok(result.map(|()| data))
}
