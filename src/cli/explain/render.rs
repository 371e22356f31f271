//! An explanation for people.

use crate::cli::style::{Sheet, Style};
use crate::proxy::explain::{Action, Cache, Certificate, Endpoint, Explanation, Path, Upstream};

/// All of it, in the order in which it happens.
pub fn text(told: &Explanation, style: Style) -> String {
    let mut sheet = Sheet::new(style);
    sheet.plain(format_args!(
        "{} {}\n",
        style.bold(format_args!("{} {}", told.method, told.url)),
        style.dim(format_args!("from {}", told.from)),
    ));
    let listener = &told.listener;
    let tls = if listener.tls { ", TLS" } else { "" };
    let at = listener.addresses.join(", ");
    sheet.line(
        "listener",
        format_args!("{} ({}{tls}) on {at}", listener.name, listener.protocol),
    );
    sheet.why(&listener.why);
    if let Some(certificate) = &told.certificate {
        self::certificate(&mut sheet, certificate, style);
    }
    if let Some(path) = &told.path {
        sheet.line("path", self::path(path));
    }
    if let Some(route) = &told.route {
        sheet.line("route", style.green(&route.name));
        sheet.why(route.predicates.join("; "));
    }
    others(&mut sheet, told, style);
    if let Some(action) = &told.action {
        sheet.line("action", self::action(action));
    }
    if let Some(cache) = &told.cache {
        self::cache(&mut sheet, cache);
    }
    for upstream in &told.upstreams {
        self::upstream(&mut sheet, upstream, style);
    }
    if let Some(ends) = &told.ends {
        let how = match ends.status {
            Some(status) => format!("{status}: {}", ends.why),
            None => format!("no answer: {}", ends.why),
        };
        sheet.line("ends", style.red(how));
    }
    for note in &told.notes {
        sheet.line("note", note);
    }
    sheet.into_text()
}

fn certificate(sheet: &mut Sheet, certificate: &Certificate, style: Style) {
    let names = match certificate.names.as_slice() {
        [] => "no name".to_owned(),
        names => names.join(", "),
    };
    let text = format!("{} for {names}, until {}", certificate.file, certificate.not_after);
    match certificate.fits {
        true => {
            sheet.line("certificate", text);
            sheet.why(&certificate.why);
        }
        false => {
            sheet.line("certificate", text);
            sheet.line("", style.yellow(&certificate.why));
        }
    }
}

fn path(path: &Path) -> String {
    let query = path.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let mut text = format!("{}{query}", path.received);
    if path.route != path.received {
        text.push_str(&format!(" is matched as {}", path.route));
    }
    if path.forward != path.received {
        text.push_str(&format!(", sent on as {}", path.forward));
    }
    text
}

fn others(sheet: &mut Sheet, told: &Explanation, style: Style) {
    let width = told.others.iter().map(|other| other.route.chars().count()).max();
    let width = width.unwrap_or_default();
    for (n, other) in told.others.iter().enumerate() {
        let name = if n == 0 { "not" } else { "" };
        let padded = format!("{:<width$}", other.route);
        sheet.line(name, format_args!("{padded}  {}", style.dim(&other.why)));
    }
    match (told.others_left_out, told.path.is_some()) {
        (0, _) | (_, false) => {}
        (1, true) => sheet.why("one more route is for another host or path"),
        (n, true) => sheet.why(format_args!("{n} more routes are for other hosts or paths")),
    }
}

fn action(action: &Action) -> String {
    let mut parts = vec![action.kind.clone()];
    parts.extend(action.status.map(|status| status.to_string()));
    parts.extend(action.location.as_ref().map(|location| format!("to {location}")));
    let first = parts.join(" ");
    match action.details.is_empty() {
        true => first,
        false => format!("{first}, {}", action.details.join(", ")),
    }
}

fn cache(sheet: &mut Sheet, cache: &Cache) {
    sheet.line("cache", &cache.name);
    sheet.why(match &cache.key {
        Some(key) => format!("key {key}"),
        None => "the key would be too long: it is not asked".to_owned(),
    });
}

fn upstream(sheet: &mut Sheet, upstream: &Upstream, style: Style) {
    let auto = if upstream.auto { " by auto" } else { "" };
    let share = match upstream.share {
        1.0 => String::new(),
        share => format!(", {} of the requests", percent(share)),
    };
    let attempts = match upstream.attempts {
        1 => "one attempt".to_owned(),
        n => format!("up to {n} attempts"),
    };
    sheet.line(
        "upstream",
        format_args!("{}{share}: {}{auto}, {attempts}", upstream.name, upstream.algorithm),
    );
    sheet.why(&upstream.order);
    if let Some(sticky) = &upstream.sticky {
        sheet.why(sticky);
    }
    let width = |of: fn(&Endpoint) -> usize| upstream.endpoints.iter().map(of).max().unwrap_or_default();
    let address = width(|endpoint| endpoint.address.chars().count());
    let health = width(|endpoint| endpoint.health.len());
    for (n, endpoint) in upstream.endpoints.iter().enumerate() {
        let name = if n == 0 { "endpoints" } else { "" };
        let turn = endpoint.turn.map_or_else(|| "-".to_owned(), |turn| format!("{turn}."));
        let state = format!("{:<health$}", endpoint.health);
        let state = match (endpoint.health.as_str(), endpoint.turn) {
            ("up", Some(_)) => style.green(state),
            ("down", _) => style.red(state),
            _ => style.yellow(state),
        };
        let mut facts = vec![format!("weight {}", endpoint.weight)];
        if endpoint.share > 0.0 {
            facts.push(percent(endpoint.share));
        }
        if endpoint.active > 0 || endpoint.limit.is_some() {
            let of = endpoint.limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
            facts.push(format!("{}{of} under way", endpoint.active));
        }
        facts.extend(endpoint.zone.as_ref().map(|zone| format!("zone {zone}")));
        if endpoint.priority > 0 {
            facts.push(format!("priority {}", endpoint.priority));
        }
        let facts = facts.join(", ");
        let why = match endpoint.why.as_str() {
            "" => String::new(),
            why => format!("; {}", style.dim(why)),
        };
        sheet.line(
            name,
            format_args!("{turn:<3} {:<address$}  {state}  {facts}{why}", endpoint.address),
        );
    }
    if upstream.endpoints_left_out > 0 {
        sheet.why(format_args!("and {} more endpoints", upstream.endpoints_left_out));
    }
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent < 10.0 && percent.fract() != 0.0 {
        true => format!("{percent:.1} %"),
        false => format!("{percent:.0} %"),
    }
}
