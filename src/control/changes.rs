//! What a reload changed, in words for the log.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::config::plan::Plan;

/// One phrase per thing that was added, removed or changed; empty when nothing was.
pub fn between(old: &Plan, new: &Plan) -> Vec<String> {
    let mut changes = Vec::new();
    named(
        &mut changes,
        "listener",
        old.listeners.iter().map(|l| (&*l.name, l)),
        new.listeners.iter().map(|l| (&*l.name, l)),
    );
    // Routes name what they refer to by position: the names are what counts.
    let routes = |plan: &Plan| -> Vec<(String, String)> {
        plan.routes
            .iter()
            .map(|r| (r.name.to_string(), described(plan, r)))
            .collect()
    };
    let (before, after) = (routes(old), routes(new));
    named(
        &mut changes,
        "route",
        before.iter().map(|(n, d)| (n.as_str(), d)),
        after.iter().map(|(n, d)| (n.as_str(), d)),
    );
    named(
        &mut changes,
        "upstream",
        old.upstreams.iter().map(|u| (&*u.name, u)),
        new.upstreams.iter().map(|u| (&*u.name, u)),
    );
    named(
        &mut changes,
        "cache",
        old.caches.iter().map(|c| (&*c.name, c)),
        new.caches.iter().map(|c| (&*c.name, c)),
    );
    let names = |plan: &Plan| plan.routes.iter().map(|r| r.name.to_string()).collect::<Vec<_>>();
    let (before, after) = (names(old), names(new));
    if before != after && changes.iter().all(|c| !c.starts_with("route ")) {
        changes.push("order of routes".to_owned());
    }
    single(&mut changes, "server", &old.server, &new.server);
    single(&mut changes, "admin", &old.admin, &new.admin);
    single(&mut changes, "log", &old.log, &new.log);
    single(&mut changes, "access_log", &old.access_log, &new.access_log);
    changes
}

fn described(plan: &Plan, route: &crate::config::plan::Route) -> String {
    use crate::config::plan::Action;
    let listeners: Vec<_> = route
        .listeners
        .iter()
        .filter_map(|i| plan.listeners.get(*i))
        .map(|l| &l.name)
        .collect();
    let action = match &route.action {
        Action::Forward(forward) => {
            let split: Vec<_> = forward
                .split
                .iter()
                .map(|(i, weight)| (plan.upstreams.get(*i).map(|u| &u.name), weight))
                .collect();
            let cache = forward
                .cache
                .as_ref()
                .map(|used| (plan.caches.get(used.cache).map(|c| &c.name), used));
            format!("{split:?} {:?} {:?} {cache:?}", forward.timeout, forward.max_body)
        }
        other => format!("{other:?}"),
    };
    format!("{listeners:?} {:?} {action}", route.matcher)
}

fn named<'a, T: Debug + 'a>(
    changes: &mut Vec<String>,
    what: &str,
    old: impl Iterator<Item = (&'a str, T)>,
    new: impl Iterator<Item = (&'a str, T)>,
) {
    let old: BTreeMap<_, _> = old.map(|(name, value)| (name, format!("{value:?}"))).collect();
    let new: BTreeMap<_, _> = new.map(|(name, value)| (name, format!("{value:?}"))).collect();
    for (name, value) in &new {
        match old.get(name) {
            None => changes.push(format!("{what} {name} added")),
            Some(before) if before != value => changes.push(format!("{what} {name} changed")),
            Some(_) => {}
        }
    }
    changes.extend(
        old.keys()
            .filter(|name| !new.contains_key(*name))
            .map(|name| format!("{what} {name} removed")),
    );
}

fn single<T: PartialEq>(changes: &mut Vec<String>, what: &str, old: &T, new: &T) {
    if old != new {
        changes.push(format!("{what} changed"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_text;

    fn plan(text: &str) -> Plan {
        load_text("test", text)
            .unwrap_or_else(|e| panic!("{}", e.render(false)))
            .plan
    }

    const BASE: &str = "[listeners.web]\nbind = \"127.0.0.1:18090\"\n[[routes]]\nname = \"a\"\nupstream = \"u\"\n\
                        [upstreams.u]\nendpoints = [\"127.0.0.1:1\"]\n";

    #[test]
    fn says_what_changed_and_nothing_else() {
        assert!(between(&plan(BASE), &plan(BASE)).is_empty());
        let other = BASE
            .replace("127.0.0.1:1\"", "127.0.0.1:2\"")
            .replace("listeners.web", "listeners.site");
        assert_eq!(
            between(&plan(BASE), &plan(&other)),
            [
                "listener site added",
                "listener web removed",
                "route a changed",
                "upstream u changed"
            ]
        );
        let first = format!(
            "{BASE}[upstreams.b]\nendpoints = [\"127.0.0.1:9\"]\n[[routes]]\npath = \"/b\"\nname = \"b\"\nupstream = \"b\"\n"
        );
        assert_eq!(
            between(&plan(BASE), &plan(&first)),
            ["route b added", "upstream b added"]
        );
        assert_eq!(
            between(&plan(&first), &plan(BASE)),
            ["route b removed", "upstream b removed"]
        );
    }
}
