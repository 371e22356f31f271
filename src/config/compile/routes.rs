//! Routes: which listeners they are for, where they lead, and whether a request can reach them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Names, caches};
use crate::config::diagnostic::{Context, Diagnostic, Span};
use crate::config::plan::{Action, Forward, Route};
use crate::config::schema::listener::Serve;
use crate::config::schema::{Schema, action, route};
use crate::route::{Matcher, PathMatch, unreachable};

/// The routes of the plan, in the same order, and where in `schema.routes` each was written; those with errors are left
/// out.
pub fn compile(
    cx: &Context<'_>,
    schema: &Schema,
    listeners: &mut Names<'_>,
    upstreams: &mut Names<'_>,
    caches: &mut Names<'_>,
) -> (Vec<Route>, Vec<usize>) {
    let names = names(cx, schema);
    let before = cx.errors();
    let mut is_whole = schema.routes.iter().all(|route| route.is_whole);
    let mut planned = Vec::new();
    let mut positions = Vec::new();
    for (n, (written, name)) in schema.routes.iter().zip(names).enumerate() {
        let for_listeners = for_listeners(cx, written, schema, listeners);
        let action = written
            .action
            .as_ref()
            .and_then(|action| compile_action(cx, schema, action, upstreams, caches));
        let (Some(for_listeners), Some(action)) = (for_listeners, action) else {
            is_whole = false;
            continue;
        };
        if written.is_whole {
            positions.push(n);
            planned.push(Route {
                name: name.into(),
                listeners: for_listeners,
                matcher: Arc::new(written.matcher.clone()),
                action,
            });
        }
    }
    check_reach(cx, schema, &planned, &positions);
    if is_whole && cx.errors() == before && !schema.is_partial {
        check_service(cx, schema, &planned);
    }
    (planned, positions)
}

/// Each route's name; those without one are called by their number. Reports names used twice.
fn names(cx: &Context<'_>, schema: &Schema) -> Vec<String> {
    let mut first = BTreeMap::new();
    let mut names = Vec::new();
    for (n, route) in schema.routes.iter().enumerate() {
        let name = match &route.name {
            Some(name) => name.value.clone(),
            None => format!("route-{}", n + 1),
        };
        let span = place(route);
        match first.get(&name) {
            Some(earlier) => cx.push(
                Diagnostic::error(span, format!("two routes have the name `{name}`"))
                    .label("again here")
                    .related(*earlier, "first here"),
            ),
            None => {
                first.insert(name.clone(), span);
            }
        }
        names.push(name);
    }
    names
}

/// Indexes of the listeners `route` is for; `None` when one of them was wrong.
fn for_listeners(
    cx: &Context<'_>,
    route: &route::Route,
    schema: &Schema,
    listeners: &mut Names<'_>,
) -> Option<Vec<usize>> {
    let is_http = |n: usize| {
        schema
            .listeners
            .get(n)
            .is_some_and(|listener| matches!(listener.serve, Some(Serve::Http(_))))
    };
    let Some(written) = &route.listeners else {
        let all: Vec<usize> = (0..schema.listeners.len()).filter(|n| is_http(*n)).collect();
        // Without any listener that has been said already; one that is wrong may have been meant for HTTP.
        let is_settled = schema.listeners.iter().all(|listener| listener.serve.is_some());
        if all.is_empty() && is_settled && !schema.listeners.is_empty() && !schema.is_partial {
            cx.push(Diagnostic::error(route.span, "no listener serves this route").label("there is no http listener"));
        }
        return Some(all);
    };
    if written.value.is_empty() && route.is_whole {
        cx.push(Diagnostic::error(written.span, "no listener serves this route").label("this list is empty"));
    }
    let mut all = Vec::new();
    for name in &written.value {
        let n = listeners.resolve(cx, name);
        if let Some(n) = n
            && let Some(Serve::Tcp(_)) = schema.listeners.get(n).and_then(|listener| listener.serve.as_ref())
        {
            let message = format!("routes are for http listeners, `{}` is a tcp listener", name.value);
            let place = schema.listeners.get(n).map_or(name.span, |listener| listener.name.span);
            cx.push(Diagnostic::error(name.span, message).related(place, "defined here"));
        }
        all.push(n);
    }
    let mut all = all.into_iter().collect::<Option<Vec<usize>>>()?;
    all.sort_unstable();
    all.dedup();
    Some(all)
}

fn compile_action(
    cx: &Context<'_>,
    schema: &Schema,
    action: &action::Action,
    upstreams: &mut Names<'_>,
    caches: &mut Names<'_>,
) -> Option<Action> {
    Some(match action {
        action::Action::Forward(forward) => {
            let resolve = |(name, weight): &(_, u32)| Some((upstreams.resolve(cx, name), *weight));
            let split: Vec<_> = forward.split.iter().filter_map(resolve).collect();
            let cache = forward.cache.as_ref();
            let cache = cache.map(|reference| caches::used(cx, schema, caches, reference));
            Action::Forward(Forward {
                split: split
                    .into_iter()
                    .map(|(n, weight)| Some((n?, weight)))
                    .collect::<Option<_>>()?,
                timeout: forward.timeout,
                max_duration: forward.max_duration,
                importance: forward.importance,
                hedge: forward.hedge,
                max_body: forward.max_body,
                cache: match cache {
                    Some(used) => Some(used?),
                    None => None,
                },
            })
        }
        action::Action::Redirect(redirect) => Action::Redirect(redirect.clone()),
        action::Action::Respond(respond) => Action::Respond(respond.clone()),
    })
}

/// Reports HTTP listeners that would answer everything with 404.
fn check_service(cx: &Context<'_>, schema: &Schema, planned: &[Route]) {
    let mut is_served = vec![false; schema.listeners.len()];
    for n in planned.iter().flat_map(|route| &route.listeners) {
        if let Some(served) = is_served.get_mut(*n) {
            *served = true;
        }
    }
    for (listener, is_served) in schema.listeners.iter().zip(is_served) {
        if matches!(listener.serve, Some(Serve::Http(_))) && !is_served {
            let message = format!("no route serves the listener `{}`", listener.name.value);
            let hint = match schema.routes.is_empty() {
                true => "add `[[routes]]` with an `upstream`, or set `protocol = \"tcp\"` and an `upstream` here",
                false => "every route is narrowed to others by its `listeners`",
            };
            cx.push(Diagnostic::error(listener.name.span, message).help(hint));
        }
    }
}

/// Reports routes that others hide on every listener they are for. `positions`: where each planned one was written.
fn check_reach(cx: &Context<'_>, schema: &Schema, planned: &[Route], positions: &[usize]) {
    // The routes of each listener; listeners with the same routes are looked at once.
    let mut by_listener = vec![Vec::new(); schema.listeners.len()];
    for (n, route) in planned.iter().enumerate() {
        for listener in &route.listeners {
            if let Some(routes) = by_listener.get_mut(*listener) {
                routes.push(n);
            }
        }
    }
    let mut listeners_with: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
    for routes in by_listener {
        *listeners_with.entry(routes).or_default() += 1;
    }
    // For each planned route: on how many listeners it is hidden, and a route that hides it.
    let mut hidden = vec![(0, 0); planned.len()];
    for (routes, listeners) in listeners_with {
        let matchers: Vec<&Matcher> = routes
            .iter()
            .filter_map(|n| planned.get(*n))
            .map(|route| &*route.matcher)
            .collect();
        for (route, by) in unreachable(&matchers) {
            if let (Some(route), Some(by)) = (routes.get(route), routes.get(by))
                && let Some(entry) = hidden.get_mut(*route)
            {
                *entry = (entry.0 + listeners, *by);
            }
        }
    }
    let written = |n: usize| positions.get(n).and_then(|n| schema.routes.get(*n));
    for (n, (route, (times, by))) in planned.iter().zip(hidden).enumerate() {
        if times == 0 || times < route.listeners.len() {
            continue;
        }
        if let (Some(at), Some(other), Some(by)) = (written(n), written(by), planned.get(by)) {
            let error = Diagnostic::error(place(at), format!("no request can reach the route `{}`", route.name))
                .related(
                    place(other),
                    format!("`{}` takes every request it would match", by.name),
                );
            cx.push(match route.matcher.path {
                PathMatch::Regex(_) => {
                    error.help("every prefix comes before a regular expression: set a higher `priority`")
                }
                _ => error,
            });
        }
    }
}

/// Where a route is named, or begins.
fn place(route: &route::Route) -> Span {
    route.name.as_ref().map_or(route.span, |name| name.span)
}
