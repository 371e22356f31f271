//! From text to plan: sources and includes, the schema, the compiler, diagnostics. Opens no socket.
//!
//! `source` reads files into one document of values, [`schema`] gives them types, [`compile`] resolves names and
//! checks what concerns several tables. Every step reports to one [`diagnostic::Context`] and goes on, so that all
//! errors are told at once; a [`plan::Plan`] comes out only when there was none.

pub mod compile;
pub mod defaults;
pub mod diagnostic;
pub mod environment;
pub mod plan;
mod reader;
pub mod report;
pub mod schema;
mod source;
mod syntax;
mod value;
mod variable;

use std::path::Path;
use std::sync::Arc;

use diagnostic::Context;
use environment::Environment;
use plan::Plan;
use report::Report;
use source::Origin;

/// A configuration without errors.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub plan: Plan,
    pub warnings: Report,
}

/// Reads and checks the file at `path` and all it includes, in the environment of this process.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    load_in(&Environment::of_process(), path)
}

/// As [`load`], for a text that stands in no file; messages call it `name`.
pub fn load_text(name: &str, text: &str) -> Result<Loaded, Report> {
    load_text_in(&Environment::of_process(), name, text)
}

/// As [`load`], in a given environment.
pub fn load_in(env: &Environment, path: &Path) -> Result<Loaded, Report> {
    load_origin(env, Origin::File(path))
}

/// As [`load_text`], in a given environment.
pub fn load_text_in(env: &Environment, name: &str, text: &str) -> Result<Loaded, Report> {
    load_origin(env, Origin::Text { name, text })
}

fn load_origin(env: &Environment, origin: Origin<'_>) -> Result<Loaded, Report> {
    let mut cx = Context::new(env);
    let document = source::gather(&mut cx, origin);
    let schema = schema::read(&cx, &document);
    let plan = compile::compile(&cx, schema);
    let (sources, diagnostics) = cx.finish();
    let report = Report::new(Arc::new(sources), diagnostics);
    match plan {
        Some(plan) => Ok(Loaded { plan, warnings: report }),
        None => Err(report),
    }
}
