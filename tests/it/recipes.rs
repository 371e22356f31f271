//! The recipes of docs/caching.md with the real binary: their configuration, and their requests one after the other.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::client::Reply;
use crate::harness::{Client, Origin, PATIENCE, Proxy};

/// A section with a configuration and a table.
#[derive(Default)]
struct Recipe {
    name: String,
    config: String,
    steps: Vec<Step>,
}

/// A row of its table; each cell as what stands in it between backticks.
#[derive(Debug)]
struct Step {
    request: Vec<String>,
    /// Status and fields; empty: it is not asked.
    endpoint: Vec<String>,
    answer: Vec<String>,
}

fn recipes() -> Vec<Recipe> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/caching.md");
    let page = std::fs::read_to_string(page).unwrap();
    let chapter = page.split("\n## Recipes\n").nth(1).expect("a chapter of recipes");
    let chapter = chapter.split("\n## ").next().unwrap_or_default();
    chapter.split("\n### ").skip(1).map(recipe).collect()
}

fn recipe(section: &str) -> Recipe {
    let mut recipe = Recipe::default();
    let mut lines = section.lines();
    recipe.name = lines.next().unwrap_or_default().to_owned();
    while let Some(line) = lines.next() {
        if line == "```toml" {
            for line in lines.by_ref().take_while(|line| *line != "```") {
                recipe.config += line;
                recipe.config.push('\n');
            }
        } else if line.starts_with("| `") {
            let cells: Vec<Vec<String>> = line
                .trim_matches('|')
                .split('|')
                .map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect())
                .collect();
            let [request, endpoint, answer] = cells.try_into().expect("three cells");
            recipe.steps.push(Step {
                request,
                endpoint,
                answer,
            });
        }
    }
    recipe
}

impl Recipe {
    /// With what a recipe leaves out: listeners, and its upstreams.
    fn complete(&self, origin: &Origin) -> String {
        let upstreams: BTreeSet<&str> = self
            .config
            .lines()
            .filter_map(|line| line.strip_prefix("upstream = \"")?.strip_suffix('"'))
            .collect();
        let upstreams: String = upstreams
            .iter()
            .map(|name| format!("[upstreams.{name}]\nendpoints = [\"{}\"]\nretries = 0\n", origin.addr))
            .collect();
        format!(
            "[server]\nworkers = 2\n[admin]\nbind = \"127.0.0.1:0\"\n[listeners.web]\nbind = \"127.0.0.1:0\"\n{}\n{upstreams}",
            self.config
        )
    }

    fn run(&self) {
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let says = said.clone();
        let origin = Origin::start(move |_, stream| {
            let said = says.lock().unwrap();
            let status = said.first().map_or("500", String::as_str);
            let fields: String = said.iter().skip(1).map(|field| format!("{field}\r\n")).collect();
            let body = match status {
                "204" | "304" => "",
                _ => "content-length: 7\r\n\r\ncontent",
            };
            let end = if body.is_empty() { "\r\n" } else { "" };
            write!(stream, "HTTP/1.1 {status} X\r\n{fields}{body}{end}")?;
            Ok(true)
        });
        let proxy = Proxy::start(&self.complete(&origin));
        for step in &self.steps {
            let before = origin.seen().len();
            said.lock().unwrap().clone_from(&step.endpoint);
            // Again until it is so: what was just fetched may not be stored yet, what is fresh has to become stale.
            let until = Instant::now() + PATIENCE;
            let mut reply = step.ask(&proxy);
            while !step.is_answered(&reply) {
                assert!(Instant::now() < until, "{}: {step:?} got {reply:?}", self.name);
                std::thread::sleep(Duration::from_millis(10));
                reply = step.ask(&proxy);
            }
            if step.endpoint.is_empty() {
                assert_eq!(origin.seen().len(), before, "{}: {step:?} asks the endpoint", self.name);
            } else {
                // Behind an answer it may take a moment.
                crate::harness::eventually("the endpoint is asked", || origin.seen().len() > before);
            }
        }
    }
}

impl Step {
    fn ask(&self, proxy: &Proxy) -> Reply {
        let (line, fields) = self.request.split_first().expect("a request");
        let (method, target) = line.split_once(' ').expect("a method");
        let (listener, method, target, body) = match (method, target.split_once(' ')) {
            ("PURGE", _) => ("admin", "POST", "/api/v1/purge", target),
            (_, Some((target, body))) => ("web", method, target, body),
            (_, None) => ("web", method, target, ""),
        };
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let length = match (method, body) {
            ("GET", "") => String::new(),
            _ => format!("Content-Length: {}\r\n", body.len()),
        };
        let mut client = Client::connect(proxy.addr(listener));
        client.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: shop.example\r\n{fields}{length}\r\n{body}"
        ));
        client.reply()
    }

    fn is_answered(&self, reply: &Reply) -> bool {
        let (status, told) = self.answer.split_first().expect("a status");
        let tells = |part: &String| reply.header("cache-status").split("; ").any(|member| member == part);
        reply.status.to_string() == *status && told.iter().all(tells)
    }
}

#[test]
fn the_recipes_of_the_documentation_do_what_they_say() {
    let recipes = recipes();
    assert!(recipes.len() >= 6, "only {} recipes are found", recipes.len());
    for recipe in &recipes {
        assert!(
            recipe.steps.len() >= 4,
            "{} has a table of {}",
            recipe.name,
            recipe.steps.len()
        );
    }
    // Each with a daemon of its own, side by side.
    std::thread::scope(|scope| {
        let runs: Vec<_> = recipes.iter().map(|recipe| scope.spawn(|| recipe.run())).collect();
        for run in runs {
            if let Err(failure) = run.join() {
                std::panic::resume_unwind(failure);
            }
        }
    });
}
