//! `/api/v1/upstreams/NAME/endpoints/ADDRESS`: what an endpoint is to do, beside the configuration.
//!
//! Orders change atomics of the endpoint's state, which reloads keep: they stand until they are undone.

use std::borrow::Cow;

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::respond::{Response, error, json, not_allowed};
use crate::control::Operator;
use crate::endpoint::duty::{By, Duty, Orders};
use crate::snapshot::Snapshot;
use crate::upstream::{Member, Upstream};

pub const PREFIX: &str = "/api/v1/upstreams/";

/// The largest weight there is in a configuration.
const MAX_WEIGHT: u16 = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Duty(Duty),
    Weight(u16),
    /// As the configuration says.
    Reset,
}

#[derive(Debug, Serialize)]
struct Answer {
    endpoints: Vec<One>,
}

#[derive(Debug, Serialize)]
struct One {
    upstream: String,
    address: String,
    duty: &'static str,
    duty_by: Vec<&'static str>,
    weight: u16,
    weight_configured: u16,
    active: u32,
}

/// Answers GET (`reads`) and POST (`orders`) below [`PREFIX`].
pub fn answer(operator: &Operator, orders: bool, reads: bool, path: &str, query: Option<&str>) -> Response {
    let rest = path.strip_prefix(PREFIX).unwrap_or_default();
    let parts: Vec<Cow<'_, str>> = rest
        .split('/')
        .map(|part| percent_decode_str(part).decode_utf8_lossy())
        .collect();
    let (name, address, order) = match parts.as_slice() {
        [name, word, address] if word == "endpoints" => (name, address, None),
        [name, word, address, order] if word == "endpoints" => (name, address, Some(order)),
        _ => return error(StatusCode::NOT_FOUND, "there is nothing here"),
    };
    let order = match order {
        None if reads => None,
        None => return not_allowed("GET, HEAD"),
        Some(_) if !orders => return not_allowed("POST"),
        Some(order) => match read(order, query) {
            Ok(order) => Some(order),
            Err((status, why)) => return error(status, &why),
        },
    };
    let snapshot = operator.current.get();
    let Some(upstream) = snapshot.upstreams.iter().find(|u| *u.name == **name) else {
        return error(StatusCode::NOT_FOUND, &format!("there is no upstream `{name}`"));
    };
    let members = upstream.members();
    // A name stands for all of its addresses.
    let is_it = |m: &&Member| *m.endpoint.label == **address || m.endpoint.configured.to_string() == **address;
    let found: Vec<&Member> = members.iter().filter(is_it).collect();
    if found.is_empty() {
        let all: Vec<&str> = members.iter().map(|m| &*m.endpoint.label).take(20).collect();
        let why = format!("upstream `{name}` has no endpoint `{address}`, but {}", all.join(", "));
        return error(StatusCode::NOT_FOUND, &why);
    }
    if let Some(order) = order {
        found.iter().for_each(|member| carry_out(upstream, member, order));
        upstream.refresh();
    }
    let one = |member: &&Member| One {
        upstream: upstream.name.to_string(),
        address: member.endpoint.label.to_string(),
        duty: member.endpoint.orders.duty().label(),
        duty_by: who(&member.endpoint.orders),
        weight: member.endpoint.orders.weight(member.weight),
        weight_configured: member.weight,
        active: member.endpoint.active(),
    };
    let endpoints = found.iter().map(one).collect();
    json(StatusCode::OK, &Answer { endpoints })
}

fn read(order: &str, query: Option<&str>) -> Result<Order, (StatusCode, String)> {
    Ok(match order {
        "drain" => Order::Duty(Duty::Draining),
        "disable" => Order::Duty(Duty::Disabled),
        "undrain" | "enable" => Order::Duty(Duty::Active),
        "reset" => Order::Reset,
        "weight" => {
            let value = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("value=")));
            let weight = value.and_then(|value| value.parse().ok());
            let weight = weight.filter(|weight| *weight <= MAX_WEIGHT).ok_or_else(|| {
                let why = format!("`?value=` must be a whole number from 0 to {MAX_WEIGHT}");
                (StatusCode::BAD_REQUEST, why)
            })?;
            Order::Weight(weight)
        }
        _ => {
            let why = "there is no such order: drain, undrain, disable, enable, weight, reset";
            return Err((StatusCode::NOT_FOUND, why.to_owned()));
        }
    })
}

fn carry_out(upstream: &Upstream, member: &Member, order: Order) {
    let orders = &member.endpoint.orders;
    match order {
        Order::Duty(duty) => {
            orders.set_duty(By::Operator, duty);
        }
        Order::Weight(weight) => orders.set_operators_weight(Some(weight).filter(|w| *w != member.weight)),
        Order::Reset => {
            orders.set_duty(By::Operator, Duty::Active);
            orders.set_operators_weight(None);
        }
    }
    tracing::info!(
        upstream = %upstream.name,
        endpoint = %member.endpoint.label,
        duty = orders.duty().label(),
        weight = orders.weight(member.weight),
        "an operator gave an order"
    );
}

/// Who keeps work away.
pub fn who(orders: &Orders) -> Vec<&'static str> {
    let keeps = |by: &By| orders.duty_by(*by) != Duty::Active;
    By::ALL.into_iter().filter(keeps).map(By::label).collect()
}

/// What operators have ordered and the configuration does not say, in words.
pub fn deviations(snapshot: &Snapshot) -> Vec<String> {
    let mut all = Vec::new();
    for upstream in &snapshot.upstreams {
        for member in upstream.members().iter() {
            let orders = &member.endpoint.orders;
            let place = || format!("upstream {} endpoint {}", upstream.name, member.endpoint.label);
            let duty = orders.duty_by(By::Operator);
            if duty != Duty::Active {
                all.push(format!("{}: {}", place(), duty.label()));
            }
            if let Some(weight) = orders.operators_weight() {
                all.push(format!("{}: weight {weight} instead of {}", place(), member.weight));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_words_and_weights_have_a_range() {
        assert_eq!(read("drain", None), Ok(Order::Duty(Duty::Draining)));
        assert_eq!(read("enable", Some("x")), Ok(Order::Duty(Duty::Active)));
        assert_eq!(read("weight", Some("a=b&value=0")), Ok(Order::Weight(0)));
        for query in [
            None,
            Some(""),
            Some("value="),
            Some("value=257"),
            Some("value=-1"),
            Some("value=1.5"),
        ] {
            assert_eq!(
                read("weight", query).unwrap_err().0,
                StatusCode::BAD_REQUEST,
                "{query:?}"
            );
        }
        assert_eq!(read("kill", None).unwrap_err().0, StatusCode::NOT_FOUND);
    }
}
